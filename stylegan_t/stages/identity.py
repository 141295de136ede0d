"""The identity of a training run: what decides its result. A run goes on only where all of it is the same."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_t.errors import DataError
from stylegan_t.files import sha256, write_json
from stylegan_t.settings.training import AdversarialTraining, Network

logger = logging.getLogger(__name__)

UNDIGESTED: dict[str, Any] = {
    **dict.fromkeys(("total_kimg", "log_every_kimg", "sample_every_kimg", "save_every_kimg"), True),
    **dict.fromkeys(("keep_states", "num_workers", "guard"), True),
    "compute": {"microbatch_size", "shard_optimizer"},
}
"""Settings that do not change what an image contributes: a run goes on when they change, and on other devices."""

PACKAGE = Path(__file__).parents[1]
REPORTING = {"live.py", "loggers.py", "signals.py", "distributed.py", "checkpoint.py", "rollback.py", "meters.py"}
"""Code of the training that moves and tells its numbers, and does not make them."""
OTHERS = {"judges.py", "model_card.py", "clip.py", "plugins.py", "__init__.py"}
"""Code that serves other stages, or the words beside a model."""
DECISIVE = ("models/*.py", "training/*.py", "losses.py", "ema.py", "randomness.py", "sampling.py")
DECISIVE += ("data/batch.py", "data/embeddings.py", "data/images.py", "data/index.py", "data/loader.py")
DECISIVE += ("data/manifest.py", "data/order.py", "data/pixels.py", "data/shards.py", "data/stream.py", "data/tars.py")
DECISIVE += ("stages/adversarial.py", "stages/reading.py", "stages/start.py")
DECISIVE += ("stages/train_*.py", "stages/finetune_*.py")
CODE = sorted(path for pattern in DECISIVE for path in PACKAGE.glob(pattern) if path.name not in REPORTING | OTHERS)
"""What decides the result besides settings and inputs: a run under other code is another run."""

IDENTITY = "identity.json"


def run_facts(settings: AdversarialTraining, network: Network, seed: int, inputs: Sequence[Path]) -> dict[str, Any]:
    """All that decides a run's result: settings, seed, and the hashes of its inputs and of the code.

    Args:
        network: Of stage one's settings: the later stages build their networks by it.
        inputs: Files, and folders whose files all count.

    Raises:
        DataError: An input is missing.
    """
    files = [(root.parent, file) for root in inputs for file in _files(root)]
    return {
        "settings": settings.model_dump(mode="json", exclude={**UNDIGESTED, "network": True}),
        "network": network.model_dump(mode="json"),
        "seed": seed,
        "inputs": {f"{above.name}/{file.relative_to(above)}": sha256(file) for above, file in files},
        "code": {str(path.relative_to(PACKAGE)): sha256(path) for path in CODE},
    }


def _files(root: Path) -> list[Path]:
    if not root.exists():
        raise DataError(f"{root}: missing; `dvc repro` makes it")
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]


def digest_of(facts: dict[str, Any]) -> str:
    """A short name for a run."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def announce(folder: Path, facts: dict[str, Any]) -> None:
    """Write a new run's identity into its folder; where other runs of the stage exist, say why none of them goes on."""
    if (folder / IDENTITY).is_file():
        return
    others = sorted(folder.parent.glob(f"*/{IDENTITY}"), key=lambda path: path.stat().st_mtime)
    write_json(folder / IDENTITY, facts)
    if others:
        try:
            before = json.loads(others[-1].read_text())
        except ValueError:
            return  # a damaged file of another run says nothing, and does no harm
        changed = differences(before, facts)
        logger.warning(
            "%s: a run of its own, from the start: it differs from the one before (%s) in %s",
            folder.parent.name, others[-1].parent.name, ", ".join(changed),
        )  # fmt: skip


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Dotted names of all that differs between two nested mappings."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if before == after else [place]
    found: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        found += differences(before.get(key), after.get(key), f"{place}.{key}" if place else key)
    return found

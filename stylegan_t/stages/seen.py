"""Where a measuring stage keeps what its judges saw, from its start to its output."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from stylegan_t.device import pick_device
from stylegan_t.evaluation.sets import Share
from stylegan_t.files import alone_in
from stylegan_t.stages.code import code_hash

SECONDS_KEPT = 7 * 24 * 3600.0
"""What was seen under other code, since its last new set."""


@contextmanager
def seen_sets(state: Path, device: torch.device, share: Share, afresh: bool) -> Iterator[Path]:
    """The folder of sets: a stage that is stopped finds it again, one that ends deletes it.

    Args:
        state: The stage's state folder.
        afresh: Forget what a stopped one saw.

    Raises:
        InUse: The same stage runs already.
    """
    sets = state / "sets"
    with alone_in(state) if share.rank == 0 else nullcontext():
        if afresh and share.rank == 0:
            shutil.rmtree(sets, ignore_errors=True)
        if afresh:
            share.wait_for_all()  # none must look before it is gone
        yield sets_folder(sets, device)
        if share.rank == 0:
            shutil.rmtree(sets, ignore_errors=True)


def sets_folder(root: Path, device: torch.device) -> Path:
    """Where sets lie as this code, this torch and this kind of device make them.

    Those of other code are deleted after a week: another version of this program may still be at work with them.
    """
    made_by = hashlib.sha256(f"{code_hash('evaluate')} {torch.__version__}".encode()).hexdigest()[:12]
    folder = root / f"{device.type}-{made_by}"
    for other in root.glob(f"{device.type}-*"):
        if other != folder and time.time() - other.stat().st_mtime > SECONDS_KEPT:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def device_of(name: str, share: Share) -> torch.device:
    """The device of one of several processes: each takes the GPU of its number."""
    device = pick_device(name)
    return torch.device("cuda", share.local) if device.type == "cuda" else device

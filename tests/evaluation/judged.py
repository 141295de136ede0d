"""Judges that run here, folders of pictures, and protocols that fit both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from stylegan_t.evaluation.evaluator import Evaluator
from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.sets import Share
from stylegan_t.files import write_json
from stylegan_t.progress import Progress
from stylegan_t.settings.protocol import Protocol
from tests.bundles import tiny_bundle
from tests.evaluation.world import save_tiny_clip
from tests.inceptions import save_small

CPU = torch.device("cpu")
INCEPTION_FILE = "inception-2015-12-05.pt"


def save_inception(folder: Path, seed: int = 0) -> None:
    save_small(folder / INCEPTION_FILE, seed)
    write_json(folder / "config.json", {"kind": "inception"})


def save_two_judges(folder: Path) -> Path:
    save_inception(folder / "inception")
    save_tiny_clip(folder / "small_clip", seed=2)
    return folder


def a_protocol(**changes: Any) -> Protocol:
    """All metrics, by a CLIP alone unless the measures say otherwise."""
    every = ["frechet", "kernel", "cmmd", "precision_recall", "density_coverage", "clip_score", "retrieval", "best_of"]
    values = {
        "description": "for tests", "reference": "reals", "reference_count": None, "image_px": None,
        "num_images": None, "captions": "all", "caption_seed": 0, "scale": "cosine",
        "best_of": {"num_prompts": 3, "num_pictures": 4}, "judges": {},
        "measures": [{"judge": "small_clip", "resize": None, "metrics": every}],
    }  # fmt: skip
    return Protocol.model_validate(values | changes)


def measure_of(judge: str, *metrics: str, resize: str | None = None) -> dict[str, Any]:
    return {"judge": judge, "resize": resize, "metrics": list(metrics)}


def an_evaluator(judges: Path, work: Path, protocol: Protocol, **changes: Any) -> Evaluator:
    settings = {"batch_size": 8, "seed": 0, "share": Share(), "progress": Progress("test", 1, shown=False)}
    panel = Panel(judges, protocol.measures, CPU, None)
    return Evaluator("test", protocol, panel, work, **(settings | changes))


def random_pictures(count: int, seed: int = 0, px: int = 32) -> list[np.ndarray]:
    """Smooth random colours: a generator's first pictures look no better."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(each).resize((px, px), Image.Resampling.BICUBIC)) for each in small]


def write_pictures(folder: Path, pictures: Sequence[np.ndarray], captions: Sequence[str] | None = None) -> Path:
    """A folder of PNGs, with a metadata.jsonl where there are captions."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}.png" for number in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / name, compress_level=0)
    if captions is not None:
        rows = [{"file_name": name, "text": caption} for name, caption in zip(names, captions, strict=True)]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


CAPTIONS = [f"a picture of {number} things" for number in range(24)]
BY_NAME = {"inception": {"kind": "inception", "weights": "pretrained"}}


def make_folders(root: Path) -> Path:
    """Pictures ``a``, real ones with captions ``b``, a few more of each, a model, judges, and quick protocols."""
    write_pictures(root / "a", random_pictures(20))
    write_pictures(root / "b", random_pictures(24, seed=1), CAPTIONS)
    write_pictures(root / "few", random_pictures(4, seed=2))
    write_pictures(root / "few real", random_pictures(5, seed=3))
    tiny_bundle(root / "model")
    save_two_judges(root / "judges")
    clip = measure_of("small_clip", "kernel", "cmmd", "frechet", "clip_score", "retrieval", "best_of")
    inception = measure_of("inception", "kernel", resize="clean")
    for name, measures in (("mine", [clip]), ("inception", [inception]), ("both", [inception, clip])):
        protocol = a_protocol(judges=BY_NAME, measures=measures)
        (root / f"{name}.yaml").write_text(yaml.safe_dump(protocol.model_dump()))
    return root

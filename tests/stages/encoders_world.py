"""A workspace with raw data for ``fetch_encoders``, and its settings with networks that train in a moment."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stylegan_t.config import Config
from stylegan_t.data import shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, write_manifest, write_shards
from stylegan_t.stages import fetch_encoders
from stylegan_t.stages.fetch_encoders import load_pairs
from stylegan_t.stages.workspace import Workspace

MICRO = Path(fetch_encoders.__file__).parents[1] / "profiles" / "micro.yaml"


def config(**changes: Any) -> Config:
    values = yaml.safe_load(MICRO.read_text())
    for network in (values["fetch_encoders"]["clip"], small_clip(values)):
        network |= {"word_steps": 2, "contrastive_steps": 2}
    values["fetch_encoders"] |= changes
    if "discriminator_vit" in changes:
        for stage in ("train_generator", "finetune_text_encoder", "train_super_resolution"):
            values[stage]["deviations"]["share_vit_pass"] = False
    return Config.model_validate(values)


def small_clip(values: dict[str, Any]) -> dict[str, Any]:
    return values["fetch_encoders"]["judges"]["small_clip"]


def judged_by(**others: Any) -> Config:
    """The small CLIP, and others."""
    return config(judges={"small_clip": small_clip(config().model_dump()), **others})


def make_raw(root: Path) -> Workspace:
    """60 drawn pictures, one of them damaged."""
    allowed = shapes.seen_combinations(shapes.heldout_combinations(0, 0.125))
    scenes = [shapes.scene(i, 0, allowed) for i in range(60)]
    samples = []
    for i, (scene, picture) in enumerate(zip(scenes, shapes.draw(scenes, 32), strict=True)):
        data = b"no picture" if i == 7 else encode(np.ascontiguousarray(picture))
        caption = shapes.caption(scene.combination, scene.template).encode()
        samples.append(Sample(f"{i:04d}", {"png": data, "txt": caption, "json": b"{}"}))
    raw = root / "data" / "raw"
    raw.mkdir(parents=True)
    write_manifest(raw, "raw", write_shards(raw, samples, 40))
    load_pairs.cache_clear()
    return Workspace(root)


def outputs(workspace: Workspace) -> dict[str, bytes]:
    root = workspace.artifacts("fetch_encoders")
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

"""A workspace with a small untrained CLIP, for the stages up to the filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import stylegan_t
from stylegan_t.config import Config, load_config, parse_config
from stylegan_t.models.encoder_files import save_clip
from stylegan_t.models.encoders import small_clip
from stylegan_t.stages.workspace import Workspace


def config(**sections: dict[str, Any]) -> Config:
    """Profile micro with other values in some sections."""
    values = load_config(Path(stylegan_t.__file__).parent / "profiles" / "micro.yaml").model_dump()
    values["evaluate"]["prompt_set"] = "heldout"  # fits every source
    for section, changes in sections.items():
        values[section] |= changes
    return parse_config(values, "micro.yaml")


def folder_source(path: Path, per_shard: int = 1000) -> dict[str, Any]:
    return {
        "source": {"kind": "folder", "path": str(path), "caption_columns": ["text"]},
        "samples_per_shard": per_shard,
    }


def put_clip(workspace: Workspace, seed: int = 0) -> None:
    torch.manual_seed(seed)
    image = {"image_px": 16, "patch_px": 8, "width": 32, "depth": 1, "num_heads": 2, "embed_dim": 8}
    text = {"embed_dim": 8, "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1}}
    save_clip(workspace.players / "clip", small_clip({"image": image, "text": text}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

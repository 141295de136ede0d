"""A workspace with all that the evaluation reads: held-out shapes, encoders and bundles of random weights."""

import io
from pathlib import Path

import numpy as np
import torch
import yaml

import stylegan_t
from stylegan_t.config import Config, parse_config
from stylegan_t.data import shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, write_manifest, write_shards
from stylegan_t.files import write_json
from stylegan_t.models.encoder_files import identity, save_clip, save_shared_vit
from stylegan_t.models.encoders import small_clip
from stylegan_t.stages.workspace import Workspace
from tests.bundles import C_DIM, TEXT_CFG, tiny_bundle

STAGES = {"train_generator": (16, 0), "finetune_text_encoder": (16, 0), "train_super_resolution": (32, 3)}
"""Resolution and seed of each stage's random bundle."""


def micro_config(**evaluate: object) -> Config:
    path = Path(stylegan_t.__file__).parent / "profiles" / "micro.yaml"
    values = yaml.safe_load(path.read_text())
    small = {
        "num_images": 40,
        "num_psi_images": 30,
        "psi": [1.0, 0.5],
        "num_prompts": 3,
        "num_oracle_prompts": 8,
    }
    values["evaluate"] |= small | evaluate
    return parse_config(values, "params.yaml")


def folder_config(**evaluate: object) -> Config:
    values = micro_config(prompt_set="heldout", **evaluate).model_dump()
    values["download"]["source"] = {"kind": "folder", "path": "somewhere", "caption_columns": ["text"]}
    return parse_config(values, "params.yaml")


def save_tiny_clip(folder: Path, seed: int) -> None:
    image = {"image_px": 32, "patch_px": 8, "width": 32, "depth": 1, "num_heads": 2, "embed_dim": C_DIM}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_clip(folder, small_clip({"image": image, "text": {"embed_dim": C_DIM, "text_cfg": TEXT_CFG}}))


def heldout_samples(count: int, seed: int = 0) -> list[Sample]:
    scenes = [shapes.scene(i, seed, shapes.combinations()) for i in range(count)]
    embedding = io.BytesIO()
    np.save(embedding, np.ones(C_DIM, np.float16) / C_DIM**0.5)
    return [
        Sample(
            f"{i:06d}",
            {
                "png": encode(picture),
                "txt": shapes.caption(scene.combination, scene.template).encode(),
                "json": b"{}",
                "npy": embedding.getvalue(),
            },
        )
        for i, (scene, picture) in enumerate(zip(scenes, shapes.draw(scenes, 32), strict=True))
    ]


def write_heldout(workspace: Workspace, samples: list[Sample]) -> None:
    folder = workspace.prepared / "heldout"
    write_manifest(folder, "prepared", write_shards(folder, samples, 1000), encoder="none", image_px=32)


def make_world(root: Path) -> Workspace:
    workspace = Workspace(root)
    write_heldout(workspace, heldout_samples(60))
    save_tiny_clip(workspace.players / "clip", seed=1)
    save_shared_vit(workspace.players / "discriminator_vit", identity(workspace.players / "clip"), [0])
    save_judges(workspace, seed=2)
    for stage, (resolution, seed) in STAGES.items():
        tiny_bundle(workspace.artifacts(stage), resolution, seed, stage)
    return workspace


def save_judges(workspace: Workspace, seed: int) -> None:
    save_tiny_clip(workspace.judges / "clip", seed=seed)
    write_json(workspace.judges / "features" / "config.json", {"kind": "judge_clip"})

"""A workspace with all that the evaluation reads: held-out shapes, encoders and bundles of random weights."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import stylegan_t
from stylegan_t.config import Config, parse_config
from stylegan_t.data import shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, write_manifest, write_shards
from stylegan_t.evaluation import fakes, oracle_metrics
from stylegan_t.models.encoder_files import identity, save_clip, save_shared_vit
from stylegan_t.models.encoders import small_clip
from stylegan_t.models.judges import save_absent
from stylegan_t.stages.workspace import Workspace
from tests.bundles import C_DIM, TEXT_CFG, tiny_bundle

STAGES = {"train_generator": (16, 0), "finetune_text_encoder": (16, 0), "train_super_resolution": (32, 3)}
"""Resolution and seed of each stage's random bundle."""
PROTOCOL = "few.yaml"
ABSENT = "no network here"
"""Why the judge ``inception`` of that protocol is absent."""


def micro_config(**evaluate: object) -> Config:
    path = Path(stylegan_t.__file__).parent / "profiles" / "micro.yaml"
    values = yaml.safe_load(path.read_text())
    small = {
        "protocol": PROTOCOL,
        "num_images": 40,
        "num_psi_images": 30,
        "psi": [1.0, 0.5],
        "num_prompts": 3,
        "num_oracle_prompts": 8,
        "copies": {"num_samples": 10, "num_shown": 2, "num_neighbours": 2, "max_training_images": 30},
    }
    values["evaluate"] |= small | evaluate
    return parse_config(values, "params.yaml")


def folder_config(**evaluate: object) -> Config:
    values = micro_config(prompt_set="heldout", **evaluate).model_dump()
    values["download"]["source"] = {"kind": "folder", "path": "somewhere", "caption_columns": ["text"]}
    return parse_config(values, "params.yaml")


def pairs_config(**evaluate: object) -> Config:
    values = micro_config(prompt_set="heldout", **evaluate).model_dump()
    values["download"]["source"]["kind"] = "shape_pairs"
    return parse_config(values, "params.yaml")


def few(**changes: object) -> dict[str, object]:
    """The protocol ``shapes`` with fewer pictures; beside its judge one that took part in the training, and none."""
    shapes_protocol = Path(stylegan_t.__file__).parent / "protocols" / "shapes.yaml"
    protocol = yaml.safe_load(shapes_protocol.read_text())
    others = [
        {"judge": "player", "resize": None, "metrics": ["frechet", "clip_score"]},
        {"judge": "inception", "resize": "clean", "metrics": ["frechet", "kernel"]},
    ]
    small = {"best_of": {"num_prompts": 4, "num_pictures": 2}}
    return protocol | small | {"measures": protocol["measures"] + others} | changes


@contextmanager
def small_exams() -> Iterator[None]:
    """The oracle looks at fewer latents and the latency is taken fewer times: most of the time, which no test needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle_metrics, "NUM_SPREAD_PROMPTS", 2)
        patch.setattr(oracle_metrics, "NUM_SPREAD_LATENTS", 8)
        patch.setattr(fakes, "LATENCY_RUNS", 3)
        patch.setattr(fakes, "WARM_UP_RUNS", 1)
        yield


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


def write_prepared(folder: Path, samples: list[Sample]) -> None:
    write_manifest(folder, "prepared", write_shards(folder, samples, 1000), encoder="none", image_px=32)


def make_world(root: Path) -> Workspace:
    workspace = Workspace(root)
    write_prepared(workspace.prepared / "heldout", heldout_samples(60))
    write_prepared(workspace.prepared / "train", heldout_samples(40, seed=1))
    save_tiny_clip(workspace.players / "clip", seed=1)
    save_shared_vit(workspace.players / "discriminator_vit", identity(workspace.players / "clip"), [0])
    save_judges(workspace, seed=2)
    (root / PROTOCOL).write_text(yaml.safe_dump(few()))
    for stage, (resolution, seed) in STAGES.items():
        tiny_bundle(workspace.artifacts(stage), resolution, seed, stage)
    return workspace


def save_judges(workspace: Workspace, seed: int) -> None:
    """One of its own, one that is a player too, one that could not be had."""
    save_tiny_clip(workspace.judges / "small_clip", seed=seed)
    shutil.copytree(workspace.players / "clip", workspace.judges / "player", dirs_exist_ok=True)
    save_absent(workspace.judges / "inception", ABSENT)

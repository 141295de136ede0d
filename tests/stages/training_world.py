"""A workspace from which the training stages start: prepared shapes, a small untrained CLIP, and bundles of noise."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_t.config import Config
from stylegan_t.data import shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, write_manifest, write_shards
from stylegan_t.models.bundle import save_bundle, save_discriminator
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoder_files import identity, load_clip, load_discriminator_vit, save_clip, save_shared_vit
from stylegan_t.models.encoders import small_clip, tokens_of
from stylegan_t.models.generator import Generator
from stylegan_t.models.reference import our_generator_name
from stylegan_t.models.weights import save_weights
from stylegan_t.sampling import embed
from stylegan_t.stages.workspace import Workspace
from tests.stages import data_world

C_DIM, NUM_TRAIN, NUM_HELDOUT, IMAGE_PX = 8, 40, 16, 32
NETWORK = {"z_dim": 8, "channel_base": 1024, "channel_max": 32, "num_res_blocks": 1}
SWITCHES = ("residual", "second_order_styles", "text_bypass", "local_batch_norm")
TRAINING = ("train_generator", "finetune_text_encoder", "train_super_resolution")
SHORT = {
    "total_kimg": 0.016, "batch_size": 8, "log_every_kimg": 0.008, "sample_every_kimg": 0.016,
    "save_every_kimg": 0.008, "keep_states": 3, "start_from": None,
}  # fmt: skip


def config(stage: str = "", seed: int = 0, network: dict[str, int] = NETWORK, **changes: Any) -> Config:
    """Profile micro, its training stages of two steps, with other values in one of them."""
    sections: dict[str, dict[str, Any]] = {name: dict(SHORT) for name in TRAINING}
    switches = dict.fromkeys(SWITCHES, True)
    sections["train_generator"] |= {"network": switches | network, "grow_at_kimg": [0.008]}
    if stage:
        sections[stage] |= changes
    return data_world.config(**sections).model_copy(update={"seed": seed})


def samples(first: int, count: int, workspace: Workspace) -> list[Sample]:
    """Drawn shapes with their captions' embeddings by the workspace's CLIP."""
    scenes = [shapes.scene(i, 0, shapes.combinations()) for i in range(first, first + count)]
    captions = [shapes.caption(scene.combination, scene.template) for scene in scenes]
    clip = load_clip(workspace.players / "clip")
    made = []
    pictures = shapes.draw(scenes, IMAGE_PX)
    for i, (caption, picture, c) in enumerate(zip(captions, pictures, embed(clip.text, captions), strict=True)):
        embedding = io.BytesIO()
        np.save(embedding, c.half().numpy()[None])
        fields = {"png": encode(picture), "txt": caption.encode(), "json": b"{}", "npy": embedding.getvalue()}
        made.append(Sample(f"{first + i:06d}", fields))
    return made


def put_data(workspace: Workspace, first: int = 0) -> None:
    """Prepared shards of two data sets by turns, from the picture of a number on."""
    parts = {"train": (first, NUM_TRAIN), "heldout": (first + NUM_TRAIN, NUM_HELDOUT)}
    for split, (start, count) in parts.items():
        folder = workspace.prepared / split
        shutil.rmtree(folder, ignore_errors=True)
        shards = write_shards(folder, samples(start, count, workspace), 16)
        shards = [{**entry, "dataset": "ab"[number % 2]} for number, entry in enumerate(shards)]
        write_manifest(folder, "prepared", shards, encoder=identity(workspace.players / "clip"), image_px=IMAGE_PX)


def make_world(root: Path) -> Workspace:
    """Players and prepared data: all that a training stage with ``start_from`` needs."""
    workspace = Workspace(root)
    captions = [shapes.caption(each, template) for each in shapes.combinations() for template in range(2)]
    tokens = tokens_of(captions)
    image = {"image_px": 32, "patch_px": 8, "width": 32, "depth": 1, "num_heads": 2, "embed_dim": C_DIM}
    text_cfg = {"context_length": 16, "width": 16, "heads": 2, "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        text = {"embed_dim": C_DIM, "text_cfg": text_cfg, "num_tokens": len(tokens)}
        clip = small_clip({"image": image, "text": text})
    clip.text.token_ids.copy_(tokens)
    save_clip(workspace.players / "clip", clip)
    save_shared_vit(workspace.players / "discriminator_vit", identity(workspace.players / "clip"), [0])
    put_data(workspace)
    return workspace


def generator(resolution: int, **changes: int) -> Generator:
    """Random weights; nothing of it is at a start that any other generator shares."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = Generator(**{"resolution": resolution, "c_dim": C_DIM, **NETWORK, **changes})
        made.mapping.w_avg.normal_()
        for name, parameter in made.named_parameters():
            if name.endswith(("bias", "noise_strength", "layer_scale")):
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def put_bundle(workspace: Workspace, folder: Path, resolution: int, *, heads: bool = True, **changes: int) -> Path:
    """A bundle of random weights, whose text encoder is not the players', with a discriminator's heads beside it."""
    clip = load_clip(workspace.players / "clip")
    local_batch_norm = changes.pop("local_batch_norm", True)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        vit = load_discriminator_vit(workspace.players)
        discriminator = Discriminator(vit, C_DIM, local_batch_norm=local_batch_norm)
        for parameter in clip.text.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    facts = {"stage": "elsewhere", "kimg": 1.0, "data": "other data", "encoder": "CLIP", "seed": 5}
    save_bundle(folder, generator(resolution, **changes), clip.text, facts)
    if heads:
        save_discriminator(folder, discriminator)
    return folder


def put_published(file: Path, resolution: int, **changes: int) -> Path:
    """The same generator's weights as a file in the published layout."""
    state = generator(resolution, **changes).state_dict()
    tensors = {published_name(name): value for name, value in state.items()}
    assert all(our_generator_name(published_name(name)) == name for name in state)
    tensors |= {"synthesis.b8.input.transform": torch.eye(3), "synthesis.b8.resample_filter": torch.ones(4, 4)}
    save_weights(file, {name: t.view(1, -1, 1, 1) if name.endswith(".gamma") else t for name, t in tensors.items()})
    return file


def published_name(ours: str) -> str:
    """The published layout's name of one of our generator's weights."""

    def block(found: re.Match[str]) -> str:
        side, number = int(found[1]), int(found[2])
        if side == 8:
            return f"b8.convs1.{number}."
        return f"b{side}.convs1.{number - 1}." if number else f"b{side}.conv0."

    name = re.sub(r"blocks\.(\d+)\.layers\.(\d+)\.(?:layer\.)?", block, ours)
    name = re.sub(r"blocks\.(\d+)\.to_rgb\.", r"b\1.torgb.", name)
    for mine, theirs in (
        ("mapping.w_avg", "mapping.x_avg"), ("mapping.fc", "mapping.mlp.fc"),
        ("synthesis.input.", "synthesis.b8.input."), (".style.linear.", ".affine.proj."), (".layer_scale", ".gamma"),
    ):  # fmt: skip
        name = name.replace(mine, theirs)
    return name

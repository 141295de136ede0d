"""Stage ``fetch_encoders``: the frozen networks as local files, downloaded, copied, or trained on the raw data.

``players/`` is what training uses, ``judges/`` what only measures.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stylegan_t.config import Config
from stylegan_t.data.images import UndecodableImage, decode, square
from stylegan_t.data.shards import Shards
from stylegan_t.device import pick_device
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import sha256, write_json
from stylegan_t.models.encoder_files import identity, load_clip, save_clip, save_shared_vit, save_timm
from stylegan_t.models.judges import save_absent
from stylegan_t.progress import Progress
from stylegan_t.settings.encoders import Judge, PretrainedClip, SharedImageTower, TimmViT, TrainedClip
from stylegan_t.stages.code import code_hash
from stylegan_t.stages.parts import Parts, open_parts
from stylegan_t.stages.pretrained import (
    PretrainedJudge,
    check_names,
    fetch_judge,
    pretrained_clip,
    pretrained_timm,
    timm_spec,
)
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.clip import retrieval_accuracy, train_clip

NAME = "fetch_encoders"
MAX_PICTURE_BYTES = 2**30
"""Most memory for the pictures that a small CLIP is trained on; of more, an even selection is used."""
HELD_BACK_EVERY, NUM_CHOICES = 50, 32
"""One in so many pairs is not trained on; each of those pictures picks its caption out of ``NUM_CHOICES``."""

logger = logging.getLogger(__name__)

Pairs = tuple[UInt8[Tensor, "n 3 px px"], list[str]]
FetchClip = Callable[[str, TrainedClip | PretrainedClip, Path], dict[str, float]]


def run(config: Config, workspace: Workspace, device: str, afresh: bool = False) -> None:
    """Write ``artifacts/fetch_encoders``. A killed run keeps the networks that it had finished.

    Args:
        afresh: Forget those.
    """
    settings = config.fetch_encoders
    check_names(settings)
    fetch = partial(_fetch_clip, workspace=workspace, seed=config.seed, device=pick_device(device))
    vit = settings.discriminator_vit
    with open_parts(workspace.state(NAME, fetch_digest(config, workspace)), afresh=afresh) as made:
        players, judges = made.folder / "players", made.folder / "judges"
        metrics = made.make_named("clip", lambda: fetch("clip", settings.clip, players / "clip"))
        made.make_named("discriminator_vit", lambda: _fetch_discriminator_vit(vit, players))
        for name, judge in settings.judges.items():
            metrics |= _make_judge(made, name, judge, judges / name, fetch)
        write_json(made.folder / "metrics.json", metrics)
        made.publish(workspace.artifacts(NAME))


def fetch_digest(config: Config, workspace: Workspace) -> str:
    """Identity of all that decides the result: settings, code, local weight files and, if needed, the raw data."""
    settings = config.fetch_encoders
    facts: dict[str, Any] = {"settings": settings.model_dump(mode="json"), "code": code_hash(NAME)}
    sections = (settings.clip, settings.discriminator_vit, *settings.judges.values())
    for section in sections:
        weights = section.model_dump().get("weights")
        if weights and Path(weights).is_file():
            facts[weights] = sha256(Path(weights))
    if any(isinstance(section, TrainedClip) for section in sections):
        facts |= {"seed": config.seed, "raw": Shards(workspace.raw).manifest}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


# ---- CLIPs ---------------------------------------------------------------------------------------------------


def _fetch_clip(
    name: str,
    settings: TrainedClip | PretrainedClip,
    folder: Path,
    *,
    workspace: Workspace,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """Write one CLIP; how well it knows pairs that it was not trained on, where it was trained here."""
    if isinstance(settings, PretrainedClip):
        save_clip(folder, pretrained_clip(settings))
        return {}
    images, captions = load_pairs(workspace.raw, settings.image_px)
    held_back = torch.arange(len(images)) % HELD_BACK_EVERY == HELD_BACK_EVERY - 1
    kept = [caption for caption, held in zip(captions, held_back.tolist(), strict=True) if not held]
    clip = train_clip(settings, images[~held_back], kept, seed=seed + settings.seed, device=device, name=name)
    save_clip(folder, clip.cpu())
    if not held_back.any():
        return {}
    unseen = [caption for caption, held in zip(captions, held_back.tolist(), strict=True) if held]
    return {f"{name}_retrieval_1_of_{NUM_CHOICES}": retrieval_accuracy(clip, images[held_back], unseen, NUM_CHOICES)}


@cache
def load_pairs(raw: Path, image_px: int) -> Pairs:
    """All readable pictures, square and of one side, with their captions.

    Raises:
        DataError: None can be read, or the shards are damaged.
    """
    shards = Shards(raw)
    limit = max(1, MAX_PICTURE_BYTES // (3 * image_px**2))
    numbers = np.linspace(0, len(shards) - 1, min(limit, len(shards))).round().astype(int).tolist()
    pictures, captions = [], []
    with Progress("reading pictures", len(numbers)) as progress:
        for number in numbers:
            sample = shards[number]
            try:
                pictures.append(square(decode(sample.image), image_px))
                captions.append(sample.caption)
            except UndecodableImage:
                pass  # the filter stage counts and drops it
            progress.advance()
    if not pictures:
        raise DataError(f"{raw}: no readable picture to train a CLIP on; see `stylegan-t run download`")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), captions


# ---- the discriminator's transformer, and the judges -------------------------------------------------------


def _fetch_discriminator_vit(settings: SharedImageTower | TimmViT, players: Path) -> dict[str, Any]:
    """Write (or refer to) the transformer that the discriminator looks through."""
    folder = players / "discriminator_vit"
    if isinstance(settings, SharedImageTower):
        _check_hooks(settings.hooks, len(load_clip(players / "clip").image_blocks()))
        save_shared_vit(folder, identity(players / "clip"), settings.hooks)
        return {}
    spec = timm_spec(settings.model)
    net = pretrained_timm(settings.model, settings.weights, spec["image_px"])
    _check_hooks(settings.hooks, len(net.blocks))
    save_timm(folder, net, {**spec, "hooks": settings.hooks})
    return {}


def _check_hooks(hooks: list[int], depth: int) -> None:
    if hooks != sorted(set(hooks)) or hooks[0] < 0 or hooks[-1] >= depth:
        raise SettingsError(
            f"fetch_encoders.discriminator_vit.hooks = {hooks}: ascending numbers of the {depth} blocks, "
            f"0 to {depth - 1}"
        )


def _make_judge(made: Parts, name: str, settings: Judge, folder: Path, fetch: FetchClip) -> dict[str, float]:
    """Write a judge; where its weights cannot be downloaded, why: it is tried again whenever the stage runs.

    Nothing else is put in its place, and the other judges measure without it. A local file that is no such network is
    an error, for somebody chose it.
    """
    if isinstance(settings, TrainedClip):
        return made.make_named(f"judge_{name}", lambda: fetch(f"judge_{name}", settings, folder))
    try:
        return made.make_named(f"judge_{name}", lambda: _fetch_judge(settings, folder))
    except DataError as error:
        if Path(settings.weights).is_file():
            raise
        logger.warning(
            "%s: judge %s is absent, and what it measures will be: %s; "
            "`dvc repro --force --single-item %s` tries again", NAME, name, error, NAME,
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)  # half a network
        save_absent(folder, str(error))
        return {}


def _fetch_judge(settings: PretrainedJudge, folder: Path) -> dict[str, Any]:
    fetch_judge(settings, folder)
    return {}

"""Stage ``fetch_encoders``: the frozen networks as local files, downloaded, copied, or trained on the raw data.

``players/`` is what training uses, ``judges/`` what only measures.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from cleanfid.downloads_helper import check_download_inception
from cleanfid.inception_pytorch import FID_WEIGHTS_URL
from jaxtyping import UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from stylegan_t.config import Config
from stylegan_t.data.images import UndecodableImage, decode, square
from stylegan_t.data.shards import Shards
from stylegan_t.device import pick_device
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import atomic, sha256, write_json
from stylegan_t.models.encoder_files import identity, load_clip, save_clip, save_shared_vit, save_timm
from stylegan_t.models.encoders import Clip, clip_from_open_clip
from stylegan_t.models.judges import inception_file, load_inception
from stylegan_t.models.weights import CONFIG
from stylegan_t.progress import Progress
from stylegan_t.settings.encoders import (
    DinoV2Features,
    FetchEncoders,
    InceptionFeatures,
    JudgeClipFeatures,
    PretrainedClip,
    SharedImageTower,
    TimmViT,
    TrainedClip,
)
from stylegan_t.stages.code import code_hash
from stylegan_t.stages.parts import open_parts
from stylegan_t.stages.workspace import Workspace
from stylegan_t.training.clip import retrieval_accuracy, train_clip

NAME = "fetch_encoders"
PRETRAINED = "pretrained"
DINOV2, DINOV2_PX = "vit_large_patch14_dinov2.lvd142m", 224
MAX_PICTURE_BYTES = 2**30
"""Most memory for the pictures that a small CLIP is trained on; of more, an even selection is used."""
HELD_BACK_EVERY, NUM_CHOICES = 50, 32
"""One in so many pairs is not trained on; each of those pictures picks its caption out of ``NUM_CHOICES``."""

Pairs = tuple[UInt8[Tensor, "n 3 px px"], list[str]]


def run(config: Config, workspace: Workspace, device: str, afresh: bool = False) -> None:
    """Write ``artifacts/fetch_encoders``. A killed run keeps the networks that it had finished.

    Args:
        afresh: Forget those.
    """
    settings = config.fetch_encoders
    check_names(settings)
    fetch = partial(_fetch_clip, workspace=workspace, seed=config.seed, device=pick_device(device))
    vit, features = settings.discriminator_vit, settings.judge_features
    with open_parts(workspace.state(NAME, fetch_digest(config, workspace)), afresh=afresh) as made:
        players, judges = made.folder / "players", made.folder / "judges"
        metrics = made.make_named("clip", lambda: fetch("clip", settings.clip, players / "clip"))
        made.make_named("discriminator_vit", lambda: _fetch_discriminator_vit(vit, players))
        metrics |= made.make_named("judge_clip", lambda: fetch("judge_clip", settings.judge_clip, judges / "clip"))
        made.make_named("judge_features", lambda: _fetch_features(features, judges))
        write_json(made.folder / "metrics.json", metrics)
        made.publish(workspace.artifacts(NAME))


def fetch_digest(config: Config, workspace: Workspace) -> str:
    """Identity of all that decides the result: settings, code, local weight files and, if needed, the raw data."""
    settings = config.fetch_encoders
    facts: dict[str, Any] = {"settings": settings.model_dump(mode="json"), "code": code_hash(NAME)}
    sections = (settings.clip, settings.discriminator_vit, settings.judge_clip, settings.judge_features)
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


def check_names(settings: FetchEncoders) -> None:
    """Raise SettingsError for a model that does not exist, before anything is trained or downloaded."""
    for key, section in (("clip", settings.clip), ("judge_clip", settings.judge_clip)):
        if isinstance(section, PretrainedClip):
            _check_clip_name(f"fetch_encoders.{key}", section)
    vit = settings.discriminator_vit
    if isinstance(vit, TimmViT):
        _check_weights("fetch_encoders.discriminator_vit", vit.weights)
        if not timm.is_model(vit.model):
            raise SettingsError(
                f"fetch_encoders.discriminator_vit.model = {vit.model!r}: timm does not know it; "
                "see timm.list_models('vit_*')"
            )
    if not isinstance(settings.judge_features, JudgeClipFeatures):
        _check_weights("fetch_encoders.judge_features", settings.judge_features.weights)


def _check_weights(key: str, weights: str) -> None:
    if weights != PRETRAINED and not Path(weights).is_file():
        raise SettingsError(f"{key}.weights = {weights!r}: no such file; a local file or {PRETRAINED!r}")


def _check_clip_name(key: str, settings: PretrainedClip) -> None:
    model, weights = settings.model, settings.weights
    model_cfg = open_clip.get_model_config(model)
    if model_cfg is None:
        raise SettingsError(f"{key}.model = {model!r}: open_clip does not know it; see open_clip.list_models()")
    if "multimodal_cfg" in model_cfg:
        raise SettingsError(f"{key}.model = {model!r}: its text tower also writes captions; use a plain CLIP")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if Path(weights).is_file():
        return
    if weights not in tags:
        raise SettingsError(f"{key}.weights = {weights!r}: a local file, or one of {', '.join(tags) or 'no tags'}")
    tag = open_clip.get_pretrained_cfg(model, weights)
    if tag.get("quick_gelu", False) != model_cfg.get("quick_gelu", False):
        other = model.removesuffix("-quickgelu") if "quickgelu" in model else f"{model}-quickgelu"
        raise SettingsError(f"{key}.model = {model!r}: {weights} was trained with another activation; use {other}")


def pretrained_clip(settings: PretrainedClip) -> Clip:
    """A CLIP of open_clip's collection with its weights.

    Raises:
        SettingsError: The model needs a tokenizer that we do not have.
        DataError: The weights cannot be had, or do not fit the model.
    """
    what = f"{settings.model} with weights {settings.weights}"
    try:
        model = open_clip.create_model(settings.model, settings.weights, force_custom_text=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(
            f"open_clip's {what} cannot be loaded ({_line(error)}); download the file on a machine with network and "
            "name it as weights"
        ) from None
    model_cfg = open_clip.get_model_config(settings.model)
    assert model_cfg is not None, settings.model
    try:
        return clip_from_open_clip(model, model_cfg)
    except ValueError as error:
        raise SettingsError(f"{settings.model}: {error}") from None


# ---- the discriminator's transformer, and the judge of sets ----------------------------------------------------


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


def _fetch_features(settings: JudgeClipFeatures | InceptionFeatures | DinoV2Features, judges: Path) -> dict[str, Any]:
    """Write the network whose features make Fréchet distances."""
    folder = judges / "features"
    if isinstance(settings, JudgeClipFeatures):
        write_json(folder / CONFIG, {"kind": "judge_clip", "clip": identity(judges / "clip")})
    elif isinstance(settings, DinoV2Features):
        net = pretrained_timm(DINOV2, settings.weights, DINOV2_PX)
        save_timm(folder, net, {**timm_spec(DINOV2), "image_px": DINOV2_PX})
    else:
        fetch_inception(settings, folder)
        write_json(folder / CONFIG, {"kind": "inception", "mode": settings.mode})
    return {}


def pretrained_timm(model: str, weights: str, image_px: int) -> VisionTransformer:
    """A timm vision transformer with its weights, for images of ``image_px``, without a classifier.

    Raises:
        SettingsError: The model is no plain vision transformer.
        DataError: The weights cannot be had, or do not fit the model.
    """
    file = None if weights == PRETRAINED else {"file": weights}
    try:
        net = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=file, num_classes=0, img_size=image_px)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(
            f"timm's {model} with weights {weights} cannot be loaded ({_line(error)}); download the file on a machine "
            "with network and name it as weights"
        ) from None
    if not isinstance(net, VisionTransformer):
        raise SettingsError(
            f"{model}: a {type(net).__name__}; use a plain VisionTransformer, e.g. vit_small_patch16_224.dino"
        )
    return net


def timm_spec(model: str) -> dict[str, Any]:
    """What rebuilds a timm transformer, and how it wants its images."""
    cfg = timm.get_pretrained_cfg(model)
    assert cfg is not None, model
    return {"model": model, "image_px": cfg.input_size[-1], "mean": list(cfg.mean), "std": list(cfg.std)}


def fetch_inception(settings: InceptionFeatures, folder: Path) -> None:
    """Put clean-fid's weights into ``folder`` and see that they load.

    Raises:
        DataError: They cannot be had, or are something else.
    """
    path = folder / inception_file(settings.mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    get: Callable[[Path], object]
    if settings.weights != PRETRAINED:
        get = lambda temporary: shutil.copyfile(settings.weights, temporary)
    elif settings.mode == "legacy_pytorch":
        get = lambda temporary: torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(temporary), progress=False)
    else:
        get = _download_torchscript
    with atomic(path) as temporary:
        try:
            get(temporary)
        except OSError as error:
            raise DataError(
                f"{path.name}: clean-fid's Inception cannot be downloaded ({_line(error)}); get that file on a machine "
                "with network and name it as fetch_encoders.judge_features.weights"
            ) from None
    load_inception(folder, settings.mode)


def _download_torchscript(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        shutil.move(check_download_inception(scratch), path)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

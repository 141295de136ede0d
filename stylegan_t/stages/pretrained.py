"""Pretrained networks as folders of ours: open_clip's CLIPs, timm's transformers, clean-fid's Inceptions."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from cleanfid.downloads_helper import check_download_inception
from cleanfid.inception_pytorch import FID_WEIGHTS_URL
from timm.models.vision_transformer import VisionTransformer

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import atomic, write_json
from stylegan_t.models.encoder_files import save_clip, save_timm
from stylegan_t.models.encoders import Clip, clip_from_open_clip
from stylegan_t.models.judges import inception_file, load_inception
from stylegan_t.models.weights import CONFIG
from stylegan_t.settings.encoders import (
    DinoV2,
    FetchEncoders,
    Inception,
    InceptionPytorch,
    PretrainedClip,
    TimmViT,
    TrainedClip,
)

PRETRAINED = "pretrained"
DINOV2, DINOV2_PX = "vit_large_patch14_dinov2.lvd142m", 224

PretrainedJudge = PretrainedClip | Inception | InceptionPytorch | DinoV2


def check_names(settings: FetchEncoders) -> None:
    """Raise SettingsError for a model that does not exist, before anything is trained or downloaded."""
    if isinstance(settings.clip, PretrainedClip):
        _check_clip_name("fetch_encoders.clip", settings.clip)
    vit = settings.discriminator_vit
    if isinstance(vit, TimmViT):
        _check_weights("fetch_encoders.discriminator_vit", vit.weights)
        if not timm.is_model(vit.model):
            raise SettingsError(
                f"fetch_encoders.discriminator_vit.model = {vit.model!r}: timm does not know it; "
                "see timm.list_models('vit_*')"
            )
    for name, judge in settings.judges.items():
        if not isinstance(judge, TrainedClip):
            check_judge(f"fetch_encoders.judges.{name}", judge)


def check_judge(key: str, settings: PretrainedJudge) -> None:
    """Raise SettingsError for a judge that does not exist; ``key`` names it there."""
    if isinstance(settings, PretrainedClip):
        _check_clip_name(key, settings)
    else:
        _check_weights(key, settings.weights)


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


def fetch_judge(settings: PretrainedJudge, folder: Path) -> None:
    """Write a pretrained network that measures.

    Raises:
        SettingsError: The model needs a tokenizer that we do not have.
        DataError: The weights cannot be had, or do not fit the model.
    """
    if isinstance(settings, PretrainedClip):
        save_clip(folder, pretrained_clip(settings))
    elif isinstance(settings, DinoV2):
        net = pretrained_timm(DINOV2, settings.weights, DINOV2_PX)
        save_timm(folder, net, {**timm_spec(DINOV2), "image_px": DINOV2_PX})
    else:
        fetch_inception(settings, folder)


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


def fetch_inception(settings: Inception | InceptionPytorch, folder: Path) -> None:
    """Put clean-fid's weights into ``folder`` and see that they load.

    Raises:
        DataError: They cannot be had, or are something else.
    """
    mode = "legacy_pytorch" if isinstance(settings, InceptionPytorch) else "clean"
    path = folder / inception_file(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    get: Callable[[Path], object]
    if settings.weights != PRETRAINED:
        get = lambda temporary: shutil.copyfile(settings.weights, temporary)
    elif mode == "legacy_pytorch":
        get = lambda temporary: torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(temporary), progress=False)
    else:
        get = _download_torchscript
    with atomic(path) as temporary:
        try:
            get(temporary)
        except (OSError, HTTPException) as error:
            raise DataError(
                f"{path.name}: clean-fid's Inception cannot be downloaded ({_line(error)}); get that file on a machine "
                "with network and name it as weights"
            ) from None
    load_inception(folder, mode)
    write_json(folder / CONFIG, {"kind": settings.kind})


def _download_torchscript(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        shutil.move(check_download_inception(scratch), path)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

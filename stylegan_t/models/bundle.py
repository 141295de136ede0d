"""File formats of networks: safetensors for the weights, JSON for what rebuilds them. Same network, same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import timm
from open_clip.transformer import VisionTransformer as OpenClipViT
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stylegan_t.errors import DataError
from stylegan_t.files import atomic, sha256, write_json, write_text
from stylegan_t.models.discriminator import Discriminator
from stylegan_t.models.encoders import Clip, Spec, TextEncoder, clip_from_spec
from stylegan_t.models.generator import Generator
from stylegan_t.models.model_card import model_card
from stylegan_t.models.vit import FrozenViT, OpenClipFrozenViT, TimmFrozenViT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
GENERATOR, TEXT_ENCODER, CARD = "generator.safetensors", "text_encoder.safetensors", "README.md"
DISCRIMINATOR = "discriminator.safetensors"

FETCH_AGAIN = "run `stylegan-t run fetch_encoders` again"
BUNDLE_CURE = (
    f"a bundle is the folder that a training stage writes, with {CONFIG}, {GENERATOR} and {TEXT_ENCODER}; "
    "copy it again or repeat that stage"
)

Built = TypeVar("Built", bound=nn.Module)


class Facts(TypedDict):
    """What a bundle says about its own making; all of it ends in the model card."""

    stage: str
    """The training stage that wrote it."""
    kimg: float
    """Thousand images shown in that stage."""
    data: str
    """What it was trained on, in words: "shapes, 17,600 pictures at 32 px"."""
    encoder: str
    """Which CLIP made the text embeddings, in words."""
    seed: int


@dataclass(frozen=True)
class Bundle:
    """A trained model: all that turns captions into pictures."""

    generator: Generator
    text_encoder: TextEncoder
    config: dict[str, Any]
    """``generator`` (arguments), ``text_encoder`` (spec), ``facts``."""


# ---- bundles -------------------------------------------------------------------------------------------------


def save_bundle(folder: Path, generator: Generator, text_encoder: TextEncoder, facts: Facts) -> None:
    """Write the shareable model; its config comes last, so that a folder that has one is whole."""
    config = {
        "generator": {
            "resolution": generator.resolution,
            "z_dim": generator.z_dim,
            "c_dim": generator.c_dim,
            "channel_base": generator.channel_base,
            "channel_max": generator.channel_max,
            "num_res_blocks": generator.num_res_blocks,
        },
        "text_encoder": text_encoder.spec,
        "facts": dict(facts),
    }
    save_weights(folder / GENERATOR, generator.state_dict())
    save_weights(folder / TEXT_ENCODER, text_encoder.state_dict())
    write_text(folder / CARD, model_card(config))
    write_json(folder / CONFIG, config)


def load_bundle(folder: Path) -> Bundle:
    """The model in a folder, on the CPU, in eval mode.

    Raises:
        DataError: No bundle, or a damaged one; the line says what is wrong, where, and what helps.
    """
    config = read_config(folder / CONFIG, ("generator", "text_encoder", "facts"), BUNDLE_CURE)
    generator = build(folder, BUNDLE_CURE, lambda: Generator(**config["generator"]))
    text_encoder = build(folder, BUNDLE_CURE, lambda: TextEncoder(**config["text_encoder"]))
    load_weights(generator, folder / GENERATOR, BUNDLE_CURE)
    load_weights(text_encoder, folder / TEXT_ENCODER, BUNDLE_CURE)
    return Bundle(generator.eval(), text_encoder.eval(), config)


def save_discriminator(folder: Path, discriminator: Discriminator) -> None:
    """Write what the next training stage takes over: the heads with their spectral-norm vectors."""
    save_weights(folder / DISCRIMINATOR, discriminator.trainable_state())


def load_discriminator_state(folder: Path) -> dict[str, Tensor]:
    """The heads that a training stage left in ``folder``, for the discriminator's ``load_trainable_state``.

    Raises:
        DataError: Missing or damaged.
    """
    return read_weights(folder / DISCRIMINATOR, "repeat the training stage that writes it")


# ---- encoders ------------------------------------------------------------------------------------------------


def save_clip(folder: Path, clip: Clip) -> None:
    save_weights(folder / WEIGHTS, clip.state_dict())
    write_json(folder / CONFIG, clip.spec)


def load_clip(folder: Path) -> Clip:
    """The CLIP that ``save_clip`` wrote, frozen, in eval mode, on the CPU.

    Raises:
        DataError: Nothing there, or damaged.
    """
    spec = read_config(folder / CONFIG, ("kind", "text"), FETCH_AGAIN)
    clip = build(folder, FETCH_AGAIN, lambda: clip_from_spec(spec))
    load_weights(clip, folder / WEIGHTS, FETCH_AGAIN)
    return clip.eval().requires_grad_(False)


def save_shared_vit(folder: Path, clip_identity: str, hooks: list[int]) -> None:
    """Note that the discriminator looks through the image tower of the CLIP beside ``folder``."""
    write_json(folder / CONFIG, {"kind": "clip_image_tower", "clip": clip_identity, "hooks": hooks})


def save_timm(folder: Path, net: nn.Module, spec: Spec) -> None:
    """Write a timm transformer; ``spec`` holds its model, image_px, mean, std (and, for the discriminator, hooks)."""
    save_weights(folder / WEIGHTS, net.state_dict())
    write_json(folder / CONFIG, {"kind": "timm", **spec})


def load_timm(folder: Path, config: Spec) -> nn.Module:
    """The network that ``save_timm`` wrote. Raises DataError."""
    net = build(folder, FETCH_AGAIN, lambda: new_timm(config["model"], config["image_px"]))
    load_weights(net, folder / WEIGHTS, FETCH_AGAIN)
    return net


def new_timm(model: str, image_px: int) -> nn.Module:
    """A timm transformer without its classifier, at its random start."""
    return timm.create_model(model, pretrained=False, num_classes=0, img_size=image_px)


def load_discriminator_vit(players: Path) -> FrozenViT:
    """The frozen transformer through which the discriminator looks.

    Args:
        players: The folder that holds ``discriminator_vit`` and ``clip``.

    Raises:
        DataError: Nothing there, or damaged.
    """
    folder = players / "discriminator_vit"
    config = read_config(folder / CONFIG, ("kind", "hooks"), FETCH_AGAIN)
    if config["kind"] == "clip_image_tower":
        clip = load_clip(players / "clip")
        net, mean, std = clip.image, clip.mean, clip.std
    else:
        net, mean, std = load_timm(folder, config), config["mean"], config["std"]
    wrapper = OpenClipFrozenViT if isinstance(net, OpenClipViT) else TimmFrozenViT
    return build(folder, FETCH_AGAIN, lambda: wrapper(net, hooks=config["hooks"], mean=mean, std=std))  # pyright: ignore[reportArgumentType]


def identity(folder: Path) -> str:
    """Hex digest of a network's folder: config and weights. Other weights, another identity.

    Raises:
        DataError: The folder holds no network.
    """
    read_config(folder / CONFIG, (), FETCH_AGAIN)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# ---- weights and configs -------------------------------------------------------------------------------------


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic(path) as temporary:
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary)


def read_weights(path: Path, cure: str) -> dict[str, Tensor]:
    """All tensors of a file. Raises DataError where it is missing or damaged."""
    try:
        return load_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: missing; {cure}") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); {cure}") from None


def load_weights(module: nn.Module, path: Path, cure: str) -> None:
    """Fill ``module`` from a file that must hold exactly its tensors.

    Raises:
        DataError: The file is missing or damaged, or a tensor is missing, unknown or of another shape.
    """
    tensors = read_weights(path, cure)
    wanted = module.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise DataError(f"{path}: tensor {_some(missing)} missing; {cure}")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise DataError(f"{path}: tensor {_some(unknown)} does not belong to this network; {cure}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            given, expected = tuple(tensor.shape), tuple(wanted[name].shape)
            raise DataError(f"{path}: tensor {name} has shape {given}, {CONFIG} says {expected}; {cure}")
    module.load_state_dict(tensors)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def read_config(path: Path, keys: tuple[str, ...], cure: str) -> dict[str, Any]:
    """A JSON object that has ``keys``. Raises DataError."""
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: missing; {cure}") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {cure}") from None
    if not isinstance(config, dict) or any(key not in config for key in keys):
        raise DataError(f"{path}: expected an object with {', '.join(keys) or 'settings'}; {cure}")
    return config


def build(folder: Path, cure: str, make: Callable[[], Built]) -> Built:
    """What ``make`` builds from a config. Raises DataError where the config does not describe a network."""
    try:
        return make()
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder / CONFIG}: does not describe a network ({reason}); {cure}") from None

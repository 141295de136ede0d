"""The folders of encoders that ``fetch_encoders`` writes and everything else reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import timm
from open_clip.transformer import VisionTransformer as OpenClipViT
from torch import nn

from stylegan_t.files import sha256, write_json
from stylegan_t.models.encoders import Clip, Spec, clip_from_spec
from stylegan_t.models.vit import FrozenViT, OpenClipFrozenViT, TimmFrozenViT
from stylegan_t.models.weights import CONFIG, build, load_weights, read_config, save_weights

WEIGHTS = "model.safetensors"
FETCH_AGAIN = "run `stylegan-t run fetch_encoders` again"


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


def weights_sha256(folder: Path) -> frozenset[str]:
    """Hex digests of the weight files in a network's folder: the same weights are found under any config."""
    return frozenset(sha256(path) for path in folder.rglob("*") if path.suffix in (".safetensors", ".pt", ".pth"))


def player_weights(players: Path) -> frozenset[str]:
    """Digests of the weights of all networks that training uses."""
    return frozenset().union(*(weights_sha256(folder) for folder in players.iterdir() if folder.is_dir()))

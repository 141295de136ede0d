"""Networks that only measure. Training code may not import this module: what guides must not judge."""

from __future__ import annotations

import pickle
import warnings
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cleanfid.inception_pytorch import FID_WEIGHTS_URL, InceptionV3
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import write_json
from stylegan_t.models.encoder_files import FETCH_AGAIN, load_clip, load_timm
from stylegan_t.models.encoders import Clip, normalize
from stylegan_t.models.resize import resize as by_area
from stylegan_t.models.weights import CONFIG, read_config

TORCHSCRIPT_INCEPTION = "inception-2015-12-05.pt"
PYTORCH_INCEPTION = f"checkpoints/{FID_WEIGHTS_URL.rsplit('/', 1)[1]}"
RESIZES: dict[str, tuple[str | None, ...]] = {
    "inception": ("clean", "legacy_tensorflow"),
    "inception_pytorch": ("legacy_pytorch",),
}
"""Kinds of networks that need a resize of clean-fid's, and which."""


class Features(nn.Module, ABC):
    """Images to feature vectors, whose distributions are compared.

    Attributes:
        resize: How pictures come to the network's input, in words.
    """

    resize: str

    def prepare(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 a b"]:
        """What the network takes of images in [-1, 1]: at its input size, where pictures of all sizes share a batch.

        Without an input size, for a network that resizes by itself, they stay as large as they are.
        """
        return images

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 a b"]) -> Float[Tensor, "n d"]:
        """The features of each image that was prepared."""


BICUBIC = "centre square, bicubic, antialiased,"


def bicubic(images: Float[Tensor, "n 3 h w"], px: int) -> Float[Tensor, "n 3 px px"]:
    """The centre squares at a side of ``px``, as pretrained networks were shown them."""
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == px:
        return square
    return F.interpolate(square, size=(px, px), mode="bicubic", antialias=True).clamp(-1, 1)


class ClipFeatures(Features):
    """The image embedding of a CLIP, which sees pictures as its training showed them to it."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip, self.trained_here = clip, clip.spec["kind"] == "small"
        self.resize = f"area, to {clip.image_px} px" if self.trained_here else f"{BICUBIC} to {clip.image_px} px"

    def prepare(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 px px"]:
        return (by_area if self.trained_here else bicubic)(images, self.clip.image_px)

    def forward(self, images: Float[Tensor, "n 3 px px"]) -> Float[Tensor, "n d"]:
        return self.clip.encode_image(images)


class InceptionFeatures(Features):
    """Inception's pooled features with clean-fid's resize: what FID is defined on.

    Args:
        net: clean-fid's network; takes values of 0 to 255.
        mode: clean-fid's name of a protocol, which fixes the resize.
    """

    def __init__(self, net: nn.Module, mode: str) -> None:
        super().__init__()
        self.net, self.mode, self.resize = net, mode, f"clean-fid's {mode}"

    def prepare(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 a b"]:
        pixels = images.add(1).mul(127.5).round().clamp(0, 255)
        if self.mode == "legacy_tensorflow":  # there the network itself resizes
            return pixels
        return resized_by_cleanfid(pixels.byte(), self.mode).to(images.device)

    def forward(self, images: Float[Tensor, "n 3 a b"]) -> Float[Tensor, "n d"]:
        return self.net(images).flatten(1)


def resized_by_cleanfid(pixels: UInt8[Tensor, "n 3 h w"], mode: str) -> Float[Tensor, "n 3 299 299"]:
    """Pictures at Inception's size, 0 to 255, on the CPU: each by clean-fid's own function, several at once."""
    with warnings.catch_warnings():  # it sets filters of its own for the whole process
        resize = build_resizer(mode)
    pictures = list(pixels.permute(0, 2, 3, 1).cpu().numpy())
    return torch.from_numpy(np.stack(list(_threads().map(resize, pictures)))).permute(0, 3, 1, 2)


@cache
def _threads() -> ThreadPoolExecutor:
    """Pillow resizes without Python's lock. As many as torch has, for torchrun divides the cores among processes."""
    return ThreadPoolExecutor(torch.get_num_threads())


class ScaledInception(nn.Module):
    """pytorch-fid's port of Inception, which takes values of 0 to 1, behind clean-fid's scale of 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.net = InceptionV3(output_blocks=[3], resize_input=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self.net(images / 255)[0].flatten(1)


class TimmFeatures(Features):
    """The class token of a timm transformer."""

    def __init__(self, net: nn.Module, image_px: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.net, self.image_px, self.mean, self.std = net, image_px, mean, std
        self.resize = f"{BICUBIC} to {image_px} px"

    def prepare(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 px px"]:
        return bicubic(images, self.image_px)

    def forward(self, images: Float[Tensor, "n 3 px px"]) -> Float[Tensor, "n d"]:
        return self.net(normalize(images, self.mean, self.std))


def save_absent(folder: Path, reason: str) -> None:
    """Note that a judge cannot be had, and why: what it would measure is then absent, with the reason."""
    write_json(folder / CONFIG, {"kind": "absent", "reason": reason})


def why_absent(judges: Path, name: str) -> str | None:
    """Why ``judges`` has no network of this name; None where it has one."""
    if not (judges / name / CONFIG).is_file():
        folders = sorted(path.parent.name for path in judges.glob(f"*/{CONFIG}"))
        there = [other for other in folders if why_absent(judges, other) is None]
        return f"no judge {name!r} in {judges.name}/ (there: {', '.join(there) or 'none'})"
    config = read_config(judges / name / CONFIG, ("kind",), FETCH_AGAIN)
    return str(config["reason"]) if config["kind"] == "absent" else None


def load_judge(folder: Path, resize: str | None) -> Features:
    """A network that measures, frozen, in eval mode, on the CPU.

    Args:
        folder: As ``fetch_encoders`` writes it.
        resize: clean-fid's mode, for an Inception; None for others.

    Raises:
        SettingsError: This network has no such resize.
        DataError: Nothing there, or damaged.
    """
    config = read_config(folder / CONFIG, ("kind",), FETCH_AGAIN)
    allowed = RESIZES.get(config["kind"], (None,))
    if resize not in allowed:
        raise SettingsError(
            f"judge {folder.name!r} ({config['kind']}) with resize: {resize or 'null'}; use "
            + " or ".join(each or "null" for each in allowed)
        )
    if resize:
        features: Features = InceptionFeatures(load_inception(folder, resize), resize)
    elif config["kind"] == "timm":
        net = load_timm(folder, config)
        features = TimmFeatures(net, config["image_px"], config["mean"], config["std"])
    else:
        features = ClipFeatures(load_clip(folder))
    return features.eval().requires_grad_(False)


def load_inception(folder: Path, mode: str) -> nn.Module:
    """clean-fid's network for a mode, from the local file in ``folder``. Raises DataError."""
    path = folder / inception_file(mode)
    if not path.is_file():
        raise DataError(f"{path}: missing; {FETCH_AGAIN}")
    try:
        if mode != "legacy_pytorch":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the file is TorchScript, which torch deprecates
                return InceptionV3W(str(folder), download=False, resize_inside=mode == "legacy_tensorflow")
        torch.load(path, map_location="cpu", weights_only=True)  # clean-fid would run whatever a pickle says
        hub = torch.hub.get_dir()
        torch.hub.set_dir(folder)  # where clean-fid's constructor looks before it downloads
        try:
            return ScaledInception()
        finally:
            torch.hub.set_dir(hub)
    except (RuntimeError, ValueError, EOFError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or ["cut off"])[0]
        raise DataError(f"{path}: not clean-fid's Inception ({reason}); {FETCH_AGAIN}") from None


def inception_file(mode: str) -> str:
    """Where in ``features`` the weights of a clean-fid mode lie."""
    return PYTORCH_INCEPTION if mode == "legacy_pytorch" else TORCHSCRIPT_INCEPTION

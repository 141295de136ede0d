"""Networks that only measure. Training code may not import this module: what guides must not judge."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path

import torch
import torch.nn.functional as F
from cleanfid.inception_pytorch import FID_WEIGHTS_URL, InceptionV3
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from jaxtyping import Float
from torch import Tensor, nn

from stylegan_t.errors import DataError
from stylegan_t.models.encoder_files import FETCH_AGAIN, load_clip, load_timm
from stylegan_t.models.encoders import Clip, normalize
from stylegan_t.models.weights import CONFIG, read_config

TORCHSCRIPT_INCEPTION = "inception-2015-12-05.pt"
PYTORCH_INCEPTION = f"checkpoints/{FID_WEIGHTS_URL.rsplit('/', 1)[1]}"


class Features(nn.Module, ABC):
    """Images in [-1, 1] of any size to feature vectors, whose distributions are compared."""

    @abstractmethod
    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """The features of each image."""


class ClipFeatures(Features):
    """The image embedding of the judge's CLIP."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self.clip.encode_image(images)


class InceptionFeatures(Features):
    """Inception's pooled features with clean-fid's resize: what FID is defined on.

    Args:
        net: clean-fid's network; takes values of 0 to 255.
        mode: clean-fid's name of a protocol, which fixes the resize.
    """

    def __init__(self, net: nn.Module, mode: str) -> None:
        super().__init__()
        self.net, self.mode = net, mode

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        resize = build_resizer(self.mode)
        pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        resized = [torch.from_numpy(resize(picture)).permute(2, 0, 1).float() for picture in pixels]
        features = self.net(torch.stack(resized).to(images.device))
        return (features[0] if isinstance(features, list) else features).flatten(1)


class ScaledInception(nn.Module):
    """pytorch-fid's port of Inception, which takes values of 0 to 1, behind clean-fid's scale of 0 to 255."""

    def __init__(self) -> None:
        super().__init__()
        self.net = InceptionV3(output_blocks=[3], resize_input=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return self.net(images / 255)[0].flatten(1)


class TimmFeatures(Features):
    """The class token of a timm transformer, bicubic antialiased resize."""

    def __init__(self, net: nn.Module, image_px: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.net, self.image_px, self.mean, self.std = net, image_px, mean, std

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        resized = F.interpolate(images, size=(self.image_px,) * 2, mode="bicubic", antialias=True).clamp(-1, 1)
        return self.net(normalize(resized, self.mean, self.std))


def load_judge_clip(judges: Path) -> Clip:
    """The CLIP that measures how well pictures fit their captions. Raises DataError."""
    return load_clip(judges / "clip")


def load_judge_features(judges: Path) -> Features:
    """The network whose features make Fréchet distances, frozen, in eval mode, on the CPU.

    Args:
        judges: The folder that holds ``features`` and ``clip``.

    Raises:
        DataError: Nothing there, or damaged.
    """
    folder = judges / "features"
    config = read_config(folder / CONFIG, ("kind",), FETCH_AGAIN)
    if config["kind"] == "judge_clip":
        features: Features = ClipFeatures(load_judge_clip(judges))
    elif config["kind"] == "inception":
        features = InceptionFeatures(load_inception(folder, config["mode"]), config["mode"])
    else:
        net = load_timm(folder, config)
        features = TimmFeatures(net, config["image_px"], config["mean"], config["std"])
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
        hub = torch.hub.get_dir()
        torch.hub.set_dir(folder)  # where clean-fid's constructor looks before it downloads
        try:
            return ScaledInception()
        finally:
            torch.hub.set_dir(hub)
    except (RuntimeError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not clean-fid's Inception ({str(error).splitlines()[0]}); {FETCH_AGAIN}") from None


def inception_file(mode: str) -> str:
    """Where in ``features`` the weights of a clean-fid mode lie."""
    return PYTORCH_INCEPTION if mode == "legacy_pytorch" else TORCHSCRIPT_INCEPTION

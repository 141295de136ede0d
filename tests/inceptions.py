"""Networks in the place of FID's, with the interface that clean-fid expects of its TorchScript file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FEATURES = 2048


class StandIn(nn.Module):
    """Takes values of 0 to 255; resizes inside, as ``legacy_tensorflow`` has it, or lets ``layers`` be called alone."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        return self.layers((x - 128) / 128)


def save_small(path: Path, seed: int = 0) -> None:
    """A network of a few layers, whose features differ from picture to picture."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = nn.Linear(512, NUM_FEATURES)
        last.weight.data *= 10  # features of about the size of Inception's
        layers = nn.Sequential(
            nn.Conv2d(3, 16, 7, stride=8), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=4), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), last, nn.ReLU(),
        )  # fmt: skip
    save(path, layers)


def save(path: Path, layers: nn.Module) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates what clean-fid's file is made with
        torch.jit.script(StandIn(layers.eval())).save(str(path))

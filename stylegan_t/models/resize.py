"""Resizing by area."""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resize(images: Float[Tensor, "n c h w"], px: int) -> Float[Tensor, "n c px px"]:
    """Images of side ``px``; each pixel is the mean of the pixels that it touches.

    On a GPU, torch's own gradient of this adds up in no fixed order and refuses to run where repeatable results are
    asked for (``torch.use_deterministic_algorithms``): there it is written as matrix products.
    """
    if images.shape[2:] == (px, px):
        return images
    if torch.are_deterministic_algorithms_enabled():
        return _by_products(images, px)
    return F.interpolate(images, size=(px, px), mode="area")


def _by_products(images: Float[Tensor, "n c h w"], px: int) -> Float[Tensor, "n c px px"]:
    down, right = (_touched(side, px).to(images.device, images.dtype) for side in images.shape[2:])
    return (down @ images @ right.T) / (down.sum(dim=1)[:, None] * right.sum(dim=1))


@cache
def _touched(side: int, px: int) -> Float[Tensor, "px side"]:
    """Row i has a one for each old pixel that new pixel i touches."""
    new, old = torch.arange(px)[:, None], torch.arange(side)
    first, end = new * side // px, -(-(new + 1) * side // px)
    return ((old >= first) & (old < end)).float()

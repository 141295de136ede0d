"""Reads a drawn picture's attributes back from its pixels: no network, so text alignment is an exact number.

The background is the border's colour. How far each pixel has gone from there to the object's colour is a soft mask,
which is correlated with every shape at every size and position. A picture whose mask resembles none of them, or whose
border has no one colour, shows nothing: every attribute is None.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stylegan_t.data import shapes
from stylegan_t.data.images import to_signed
from stylegan_t.data.shapes import COLOURS, HALF_EXTENTS, MARGIN, SHAPES, Combination, Scene

FIT_PX = 32
"""Larger pictures are reduced to this before the fit."""
SHARPNESS = ((0.0, 64), (0.04, 32))
"""Blur (standard deviation in picture sides) and positions per picture side of the templates: crisp and soft ones."""
MIN_CORRELATION = 0.55
"""Least correlation of mask and template at which an object counts as shown."""
MIN_CONTRAST = 0.2
"""Least distance between object and background, each channel in [0, 1]."""
MAX_COLOUR_DISTANCE = 0.45
"""A colour further than this from every name of the palette has none."""
BORDER_TOLERANCE = 0.3
MIN_BORDER_SHARE = 0.6
"""Share of the border that must lie within the tolerance of its median colour."""
OBJECT_SHARE = 0.04
"""Less than the smallest object's share of a picture: so many pixels surely show it."""


class Reading(NamedTuple):
    """What a picture shows; all None where it shows no object on a background."""

    shape: str | None
    colour: str | None
    background: str | None
    size: str | None
    x: float | None
    """Centre, rightwards, in [0, 1]."""
    y: float | None
    """Centre, downwards, in [0, 1]."""
    rmse: float | None
    """Root mean square difference (0…255) between the picture and a drawing of what was read."""

    @property
    def combination(self) -> Combination | None:
        if self.shape is None or self.colour is None or self.background is None or self.size is None:
            return None
        return Combination(self.shape, self.colour, self.background, self.size)


NOTHING = Reading(None, None, None, None, None, None, None)


class _Templates(NamedTuple):
    """Every shape, size and position, as unit vectors without mean."""

    masks: Float[Tensor, "k pixels"]
    kinds: Int[np.ndarray, "k 2"]
    centres: Float[np.ndarray, "k 2"]


def read_attributes(images: Float[Tensor, "n 3 p p"] | UInt8[Tensor, "n 3 p p"]) -> list[Reading]:
    """One reading per picture.

    Args:
        images: In [-1, 1], or bytes; any resolution from 16 px on.
    """
    signed = to_signed(images) if images.dtype == torch.uint8 else images
    full = signed.detach().float().cpu().add(1).div(2).clamp(0, 1)
    small = F.adaptive_avg_pool2d(full, FIT_PX) if full.shape[-1] > FIT_PX else full
    back, uniform = border_colour(small)
    front, contrast = _object_colour(small, back)
    correlation, best = _fit(_soft_mask(small, back, front), small.shape[-1])
    back_name, back_distance = nearest_name(back)
    front_name, front_distance = nearest_name(front)
    shown = uniform & (contrast > MIN_CONTRAST) & (correlation > MIN_CORRELATION)
    shown &= (back_distance < MAX_COLOUR_DISTANCE) & (front_distance < MAX_COLOUR_DISTANCE)
    templates, names = _templates(small.shape[-1]), list(COLOURS)
    readings = []
    for i in range(len(full)):
        if not shown[i] or front_name[i] == back_name[i]:
            readings.append(NOTHING)
            continue
        shape, size = templates.kinds[best[i]]
        x, y = templates.centres[best[i]].tolist()
        combination = Combination(SHAPES[shape], names[front_name[i]], names[back_name[i]], list(HALF_EXTENTS)[size])
        redrawn = shapes.draw([Scene(combination, x, y, 0)], full.shape[-1])[0]
        difference = full[i].permute(1, 2, 0) * 255 - torch.from_numpy(redrawn)
        readings.append(Reading(*combination, x, y, float(difference.square().mean().sqrt())))
    return readings


def border_colour(images: Float[Tensor, "n 3 p p"]) -> tuple[Float[Tensor, "n 3"], Tensor]:
    """The border's median colour, and whether most of the border has it."""
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 1:-1, 0], images[..., 1:-1, -1]], dim=-1)
    colour = border.median(dim=-1).values
    near = (border - colour[..., None]).norm(dim=1) < BORDER_TOLERANCE
    return colour, near.float().mean(dim=1) >= MIN_BORDER_SHARE


def _object_colour(
    images: Float[Tensor, "n 3 p p"], back: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Median colour of the pixels that surely differ from the background, and their distance from it."""
    pixels = images.flatten(2)
    distance = (pixels - back[..., None]).norm(dim=1)
    sure = max(1, int(OBJECT_SHARE * pixels.shape[-1]))
    typical = distance.topk(sure, dim=1).values.median(dim=1).values
    belongs = distance > 0.6 * typical[:, None]
    colour = pixels.masked_fill(~belongs[:, None], torch.nan).nanmedian(dim=-1).values
    return colour.nan_to_num(0.0), typical


def _soft_mask(
    images: Float[Tensor, "n 3 p p"], back: Float[Tensor, "n 3"], front: Float[Tensor, "n 3"]
) -> Float[Tensor, "n p p"]:
    """How far each pixel lies on the way from background to object, 0 to 1."""
    way = front - back
    along = torch.einsum("nchw,nc->nhw", images - back[..., None, None], way)
    return (along / way.square().sum(dim=1).clamp(min=1e-6)[:, None, None]).clamp(0, 1)


def _fit(mask: Float[Tensor, "n p p"], image_px: int) -> tuple[Float[Tensor, " n"], Int[np.ndarray, " n"]]:
    """Correlation with the best template, and its number."""
    flat = mask.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    scores = flat @ _templates(image_px).masks.T
    best, number = scores.max(dim=1)
    return best / flat.norm(dim=1).clamp(min=1e-6), number.numpy()


@cache
def _templates(image_px: int) -> _Templates:
    masks, kinds, centres = [], [], []
    for (blur, positions), (size, half_extent) in product(SHARPNESS, enumerate(HALF_EXTENTS.values())):
        room = half_extent + MARGIN
        steps = np.linspace(room, 1 - room, int(np.ceil((1 - 2 * room) * positions)) + 1)
        x, y = (axis.ravel() for axis in np.meshgrid(steps, steps))
        for shape, name in enumerate(SHAPES):
            chunks = [
                shapes.coverage(name, x[i : i + 64], y[i : i + 64], half_extent, image_px) for i in range(0, len(x), 64)
            ]
            masks.append(blurred(torch.from_numpy(np.concatenate(chunks)), blur * image_px))
            kinds += [(shape, size)] * len(x)
            centres.append(np.stack([x, y], axis=1))
    flat = torch.cat(masks).flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return _Templates(F.normalize(flat, dim=1), np.array(kinds), np.concatenate(centres))


def blurred(masks: Float[Tensor, "k p p"], sigma: float) -> Float[Tensor, "k p p"]:
    """Masks under a Gaussian blur of ``sigma`` pixels; 0 = as they are."""
    if not sigma:
        return masks
    points = torch.arange(masks.shape[-1], dtype=torch.float32)
    kernel = torch.exp(-((points[:, None] - points) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum(dim=1, keepdim=True)
    return kernel @ masks @ kernel.T


@cache
def _palette() -> Float[Tensor, "colours 3"]:
    return torch.tensor(list(COLOURS.values())) / 255


def nearest_name(colours: Float[Tensor, "n 3"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Number of the nearest colour of the palette, and how far it is; channels in [0, 1]."""
    distance, number = torch.cdist(colours, _palette()).min(dim=1)
    return number, distance

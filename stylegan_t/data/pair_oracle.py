"""Reads both figures of a drawn pair back from the pixels: no network, so the binding of attributes is an exact number.

The background is the border's colour. Whatever differs from it makes a mask, in which figures are sought by their
correlation with every shape, each within its own window; the best place and the best one clear of it are looked at
again, with a mask that follows the figure's own colour.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from stylegan_t.data import shapes
from stylegan_t.data.images import to_signed
from stylegan_t.data.oracle import blurred, border_colour, nearest_name
from stylegan_t.data.shape_pairs import HALF_EXTENT, Figure
from stylegan_t.data.shapes import COLOURS, SHAPES

FIT_PX = 64
"""Pictures are brought to this size before the fit."""
COARSE_PX = 32
"""Their size while figures are sought: the fit of every place would take most of the time."""
WINDOW = 0.48
"""Side of the window in which mask and shape are compared, in picture sides: a figure with the background that the data
leave around it."""
SEARCH_PX = 3
"""How far from where it was found in the coarse mask a figure may lie."""
BLURS = (0.0, 0.03, 0.06)
"""Standard deviation of the templates' blur in picture sides: crisp and soft ones."""
SATURATION = 0.5
"""Distance from the background (each channel in [0, 1]) at which a pixel surely is no background; less than any two
colours of the palette are apart."""
FLATTEST = 0.03
"""Least variance in a window: below it there is nothing to correlate."""
CLEARANCE = 1.5 * HALF_EXTENT
"""Least distance of two figures' centres, in picture sides; the data keep more."""
CORE = 0.7 * HALF_EXTENT
"""Radius, in picture sides, within which a figure's colour is read."""
CORE_SHARE = 0.3
"""Share of the core that every shape covers, wherever within the search its centre is taken to be."""
MIN_CORRELATION = 0.7
"""Least correlation of mask and shape at which a figure counts as shown."""
MIN_CONTRAST = 0.2
MAX_COLOUR_DISTANCE = 0.45
"""A colour further than this from every name of the palette has none."""


class Seen(NamedTuple):
    """A figure of a picture."""

    figure: Figure
    x: float
    """Centre, rightwards, in [0, 1]."""
    y: float
    """Centre, downwards, in [0, 1]."""


class PairReading(NamedTuple):
    """What a picture shows."""

    background: str | None
    """None where the border has no one colour; then no figure is read either."""
    one: Seen | None
    """The figure that resembles a shape most; None where there is none."""
    other: Seen | None
    """The one that does so next, clear of the first; None where there is none."""

    @property
    def figures(self) -> list[Seen]:
        return [seen for seen in (self.one, self.other) if seen is not None]


def read_pairs(images: Float[Tensor, "n 3 p p"] | UInt8[Tensor, "n 3 p p"]) -> list[PairReading]:
    """One reading per picture; of more than two figures, the two that resemble shapes most.

    Args:
        images: In [-1, 1], or bytes; any resolution from 16 px on.
    """
    signed = to_signed(images) if images.dtype == torch.uint8 else images
    full = signed.detach().float().cpu().add(1).div(2).clamp(0, 1)
    small = F.adaptive_avg_pool2d(full, FIT_PX) if full.shape[-1] > FIT_PX else _enlarged(full)
    back, uniform = border_colour(full)
    back_name, back_distance = nearest_name(back)
    uniform &= back_distance < MAX_COLOUR_DISTANCE
    difference = small - back[:, :, None, None]
    mask = difference.norm(dim=1).div(SATURATION).clamp(max=1)
    places = _candidates(F.adaptive_avg_pool2d(mask, COARSE_PX))
    seen = [_look(difference, back, place) for place in places.unbind(dim=1)]
    names = list(COLOURS)
    return [
        PairReading(names[back_name[i]], *sorted((each[i] for each in seen), key=lambda s: s is None))
        if uniform[i]
        else PairReading(None, None, None)
        for i in range(len(full))
    ]


def _enlarged(images: Float[Tensor, "n 3 p p"]) -> Float[Tensor, "n 3 q q"]:
    return F.interpolate(images, size=FIT_PX, mode="bilinear", align_corners=False)


def _candidates(mask: Float[Tensor, "n q q"]) -> Int[Tensor, "n 2 2"]:
    """(row, column), in pixels of the fit, of the two places most like a shape that lie clear of each other."""
    scores = _correlations(F.pad(mask, [_reach(COARSE_PX)] * 4), COARSE_PX).amax(dim=1)
    axis = torch.arange(COARSE_PX)
    places = []
    for _ in range(2):
        place = scores.flatten(1).argmax(dim=1)
        row, column = place // COARSE_PX, place % COARSE_PX
        places.append(torch.stack([row, column], dim=1))
        squared = (axis[:, None] - row[:, None, None]) ** 2 + (axis - column[:, None, None]) ** 2
        scores = scores.masked_fill(squared < (CLEARANCE * COARSE_PX) ** 2, -1)
    return torch.stack(places, dim=1) * (FIT_PX // COARSE_PX)


def _look(
    difference: Float[Tensor, "n 3 q q"], back: Float[Tensor, "n 3"], places: Int[Tensor, "n 2"]
) -> list[Seen | None]:
    """The figure near each picture's place; None where nothing there has a shape and a colour.

    Args:
        difference: From the background's colour.
        back: The background's colour.
    """
    reach = _reach(FIT_PX) + SEARCH_PX
    padded = F.pad(difference, [reach] * 4)
    corners = places.tolist()
    side = 2 * reach + 1
    patches = torch.stack([p[:, r : r + side, c : c + side] for p, (r, c) in zip(padded, corners, strict=True)])
    front = _core_colour(patches)
    contrast = front.norm(dim=1)
    away = (patches - front[:, :, None, None]).norm(dim=1) / contrast.clamp(min=1e-6)[:, None, None]
    best, number = _correlations((1 - away).clamp(min=0), FIT_PX).flatten(1).max(dim=1)
    colour, colour_distance = nearest_name(back + front)
    shown = (contrast > MIN_CONTRAST) & (best > MIN_CORRELATION) & (colour_distance < MAX_COLOUR_DISTANCE)
    shown &= colour != nearest_name(back)[0]
    return _named(shown, number, colour, corners)


def _named(
    shown: Bool[Tensor, " n"], number: Int[Tensor, " n"], colour: Int[Tensor, " n"], places: list[list[int]]
) -> list[Seen | None]:
    """Figures from the number of the best (template, row, column) of the search around each place."""
    steps = 2 * SEARCH_PX + 1
    names, seen = list(COLOURS), []
    for i, (row, column) in enumerate(places):
        template, offset = divmod(int(number[i]), steps**2)
        down, right = (step - SEARCH_PX for step in divmod(offset, steps))
        figure = Figure(SHAPES[template % len(SHAPES)], names[colour[i]])
        x, y = (column + right + 0.5) / FIT_PX, (row + down + 0.5) / FIT_PX
        seen.append(Seen(figure, x, y) if shown[i] else None)
    return seen


def _core_colour(patches: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3"]:
    """Median of the pixels around the middle that surely differ from the background (0)."""
    axis = torch.arange(patches.shape[-1]) - patches.shape[-1] // 2
    core = patches[:, :, axis[:, None] ** 2 + axis**2 <= (CORE * FIT_PX) ** 2]
    distance = core.norm(dim=1)
    sure = distance.topk(int(CORE_SHARE * core.shape[-1]), dim=1).values
    belongs = distance > 0.6 * sure.median(dim=1).values[:, None]
    return core.masked_fill(~belongs[:, None], torch.nan).nanmedian(dim=-1).values.nan_to_num(0.0)


def _reach(image_px: int) -> int:
    """Pixels of a window on each side of its middle one."""
    return int(WINDOW * image_px) // 2


def _correlations(mask: Float[Tensor, "n s s"], image_px: int) -> Float[Tensor, "n k t t"]:
    """Correlation of each template with each window that lies wholly within the mask.

    Args:
        mask: Part of a picture, or more than it.
        image_px: The picture's side.
    """
    side = 2 * _reach(image_px) + 1
    channel = mask[:, None]
    mean = F.avg_pool2d(channel, side, stride=1)
    variance = F.avg_pool2d(channel.square(), side, stride=1) - mean.square()
    return F.conv2d(channel, _templates(image_px)) / (variance.clamp(min=FLATTEST).sqrt() * side)


@cache
def _templates(image_px: int) -> Float[Tensor, "k 1 w w"]:
    """Every shape, crisp and soft, as unit vectors without mean."""
    side = 2 * _reach(image_px) + 1
    middle, extent = np.array([0.5]), HALF_EXTENT * image_px / side
    crisp = torch.from_numpy(np.concatenate([shapes.coverage(s, middle, middle, extent, side) for s in SHAPES]))
    flat = torch.cat([blurred(crisp, blur * image_px) for blur in BLURS]).flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1).view(-1, 1, side, side)

"""Pillow's pictures as a person would see them, and what it raises for those that nobody can see.

Knows no torch: processes that only download stay small and start at once.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from itertools import product

import numpy as np
from PIL import Image, ImageOps

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, ZeroDivisionError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for damaged files: a truncated PNG is an OSError, a broken one a SyntaxError, …"""


TILE_PX = 512
"""Side of the pieces in which colours are converted: a whole picture on the way would take several times its memory."""


def upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored, itself and no copy, as its EXIF tag says."""
    with suppress(*DECODE_ERRORS):  # a damaged EXIF block is no reason to lose a picture
        ImageOps.exif_transpose(image, in_place=True)
    return image


def rgb(image: Image.Image) -> Image.Image:
    """Three channels of eight bits: alpha over white, deep greys scaled, any colour mode converted.

    A picture that has them already is given back as it is.
    """
    image.load()
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if max(image.size) <= TILE_PX:
        return _rgb(image)
    whole = Image.new("RGB", image.size)
    for left, top in product(range(0, image.width, TILE_PX), range(0, image.height, TILE_PX)):
        box = (left, top, min(left + TILE_PX, image.width), min(top + TILE_PX, image.height))
        whole.paste(_rgb(image.crop(box)), box)
    return whole


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit grey: Pillow would clip instead of scale
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")

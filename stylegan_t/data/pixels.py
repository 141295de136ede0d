"""Pillow's pictures as a person would see them, and what it raises for those that nobody can see.

Knows no torch: processes that only download stay small and start at once.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, ZeroDivisionError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for damaged files: a truncated PNG is an OSError, a broken one a SyntaxError, …"""


def upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored as its EXIF tag says."""
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:  # a damaged EXIF block is no reason to lose a picture
        return image


def rgb(image: Image.Image) -> Image.Image:
    """Three channels of eight bits: alpha over white, deep greys scaled, any colour mode converted."""
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit grey: Pillow would clip instead of scale
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")

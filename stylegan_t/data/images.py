"""Pictures as bytes, as uint8 arrays and as float tensors, and the only conversions between them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

EXTENSION: dict[str, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}
JPEG_QUALITY = 95

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, ZeroDivisionError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for damaged files: a truncated PNG is an OSError, a broken one a SyntaxError, …"""


class UndecodableImage(ValueError):
    """These bytes are no picture that can be read."""


def to_signed(images: UInt8[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
    """Images in [-1, 1] from bytes."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Float[Tensor, "*batch c h w"]) -> UInt8[Tensor, "*batch c h w"]:
    """Bytes from images in [-1, 1]; what lies outside is clipped. The inverse of ``to_signed``."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as a person would see it: upright by its EXIF tag, alpha over white, first frame.

    Raises:
        UndecodableImage: The bytes are damaged, no picture, or a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd but readable files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return np.asarray(_rgb(_upright(image)))
    except DECODE_ERRORS as error:
        raise UndecodableImage(f"not a readable picture: {error}") from None


def decode_batch(data: list[bytes]) -> UInt8[Tensor, "n 3 h w"]:
    """Pictures of one size that we stored ourselves (see ``encode``). Raises UndecodableImage."""
    pictures = []
    try:
        for picture in data:
            with Image.open(io.BytesIO(picture)) as image:
                pictures.append(np.asarray(image))
    except DECODE_ERRORS as error:
        raise UndecodableImage(f"a stored picture is damaged: {error}") from None
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def encode(picture: UInt8[np.ndarray, "h w 3"], image_format: str = "png") -> bytes:
    """The same bytes for the same pixels; png and webp are lossless."""
    out = io.BytesIO()
    image = Image.fromarray(picture)
    if image_format == "jpeg":
        image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    elif image_format == "webp":
        image.save(out, "WEBP", lossless=True)
    else:
        image.save(out, "PNG")
    return out.getvalue()


def square(picture: UInt8[np.ndarray, "h w 3"], image_px: int) -> UInt8[np.ndarray, "p p 3"]:
    """The centre square, resized with an antialiasing filter; untouched where it has that size already."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre = picture[top : top + side, left : left + side]
    if side == image_px:
        return centre.copy()
    return np.array(Image.fromarray(centre).resize((image_px, image_px), Image.Resampling.LANCZOS))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODE_ERRORS:  # a damaged EXIF block is no reason to lose a picture
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16-bit grey: Pillow would clip instead of scale
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")

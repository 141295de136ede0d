"""Pictures as bytes, as uint8 arrays and as float tensors, and the only conversions between them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from stylegan_t.data.pixels import DECODE_ERRORS, rgb, upright

EXTENSION: dict[str, str] = {"png": "png", "webp": "webp", "jpeg": "jpg"}
JPEG_QUALITY = 95
JPEG_START = b"\xff\xd8"


class UndecodableImage(ValueError):
    """These bytes are no picture that can be read."""


def to_signed(images: UInt8[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
    """Images in [-1, 1] from bytes."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Float[Tensor, "*batch c h w"]) -> UInt8[Tensor, "*batch c h w"]:
    """Bytes from images in [-1, 1]; what lies outside is clipped. The inverse of ``to_signed``."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """While entered, decompression bombs are errors, and Pillow tells of no oddities in readable files.

    Python's filters belong to the process: several threads that decode need one that entered for all of them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as a person would see it: upright by its EXIF tag, alpha over white, first frame.

    Raises:
        UndecodableImage: The bytes are damaged, no picture, or a decompression bomb.
    """
    with pillow_warnings():
        return decode_in_thread(data)


def decode_in_thread(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The same for one of several threads; another one has entered ``pillow_warnings`` and waits for them."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return np.asarray(rgb(upright(image)))
    except DECODE_ERRORS as error:
        raise UndecodableImage(f"not a readable picture: {error}") from None


def decode_batch(data: list[bytes]) -> UInt8[Tensor, "n 3 h w"]:
    """Pictures of one size that we stored ourselves (see ``encode``). Raises UndecodableImage."""
    return stack([decode_stored(picture) for picture in data])


def decode_stored(data: bytes, least_px: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """A picture that we stored ourselves (see ``encode``).

    Args:
        least_px: A JPEG comes at the smallest eighth of its size that is no smaller than this; 0 = at full size. The
            decoder leaves out the finest waves instead of decoding all pixels for their mean, which is faster and close
            to it (``benchmarks/loader.md``).

    Raises:
        UndecodableImage: It is damaged.
    """
    try:
        if data.startswith(JPEG_START):  # Pillow's pixels, sooner; and damage that Pillow passes over is found
            return simplejpeg.decode_jpeg(data, min_height=least_px, min_width=least_px)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except DECODE_ERRORS as error:
        raise UndecodableImage(f"a stored picture is damaged: {error}") from None


def stack(pictures: list[UInt8[np.ndarray, "h w 3"]]) -> UInt8[Tensor, "n 3 h w"]:
    """Pictures as a batch. Raises UndecodableImage where they are of several sizes."""
    if len(shapes := {picture.shape for picture in pictures}) > 1:
        raise UndecodableImage(f"stored pictures of several sizes: {', '.join(map(str, sorted(shapes)))}")
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

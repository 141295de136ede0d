"""A picture as it came made one to keep: checked, decoded, upright, resized, encoded anew; or a reason why not."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from stylegan_t.data.download.checks import (
    AVIF,
    EXTENSIONS,
    JPEG,
    PNG,
    WEBP,
    has_too_many_scans,
    is_polyglot,
    is_svg,
    kind_of,
)  # fmt: skip
from stylegan_t.data.pixels import DECODE_ERRORS, rgb, upright

Resize = Literal["none", "keep_ratio", "centre_crop"]
PillowFormat = Literal["jpeg", "webp", "png"]

ORIENTATION = 0x0112
"""EXIF's tag: 1 is upright, up to 4 turned by 180° or mirrored, from 5 on lying on its side."""
LYING = (5, 6, 7, 8)
TURNED = range(2, 9)
MAY_TURN = (b"Exif\x00\x00", b"tiff:Orientation")
"""What stands in a JPEG that has a tag for its orientation, in EXIF or in XMP."""
REDUCING_GAP = 2
"""A JPEG is decoded at an eighth, a quarter or half of its size where this many times the wanted size is left."""

MOST_BYTES = 240_000_000
"""Of memory that a picture may take: with the process, what came, and the process that downloads, 500 MiB."""
BESIDE = {WEBP: 13, AVIF: 12}
"""Bytes for a pixel that the decoder of a kind needs beside the picture."""
OF_A_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes for a pixel of a picture of a mode; ``MOST_OF_A_PIXEL`` for one of any other, RGB included."""
MOST_OF_A_PIXEL = 4
TO_ENCODE = {"jpeg": 4, "webp": 28, "png": 4}
"""Bytes for a pixel that encoding takes, with what comes out."""


@dataclass(frozen=True)
class Storage:
    """How pictures are kept, and which are not.

    Attributes:
        resize: ``none`` keeps the bytes as they came, with all metadata in them, except those of a picture that lies on
            its side or its head, which is encoded anew, upright. ``keep_ratio`` makes the shorter side ``size_px``;
            ``centre_crop`` cuts the centre square out and makes it that large.
        size_px: None where nothing is resized.
        upscale: Enlarge pictures that are smaller; without it they are cut, if at all, and keep their size.
        image_format: Of what is encoded here.
        quality: For jpeg and webp, 1 to 100.
        max_pixels: Refuse pictures of more, and smaller ones that take more than ``MOST_BYTES`` to decode and resize.
        min_side_px: Refuse pictures whose shorter side is shorter; None takes all.
        max_aspect_ratio: Refuse pictures whose longer side is more times the shorter; None takes all.
    """

    resize: Resize
    size_px: int | None
    upscale: bool
    image_format: PillowFormat
    quality: int
    max_pixels: int
    min_side_px: int | None
    max_aspect_ratio: float | None


class Kept(NamedTuple):
    """A picture's bytes to store, with its size and that of the one that came, both as they are looked at."""

    image: bytes
    ext: str
    width: int
    height: int
    original_width: int
    original_height: int


def keep(data: bytes, storage: Storage) -> Kept | str:
    """The picture to store for what came, or the reason (see ``reasons``) why there is none.

    Which decoder may look at the bytes is decided by their first ones, never by a name that a stranger gave; how many
    pixels they would become, and what memory that takes, is read from the header before any is decoded.
    """
    kind = kind_of(data)
    if kind is None:
        return "svg" if is_svg(data) else "wrong_type"
    if is_polyglot(data):
        return "polyglot"
    if kind == JPEG and has_too_many_scans(data):
        return "too_many_scans"
    plain = kind == JPEG and storage.resize == "none" and not any(mark in data for mark in MAY_TURN)
    return (plain and _plain_jpeg(data, storage)) or _by_pillow(data, kind, storage)


def _plain_jpeg(data: bytes, storage: Storage) -> Kept | str | None:
    """The common case, quickly; None leaves the verdict on an odd or a very large picture to Pillow.

    Decoded at an eighth of its size: that reads every byte, finds the same damage, and takes little memory.
    """
    try:
        height, width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
        reason = _refusal(width, height, storage)
        if reason is None:
            _afford(2 * MOST_OF_A_PIXEL * width * height)  # what it takes at most: in four channels, progressive
            simplejpeg.decode_jpeg(data, min_height=1, min_width=1)
    except (ValueError, MemoryError):
        return None
    return reason or Kept(data, EXTENSIONS[JPEG], width, height, width, height)


def _by_pillow(data: bytes, kind: str, storage: Storage) -> Kept | str:
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            return _refusal(*image.size, storage) or _opened(image, data, kind, storage)
    except (Image.DecompressionBombError, MemoryError):
        return "too_many_pixels"
    except DECODE_ERRORS:
        return "undecodable"


def _opened(image: Image.Image, data: bytes, kind: str, storage: Storage) -> Kept:
    """The picture to store. Raises MemoryError where that would take too much, if possible before it is decoded."""
    beside = _bytes_beside(image, kind)
    if kind == PNG:  # its tag may stand behind the pixels, so that Pillow decodes them to find it
        _afford(beside + _bytes(image))
    orientation = image.getexif().get(ORIENTATION, 1)
    lying, turned = orientation in LYING, orientation in TURNED
    width, height = (image.height, image.width) if lying else image.size
    if storage.resize == "none" and not turned:
        image.draft(None, (1, 1))  # at an eighth, as ``_plain_jpeg`` does
        _afford(beside + _bytes(image))
        image.load()
        return Kept(data, EXTENSIONS[kind], width, height, width, height)
    box, size = _cut(width, height, storage)
    if storage.resize != "none":
        right, down = (math.ceil(REDUCING_GAP * side) for side in _whole(width, height, box, size))
        image.draft(None, (down, right) if lying else (right, down))
    later = _bytes_to_convert(image) + _bytes_to_store(size, image.width if lying else image.height, storage)
    _afford(beside + _bytes(image) + max(turned * _bytes(image), later))
    picture = rgb(upright(image))
    shrunk = picture.width / width, picture.height / height
    box = (box[0] * shrunk[0], box[1] * shrunk[1], box[2] * shrunk[0], box[3] * shrunk[1])
    if (0, 0, *size) != box:
        picture = picture.resize(size, Image.Resampling.LANCZOS, box)
    return Kept(*_encoded(picture, storage), *size, width, height)


def _afford(num_bytes: float) -> None:
    if num_bytes > MOST_BYTES:
        raise MemoryError(f"a picture takes {num_bytes:.0f} bytes, more than {MOST_BYTES}")


def _bytes(image: Image.Image) -> int:
    """Memory that the picture takes once decoded: at a reduced scale, where one has been asked for."""
    return image.width * image.height * OF_A_PIXEL.get(image.mode, MOST_OF_A_PIXEL)


def _bytes_beside(image: Image.Image, kind: str) -> float:
    """Memory for a picture's decoder, at whatever scale: one of a progressive JPEG holds all waves of all channels."""
    pixels = image.width * image.height
    if isinstance(image, JpegImageFile) and image.info.get("progressive"):
        sides = [(right, down) for _, right, down, _ in image.layer]
        finest = max(right for right, _ in sides) * max(down for _, down in sides)
        return 2 * pixels * sum(right * down for right, down in sides) / finest
    return pixels * BESIDE.get(kind, 0)


def _bytes_to_convert(image: Image.Image) -> int:
    is_rgb = image.mode == "RGB" and not image.has_transparency_data
    return 0 if is_rgb else image.width * image.height * MOST_OF_A_PIXEL


def _bytes_to_store(size: tuple[int, int], height_before: int, storage: Storage) -> int:
    """Memory to resize a picture, first to its new width and then to its new height, and to encode it."""
    width, height = size
    resized = 0 if storage.resize == "none" else width * (height_before + height)
    return resized * MOST_OF_A_PIXEL + width * height * TO_ENCODE[storage.image_format]


def _refusal(width: int, height: int, storage: Storage) -> str | None:
    short, long = sorted((width, height))
    if width * height > storage.max_pixels:
        return "too_many_pixels"
    if short < (storage.min_side_px or 1):
        return "too_small"
    if storage.max_aspect_ratio is not None and long > storage.max_aspect_ratio * short:
        return "aspect"
    return None


def _cut(width: int, height: int, storage: Storage) -> tuple[tuple[float, ...], tuple[int, int]]:
    """The box (left, top, right, bottom) to cut out of a picture, and the size to give it."""
    side = min(width, height)
    box = (0, 0, width, height)
    if storage.resize == "centre_crop":
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    scale = storage.size_px / side if storage.size_px is not None and storage.resize != "none" else 1.0
    if scale > 1 and not storage.upscale:
        scale = 1.0
    return box, (max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale)))


def _whole(width: int, height: int, box: tuple[float, ...], size: tuple[int, int]) -> tuple[float, float]:
    """The size that the whole picture would have where the box has its wanted one."""
    return width * size[0] / (box[2] - box[0]), height * size[1] / (box[3] - box[1])


def _encoded(picture: Image.Image, storage: Storage) -> tuple[bytes, str]:
    """Bytes without any metadata, and their extension; the same bytes for the same pixels."""
    picture.info.clear()  # Pillow would write a comment, a colour profile, … of the picture that came
    out = io.BytesIO()
    if storage.image_format == "png":
        picture.save(out, "PNG")
    else:
        picture.save(out, storage.image_format.upper(), quality=storage.quality)
    return out.getvalue(), EXTENSIONS[storage.image_format.upper()]

"""From samples to a batch, the same way for every reader."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stylegan_t.data.images import UndecodableImage, decode_stored, stack
from stylegan_t.data.order import caption_number, is_mirrored
from stylegan_t.data.shards import CAPTION, EMBEDDING, METADATA, Sample
from stylegan_t.errors import DataError


class Batch(NamedTuple):
    """Images, each with one of its captions.

    Attributes:
        c: The captions' embeddings by the original text encoder, from the shards.
        generator_c: Those that feed the generator, where they are others and at hand.
    """

    images: UInt8[Tensor, "n 3 h w"]
    c: Float[Tensor, "n c_dim"]
    captions: list[str]
    generator_c: Float[Tensor, "n c_dim"] | None = None


def caption_numbers(samples: Sequence[Sample], first: int, seed: int) -> list[int]:
    """Which of its captions each sample comes with, where the samples are shown from place ``first`` on."""
    return [caption_number(seed, first + i, len(sample.captions)) for i, sample in enumerate(samples)]


def make_batch(
    samples: Sequence[Sample], first: int, seed: int, *, image_px: int | None, horizontal_flip: bool
) -> Batch:
    """Decode samples that are shown from place ``first`` on.

    Args:
        image_px: Side that the pictures will be reduced to: JPEGs may come smaller than they are stored, not smaller
            than this. None = as stored.
        horizontal_flip: Mirror every second picture.

    Raises:
        DataError: A picture is damaged, or a sample lacks what training needs. Names no file.
    """
    check_prepared(samples)
    images = _images(samples, image_px or 0)
    if horizontal_flip:
        mirrored = torch.tensor([is_mirrored(seed, first + i) for i in range(len(samples))])
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    numbers = caption_numbers(samples, first, seed)
    captions = [sample.captions[number] for sample, number in zip(samples, numbers, strict=True)]
    return Batch(images, _embeddings(samples, numbers), captions)


def captions_in_turn(samples: Sequence[Sample]) -> tuple[list[str], Float[Tensor, "n c_dim"]]:
    """A caption of each sample and its embedding: the first of the first, the second of the second, and so on in turn.

    Raises:
        DataError: A sample lacks one of them.
    """
    check_prepared(samples)
    numbers = [turn % len(sample.captions) for turn, sample in enumerate(samples)]
    captions = [sample.captions[number] for sample, number in zip(samples, numbers, strict=True)]
    return captions, _embeddings(samples, numbers)


def check_prepared(samples: Sequence[Sample]) -> None:
    """Raise DataError where one has no picture, no caption or no embedding."""
    for sample in samples:
        if missing := {CAPTION, EMBEDDING} - sample.fields.keys():
            raise DataError(f"sample {sample.key} has no .{' and no .'.join(sorted(missing))}: it was not prepared")
        if not sample.fields.keys() - {CAPTION, EMBEDDING, METADATA}:
            raise DataError(f"sample {sample.key} has no picture")


def _images(samples: Sequence[Sample], least_px: int) -> UInt8[Tensor, "n 3 h w"]:
    pictures = []
    for sample in samples:
        try:
            pictures.append(decode_stored(sample.image, least_px))
        except UndecodableImage as error:
            raise DataError(f"sample {sample.key}: {error}") from None
    try:
        return stack(pictures)
    except UndecodableImage as error:
        raise DataError(str(error)) from None


def _embeddings(samples: Sequence[Sample], numbers: Sequence[int]) -> Float[Tensor, "n c_dim"]:
    c = np.stack([_embedding(sample, number) for sample, number in zip(samples, numbers, strict=True)])
    return torch.from_numpy(c).float()


def _embedding(sample: Sample, number: int) -> Float[np.ndarray, " c_dim"]:
    """One row of the sample's embeddings, without numpy's parsing of a header that is the same for most samples."""
    data, num_captions = sample.fields[EMBEDDING], len(sample.captions)
    start = 10 + int.from_bytes(data[8:10], "little")
    try:
        shape, dtype = _layout(data[:start])
        c = np.frombuffer(data, dtype, offset=start).reshape(shape)
    except ValueError as error:
        raise DataError(f"sample {sample.key}: its embeddings are damaged: {error}") from None
    if c.ndim != 2 or len(c) != num_captions:
        raise DataError(f"sample {sample.key}: embeddings of shape {c.shape} for {num_captions} captions")
    return c[number]


@cache
def _layout(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, from the first bytes of its npy file (version 1, as numpy writes)."""
    file = io.BytesIO(header)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype

"""Pictures that show what another one shows: the same pixels, nearly the same, or the same thing.

Three measures, from cheap and sure to costly and vague: the hash of the pixels, the distance of perceptual hashes
(copies in another size, format or quality), the cosine of CLIP embeddings (crops, mirrors, other frames of a scene).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt64

from stylegan_t.data.rules.cells import cells
from stylegan_t.data.rules.cosine import Cosine
from stylegan_t.data.rules.hamming import Hamming
from stylegan_t.data.rules.near import Measure, keep_first

REASONS = ("duplicate", "near_duplicate", "embedding_duplicate")
"""In the order in which they are asked, one for each measure."""


class Likeness(NamedTuple):
    """From where on two pictures are too near; a measure that is off finds nothing.

    Attributes:
        same_pixels: Whether equal pixels count.
        max_distance: Bits in which perceptual hashes differ, at most; None = off.
        min_cosine: Of the image embeddings; None = off.
    """

    same_pixels: bool
    max_distance: int | None
    min_cosine: float | None


class Pictures(NamedTuple):
    """What is compared, a row for each picture.

    Attributes:
        pixels: A number that pictures of the same pixels share.
        hashes: Perceptual hashes.
        embeddings: Of the picture; of no rows where nothing asks for them.
    """

    pixels: Int64[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    embeddings: Float[np.ndarray, "m c"]


class Found(NamedTuple):
    """Rows that are too near another one, that one, and how near; NaN where the pixels are the same."""

    rows: Int64[np.ndarray, " k"]
    twins: Int64[np.ndarray, " k"]
    values: Float32[np.ndarray, " k"]


def duplicates(
    pictures: Pictures, rows: Int64[np.ndarray, " n"], likeness: Likeness, cell_size: int
) -> Iterator[tuple[str, Found]]:
    """By each measure in turn, which of the rows that are left are near an earlier one that stays.

    Args:
        pictures: What is compared.
        rows: In the order of their right to stay.
        likeness: What is too near.
        cell_size: Embeddings are compared within cells of about so many; see ``cells``.
    """
    if likeness.same_pixels:
        twins = _first_of_group(rows, pictures.pixels)
        yield REASONS[0], _found(rows, twins, None)
        rows = rows[twins < 0]
    if likeness.max_distance is not None:
        measure = Hamming(pictures.hashes, likeness.max_distance)
        twins = keep_first(rows, measure)
        yield REASONS[1], _found(rows, twins, measure)
        rows = rows[twins < 0]
    if likeness.min_cosine is not None:
        cosine = Cosine(pictures.embeddings, likeness.min_cosine)
        parts = [_found(c, keep_first(c, cosine), cosine) for c in cells(pictures.embeddings, rows, cell_size)]
        yield REASONS[2], Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def near_others(
    pictures: Pictures, others: Int64[np.ndarray, " k"], rows: Int64[np.ndarray, " n"], likeness: Likeness
) -> Found:
    """Which of the rows are near any of the others, by any measure; every pair counts, also where there are many."""
    twins, values = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan, np.float32)
    measures: list[tuple[Measure, bool]] = []
    if likeness.same_pixels:
        measures.append((Hamming(pictures.pixels.astype(np.uint64), 0), False))
    if likeness.max_distance is not None:
        measures.append((Hamming(pictures.hashes, likeness.max_distance), True))
    if likeness.min_cosine is not None:
        measures.append((Cosine(pictures.embeddings, likeness.min_cosine), True))
    for measure, says_how_near in measures:
        left = np.flatnonzero(twins < 0)
        twins[left] = measure.first_near(others, rows[left])
        hit = left[twins[left] >= 0]
        if says_how_near:
            values[hit] = measure.values(rows[hit], twins[hit])
    hit = twins >= 0
    return Found(rows[hit], twins[hit], values[hit])


def _first_of_group(rows: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    """For each row the first one of its group; -1 for that one itself."""
    _, first, member = np.unique(groups[rows], return_index=True, return_inverse=True)
    return np.where(first[member] == np.arange(len(rows)), -1, rows[first[member]])


def _found(rows: Int64[np.ndarray, " n"], twins: Int64[np.ndarray, " n"], measure: Measure | None) -> Found:
    hit = twins >= 0
    rows, twins = rows[hit], twins[hit]
    values = np.full(len(rows), np.nan, np.float32) if measure is None else measure.values(rows, twins)
    return Found(rows, twins, values)

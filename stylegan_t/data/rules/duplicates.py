"""Pictures that show what another one shows: the same pixels, nearly the same, or the same thing.

Three measures, from cheap and sure to costly and vague: the hash of the pixels, the distance of perceptual hashes
(copies in another size, format or quality), the cosine of CLIP embeddings (crops, mirrors, other frames of a scene).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt64

from stylegan_t.data.rules.cells import cells, first_near_in_cells
from stylegan_t.data.rules.cosine import Cosine
from stylegan_t.data.rules.hamming import Hamming
from stylegan_t.data.rules.near import Done, Measure, keep_first, nothing

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
    pictures: Pictures, rows: Int64[np.ndarray, " n"], likeness: Likeness, cell_size: int, done: Done = nothing
) -> Iterator[tuple[str, Found]]:
    """By each measure in turn, which of the rows that are left are near an earlier one that stays.

    Args:
        pictures: What is compared.
        rows: In the order of their right to stay.
        likeness: What is too near.
        cell_size: Embeddings are compared within cells of about so many; see ``cells``.
        done: Told of rows of which all is known.
    """
    if likeness.same_pixels:
        twins = _first_of_group(rows, pictures.pixels)
        yield REASONS[0], _found(rows, twins, None)
        rows = _left(rows, twins, done)
    if likeness.max_distance is not None:
        measure = Hamming(pictures.hashes, likeness.max_distance)
        twins = keep_first(rows, measure)
        yield REASONS[1], _found(rows, twins, measure)
        rows = _left(rows, twins, done)
    if likeness.min_cosine is not None:
        cosine = Cosine(pictures.embeddings, likeness.min_cosine)
        parts = []
        for cell in cells(pictures.embeddings, rows, cell_size):
            parts.append(_found(cell, keep_first(cell, cosine), cosine))
            done(len(cell))
        yield REASONS[2], Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def near_others(
    pictures: Pictures,
    others: Int64[np.ndarray, " k"],
    rows: Int64[np.ndarray, " n"],
    likeness: Likeness,
    cell_size: int,
    done: Done = nothing,
) -> Found:
    """Which of the rows are near any of the others, by any measure.

    Args:
        others: Ascending.
        cell_size: Embeddings of more others than that are compared within cells; see ``first_near_in_cells``.
        done: Told of rows of which all is known.
    """
    twins, values = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan, np.float32)
    if likeness.same_pixels:
        twins = Hamming(pictures.pixels.astype(np.uint64), 0).first_near(others, rows)
    left = np.flatnonzero(twins < 0)
    if likeness.max_distance is not None:
        measure = Hamming(pictures.hashes, likeness.max_distance)
        left = _take(measure, rows, left, measure.first_near(others, rows[left]), twins, values)
    done(len(rows) - len(left))
    if likeness.min_cosine is None or len(others) <= cell_size:
        done(len(left))
    if likeness.min_cosine is not None:
        cosine = Cosine(pictures.embeddings, likeness.min_cosine)
        if len(others) <= cell_size:
            near = cosine.first_near(others, rows[left])
        else:
            near = first_near_in_cells(cosine, others, rows[left], done)
        _take(cosine, rows, left, near, twins, values)
    hit = twins >= 0
    return Found(rows[hit], twins[hit], values[hit])


def _take(
    measure: Measure,
    rows: Int64[np.ndarray, " n"],
    left: Int64[np.ndarray, " m"],
    near: Int64[np.ndarray, " m"],
    twins: Int64[np.ndarray, " n"],
    values: Float32[np.ndarray, " n"],
) -> Int64[np.ndarray, " l"]:
    """Note the twins that a measure found for the rows that were left, and how near; returns those still left."""
    hit = left[near >= 0]
    twins[hit] = near[near >= 0]
    values[hit] = measure.values(rows[hit], twins[hit])
    return left[near < 0]


def _left(rows: Int64[np.ndarray, " n"], twins: Int64[np.ndarray, " n"], done: Done) -> Int64[np.ndarray, " m"]:
    done(int((twins >= 0).sum()))
    return rows[twins < 0]


def _first_of_group(rows: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    """For each row the first one of its group; -1 for that one itself."""
    _, first, member = np.unique(groups[rows], return_index=True, return_inverse=True)
    return np.where(first[member] == np.arange(len(rows)), -1, rows[first[member]])


def _found(rows: Int64[np.ndarray, " n"], twins: Int64[np.ndarray, " n"], measure: Measure | None) -> Found:
    hit = twins >= 0
    rows, twins = rows[hit], twins[hit]
    values = np.full(len(rows), np.nan, np.float32) if measure is None else measure.values(rows, twins)
    return Found(rows, twins, values)

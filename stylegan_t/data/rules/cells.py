"""Cells of embeddings, so that only neighbours need comparing: spherical k-means, as in SemDeDup.

Abbas et al. 2023, "SemDeDup: Data-efficient learning at web-scale through semantic deduplication" (arXiv:2303.09540),
section 3: near-duplicates lie close enough to fall into the same cell nearly always, so pairs are compared within a
cell only. It is an approximation: a pair that a border parts is not found. Where rows are compared with others, and not
with each other, each row looks into the few cells next to it, so that hardly any is missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Int64

from stylegan_t.data.rules.cosine import Cosine, directions
from stylegan_t.data.rules.near import Done

ITERATIONS = 20
SAMPLES_PER_CELL = 256
"""Centres are learnt from so many vectors a cell; more move them little."""
COSINES_AT_ONCE = 1 << 24
PROBES = 8
"""Cells of the others that a row looks into."""


def cells(
    embeddings: Float[np.ndarray, "n c"], rows: Int64[np.ndarray, " m"], cell_size: int
) -> Iterator[Int64[np.ndarray, " k"]]:
    """The rows in groups of about ``cell_size`` neighbours, each in the order given; all in one where they fit.

    The same rows in the same order give the same cells; the draws have a seed of their own.
    """
    num_cells = -(-len(rows) // cell_size)
    if num_cells <= 1:
        yield rows
        return
    yield from (members for members in _in_cells(embeddings, rows, num_cells)[1] if len(members))


def first_near_in_cells(
    cosine: Cosine, others: Int64[np.ndarray, " k"], rows: Int64[np.ndarray, " n"], done: Done
) -> Int64[np.ndarray, " n"]:
    """As ``cosine.first_near``, but of the others only those in the ``PROBES`` cells nearest to a row are looked at.

    There are as many cells as others in a cell, about: the work grows with the root of their number.

    Args:
        others: Ascending.
    """
    centres, members = _in_cells(cosine.embeddings, others, math.isqrt(len(others)))
    found = np.full(len(rows), -1, np.int64)
    for at in _steps(len(rows), len(centres)):
        mine = rows[at]
        cosines = directions(cosine.embeddings[mine]) @ centres.T
        probed = np.argpartition(-cosines, min(PROBES, len(centres)) - 1, axis=1)[:, :PROBES]
        first = np.full(len(mine), np.iinfo(np.int64).max)
        for cell in np.unique(probed).tolist():
            here = np.flatnonzero((probed == cell).any(axis=1))
            near = cosine.first_near(members[cell], mine[here])
            first[here] = np.where(near < 0, first[here], np.minimum(first[here], near))
        found[at] = np.where(first == np.iinfo(np.int64).max, -1, first)
        done(len(mine))
    return found


def _in_cells(
    embeddings: Float[np.ndarray, "n c"], rows: Int64[np.ndarray, " m"], num_cells: int
) -> tuple[Float32[np.ndarray, "k c"], list[Int64[np.ndarray, " _"]]]:
    """Centres, and the rows nearest to each, in the order given."""
    rng = np.random.default_rng(0)
    sample = rng.choice(len(rows), min(len(rows), SAMPLES_PER_CELL * num_cells), replace=False)
    centres = _centres(directions(embeddings[rows[np.sort(sample)]]), num_cells, rng)
    parts = [_nearest(directions(embeddings[rows[at]]), centres) for at in _steps(len(rows), num_cells)]
    cell = np.concatenate(parts)
    order = np.argsort(cell, kind="stable")
    ends = np.bincount(cell, minlength=num_cells).cumsum()
    return centres, np.split(rows[order], ends[:-1])


def _steps(num_rows: int, num_cells: int) -> list[slice]:
    step = max(COSINES_AT_ONCE // num_cells, 1)
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _centres(
    vectors: Float32[np.ndarray, "n c"], num_cells: int, rng: np.random.Generator
) -> Float32[np.ndarray, "k c"]:
    """Unit vectors, each along the mean of the vectors that are nearest to it; an empty cell keeps its own."""
    centres = vectors[rng.choice(len(vectors), num_cells, replace=False)]
    for _ in range(ITERATIONS):
        nearest = _nearest(vectors, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, vectors)
        filled = np.bincount(nearest, minlength=num_cells) > 0
        centres[filled] = directions(sums[filled])
    return centres


def _nearest(vectors: Float32[np.ndarray, "n c"], centres: Float32[np.ndarray, "k c"]) -> Int64[np.ndarray, " n"]:
    return (vectors @ centres.T).argmax(axis=1)

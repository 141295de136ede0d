"""Cells of embeddings, so that only neighbours need comparing: spherical k-means, as in SemDeDup.

Abbas et al. 2023, "SemDeDup: Data-efficient learning at web-scale through semantic deduplication" (arXiv:2303.09540),
section 3: near-duplicates lie close enough to fall into the same cell nearly always, so pairs are compared within a
cell only. It is an approximation: a pair that a border parts is not found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Int64

from stylegan_t.data.rules.cosine import directions

ITERATIONS = 20
SAMPLES_PER_CELL = 256
"""Centres are learnt from so many vectors a cell; more move them little."""
COSINES_AT_ONCE = 1 << 24


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
    rng = np.random.default_rng(0)
    sample = rng.choice(len(rows), min(len(rows), SAMPLES_PER_CELL * num_cells), replace=False)
    centres = _centres(directions(embeddings[rows[np.sort(sample)]]), num_cells, rng)
    step = max(COSINES_AT_ONCE // num_cells, 1)
    parts = [_nearest(directions(embeddings[rows[i : i + step]]), centres) for i in range(0, len(rows), step)]
    cell = np.concatenate(parts)
    order = np.argsort(cell, kind="stable")
    yield from np.split(rows[order], np.flatnonzero(np.diff(cell[order])) + 1)


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

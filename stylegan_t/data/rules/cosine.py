"""Nearness of embeddings: the cosine of two vectors. Compares each with each, a block of the matrix at a time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from stylegan_t.data.rules.near import Measure

VECTORS_AT_ONCE = 4096
"""Side of a block of the matrix of cosines."""

ROUNDING = 1e-6
"""So much less counts as ``min_cosine`` too: in float32, a vector of some hundred numbers is rarely at exactly 1 with
itself."""


class Cosine(Measure):
    """Embeddings whose cosine is ``min_cosine`` or more, to the rounding of float32 (``ROUNDING``).

    Args:
        embeddings: A vector for each row, of any length but zero; float16 and a file in memory will do, since only the
            rows that are compared are read.
        min_cosine: 1 for the same direction.
    """

    def __init__(self, embeddings: Float[np.ndarray, "n c"], min_cosine: float) -> None:
        self.embeddings, self._least = embeddings, np.float32(min_cosine - ROUNDING)

    def matrix(self, rows: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n n"]:
        vectors = directions(self.embeddings[rows])
        return vectors @ vectors.T >= self._least

    def first_near(self, earlier: Int64[np.ndarray, " k"], later: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        found = np.full(len(later), -1, np.int64)
        for mine in _blocks(len(later)):
            rows, right = np.arange(len(later))[mine], directions(self.embeddings[later[mine]])
            for theirs in _blocks(len(earlier)):
                near = right @ directions(self.embeddings[earlier[theirs]]).T >= self._least
                hit = near.any(axis=1)
                found[rows[hit]] = earlier[theirs][near[hit].argmax(axis=1)]
                rows, right = rows[~hit], right[~hit]
        return found

    def values(self, a: Int64[np.ndarray, " n"], b: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        parts = [
            (directions(self.embeddings[a[block]]) * directions(self.embeddings[b[block]])).sum(axis=1)
            for block in _blocks(len(a))
        ]
        return np.concatenate([np.empty(0, np.float32), *parts])


def directions(vectors: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "n c"]:
    """The vectors at unit length, in float32: float16 keeps a length to a thousandth only."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + VECTORS_AT_ONCE, count)) for start in range(0, count, VECTORS_AT_ONCE)]

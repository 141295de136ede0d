"""Nearness of perceptual hashes: how many of 64 bits differ. Finds every pair, and does not compare each with each.

Cut 64 bits into ``distance + k`` bands: two hashes that differ in ``distance`` bits or less agree in ``k`` bands or
more (each bit spoils one band). So for every choice of ``k`` bands only hashes that agree in these need a look. More
bands make more choices, but fewer chance agreements in each: ``k`` grows with the number of hashes. ``k = 0`` compares
all with all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt64

from stylegan_t.data.rules.near import Measure

BITS = 64
PAIRS_AT_ONCE = 1 << 21
"""So many pairs of hashes are held in memory, however many agree."""
MOST_SHARED_BANDS = 3
PAIRS_PER_SORTED_ROW = 8
"""What it takes to sort a row and to look it up, in comparisons of a pair."""


class Hamming(Measure):
    """Hashes that differ in ``max_distance`` bits or less.

    Args:
        hashes: One for each row.
        max_distance: Bits.
    """

    def __init__(self, hashes: UInt64[np.ndarray, " n"], max_distance: int) -> None:
        self.hashes, self.max_distance = hashes, max_distance

    def matrix(self, rows: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n n"]:
        mine = self.hashes[rows]
        return np.bitwise_count(mine[:, None] ^ mine) <= self.max_distance

    def first_near(self, earlier: Int64[np.ndarray, " k"], later: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        left, left_place = np.unique(self.hashes[earlier], return_index=True)  # plain pictures share one hash
        right, right_group = np.unique(self.hashes[later], return_inverse=True)
        place = np.full(len(right), len(earlier))
        for mask in masks(self.max_distance, shared_bands(len(left), len(right), self.max_distance)):
            for a, b in _near_pairs(left, right, mask, self.max_distance):
                np.minimum.at(place, b, left_place[a])
        return np.append(earlier, -1)[place[right_group]]

    def values(self, a: Int64[np.ndarray, " n"], b: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        return np.bitwise_count(self.hashes[a] ^ self.hashes[b]).astype(np.float32)


def shared_bands(num_earlier: int, num_later: int, max_distance: int) -> int:
    """In how many bands to agree: what costs least if hashes agree by chance as random ones do."""

    def cost(shared: int) -> float:
        if shared == 0:
            return num_earlier * num_later
        pairs_by_chance = num_earlier * num_later / 2 ** (BITS * shared / (max_distance + shared))
        choices = math.comb(max_distance + shared, shared)
        return choices * (pairs_by_chance + PAIRS_PER_SORTED_ROW * (num_earlier + num_later))

    return min(range(MOST_SHARED_BANDS + 1), key=cost)


def masks(max_distance: int, shared: int) -> list[np.uint64]:
    """Bits to agree in, one choice of ``shared`` bands after the other; where all must agree, that is one choice."""
    if max_distance == 0:
        return [np.uint64(2**BITS - 1)]
    edges = np.linspace(0, BITS, max_distance + shared + 1).round().astype(int).tolist()
    bands = [2**stop - 2**start for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    return [np.uint64(sum(choice)) for choice in combinations(bands, shared)]


def _near_pairs(
    left: UInt64[np.ndarray, " k"], right: UInt64[np.ndarray, " n"], mask: np.uint64, max_distance: int
) -> Iterator[tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]]:
    """Places of hashes that agree in the bits of ``mask`` and are near; some at a time, so that memory stays small."""
    left_order, right_order = np.argsort(left & mask), np.argsort(right & mask)
    left, right = left[left_order], right[right_order]  # those that agree lie together, so reading them is fast
    first = np.searchsorted(left & mask, right & mask, side="left")
    counts = np.searchsorted(left & mask, right & mask, side="right") - first
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, PAIRS_AT_ONCE):
        stop = min(start + PAIRS_AT_ONCE, total)
        rows = np.arange(np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop, side="left") + 1)
        taken = np.minimum(ends[rows], stop) - np.maximum(ends[rows] - counts[rows], start)
        b = np.repeat(rows, taken)
        a = np.arange(start, stop) + np.repeat(first[rows] - ends[rows] + counts[rows], taken)
        near = np.bitwise_count(left[a] ^ right[b]) <= max_distance
        yield left_order[a[near]], right_order[b[near]]

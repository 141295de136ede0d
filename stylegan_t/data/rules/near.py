"""Which rows are near an earlier one that stays: the greedy rule, for any measure of nearness.

Rows are taken in a fixed order, and one is dropped exactly when a kept row before it is near it. That is well defined
(whoever walks through the rows one by one gets the same), it keeps one of every group, and no two rows that are kept
are near each other. Nearness is not transitive: of a chain a-b-c in which neighbours are near, a and c stay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int64

Rows = Int64[np.ndarray, " n"]
"""Numbers of rows."""

Done = Callable[[int], None]
"""Told how many more rows are done."""

ROWS_AT_ONCE = 1024
"""So many rows are compared with each other at a time; the result does not depend on it."""


def nothing(count: int) -> None:
    """Nobody wants to know how far it has come."""


class Measure(ABC):
    """Says of rows, by number, which are near."""

    @abstractmethod
    def matrix(self, rows: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "n n"]:
        """Which of a few rows are near each other."""

    @abstractmethod
    def first_near(self, earlier: Int64[np.ndarray, " k"], later: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """For each later row the first of the earlier ones (in the order given) that is near it; -1 where none is."""

    @abstractmethod
    def values(self, a: Int64[np.ndarray, " n"], b: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """How near ``a[i]`` and ``b[i]`` are, in the measure's unit."""


def keep_first(rows: Int64[np.ndarray, " n"], measure: Measure) -> Int64[np.ndarray, " n"]:
    """For each row the first kept row before it that is near it; -1 where there is none, so that it is kept.

    Halves are settled one after the other: what the first half keeps drops what is near it in the second. So the pairs
    that are near are never held all at once, of which a group of m rows has m²/2.

    Args:
        rows: In the order of their right to stay.
        measure: Says which are near.
    """
    twins = np.full(len(rows), -1, np.int64)

    def settle(places: Int64[np.ndarray, " m"]) -> None:
        """Decide of rows of which no one is near a kept row before them all."""
        if len(places) == 0:
            return
        if len(places) <= ROWS_AT_ONCE:
            twins[places] = _among(rows[places], measure.matrix(rows[places]))
            return
        first, second = np.array_split(places, 2)
        settle(first)
        kept = rows[first[twins[first] < 0]]
        twins[second] = measure.first_near(kept, rows[second])
        settle(second[twins[second] < 0])

    settle(np.arange(len(rows)))
    return twins


def _among(rows: Int64[np.ndarray, " n"], near: Bool[np.ndarray, "n n"]) -> Int64[np.ndarray, " n"]:
    """The greedy rule where it is known which rows are near.

    In each round, those are decided whose fate hangs on no undecided row; a row that is near nobody, in the first.
    """
    before = np.tril(near, -1)  # row i: who is near it and comes first
    undecided = np.array(before.any(axis=1))
    kept = np.logical_not(undecided)
    while undecided.any():
        waiting = np.flatnonzero(undecided)
        dropped = before[np.ix_(waiting, kept)].any(axis=1)
        waits_for = before[np.ix_(waiting, undecided)].any(axis=1)
        kept[waiting[~dropped & ~waits_for]] = True
        undecided[waiting[dropped | ~waits_for]] = False
    near_kept = before & kept
    return np.where(near_kept.any(axis=1), rows[near_kept.argmax(axis=1)], -1)

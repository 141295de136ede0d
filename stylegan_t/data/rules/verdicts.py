"""What the rules say of each row: kept, or the first reason not to keep it, what was measured, and whose copy it is.

A reason is a small number while rules are asked, so that a million rows take a few megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int64, Num

KEPT = 0
"""The code of a row that no rule has dropped (yet)."""


class Verdicts:
    """A reason for each row, filled in rule by rule: the first that applies stays.

    Args:
        reasons: All there may be, in the order in which rules are asked; their codes count from 1.
        num_rows: None of which is dropped at first.

    Attributes:
        codes: 0 = kept, else the place of the reason in ``reasons``, from 1 on.
        values: What the rule measured; NaN where it measured nothing, or the row is kept.
        twins: The row that a duplicate is near, -1 elsewhere.
    """

    def __init__(self, reasons: Sequence[str], num_rows: int) -> None:
        self.reasons = tuple(reasons)
        self.codes = np.zeros(num_rows, np.uint8)
        self.values = np.full(num_rows, np.nan, np.float32)
        self.twins = np.full(num_rows, -1, np.int64)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def passing(self) -> Bool[np.ndarray, " n"]:
        """Rows that are not dropped (yet)."""
        return self.codes == KEPT

    def drop(self, reason: str, applies: Bool[np.ndarray, " n"], values: Num[np.ndarray, " n"] | None = None) -> None:
        """Drop the rows to which a rule applies, but for those that another one dropped before."""
        rows = np.flatnonzero(applies & self.passing)
        self.drop_rows(reason, rows, None if values is None else values[rows])

    def drop_rows(
        self,
        reason: str,
        rows: Int64[np.ndarray, " k"],
        values: Num[np.ndarray, " k"] | None = None,
        twins: Int64[np.ndarray, " k"] | None = None,
    ) -> None:
        """Drop rows that were passing, by number."""
        self.codes[rows] = self.code(reason)
        if values is not None:
            self.values[rows] = values
        if twins is not None:
            self.twins[rows] = twins

    def code(self, reason: str) -> int:
        return self.reasons.index(reason) + 1

    def count(self) -> dict[str, int]:
        """How many rows each reason dropped, in the order of the reasons, those of no row too."""
        counts = np.bincount(self.codes, minlength=len(self.reasons) + 1)
        return dict(zip(self.reasons, counts[1:].tolist(), strict=True))

    def put(self, start: int, other: Verdicts) -> None:
        """Take over the verdicts on the rows from ``start`` on."""
        rows = slice(start, start + len(other))
        self.codes[rows], self.values[rows], self.twins[rows] = other.codes, other.values, other.twins


def best_fraction(values: Float[np.ndarray, " n"], pictures: Int64[np.ndarray, " n"], keep_fraction: float) -> float:
    """The value that the best ``keep_fraction`` of the distinct pictures reach (rounded up); -inf where there are none.

    Args:
        values: Higher is better; NaN is worst.
        pictures: A number that copies of a picture share; the best of them speaks for it.
        keep_fraction: Above 0, at most 1.
    """
    if not len(values):
        return -np.inf
    values = np.where(np.isnan(values), -np.inf, values)
    order = np.lexsort((values, pictures))
    last_of_picture = np.append(pictures[order][1:] != pictures[order][:-1], True)
    best = np.sort(values[order][last_of_picture])[::-1]
    num_kept = ceil(Fraction(str(keep_fraction)) * len(best))  # as written: 0.07 * 100 is more than 7 in floats
    return float(best[num_kept - 1])

from __future__ import annotations

import numpy as np
import pytest

from stylegan_t.data.rules import near
from stylegan_t.data.rules.near import Measure, keep_first


class Line(Measure):
    """Numbers that lie at most so far apart."""

    def __init__(self, numbers: np.ndarray, distance: float) -> None:
        self.numbers, self.distance = numbers, distance

    def matrix(self, rows):
        return abs(self.numbers[rows][:, None] - self.numbers[rows]) <= self.distance

    def first_near(self, earlier, later):
        close = abs(self.numbers[later][:, None] - self.numbers[earlier]) <= self.distance
        return np.array([earlier[line.argmax()] if line.any() else -1 for line in close], np.int64)

    def values(self, a, b):
        return abs(self.numbers[a] - self.numbers[b]).astype(np.float32)


def one_by_one(rows, measure: Line):
    """The definition: walk through the rows, and compare each with those that stayed."""
    kept, twins = [], []
    for row in rows.tolist():
        close = [k for k in kept if abs(measure.numbers[k] - measure.numbers[row]) <= measure.distance]
        twins.append(close[0] if close else -1)
        kept += [] if close else [row]
    return twins


@pytest.mark.parametrize("rows_at_once", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("distance", [0.0, 0.3, 2.0, 100.0])
def test_it_is_the_walk_through_the_rows_one_by_one_whatever_the_blocks(monkeypatch, rows_at_once, distance):
    monkeypatch.setattr(near, "ROWS_AT_ONCE", rows_at_once)
    rng = np.random.default_rng(0)
    measure, rows = Line(rng.uniform(0, 40, 200), distance), rng.permutation(200)
    assert keep_first(rows, measure).tolist() == one_by_one(rows, measure)


def test_of_a_chain_every_second_one_stays():
    chain = Line(np.arange(50.0), 1.0)
    assert np.flatnonzero(keep_first(np.arange(50), chain) < 0).tolist() == list(range(0, 50, 2))


def test_no_rows_are_no_trouble():
    assert len(keep_first(np.empty(0, np.int64), Line(np.empty(0), 1.0))) == 0

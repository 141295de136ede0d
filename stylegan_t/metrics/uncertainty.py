"""How far a metric would move with other pictures of the same source."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from scipy.stats import binomtest
from scipy.stats import t as student
from torch import Tensor

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Where a value lies with 95 %, from its standard error; ``how`` says what that was taken from."""

    low: float
    high: float
    error: float
    how: str


def jackknife(value: float, without_each: Float[Tensor, " n"], what: str) -> Interval:
    """A value's interval from the values without each picture, or each block of pictures, in turn.

    For a mean it is the textbook's standard error. Nothing is drawn, and no picture is repeated as by a bootstrap,
    which distances of kernels and covariances would take for a collapsed model (Efron and Stein 1981, Ann. Statist.
    9(3): the error is right to first order and not too small on average).

    Args:
        value: Of all pictures.
        without_each: Up to a constant that all of them share.
        what: Of which there are as many: "pictures".

    Raises:
        ValueError: Fewer than 2.
    """
    count = len(without_each)
    if count < 2:
        raise ValueError(f"a jackknife needs at least 2 {what} to leave out, got {count}")
    error = math.sqrt((count - 1) * without_each.double().var(correction=0).item())
    return _around(value, error, f"jackknife over {count} {what}", count)


def mean_interval(values: Float[Tensor, " n"]) -> Interval:
    """Of the mean of a number per picture, whose error has a formula. Raises ValueError for fewer than 2."""
    if len(values) < 2:
        raise ValueError(f"the error of a mean needs at least 2 pictures, got {len(values)}")
    values = values.double()
    error = values.std().item() / math.sqrt(len(values))
    how = f"standard error of the mean over {len(values)} pictures"
    return _around(values.mean().item(), error, how, len(values))


def share_interval(share: float, count: int) -> Interval:
    """Of the share of pictures of which something is true, by Wilson's score: it stays within 0 and 1."""
    found = binomtest(round(share * count), count).proportion_ci(CONFIDENCE, "wilson")
    error = math.sqrt(share * (1 - share) / count)
    return Interval(found.low, found.high, error, f"Wilson's interval of a share of {count} pictures")


def _around(value: float, error: float, how: str, known_from: int) -> Interval:
    """Student's interval: an error known from so few numbers is itself uncertain."""
    reach = float(student.ppf((1 + CONFIDENCE) / 2, known_from - 1)) * error
    return Interval(value - reach, value + reach, error, how)

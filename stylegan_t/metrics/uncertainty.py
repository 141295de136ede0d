"""How far a metric would move with other pictures of the same source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import torch
from jaxtyping import Bool, Float
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


def random_halves(count: int, draws: int, seed: int) -> Bool[Tensor, "n h"]:
    """Which pictures each of several random halves has; a metric's scatter over them is its standard error.

    They are drawn *without* replacement, and then need no factor: a half varies by twice the whole's variance over all
    possible pictures, and by half of that within the pictures at hand (the delete-d jackknife at d = n/2, Shao and Wu
    1989, Ann. Statist. 17(3)). A bootstrap would show pictures repeatedly, and distances of kernels and covariances
    take repetitions for a collapsed model.

    Args:
        count: Pictures; of an odd number a half lacks one, which widens the error by ``1 / 2n``.
        draws: How many halves; the error is right to about one part in ``(2 draws)^½``.
        seed: Of the choice.

    Raises:
        ValueError: Fewer than 4 pictures.
    """
    if count < 4:
        raise ValueError(f"an uncertainty from halves needs at least 4 pictures, got {count}")
    generator = torch.Generator().manual_seed(seed)
    halves = torch.zeros(count, draws, dtype=torch.bool)
    for half in halves.T:
        half[torch.randperm(count, generator=generator)[: count // 2]] = True
    return halves


def interval_of(value: float, halves: Sequence[float], how: str) -> Interval:
    """A value's interval from its scatter over ``random_halves``.

    Args:
        value: Of all pictures. Halves of a biased metric lie elsewhere, and only their scatter is used.
        halves: Of each half.
        how: What to say of it.

    Raises:
        ValueError: Fewer than 2 halves.
    """
    if len(halves) < 2:
        raise ValueError(f"a scatter over halves needs at least 2 of them, got {len(halves)}")
    return _around(value, stdev(halves), how, len(halves))


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

"""How far a metric would move with other pictures of the same source."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from scipy.stats import t as student
from torch import Tensor

Rows = Int[Tensor, " m"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Where a value lies with 95 %, from its standard error; ``how`` says what that was taken from."""

    low: float
    high: float
    error: float
    how: str


def half_samples(value: float, value_of: Callable[[Rows], float], count: int, draws: int, seed: int) -> Interval:
    """The value's interval, from its scatter over random halves of the pictures.

    The standard error is the standard deviation over halves drawn *without* replacement. It needs no factor: a half
    varies by twice the whole's variance over all possible pictures, and by half of that within the pictures at hand
    (the delete-d jackknife at d = n/2, Shao and Wu 1989, Ann. Statist. 17(3)). A bootstrap would show pictures
    repeatedly, and distances of kernels, covariances and neighbours take repetitions for a collapsed model.

    Args:
        value: Of all pictures. Halves of a biased metric lie elsewhere, and only their scatter is used.
        value_of: The metric of the pictures of these rows.
        count: Pictures, numbered from 0.
        draws: How many halves; the error is right to about one part in ``(2 draws)^½``.
        seed: Of the choice.

    Raises:
        ValueError: Fewer than 4 pictures or 2 draws.
    """
    taken = _half(count)
    generator = torch.Generator().manual_seed(seed)
    halves = [value_of(torch.randperm(count, generator=generator)[:taken]) for _ in range(draws)]
    how = f"{draws} random halves without replacement"
    smaller_than_half = math.sqrt(taken / (count - taken))  # the jackknife's factor; 1 for even counts
    return _around(value, smaller_than_half * _scatter(halves), how, draws)


def interval_of(value: float, halves: Sequence[float], how: str) -> Interval:
    """The same from the values of halves already at hand. Raises ValueError for fewer than 2."""
    return _around(value, _scatter(halves), how, len(halves))


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


def null_quantile(
    value_between: Callable[[Rows, Rows], float], count: int, draws: int, seed: int, quantile: float = 0.95
) -> float:
    """What a distance shows by chance: its quantile between two random halves of one set.

    A distance below it tells the two sets no better apart than samples of the same pictures.

    Args:
        value_between: The distance between the pictures of these rows and those, as many.
        count: Pictures; of an odd number one sits out in each draw.
        draws: How many divisions.
        seed: Of the divisions.
        quantile: Of the distances, interpolated.

    Raises:
        ValueError: Fewer than 4 pictures.
    """
    half = _half(count)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(draws)]
    return float(np.quantile([value_between(order[:half], order[half : 2 * half]) for order in orders], quantile))


def _half(count: int) -> int:
    if count < 4:
        raise ValueError(f"an uncertainty from halves needs at least 4 pictures, got {count}")
    return count // 2


def _scatter(halves: Sequence[float]) -> float:
    if len(halves) < 2:
        raise ValueError(f"a scatter over halves needs at least 2 of them, got {len(halves)}")
    return stdev(halves)


def _around(value: float, error: float, how: str, known_from: int) -> Interval:
    """Student's interval: an error known from so few numbers is itself uncertain."""
    reach = float(student.ppf((1 + CONFIDENCE) / 2, known_from - 1)) * error
    return Interval(value - reach, value + reach, error, how)

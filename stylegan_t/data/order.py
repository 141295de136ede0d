"""Which sample is shown when: a function of the seed and the number of images shown before, and of nothing else.

So resuming needs one integer, and any process can work out its share of any batch. Everything here takes about as long
at the end of the hundredth epoch of a large data set as at the start of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from stylegan_t.errors import SettingsError
from stylegan_t.randomness import derive_seed

BLOCK = 256
"""Neighbouring samples that stay together when an epoch is shuffled coarsely."""
BLOCKS_PER_WINDOW = 256
"""Shuffled blocks whose samples are mixed with each other; a smaller data set is mixed as a whole.

Each may lie in a shard of its own, and a reader keeps the indexes of somewhat more (``shards.OPEN_SHARDS``): the data
sets of a mixture, which are read by turns, share the number.
"""
PERIOD = 4096
"""Images within which each data set of a mixture has exactly its share."""


class Epochs:
    """The samples of one data set, epoch after epoch, in an endless row.

    An epoch shows each sample once. It mixes within windows of shuffled blocks, so that a data set larger than the page
    cache is still read in runs, and a place in the row can be found without what comes before its window.

    Args:
        num_rows: Data sets that are gone through by turns, this one among them.
    """

    def __init__(self, num_samples: int, seed: int, num_rows: int = 1) -> None:
        self._num_samples, self._seed = num_samples, seed
        self._blocks = max(1, BLOCKS_PER_WINDOW // num_rows)
        self._known: tuple[int, int] | None = None
        self._window = np.empty(0, np.int64)

    def at(self, first: int, count: int) -> Int[np.ndarray, " count"]:
        """Sample numbers at ``count`` places of the row, from place ``first`` on."""
        parts = [np.empty(0, np.int64)]
        while count:
            epoch, place = divmod(first, self._num_samples)
            window, offset = divmod(place, BLOCK * self._blocks)
            if self._known != (epoch, window):
                self._known = epoch, window
                self._window = epoch_window(self._num_samples, self._seed, epoch, window, self._blocks)
            parts.append(self._window[offset : offset + count])
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)


def epoch_window(num_samples: int, seed: int, epoch: int, window: int, blocks_per_window: int) -> Int[np.ndarray, " n"]:
    """One window of an epoch's order; the windows one after the other are the whole of it."""
    rng = _generator(seed, "epoch order", epoch)
    blocks = rng.permutation(-(-num_samples // BLOCK))
    if window:
        rng = _generator(seed, "epoch order", epoch, window)
    sizes = np.minimum(BLOCK, num_samples - blocks * BLOCK)  # only the data's last block may be shorter
    ends = np.cumsum(sizes)
    start = window * BLOCK * blocks_per_window
    end = min(start + BLOCK * blocks_per_window, num_samples)
    touched = slice(np.searchsorted(ends, start, side="right"), np.searchsorted(ends, end, side="left") + 1)
    order = (blocks[touched, None] * BLOCK + np.arange(BLOCK)).ravel()
    order = order[order < num_samples]
    before = int(ends[touched.start] - sizes[touched.start])
    order = order[start - before : end - before]
    rng.shuffle(order)
    return order


class Mixture:
    """Several data sets in one row, each with its share of the images, whatever its size.

    Every ``PERIOD`` images hold as many of each data set, in an order of their own, so that the number of its images
    before any place is a product and a count. Each data set goes through its own epochs.

    Args:
        datasets: Sample numbers of each data set, as ranges; at least one sample each.
        weights: Of the same names; only their ratios matter.

    Raises:
        SettingsError: A weight is so small that the data set would never be shown.
    """

    def __init__(self, datasets: Mapping[str, Sequence[range]], weights: Mapping[str, float], seed: int) -> None:
        names = sorted(datasets)
        self._seed = seed
        self._counts = largest_remainder([weights[name] for name in names], PERIOD)
        for name, count in zip(names, self._counts, strict=True):
            if not count:
                raise SettingsError(
                    f"mixture: {name} = {weights[name]} is less than one image in {PERIOD}; use a larger weight"
                )
        self._ranges = [_Ranges(datasets[name]) for name in names]
        self._epochs = [
            Epochs(ranges.count, derive_seed(seed, "data set", name), num_rows=len(names))
            for name, ranges in zip(names, self._ranges, strict=True)
        ]

    def at(self, first: int, count: int) -> Int[np.ndarray, " count"]:
        """Sample numbers at ``count`` places of the row, from place ``first`` on."""
        periods, offset = divmod(first, PERIOD)
        pattern = np.concatenate([self._pattern(p) for p in range(periods, (first + count - 1) // PERIOD + 1)])
        shown = self._counts * periods + np.bincount(pattern[:offset], minlength=len(self._counts))
        pattern = pattern[offset : offset + count]
        numbers = np.empty(count, np.int64)
        for dataset, (ranges, epochs) in enumerate(zip(self._ranges, self._epochs, strict=True)):
            places = np.flatnonzero(pattern == dataset)
            numbers[places] = ranges.numbers(epochs.at(int(shown[dataset]), len(places)))
        return numbers

    def _pattern(self, period: int) -> Int[np.ndarray, " period"]:
        """The data set of each image of a period."""
        each = np.repeat(np.arange(len(self._counts)), self._counts)
        return _generator(self._seed, "mixture", period).permutation(each)


class _Ranges:
    """Ranges of numbers, one after the other."""

    def __init__(self, ranges: Sequence[range]) -> None:
        self._ends = np.cumsum([len(each) for each in ranges])
        self._shifts = np.array([each.stop for each in ranges]) - self._ends
        self.count = int(self._ends[-1])

    def numbers(self, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return places + self._shifts[np.searchsorted(self._ends, places, side="right")]


def largest_remainder(weights: Sequence[float], total: int) -> Int[np.ndarray, " n"]:
    """Whole numbers that add up to ``total``, as near to the weights' ratios as they can be."""
    exact = np.array(weights) / sum(weights) * total
    counts = np.floor(exact).astype(np.int64)
    nearest = np.argsort(counts - exact, kind="stable")
    counts[nearest[: total - counts.sum()]] += 1
    return counts


def caption_number(seed: int, position: int, num_captions: int) -> int:
    """Which of its captions goes with the image at a place of the row."""
    return derive_seed(seed, "caption", position) % num_captions if num_captions > 1 else 0


def is_mirrored(seed: int, position: int) -> bool:
    """Whether the image at a place of the row is mirrored, where that is wanted: every second one is."""
    return derive_seed(seed, "horizontal flip", position) % 2 == 1


def _generator(*parts: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))

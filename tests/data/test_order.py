"""The endless row of samples: found again from any place, each data set with its share."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

import numpy as np
import pytest

from stylegan_t.data import order
from stylegan_t.data.order import Epochs, Mixture, caption_number, is_mirrored, largest_remainder
from stylegan_t.errors import SettingsError
from stylegan_t.randomness import derive_seed

RANGES = {"large": [range(40), range(50, 110)], "small": [range(40, 50)], "third": [range(110, 117)]}
WEIGHTS = {"large": 1.0, "small": 2.0, "third": 0.5}
OWNER = {number: name for name, ranges in RANGES.items() for each in ranges for number in each}


def whole(num_samples: int, seed: int, epoch: int) -> list[int]:
    return Epochs(num_samples, seed).at(epoch * num_samples, num_samples).tolist()


@pytest.mark.parametrize(
    ("num_samples", "digest"),
    [
        (23, "127e14c36ae3f8b4ecf9ff0f36bcb7f9dbdf44a3723438577b1c273a1a228ff6"),
        (17500, "d1f57f0f9a3934c16d7e8de98db48053bc7b7bbd2bf0a9968f746911353d3d54"),
        (65536, "3c3afd252c0361ecb0520f4a89eab38f18bd04d14e3a07bca450cb74bb713eba"),
    ],
)
def test_data_sets_of_one_window_keep_the_order_that_published_runs_had(num_samples, digest):
    row = Epochs(num_samples, seed=0).at(0, 3 * num_samples)
    assert hashlib.sha256(row.astype(np.int64).tobytes()).hexdigest() == digest


@pytest.mark.parametrize("num_samples", [1, 9, 10, 49, 50, 51, 203])
def test_every_epoch_shows_every_sample_once_and_no_two_are_alike(monkeypatch, num_samples):
    monkeypatch.setattr(order, "BLOCK", 5)
    monkeypatch.setattr(order, "BLOCKS_PER_WINDOW", 10)
    epochs = [whole(num_samples, 0, epoch) for epoch in range(4)]
    assert all(sorted(epoch) == list(range(num_samples)) for epoch in epochs)
    if num_samples > 1:
        assert len({tuple(epoch) for epoch in [*epochs, whole(num_samples, 1, 0)]}) == 5


def test_an_epoch_of_many_blocks_mixes_within_windows_of_blocks(monkeypatch):
    monkeypatch.setattr(order, "BLOCK", 10)
    monkeypatch.setattr(order, "BLOCKS_PER_WINDOW", 5)
    row = Epochs(1003, seed=0).at(0, 1003)
    windows = [row[start : start + 50] for start in range(0, 1003, 50)]
    assert max(len(set((window // 10).tolist())) for window in windows) <= 6, "a window reads few runs of neighbours"
    assert len({number // 100 for number in windows[0].tolist()}) > 2, "from all over the data"
    neighbours = np.abs(np.diff(row)) == 1
    assert neighbours.mean() < 0.2, "and the runs are mixed"


def test_no_two_windows_are_mixed_alike(monkeypatch):
    monkeypatch.setattr(order, "BLOCK", 10)
    monkeypatch.setattr(order, "BLOCKS_PER_WINDOW", 5)
    places = Epochs(1000, seed=0).at(0, 1000).reshape(20, 50) % 10
    assert len({tuple(window) for window in places.tolist()}) == 20


@pytest.fixture(params=["epochs", "mixture"])
def row(request, monkeypatch):
    """A new row each time; windows and periods are short, so that many borders are crossed."""
    monkeypatch.setattr(order, "BLOCK", 3)
    monkeypatch.setattr(order, "BLOCKS_PER_WINDOW", 4)
    monkeypatch.setattr(order, "PERIOD", 16)
    return lambda: Epochs(31, seed=3) if request.param == "epochs" else Mixture(RANGES, WEIGHTS, seed=3)


def test_any_stretch_is_a_part_of_the_one_row(row):
    whole, rng = row().at(0, 700).tolist(), np.random.default_rng(0)
    again = row()
    for first, count in zip(rng.integers(0, 600, 60).tolist(), rng.integers(1, 100, 60).tolist(), strict=True):
        assert again.at(first, count).tolist() == whole[first : first + count]
        assert row().at(first, count).tolist() == whole[first : first + count], "whatever was asked for before"


@pytest.mark.parametrize("make", [lambda: Epochs(250_000_000, 0), lambda: Mixture({"a": [range(10**8)]}, {"a": 1}, 0)])
def test_a_place_far_into_a_large_data_set_is_found_at_once(make):
    start = time.perf_counter()
    assert len(make().at(10**12 + 12345, 2048)) == 2048
    assert time.perf_counter() - start < 0.5


def test_every_period_of_a_mixture_holds_each_data_set_s_share():
    row = Mixture(RANGES, WEIGHTS, seed=1).at(0, 3 * order.PERIOD).tolist()
    shares = {name: weight / 3.5 for name, weight in WEIGHTS.items()}
    for start in range(0, len(row), order.PERIOD):
        counts = Counter(OWNER[number] for number in row[start : start + order.PERIOD])
        assert all(abs(counts[name] - share * order.PERIOD) < 1 for name, share in shares.items())
    first, second = ([OWNER[n] for n in row[s : s + order.PERIOD]] for s in (0, order.PERIOD))
    assert first != second, "but in another order"


def test_each_data_set_of_a_mixture_goes_through_its_own_epochs():
    row = Mixture(RANGES, WEIGHTS, seed=1).at(0, 4000).tolist()
    for name, ranges in RANGES.items():
        numbers = [number for each in ranges for number in each]
        shown = [numbers.index(number) for number in row if OWNER[number] == name]
        assert shown == Epochs(len(numbers), derive_seed(1, "data set", name), len(RANGES)).at(0, len(shown)).tolist()


def test_a_mixture_draws_from_no_more_places_at_a_time_than_one_data_set():
    """Each may be a shard of its own, of which a reader keeps so many open."""
    ranges = {name: [range(number << 23, (number + 1) << 23)] for number, name in enumerate("abcde")}
    row = Mixture(ranges, dict.fromkeys(ranges, 1.0), seed=0).at(0, 20_000)
    assert len(np.unique(row // order.BLOCK)) <= order.BLOCKS_PER_WINDOW


def test_only_the_ratios_of_the_weights_and_the_seed_matter():
    row = Mixture(RANGES, WEIGHTS, seed=1).at(0, 500).tolist()
    turned = {name: 4 * WEIGHTS[name] for name in reversed(WEIGHTS)}
    assert Mixture(dict(reversed(RANGES.items())), turned, seed=1).at(0, 500).tolist() == row
    assert Mixture(RANGES, WEIGHTS, seed=2).at(0, 500).tolist() != row


def test_a_weight_too_small_to_be_seen_is_refused():
    with pytest.raises(SettingsError, match="mixture: small = 1e-09 is less than one image in 4096"):
        Mixture(RANGES, {**WEIGHTS, "small": 1e-9}, seed=0)


@pytest.mark.parametrize("weights", [[1.0], [1, 1, 1], [0.1, 0.2, 0.7], [5, 3, 1, 1e-6], [2**0.5, 3**0.5, 5**0.5]])
def test_largest_remainders_add_up_and_round_each_to_a_neighbour(weights):
    counts = largest_remainder(weights, 100)
    exact = np.array(weights) / sum(weights) * 100
    assert counts.sum() == 100 and (np.abs(counts - exact) < 1).all()
    rest, rounded_up = exact - np.floor(exact), counts > exact
    assert rest[rounded_up].min(initial=1) >= rest[~rounded_up].max(initial=0) or len(set(rest.round(9))) == 1


def test_captions_and_mirrors_are_drawn_evenly_and_by_the_place_alone():
    numbers = Counter(caption_number(0, place, 3) for place in range(3000))
    assert set(numbers) == {0, 1, 2} and all(abs(count - 1000) < 100 for count in numbers.values())
    mirrored = [is_mirrored(0, place) for place in range(2000)]
    assert abs(sum(mirrored) - 1000) < 100
    assert mirrored == [is_mirrored(0, place) for place in range(2000)]
    assert mirrored != [is_mirrored(1, place) for place in range(2000)]
    assert {caption_number(seed, 5, 1) for seed in range(20)} == {0}, "of one caption there is no choice"

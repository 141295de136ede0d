"""Intervals and chance levels against what theory says of a mean."""

import numpy as np
import pytest
import torch

from stylegan_t.metrics.kernels import cmmd
from stylegan_t.metrics.uncertainty import half_samples, interval_of, mean_interval, null_quantile, share_interval


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("count", [5, 40, 401])
def test_the_error_of_a_mean_is_the_standard_deviation_over_the_root_of_the_count(rng, count):
    values = torch.rand(count, generator=rng)
    found = half_samples(values.mean().item(), lambda rows: values[rows].mean().item(), count, draws=3000, seed=0)
    assert found.error == pytest.approx(values.std().item() / count**0.5, rel=0.05)


def test_halves_are_half_of_the_pictures_none_twice():
    seen = []
    half_samples(0.0, lambda rows: seen.append(rows.tolist()) or float(rows[0]), 11, draws=50, seed=0)
    assert {len(set(rows)) for rows in seen} == {len(rows) for rows in seen} == {5}
    assert {row for rows in seen for row in rows} == set(range(11))
    assert len({tuple(sorted(rows)) for rows in seen}) > 40


def test_an_interval_is_students_about_the_whole_value_and_says_how():
    found = half_samples(7.0, lambda rows: float(rows.sum()), 6, draws=20, seed=0)
    assert (found.low, found.high) == pytest.approx((7 - 2.093 * found.error, 7 + 2.093 * found.error), rel=1e-3), (
        "19 degrees of freedom"
    )
    assert found.how == "20 random halves without replacement"
    assert found.error > 0
    assert half_samples(7.0, lambda rows: float(rows.sum()), 6, draws=20, seed=0) == found
    assert half_samples(7.0, lambda rows: float(rows.sum()), 6, draws=20, seed=1) != found


def test_an_interval_of_halves_at_hand_has_their_standard_deviation_as_its_error():
    found = interval_of(10.0, [1.0, 2.0, 3.0, 6.0], "4 halves of 10 blocks")
    assert found.error == pytest.approx(np.std([1, 2, 3, 6], ddof=1))
    assert (found.low, found.high) == pytest.approx((10 - 3.182 * found.error, 10 + 3.182 * found.error), rel=1e-3)
    assert found.how == "4 halves of 10 blocks"


def test_intervals_of_a_kernel_distance_hold_its_mean_over_samples_nineteen_times_in_twenty(rng):
    reals = torch.randn(100, 4, generator=rng)
    samples = [torch.randn(60, 4, generator=rng) + 0.5 for _ in range(60)]
    truth = np.mean([cmmd(x, reals) for x in samples])
    held = 0
    for x in samples:
        found = half_samples(cmmd(x, reals), lambda rows, x=x: cmmd(x[rows], reals), len(x), draws=15, seed=0)
        held += found.low <= truth <= found.high
    assert 51 <= held <= 60


def test_chance_is_the_quantile_of_the_distance_between_two_halves_of_one_set(rng):
    values = torch.randn(1001, generator=rng)
    gap = lambda a, b: abs(float(values[a].mean() - values[b].mean()))
    expected = 1.96 * values.std().item() * (2 / 500) ** 0.5
    assert null_quantile(gap, 1001, draws=3000, seed=0) == pytest.approx(expected, rel=0.06)
    assert null_quantile(gap, 1001, draws=3000, seed=0, quantile=0.5) == pytest.approx(
        expected * 0.6745 / 1.96, rel=0.06
    )


def test_chance_compares_as_many_pictures_none_on_both_sides():
    seen = []
    null_quantile(lambda a, b: float(seen.append((a.tolist(), b.tolist())) is None), 9, draws=30, seed=0)
    assert all(len(a) == len(b) == 4 and len({*a, *b}) == 8 for a, b in seen)
    assert len({tuple(a) for a, _ in seen}) > 20


def test_same_distributions_stay_below_chance_and_others_above(rng):
    reals = torch.randn(200, 4, generator=rng)
    chance = null_quantile(lambda a, b: cmmd(reals[a], reals[b]), 200, draws=60, seed=0)
    same = [cmmd(torch.randn(100, 4, generator=rng), torch.randn(100, 4, generator=rng)) for _ in range(40)]
    assert sum(value < chance for value in same) >= 34
    assert cmmd(torch.randn(100, 4, generator=rng) + 0.5, reals[:100]) > chance


@pytest.mark.parametrize("count", [0, 3])
def test_fewer_than_four_pictures_have_no_uncertainty(count):
    for use in (
        lambda: half_samples(0.0, lambda rows: 0.0, count, draws=5, seed=0),
        lambda: null_quantile(lambda a, b: 0.0, count, draws=5, seed=0),
    ):
        with pytest.raises(ValueError, match=f"at least 4 pictures, got {count}"):
            use()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_interval_of_a_mean_needs_no_draws(rng, dtype):
    values = torch.rand(50, generator=rng, dtype=dtype)
    found = mean_interval(values)
    error = np.std(values.double().numpy(), ddof=1) / 50**0.5
    assert found.error == pytest.approx(error)
    assert (found.low + found.high) / 2 == pytest.approx(values.double().mean().item())
    assert found.how == "standard error of the mean over 50 pictures"
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        mean_interval(values[:1])


def test_one_half_shows_no_scatter():
    with pytest.raises(ValueError, match="at least 2 of them, got 1"):
        interval_of(0.0, [1.0], "one")


def test_the_interval_of_a_share_stays_within_0_and_1_and_is_wilsons():
    """Wilson 1927, for 1 of 40 and 0 of 40: the roots of (p - s)² = z² p (1 - p) / n."""
    for share, n in ((1 / 40, 40), (0.0, 40), (1.0, 40), (0.3, 1000)):
        found = share_interval(share, n)
        assert 0 <= found.low <= share <= found.high <= 1
        for root in (found.low, found.high):
            assert (root - share) ** 2 == pytest.approx(1.959964**2 * root * (1 - root) / n, rel=1e-4, abs=1e-12)

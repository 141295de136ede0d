"""Intervals against what theory says of a mean."""

import numpy as np
import pytest
import torch

from stylegan_t.metrics.kernels import cmmd, cmmd_of_parts, kernel_distance, kernel_distance_of_parts
from stylegan_t.metrics.uncertainty import interval_of, mean_interval, random_halves, share_interval


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("count", [4, 40, 401])
def test_the_scatter_of_halves_means_is_the_standard_deviation_over_the_root_of_the_count(rng, count):
    values = torch.rand(count, generator=rng)
    means = [values[half].mean().item() for half in random_halves(count, draws=3000, seed=0).T]
    error = values.std().item() / count**0.5
    assert interval_of(values.mean().item(), means, "").error == pytest.approx(error, rel=0.05)


def test_halves_are_half_of_the_pictures_any_and_differ_by_seed():
    halves = random_halves(11, draws=50, seed=0)
    assert halves.sum(dim=0).tolist() == [5] * 50
    assert halves.any(dim=1).all() and len({tuple(half.tolist()) for half in halves.T}) > 40
    assert random_halves(11, draws=50, seed=0).equal(halves)
    assert not random_halves(11, draws=50, seed=1).equal(halves)


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
        halves = cmmd_of_parts(x, reals, random_halves(len(x), draws=15, seed=0)).tolist()
        found = interval_of(cmmd(x, reals), halves, "")
        held += found.low <= truth <= found.high
    assert 51 <= held <= 60


def test_the_error_of_kid_is_its_scatter_over_new_pictures_though_its_value_is_of_subsets(rng):
    reals = torch.randn(600, 16, generator=rng)
    samples = [1.2 * torch.randn(600, 16, generator=rng) for _ in range(60)]
    values = [kernel_distance(x, reals, seed=0, num_subsets=20, subset_size=300) for x in samples]
    errors = []
    for value, x in zip(values, samples, strict=True):
        halves = kernel_distance_of_parts(x, reals, random_halves(600, draws=20, seed=0)).tolist()
        errors.append(interval_of(value, halves, "").error)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)


@pytest.mark.parametrize("count", [0, 3])
def test_fewer_than_four_pictures_have_no_halves(count):
    with pytest.raises(ValueError, match=f"at least 4 pictures, got {count}"):
        random_halves(count, draws=5, seed=0)


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

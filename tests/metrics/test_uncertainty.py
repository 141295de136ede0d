"""Intervals against what theory says of a mean."""

import numpy as np
import pytest
import torch

from stylegan_t.metrics.kernels import cmmd, cmmd_without_each, kernel_distance, kernel_distance_without_each
from stylegan_t.metrics.uncertainty import jackknife, mean_interval, share_interval


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def without_each(values):
    return torch.stack([torch.cat([values[:i], values[i + 1 :]]).mean() for i in range(len(values))])


@pytest.mark.parametrize("count", [2, 5, 40])
def test_the_jackknife_of_a_mean_is_students_interval(rng, count):
    values = torch.rand(count, generator=rng, dtype=torch.float64)
    found = jackknife(values.mean().item(), without_each(values) + 7, "pictures")
    expected = mean_interval(values)
    assert (found.error, found.low, found.high) == pytest.approx((expected.error, expected.low, expected.high))
    assert found.how == f"jackknife over {count} pictures"


def test_one_value_shows_no_scatter():
    with pytest.raises(ValueError, match="at least 2 blocks to leave out, got 1"):
        jackknife(0.0, torch.ones(1), "blocks")


@pytest.mark.parametrize("shift", [0.0, 0.5], ids=["near", "far"])
def test_intervals_of_a_kernel_distance_hold_its_mean_over_samples_nineteen_times_in_twenty(rng, shift):
    reals = torch.randn(100, 4, generator=rng)
    samples = [torch.randn(60, 4, generator=rng) + shift for _ in range(100)]
    truth = np.mean([cmmd(x, reals) for x in samples])
    intervals = [jackknife(cmmd(x, reals), cmmd_without_each(x, reals), "pictures") for x in samples]
    assert 88 <= sum(found.low <= truth <= found.high for found in intervals) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.02, 1.2], ids=["near", "far"])
def test_the_error_of_kid_is_its_scatter_over_new_pictures_though_its_value_is_of_subsets(rng, scale):
    reals = torch.randn(600, 16, generator=rng)
    samples = [scale * torch.randn(600, 16, generator=rng) for _ in range(60)]
    values = [kernel_distance(x, reals, seed=0, num_subsets=20, subset_size=300) for x in samples]
    errors = [jackknife(0.0, kernel_distance_without_each(x, reals), "pictures").error for x in samples]
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3)


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


def test_the_interval_of_a_share_stays_within_0_and_1_and_is_wilsons():
    """Wilson 1927, for 1 of 40 and 0 of 40: the roots of (p - s)² = z² p (1 - p) / n."""
    for share, n in ((1 / 40, 40), (0.0, 40), (1.0, 40), (0.3, 1000)):
        found = share_interval(share, n)
        assert 0 <= found.low <= share <= found.high <= 1
        for root in (found.low, found.high):
            assert (root - share) ** 2 == pytest.approx(1.959964**2 * root * (1 - root) / n, rel=1e-4, abs=1e-12)

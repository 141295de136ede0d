"""KID and CMMD against their definitions and the libraries."""

import numpy as np
import pytest
import torch
from cleanfid import fid

from stylegan_t.metrics.kernels import cmmd, cmmd_without_each, kernel_distance, kernel_distance_without_each


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_kernel_distance_is_clean_fids_under_the_same_seed(rng):
    x, y = torch.randn(80, 6, generator=rng), torch.randn(70, 6, generator=rng) + 0.1
    np.random.seed(7)
    expected = fid.kernel_distance(x.numpy(), y.numpy(), num_subsets=9, max_subset_size=30)
    assert kernel_distance(x, y, seed=7, num_subsets=9, subset_size=30) == expected
    assert kernel_distance(x, y, seed=8, num_subsets=9, subset_size=30) != expected


def test_kernel_distance_leaves_numpys_global_generator_as_it_was(rng):
    x = torch.randn(10, 3, generator=rng)
    np.random.seed(3)
    expected = np.random.random(2)
    np.random.seed(3)
    first = np.random.random()
    kernel_distance(x, x + 1, seed=0)
    assert [first, np.random.random()] == list(expected)


def test_kernel_distance_takes_seeds_of_any_length(rng):
    x = torch.randn(10, 3, generator=rng)
    assert np.isfinite(kernel_distance(x, x + 1, seed=2**63 + 5, num_subsets=2))


def test_kernel_distance_equals_the_double_sum_over_different_pairs(rng):
    x, y = (torch.randn(7, 3, generator=rng, dtype=torch.float64) for _ in range(2))

    def k(p, q):
        return (float(p @ q) / 3 + 1) ** 3

    def mean(values):
        return sum(values) / len(values)

    within = [mean([k(s[i], s[j]) for i in range(7) for j in range(7) if i != j]) for s in (x, y)]
    across = mean([k(p, q) for p in x for q in y])
    assert kernel_distance(x, y, seed=0) == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_kernel_distance_is_unbiased_around_zero_and_grows_with_a_shift(rng):
    draws = [[torch.randn(50, 4, generator=rng) for _ in range(2)] for _ in range(200)]
    same = torch.tensor([kernel_distance(x, y, seed=0, num_subsets=1) for x, y in draws])
    assert abs(same.mean()) < 4 * same.std() / len(same) ** 0.5
    assert min(kernel_distance(x, y + 1, seed=0, num_subsets=1) for x, y in draws) > same.max()


def unit(rng, n, d=5, shift=0.0):
    vectors = torch.randn(n, d, generator=rng, dtype=torch.float64) + shift
    return vectors / vectors.norm(dim=1, keepdim=True)


def cmmd_by_loops(x, y):
    k = lambda p, q: np.exp(-np.sum((p - q) ** 2) / (2 * 10**2))
    mean = lambda s, t: np.mean([k(p, q) for p in s.numpy() for q in t.numpy()])
    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


@pytest.mark.parametrize("block_size", [1000, 4])
def test_cmmd_is_the_discrepancy_over_all_pairs_of_unit_vectors_under_the_gaussian_kernel(rng, block_size):
    x, y = unit(rng, 11), unit(rng, 9, shift=1.0)
    assert cmmd(x, y, block_size=block_size) == pytest.approx(cmmd_by_loops(x, y), rel=1e-9)


def test_cmmd_in_single_precision_loses_nothing_to_the_kernels_nearness_to_one(rng):
    x, y = unit(rng, 300, 64), unit(rng, 300, 64, shift=0.1)
    assert cmmd(x.float(), y.float()) == pytest.approx(cmmd(x, y), abs=1e-6)


def test_cmmd_does_not_see_lengths(rng):
    x, y = unit(rng, 11), unit(rng, 9)
    assert cmmd(3 * x, 0.5 * y) == pytest.approx(cmmd(x, y), rel=1e-9)


def test_cmmd_of_equal_sets_is_zero_in_any_order_and_positive_for_others(rng):
    x = unit(rng, 50)
    assert cmmd(x, x.flip(0)) == pytest.approx(0, abs=1e-9)
    assert cmmd(x, unit(rng, 50)) > 1e-3


def kid_by_sums(x, y):
    k = lambda p, q: ((p @ q.T) / p.shape[1] + 1) ** 3
    within = [(k(s, s).sum() - k(s, s).diag().sum()) / (len(s) * (len(s) - 1)) for s in (x, y)]
    return float(sum(within) - 2 * k(x, y).mean())


@pytest.mark.parametrize("block_size", [1000, 7])
@pytest.mark.parametrize(
    ("without_each", "of_one"), [(kernel_distance_without_each, kid_by_sums), (cmmd_without_each, cmmd_by_loops)]
)
def test_leaving_each_out_changes_the_distance_as_measuring_the_others_alone_does(
    rng, without_each, of_one, block_size
):
    x, y = unit(rng, 12), unit(rng, 9, shift=1.0)
    if of_one is kid_by_sums:
        x *= 1 + torch.rand(12, 1, generator=rng)  # else each vector's kernel with itself is the same
    found = without_each(x, y, block_size=block_size)
    expected = [of_one(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(12)]
    assert (found - found[3]).tolist() == pytest.approx([each - expected[3] for each in expected], rel=1e-8, abs=1e-12)
    with pytest.raises(ValueError, match="at least 3 feature vectors, got 2"):
        without_each(x[:2], y)


@pytest.mark.parametrize("distance", [lambda a, b: kernel_distance(a, b, seed=0), cmmd], ids=["kid", "cmmd"])
def test_distances_of_one_vector_or_of_no_numbers_are_refused(rng, distance):
    x = torch.randn(5, 3, generator=rng)
    with pytest.raises(ValueError, match="at least 2 feature vectors on each side, got 1"):
        distance(x, x[:1])
    for place in (0, 1):
        sets = [x, x]
        sets[place] = x.clone()
        sets[place][2] = float("nan")
        with pytest.raises(ValueError, match="1 of 5 feature vectors hold NaN"):
            distance(*sets)

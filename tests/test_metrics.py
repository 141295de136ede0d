"""The metrics against their definitions, by other means."""

import numpy as np
import pytest
import scipy.linalg
import torch

from stylegan_t.metrics import (
    Moments,
    clip_score,
    cosines,
    frechet_distance,
    kernel_distance,
    merged,
    retrieval_accuracy,
    spread,
)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def gaussian(rng, n, d, scale=1.0):
    mixing = torch.randn(d, d, generator=rng)
    return scale * torch.randn(n, d, generator=rng) @ mixing + torch.randn(d, generator=rng)


def test_moments_of_parts_merge_into_those_of_the_whole(rng):
    x = gaussian(rng, 100, 5) + 1e4  # a large mean is where sums of raw squares lose their digits
    moments = merged([Moments.of(part) for part in x.split([1, 30, 69])])
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, np.mean(x.double().numpy(), axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(500, 3), (500, 64), (3000, 128)])
def test_frechet_distance_equals_the_formula_with_scipys_matrix_root(rng, n, d):
    a, b = Moments.of(gaussian(rng, n, d)), Moments.of(gaussian(rng, n, d, scale=0.5))
    root = scipy.linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy()).real
    expected = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * np.trace(root)
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_distance_of_equal_gaussians_is_zero(rng):
    moments = Moments.of(gaussian(rng, 200, 16))
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-9 * moments.covariance.trace().item())


def test_frechet_distance_of_a_unit_shift_in_every_axis_is_the_dimension(rng):
    x = gaussian(rng, 200, 16).double()
    assert frechet_distance(Moments.of(x), Moments.of(x + 1)) == pytest.approx(16, rel=1e-9)


def test_frechet_distance_survives_a_singular_covariance(rng):
    few = torch.randn(5, 40, generator=rng)
    assert frechet_distance(Moments.of(few), Moments.of(few + 1)) == pytest.approx(40, rel=1e-6)


def test_frechet_distance_of_one_sample_says_what_it_needs(rng):
    one = Moments.of(torch.randn(1, 4, generator=rng))
    with pytest.raises(ValueError, match="at least 2 feature vectors, got 1"):
        frechet_distance(one, one)


def test_kernel_distance_equals_the_double_sum_over_different_pairs(rng):
    x, y = (torch.randn(7, 3, generator=rng) for _ in range(2))

    def k(p, q):
        return (float(p.double() @ q.double()) / 3 + 1) ** 3

    def mean(values):
        return sum(values) / len(values)

    within = [mean([k(s[i], s[j]) for i in range(7) for j in range(7) if i != j]) for s in (x, y)]
    across = mean([k(p, q) for p in x for q in y])
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_kernel_distance_averages_disjoint_blocks(rng):
    x, y = torch.randn(10, 3, generator=rng), torch.randn(12, 3, generator=rng)
    blocks = [kernel_distance(x[i : i + 5], y[i : i + 5]) for i in (0, 5)]
    assert kernel_distance(x, y, block_size=5) == pytest.approx(sum(blocks) / 2, rel=1e-12)


def test_kernel_distance_is_unbiased_around_zero_and_grows_with_a_shift(rng):
    draws = [[torch.randn(50, 4, generator=rng) for _ in range(2)] for _ in range(200)]
    same = torch.tensor([kernel_distance(x, y) for x, y in draws])
    assert abs(same.mean()) < 4 * same.std() / len(same) ** 0.5
    assert min(kernel_distance(x, y + 1) for x, y in draws) > same.max()


def test_clip_score_is_the_mean_cosine_of_matching_rows(rng):
    images = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    texts = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-1.0, -1.0]])
    torch.testing.assert_close(cosines(images, texts), torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))
    assert clip_score(images, texts) == pytest.approx(0)


def test_retrieval_counts_images_nearer_to_their_own_caption_than_to_every_other_choice():
    texts = torch.eye(4)
    images = torch.stack([texts[0], texts[2], texts[2], texts.mean(dim=0)])
    choices = torch.tensor([[0, 1, 2], [1, 2, 3], [2, 0, 1], [3, 0, 1]])
    assert retrieval_accuracy(images, texts, choices) == 0.5  # the second is wrong, the fourth only ties


def test_spread_is_the_standard_deviation_within_groups_of_the_points_present():
    inside = torch.tensor([[0.0, 0.0], [2.0, 2.0], [99.0, 99.0]])
    points = torch.stack([inside, inside + 50, inside])
    present = torch.tensor([[True, True, False], [True, True, False], [True, False, False]])
    assert spread(points, present) == pytest.approx(2**0.5)
    assert spread(points, torch.zeros(3, 3, dtype=torch.bool)) == 0

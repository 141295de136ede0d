"""Means, covariances and the Fréchet distance against their definitions, by other means."""

import numpy as np
import pytest
import scipy.linalg
import torch

from stylegan_t.metrics.frechet_errors import frechet_without_each
from stylegan_t.metrics.moments import Moments, Streamed, frechet_distance, merged
from stylegan_t.metrics.uncertainty import jackknife


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def gaussian(rng, n, d, scale=1.0):
    mixing = torch.randn(d, d, generator=rng)
    return scale * torch.randn(n, d, generator=rng) @ mixing + torch.randn(d, generator=rng)


def assert_same(found, expected):
    assert found.count == expected.count
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.scatter, expected.scatter, rtol=1e-10, atol=1e-9)


def test_moments_of_parts_merge_into_those_of_the_whole(rng):
    x = gaussian(rng, 100, 5) + 1e4  # a large mean is where sums of raw squares lose their digits
    moments = merged([Moments.of(part) for part in x.split([1, 30, 69])])
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, np.mean(x.double().numpy(), axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize("batches", [[2503], [1, 999, 1000, 503], [64] * 39 + [7]], ids=["one", "uneven", "small"])
def test_streamed_moments_are_those_of_the_whole_however_it_is_split_into_batches(rng, batches):
    x = gaussian(rng, 2503, 6)
    streamed = Streamed(len(x), num_blocks=3)
    for batch in x.split(batches):
        streamed.add(batch)
    assert_same(streamed.moments, Moments.of(x))
    number_of_block = torch.arange(len(x)) % 3
    assert len(streamed.blocks) == 3
    for number, block in enumerate(streamed.blocks):
        assert_same(block, Moments.of(x[number_of_block == number]))


def test_streamed_moments_may_be_read_on_the_way(rng):
    x = gaussian(rng, 20, 3)
    streamed = Streamed(20, num_blocks=4)
    streamed.add(x[:7])
    assert_same(streamed.moments, Moments.of(x[:7]))
    assert [block.count for block in streamed.blocks] == [2, 2, 2, 1]
    streamed.add(x[7:])
    assert_same(streamed.moments, Moments.of(x))


def test_a_streamed_batch_may_be_overwritten_by_the_caller(rng):
    x = gaussian(rng, 8, 3)
    buffer, streamed = torch.empty(4, 3), Streamed(8, num_blocks=1)
    for batch in x.split(4):
        streamed.add(buffer.copy_(batch))
    assert_same(streamed.moments, Moments.of(x))


def test_more_blocks_than_images_leave_some_out(rng):
    streamed = Streamed(3, num_blocks=10)
    streamed.add(gaussian(rng, 3, 2))
    assert [block.count for block in streamed.blocks] == [1, 1, 1]


def test_streamed_features_never_wait_in_large_numbers(rng, monkeypatch):
    rows = []
    of = Moments.of
    monkeypatch.setattr(Moments, "of", lambda features: rows.append(len(features)) or of(features))
    streamed = Streamed(5000, num_blocks=2)
    for batch in gaussian(rng, 5000, 2).split(300):
        streamed.add(batch)
    assert streamed.moments.count == sum(rows) == 5000
    assert max(rows) <= 1150
    assert len(rows) <= 6  # one merge each


def test_blocks_of_sorted_images_are_alike():
    """Files lie in the order of their classes: blocks that follow it would differ by class, and so would halves."""
    x = torch.arange(5).repeat_interleave(200).double()[:, None]
    streamed = Streamed(1000, num_blocks=10)
    for batch in x.split(37):
        streamed.add(batch)
    assert [block.mean.item() for block in streamed.blocks] == [2.0] * 10


def test_streamed_features_beyond_those_announced_are_refused(rng):
    streamed = Streamed(4)
    streamed.add(gaussian(rng, 3, 2))
    with pytest.raises(ValueError, match="of 5 images, of 4 announced"):
        streamed.add(gaussian(rng, 2, 2))


def test_moments_of_nothing_say_so():
    with pytest.raises(ValueError, match="at least 1 feature vector, got 0"):
        _ = Streamed(4).moments
    with pytest.raises(ValueError, match="0 images in 10 blocks"):
        Streamed(0)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_named(number):
    features = torch.zeros(5, 3)
    features[3, 1] = number
    for use in (Moments.of, Streamed(5).add):
        with pytest.raises(ValueError, match="1 of 5 feature vectors hold NaN"):
            use(features)


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


def test_features_of_two_networks_are_refused(rng):
    a, b = Moments.of(gaussian(rng, 9, 3)), Moments.of(gaussian(rng, 9, 4))
    for use in (frechet_distance, Moments.merge, lambda x, y: frechet_without_each([x] * 4, y)):
        with pytest.raises(ValueError, match="of 3 and of 4 numbers"):
            use(a, b)


def blocks_of(x, count):
    streamed = Streamed(len(x), num_blocks=count)
    streamed.add(x)
    return streamed.blocks


@pytest.mark.parametrize("n", [400, 20], ids=["regular", "singular"])
def test_leaving_a_block_out_gives_the_frechet_distance_of_the_others(rng, n):
    x, reference = gaussian(rng, n, 12), Moments.of(gaussian(rng, 500, 12))
    others = [[x[number::4] for number in range(4) if number != left_out] for left_out in range(4)]
    expected = [frechet_distance(Moments.of(torch.cat(rest)), reference) for rest in others]
    assert frechet_without_each(blocks_of(x, 4), reference).tolist() == pytest.approx(expected, rel=1e-6)


def test_the_error_from_blocks_is_the_scatter_of_the_distance_over_fresh_samples(rng):
    mixing, reference = torch.randn(4, 4, generator=rng), Moments.of(torch.randn(20000, 4, generator=rng))
    fresh = lambda: torch.randn(400, 4, generator=rng) @ mixing + 0.5
    over_samples = np.std([frechet_distance(Moments.of(fresh()), reference) for _ in range(150)])
    errors = [jackknife(0.0, frechet_without_each(blocks_of(fresh(), 10), reference), "").error for _ in range(20)]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(over_samples, rel=0.25)


def test_three_blocks_are_refused(rng):
    blocks = blocks_of(gaussian(rng, 60, 3), 3)
    with pytest.raises(ValueError, match="3 blocks vary too little.*at least 4"):
        frechet_without_each(blocks, blocks[0])

"""Precision, recall, density and coverage against loops over their definitions."""

import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from stylegan_t.metrics.manifolds import density_coverage, precision_recall


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def distance(p, q):
    return float((p - q).square().sum().sqrt())


def radius(points, number, neighbours):
    """Distance of a point to its k-th neighbour among the others."""
    return sorted(distance(points[number], q) for i, q in enumerate(points) if i != number)[neighbours - 1]


def share_within(points, manifold, neighbours):
    radii = [radius(manifold, i, neighbours) for i in range(len(manifold))]
    return sum(any(distance(p, q) <= r for q, r in zip(manifold, radii, strict=True)) for p in points) / len(points)


def means(fakes, reals, **settings):
    """Density and coverage."""
    return tuple(each.double().mean().item() for each in density_coverage(fakes, reals, **settings))


def clouds(rng, n=40, m=30, d=3):
    return torch.randn(n, d, generator=rng) * 0.7 + 1, torch.randn(m, d, generator=rng)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_are_the_shares_within_the_others_balls(rng, neighbours):
    fakes, reals = clouds(rng)
    expected = (share_within(fakes, reals, neighbours), share_within(reals, fakes, neighbours))
    assert 0.05 < expected[1] < expected[0] < 0.95
    assert precision_recall(fakes, reals, neighbours=neighbours) == pytest.approx(expected)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_density_counts_the_reals_balls_around_each_fake_and_coverage_the_balls_with_a_fake(rng, neighbours):
    fakes, reals = clouds(rng)
    radii = [radius(reals, i, neighbours) for i in range(len(reals))]
    within = [[distance(p, q) < r for q, r in zip(reals, radii, strict=True)] for p in fakes]
    density = sum(map(sum, within)) / (neighbours * len(fakes))
    coverage = sum(any(column) for column in zip(*within, strict=True)) / len(reals)
    assert 0.05 < coverage < 0.95
    assert means(fakes, reals, neighbours=neighbours) == pytest.approx((density, coverage))
    of_fakes, of_reals = density_coverage(fakes, reals, neighbours=neighbours, block_size=7)
    assert of_fakes.tolist() == pytest.approx([sum(row) / neighbours for row in within])
    assert of_reals.tolist() == [any(column) for column in zip(*within, strict=True)]


@pytest.mark.parametrize("metric", [precision_recall, means])
def test_the_size_of_blocks_changes_no_value_and_bounds_what_is_held(rng, metric, monkeypatch):
    fakes, reals = clouds(rng, n=300, m=200)
    whole = metric(fakes, reals)
    held = []
    cdist = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b: held.append(a.shape[0] * b.shape[0]) or cdist(a, b))
    assert metric(fakes, reals, block_size=32) == pytest.approx(whole)
    assert 0 < max(held) <= 32 * 300


def test_precision_and_recall_are_torch_fidelitys(rng):
    fakes, reals = clouds(rng, n=200, m=300, d=20)
    expected = prc_features_to_metric(
        fakes, reals, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False
    )
    assert precision_recall(fakes, reals) == pytest.approx((expected["precision"], expected["recall"]))


def test_equal_sets_have_each_share_and_the_density_of_one(rng):
    _, reals = clouds(rng, m=100)
    assert precision_recall(reals, reals.clone()) == (1, 1)
    assert means(reals, reals.clone(), block_size=30) == (1, 1)


def test_disjoint_sets_share_nothing(rng):
    fakes, reals = clouds(rng)
    assert precision_recall(fakes + 100, reals) == (0, 0)
    assert means(fakes + 100, reals) == (0, 0)


def test_far_from_the_origin_nothing_is_lost(rng):
    fakes, reals = (cloud.double() for cloud in clouds(rng))
    far = [(cloud + 300).float() for cloud in (fakes, reals)]
    assert precision_recall(*far) == pytest.approx(precision_recall(fakes, reals))
    assert means(*far) == pytest.approx(means(fakes, reals))


def test_one_mode_of_many_costs_recall_and_coverage_but_no_precision(rng):
    reals = torch.randn(200, 2, generator=rng) * 0.1 + 10 * torch.arange(200).remainder(4)[:, None]
    fakes = torch.randn(200, 2, generator=rng) * 0.05
    precision, recall = precision_recall(fakes, reals)
    density, coverage = means(fakes, reals)
    assert precision > 0.9
    assert density > 0.9
    assert recall < 0.25
    assert coverage < 0.26


@pytest.mark.parametrize(("metric", "least"), [(precision_recall, 4), (density_coverage, 6)])
def test_sets_without_enough_neighbours_or_numbers_are_refused(rng, metric, least):
    fakes, reals = clouds(rng)
    metric(fakes[:least], reals[:least])
    with pytest.raises(ValueError, match=f"at least {least} feature vectors on each side, got {least - 1}"):
        metric(fakes, reals[: least - 1])
    reals[0] = float("nan")
    with pytest.raises(ValueError, match="1 of 30 feature vectors hold NaN"):
        metric(fakes, reals)

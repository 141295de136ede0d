"""Variety within groups, on groups whose variety is known."""

import math

import pytest
import torch

from stylegan_t.metrics.spread import diversity, spread


def test_spread_is_the_standard_deviation_within_groups_of_the_points_present():
    inside = torch.tensor([[0.0, 0.0], [2.0, 2.0], [99.0, 99.0]])
    points = torch.stack([inside, inside + 50, inside])
    present = torch.tensor([[True, True, False], [True, True, False], [True, False, False]])
    assert spread(points, present) == pytest.approx(2**0.5)
    assert spread(points, torch.zeros(3, 3, dtype=torch.bool)) == 0


def test_diversity_is_one_for_an_even_use_and_zero_for_a_single_label():
    assert diversity(torch.tensor([[0, 1, 2, 0, 1, 2]]), 3) == pytest.approx(1)
    assert diversity(torch.tensor([[2, 2, 2, 2]]), 3) == 0


def test_diversity_averages_the_entropy_in_bits_over_groups():
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert diversity(torch.tensor([[0, 0, 0, 1], [0, 1, 0, 1]]), 2) == pytest.approx((quarter + 1) / 2)
    assert diversity(torch.tensor([[0, 0, 0, 1]]), 4) == pytest.approx(quarter / 2)  # of two bits


def test_diversity_within_groups_does_not_see_differences_between_them():
    assert diversity(torch.tensor([[0, 0], [1, 1]]), 2) == 0


def test_unread_labels_count_for_nothing():
    assert diversity(torch.tensor([[0, 1, -1, -1]]), 2) == pytest.approx(1)
    assert diversity(torch.tensor([[-1, -1], [0, 1]]), 2) == pytest.approx(0.5)


def test_labels_beyond_their_number_are_refused():
    with pytest.raises(ValueError, match="label 2 among 2"):
        diversity(torch.tensor([[0, 2]]), 2)
    with pytest.raises(ValueError, match="among 1 labels: needs at least 2"):
        diversity(torch.tensor([[0, 0]]), 1)

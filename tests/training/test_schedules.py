"""Each schedule is a function of the images shown."""

import pytest

from stylegan_t.training.schedules import blur_sigma_at, lr_factor, passed, resolution_at


@pytest.mark.parametrize(("nimg", "px"), [(0, 8), (3999, 8), (4000, 16), (9999, 16), (10000, 32), (10**9, 32)])
def test_a_resolution_begins_at_its_kimg(nimg, px):
    assert resolution_at(nimg, [8, 16, 32], [4.0, 10.0]) == px


def test_the_learning_rate_is_constant_then_linear_then_constant():
    factors = [lr_factor(nimg, 10.0, 20.0, 0.2) for nimg in (0, 10_000, 15_000, 20_000, 90_000)]
    assert factors == pytest.approx([1.0, 1.0, 0.6, 0.2, 0.2])


def test_the_blur_fades_linearly_to_nothing():
    assert [blur_sigma_at(nimg, 8.0, 2.0) for nimg in (0, 1000, 2000, 5000)] == [8.0, 4.0, 0.0, 0.0]


def test_a_blur_without_a_fade_is_off():
    assert blur_sigma_at(0, 8.0, 0.0) == 0.0


def test_passed_counts_every_multiple_once_whatever_the_batch():
    for batch in (8, 24, 96):
        steps = range(batch, 9600 + 1, batch)
        assert sum(passed(nimg, batch, 0.2) for nimg in steps) == 48

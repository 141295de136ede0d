from __future__ import annotations

import numpy as np
import pytest

from stylegan_t.data.rules.duplicates import Likeness, Pictures, duplicates, near_others

BY_ALL = Likeness(same_pixels=True, max_distance=2, min_cosine=0.95)


@pytest.fixture
def pictures() -> Pictures:
    """Row 1 has the pixels of row 0, row 2 a hash two bits off, row 3 an embedding close by; 4 to 9 are like nobody."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 10, dtype=np.uint64)
    embeddings = rng.standard_normal((10, 16))
    pixels = np.arange(10)
    pixels[1], hashes[1], embeddings[1] = pixels[0], hashes[0], embeddings[0]
    hashes[2], embeddings[2] = hashes[0] ^ np.uint64(0b101), embeddings[0]
    embeddings[3] = embeddings[0] + 0.05 * rng.standard_normal(16)
    return Pictures(pixels, hashes, embeddings.astype(np.float16))


def found(pictures, likeness, rows=range(10)):
    return {
        reason: list(zip(some.rows.tolist(), some.twins.tolist(), strict=True))
        for reason, some in duplicates(pictures, np.array(rows), likeness, 1000)
    }


def test_each_measure_finds_what_those_before_it_left(pictures):
    assert found(pictures, BY_ALL) == {
        "duplicate": [(1, 0)], "near_duplicate": [(2, 0)], "embedding_duplicate": [(3, 0)],
    }  # fmt: skip
    assert found(pictures, BY_ALL._replace(same_pixels=False, max_distance=None)) == {
        "embedding_duplicate": [(1, 0), (2, 0), (3, 0)],
    }  # fmt: skip


def test_a_measure_that_is_off_finds_nothing(pictures):
    assert found(pictures, Likeness(False, None, None)) == {}
    assert found(pictures, Likeness(True, None, None)) == {"duplicate": [(1, 0)]}
    assert found(pictures, Likeness(False, 0, None)) == {"near_duplicate": [(1, 0)]}


def test_who_comes_first_stays(pictures):
    assert found(pictures, BY_ALL, [3, 2, 1, 0, 5]) == {
        "duplicate": [(0, 1)], "near_duplicate": [(1, 2)], "embedding_duplicate": [(2, 3)],
    }  # fmt: skip


def test_how_near_they_are_is_told(pictures):
    values = [some.values.tolist() for _, some in duplicates(pictures, np.arange(10), BY_ALL, 1000)]
    assert np.isnan(values[0]).all()
    assert values[1] == [2]
    unit = pictures.embeddings.astype(np.float64)
    cosine = unit[0] @ unit[3] / np.linalg.norm(unit[0]) / np.linalg.norm(unit[3])
    assert values[2] == pytest.approx([cosine], abs=1e-6)


@pytest.mark.parametrize(
    ("likeness", "expected"),
    [
        (Likeness(True, None, None), {1: 0}),
        (Likeness(False, 2, None), {1: 0, 2: 0}),
        (Likeness(False, 1, None), {1: 0}),
        (Likeness(False, None, 0.95), {1: 0, 2: 0, 3: 0}),
        (BY_ALL, {1: 0, 2: 0, 3: 0}),
        (Likeness(False, None, None), {}),
    ],
)
def test_being_near_others_counts_by_any_measure(pictures, likeness, expected):
    near = near_others(pictures, np.array([7, 0]), np.array([5, 3, 2, 1]), likeness, 1000)
    assert dict(zip(near.rows.tolist(), near.twins.tolist(), strict=True)) == expected


def test_nobody_is_near_no_others(pictures):
    assert len(near_others(pictures, np.empty(0, np.int64), np.arange(10), BY_ALL, 1000).rows) == 0
    assert len(near_others(pictures, np.arange(10), np.empty(0, np.int64), BY_ALL, 1000).rows) == 0


def test_what_one_measure_found_another_does_not_take_back(pictures):
    pixels = pictures.pixels.copy()
    pixels[9] = pixels[4]  # and nothing else in common
    near = near_others(pictures._replace(pixels=pixels), np.array([4]), np.array([8, 9]), BY_ALL, 1000)
    assert (near.rows.tolist(), near.twins.tolist(), np.isnan(near.values).tolist()) == ([9], [4], [True])

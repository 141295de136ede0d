from __future__ import annotations

import numpy as np
import pytest

from stylegan_t.data.rules import cosine
from stylegan_t.data.rules.cosine import Cosine, directions
from stylegan_t.data.rules.near import keep_first


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """Sixty vectors of several lengths with five noisy copies each, in float16."""
    rng = np.random.default_rng(0)
    base = np.repeat(rng.standard_normal((60, 16)), 6, axis=0)
    noisy = base + rng.uniform(0, 0.3, (360, 1)) * rng.standard_normal((360, 16))
    return (noisy * rng.uniform(0.5, 2, (360, 1)))[rng.permutation(360)].astype(np.float16)


def one_by_one(embeddings: np.ndarray, min_cosine: float) -> list[int]:
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept, twins = [], []
    for row in range(len(unit)):
        near = [k for k in kept if unit[k] @ unit[row] >= min_cosine]
        twins.append(near[0] if near else -1)
        kept += [] if near else [row]
    return twins


@pytest.mark.parametrize("block", [5, 64, 4096])
@pytest.mark.parametrize("min_cosine", [0.5, 0.9, 0.99])
def test_it_is_the_comparison_of_each_with_each_whatever_the_block(monkeypatch, embeddings, block, min_cosine):
    monkeypatch.setattr(cosine, "VECTORS_AT_ONCE", block)
    monkeypatch.setattr("stylegan_t.data.rules.near.ROWS_AT_ONCE", 32)
    twins = keep_first(np.arange(360), Cosine(embeddings, min_cosine))
    assert twins.tolist() == one_by_one(embeddings, min_cosine)
    assert 0 < (twins < 0).sum() < 360


def test_the_first_of_those_that_are_near_is_named_across_blocks(monkeypatch, embeddings):
    monkeypatch.setattr(cosine, "VECTORS_AT_ONCE", 3)
    earlier = np.array([5, 200, 9, 200, 3])
    found = Cosine(embeddings, -1.0).first_near(earlier, np.array([7, 8, 300]))
    assert found.tolist() == [5, 5, 5]
    assert Cosine(embeddings, 0.999999).first_near(earlier, np.array([3, 9])).tolist() == [3, 9]


def test_lengths_do_not_count(embeddings):
    assert np.linalg.norm(directions(embeddings), axis=1) == pytest.approx(1, abs=1e-6)
    values = Cosine(embeddings, 0.5).values(np.array([0, 1]), np.array([0, 2]))
    unit = directions(embeddings)
    assert values.tolist() == pytest.approx([1, float(unit[1] @ unit[2])], abs=1e-6)


def test_the_same_vector_at_any_length_has_a_cosine_of_one():
    vectors = np.random.default_rng(0).standard_normal((100, 512)).astype(np.float16)
    twice = np.concatenate([vectors, 2 * vectors])
    twins = keep_first(np.arange(200), Cosine(twice, 1.0))
    assert twins.tolist() == [-1] * 100 + list(range(100))
    first, second = np.arange(100), np.arange(100, 200)
    assert Cosine(twice, 1.0).first_near(first, second).tolist() == list(range(100))


def test_the_line_is_drawn_a_millionth_below():
    near = lambda angle: Cosine(np.array([[1, 0], [np.cos(angle), np.sin(angle)]]), 1.0).matrix(np.arange(2))[0, 1]
    assert near(np.sqrt(2 * 0.5e-6)) and not near(np.sqrt(2 * 2e-6))

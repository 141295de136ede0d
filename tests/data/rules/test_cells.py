from __future__ import annotations

import numpy as np
import pytest

from stylegan_t.data.rules import cells as module
from stylegan_t.data.rules.cells import _centres, cells, first_near_in_cells
from stylegan_t.data.rules.cosine import Cosine, directions
from stylegan_t.data.rules.near import keep_first


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """Three thousand vectors around forty directions; of the first two hundred, near copies follow at the end."""
    rng = np.random.default_rng(0)
    centres = directions(rng.standard_normal((40, 32)))
    vectors = directions(centres[rng.integers(0, 40, 3000)] + 0.1 * rng.standard_normal((3000, 32)))
    copies = directions(vectors[:200] + 0.01 * rng.standard_normal((200, 32)))
    return np.concatenate([vectors, copies]).astype(np.float16)


def test_all_that_fit_are_one_cell_as_they_came(embeddings):
    rows = np.random.default_rng(1).permutation(3200)[:50]
    (only,) = cells(embeddings, rows, 50)
    np.testing.assert_array_equal(only, rows)


def test_cells_share_the_rows_out_and_keep_their_order(embeddings):
    rows = np.random.default_rng(1).permutation(3200)
    place = {row: number for number, row in enumerate(rows.tolist())}
    found = list(cells(embeddings, rows, 400))
    assert 2 <= len(found) <= 8
    assert sorted(np.concatenate(found).tolist()) == list(range(3200))
    assert all((np.diff([place[row] for row in cell.tolist()]) > 0).all() for cell in found)


def test_rows_of_a_cell_are_neighbours(embeddings):
    unit = directions(embeddings)
    within = [float((unit[cell] @ unit[cell].T).mean()) for cell in cells(embeddings, np.arange(3200), 200)]
    assert np.mean(within) > 3 * float((unit @ unit.T).mean())


def test_nearly_all_copies_fall_into_the_cell_of_their_original(embeddings):
    measure, rows = Cosine(embeddings, 0.99), np.arange(3200)
    exact = keep_first(rows, measure) >= 0
    dropped = np.zeros(3200, bool)
    for cell in cells(embeddings, rows, 200):
        dropped[cell] = keep_first(cell, measure) >= 0
    assert exact[3000:].all() and not dropped[~exact].any()
    assert dropped.sum() >= 0.97 * exact.sum()


def test_a_row_finds_the_first_of_many_others_that_is_near(embeddings):
    """Copies among the rows, originals among the others: in cells as without, but for what a border hides."""
    cosine, others, rows = Cosine(embeddings, 0.99), np.arange(0, 3000, 2), np.arange(3200)
    told: list[int] = []
    found, exact = first_near_in_cells(cosine, others, rows, told.append), cosine.first_near(others, rows)
    assert (found == exact).mean() >= 0.999 and (exact >= 0).sum() > 1500
    assert set(found) <= {-1, *others.tolist()} and sum(told) == 3200


@pytest.mark.parametrize(("probes", "least", "most"), [(1, 0.3, 0.97), (8, 0.98, 1.0)])
def test_looking_into_several_cells_finds_what_borders_hide(monkeypatch, probes, least, most):
    """Directions at random, so that borders lie anywhere; each row is a near copy of one of the others."""
    rng = np.random.default_rng(0)
    others = directions(rng.standard_normal((1000, 32)))
    copies = directions(others + 0.07 * rng.standard_normal((1000, 32)))
    monkeypatch.setattr(module, "PROBES", probes)
    cosine = Cosine(np.concatenate([others, copies]), 0.85)
    found = first_near_in_cells(cosine, np.arange(1000), np.arange(1000, 2000), lambda count: None)
    exact = cosine.first_near(np.arange(1000), np.arange(1000, 2000))
    assert (exact >= 0).mean() > 0.9 and least <= (found[exact >= 0] == exact[exact >= 0]).mean() <= most


def test_what_is_not_looked_at_is_not_found(embeddings, monkeypatch):
    monkeypatch.setattr(module, "PROBES", 1)
    looked: list[int] = []
    near = Cosine.first_near
    monkeypatch.setattr(Cosine, "first_near", lambda self, a, b: looked.append(len(a) * len(b)) or near(self, a, b))
    first_near_in_cells(Cosine(embeddings, 0.99), np.arange(3000), np.arange(3200), lambda count: None)
    assert sum(looked) < 0.1 * 3000 * 3200


def test_the_same_rows_give_the_same_cells(embeddings):
    first, second = (list(cells(embeddings, np.arange(3200), 300)) for _ in range(2))
    assert [cell.tolist() for cell in first] == [cell.tolist() for cell in second]


def test_centres_have_settled_where_their_vectors_are(embeddings):
    unit = directions(embeddings[:3000])
    centres = _centres(unit, 8, np.random.default_rng(0))
    nearest = (unit @ centres.T).argmax(axis=1)
    means = directions(np.stack([unit[nearest == cell].mean(axis=0) for cell in range(8)]))
    assert (means * centres).sum(axis=1).min() > 0.999

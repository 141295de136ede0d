from __future__ import annotations

import time

import numpy as np
import pytest

from stylegan_t.data.rules import hamming
from stylegan_t.data.rules.hamming import Hamming, masks, shared_bands
from stylegan_t.data.rules.near import keep_first


def copies(rng, count: int, most_bits: int) -> np.ndarray:
    """Random hashes, and as many copies of which each differs in 0 to ``most_bits`` bits."""
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    flips = np.zeros(count, np.uint64)
    for row in range(count):
        for bit in rng.choice(64, rng.integers(0, most_bits + 1), replace=False):
            flips[row] |= np.uint64(1) << np.uint64(bit)
    return np.concatenate([hashes, hashes ^ flips])


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.bitwise_count(a[:, None] ^ b)


@pytest.mark.parametrize("max_distance", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_every_near_pair_is_found_whatever_the_number_of_bands(monkeypatch, max_distance, shared):
    monkeypatch.setattr(hamming, "shared_bands", lambda *_: shared)
    rng = np.random.default_rng(max_distance)
    hashes = copies(rng, 150, max_distance + 2)
    earlier, later = rng.permutation(300)[:140], rng.permutation(300)[:150]
    near = distances(hashes[later], hashes[earlier]) <= max_distance
    expected = np.where(near.any(axis=1), earlier[near.argmax(axis=1)], -1)
    np.testing.assert_array_equal(Hamming(hashes, max_distance).first_near(earlier, later), expected)


@pytest.mark.parametrize("max_distance", [1, 3, 6, 16])
@pytest.mark.parametrize("shared", [1, 2])
def test_two_near_hashes_agree_in_some_choice_of_bands(max_distance, shared):
    chosen = np.array(masks(max_distance, shared))
    hashes = copies(np.random.default_rng(0), 300, max_distance)
    differing = hashes[:300] ^ hashes[300:]
    assert ((differing[:, None] & chosen) == 0).any(axis=1).all()


def test_more_hashes_agree_in_more_bands_and_few_are_compared_one_by_one():
    assert [shared_bands(count, count, 6) for count in (10, 10**4, 10**6, 10**8)] == [0, 1, 2, 3]


def test_the_first_of_those_that_are_near_is_named_at_any_block_size(monkeypatch):
    rng = np.random.default_rng(1)
    hashes = np.uint64(1) << rng.integers(0, 64, 400, dtype=np.uint64)  # two bits apart, nearly all alike in a band
    rows = rng.permutation(400)
    whole = keep_first(rows, Hamming(hashes, 2))
    monkeypatch.setattr(hamming, "PAIRS_AT_ONCE", 17)
    np.testing.assert_array_equal(keep_first(rows, Hamming(hashes, 2)), whole)
    assert (whole >= 0).sum() == 399


def test_one_giant_bucket_is_taken_a_piece_at_a_time(monkeypatch):
    monkeypatch.setattr(hamming, "PAIRS_AT_ONCE", 1000)
    left, right = np.arange(300, dtype=np.uint64), np.arange(300, dtype=np.uint64)
    pieces = list(hamming._near_pairs(left, right, np.uint64(0), 64))
    assert max(len(a) for a, _ in pieces) <= 1000
    pairs = {(int(a), int(b)) for piece in pieces for a, b in zip(*piece, strict=True)}
    assert len(pairs) == sum(len(a) for a, _ in pieces) == 300 * 300


def test_two_hundred_thousand_plain_pictures_are_one_and_quick():
    start = time.process_time()
    twins = keep_first(np.arange(200_000), Hamming(np.zeros(200_000, np.uint64), 4))
    assert (twins[1:] == 0).all() and twins[0] == -1
    assert time.process_time() - start < 5


def test_values_are_the_bits_that_differ():
    hashes = np.array([0b1011, 0b0001, 0], np.uint64)
    rows = np.array([0, 1, 2]), np.array([1, 2, 2])
    assert Hamming(hashes, 3).values(*rows).tolist() == [2, 1, 0]

from __future__ import annotations

import hashlib

import numpy as np

from stylegan_t.data.rules.split import held_out, key_hashes


def split(keys, p_heldout, variant_pattern=None):
    return held_out(key_hashes(keys, variant_pattern), p_heldout)


def test_the_held_out_share_is_reached_and_does_not_depend_on_the_other_samples():
    keys = [f"key-{n}" for n in range(20000)]
    heldout = split(keys, 0.1)
    assert abs(heldout.mean() - 0.1) < 0.01
    np.testing.assert_array_equal(split(keys[::-2], 0.1), heldout[::-2])
    assert heldout[split(keys, 0.05)].all(), "a smaller share holds out some of the same"


def test_variants_of_a_picture_fall_on_one_side():
    bases = [f"{n:x}" for n in range(500)]
    plain = split(bases, 0.3, "-1f3f[b-f]")
    for tone in "bcdef":
        np.testing.assert_array_equal(split([f"{b}-1f3f{tone}" for b in bases], 0.3, "-1f3f[b-f]"), plain)
    assert (split([f"{b}-1f3fb" for b in bases], 0.3) != plain).any()


def test_the_hash_is_what_earlier_versions_split_by():
    digest = hashlib.sha256(b"a key").digest()
    assert key_hashes(["a key"]).tolist() == [int.from_bytes(digest[:8], "big")]

from __future__ import annotations

import numpy as np

from stylegan_t.data import shapes
from stylegan_t.data.images import decode
from stylegan_t.data.sources.drawn import Shapes
from tests.sources import all_of, parts_of


def test_drawn_samples_show_their_metadata_and_their_caption(tmp_path):
    samples, skipped = all_of(Shapes(600, 32, 0.12, seed=0, images_per_part=600), tmp_path)
    assert [s.key for s in samples[:2]] == ["shapes-00000000", "shapes-00000001"] and not skipped
    heldout = shapes.heldout_combinations(0, 0.125)
    for sample in samples[:50]:
        facts = sample.metadata
        combination = shapes.Combination(*(facts[name] for name in shapes.Combination._fields))
        assert combination not in heldout
        assert sample.captions == [shapes.caption(combination, facts["template"])]
        scene = shapes.Scene(combination, facts["x"], facts["y"], 0)
        np.testing.assert_array_equal(decode(sample.image), shapes.draw([scene], 32)[0])


def test_a_picture_does_not_depend_on_how_many_are_in_a_part(tmp_path):
    parts = parts_of(Shapes(600, 16, 0.12, seed=0, images_per_part=270), tmp_path)
    assert [len(part) for part in parts] == [270, 270, 60]
    whole, _ = all_of(Shapes(600, 16, 0.12, seed=0, images_per_part=600), tmp_path)
    assert [pair for part in parts for pair in part] == whole


def test_another_seed_or_size_is_another_source():
    settings = [(9, 32, 0.1, 0), (8, 32, 0.1, 0), (9, 16, 0.1, 0), (9, 32, 0.2, 0), (9, 32, 0.1, 1)]
    assert len({Shapes(*each, images_per_part=9).fingerprint() for each in settings}) == 5

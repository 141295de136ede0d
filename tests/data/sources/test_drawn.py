from __future__ import annotations

import hashlib

import numpy as np
import pytest

from stylegan_t.data import shape_pairs, shapes
from stylegan_t.data.images import decode
from stylegan_t.data.sources.drawn import ShapePairs, Shapes
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


def test_drawn_pairs_show_their_metadata_and_their_caption(tmp_path):
    samples, skipped = all_of(ShapePairs(300, 32, 0.12, seed=0, images_per_part=300), tmp_path)
    assert [s.key for s in samples[:2]] == ["shape-pairs-00000000", "shape-pairs-00000001"] and not skipped
    heldout = shape_pairs.heldout_pairings(0, 0.12)
    for sample in samples[:50]:
        facts = sample.metadata
        first, second = (
            shape_pairs.Figure(facts[f"{name}_shape"], facts[f"{name}_colour"]) for name in ("first", "second")
        )
        combination = shape_pairs.PairCombination(first, facts["relation"], second, facts["background"])
        assert combination.pairing not in heldout
        assert sample.captions == [shape_pairs.pair_caption(combination, facts["template"])]
        centres = [(facts[f"{name}_x"], facts[f"{name}_y"]) for name in ("first", "second")]
        scene = shape_pairs.PairScene(combination, centres[0], centres[1], 0)
        np.testing.assert_array_equal(decode(sample.image), shape_pairs.draw_pairs([scene], 32)[0])


def test_pictures_of_shapes_are_those_that_they_were():
    """Trained models and committed figures rest on these bytes."""
    scenes = [
        shapes.scene(number, 0, shapes.seen_combinations(shapes.heldout_combinations(0, 0.125)))
        for number in range(300)
    ]
    digest = hashlib.sha256(shapes.draw(scenes, 32).tobytes() + repr(scenes).encode()).hexdigest()
    assert digest == "3b54972730560896cecc60014e6e099d68a312c91aef858831a2a98b34097f96"


@pytest.mark.parametrize("kind", [Shapes, ShapePairs])
def test_a_picture_does_not_depend_on_how_many_are_in_a_part(tmp_path, kind):
    parts = parts_of(kind(600, 16, 0.12, seed=0, images_per_part=270), tmp_path)
    assert [len(part) for part in parts] == [270, 270, 60]
    whole, _ = all_of(kind(600, 16, 0.12, seed=0, images_per_part=600), tmp_path)
    assert [pair for part in parts for pair in part] == whole


def test_another_seed_or_size_is_another_source():
    settings = [(9, 32, 0.1, 0), (8, 32, 0.1, 0), (9, 16, 0.1, 0), (9, 32, 0.2, 0), (9, 32, 0.1, 1)]
    assert (
        len({kind(*each, images_per_part=9).fingerprint() for each in settings for kind in (Shapes, ShapePairs)}) == 10
    )

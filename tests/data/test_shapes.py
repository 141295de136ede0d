from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from stylegan_t.data import shapes
from stylegan_t.data.shapes import COLOURS, HALF_EXTENTS, MARGIN, SHAPES, Combination, Scene

EXACT_AREA = {"circle": np.pi, "square": 4.0, "triangle": 2.0, "cross": 8 * 0.34 - 4 * 0.34**2}
HELDOUT = shapes.heldout_combinations(0, 0.125)
SEEN = shapes.seen_combinations(HELDOUT)


def test_there_are_four_shapes_eight_colours_eight_backgrounds_and_two_sizes_never_colour_on_itself():
    everything = shapes.combinations()
    assert len(everything) == len(set(everything)) == 4 * 8 * 7 * 2
    assert all(c.colour != c.background for c in everything)


def test_colours_lie_well_apart():
    values = np.array(list(COLOURS.values()), float)
    distance = np.linalg.norm(values[:, None] - values, axis=2) + 1000 * np.eye(len(values))
    assert distance.min() > 150


@pytest.mark.parametrize(("seed", "fraction"), list(product(range(5), [0.1, 0.125, 0.3, 0.5])))
def test_whole_pairs_are_held_out_as_many_of_each_shape_and_every_value_is_still_drawn(seed, fraction):
    heldout = shapes.heldout_combinations(seed, fraction)
    everything = shapes.combinations()
    assert fraction <= len(heldout) / len(everything) < fraction + 1 / len(COLOURS)
    pairs = Counter((c.shape, c.colour) for c in heldout)
    assert set(pairs.values()) == {7 * 2}, "a pair is held out on every background in both sizes"
    assert len(set(Counter(shape for shape, _ in pairs).values())) == 1
    assert {shape for shape, _ in pairs} == set(SHAPES)
    seen = shapes.seen_combinations(heldout)
    for position, values in enumerate((SHAPES, COLOURS, COLOURS, HALF_EXTENTS)):
        assert {c[position] for c in seen} == set(values)


def test_another_seed_holds_out_others():
    assert HELDOUT == shapes.heldout_combinations(0, 0.125) != shapes.heldout_combinations(1, 0.125)


def test_a_sample_follows_from_seed_and_number_and_is_never_a_held_out_combination():
    scenes = [shapes.scene(number, 0, SEEN) for number in range(2000)]
    assert scenes == [shapes.scene(number, 0, SEEN) for number in range(2000)]
    assert scenes[:50] != [shapes.scene(number, 1, SEEN) for number in range(50)]
    assert len(set(scenes)) == 2000
    assert not {s.combination for s in scenes} & HELDOUT
    assert {s.template for s in scenes} == set(range(len(shapes.TEMPLATES)))


def test_every_combination_is_drawn_about_equally_often():
    counts = Counter(shapes.scene(number, 0, SEEN).combination for number in range(40 * len(SEEN)))
    assert len(counts) == len(SEEN) and min(counts.values()) > 12 and max(counts.values()) < 80


def test_every_caption_names_all_four_attributes_and_no_two_combinations_share_one():
    captions = set()
    for combination, template in product(shapes.combinations(), range(len(shapes.TEMPLATES))):
        caption = shapes.caption(combination, template)
        assert all(value in caption.replace(",", "").split() for value in combination)
        captions.add(caption)
    assert len(captions) == len(shapes.combinations()) * len(shapes.TEMPLATES)


@pytest.mark.parametrize("image_px", [16, 32, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_its_exact_area_around_its_centre(shape, image_px):
    for half_extent in HALF_EXTENTS.values():
        x, y = np.array([0.41, 0.5]), np.array([0.57, 0.5])
        covered = shapes.coverage(shape, x, y, half_extent, image_px)
        area = covered.mean(axis=(1, 2))
        np.testing.assert_allclose(area, EXACT_AREA[shape] * half_extent**2, rtol=0.06)
        pixel = (np.arange(image_px) + 0.5) / image_px
        np.testing.assert_allclose((covered * pixel).mean(axis=(1, 2)) / area, x, atol=0.01)


def test_the_same_scene_looks_alike_at_every_resolution():
    scenes = [shapes.scene(number, 3, SEEN) for number in range(64)]
    fine = shapes.draw(scenes, 64).astype(float)
    coarse = fine.reshape(64, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    assert np.abs(coarse - shapes.draw(scenes, 16)).max() <= 32


def test_objects_lie_wholly_inside_anywhere_in_the_picture():
    scenes = [shapes.scene(number, 0, SEEN) for number in range(1000)]
    for size, half_extent in HALF_EXTENTS.items():
        centres = np.array([(s.x, s.y) for s in scenes if s.combination.size == size])
        assert centres.min() >= half_extent + MARGIN and centres.max() <= 1 - half_extent - MARGIN
        np.testing.assert_allclose(np.ptp(centres, axis=0), 1 - 2 * (half_extent + MARGIN), rtol=0.05)
    border = shapes.draw(scenes, 64)[:, 0, 0]
    np.testing.assert_array_equal(border, [COLOURS[s.combination.background] for s in scenes])


def test_the_object_has_its_colour():
    scene = Scene(Combination("square", "red", "white", "large"), 0.5, 0.5, 0)
    assert tuple(shapes.draw([scene], 32)[0, 16, 16]) == COLOURS["red"]


@pytest.mark.parametrize("split", ["seen", "heldout"])
def test_random_prompts_keep_to_their_split_and_follow_from_the_seed(split):
    prompts = shapes.random_prompts(split, 300, seed=5, heldout=HELDOUT)
    assert all((p.combination in HELDOUT) == (split == "heldout") for p in prompts)
    assert all(value in p.caption for p in prompts for value in p.combination)
    assert prompts == shapes.random_prompts(split, 300, seed=5, heldout=set(HELDOUT))
    assert prompts != shapes.random_prompts(split, 300, seed=6, heldout=HELDOUT)
    assert len({p.combination for p in prompts}) > 40

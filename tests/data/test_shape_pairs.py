from __future__ import annotations

from collections import Counter

import numpy as np
import open_clip
import pytest

from stylegan_t.data import shape_pairs as pairs
from stylegan_t.data.shape_pairs import HALF_EXTENT, Figure, PairCombination, PairScene
from stylegan_t.data.shapes import COLOURS, MARGIN, SHAPES

EVERYTHING = pairs.pair_combinations()
HELDOUT = pairs.heldout_pairings(0, 0.125)
SEEN = pairs.seen_pair_combinations(HELDOUT)
RED_CIRCLE, BLUE_SQUARE = Figure("circle", "red"), Figure("square", "blue")
EXAMPLE = PairCombination(RED_CIRCLE, "left", BLUE_SQUARE, "white")


def twin(pairing: pairs.Pairing) -> pairs.Pairing:
    """The same shapes and colours, bound the other way."""
    one, other = pairing
    return frozenset((Figure(one.shape, other.colour), Figure(other.shape, one.colour)))


def test_figures_of_a_pair_differ_in_shape_and_colour_and_the_background_from_both():
    assert len(EVERYTHING) == len(set(EVERYTHING)) == (4 * 8) * (3 * 7) * 4 * 6
    for first, _, second, background in EVERYTHING:
        assert first.shape != second.shape
        assert len({first.colour, second.colour, background}) == 3
    assert len({c.pairing for c in EVERYTHING}) == 336


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fraction", [0.01, 0.125, 1 / 7, 0.25, 0.4])
def test_as_many_pairings_of_each_figure_are_held_out_and_never_one_with_its_twin(seed, fraction):
    heldout = pairs.heldout_pairings(seed, fraction)
    assert fraction <= len(heldout) / 336 < fraction + 1 / 21
    of_each = Counter(figure for pairing in heldout for figure in pairing)
    assert len(of_each) == len(SHAPES) * len(COLOURS) and len(set(of_each.values())) == 1
    assert heldout <= {c.pairing for c in EVERYTHING}
    assert not heldout & {twin(pairing) for pairing in heldout}


def test_another_seed_holds_out_others():
    assert HELDOUT == pairs.heldout_pairings(0, 0.125) != pairs.heldout_pairings(1, 0.125)


def test_a_sample_follows_from_seed_and_number_and_is_never_a_held_out_pairing():
    scenes = [pairs.pair_scene(number, 0, SEEN) for number in range(2000)]
    assert scenes == [pairs.pair_scene(number, 0, SEEN) for number in range(2000)]
    assert scenes[:50] != [pairs.pair_scene(number, 1, SEEN) for number in range(50)]
    assert len(set(scenes)) == 2000
    assert not {s.combination.pairing for s in scenes} & HELDOUT
    assert {s.template for s in scenes} == set(range(len(pairs.TEMPLATES)))
    assert {s.combination.relation for s in scenes} == set(pairs.RELATIONS)


def test_a_caption_reads_as_one_would_say_it():
    assert pairs.pair_caption(EXAMPLE) == "a red circle left of a blue square on a white background"
    below = EXAMPLE._replace(relation="below")
    assert pairs.pair_caption(below, 3) == "on a white background, a red circle below a blue square"


def test_no_two_combinations_share_a_caption_and_all_fit_the_small_text_encoders():
    captions = [pairs.pair_caption(c, template) for c in EVERYTHING for template in range(len(pairs.TEMPLATES))]
    assert len(set(captions)) == len(captions)
    tokenizer = open_clip.SimpleTokenizer()
    split = [caption.replace(",", " ,").split() for caption in captions]
    num_tokens = {word: len(tokenizer.encode(word)) for word in {word for words in split for word in words}}
    assert max(sum(num_tokens[word] for word in words) for words in split) + 2 <= 16  # start and end, as in tiny


def test_the_first_figure_stands_where_the_caption_says_and_both_lie_clear_of_each_other_and_the_border():
    reach = {relation: [] for relation in pairs.RELATIONS}
    for scene in (pairs.pair_scene(number, 0, SEEN) for number in range(2000)):
        centres = np.array([scene.first_centre, scene.second_centre])
        reach[scene.combination.relation].append(centres)
        assert centres.min() >= HALF_EXTENT + MARGIN and centres.max() <= 1 - HALF_EXTENT - MARGIN
        difference = centres[0] - centres[1]
        towards = {"left": -difference[0], "right": difference[0], "above": -difference[1], "below": difference[1]}
        assert towards[scene.combination.relation] >= 2 * (HALF_EXTENT + MARGIN) - 1e-9
    room = 1 - 2 * (HALF_EXTENT + MARGIN)
    for relation, centres in reach.items():
        along, across = (0, 1) if relation in ("left", "right") else (1, 0)
        reached = np.ptp(np.stack(centres), axis=0)
        np.testing.assert_allclose(reached[:, across], room, rtol=0.05, err_msg="free across the relation")
        np.testing.assert_allclose(reached[:, along], 0.5 - 2 * (HALF_EXTENT + MARGIN), rtol=0.1)


@pytest.mark.parametrize("image_px", [16, 32, 128])
def test_each_figure_covers_its_area_in_its_colour_at_its_centre(image_px):
    scene = PairScene(EXAMPLE, (0.25, 0.7), (0.75, 0.3), 0)
    picture = pairs.draw_pairs([scene], image_px)[0].astype(float)
    pixel = lambda x, y: tuple(picture[int(y * image_px), int(x * image_px)])
    assert pixel(0.25, 0.7) == COLOURS["red"] and pixel(0.75, 0.3) == COLOURS["blue"]
    assert pixel(0.25, 0.3) == pixel(0.75, 0.7) == COLOURS["white"]
    white, red, blue = (np.array(COLOURS[name], float) for name in ("white", "red", "blue"))
    shares, *_ = np.linalg.lstsq(np.stack([red - white, blue - white], axis=1), (picture - white).mean(axis=(0, 1)))
    np.testing.assert_allclose(shares, [np.pi * HALF_EXTENT**2, 4 * HALF_EXTENT**2], rtol=0.06)


def test_the_same_scene_looks_alike_at_every_resolution():
    scenes = [pairs.pair_scene(number, 3, SEEN) for number in range(64)]
    coarse = pairs.draw_pairs(scenes, 64).astype(float).reshape(64, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    assert np.abs(coarse - pairs.draw_pairs(scenes, 16)).max() <= 32


@pytest.mark.parametrize("split", ["seen", "heldout"])
def test_random_prompts_keep_to_their_split_and_follow_from_the_seed(split):
    prompts = pairs.random_pair_prompts(split, 300, seed=5, heldout=HELDOUT)
    assert all((p.combination.pairing in HELDOUT) == (split == "heldout") for p in prompts)
    captions = [[pairs.pair_caption(p.combination, t) for t in range(len(pairs.TEMPLATES))] for p in prompts]
    assert all(p.caption in each for p, each in zip(prompts, captions, strict=True))
    assert prompts == pairs.random_pair_prompts(split, 300, seed=5, heldout=HELDOUT)
    assert prompts != pairs.random_pair_prompts(split, 300, seed=6, heldout=HELDOUT)
    assert len({p.combination.pairing for p in prompts}) > 30

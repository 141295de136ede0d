"""The examination in drawn pairs: readings whose outcome is known, and painters whose results are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from stylegan_t.data import shape_pairs
from stylegan_t.data.pair_oracle import PairReading, Seen, read_pairs
from stylegan_t.data.shape_pairs import COLOURS, SHAPES, Figure, PairCombination, PairPrompt, PairScene
from stylegan_t.evaluation.binding import OUTCOMES, PairOracle, binding, outcome
from stylegan_t.settings.sources import ShapePairsSource

PX = 32
RED_CIRCLE, BLUE_SQUARE = Figure("circle", "red"), Figure("square", "blue")
ASKED = PairCombination(RED_CIRCLE, "left", BLUE_SQUARE, "white")
SENTENCES = {
    shape_pairs.pair_caption(c, t): c
    for c in shape_pairs.pair_combinations()
    for t in range(len(shape_pairs.TEMPLATES))
}


def reading(left: Figure | None, right: Figure | None, background: str | None = "white") -> PairReading:
    one = None if left is None else Seen(left, 0.25, 0.4)
    other = None if right is None else Seen(right, 0.75, 0.5)
    return PairReading(background, other, one) if one is None else PairReading(background, one, other)


def colours_exchanged(scene: PairScene) -> PairScene:
    first, relation, second, background = scene.combination
    figures = Figure(first.shape, second.colour), Figure(second.shape, first.colour)
    return scene._replace(combination=PairCombination(figures[0], relation, figures[1], background))


def shapes_exchanged(scene: PairScene) -> PairScene:
    first, relation, second, background = scene.combination
    figures = Figure(second.shape, first.colour), Figure(first.shape, second.colour)
    return scene._replace(combination=PairCombination(figures[0], relation, figures[1], background))


def places_exchanged(scene: PairScene) -> PairScene:
    return scene._replace(first_centre=scene.second_centre, second_centre=scene.first_centre)


def turned(scene: PairScene) -> PairScene:
    return scene._replace(first_centre=scene.first_centre[::-1], second_centre=scene.second_centre[::-1])


def second_removed(scene: PairScene) -> PairScene:
    gone = Figure("circle", scene.combination.background)
    return scene._replace(combination=scene.combination._replace(second=gone))


def second_like_the_first(scene: PairScene) -> PairScene:
    return scene._replace(combination=scene.combination._replace(second=scene.combination.first))


CHANGES = [
    (lambda scene: scene, "correct"), (colours_exchanged, "swapped"), (shapes_exchanged, "swapped"),
    (places_exchanged, "misplaced"), (turned, "misplaced"), (second_removed, "missing"),
    (second_like_the_first, "wrong"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_picture_drawn_otherwise_counts_as_what_was_done_to_it(change, expected):
    scenes = [shape_pairs.pair_scene(number, 7, shape_pairs.pair_combinations()) for number in range(200)]
    if change is turned:  # across the relation places are free: only where figures stand side by side it is lost
        level = lambda s: (
            abs(s.first_centre[0] - s.second_centre[0]) < 0.16 or (abs(s.first_centre[1] - s.second_centre[1]) < 0.16)
        )
        scenes = [scene for scene in scenes if level(scene)]
    prompts = [PairPrompt(shape_pairs.pair_caption(s.combination), s.combination) for s in scenes]
    pictures = np.moveaxis(shape_pairs.draw_pairs([change(scene) for scene in scenes], PX), 3, 1)
    found = binding(read_pairs(torch.from_numpy(pictures.copy())), prompts)
    assert {name: found[name] for name in OUTCOMES} == {name: float(name == expected) for name in OUTCOMES}


def test_noise_counts_as_missing():
    pictures = torch.randint(0, 256, (50, 3, PX, PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = binding(read_pairs(pictures), [PairPrompt("", ASKED)] * 50)
    assert found["missing"] == 1 and found["shape"] == found["colour"] == found["background"] == 0


def test_every_reading_is_exactly_what_the_definitions_say():
    """All pairs of a smaller palette, against each definition written out."""
    figures = [Figure(shape, colour) for shape, colour in itertools.product(SHAPES[:3], list(COLOURS)[:3])]
    asked = PairCombination(Figure(SHAPES[0], "red"), "left", Figure(SHAPES[1], "green"), "white")
    swapped = {Figure(SHAPES[0], "green"), Figure(SHAPES[1], "red")}
    for left, right in itertools.product([None, *figures], repeat=2):
        if left is None or right is None:
            expected = "missing"
        elif (left, right) == (asked.first, asked.second):
            expected = "correct"
        elif (left, right) == (asked.second, asked.first):
            expected = "misplaced"
        elif {left, right} == swapped:
            expected = "swapped"
        else:
            shapes, colours = {left.shape, right.shape}, {left.colour, right.colour}
            assert {asked.first.shape, asked.second.shape} - shapes or {"red", "green"} - colours
            expected = "wrong"
        assert outcome(reading(left, right), asked) == expected, (left, right)
        flipped = reading(left, right)._replace(one=reading(left, right).other, other=reading(left, right).one)
        assert outcome(flipped, asked) == expected, "which of them was read first does not matter"


@pytest.mark.parametrize(
    ("relation", "first", "second"),
    [
        ("left", (0.3, 0.8), (0.7, 0.2)), ("right", (0.7, 0.8), (0.3, 0.2)),
        ("above", (0.8, 0.3), (0.2, 0.7)), ("below", (0.8, 0.7), (0.2, 0.3)),
    ],
)  # fmt: skip
def test_each_relation_is_along_its_own_axis_and_direction(relation, first, second):
    asked = ASKED._replace(relation=relation)
    there = PairReading("white", Seen(RED_CIRCLE, *first), Seen(BLUE_SQUARE, *second))
    exchanged = PairReading("white", Seen(RED_CIRCLE, *second), Seen(BLUE_SQUARE, *first))
    assert (outcome(there, asked), outcome(exchanged, asked)) == ("correct", "misplaced")
    level = PairReading("white", Seen(RED_CIRCLE, 0.5, 0.5), Seen(BLUE_SQUARE, 0.5, 0.5))
    assert outcome(level, asked) == "misplaced"


@pytest.mark.parametrize(
    ("found", "shape", "colour", "background"),
    [
        (reading(RED_CIRCLE, BLUE_SQUARE), 1, 1, 1),
        (reading(RED_CIRCLE, BLUE_SQUARE, "black"), 1, 1, 0),
        (reading(Figure("circle", "blue"), Figure("square", "red")), 1, 0, 1),
        (reading(Figure("square", "red"), Figure("circle", "blue")), 0, 1, 1),
        (reading(RED_CIRCLE, Figure("cross", "blue")), 0.5, 1, 1),
        (reading(RED_CIRCLE, None), 0.5, 0.5, 1),
        (reading(None, BLUE_SQUARE), 0.5, 0.5, 1),
        (reading(BLUE_SQUARE, None), 0, 0, 1),
        (reading(None, None, None), 0, 0, 0),
    ],
)
def test_each_attribute_is_held_against_that_of_its_place(found, shape, colour, background):
    scores = binding([found], [PairPrompt("", ASKED)])
    assert (scores["shape"], scores["colour"], scores["background"]) == (shape, colour, background)


def test_shares_are_of_all_pictures_and_sum_to_one():
    found = [reading(RED_CIRCLE, BLUE_SQUARE)] * 5 + [reading(BLUE_SQUARE, RED_CIRCLE)] * 2 + [reading(None, None)]
    scores = binding(found, [PairPrompt("", ASKED)] * 8)
    assert (scores["correct"], scores["misplaced"], scores["missing"]) == (5 / 8, 2 / 8, 1 / 8)
    assert sum(scores[name] for name in OUTCOMES) == 1


@pytest.fixture(scope="module")
def oracle():
    source = ShapePairsSource(kind="shape_pairs", num_images=8, image_px=PX, heldout_combinations=0.125)
    return PairOracle(source, seed=0, num_prompts=24)


def painter(change=lambda scene: scene, asked=None):
    """Paints what the caption says, but for ``change``, at places that follow the seed."""

    def paint(prompts, seeds):
        if asked is not None:
            asked.append((list(prompts), list(seeds)))
        scenes = [shape_pairs.pair_scene(s, 1, [SENTENCES[p]]) for p, s in zip(prompts, seeds, strict=True)]
        pictures = shape_pairs.draw_pairs([change(scene) for scene in scenes], PX)
        yield from torch.from_numpy(np.moveaxis(pictures, 3, 1).copy()).split(20)

    return paint


def test_a_painter_that_obeys_gets_full_marks_as_the_data_does(oracle):
    scores = oracle.examine(painter(), 0, PX)
    for name in ("correct", "shape", "colour", "background"):
        assert scores[f"binding_{name}"] == scores[f"binding_heldout_{name}"] == 1
    assert scores["binding_correct_of_data"] == 1
    assert all(name.startswith("binding_") for name in scores)


def test_a_painter_that_remembers_sets_is_caught_on_held_out_pairings(oracle):
    """It knows each drawn pairing, and of one never drawn its twin, which was."""

    def known(scene):
        return colours_exchanged(scene) if scene.combination.pairing in oracle.heldout else scene

    scores = oracle.examine(painter(known), 0, PX)
    assert (scores["binding_correct"], scores["binding_heldout_correct"]) == (1, 0)
    assert scores["binding_heldout_swapped"] == 1


def test_the_data_is_read_at_the_models_resolution(oracle, monkeypatch):
    drawn = []
    draw = shape_pairs.draw_pairs
    monkeypatch.setattr(shape_pairs, "draw_pairs", lambda scenes, px: drawn.append(px) or draw(scenes, px))
    oracle.examine(painter(), 0, 64)
    assert sorted(drawn) == [PX, PX, 64]


def test_prompts_keep_to_their_split_and_as_many_pictures_are_painted_as_was_said(oracle):
    asked = []
    oracle.examine(painter(asked=asked), 0, PX)
    seen, heldout = ({SENTENCES[p].pairing for p in prompts} for prompts, _ in asked)
    assert heldout <= oracle.heldout and not seen & oracle.heldout
    assert sum(len(prompts) for prompts, _ in asked) == oracle.num_images == 48


def test_another_repetition_asks_other_prompts_with_other_latents(oracle):
    asked = []
    for repetition in (0, 1, 0):
        oracle.examine(painter(asked=asked), repetition, PX)
    first, second, again = asked[:2], asked[2:4], asked[4:]
    assert first == again
    for (prompts, seeds), (other_prompts, other_seeds) in zip(first, second, strict=True):
        assert prompts != other_prompts and not set(seeds) & set(other_seeds)

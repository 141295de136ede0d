"""The examination in drawn shapes, taken by painters whose results are known beforehand."""

import numpy as np
import pytest
import torch

from stylegan_t.data import shapes
from stylegan_t.evaluation import oracle_metrics
from stylegan_t.evaluation.oracle_metrics import Oracle
from stylegan_t.settings.sources import ShapesSource

PX = 16
SENTENCES = {shapes.caption(c, t): c for c in shapes.combinations() for t in range(len(shapes.TEMPLATES))}
UNSIZED = {shapes.caption_without_size(c): c for c in shapes.combinations()}


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    monkeypatch.setattr(oracle_metrics, "NUM_SPREAD_PROMPTS", 4)


@pytest.fixture(scope="module")
def oracle():
    source = ShapesSource(kind="shapes", num_images=8, image_px=PX, heldout_combinations=0.125)
    return Oracle(source, seed=0, num_prompts=48)


def meant(prompt):
    """The combinations that a caption may mean."""
    if prompt in SENTENCES:
        return [SENTENCES[prompt]]
    return [UNSIZED[prompt]._replace(size=size) for size in shapes.HALF_EXTENTS]


def painter(change=lambda combination: combination, place=lambda scene: scene):
    """Paints what the caption says, but for ``change``; place and, where it is left open, size follow the seed."""

    def paint(prompts, seeds):
        scenes = [shapes.scene(s, 1, [change(c) for c in meant(p)]) for p, s in zip(prompts, seeds, strict=True)]
        pictures = shapes.draw([place(scene) for scene in scenes], PX)
        yield from torch.from_numpy(np.moveaxis(pictures, 3, 1).copy()).split(20)

    return paint


def test_a_painter_that_obeys_gets_full_marks_and_the_datas_spread(oracle):
    scores = oracle.examine(painter(), 0, PX)
    for name in ("shape", "colour", "background", "size"):
        assert scores[f"oracle_{name}"] == scores[f"oracle_heldout_{name}"] == 1
    assert scores["mean_accuracy"] == scores["mean_accuracy_heldout"] == 1
    assert scores["none_rate"] == scores["none_rate_heldout"] == 0
    assert scores["position_spread_relative"] == pytest.approx(1, abs=0.1)
    assert scores["size_diversity_relative"] == pytest.approx(1, abs=0.05)
    assert 0.95 < scores["size_diversity"] < 1


def test_a_painter_of_the_wrong_size_loses_that_attribute_alone(oracle):
    scores = oracle.examine(painter(change=lambda c: c._replace(size="large")), 0, PX)
    assert scores["oracle_shape"] == scores["oracle_colour"] == scores["oracle_background"] == 1
    assert 0.25 < scores["oracle_size"] < 0.75
    assert scores["mean_accuracy"] == pytest.approx((3 + scores["oracle_size"]) / 4)


def test_a_painter_that_always_uses_one_place_has_no_spread(oracle):
    scores = oracle.examine(painter(place=lambda s: s._replace(x=0.5, y=0.5)), 0, PX)
    assert scores["mean_accuracy"] == 1
    assert scores["position_spread_relative"] < 0.02
    assert scores["size_diversity_relative"] == pytest.approx(1, abs=0.05)


def test_a_painter_that_answers_an_open_size_always_alike_has_no_diversity(oracle):
    def always_large_where_open(prompts, seeds):
        large = painter(change=lambda c: c._replace(size="large"))
        yield from (painter() if prompts[0] in SENTENCES else large)(prompts, seeds)

    scores = oracle.examine(always_large_where_open, 0, PX)
    assert scores["mean_accuracy"] == 1
    assert scores["size_diversity"] == scores["size_diversity_relative"] == 0


def test_as_many_pictures_are_painted_as_was_said(oracle):
    counts = []

    def paint(prompts, seeds):
        counts.append(len(prompts))
        yield from painter()(prompts, seeds)

    oracle.examine(paint, 0, PX)
    assert sum(counts) == oracle.num_images


def test_noise_counts_as_wrong_and_as_none(oracle):
    rng = torch.Generator().manual_seed(0)

    def paint(prompts, seeds):
        yield torch.randint(0, 256, (len(prompts), 3, PX, PX), dtype=torch.uint8, generator=rng)

    scores = oracle.examine(paint, 0, PX)
    assert scores["none_rate"] > 0.9
    assert scores["mean_accuracy"] < 0.05


def test_held_out_prompts_ask_for_combinations_that_were_never_drawn(oracle):
    asked = []

    def paint(prompts, seeds):
        asked.append(set(prompts))
        yield from painter()(prompts, seeds)

    oracle.examine(paint, 0, PX)
    seen, heldout, fixed = ({SENTENCES[p] for p in prompts} for prompts in asked[:3])
    assert heldout <= oracle.heldout
    assert not (seen | fixed) & oracle.heldout
    assert len(fixed) <= 4
    assert asked[3] == {shapes.caption_without_size(c) for c in fixed}, "sizes are left open in the same pictures"


def test_another_repetition_asks_other_prompts_with_other_latents(oracle):
    asked = []

    def paint(prompts, seeds):
        asked.append((list(prompts), list(seeds)))
        yield from painter()(prompts, seeds)

    for repetition in (0, 1, 0):
        oracle.examine(paint, repetition, PX)
    first, second, again = asked[:4], asked[4:8], asked[8:]
    assert first == again
    assert all(a[1] != b[1] for a, b in zip(first, second, strict=True))
    assert first[0][0] != second[0][0]

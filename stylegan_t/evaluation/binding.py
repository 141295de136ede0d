"""Whether a model of drawn pairs paints each attribute on the figure that it was asked of, and where it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stylegan_t.data import shape_pairs
from stylegan_t.data.pair_oracle import PairReading, Seen, read_pairs
from stylegan_t.data.shape_pairs import HALF_EXTENT, PairCombination, PairPrompt
from stylegan_t.evaluation.oracle_metrics import Paint
from stylegan_t.randomness import derive_seed, image_seeds
from stylegan_t.settings.sources import ShapePairsSource

Outcome = Literal["correct", "swapped", "misplaced", "missing", "wrong"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
HELDOUT = "_heldout"


def outcome(found: PairReading, asked: PairCombination) -> Outcome:
    """What became of the two figures that were asked for; the background does not matter.

    ``missing``: fewer than two figures can be read.
    ``correct``: both figures, and the first stands where it was asked, seen from the second.
    ``misplaced``: both figures, anywhere else: in exchanged places, or in another relation.
    ``swapped``: both shapes and both colours, but bound the other way: colours exchanged, or shapes.
    ``wrong``: two figures, and a shape or colour that was asked for is on neither.

    Figures that are asked for differ in shape and in colour, so every picture is exactly one of these.
    """
    if len(found.figures) < 2:
        return "missing"
    one, other = found.figures
    if (one.figure, other.figure) == (asked.first, asked.second):
        return "correct" if stands(one, asked.relation, other) else "misplaced"
    if (other.figure, one.figure) == (asked.first, asked.second):
        return "correct" if stands(other, asked.relation, one) else "misplaced"
    same_shapes = {one.figure.shape, other.figure.shape} == {asked.first.shape, asked.second.shape}
    same_colours = {one.figure.colour, other.figure.colour} == {asked.first.colour, asked.second.colour}
    return "swapped" if same_shapes and same_colours else "wrong"


def stands(first: Seen, relation: str, second: Seen) -> bool:
    """Whether the first figure's centre lies further on than the second's by more than half a figure's side."""
    return _ahead(relation, first) - _ahead(relation, second) > HALF_EXTENT


def _ahead(relation: str, seen: Seen) -> float:
    """How far a figure lies towards where a relation wants the first one, from the middle of the picture."""
    along = seen.x - 0.5 if relation in ("left", "right") else seen.y - 0.5
    return along if relation in ("right", "below") else -along


def binding(found: Sequence[PairReading], prompts: Sequence[PairPrompt]) -> dict[str, float]:
    """The share of pictures of each outcome (they sum to 1), and how often each attribute is right by itself.

    ``shape`` and ``colour`` are shares of the figures asked for, by place: of two figures that were found, the one
    further on in the relation's direction is held against the first; a single one against that in whose half it lies;
    what was not found is wrong. ``background`` is a share of the pictures.
    """
    pairs = [(reading, prompt.combination) for reading, prompt in zip(found, prompts, strict=True)]
    outcomes = Counter(outcome(reading, asked) for reading, asked in pairs)
    places = [place for reading, asked in pairs for place in _by_place(reading, asked)]
    return {name: outcomes[name] / len(pairs) for name in OUTCOMES} | {
        "shape": sum(seen is not None and seen.figure.shape == asked.shape for seen, asked in places) / len(places),
        "colour": sum(seen is not None and seen.figure.colour == asked.colour for seen, asked in places) / len(places),
        "background": sum(reading.background == asked.background for reading, asked in pairs) / len(pairs),
    }


def _by_place(found: PairReading, asked: PairCombination) -> list[tuple[Seen | None, shape_pairs.Figure]]:
    """Each figure that was asked for, with the one that stands in its place."""
    places: list[Seen | None] = [None, None]
    figures = sorted(found.figures, key=lambda seen: -_ahead(asked.relation, seen))
    if len(figures) == 1:
        places[0 if _ahead(asked.relation, figures[0]) > 0 else 1] = figures[0]
    elif figures:
        places = [*figures]
    return list(zip(places, (asked.first, asked.second), strict=True))


class PairOracle:
    """The examination in drawn pairs: what becomes of the figures of pairings that were drawn, or never were.

    Args:
        source: How the data was drawn.
        seed: The pipeline's.
        num_prompts: Prompts of seen pairings, and as many of never drawn ones.
    """

    def __init__(self, source: ShapePairsSource, seed: int, num_prompts: int) -> None:
        self.seed, self.num_prompts = seed, num_prompts
        self.heldout = shape_pairs.heldout_pairings(seed, source.heldout_combinations)

    @property
    def num_images(self) -> int:
        return 2 * self.num_prompts

    def examine(self, paint: Paint, repetition: int, resolution: int) -> dict[str, float]:
        """Outcomes and accuracies on fresh prompts, seen (``binding_…``) and held out (``binding_heldout_…``).

        ``binding_correct_of_data`` is what real pictures of the seen prompts get at this resolution: the most that a
        model can, as far as the reading is to blame.
        """
        scores: dict[str, float] = {}
        splits: tuple[tuple[Literal["seen", "heldout"], str], ...] = (("seen", ""), ("heldout", HELDOUT))
        for split, suffix in splits:
            prompts = shape_pairs.random_pair_prompts(
                split, self.num_prompts, seed=derive_seed(self.seed, f"binding {repetition}"), heldout=self.heldout
            )
            seeds = image_seeds(self.seed, f"binding {split} {repetition}", 0, len(prompts))
            found = read_all_pairs(paint([p.caption for p in prompts], seeds))
            scores |= {f"binding{suffix}_{name}": value for name, value in binding(found, prompts).items()}
            if split == "seen":
                scores["binding_correct_of_data"] = binding(self._of_data(prompts, resolution), prompts)["correct"]
        return scores

    def _of_data(self, prompts: Sequence[PairPrompt], resolution: int) -> list[PairReading]:
        """Readings of real pictures of the prompts, placed as in the data."""
        seed = derive_seed(self.seed, "binding of data")
        scenes = [shape_pairs.pair_scene(i, seed, [p.combination]) for i, p in enumerate(prompts)]
        return read_pairs(torch.from_numpy(np.moveaxis(shape_pairs.draw_pairs(scenes, resolution), 3, 1).copy()))


def read_all_pairs(batches: Iterable[UInt8[Tensor, "n 3 h w"]]) -> list[PairReading]:
    return [reading for images in batches for reading in read_pairs(images)]

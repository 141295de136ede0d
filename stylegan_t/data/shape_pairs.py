"""Two drawn figures with exact captions: shows whether a model paints each attribute on the object that it belongs to.

Binding attributes to objects is what the paper names as a limitation (Sauer et al. 2023, arXiv:2301.09515). Figures of
a pair differ in shape and in colour, so that a picture with attributes exchanged can be told from one with places
exchanged. Like ``shapes``, pictures are defined in the unit square, and what a sample's number shows follows from the
seed and that number alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from itertools import permutations, product
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from stylegan_t.data.shapes import COLOURS, MARGIN, SHAPES, coverage
from stylegan_t.randomness import derive_seed

HALF_EXTENT = 0.17
"""Half of a figure's side, in units of the picture's side: two fit beside each other, with room to move."""
RELATIONS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
"""Where the first figure stands, seen from the second, and how a caption says it."""
TEMPLATES = (
    "a {first} {relation} a {second} on a {background} background",
    "a {first} {relation} a {second}, on {background}",
    "a {first} {relation} a {second} in front of {background}",
    "on a {background} background, a {first} {relation} a {second}",
)
PAIRINGS_PER_FIGURE = (len(SHAPES) - 1) * (len(COLOURS) - 1)


class Figure(NamedTuple):
    """One object of a picture."""

    shape: str
    colour: str


Pairing = frozenset[Figure]
"""Two figures, whatever their places."""


class PairCombination(NamedTuple):
    """What a caption says."""

    first: Figure
    relation: str
    """Of the first to the second, a key of ``RELATIONS``."""
    second: Figure
    background: str

    @property
    def pairing(self) -> Pairing:
        return frozenset((self.first, self.second))


class PairScene(NamedTuple):
    """One picture, without a resolution. Centres are (rightwards, downwards), in [0, 1]."""

    combination: PairCombination
    first_centre: tuple[float, float]
    second_centre: tuple[float, float]
    template: int


class PairPrompt(NamedTuple):
    """A caption with what it asks for."""

    caption: str
    combination: PairCombination


@cache
def pair_combinations() -> tuple[PairCombination, ...]:
    """Every combination that can be drawn: figures differ in shape and colour, the background from both in colour."""
    figures = [Figure(shape, colour) for shape, colour in product(SHAPES, COLOURS)]
    return tuple(
        PairCombination(first, relation, second, background)
        for (first, second), relation, background in product(permutations(figures, 2), RELATIONS, COLOURS)
        if first.shape != second.shape and len({first.colour, second.colour, background}) == 3
    )


@cache
def heldout_pairings(seed: int, fraction: float) -> frozenset[Pairing]:
    """At least ``fraction`` of all pairings, never drawn: in neither order, in no relation, on no background.

    Every figure is drawn, with others; as many pairings of each are held out, so that held-out prompts are as hard as
    others but for being new. And the twin of a held-out pairing, the same shapes and colours bound the other way, is
    always drawn: each set of two shapes and two colours is known, and a model that remembers such sets instead of
    binding attributes paints the twin, which reads as swapped.

    Shapes are split in twos and the colours lie on a ring. The pairings of a split whose colours lie so many steps
    apart are a matching: each figure is in one of them. As many steps the other way give their twins, so only steps of
    one direction are held out; half way round the ring twins meet in one matching, which is always drawn.

    Args:
        seed: The pipeline's seed.
        fraction: Share of all pairings, above 0 and at most 0.4.
    """
    rng = np.random.default_rng(derive_seed(seed, "held-out pairings"))
    shapes, colours = rng.permutation(SHAPES).tolist(), rng.permutation(list(COLOURS)).tolist()
    a, b, c, d = shapes
    splits = (((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c)))
    matchings = list(product(splits, range(1, len(colours) // 2)))
    count = int(np.ceil(fraction * PAIRINGS_PER_FIGURE))
    assert 0 < count <= len(matchings), fraction
    pairings: set[Pairing] = set()
    for k in rng.permutation(len(matchings))[:count].tolist():
        split, turn = matchings[k]
        facing = [colours[(i + turn) % len(colours)] for i in range(len(colours))]
        pairings |= {
            frozenset((Figure(one, colour), Figure(other, across)))
            for one, other in split
            for colour, across in zip(colours, facing, strict=True)
        }
    return frozenset(pairings)


@cache
def seen_pair_combinations(heldout: frozenset[Pairing]) -> tuple[PairCombination, ...]:
    """What is drawn, in a fixed order."""
    return tuple(c for c in pair_combinations() if c.pairing not in heldout)


def pair_caption(combination: PairCombination, template: int = 0) -> str:
    """A sentence that names both figures, where they stand, and the background."""
    first, relation, second, background = combination
    return TEMPLATES[template].format(
        first=f"{first.colour} {first.shape}",
        relation=RELATIONS[relation],
        second=f"{second.colour} {second.shape}",
        background=background,
    )


def pair_scene(number: int, seed: int, allowed: Sequence[PairCombination]) -> PairScene:
    """What sample ``number`` of the data set shows."""
    return _draw(allowed, derive_seed(seed, "shape pairs", number))


def random_pair_prompts(
    split: Literal["seen", "heldout"], count: int, *, seed: int, heldout: frozenset[Pairing]
) -> list[PairPrompt]:
    """``count`` captions of pairings that were drawn, or never; templates vary.

    Args:
        seed: Another seed gives other prompts.
        heldout: From ``heldout_pairings``.
    """
    seen = seen_pair_combinations(heldout)
    allowed = seen if split == "seen" else [c for c in pair_combinations() if c.pairing in heldout]
    scenes = [_draw(allowed, derive_seed(seed, "pair prompts", split, number)) for number in range(count)]
    return [PairPrompt(pair_caption(s.combination, s.template), s.combination) for s in scenes]


def _draw(allowed: Sequence[PairCombination], seed: int) -> PairScene:
    """A combination and places: along the relation's axis each figure keeps to its half, across it is free."""
    rng = np.random.Generator(np.random.PCG64(seed))
    combination = allowed[int(rng.integers(len(allowed)))]
    room = HALF_EXTENT + MARGIN
    near, far = room + (0.5 - 2 * room) * rng.random(2) + (0, 0.5)
    across = room + (1 - 2 * room) * rng.random(2)
    first, second = (near, far) if combination.relation in ("left", "above") else (far, near)
    centres = [(float(first), float(across[0])), (float(second), float(across[1]))]
    if combination.relation in ("above", "below"):
        centres = [(x, y) for y, x in centres]
    return PairScene(combination, centres[0], centres[1], int(rng.integers(len(TEMPLATES))))


def draw_pairs(scenes: Sequence[PairScene], image_px: int) -> UInt8[np.ndarray, "n p p 3"]:
    """Pictures of the scenes, edges antialiased."""
    back = _colours([s.combination.background for s in scenes])
    first = _coverage([(s.combination.first.shape, *s.first_centre) for s in scenes], image_px)
    second = _coverage([(s.combination.second.shape, *s.second_centre) for s in scenes], image_px)
    towards_first = _colours([s.combination.first.colour for s in scenes]) - back
    towards_second = _colours([s.combination.second.colour for s in scenes]) - back
    return np.rint(back + first * towards_first + second * towards_second).astype(np.uint8)


def _colours(names: Collection[str]) -> Float[np.ndarray, "n 1 1 3"]:
    return np.array([COLOURS[name] for name in names], np.float32)[:, None, None]


def _coverage(figures: Sequence[tuple[str, float, float]], image_px: int) -> Float[np.ndarray, "n p p 1"]:
    """Share of every pixel that a figure (shape, x, y) covers, a picture each."""
    share = np.empty((len(figures), image_px, image_px, 1), np.float32)
    for shape in SHAPES:
        rows = [i for i, figure in enumerate(figures) if figure[0] == shape]
        x, y = np.array([figures[i][1:] for i in rows]).reshape(-1, 2).T
        share[rows] = coverage(shape, x, y, HALF_EXTENT, image_px)[..., None]
    return share

"""Drawn shapes with exact captions: a data set whose every attribute is known.

A picture shows one object on a plain background. Pictures are defined in the unit square, so any resolution shows the
same scene; which one a sample's number shows follows from the seed and that number alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from stylegan_t.randomness import derive_seed

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 30),
    "green": (30, 180, 50),
    "blue": (40, 60, 225),
    "yellow": (245, 225, 35),
    "cyan": (40, 215, 230),
    "purple": (205, 40, 205),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
HALF_EXTENTS: dict[str, float] = {"small": 0.18, "large": 0.32}
"""Half of an object's side, in units of the picture's side; every shape fills its bounding square."""
MARGIN = 0.03
"""Background left around an object at least."""
CROSS_ARM = 0.34
"""Half-width of a cross's arm, in units of its half extent."""
TEMPLATES = (
    "a {size} {colour} {shape} on a {background} background",
    "a {colour} {shape} that is {size}, on {background}",
    "a {size} {colour} {shape} in front of {background}",
    "on a {background} background, a {size} {colour} {shape}",
)
UNSIZED_TEMPLATE = "a {colour} {shape} on a {background} background"
SAMPLES_PER_SIDE = 128
"""Points per picture side at which a shape's outline is sampled (at least ``MIN_OVERSAMPLING`` per pixel)."""
MIN_OVERSAMPLING = 4


class Combination(NamedTuple):
    """What a caption says."""

    shape: str
    colour: str
    background: str
    size: str


class Scene(NamedTuple):
    """One picture, without a resolution."""

    combination: Combination
    x: float
    """Centre, rightwards, in [0, 1]."""
    y: float
    """Centre, downwards, in [0, 1]."""
    template: int


class Prompt(NamedTuple):
    """A caption with what it asks for."""

    caption: str
    combination: Combination


@cache
def combinations() -> tuple[Combination, ...]:
    """Every combination that can be drawn: object and background differ in colour."""
    return tuple(
        Combination(shape, colour, background, size)
        for shape, colour, background, size in product(SHAPES, COLOURS, COLOURS, HALF_EXTENTS)
        if colour != background
    )


@cache
def heldout_combinations(seed: int, fraction: float) -> frozenset[Combination]:
    """At least ``fraction`` of all combinations, never drawn: whole (shape, colour) pairs, as many of each shape.

    Pairs, because a model that has seen a red circle on seven backgrounds needs little to paint it on the eighth; as
    many of each shape, so that held-out prompts are as hard as others but for being new. Every shape and colour is
    still drawn, in other pairs.

    Args:
        seed: The pipeline's seed.
        fraction: Share of all combinations, 0.1 to 0.5.
    """
    rng = np.random.default_rng(derive_seed(seed, "held-out combinations"))
    shapes, colours = rng.permutation(SHAPES).tolist(), rng.permutation(list(COLOURS)).tolist()
    pairs_per_shape = int(np.ceil(fraction * len(colours)))
    stride = len(colours) // len(shapes)  # neighbours lose different colours
    pairs = {
        (shape, colours[(number * stride + i) % len(colours)])
        for number, shape in enumerate(shapes)
        for i in range(pairs_per_shape)
    }
    return frozenset(c for c in combinations() if (c.shape, c.colour) in pairs)


def seen_combinations(heldout: Collection[Combination]) -> tuple[Combination, ...]:
    """What is drawn, in a fixed order."""
    return tuple(c for c in combinations() if c not in heldout)


def caption(combination: Combination, template: int = 0) -> str:
    """A sentence that names all four attributes."""
    return TEMPLATES[template].format(**combination._asdict())


def caption_without_size(combination: Combination) -> str:
    """A sentence that leaves the size open, to ask a model for both; no sample has it."""
    return UNSIZED_TEMPLATE.format(**combination._asdict())


def scene(number: int, seed: int, allowed: Sequence[Combination]) -> Scene:
    """What sample ``number`` of the data set shows."""
    return _draw(allowed, derive_seed(seed, "shapes", number))


def random_prompts(
    split: Literal["seen", "heldout"], count: int, *, seed: int, heldout: Collection[Combination]
) -> list[Prompt]:
    """``count`` captions of combinations that were drawn, or never; templates vary.

    Args:
        seed: Another seed gives other prompts.
        heldout: From ``heldout_combinations``.
    """
    allowed = seen_combinations(heldout) if split == "seen" else sorted(heldout)
    scenes = [_draw(allowed, derive_seed(seed, "prompts", split, number)) for number in range(count)]
    return [Prompt(caption(s.combination, s.template), s.combination) for s in scenes]


def _draw(allowed: Sequence[Combination], seed: int) -> Scene:
    rng = np.random.Generator(np.random.PCG64(seed))
    combination = allowed[int(rng.integers(len(allowed)))]
    room = HALF_EXTENTS[combination.size] + MARGIN
    x, y = (room + (1 - 2 * room) * rng.random(2)).tolist()
    return Scene(combination, x, y, int(rng.integers(len(TEMPLATES))))


def inside(shape: str, u: Float[np.ndarray, "*#points"], v: Float[np.ndarray, "*#points"]) -> np.ndarray:
    """Whether points lie in a shape whose bounding square is [-1, 1]²; ``v`` points down."""
    if shape == "circle":
        return u * u + v * v < 1
    across, along = np.abs(u), np.abs(v)
    if shape == "square":
        return (across < 1) & (along < 1)
    if shape == "triangle":
        return (along < 1) & (across < (v + 1) / 2)
    return ((across < CROSS_ARM) & (along < 1)) | ((along < CROSS_ARM) & (across < 1))


def coverage(
    shape: str, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], half_extent: float, image_px: int
) -> Float[np.ndarray, "n p p"]:
    """Share of every pixel that objects centred at (x, y) cover."""
    oversampling = max(MIN_OVERSAMPLING, SAMPLES_PER_SIDE // image_px)
    points = image_px * oversampling
    grid = ((np.arange(points) + 0.5) / points).astype(np.float32)
    u = ((grid - x[:, None]) / half_extent).astype(np.float32)[:, None, :]
    v = ((grid - y[:, None]) / half_extent).astype(np.float32)[:, :, None]
    mask = inside(shape, u, v).reshape(len(x), image_px, oversampling, image_px, oversampling)
    return mask.mean(axis=(2, 4), dtype=np.float32)


def draw(scenes: Sequence[Scene], image_px: int) -> UInt8[np.ndarray, "n p p 3"]:
    """Pictures of the scenes, edges antialiased."""
    pictures = np.empty((len(scenes), image_px, image_px, 3), np.uint8)
    kinds = [(s.combination.shape, s.combination.size) for s in scenes]
    for shape, size in sorted(set(kinds)):
        rows = [i for i, kind in enumerate(kinds) if kind == (shape, size)]
        x, y = np.array([[scenes[i].x, scenes[i].y] for i in rows]).T
        share = coverage(shape, x, y, HALF_EXTENTS[size], image_px)[..., None]
        front = np.array([COLOURS[scenes[i].combination.colour] for i in rows], np.float32)[:, None, None]
        back = np.array([COLOURS[scenes[i].combination.background] for i in rows], np.float32)[:, None, None]
        pictures[rows] = np.rint(back + share * (front - back)).astype(np.uint8)
    return pictures

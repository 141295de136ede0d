"""Drawn pictures; see ``stylegan_t/data/shapes.py`` and ``stylegan_t/data/shape_pairs.py``."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from stylegan_t.data import shape_pairs, shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, Skipped, pack
from stylegan_t.data.sources.base import Done, Source, nothing

DRAWN_AT_ONCE = 250


class Drawn(Source):
    """Pictures of which number and seed say all.

    Args:
        num_images: Pictures to draw.
        image_px: Their side.
        heldout_fraction: Share of what could be drawn that never is.
        seed: Of all draws.
        images_per_part: Pictures of one part.
    """

    def __init__(
        self, num_images: int, image_px: int, heldout_fraction: float, seed: int, images_per_part: int
    ) -> None:
        self.num_images, self.image_px, self.images_per_part = num_images, image_px, images_per_part
        self.heldout_fraction, self.seed = heldout_fraction, seed

    def plan(self, work: Path) -> int:
        return -(-self.num_images // self.images_per_part)

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        start = part * self.images_per_part
        stop = min(start + self.images_per_part, self.num_images)
        for first in range(start, stop, DRAWN_AT_ONCE):
            numbers = range(first, min(first + DRAWN_AT_ONCE, stop))
            yield from self._samples(numbers)
            done(len(numbers))

    def num_candidates(self, work: Path) -> int:
        return self.num_images

    @abstractmethod
    def _samples(self, numbers: Sequence[int]) -> Iterator[Sample]:
        """The samples of these numbers."""


class Shapes(Drawn):
    """Pictures of one shape each, with captions that name all they show."""

    @cached_property
    def _allowed(self) -> tuple[shapes.Combination, ...]:
        return shapes.seen_combinations(shapes.heldout_combinations(self.seed, self.heldout_fraction))

    def fingerprint(self) -> str:
        return json.dumps([self.num_images, self.image_px, self.heldout_fraction, self.seed])

    def facts(self, work: Path) -> dict[str, Any]:
        return {
            "kind": "shapes", "image_px": self.image_px, "seed": self.seed,
            "heldout_combinations": self.heldout_fraction, "num_combinations_drawn": len(self._allowed),
        }  # fmt: skip

    def _samples(self, numbers: Sequence[int]) -> Iterator[Sample]:
        scenes = [shapes.scene(number, self.seed, self._allowed) for number in numbers]
        for number, scene, picture in zip(numbers, scenes, shapes.draw(scenes, self.image_px), strict=True):
            facts = {**scene.combination._asdict(), "x": scene.x, "y": scene.y, "template": scene.template}
            caption = shapes.caption(scene.combination, scene.template)
            yield pack(f"shapes-{number:08d}", "png", encode(picture), [caption], facts)


class ShapePairs(Drawn):
    """Pictures of two figures each, with captions that name both, where they stand, and the background."""

    @cached_property
    def _allowed(self) -> tuple[shape_pairs.PairCombination, ...]:
        return shape_pairs.seen_pair_combinations(shape_pairs.heldout_pairings(self.seed, self.heldout_fraction))

    def fingerprint(self) -> str:
        return json.dumps(["shape_pairs", self.num_images, self.image_px, self.heldout_fraction, self.seed])

    def facts(self, work: Path) -> dict[str, Any]:
        return {
            "kind": "shape_pairs", "image_px": self.image_px, "seed": self.seed,
            "heldout_combinations": self.heldout_fraction,
            "num_pairings_drawn": len({combination.pairing for combination in self._allowed}),
        }  # fmt: skip

    def _samples(self, numbers: Sequence[int]) -> Iterator[Sample]:
        scenes = [shape_pairs.pair_scene(number, self.seed, self._allowed) for number in numbers]
        pictures = shape_pairs.draw_pairs(scenes, self.image_px)
        for number, scene, picture in zip(numbers, scenes, pictures, strict=True):
            first, relation, second, background = scene.combination
            facts: dict[str, Any] = {"relation": relation, "background": background, "template": scene.template}
            for name, figure, centre in (("first", first, scene.first_centre), ("second", second, scene.second_centre)):
                values = {**figure._asdict(), "x": centre[0], "y": centre[1]}
                facts |= {f"{name}_{key}": value for key, value in values.items()}
            caption = shape_pairs.pair_caption(scene.combination, scene.template)
            yield pack(f"shape-pairs-{number:08d}", "png", encode(picture), [caption], facts)

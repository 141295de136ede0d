"""Drawn shapes; see ``stylegan_t/data/shapes.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from stylegan_t.data import shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, Skipped, pack
from stylegan_t.data.sources.base import Done, Source, nothing

DRAWN_AT_ONCE = 250


class Shapes(Source):
    """Pictures of one shape each, with captions that name all they show.

    Args:
        num_images: Pictures to draw.
        image_px: Their side.
        heldout_fraction: Share of the combinations of attributes that is never drawn.
        seed: Of all draws.
        images_per_part: Pictures of one part.
    """

    def __init__(
        self, num_images: int, image_px: int, heldout_fraction: float, seed: int, images_per_part: int
    ) -> None:
        self.num_images, self.image_px, self.images_per_part = num_images, image_px, images_per_part
        self.heldout_fraction, self.seed = heldout_fraction, seed

    @cached_property
    def _allowed(self) -> tuple[shapes.Combination, ...]:
        return shapes.seen_combinations(shapes.heldout_combinations(self.seed, self.heldout_fraction))

    def fingerprint(self) -> str:
        return json.dumps([self.num_images, self.image_px, self.heldout_fraction, self.seed])

    def plan(self, work: Path) -> int:
        return -(-self.num_images // self.images_per_part)

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        start = part * self.images_per_part
        stop = min(start + self.images_per_part, self.num_images)
        for first in range(start, stop, DRAWN_AT_ONCE):
            numbers = range(first, min(first + DRAWN_AT_ONCE, stop))
            scenes = [shapes.scene(number, self.seed, self._allowed) for number in numbers]
            for number, scene, picture in zip(numbers, scenes, shapes.draw(scenes, self.image_px), strict=True):
                facts = {**scene.combination._asdict(), "x": scene.x, "y": scene.y, "template": scene.template}
                caption = shapes.caption(scene.combination, scene.template)
                yield pack(f"shapes-{number:08d}", "png", encode(picture), [caption], facts)
            done(len(numbers))

    def facts(self, work: Path) -> dict[str, Any]:
        return {
            "kind": "shapes", "image_px": self.image_px, "seed": self.seed,
            "heldout_combinations": self.heldout_fraction, "num_combinations_drawn": len(self._allowed),
        }  # fmt: skip

    def num_candidates(self, work: Path) -> int:
        return self.num_images

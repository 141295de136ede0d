"""What the oracle reads in a model's pictures of drawn shapes: exact text alignment and diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from stylegan_t.data import shapes
from stylegan_t.data.oracle import Reading, read_attributes
from stylegan_t.data.shapes import HALF_EXTENTS, Combination, Prompt
from stylegan_t.metrics.spread import diversity, spread
from stylegan_t.randomness import derive_seed, image_seeds
from stylegan_t.settings.sources import ShapesSource

ATTRIBUTES = Combination._fields
NUM_SPREAD_PROMPTS, NUM_SPREAD_LATENTS = 16, 32

Paint = Callable[[Sequence[str], Sequence[int]], Iterable[UInt8[Tensor, "n 3 h w"]]]


class Oracle:
    """The examination in drawn shapes: which attributes a model paints right, and how freely it places them.

    Args:
        source: How the data was drawn.
        seed: The pipeline's.
        num_prompts: Prompts of seen combinations, and as many of never drawn ones.
    """

    def __init__(self, source: ShapesSource, seed: int, num_prompts: int) -> None:
        self.seed, self.num_prompts = seed, num_prompts
        self._variety_of_data: dict[int, dict[str, float]] = {}
        self.heldout = shapes.heldout_combinations(seed, source.heldout_combinations)

    @property
    def num_images(self) -> int:
        return 2 * self.num_prompts + 2 * NUM_SPREAD_PROMPTS * NUM_SPREAD_LATENTS

    def examine(self, paint: Paint, repetition: int, resolution: int) -> dict[str, float]:
        """Accuracy of each attribute on fresh prompts, and how positions and sizes vary at a fixed prompt.

        ``position_spread`` is of prompts as the data has them, ``size_diversity`` of prompts that leave the size open,
        which no sample does; ``…_relative`` is either of them over that of real pictures.
        """
        scores: dict[str, float] = {}
        splits: tuple[tuple[Literal["seen", "heldout"], str], ...] = (("seen", ""), ("heldout", "_heldout"))
        for split, suffix in splits:
            prompts = self._prompts(split, self.num_prompts, f"evaluate {repetition}")
            seeds = image_seeds(self.seed, f"oracle {split} {repetition}", 0, len(prompts))
            found = read_all(paint([p.caption for p in prompts], seeds))
            right = accuracies(found, prompts)
            scores |= {f"oracle{suffix}_{name}": share for name, share in right.items()}
            scores[f"mean_accuracy{suffix}"] = sum(right.values()) / len(right)
            scores[f"none_rate{suffix}"] = sum(reading.combination is None for reading in found) / len(found)
        return scores | self._variety(paint, repetition, resolution)

    def _variety(self, paint: Paint, repetition: int, resolution: int) -> dict[str, float]:
        """Spread of positions and diversity of sizes over the latents of a prompt, and both over the data's."""
        fixed = [p for p in self._prompts("seen", NUM_SPREAD_PROMPTS, "spread") for _ in range(NUM_SPREAD_LATENTS)]
        places = image_seeds(self.seed, f"spread {repetition}", 0, len(fixed))
        sizes = image_seeds(self.seed, f"sizes {repetition}", 0, len(fixed))
        unsized = [shapes.caption_without_size(p.combination) for p in fixed]
        scores = {
            "position_spread": position_spread(read_all(paint([p.caption for p in fixed], places))),
            "size_diversity": size_diversity(read_all(paint(unsized, sizes))),
        }
        if resolution not in self._variety_of_data:
            either = [[p.combination._replace(size=size) for size in HALF_EXTENTS] for p in fixed]
            self._variety_of_data[resolution] = {
                "position_spread": position_spread(self._drawn([[p.combination] for p in fixed], resolution)),
                "size_diversity": size_diversity(self._drawn(either, resolution)),
            }
        of_data = self._variety_of_data[resolution]
        return scores | {f"{name}_relative": value / of_data[name] for name, value in scores.items()}

    def _prompts(self, split: Literal["seen", "heldout"], count: int, purpose: str) -> list[Prompt]:
        seed = derive_seed(self.seed, purpose)
        return shapes.random_prompts(split, count, seed=seed, heldout=self.heldout)

    def _drawn(self, allowed: Sequence[Sequence[Combination]], resolution: int) -> list[Reading]:
        """Readings of real pictures, each of one of the combinations allowed to it, placed as in the data."""
        scenes = [shapes.scene(i, derive_seed(self.seed, "spread"), each) for i, each in enumerate(allowed)]
        return read_attributes(torch.from_numpy(np.moveaxis(shapes.draw(scenes, resolution), 3, 1).copy()))


def read_all(batches: Iterable[UInt8[Tensor, "n 3 h w"]]) -> list[Reading]:
    return [reading for images in batches for reading in read_attributes(images)]


def accuracies(found: Sequence[Reading], prompts: Sequence[Prompt]) -> dict[str, float]:
    """Share of pictures that show each attribute as asked for; one that cannot be read is wrong."""
    pairs = list(zip(found, prompts, strict=True))
    return {
        name: sum(getattr(reading, name) == getattr(prompt.combination, name) for reading, prompt in pairs) / len(pairs)
        for name in ATTRIBUTES
    }


def position_spread(found: Sequence[Reading]) -> float:
    """Standard deviation of an object's position over the latents of one prompt, in sides of the picture."""
    points = torch.tensor([(reading.x or 0.0, reading.y or 0.0) for reading in found])
    present = torch.tensor([reading.x is not None for reading in found])
    return spread(points.unflatten(0, (-1, NUM_SPREAD_LATENTS)), present.unflatten(0, (-1, NUM_SPREAD_LATENTS)))


def size_diversity(found: Sequence[Reading]) -> float:
    """How evenly small and large objects come over the latents of one prompt: 1 alike, 0 always the same."""
    sizes = list(HALF_EXTENTS)
    labels = torch.tensor([-1 if reading.size is None else sizes.index(reading.size) for reading in found])
    return diversity(labels.unflatten(0, (-1, NUM_SPREAD_LATENTS)), len(sizes))

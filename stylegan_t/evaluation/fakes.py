"""A trained model as the evaluation sees it: captions and seeds in, pictures out, with the time they took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from stylegan_t.evaluation.panel import Measured, Panel, joined
from stylegan_t.models.bundle import Bundle
from stylegan_t.models.generator import Generator
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed
from stylegan_t.sampling import embed, sample

LATENCY_RUNS = 7


class Model:
    """A generator and the text encoder that feeds it, on one device.

    Attributes:
        name: The stage that made it.
        painted, seconds: Pictures so far and the time they took, text encoding included.
    """

    def __init__(self, name: str, bundle: Bundle, batch_size: int, device: torch.device) -> None:
        self.name, self.batch_size, self.config = name, batch_size, bundle.config
        self.generator, self.text_encoder = bundle.generator.to(device), bundle.text_encoder.to(device)
        self.painted, self.seconds = 0, 0.0

    @property
    def kimg(self) -> float:
        """Thousand images shown in its stage."""
        return float(self.config["facts"]["kimg"])

    def paint(
        self, prompts: Sequence[str], seeds: Sequence[int], psi: float = 1.0
    ) -> Iterator[UInt8[Tensor, "n 3 h w"]]:
        """Pictures of prompts and seeds, batch by batch."""
        start = time.perf_counter()
        c = embed(self.text_encoder, prompts, self.batch_size)
        self.seconds += time.perf_counter() - start
        for first in range(0, len(prompts), self.batch_size):
            span = slice(first, first + self.batch_size)
            start = time.perf_counter()
            images = sample(self.generator, c[span], seeds[span], psi, self.batch_size)
            self.seconds += time.perf_counter() - start
            self.painted += len(images)
            yield images

    def speed(self) -> dict[str, float]:
        """Pictures a second in batches, and the seconds from one prompt to one picture (median, warm)."""
        durations = []
        for seed in range(LATENCY_RUNS + 1):
            start = time.perf_counter()
            sample(self.generator, embed(self.text_encoder, ["a picture"], 1), [seed], 1.0, 1)
            durations.append(time.perf_counter() - start)
        return {
            "resolution": self.generator.resolution,
            "batch_size": self.batch_size,
            "images_per_second": self.painted / max(self.seconds, 1e-9),
            "latency_seconds": statistics.median(durations[1:]),
        }


def measure_fakes(
    model: Model,
    prompts: Sequence[str],
    seeds: Sequence[int],
    psi: float,
    *,
    panel: Panel,
    progress: Progress,
) -> Measured:
    """What the judges see in a model's pictures."""
    parts = []
    for images in model.paint(prompts, seeds, psi):
        parts.append(panel.measure(images))
        progress.advance(len(images), f"{model.name}, psi {psi:g}")
    return joined(parts)


def untrained(model: Model, seed: int, device: torch.device) -> Model:
    """The same architecture and text encoder with a generator that never saw a picture: a control."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "untrained"))
        fresh = Generator(**model.config["generator"])
    return Model("untrained", Bundle(fresh.eval(), model.text_encoder, model.config), model.batch_size, device)

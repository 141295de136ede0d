"""A trained model as the evaluation sees it: captions and seeds in, pictures out, with the time they took."""

from __future__ import annotations

import hashlib
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jaxtyping import UInt8
from torch import Tensor

from stylegan_t.data.images import to_uint8
from stylegan_t.errors import DataError
from stylegan_t.evaluation.pictures import Pictures, captions_sha256
from stylegan_t.files import sha256
from stylegan_t.models.bundle import GENERATOR, TEXT_ENCODER, Bundle
from stylegan_t.models.generator import Generator
from stylegan_t.models.weights import CONFIG
from stylegan_t.randomness import derive_seed
from stylegan_t.sampling import embed, inference, paint

LATENCY_RUNS, WARM_UP_RUNS = 40, 3
BATCHES_TIMED = 3


class Model:
    """A generator and the text encoder that feeds it, on one device.

    Args:
        name: The stage that made it, or what the user calls it.
        bundle: The model.
        identity: Hex digest of its files (``model_sha256``).
        batch_size: Pictures of a forward pass.
        device: Where it runs.
    """

    weights: Literal["ema", "untrained"] = "ema"

    def __init__(self, name: str, bundle: Bundle, identity: str, batch_size: int, device: torch.device) -> None:
        self.name, self.identity, self.batch_size = name, identity, batch_size
        self.config, self.device = bundle.config, device
        self.generator, self.text_encoder = bundle.generator.to(device), bundle.text_encoder.to(device)

    @property
    def kimg(self) -> float:
        """Thousand images shown in its stage."""
        return float(self.config["facts"]["kimg"])

    @property
    def resolution(self) -> int:
        return self.generator.resolution

    def paint(
        self, prompts: Sequence[str], seeds: Sequence[int], psi: float = 1.0
    ) -> Iterator[UInt8[Tensor, "n 3 h w"]]:
        """Pictures of prompts and seeds, batch by batch, on the CPU.

        Raises:
            DataError: One is not finite: the model is broken, and its pictures would pass for black ones.
        """
        c = embed(self.text_encoder, prompts, self.batch_size)
        for first in range(0, len(prompts), self.batch_size):
            span = slice(first, first + self.batch_size)
            with inference(self.generator):
                images = paint(self.generator, c[span], seeds[span], psi)
                broken = ~images.isfinite().flatten(1).all(dim=1)
                if broken.any():
                    self._complain(prompts[first + int(broken.nonzero()[0])], psi)
                pictures = to_uint8(images).cpu()
            yield pictures

    def _complain(self, prompt: str, psi: float) -> NoReturn:
        raise DataError(
            f"{self.name}: the picture of {prompt!r} at psi {psi:g} holds NaN or infinity: the training diverged; "
            "evaluate an earlier state, or train again"
        )

    def speed(self) -> dict[str, float]:
        """Pictures a second in batches, and the seconds from one prompt to one picture: warm, with the text encoder."""
        durations = [self._seconds_of(1, seed) for seed in range(WARM_UP_RUNS + LATENCY_RUNS)][WARM_UP_RUNS:]
        percentiles = statistics.quantiles(durations, n=20, method="inclusive")
        batches = [self._seconds_of(self.batch_size, seed) for seed in range(1 + BATCHES_TIMED)][1:]
        return {
            "resolution": self.resolution,
            "batch_size": self.batch_size,
            "images_per_second": self.batch_size / statistics.median(batches),
            "latency_p50_seconds": percentiles[9],
            "latency_p95_seconds": percentiles[18],
        }

    def _seconds_of(self, count: int, seed: int) -> float:
        start = time.perf_counter()
        for _ in self.paint([f"picture {number}" for number in range(count)], range(seed, seed + count)):
            pass
        return time.perf_counter() - start


class Painted(Pictures):
    """What a model paints: a picture for each prompt and seed."""

    def __init__(self, model: Model, prompts: list[str], seeds: Sequence[int], psi: float) -> None:
        self.model, self.prompts, self.seeds, self.psi = model, prompts, seeds, psi
        self.name, self.count = model.name, len(prompts)

    @cached_property
    def identity(self) -> str:
        facts = (self.model.identity, captions_sha256(self.prompts), tuple(self.seeds), self.psi)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def read(self, numbers: Sequence[int]) -> list[UInt8[Tensor, "3 _ _"]]:
        prompts, seeds = [self.prompts[i] for i in numbers], [self.seeds[i] for i in numbers]
        return [picture for batch in self.model.paint(prompts, seeds, self.psi) for picture in batch]

    def captions(self) -> list[list[str]]:
        return [[prompt] for prompt in self.prompts]


def untrained(model: Model, seed: int) -> Model:
    """The same architecture and text encoder with a generator that never saw a picture: a control."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "untrained"))
        fresh = Generator(**model.config["generator"])
    bundle = Bundle(fresh.eval(), model.text_encoder, model.config)
    control = Model("untrained", bundle, f"untrained {seed} like {model.identity}", model.batch_size, model.device)
    control.weights = "untrained"
    return control


def model_sha256(folder: Path) -> str:
    """Hex digest of a bundle's files, its card aside."""
    digests = [sha256(folder / name) for name in (CONFIG, GENERATOR, TEXT_ENCODER)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def device_name(device: torch.device) -> str:
    """The processor, in the words of its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def speeds(models: Sequence[Model]) -> dict[str, Any]:
    """How fast each model paints, and on what."""
    return {"device": device_name(models[0].device)} | {model.name: model.speed() for model in models}

"""An optimiser step and the parts it is worked through in, each with its own random draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.data.loader import Batch
from stylegan_t.models.resize import resize
from stylegan_t.randomness import derive_seed, draw_latents, draw_spatial_noise, draw_uniform, image_seeds
from stylegan_t.settings.training import AdversarialTraining
from stylegan_t.training.distributed import World


@dataclass(frozen=True)
class Step:
    """The settings and the shared random draws of one optimiser step.

    Attributes:
        nimg: Images shown before it.
        blur_sigma: Of the discriminator's input now, pixels.
    """

    settings: AdversarialTraining
    seed: int
    nimg: int
    blur_sigma: float
    world: World

    def once(self, purpose: str, count: int) -> Float[Tensor, " count"]:
        """Uniform numbers that all images of the step share, on the CPU."""
        return draw_uniform([derive_seed(self.seed, purpose, self.nimg)], count)[0]

    def precision(self) -> AbstractContextManager[object]:
        """Where convolutions and products may run in bfloat16; to be entered anew for each network's pass."""
        if self.settings.compute.precision == "float32":
            return nullcontext()
        return torch.autocast(self.world.device.type, torch.bfloat16)


@dataclass(frozen=True)
class Microbatch:
    """Some of a step's images, on the device, with the random draws that belong to them.

    Attributes:
        first: Number of the first image within the global batch.
        images: Real images as stored.
        c: The original encoder's embeddings of the captions.
        generator_c: Embeddings that feed the generator, where they are stored ready.
    """

    step: Step
    first: int
    images: Tensor
    c: Float[Tensor, "n c_dim"]
    generator_c: Float[Tensor, "n c_dim"]
    captions: list[str]

    @property
    def weight(self) -> float:
        """Share of the global batch: means over it are sums of so much of each part's mean."""
        return len(self.captions) / self.step.settings.batch_size

    def seeds(self, purpose: str) -> list[int]:
        return image_seeds(self.step.seed, purpose, self.step.nimg + self.first, len(self.captions))

    def uniform(self, purpose: str, count: int) -> Float[Tensor, "n count"]:
        return self.step.world.put(draw_uniform(self.seeds(purpose), count))

    def latents(self, purpose: str, z_dim: int) -> Float[Tensor, "n z_dim"]:
        return self.step.world.put(draw_latents(self.seeds(purpose), z_dim))

    def noise(self, purpose: str, shapes: list[tuple[int, int]]) -> list[Float[Tensor, "n 1 h w"]]:
        return draw_spatial_noise(self.seeds(purpose), shapes, self.step.world.device)

    def reals(self, resolution: int) -> Float[Tensor, "n 3 resolution resolution"]:
        """The real images in [-1, 1] at the resolution that is trained, larger ones reduced by area."""
        return resize(self.images.to(torch.float32) / 127.5 - 1, resolution)


def split(batch: Batch, step: Step) -> Iterator[Microbatch]:
    """This process's images in parts of at most ``microbatch_size``."""
    put = step.world.put
    images, c = put(batch.images), put(batch.c)
    generator_c = c if batch.generator_c is None else put(batch.generator_c)
    share = step.world.share(step.settings.batch_size)
    size = step.settings.compute.microbatch_size or len(share)
    for start in range(0, len(share), size):
        part = slice(start, start + size)
        yield Microbatch(step, share[start], images[part], c[part], generator_c[part], batch.captions[part])

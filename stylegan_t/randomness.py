"""Random draws that belong to an image, not to a batch, a process or a moment.

An image's draws follow from a seed that is made of (the run's seed, the purpose, the image's number), so a resumed
run, another batch size or another world size draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

CPU = torch.device("cpu")


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any mix of numbers and names; other parts give an unrelated seed."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def image_seeds(seed: int, purpose: str, first: int, count: int) -> list[int]:
    """Seeds of the images numbered ``first`` to ``first + count - 1``."""
    return [derive_seed(seed, purpose, number) for number in range(first, first + count)]


def draw_latents(seeds: Sequence[int], z_dim: int) -> Float[Tensor, "n z_dim"]:
    """A standard normal latent for each seed (on the CPU, so that every device gets the same)."""
    return torch.stack([torch.randn(z_dim, generator=_generator(s, "latent")) for s in seeds])


def draw_spatial_noise(
    seeds: Sequence[int], shapes: Sequence[tuple[int, int]], device: torch.device = CPU
) -> list[Float[Tensor, "n 1 h w"]]:
    """Standard normal noise for each layer of the synthesis and each seed.

    Args:
        shapes: (height, width) of each layer.
        device: Where to draw. A GPU that trains would wait for a CPU to draw a number for every pixel of every layer;
            but another kind of device draws other numbers.
    """
    per_image = []
    for seed in seeds:
        generator = _generator(seed, "spatial noise", device)
        per_image.append([torch.randn(1, h, w, generator=generator, device=device) for h, w in shapes])
    return [torch.stack(layer) for layer in zip(*per_image, strict=True)]


def draw_uniform(seeds: Sequence[int], count: int) -> Float[Tensor, "n count"]:
    """``count`` uniform numbers in [0, 1) for each seed."""
    return torch.stack([torch.rand(count, generator=_generator(s, "uniform")) for s in seeds])


def _generator(seed: int, purpose: str, device: torch.device = CPU) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose))

"""How far the Fréchet distance would move with other images of the same model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_t.metrics.checks import require_one_width
from stylegan_t.metrics.moments import Moments, factor, merged


def frechet_halves(blocks: Sequence[Moments], reference: Moments, draws: int, seed: int) -> list[float]:
    """Fréchet distances of random halves of the images to the reference; their scatter is the whole's error.

    Halves of blocks, without replacement, for the reasons of ``uncertainty.random_halves``; their level is above the
    whole's, since the distance falls with the number of images, and only their scatter is meant to be read.

    Each draw costs one symmetric eigenvalue problem: ``(S_ref S)^½`` has the trace of the root of ``Fᵀ S F`` with
    ``S_ref = F Fᵀ``. An eigenvalue is right to a rounding unit ``ε`` of the largest, its root therefore only to
    ``ε^½`` where it should be zero. That is about 1e-8 for each direction that the images leave out: nothing to an
    error bar, but for equal singular Gaussians the whole value, which ``frechet_distance`` therefore takes from
    singular values.

    Args:
        blocks: Moments of parts of the images of about one size; an even number, so that halves are halves.
        reference: Of the real images, the same for all draws.
        draws: How many halves; 10 blocks have 252.
        seed: Of the choice.

    Raises:
        ValueError: Fewer than 4 blocks, fewer than 2 images in a half, or features of another network.
    """
    if len(blocks) < 4:
        raise ValueError(f"halves of {len(blocks)} blocks vary too little; an error needs at least 4 blocks of images")
    for block in blocks:
        require_one_width(len(block.mean), len(reference.mean))
    reference_factor = factor(reference.covariance)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        chosen = torch.randperm(len(blocks), generator=generator)[: len(blocks) // 2]
        half = merged([blocks[number] for number in chosen.tolist()])
        found.append(_distance(half, reference, reference_factor))
    return found


def _distance(half: Moments, reference: Moments, reference_factor: Tensor) -> float:
    squared_roots = torch.linalg.eigvalsh(reference_factor.T @ half.covariance @ reference_factor)
    traces = half.covariance.trace() + reference.covariance.trace() - 2 * squared_roots.clamp(min=0).sqrt().sum()
    return ((half.mean - reference.mean).square().sum() + traces).item()

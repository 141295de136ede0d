"""How far the Fréchet distance would move with other images of the same model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.metrics.checks import require_one_width
from stylegan_t.metrics.moments import Moments, factor, merged


def frechet_without_each(blocks: Sequence[Moments], reference: Moments) -> Float[Tensor, " n"]:
    """Fréchet distances to the reference without each block of the images in turn, for the jackknife.

    Their level is above the whole's, since the distance falls with the number of images; only their scatter is meant
    to be read.

    Each costs one symmetric eigenvalue problem: ``(S_ref S)^½`` has the trace of the root of ``Fᵀ S F`` with ``S_ref =
    F Fᵀ``. An eigenvalue is right to a rounding unit ``ε`` of the largest, its root therefore only to ``ε^½`` where it
    should be zero. That is about 1e-8 for each direction that the images leave out: nothing to an error bar, but for
    equal singular Gaussians the whole value, which ``frechet_distance`` therefore takes from singular values.

    Args:
        blocks: Moments of parts of the images of about one size.
        reference: Of the real images.

    Raises:
        ValueError: Fewer than 4 blocks, fewer than 2 images without one, or features of another network.
    """
    if len(blocks) < 4:
        raise ValueError(f"{len(blocks)} blocks vary too little; an error needs at least 4 blocks of images")
    for block in blocks:
        require_one_width(len(block.mean), len(reference.mean))
    reference_factor = factor(reference.covariance)
    rests = [merged([*blocks[:number], *blocks[number + 1 :]]) for number in range(len(blocks))]
    return torch.tensor([_distance(rest, reference, reference_factor) for rest in rests], dtype=torch.float64)


def _distance(rest: Moments, reference: Moments, reference_factor: Float[Tensor, "d d"]) -> float:
    squared_roots = torch.linalg.eigvalsh(reference_factor.T @ rest.covariance @ reference_factor)
    traces = rest.covariance.trace() + reference.covariance.trace() - 2 * squared_roots.clamp(min=0).sqrt().sum()
    return ((rest.mean - reference.mean).square().sum() + traces).item()

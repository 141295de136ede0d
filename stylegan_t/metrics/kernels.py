"""Distances between sets of features that a kernel defines: they need no covariance, and so few images suffice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from cleanfid import fid
from jaxtyping import Bool, Float
from torch import Tensor

from stylegan_t.metrics.checks import require_comparable

Kernel = Callable[[Tensor, Tensor], Tensor]
CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0
"""Of the metric's definition: numbers under other values are no CMMD."""


def kernel_distance(
    fakes: Float[Tensor, "n d"],
    reals: Float[Tensor, "m d"],
    *,
    seed: int,
    num_subsets: int = 100,
    subset_size: int = 1000,
) -> float:
    """KID: unbiased squared maximum mean discrepancy under the kernel ``(x·y / d + 1)³``, by clean-fid.

    Unlike the Fréchet distance it has no bias from the number of samples, so it may be read where covariances
    are singular; it may be slightly negative. Averaged over random subsets, which bounds the memory (Bińkowski
    et al. 2018, arXiv:1801.01401, section 4). In the features' own precision, as clean-fid's command has it: in
    single precision the rounding is about a hundredth of what other subsets change.

    Args:
        seed: Of the subsets. clean-fid draws them from numpy's global generator, whose state is put back.
        subset_size: At most; the smaller set limits it.

    Raises:
        ValueError: Fewer than 2 vectors on a side, or one that is not finite.
    """
    require_comparable(fakes, reals)
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        return fid.kernel_distance(
            fakes.numpy(force=True), reals.numpy(force=True), num_subsets=num_subsets, max_subset_size=subset_size
        )
    finally:
        np.random.set_state(state)


def kernel_distance_of_parts(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"], parts: Bool[Tensor, "n h"], block_size: int = 1000
) -> Float[Tensor, " h"]:
    """KID of parts of the fakes to all reals, up to a constant: its scatter over halves is KID's standard error.

    Exact, over all pairs: no subsets are drawn, whose scatter would be taken for the parts'. The mean kernel among the
    reals is left out, as it is the same for all parts.

    Args:
        parts: Which of the fakes each part has; 2 or more.
        block_size: Vectors of each side that meet at a time; the values do not depend on it.
    """
    require_comparable(fakes, reals)
    dim = fakes.shape[1]
    kernel: Kernel = lambda p, q: (p @ q.T / dim + 1) ** 3
    with_itself = (fakes.square().sum(dim=1).double() / dim + 1) ** 3
    count, chosen = parts.sum(dim=0), parts.to(fakes.device).double()
    within = (_sums(fakes, chosen, fakes, chosen, kernel, block_size) - (with_itself @ chosen).cpu()) / (count - 1)
    across = _sums(fakes, chosen, reals, _all(reals), kernel, block_size) / len(reals)
    return (within - 2 * across) / count


def cmmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], block_size: int = 1000) -> float:
    """CMMD: squared maximum mean discrepancy of CLIP embeddings under a Gaussian kernel, times 1000.

    The embeddings count as directions, of length one. The estimate is the authors', in which a vector also meets
    itself (the V-statistic): never negative, 0 for equal sets, and biased by about ``1000 (1/n + 1/m) (1 - k)``, k the
    mean kernel of two different images (Jayasumana et al. 2024, arXiv:2401.09603).

    Args:
        block_size: Vectors of each side that meet at a time; the value does not depend on it.

    Raises:
        ValueError: Fewer than 2 vectors on a side, or one that is not finite.
    """
    reals = _directions(b)
    within = _sums(reals, _all(b), reals, _all(b), _gaussian_less_one, block_size) / len(b) ** 2
    of_fakes = cmmd_of_parts(a, b, torch.ones(len(a), 1, dtype=torch.bool), block_size)
    return (of_fakes + CMMD_SCALE * within).item()


def cmmd_of_parts(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"], parts: Bool[Tensor, "n h"], block_size: int = 1000
) -> Float[Tensor, " h"]:
    """CMMD of parts of the fakes to all reals, up to a constant, as ``kernel_distance_of_parts``."""
    require_comparable(fakes, reals)
    x, y = _directions(fakes), _directions(reals)
    count, chosen = parts.sum(dim=0), parts.to(fakes.device).double()
    within = _sums(x, chosen, x, chosen, _gaussian_less_one, block_size) / count
    across = _sums(x, chosen, y, _all(y), _gaussian_less_one, block_size) / len(y)
    return CMMD_SCALE * (within - 2 * across) / count


def _gaussian_less_one(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """``exp((cos - 1) / σ²) - 1``: so near 0 that the ones, which cancel, would cost single precision its digits."""
    return (p @ q.T).sub_(1).div_(CMMD_BANDWIDTH**2).expm1_()


def _directions(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return F.normalize(vectors.double(), dim=1).to(vectors.dtype)


def _all(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n 1"]:
    return torch.ones(len(vectors), 1, dtype=torch.float64, device=vectors.device)


def _sums(
    x: Float[Tensor, "n d"],
    of_x: Float[Tensor, "n h"],
    y: Float[Tensor, "m d"],
    of_y: Float[Tensor, "m k"],
    kernel: Kernel,
    block_size: int,
) -> Float[Tensor, " h"]:
    """Of each part (k is h, or 1 for all), the kernel summed over its pairs: columns of ones and zeros choose them."""
    total = torch.zeros(of_x.shape[1], dtype=torch.float64, device=x.device)
    for p, of_p in zip(x.split(block_size), of_x.split(block_size), strict=True):
        for q, of_q in zip(y.split(block_size), of_y.split(block_size), strict=True):
            total += (of_p * (kernel(p, q).double() @ of_q)).sum(dim=0)
    return total.cpu()

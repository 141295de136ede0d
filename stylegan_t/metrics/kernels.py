"""Distances between sets of features that a kernel defines: they need no covariance, and so few images suffice."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from cleanfid import fid
from jaxtyping import Float
from torch import Tensor

from stylegan_t.metrics.checks import require_comparable

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


def cmmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], block_size: int = 1000) -> float:
    """CMMD: squared maximum mean discrepancy of CLIP embeddings under a Gaussian kernel, times 1000.

    The embeddings count as directions, of length one. The estimate is the authors', in which a vector also meets
    itself (the V-statistic): never negative, 0 for equal sets, and biased by about ``1000 (1/n + 1/m) (1 - k)``, k the
    mean kernel of two different images (Jayasumana et al. 2024, arXiv:2401.09603).

    Between directions the kernel is ``exp((cos - 1) / σ²)``, hardly below 1. Its difference from 1 is summed instead:
    the ones cancel in the result, and with them the digits that single precision would lose.

    Args:
        block_size: Vectors of each side that meet at a time; the value does not depend on it.

    Raises:
        ValueError: Fewer than 2 vectors on a side, or one that is not finite.
    """
    require_comparable(a, b)
    x, y = (F.normalize(vectors.double(), dim=1).to(vectors.dtype) for vectors in (a, b))
    within = _mean_kernel_less_one(x, x, block_size) + _mean_kernel_less_one(y, y, block_size)
    return CMMD_SCALE * (within - 2 * _mean_kernel_less_one(x, y, block_size))


def _mean_kernel_less_one(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], block_size: int) -> float:
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for p in x.split(block_size):
        for q in y.split(block_size):
            total += (p @ q.T).sub_(1).div_(CMMD_BANDWIDTH**2).expm1_().sum(dtype=torch.float64)
    return total.item() / (len(x) * len(y))

"""Distances between sets of features that a kernel defines: they need no covariance, and so few images suffice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from cleanfid import fid
from jaxtyping import Float
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


def kernel_distance_without_each(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"], block_size: int = 1000
) -> Float[Tensor, " n"]:
    """KID without each of the fakes in turn, up to a constant: what its standard error follows from.

    Exact, over all pairs: the scatter of drawn subsets would be taken for the fakes'. The mean kernel among the reals
    is left out, as it is the same each time.

    Args:
        block_size: Vectors of each side that meet at a time; the values do not depend on it.

    Raises:
        ValueError: Fewer than 3 fakes or 2 reals, or a vector that is not finite.
    """
    _require_three(fakes, reals)
    dim, count = fakes.shape[1], len(fakes)
    kernel: Kernel = lambda p, q: (p @ q.T / dim + 1) ** 3
    with_itself = (fakes.double().square().sum(dim=1).cpu() / dim + 1) ** 3
    with_others = _row_sums(fakes, fakes, kernel, block_size) - with_itself
    with_reals = _row_sums(fakes, reals, kernel, block_size) / len(reals)
    within = (with_others.sum() - 2 * with_others) / ((count - 1) * (count - 2))
    return within - 2 * (with_reals.sum() - with_reals) / (count - 1)


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
    require_comparable(a, b)
    x, y = _directions(a), _directions(b)
    mean = lambda p, q: _row_sums(p, q, _gaussian_less_one, block_size).mean().item() / len(q)
    return CMMD_SCALE * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def cmmd_without_each(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"], block_size: int = 1000
) -> Float[Tensor, " n"]:
    """CMMD without each of the fakes in turn, up to a constant, as ``kernel_distance_without_each``."""
    _require_three(fakes, reals)
    x, y, count = _directions(fakes), _directions(reals), len(fakes)
    with_fakes = _row_sums(x, x, _gaussian_less_one, block_size)  # itself adds nothing: its kernel less one is 0
    with_reals = _row_sums(x, y, _gaussian_less_one, block_size) / len(y)
    within = (with_fakes.sum() - 2 * with_fakes) / (count - 1) ** 2
    return CMMD_SCALE * (within - 2 * (with_reals.sum() - with_reals) / (count - 1))


def _require_three(fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"]) -> None:
    require_comparable(fakes, reals)
    if len(fakes) < 3:
        raise ValueError(f"leaving one out needs at least 3 feature vectors, got {len(fakes)}")


def _gaussian_less_one(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """``exp((cos - 1) / σ²) - 1``: so near 0 that the ones, which cancel, would cost single precision its digits."""
    return (p @ q.T).sub_(1).div_(CMMD_BANDWIDTH**2).expm1_()


def _directions(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return F.normalize(vectors.double(), dim=1).to(vectors.dtype)


def _row_sums(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], kernel: Kernel, block_size: int) -> Float[Tensor, " n"]:
    """The kernel of each of ``x`` summed over all of ``y``, on the CPU."""
    blocks = y.split(block_size)
    rows = [[kernel(p, q).sum(dim=1, dtype=torch.float64) for q in blocks] for p in x.split(block_size)]
    return torch.cat([torch.stack(sums).sum(dim=0) for sums in rows]).cpu()

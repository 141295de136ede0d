"""Means and covariances of features, gathered in memory that does not grow with their number; the Fréchet distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.metrics.checks import require_finite, require_one_width

PENDING_ROWS = 1000
"""Vectors that wait for one merge: merging whole matrices should cost little beside the products of vectors."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and covariance of feature vectors, gathered batch by batch.

    ``scatter`` is the sum of outer products of deviations from the mean: it merges exactly, without the
    cancellation that a sum of raw squares suffers (Chan, Golub, LeVeque 1979, "Updating formulae").
    """

    count: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> Moments:
        """Raises ValueError where a feature is not finite."""
        require_finite(features)
        features = features.double()
        mean = features.mean(dim=0)
        deviations = features - mean
        return cls(len(features), mean, deviations.T @ deviations)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        require_one_width(len(self.mean), len(other.mean))
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The unbiased estimate; needs two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.count}")
        return self.scatter / (self.count - 1)


def merged(parts: Sequence[Moments]) -> Moments:
    return reduce(Moments.merge, parts)


class Streamed:
    """Moments of features that pass by in batches, kept for blocks of the images.

    The blocks are there for the uncertainty: each is left out in turn, as no single image is kept. Images go to the
    blocks by turns, for files often lie in an order that means something. Memory holds ``num_blocks`` matrices and the
    few vectors that wait for their merge, however many pass.

    Args:
        count: Images that will pass; image ``i`` belongs to block ``i % num_blocks``.
        num_blocks: Blocks; of fewer images than that some stay empty.
    """

    def __init__(self, count: int, num_blocks: int = 10) -> None:
        if count < 1 or num_blocks < 1:
            raise ValueError(f"moments of {count} images in {num_blocks} blocks: both must be at least 1")
        self.count, self.num_blocks = count, num_blocks
        self._seen = 0
        self._finished: dict[int, Moments] = {}
        self._pending: dict[int, list[Tensor]] = {}

    def add(self, features: Float[Tensor, "n d"]) -> None:
        """The next images' features, in order. Raises ValueError where one is not finite or too many come."""
        require_finite(features)
        if self._seen + len(features) > self.count:
            raise ValueError(f"features of {self._seen + len(features)} images, of {self.count} announced")
        for start in range(min(self.num_blocks, len(features))):
            block = (self._seen + start) % self.num_blocks
            pending = self._pending.setdefault(block, [])
            pending.append(features[start :: self.num_blocks].clone())  # a view would keep the caller's batch alive
            if sum(map(len, pending)) >= PENDING_ROWS:
                self._flush(block)
        self._seen += len(features)

    def _flush(self, block: int) -> None:
        part = Moments.of(torch.cat(self._pending.pop(block)))
        before = self._finished.get(block)
        self._finished[block] = part if before is None else before.merge(part)

    @property
    def blocks(self) -> list[Moments]:
        """Of each block that has seen an image, in order."""
        for block in list(self._pending):
            self._flush(block)
        return [self._finished[block] for block in sorted(self._finished)]

    @property
    def moments(self) -> Moments:
        """Of everything so far."""
        if not self._seen:
            raise ValueError("moments need at least 1 feature vector, got 0")
        return merged(self.blocks)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: ``|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½)``.

    With factors ``S = F Fᵀ`` from eigenvalues, the trace of the root is the sum of the singular values of
    ``F_aᵀ F_b``. Unlike a matrix root of the product this stays real and accurate for singular covariances,
    which any set smaller than its features' dimension has (Heusel et al. 2017, arXiv:1706.08500, eq. 6;
    Dowson and Landau 1982).
    """
    require_one_width(len(a.mean), len(b.mean))
    factor_a, factor_b = factor(a.covariance), factor(b.covariance)
    root_trace = torch.linalg.svdvals(factor_a.T @ factor_b).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root_trace
    return max(distance.item(), 0.0)  # equal Gaussians end up a rounding error below zero


def factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """F with F Fᵀ = covariance; eigenvalues that rounding pushed below zero are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()

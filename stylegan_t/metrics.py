"""Distances between sets of features, agreement between pictures and captions. Algebra only, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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
        features = features.double()
        mean = features.mean(dim=0)
        deviations = features - mean
        return cls(len(features), mean, deviations.T @ deviations)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together."""
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


def merged(parts: list[Moments]) -> Moments:
    return reduce(Moments.merge, parts)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: ``|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½)``.

    With factors ``S = F Fᵀ`` from eigenvalues, the trace of the root is the sum of the singular values of
    ``F_aᵀ F_b``. Unlike a matrix root of the product this stays real and accurate for singular covariances,
    which any set smaller than its features' dimension has (Heusel et al. 2017, arXiv:1706.08500, eq. 6;
    Dowson and Landau 1982).
    """
    factor_a, factor_b = _factor(a.covariance), _factor(b.covariance)
    root_trace = torch.linalg.svdvals(factor_a.T @ factor_b).sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root_trace
    return max(distance.item(), 0.0)  # equal Gaussians end up a rounding error below zero


def _factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """F with F Fᵀ = covariance; eigenvalues that rounding pushed below zero are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def kernel_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], block_size: int = 1000) -> float:
    """KID: unbiased squared maximum mean discrepancy under the kernel ``(x·y / d + 1)³``.

    Unlike the Fréchet distance it has no bias from the number of samples, so it may be read where
    covariances are singular; it may be slightly negative. Averaged over pairs of disjoint blocks, which
    bounds the memory (Bińkowski et al. 2018, arXiv:1801.01401, section 4).
    """
    smaller = min(len(a), len(b))
    if smaller < 2:
        raise ValueError(f"a kernel distance needs at least 2 feature vectors on each side, got {smaller}")
    num_blocks = max(1, smaller // block_size)
    size = smaller // num_blocks
    pairs = [(a[i * size : (i + 1) * size], b[i * size : (i + 1) * size]) for i in range(num_blocks)]
    return sum(_squared_discrepancy(x.double(), y.double()) for x, y in pairs) / num_blocks


def _squared_discrepancy(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    n, d = x.shape
    within_x, within_y, across = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    pairs_x = within_x.sum() - within_x.trace()  # a vector paired with itself would bias the estimate
    pairs_y = within_y.sum() - within_y.trace()
    return ((pairs_x + pairs_y) / (n * (n - 1)) - 2 * across.mean()).item()


def cosines(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Cosine of each image's embedding with its caption's; any lengths."""
    return torch.cosine_similarity(images.double(), texts.double(), dim=1)


def clip_score(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> float:
    """Mean raw cosine of image and caption (Hessel et al. 2021, arXiv:2104.08718, without scale and floor)."""
    return cosines(images, texts).mean().item()


def retrieval_accuracy(images: Float[Tensor, "n d"], texts: Float[Tensor, "u d"], choices: Int[Tensor, "n k"]) -> float:
    """Share of images nearer to their own caption than to any other of their choices; a tie is a miss.

    Args:
        images: Unit embeddings.
        texts: Unit embeddings of captions.
        choices: Rows of ``texts`` for each image, its own caption first; chance is 1 / k.
    """
    similarity = torch.stack([(images * texts[row]).sum(dim=1) for row in choices.T], dim=1)
    return (similarity[:, 0] > similarity[:, 1:].amax(dim=1)).double().mean().item()


def spread(points: Float[Tensor, "g n d"], present: Bool[Tensor, "g n"]) -> float:
    """How far points scatter within a group: the root of the variance, averaged over groups and axes.

    Args:
        points: ``g`` groups of ``n`` points.
        present: Which points count; a group needs two.
    """
    groups = [group[mask].double() for group, mask in zip(points, present, strict=True) if mask.sum() > 1]
    if not groups:
        return 0.0
    return torch.stack([group.var(dim=0).mean() for group in groups]).mean().sqrt().item()

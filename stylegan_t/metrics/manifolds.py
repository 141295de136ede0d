"""Fidelity and variety apart: whose neighbourhoods do the pictures lie in?

The reals' manifold is the union of balls around them, each as wide as the distance to its k-th neighbour. Distances
come block by block; beside the features, memory holds one block's distances to one whole set.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stylegan_t.metrics.checks import require_comparable


def precision_recall(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"], neighbours: int = 3, block_size: int = 2000
) -> tuple[float, float]:
    """Share of fakes within the reals' manifold, and of reals within the fakes', by torch-fidelity.

    Balls are closed (Kynkäänniemi et al. 2019, arXiv:1904.06991, eqs. 1-2). Both shares depend on how many vectors
    there are: compare equal counts only.

    Raises:
        ValueError: A set without ``neighbours`` others to each vector, or a number that is not finite.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric  # takes seconds to import

    require_comparable(fakes, reals, least=neighbours + 1)
    fakes, reals = _about_one_origin(fakes, reals)
    found = prc_features_to_metric(
        fakes, reals, prc_neighborhood=neighbours, prc_batch_size=block_size, save_cpu_ram=True, verbose=False
    )
    return found["precision"], found["recall"]


def density_coverage(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"], neighbours: int = 5, block_size: int = 2000
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " m"]]:
    """In how many of the reals' balls each fake lies, over ``neighbours``; whether a fake lies in each real's ball.

    The means are density and coverage. Density does not reward fakes around one outlier among the reals, as precision
    does, and may pass 1. Coverage is recall with the reals' balls instead of the fakes', whose outliers would widen
    them. Balls are open, as in the authors' code: two equal sets have density and coverage 1 (Naeem et al. 2020,
    arXiv:2002.09797).

    Raises:
        ValueError: Reals without ``neighbours`` others to each, or a number that is not finite.
    """
    require_comparable(fakes, reals, least=neighbours + 1)
    fakes, reals = _about_one_origin(fakes, reals)
    balls = torch.zeros(len(fakes), dtype=torch.int64, device=fakes.device)
    covered = []
    for block in reals.split(block_size):
        radii = torch.cdist(block, reals).kthvalue(neighbours + 1, dim=1, keepdim=True).values  # the first is itself
        within = torch.cdist(block, fakes) < radii
        balls += within.sum(dim=0)
        covered.append(within.any(dim=1))
    return balls.double() / neighbours, torch.cat(covered)


def _about_one_origin(
    fakes: Float[Tensor, "n d"], reals: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both moved by the reals' mean: fast distances come from products, which lose digits far from the origin."""
    origin = reals.double().mean(dim=0)
    return (fakes - origin).to(fakes.dtype), (reals - origin).to(reals.dtype)

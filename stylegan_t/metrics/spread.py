"""Variety among pictures of one prompt."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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


def diversity(labels: Int[Tensor, "g n"], num_labels: int) -> float:
    """How evenly labels are used within a group: the entropy over that of an even use, averaged over groups.

    1 where each group uses all labels alike, 0 where each keeps to one. A few labels look a little less even
    than they are drawn: compare with the same of the data.

    Args:
        labels: ``g`` groups of ``n``; -1 where none could be read, which does not count. A group of nothing else is 0.
        num_labels: How many there are to choose from, at least 2; labels lie below it.
    """
    if num_labels < 2:
        raise ValueError(f"diversity among {num_labels} labels: needs at least 2")
    if labels.max() >= num_labels:
        raise ValueError(f"label {int(labels.max())} among {num_labels}: labels lie below their number")
    entropies = []
    for group in labels:
        counts = torch.bincount(group[group >= 0], minlength=num_labels).double()
        shares = counts / counts.sum().clamp(min=1)
        entropies.append(-torch.special.xlogy(shares, shares).sum().item() / math.log(num_labels))
    return sum(entropies) / len(entropies)

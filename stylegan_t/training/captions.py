"""Wrong captions for real images: further fakes, which teach the discriminator to read (Reed et al. 2016)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SAME_MEANING_COSINE = 0.97
"""Captions at least this similar may describe the same picture; they are never used as wrong ones."""
NUM_HARD = 32


class WrongCaptions:
    """Draws a text embedding that does not belong to an image.

    Args:
        pool: Text embeddings to draw from; repeated ones count once.
        p_hard: Share of draws among the ``NUM_HARD`` most similar that mean something else.
    """

    def __init__(self, pool: Float[Tensor, "m d"], p_hard: float) -> None:
        self.pool = pool.unique(dim=0)
        self.p_hard = p_hard

    def draw(self, c: Float[Tensor, "n d"], uniform: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
        """A wrong embedding for each right one; ``uniform`` numbers in [0, 1) decide which.

        Where nothing in the pool differs enough, the least similar one is drawn.
        """
        cosine = c @ self.pool.T
        cosine = cosine.masked_fill(cosine > SAME_MEANING_COSINE, -2.0)
        ranked = cosine.sort(dim=1, descending=True, stable=True)
        num_wrong = (ranked.values > -2.0).sum(dim=1).clamp(min=1)
        is_hard = uniform[:, 0] < self.p_hard
        num_choices = torch.where(is_hard, num_wrong.clamp(max=NUM_HARD), num_wrong)
        rank = (uniform[:, 1] * num_choices).long()
        return self.pool[ranked.indices.gather(1, rank[:, None])[:, 0]]

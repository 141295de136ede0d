"""Wrong captions for real images: further fakes, which teach the discriminator to read (Reed et al. 2016)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SAME_MEANING_COSINE = 0.97
"""Captions at least this similar may describe the same picture; they are never used as wrong ones."""
NUM_HARD = 16
"""A hard caption is one of so many that share the most words with the right one."""


def words_of(caption: str) -> set[str]:
    return set(re.findall(r"\w+", caption.lower()))


class WrongCaptions:
    """Draws a caption that does not belong to an image, as its text embedding.

    Hard ones differ in a word or two. They are sought by words because an embedding can put a change of one attribute
    far away: the nearest embeddings are then all of other attributes, and the discriminator never learns that one.

    Args:
        captions: To draw from; repeated ones count once.
        c: Their embeddings.
        p_hard: Share of hard ones.
    """

    def __init__(self, captions: Sequence[str], c: Float[Tensor, "m d"], p_hard: float) -> None:
        rows = {caption: row for row, caption in reversed(list(enumerate(captions)))}
        self.pool = c[sorted(rows.values())]
        self.p_hard = p_hard
        distinct = [captions[row] for row in sorted(rows.values())]
        vocabulary = sorted(set[str]().union(*map(words_of, distinct)))
        self._column = {word: i for i, word in enumerate(vocabulary)}
        self._words = self._bags(distinct)

    def _bags(self, captions: Sequence[str]) -> Float[Tensor, "n words"]:
        bags = torch.zeros(len(captions), len(self._column))
        for row, caption in enumerate(captions):
            bags[row, [self._column[word] for word in words_of(caption) if word in self._column]] = 1
        return bags.to(self.pool.device)

    def draw(
        self, captions: Sequence[str], c: Float[Tensor, "n d"], uniform: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n d"]:
        """A wrong embedding for each right caption; ``uniform`` numbers in [0, 1) decide which.

        Where nothing in the pool differs enough in meaning, the pool's first caption is drawn.
        """
        bags = self._bags(captions)
        shared = bags @ self._words.T
        overlap = shared / (bags.sum(dim=1, keepdim=True) + self._words.sum(dim=1) - shared).clamp(min=1)
        overlap = overlap.masked_fill(c @ self.pool.T > SAME_MEANING_COSINE, -1.0)
        ranked = overlap.sort(dim=1, descending=True, stable=True)
        num_wrong = (ranked.values >= 0).sum(dim=1).clamp(min=1)
        is_hard = uniform[:, 0] < self.p_hard
        num_choices = torch.where(is_hard, num_wrong.clamp(max=NUM_HARD), num_wrong)
        rank = (uniform[:, 1] * num_choices).long()
        return self.pool[ranked.indices.gather(1, rank[:, None])[:, 0]]

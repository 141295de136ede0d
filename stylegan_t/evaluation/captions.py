"""The captions that pictures are made from and compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stylegan_t.data.shards import Shards
from stylegan_t.errors import DataError

EncodeText = Callable[[Sequence[str]], Float[Tensor, "n e"]]
NUM_CHOICES = 32
"""Captions among which the judge picks one; fewer where the data has fewer."""


class Captions:
    """The held-out captions, repeated as needed, each with the wrong ones that it is told apart from.

    Args:
        captions: Of all held-out pictures, in the shards' order.
        encode_text: The judge's.
        seed: Decides the wrong captions.
    """

    def __init__(self, captions: Sequence[str], encode_text: EncodeText, seed: int) -> None:
        self.unique = list(dict.fromkeys(captions))
        if len(self.unique) < 2:
            raise DataError(
                f"the held-out pictures have {len(self.unique)} different captions; telling right from wrong ones "
                "needs at least 2: use more data or a larger filter.p_heldout"
            )
        number = {caption: i for i, caption in enumerate(self.unique)}
        self.order = torch.tensor([number[caption] for caption in captions])
        self.texts: Float[Tensor, "u e"] = encode_text(self.unique)
        self.num_choices = min(NUM_CHOICES, len(self.unique))
        shuffled = torch.randperm(len(self.unique) - 1, generator=torch.Generator().manual_seed(seed))
        self._offsets = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + shuffled[: self.num_choices - 1]])

    def numbers(self, count: int) -> Int[Tensor, " n"]:
        """Rows of ``unique`` for ``count`` pictures: the held-out captions in their order, over and over."""
        return self.order[torch.arange(count) % len(self.order)]

    def prompts(self, count: int) -> list[str]:
        return [self.unique[i] for i in self.numbers(count)]

    def choices(self, count: int) -> Int[Tensor, "n k"]:
        """Rows of ``unique`` for each picture: its own caption first, then different wrong ones."""
        return (self.numbers(count)[:, None] + self._offsets) % len(self.unique)


def read_captions(heldout: Shards) -> list[str]:
    return [sample.caption for sample in heldout]

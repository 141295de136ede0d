"""Text embeddings of all samples of a prepared folder by one encoder, made once and read by sample number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stylegan_t.data.shards import Shards
from stylegan_t.files import atomic

SAMPLES_PER_FILE = 16384


class StoredEmbeddings:
    """Embeddings in files of equal numbers of samples, in float16 like those of the shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, np.ndarray] = {}

    def rows(self, numbers: Sequence[int]) -> Float[Tensor, "n c_dim"]:
        """The embeddings of the samples with these numbers."""
        return torch.from_numpy(np.stack([self._row(number) for number in numbers])).float()

    def _row(self, number: int) -> Float[np.ndarray, " c_dim"]:
        part, row = divmod(number, SAMPLES_PER_FILE)
        if part not in self._open:
            self._open[part] = np.load(self.folder / f"{part:06d}.npy", mmap_mode="r")
        return self._open[part][row]


def store_embeddings(
    folder: Path,
    shards: Path,
    encode: Callable[[Sequence[str]], Float[Tensor, "n c_dim"]],
    *,
    mine: slice = slice(None),
    done: Callable[[int], None] = lambda count: None,
) -> None:
    """Write what ``StoredEmbeddings`` reads; files that are there already stay.

    Args:
        folder: Where to.
        shards: Prepared shards whose captions to encode.
        encode: Unit-length embeddings of captions, on the CPU.
        mine: Which of the files this process makes, so that several may share the work.
        done: Called with the number of samples each time a file is there.
    """
    samples = Shards(shards)
    parts = range(-(-len(samples) // SAMPLES_PER_FILE))
    for part in parts[mine]:
        path = folder / f"{part:06d}.npy"
        numbers = range(part * SAMPLES_PER_FILE, min((part + 1) * SAMPLES_PER_FILE, len(samples)))
        if not path.exists():
            embeddings = encode([samples[number].caption for number in numbers])
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.save(file, embeddings.half().numpy())
        done(len(numbers))

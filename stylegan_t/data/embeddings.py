"""Text embeddings of all captions of a prepared folder by one encoder, made once and read by sample and caption."""

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
    """Embeddings in files of equal numbers of samples, in float16 like those of the shards.

    A file holds a row per caption, those of one sample one after the other; another one beside it holds the row of each
    sample's first caption.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def rows(self, numbers: Sequence[int], captions: Sequence[int]) -> Float[Tensor, "n c_dim"]:
        """The embeddings of one caption each of the samples with these numbers.

        Args:
            captions: Which of its captions, for each sample.
        """
        rows = [self._row(number, caption) for number, caption in zip(numbers, captions, strict=True)]
        return torch.from_numpy(np.stack(rows)).float()

    def _row(self, number: int, caption: int) -> Float[np.ndarray, " c_dim"]:
        part, place = divmod(number, SAMPLES_PER_FILE)
        if part not in self._open:
            firsts, rows = (np.load(path, mmap_mode="r") for path in _paths(self.folder, part))
            self._open[part] = firsts, rows
        firsts, rows = self._open[part]
        return rows[firsts[place] + caption]


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
        firsts, rows = _paths(folder, part)
        numbers = range(part * SAMPLES_PER_FILE, min((part + 1) * SAMPLES_PER_FILE, len(samples)))
        if not rows.exists():
            captions = [samples[number].captions for number in numbers]
            counts = [len(each) for each in captions]
            _save(firsts, np.cumsum([0, *counts[:-1]]))
            _save(rows, encode([caption for each in captions for caption in each]).half().numpy())
        done(len(numbers))


def _paths(folder: Path, part: int) -> tuple[Path, Path]:
    return folder / f"{part:06d}.first.npy", folder / f"{part:06d}.npy"


def _save(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)

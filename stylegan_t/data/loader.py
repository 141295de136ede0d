"""Training batches in an order that follows from the seed and the image count alone.

Resuming needs one integer: the number of images shown so far. The order of an epoch mixes within windows of shuffled
blocks, so that a data set larger than the page cache is still read in runs.
"""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stylegan_t.data.embeddings import StoredEmbeddings
from stylegan_t.data.images import UndecodableImage, decode_batch
from stylegan_t.data.shards import Shards, read_manifest
from stylegan_t.errors import DataError, LoaderLost
from stylegan_t.randomness import derive_seed

LOADER_LOST = "DataLoader worker"
"""How torch's message begins when a process of its loader was killed."""

BLOCK = 256
"""Neighbouring samples that stay together when an epoch is shuffled coarsely."""
BLOCKS_PER_WINDOW = 256
"""Shuffled blocks whose samples are mixed with each other; a smaller data set is mixed as a whole."""


class Batch(NamedTuple):
    """Images with their captions.

    Attributes:
        c: The captions' embeddings by the original text encoder, from the shards.
        generator_c: Those that feed the generator, where they are others and stored ready.
    """

    images: UInt8[Tensor, "n 3 h w"]
    c: Float[Tensor, "n c_dim"]
    captions: list[str]
    generator_c: Float[Tensor, "n c_dim"] | None = None


def epoch_order(num_samples: int, seed: int, epoch: int) -> Int[np.ndarray, " num_samples"]:
    """Every sample once, in the order of one epoch."""
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "epoch order", epoch)))
    blocks = rng.permutation(-(-num_samples // BLOCK))
    order = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    order = order[order < num_samples]
    window = BLOCK * BLOCKS_PER_WINDOW
    for start in range(0, num_samples, window):
        rng.shuffle(order[start : start + window])
    return order


def batches(
    folder: Path,
    *,
    batch_size: int,
    start_nimg: int,
    seed: int,
    num_workers: int,
    share: range | None = None,
    generator_c: StoredEmbeddings | None = None,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Endless batches, from the image numbered ``start_nimg`` of the endless order on.

    An epoch's last batch goes on with the next epoch's first samples. The number of workers changes nothing but speed.

    Args:
        folder: Prepared shards.
        start_nimg: Images shown before; any number.
        num_workers: Processes that decode ahead; 0 = decode in this process.
        share: Which images of each batch this process wants; None = all. The order is that of the global batch.
        generator_c: Of the folder's samples; goes into the batches.
        pin_memory: Lock the batches in memory, so that copies to a GPU run beside its work.

    Raises:
        DataError: The shards are empty, missing or damaged.
    """
    samples = _Samples(folder, generator_c)
    if not len(samples):
        raise DataError(f"{folder}: holds no samples; loosen the rules of params.yaml's section filter")
    order = _Order(len(samples), batch_size, start_nimg, seed, share or range(batch_size))
    loader = DataLoader(
        samples,
        batch_sampler=order,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_the_training if num_workers else None,
    )
    stream = iter(loader)
    return _with_plain_errors(stream, Workers(stream) if num_workers else None)


def some_captions(folder: Path, count: int) -> tuple[list[str], Float[Tensor, "m c_dim"]]:
    """Captions and embeddings of ``count`` samples spread evenly over the shards (all, where there are fewer)."""
    shards = Shards(folder)
    numbers = np.linspace(0, len(shards) - 1, min(count, len(shards))).round().astype(int)
    samples = [shards[int(number)] for number in numbers]
    return [sample.caption for sample in samples], _stack_c([sample.c for sample in samples])


def check_encoder(folder: Path, identity: str) -> None:
    """Raise DataError unless the shards' text embeddings were made by the encoder of this identity."""
    made_by = read_manifest(folder).get("encoder")
    if made_by != identity:
        raise DataError(
            f"{folder}: its text embeddings are of another encoder ({str(made_by)[:12]}…) than the one to train "
            f"with ({identity[:12]}…); run `dvc repro filter`, or `stylegan-t run score` and `stylegan-t run filter`"
        )


class _Samples(Dataset[Batch]):
    """Decoded batches by lists of sample numbers."""

    def __init__(self, folder: Path, generator_c: StoredEmbeddings | None) -> None:
        self._shards, self._generator_c = Shards(folder), generator_c

    def __len__(self) -> int:
        return len(self._shards)

    def __getitems__(self, numbers: list[int]) -> Batch:
        samples = [self._shards[number] for number in numbers]
        try:
            images = decode_batch([s.image for s in samples])
        except UndecodableImage as error:
            raise DataError(f"{self._shards.folder}: {error}; run `dvc repro -f filter`") from None
        rows = self._generator_c.rows(numbers) if self._generator_c else None
        return Batch(images, _stack_c([s.c for s in samples]), [s.caption for s in samples], rows)


class _Order(Sampler[list[int]]):
    """Sample numbers of one process's share of every batch from an image count on, without end."""

    def __init__(self, num_samples: int, batch_size: int, start_nimg: int, seed: int, share: range) -> None:
        self._num_samples, self._batch_size = num_samples, batch_size
        self._start, self._seed, self._share = start_nimg, seed, share

    def __iter__(self) -> Iterator[list[int]]:
        position, epoch, order = self._start, -1, np.empty(0, np.int64)
        while True:
            batch: list[int] = []
            while len(batch) < self._batch_size:
                now, offset = divmod(position, self._num_samples)
                if now != epoch:
                    epoch, order = now, epoch_order(self._num_samples, self._seed, now)
                run = order[offset : offset + self._batch_size - len(batch)].tolist()
                batch += run
                position += len(run)
            yield batch[self._share.start : self._share.stop]


def _stack_c(vectors: list[np.ndarray]) -> Float[Tensor, "n c_dim"]:
    return torch.from_numpy(np.stack(vectors)).float()


class Workers:
    """The processes that decode for an iterator of torch's loader.

    They ignore SIGTERM, so that someone else must end them, at the exit at the latest: Python's own exit sends them
    SIGTERM and waits, for ever if they were still there.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        atexit.register(self.end)  # runs before what Python has registered earlier

    def end(self) -> None:
        """Let them finish in order; who does not is killed."""
        atexit.unregister(self.end)
        self._stream._shutdown_workers()
        for process in self._stream._workers:
            if process.is_alive():
                process.kill()


def _with_plain_errors(stream: Iterator[Batch], workers: Workers | None) -> Iterator[Batch]:
    """The same batches; an error of the data in one line, without the traceback that torch adds in a worker."""
    try:
        while True:
            try:
                batch = next(stream)
            except DataError as error:
                raise DataError(str(error).strip().splitlines()[-1].rpartition(f"{DataError.__name__}: ")[2]) from None
            yield batch
    finally:
        if workers:
            workers.end()


@contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Tell in one line that a process that decodes images was killed, which torch says wherever we are just then.

    Raises:
        LoaderLost: For that RuntimeError of torch.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(LOADER_LOST):
            raise
        said = str(error).splitlines()[0].rstrip(". ")
        raise LoaderLost(
            f"a process that loads images was lost ({said}), perhaps for want of memory: the same command goes on, and "
            "a smaller num_workers needs less"
        ) from None


def _leave_signals_to_the_training(worker: int) -> None:
    """Ctrl-C, and whoever stops a whole tree of processes, reach the workers too; the training still needs a batch."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _as_is(batch: Any) -> Any:
    return batch

"""Processes that make batches ahead of the training, and how they end."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch.utils.data import DataLoader, Dataset

from stylegan_t.data.batch import Batch
from stylegan_t.errors import DataError, LoaderLost, Unreachable

LOADER_LOST = "DataLoader worker"
"""How torch's message begins when a process of its loader was killed."""


def read_ahead(
    dataset: Dataset[Batch], requests: Iterable[Any] | None, *, num_workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Batches of a data set in its order, made by other processes; an error of the data in one line.

    Args:
        requests: What to ask the data set for; None where it tells itself.
        num_workers: Processes; 0 = make each batch in this one when it is asked for.
        pin_memory: Lock the batches in memory, so that copies to a GPU run beside its work.
    """
    loader = DataLoader(
        dataset,
        batch_size=None,  # the data set makes whole batches
        sampler=requests,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_the_training if num_workers else None,
    )
    stream = iter(loader)
    return _with_plain_errors(stream, Workers(stream) if num_workers else None)


class Workers:
    """The processes that decode for an iterator of torch's loader.

    They ignore SIGTERM, so that someone else must end them, at the exit at the latest: Python's own exit sends them
    SIGTERM and waits, for ever if they were still there.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        atexit.register(self.end)  # runs before what Python has registered earlier

    def end(self) -> None:
        """Let them finish in order; who does not is killed, and how they end is of no interest any more."""
        atexit.unregister(self.end)
        with suppress(RuntimeError):  # torch tells of one that failed, wherever we are just then
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
            except (DataError, Unreachable) as error:
                kind = type(error)
                raise kind(str(error).strip().splitlines()[-1].rpartition(f"{kind.__name__}: ")[2]) from None
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

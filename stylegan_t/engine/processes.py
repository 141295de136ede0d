"""Parts on processes of this machine.

Each worker is an executor of the standard library with one process. One executor with several would lose the parts of
all when one process is killed. (So does pebble's pool, if it happens before any part is begun; later, a killed process
may hold locks that the others wait for.) Here workers share nothing.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from stylegan_t.engine.worker import MAX_LOSSES, Done, Work, make
from stylegan_t.errors import WorkerLost


def run_in_processes(work: Work, parts: Sequence[int], num_workers: int, done: Done) -> None:
    """``run_parts`` on so many processes of this machine (or on one per part, where there are fewer parts).

    They share its cores: unless OMP_NUM_THREADS is set already, it tells each its share of threads, and torch, numpy
    and pyarrow obey.
    """
    num_workers = min(num_workers, len(parts))
    threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
    pickled, waiting, losses = pickle.dumps(work), deque(parts), Counter[int]()
    with _workers(num_workers, threads) as workers:
        idle = list(workers)
        busy: dict[Future[dict[str, Any]], tuple[int, _Worker]] = {}
        while waiting or busy:
            while waiting and idle:
                part, worker = waiting.popleft(), idle.pop()
                busy[worker.begin(pickled, part)] = part, worker
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                part, worker = busy.pop(future)
                idle.append(worker)
                try:
                    facts = future.result()
                except BrokenProcessPool as error:
                    if error.__cause__:  # it lives, and answered with what cannot be read
                        raise
                    losses[part] += 1
                    if losses[part] == MAX_LOSSES:
                        raise WorkerLost(
                            f"part {part} lost its process {MAX_LOSSES} times, killed or crashed (out of memory?); "
                            "fewer workers need less; the same command goes on with the parts that are left"
                        ) from None
                    waiting.append(part)
                else:
                    done(part, facts)


class _Worker:
    """A process that works on one part at a time; if it dies, the next part gets a new one."""

    def __init__(self, threads: int, leash: Connection) -> None:
        self._arguments = threads, leash
        self._executor = self._new()

    def begin(self, work: bytes, part: int) -> Future[dict[str, Any]]:
        with _sigint_blocked():  # for the process that this may start: a Ctrl-C is for us, who end it
            try:
                return self._executor.submit(make, work, part)
            except BrokenProcessPool:
                self._executor = self._new()
                return self._executor.submit(make, work, part)

    def join(self) -> None:
        self._executor.shutdown()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=self._arguments)


@contextmanager
def _workers(count: int, threads: int) -> Iterator[list[_Worker]]:
    """Workers on a leash: when the block is left, or this process ends in whatever way, they end at once."""
    theirs, ours = get_context("spawn").Pipe(duplex=False)
    workers = [_Worker(threads, theirs) for _ in range(count)]
    try:
        yield workers
    finally:
        ours.close()
        for worker in workers:
            worker.join()
        theirs.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- in the worker -------------------------------------------------------------------------------------------


def _begin(threads: int, leash: Connection) -> None:
    threading.Thread(target=_end_with, args=[leash], daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # the work, which may import torch, is unpickled later


def _end_with(leash: Connection) -> None:
    leash.poll(None)
    os._exit(1)

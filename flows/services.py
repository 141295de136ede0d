"""Processes that are kept alive, and the flow runs below them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence

import psutil

from flows.processes.guard import GRACE_SECONDS, Tree
from flows.server import stop

LONGEST_PAUSE_SECONDS = 60.0
"""Between two starts of something that does not stay."""


class Service:
    """A process that is started anew whenever it ends.

    Args:
        start: Starts it, under a guard.
    """

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name, self._start = name, start
        self._pause_seconds = 0.5
        self._ended: float | None = None
        self._begin()

    def _begin(self) -> None:
        self.process, self._begun, self._ended = self._start(), time.monotonic(), None
        self._tree, self._runs = Tree(self.process.pid, is_wrapper=False), list[psutil.Process]()

    def look_after(self) -> None:
        """Start it anew where it has ended: soon the first time, then after longer and longer pauses."""
        if self._ended is None and self.process.poll() is None:
            self._tree.look()
            self._runs = flow_runs(self.process.pid)
            return
        if self._ended is None:
            lasted = time.monotonic() - self._begun
            again = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
            self._pause_seconds = again if lasted < LONGEST_PAUSE_SECONDS else 1.0
            say(f"{self.name} ended (exit code {self.process.returncode}); again in {self._pause_seconds:g} s")
            finish(self._runs)  # they outlive their worker, which could not stop them any more
            self.end()
            self._ended = time.monotonic()
        if time.monotonic() - self._ended >= self._pause_seconds:
            self._begin()

    def end(self) -> None:
        """End it, and all that it started."""
        stop(self.process)
        self._tree.end()


def flow_runs(worker: int) -> list[psutil.Process]:
    """Processes of the flow runs that a worker has at work, itself alive."""
    return [process for process in _below(worker) if "prefect.engine" in _words(process)]


def _is_worker(process: psutil.Process) -> bool:
    return {"prefect", "worker"} <= set(_words(process))


def _below(service: int) -> list[psutil.Process]:
    try:
        return psutil.Process(service).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _words(process: psutil.Process) -> list[str]:
    """Of its command line."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # or a zombie
        return []


def finish(runs: Sequence[psutil.Process]) -> None:
    """Ask flow runs to end, and wait for it: stages save what they have, and the server hears what became of them.

    A worker that is asked to stop kills its runs within a second instead.
    """
    if runs:
        say(f"{len(runs)} flow runs have {GRACE_SECONDS:g} s to save what they have")
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.terminate()
    deadline = time.monotonic() + GRACE_SECONDS + 10
    while time.monotonic() < deadline and not all(_has_ended(run) for run in runs):
        time.sleep(0.1)


def _has_ended(process: psutil.Process) -> bool:
    """Also where a worker that is suspended does not notice."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def drain(services: Sequence[int]) -> None:
    """End the flow runs below services that are about to be stopped.

    Workers take no new ones meanwhile, which would be killed as they begin; so they are suspended.
    """
    workers = [process for service in services for process in _below(service) if _is_worker(process)]
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.suspend()
    finish([run for service in services for run in flow_runs(service)])
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.terminate()  # the first that it hears
            worker.resume()


def end_all(services: Sequence[Service]) -> None:
    """End workers before the server that they report to."""
    drain([service.process.pid for service in services])
    for service in reversed(services):
        service.end()


def say(line: str) -> None:
    """A line of ours among those of the workers."""
    print(line, flush=True)

"""Progress of long work: a bar on a terminal, a plain line every so often elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TextIO

import psutil
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

STDERR = 2
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FACTS = 0.5


def resident_memory_mib() -> float:
    """Resident memory of this process and its children, MiB."""
    process = psutil.Process()
    resident = process.memory_info().rss
    for child in process.children():
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            resident += child.memory_info().rss
    return resident / 2**20


@contextmanager
def though_nobody_reads() -> Iterator[None]:
    """Write to stderr, and into the void from the moment at which that fails.

    The terminal or the pipe's other end is gone: work that is asked to stop then has a state to save, and an exit code.
    """
    try:
        yield
    except OSError:
        void = os.open(os.devnull, os.O_WRONLY)
        os.dup2(void, STDERR)
        os.close(void)


class Progress:
    """Shows how far ``total`` units of work have come, with rate, time left and memory.

    Args:
        what: Name of the work, e.g. the stage's.
        total: Units in all.
        unit: Name of a unit, plural: ``images``.
        done: Units that an earlier process did already.
        shown: False shows nothing, where another process shows the same.
    """

    def __init__(self, what: str, total: float, unit: str = "images", done: float = 0, shown: bool = True) -> None:
        self.what, self.total, self.unit, self.shown = what, total, unit, shown
        self.done = self._done_at_start = done
        self._start = time.monotonic()
        self._next_line = self._start + SECONDS_BETWEEN_LINES
        self._note = ""
        self._bar: RichProgress | None = None
        if shown and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            self._bar = RichProgress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(what, total=total, note="")

    def __enter__(self) -> Progress:
        with though_nobody_reads():
            if self._bar:
                before = sys.stderr
                self._bar.start()
                _move_log(before, sys.stderr)
                self._bar.update(self._task, completed=self.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with though_nobody_reads():
            if self._bar:
                during = sys.stderr
                self._bar.update(self._task, note=self._facts(self._note))
                self._bar.stop()
                _move_log(during, sys.stderr)
            elif kind is None and self.shown:
                self._print_line("")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count ``amount`` more units; ``note`` is shown beside the rate."""
        self.done += amount
        self._note = note
        with though_nobody_reads():
            if self._bar:
                self._bar.update(self._task, completed=self.done, total=self.total)
                if time.monotonic() >= self._next_line:  # to sum up the memory takes milliseconds
                    self._next_line = time.monotonic() + SECONDS_BETWEEN_FACTS
                    self._bar.update(self._task, note=self._facts(note))
            elif self.shown and time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
                self._print_line(note)

    def _facts(self, note: str) -> str:
        rate = (self.done - self._done_at_start) / max(time.monotonic() - self._start, 1e-9)
        return f"{rate:.0f} {self.unit}/s, {resident_memory_mib():.0f} MiB" + (f", {note}" if note else "")

    def _print_line(self, note: str) -> None:
        elapsed = time.monotonic() - self._start
        rate = (self.done - self._done_at_start) / max(elapsed, 1e-9)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        print(
            f"{self.what}: {self.done:.0f}/{self.total:.0f} {self.unit}, {elapsed:.0f} s{left}, {self._facts(note)}",
            file=sys.stderr,
            flush=True,
        )


def _move_log(before: TextIO, after: TextIO) -> None:
    """Let log messages follow stderr, which the bar replaces: they appear above it, and not in its line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(after)

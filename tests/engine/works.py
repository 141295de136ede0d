"""Work that can be followed: it writes down what it begins, and ends as it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import stylegan_t
from stylegan_t.errors import DataError
from stylegan_t.files import write_text


class Unreadable(Exception):
    """An error that arrives as bytes that make no error."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Unwritable(Exception):
    """An error that cannot be sent."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Lock())


class Riddle:
    """A fact that arrives as bytes that make no fact."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Unreadable, ()


@dataclass(frozen=True)
class Write:
    """Writes the square of each part's number to a file; ``log`` has a line for each time that a process begins one.

    Attributes:
        seconds: What a part takes.
        dies_once: The first time, these kill their process when the file is half written.
        dies: These do so each time.
        sleeps: These take a minute.
        complains: These are wrong data, as soon as all ``after`` have begun.
        confuses: These raise ``Unreadable``.
        grabs: These raise ``Unwritable``.
        riddles: These tell a ``Riddle``.
    """

    folder: Path
    seconds: float = 0.0
    dies_once: Collection[int] = ()
    dies: Collection[int] = ()
    sleeps: Collection[int] = ()
    complains: Collection[int] = ()
    after: Collection[int] = ()
    confuses: Collection[int] = ()
    grabs: Collection[int] = ()
    riddles: Collection[int] = ()

    def __call__(self, part: int) -> dict[str, Any]:
        again = part in begun(self.folder)
        with (self.folder / "log").open("a") as file:
            file.write(f"{part} {os.getpid()}\n")
        time.sleep(60 if part in self.sleeps else self.seconds)
        if part in self.complains:
            while not begun(self.folder).keys() >= set(self.after):
                time.sleep(0.05)
            raise DataError(f"part {part} is bad")
        if part in self.confuses:
            raise Unreadable("one", "two")
        if part in self.grabs:
            raise Unwritable("three")
        if part in self.riddles:
            return {"riddle": Riddle()}
        if part in self.dies or (part in self.dies_once and not again):
            (self.folder / f".{part}.tmp").write_text("hal")
            os.kill(os.getpid(), signal.SIGKILL)
        write_text(self.folder / f"{part}", str(part**2))
        return {"square": part**2}


@dataclass(frozen=True)
class Keep:
    """Loads something at its first part; tells in which process, and with how many threads."""

    def __call__(self, part: int) -> dict[str, Any]:
        return {"loaded": self._loaded, "process": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}

    @cached_property
    def _loaded(self) -> int:
        return time.monotonic_ns()


@dataclass(frozen=True)
class Where:
    """Tells which copy of our code is run."""

    def __call__(self, part: int) -> dict[str, Any]:
        return {"code": stylegan_t.__file__}


def begun(folder: Path) -> Counter[int]:
    """How often each part was begun."""
    return Counter(part for part, _ in log(folder))


def log(folder: Path) -> list[tuple[int, int]]:
    """Each part that was begun, and the process that did so."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(part), int(process)) for part, process in map(str.split, lines)]


def results(folder: Path) -> dict[str, bytes]:
    """All that was written, without what was not finished."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.isdecimal()}

"""Outputs that are made part by part, so that a killed stage goes on where it stopped, and many machines can share one.

DVC deletes a stage's outputs before it runs it: finished parts wait in the stage's state folder until all are there,
and stay there afterwards, as further names of the output's files, until another output is made. So whoever is killed
between the output's last byte and DVC's note of it loses nothing either. Beside them lie a record of each finished part
and the locks of those in hand; all of it must be on a file system that every machine at work sees.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stylegan_t.engine.run import run_parts
from stylegan_t.engine.worker import Done, Work
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.files import alone_in, together_in, write_json
from stylegan_t.settings.engine import ProcessEngine, RayEngine

logger = logging.getLogger(__name__)

HIDDEN, PUBLISHED = ".parts", "published"
SEEN_AFTER_SECONDS = 60.0
"""A file that one machine wrote is seen on another one after so long at the latest, on a network file system."""


@dataclass(frozen=True)
class PartRange:
    """Some of the parts of a stage, as ``--parts`` names them: ``3``, ``0-99`` or ``1/4``, the first of four shares."""

    text: str
    first: int
    last: int
    of_equal: int | None = None

    def numbers(self, num_parts: int) -> range:
        """Of so many parts, those that are meant; none where there are fewer parts than shares.

        Raises:
            SettingsError: It names parts that there are not.
        """
        if self.of_equal:
            return range(*(share * num_parts // self.of_equal for share in (self.first - 1, self.first)))
        if self.last >= num_parts:
            raise SettingsError(f"--parts {self.text}: there are {num_parts} parts; use 0 to {num_parts - 1}, or 1/4")
        return range(self.first, self.last + 1)


def parse_parts(text: str) -> PartRange:
    """What ``--parts`` says. Raises SettingsError."""
    if found := re.fullmatch(r"(\d+)(?:-(\d+))?", text):
        first, last = int(found[1]), int(found[2] or found[1])
        if first <= last:
            return PartRange(text, first, last)
    elif found := re.fullmatch(r"(\d+)/(\d+)", text):
        share, of_equal = int(found[1]), int(found[2])
        if 1 <= share <= of_equal:
            return PartRange(text, share, share, of_equal)
    raise SettingsError(f"--parts {text}: use a number from 0 on, a range (0-99) or a share (1/4 to 4/4)")


@contextmanager
def open_parts(folder: Path, only: PartRange | None = None, afresh: bool = False) -> Iterator[Parts]:
    """The parts in a state folder, which is made if there is none.

    Who makes all of them, and so the output, is alone with the stage; who makes ``only`` some shares it with others of
    that kind, in this folder or in another one.

    Args:
        afresh: Forget the parts that are finished; not with ``only``.

    Raises:
        InUse: Another process works on the stage.
    """
    with together_in(folder.parent) if only else alone_in(folder.parent):
        parts = Parts(folder, only)
        if afresh:
            shutil.rmtree(folder, ignore_errors=True)
        if not only:
            _tell_of_others(folder)
        parts.scratch.mkdir(parents=True, exist_ok=True)
        (parts.hidden / "locks").touch()
        yield parts


class Parts:
    """Parts of one output, numbered from 0 or named; get one from ``open_parts``.

    Attributes:
        folder: Where parts are written; it becomes the output.
        hidden: What is no part of the output: records, locks.
        scratch: For what making the parts needs, e.g. the pieces of a list.
    """

    def __init__(self, folder: Path, only: PartRange | None) -> None:
        self.folder, self._only = folder, only
        self.hidden, self.scratch = folder / HIDDEN, folder / HIDDEN / "scratch"

    def plan(self, plan: Callable[[Path], int]) -> int:
        """What ``plan(self.scratch)`` says: the number of parts. One process at a time calls it, others wait."""
        with _alone(self.hidden / "plan", 0, create=True):
            return plan(self.scratch)

    def chosen(self, num_parts: int) -> range:
        """Numbers of the parts to be made here: all, or those that were asked for. Raises SettingsError."""
        return self._only.numbers(num_parts) if self._only else range(num_parts)

    def finished(self, num_parts: int) -> dict[int, dict[str, Any]]:
        """Facts of each part that is to be made here and that is made already, by number."""
        there = {path.name for path in self.hidden.glob("*.json")}
        numbers = [number for number in self.chosen(num_parts) if self._record(number).name in there]
        return {number: json.loads(self._record(number).read_text()) for number in numbers}

    def make(
        self, work: Work, num_parts: int, engine: ProcessEngine | RayEngine, done: Done
    ) -> list[dict[str, Any]] | None:
        """The facts of all parts, in order, each as ``work(number)`` told it now or in an earlier process.

        Where only some are to be made (``open_parts``), None, and a line that says how many parts there are: the output
        is made by whoever comes for all of them.

        Args:
            work: Writes part ``number`` to ``self.folder``, whole or not at all, and tells its facts, as in JSON.
            engine: Where; see ``run_parts``, also for errors.
            done: Called with number and facts of each part that is made now.

        Raises:
            DataError: A machine does not see this folder.
        """
        facts = self.finished(num_parts)

        def finish(number: int, new: dict[str, Any]) -> None:
            self._wait_to_see(number)
            facts[number] = new
            done(number, new)

        missing = [number for number in self.chosen(num_parts) if number not in facts]
        run_parts(_Make(work, self.hidden), missing, engine, finish)
        if not self._only:
            return [facts[number] for number in range(num_parts)]
        stage, there = self.folder.parent.name, len(list(self.hidden.glob("[0-9]*.json")))
        print(
            f"{stage}: parts {self._only.text} are made, {there} of {num_parts} in all; "
            f"`dvc repro --single-item {stage}` makes what is left and the output"
        )
        return None

    def make_named(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The facts that ``make`` told about a part; it is called only if no earlier process finished the part."""
        return _recorded(self.hidden / f"{name}.json", make)

    def publish(self, output: Path) -> None:
        """Replace ``output`` by the parts, of which all must be there; whoever is killed meanwhile can do so again.

        The parts stay; those that an earlier output was made of go.
        """
        assert self._only is None
        for leftover in self.folder.rglob(".*.tmp"):
            leftover.unlink()
        new = output.with_name(f".{output.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(self.folder, new, ignore=shutil.ignore_patterns(HIDDEN), copy_function=_link)
        shutil.rmtree(output, ignore_errors=True)
        new.rename(output)
        (self.hidden / PUBLISHED).touch()
        for other in _others(self.folder):
            if (other / HIDDEN / PUBLISHED).exists():
                shutil.rmtree(other)

    def _record(self, number: int) -> Path:
        return self.hidden / f"{number:05d}.json"

    def _wait_to_see(self, number: int) -> None:
        deadline = time.monotonic() + SEEN_AFTER_SECONDS
        while not self._record(number).is_file():
            if time.monotonic() > deadline:
                raise DataError(
                    f"{self.folder}: part {number} was made on another machine and is not here; "
                    "the workspace must be on a file system that all machines share"
                )
            time.sleep(0.1)


@dataclass(frozen=True)
class _Make:
    """Makes a part unless another process did, or does: then it waits for that one. Runs wherever the engine says."""

    work: Work
    hidden: Path

    def __call__(self, number: int) -> dict[str, Any]:
        try:
            with _alone(self.hidden / "locks", number):
                return _recorded(self.hidden / f"{number:05d}.json", partial(self.work, number))
        except FileNotFoundError:
            if self.hidden.is_dir():
                raise
            raise DataError(
                f"{self.hidden.parent}: no such folder on {socket.gethostname()}; "
                "the workspace must be on a file system that all machines share, at the same path"
            ) from None


def _others(folder: Path) -> list[Path]:
    """State folders of the same stage under other settings, inputs or code."""
    return sorted(path.parent for path in folder.parent.glob(f"*/{HIDDEN}") if path.parent != folder)


def _tell_of_others(folder: Path) -> None:
    for other in _others(folder):
        parts = list((other / HIDDEN).glob("*.json"))
        if parts and not (other / HIDDEN / PUBLISHED).exists():
            logger.warning(
                "%s: %d finished parts of other settings, inputs or code lie in %s; what was running there goes on "
                "under those again, otherwise delete it",
                folder.parent.name, len(parts), other,
            )  # fmt: skip


def _link(source: str, target: str) -> None:
    """Give a file another name, or copy it where the file system has no second names or is another one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _recorded(record: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not record.is_file():
        write_json(record, make())
    return json.loads(record.read_text())


@contextmanager
def _alone(locks: Path, number: int, create: bool = False) -> Iterator[None]:
    """Wait until no other process holds the lock ``number`` of the file ``locks``, and hold it.

    A byte of the file stands for each, so that one file serves any number of locks, also on network file systems.
    """
    with locks.open("a" if create else "r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, number)
        yield

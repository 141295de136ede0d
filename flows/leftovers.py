"""What killed or finished runs leave in the workspace besides DVC's cache. Knows neither Prefect nor DVC."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

FRESH_SECONDS = 3600.0
"""What was written so short a time ago may be in use by something that we cannot see."""

UNFINISHED = re.compile(r"\..+\.(tmp|new|unfinished)")
"""Names under which files and folders are written before they are whole."""


@dataclass(frozen=True)
class Leftover:
    """Something that nothing needs.

    Attributes:
        what: Its kind, in a word or two.
        path: Below the workspace.
        size: Bytes that are free once it is gone.
    """

    what: str
    path: str
    size: int


def clear_states(root: Path, keep_runs: int, older_than_days: float, dry_run: bool) -> list[Leftover]:
    """Remove the states and live records of a stage's older runs.

    A run stays that is among the stage's newest, that was written to within the days, that made the stage's present
    outputs, or that a process works on.

    Args:
        keep_runs: How many of the newest of each stage stay, whatever their age.
        dry_run: Only say what would be removed.
    """
    found = []
    for stage in sorted(path for path in root.glob(".state/*") if path.is_dir()):
        runs = sorted((path for path in stage.iterdir() if path.is_dir()), key=_last_write, reverse=True)
        for run in runs[keep_runs:]:
            age = time.time() - _last_write(run)
            if age < max(older_than_days * 24 * 3600, FRESH_SECONDS) or _made_outputs(run, root / "artifacts"):
                continue
            with _alone([stage, run]) as is_free:
                if is_free:
                    found.append(_removed("state", run, root, dry_run))
    return found


def clear_copies(root: Path, copies: Sequence[Path], dry_run: bool) -> list[Leftover]:
    """Remove temporary copies of the repository whose experiment is dead: nothing works in them."""
    folders = [Path(folder) for process in psutil.process_iter(["cwd"]) if (folder := process.info["cwd"])]
    return [
        _removed("experiment", copy, root, dry_run)
        for copy in copies
        if not any(folder.is_relative_to(copy.resolve()) for folder in folders) and not _is_fresh(copy)
    ]


def clear_temporary(root: Path, dry_run: bool) -> list[Leftover]:
    """Remove what a killed process was writing. Inside of outputs nothing is touched: they are DVC's."""
    candidates = [path for folder in (".", "artifacts", "data") for path in (root / folder).glob(".*")]
    candidates += (root / ".state").rglob(".*.tmp")
    return [
        _removed("temporary", path, root, dry_run)
        for path in sorted(candidates)
        if UNFINISHED.fullmatch(path.name) and not _is_fresh(path) and not _has_live_writer(path)
    ]


def _has_live_writer(path: Path) -> bool:
    number = re.search(r"\.(\d+)\.tmp$", path.name)
    return number is not None and psutil.pid_exists(int(number[1]))


def _is_fresh(path: Path) -> bool:
    return time.time() - _last_write(path) < FRESH_SECONDS


def _last_write(path: Path) -> float:
    """When something was last written there; two levels tell, since whatever is at work writes to them."""
    below = [*path.glob("*"), *path.glob("*/*")] if path.is_dir() else []
    times = [path.lstat().st_mtime]
    for each in below:
        with suppress(FileNotFoundError):  # a temporary name that has just become a real one
            times.append(each.lstat().st_mtime)
    return max(times)


def _made_outputs(run: Path, artifacts: Path) -> bool:
    """Whether a training's outputs are this run's: their last line of the log is one of its lines."""
    outputs = _lines(artifacts / run.parent.name / "log.jsonl")
    return bool(outputs) and outputs[-1] in _lines(run / "live" / "log.jsonl")


def _lines(path: Path) -> list[dict[str, object]]:
    """A log without what differs from run to run; a torn line is none."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line) | {"speed": None})
        except ValueError:
            continue
    return found


@contextmanager
def _alone(folders: Sequence[Path]) -> Iterator[bool]:
    """Whether no process works in any of the folders, as their lock files tell; none begins while the block lasts."""
    with ExitStack() as held:
        is_free = True
        for lock in (folder / "lock" for folder in folders):
            if lock.is_file():
                file = held.enter_context(lock.open("r+"))
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError):
                    is_free = False
        yield is_free


def _removed(what: str, path: Path, root: Path, dry_run: bool) -> Leftover:
    """Remove a file or a folder, unless it is only to be told."""
    files = [path] if not path.is_dir() else [Path(top, name) for top, _, names in os.walk(path) for name in names]
    size = sum(fact.st_size for fact in map(os.lstat, files) if fact.st_nlink == 1)  # other names keep their bytes
    if not dry_run:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return Leftover(what, str(path.relative_to(root)), size)

"""Who works where: DVC's own locks, mended where a killed DVC left them broken, and ours for whole runs.

A run of ours holds two files locked as long as it and its commands live, however they end: one says that the workspace
is taken, the other, shared by all workspaces with the same cache, that nothing of the cache may be collected.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil

from flows.processes.commands import inherited

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 1.0
"""For so long a lock may be held by one who only looks."""


class InUse(ValueError):
    """Another run has the workspace, or works with the cache."""


@contextmanager
def working(root: Path, what: str = "a run", wait_seconds: float = 0.0) -> Iterator[None]:
    """The workspace is ours alone while the block lasts, and its cache is not collected.

    Args:
        what: Said to others who want it meanwhile.
        wait_seconds: How long to wait for another run to end.

    Raises:
        InUse: Another run has it.
    """
    repair(root)
    with ExitStack() as held:
        workspace = held.enter_context(_opened(_workspace_lock(root)))
        if not _locked(workspace, fcntl.LOCK_EX, max(wait_seconds, PATIENCE_SECONDS)):
            raise InUse(
                f"{root} is in use by {workspace.read().strip() or 'another run'}; wait for it, "
                "or use another clone (clones may share a DVC remote)"
            )
        workspace.truncate(0)
        workspace.write(f"{what}, process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        workspace.flush()
        held.enter_context(using_cache(root, wait_seconds))
        held.enter_context(_inherited(workspace))
        yield


@contextmanager
def using_cache(root: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Nothing is collected from the cache while the block lasts. Raises InUse: something is being collected."""
    with _opened(_cache_lock(root)) as cache:
        if not _locked(cache, fcntl.LOCK_SH, max(wait_seconds, PATIENCE_SECONDS)):
            raise InUse(f"{_cache_lock(root).parent} is being cleaned up; try again when that is done")
        with _inherited(cache):
            yield


@contextmanager
def collecting(root: Path) -> Iterator[None]:
    """No run that uses the cache is at work or begins while the block lasts.

    Raises:
        InUse: One is at work, or DVC itself, here or in a temporary copy of an experiment.
    """
    with _opened(_cache_lock(root)) as cache:
        if not _locked(cache, fcntl.LOCK_EX, PATIENCE_SECONDS):
            raise InUse(f"a run works with {_cache_lock(root).parent}; clean up when it is done")
        if at_work := lock_holders(root):
            raise InUse(f"DVC is at work: {'; '.join(at_work)}; clean up when it is done")
        yield


def holder(root: Path) -> str | None:
    """What has the workspace now, in words; None where it is free."""
    with suppress(FileNotFoundError), _workspace_lock(root).open() as file:
        if not _locked(file, fcntl.LOCK_SH, 0):
            return file.read().strip() or "another run"
    return None


def lock_holders(root: Path) -> list[str]:
    """Commands of DVC that run now on files of the repository or of one of its temporary copies, as DVC tells."""
    found = []
    copies = root.glob(".dvc/tmp/exps/*/*/.dvc/tmp/rwlock")  # of experiments that run now
    for path in [root / ".dvc" / "tmp" / "rwlock", *copies]:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            entries = json.loads(path.read_text())
            each = [*entries.get("write", {}).values(), *(e for es in entries.get("read", {}).values() for e in es)]
            found += [f"{entry['cmd']} (process {entry['pid']})" for entry in each if psutil.pid_exists(entry["pid"])]
    return list(dict.fromkeys(found))


def repair(root: Path) -> bool:
    """Remove a lock file of DVC's that a killed DVC left empty or torn, and that blocks every later command.

    Returns:
        Whether there was one. Other DVC commands are kept out while we look: what one of them is just writing is
        whole again when it is our turn.
    """
    folder = root / ".dvc" / "tmp"
    path = folder / "rwlock"
    if _is_whole(path):
        return False
    from dvc.lock import Lock, LockError

    with suppress(LockError), Lock(str(folder / "rwlock.lock")):
        if not _is_whole(path):
            path.unlink()
            return True
    return False


def _is_whole(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text()), dict)
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def cache_folder(root: Path) -> Path:
    """Where DVC keeps contents, for this workspace and perhaps others."""
    from dvc.config import Config

    local = Config(str(root / ".dvc"), validate=False).get("cache", {}).get("dir")
    return Path(local) if local else root / ".dvc" / "cache"


def _workspace_lock(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "stylegan-t.lock"


def _cache_lock(root: Path) -> Path:
    return cache_folder(root) / "stylegan-t.lock"


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """The file, made where it is missing. Closing it ends our lock, but not that of commands that still run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        yield file


@contextmanager
def _inherited(file: IO[str]) -> Iterator[None]:
    inherited.add(file.fileno())
    try:
        yield
    finally:
        inherited.discard(file.fileno())


def _locked(file: IO[str], how: int, wait_seconds: float) -> bool:
    deadline, said = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if wait_seconds > PATIENCE_SECONDS and not said:
                print(f"waiting for {file.read().strip() or 'another run'}", file=sys.stderr, flush=True)
                file.seek(0)
                said = True
            time.sleep(min(POLL_SECONDS if said else 0.05, left))

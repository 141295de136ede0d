"""Files that are whole or absent: written to a temporary name, fsynced, renamed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from stylegan_t.errors import InUse


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; it takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)  # the new name itself is on disk after this only
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While entered, no other process enters for the same folder; it is free again however this one ends.

    The lock is this process's own: its children do not inherit it, so that those of a killed one keep nobody out.

    Raises:
        InUse: Another process is in there.
    """
    with _locked(folder, fcntl.LOCK_EX) as file:
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def together_in(folder: Path) -> Iterator[None]:
    """While entered, no other process is alone in the folder; those that come like this one are let in.

    Raises:
        InUse: Another process is alone in there.
    """
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[TextIO]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            who = f"process {number}" if (number := file.read().strip()) else "another process"
            raise InUse(f"{folder}: {who} works in it; wait for it, or stop it") from None
        file.truncate(0)
        yield file


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Files wherever they lie: on this machine, or behind any address that fsspec knows (``s3://``, ``https://``, …)."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeGuard
from zipfile import BadZipFile

import fsspec
from braceexpand import braceexpand
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from stylegan_t.errors import DataError, Ended, SettingsError, Unreachable
from stylegan_t.files import sha256

PIPE = "pipe:"
NAMED = "params.yaml names it (what to do before the first run of a public data set stands in stylegan_t/datasets/)"
ATTEMPTS, FIRST_WAIT_SECONDS = 5, 1.0
CONNECT_SECONDS, READ_SECONDS = 30, 60
IDENTITY = ("size", "mtime", "ETag", "LastModified", "Last-Modified", "Content-MD5", "CRC")
"""Facts of a file, by the names that fsspec's file systems give them, that change when its content does."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file somewhere.

    Attributes:
        address: What the settings call it, or the pattern that found it.
        path: Its path in that file system.
    """

    address: str
    path: str

    def __str__(self) -> str:
        if self.address.startswith(PIPE):
            return self.address
        inner, chained, outer = self.address.partition("::")
        if chained:
            return f"{inner.partition('://')[0]}://{self.path}::{outer}"
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    @property
    def is_local(self) -> bool:
        return not self.address.startswith(PIPE) and isinstance(self.fs, LocalFileSystem)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return _file_system(self.address)[0]

    @property
    def bears_threads(self) -> bool:
        """Whether several threads may ask for it at once, as they may where one of fsspec's own does the asking."""
        return self.address.startswith(PIPE) or self.is_local or self.fs.async_impl

    @property
    def folder(self) -> File:
        """Where it lies."""
        return File(self.address, self.path.partition("?")[0].rpartition("/")[0])

    def sibling(self, suffix: str) -> File | None:
        """The file beside a tar that has another suffix, if it is there; what a command writes has none."""
        if self.address.startswith(PIPE):
            return None
        path = (self.path.rpartition(".tar")[0] or self.path) + suffix
        with failures_named(str(self)):
            return File(self.address, path) if self.fs.exists(path) else None

    def identity(self) -> str:
        """Changes when the content does, as far as that can be told without reading it."""
        if self.address.startswith(PIPE):
            return self.address
        with failures_named(str(self)):
            info: dict[str, Any] = self.fs.info(self.path)
        return f"{self.path} " + " ".join(f"{name}={info[name]}" for name in IDENTITY if info.get(name) is not None)

    def content(self) -> str:
        """Changes when the content does, and then only where the file lies on this machine: it is read for that."""
        if not self.is_local or not Path(self.path).is_file():
            return self.identity()
        path, stat = Path(self.path), Path(self.path).stat()
        return f"{path.name} size={stat.st_size} sha256={_sha256(path, stat.st_size, stat.st_mtime_ns)}"


def is_address(path: str) -> bool:
    """Whether it is no path on this machine."""
    return "://" in path or "::" in path or path.startswith(PIPE)


def find(patterns: Sequence[str], root: Path) -> list[File]:
    """The files that some paths, addresses, brace patterns (``{00..17}``) and globs (``*.parquet``) name, in order.

    What is there by the very name is meant so: addresses and names of files may hold any of these characters.

    Args:
        patterns: Those of one address each, or of many.
        root: Where relative paths start.

    Raises:
        DataError: A glob finds nothing.
        SettingsError: Braces do not match, or the package for this kind of address is missing.
    """
    return [file for pattern in patterns for file in _find(pattern, root)]


@contextmanager
def on_this_machine(file: File, folder: Path) -> Iterator[Path]:
    """A path where the file can be read: its own, or that of a whole copy, which is gone when the block ends.

    Reading a long file over a network while working on it would keep a connection open for hours, and would take one
    that broke for the end of the file.

    Raises:
        DataError: There is no such file, or it may not be read.
        Unreachable: It could not be copied, several times.
    """
    if file.is_local:
        if not Path(file.path).is_file():
            raise DataError(f"{file.path}: no such file; {NAMED}")
        yield Path(file.path)
        return
    copy = folder / Path(file.path.partition("?")[0]).name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _copy(file, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


@contextmanager
def failures_named(name: str) -> Iterator[None]:
    """Errors of a file system as ours, with the file's name."""
    try:
        yield
    except FileNotFoundError as error:
        if _says_more(error.__cause__):
            raise Unreachable(f"{name}: cannot be read ({_line(error.__cause__)}); the same command goes on") from None
        raise DataError(f"{name}: no such file; {NAMED}") from None
    except PermissionError as error:
        raise DataError(f"{name}: may not be read ({_line(error)})") from None
    except remote_errors() as error:
        raise Unreachable(f"{name}: cannot be read ({_line(error)}); the same command goes on") from None


def _says_more(error: BaseException | None) -> TypeGuard[Exception]:
    """Whether a file seems to be missing only because the server failed: fsspec takes one for the other."""
    if "aiohttp" not in sys.modules:
        return False
    from aiohttp import ClientResponseError

    if isinstance(error, ClientResponseError):
        return error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    return isinstance(error, remote_errors()) and not isinstance(error, FileNotFoundError)


def remote_errors() -> tuple[type[Exception], ...]:
    """What the file systems in use raise where a server or the way to it fails."""
    found: list[type[Exception]] = [OSError]
    with suppress(ImportError):
        if "aiohttp" in sys.modules:
            from aiohttp import ClientError

            found.append(ClientError)
        if "botocore" in sys.modules:
            from botocore.exceptions import BotoCoreError

            found.append(BotoCoreError)
    return tuple(found)


@lru_cache(1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Once a process, for as long as size and date stay."""
    return sha256(path)


@lru_cache(64)
def _file_system(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    options: dict[str, Any] = {}
    if "http://" in address or "https://" in address:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        http = {"client_kwargs": {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}}  # the file as it is
        options = {"http": http, "https": http} if "::" in address else http
    try:
        with failures_named(address):  # what is inside an archive is looked for at once
            return url_to_fs(address, **options)
    except DataError:
        raise
    except BadZipFile as error:
        raise DataError(f"{address}: {_line(error)}") from None
    except ImportError as error:
        cure = "; pip install 'stylegan-t[s3]'" if "s3://" in address else ""  # else the message names the package
        raise SettingsError(f"{address}: {_line(error)}{cure}") from None
    except ValueError as error:
        raise SettingsError(f"{address}: {_line(error)}") from None


os.register_at_fork(after_in_child=_file_system.cache_clear)  # their connections are the parent's


def _find(pattern: str, root: Path) -> list[File]:
    if pattern.startswith(PIPE):
        return [File(pattern, pattern)]
    whole = _whole(pattern, str(root))
    is_web = pattern.startswith(("http://", "https://"))
    special = set("*[{" if is_web else "*?[{") & set(pattern)
    has_braces = is_web and "{" in special  # which no address there may have, while some servers answer to any name
    if not special or (not has_braces and _is_there(whole)):
        return [File(whole, _file_system(whole)[1])]
    if (expanded := _braces(pattern)) != [pattern]:
        return [file for written in expanded for file in _find(written, root)]
    fs, path = _file_system(_whole(pattern, escape(str(root))))
    with failures_named(whole):
        paths = sorted(str(found) for found in fs.glob(path))
    if not paths:
        raise DataError(f"{whole}: no file has such a name")
    return [File(whole, found) for found in paths]


def _whole(pattern: str, root: str) -> str:
    return pattern if is_address(pattern) else str(Path(root) / Path(pattern).expanduser())


def _is_there(address: str) -> bool:
    """Whether a file has this very name. One that nobody tells of has not: servers refuse to look for some patterns."""
    try:
        fs, path = _file_system(address)
        return bool(fs.exists(path))
    except (Ended, *remote_errors()):
        return False


def _braces(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern)) if "{" in pattern else [pattern]
    except ValueError as error:
        raise SettingsError(f"{pattern}: {_line(error)}; e.g. {{00000..00099}}.tar") from None


def _copy(file: File, target: Path) -> None:
    log.info("%s: copying it here for a while", file)
    for attempt in range(ATTEMPTS):
        try:
            with failures_named(str(file)):
                _copy_once(file, target)
            return
        except Unreachable:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(FIRST_WAIT_SECONDS * 2**attempt)


def _copy_once(file: File, target: Path) -> None:
    if file.address.startswith(PIPE):
        with target.open("wb") as out:
            command = file.address.removeprefix(PIPE)
            done = subprocess.run(command, check=False, shell=True, stdout=out, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise OSError(f"the command ended with {done.returncode}: {last}")
        return
    size = file.fs.info(file.path).get("size")
    file.fs.get_file(file.path, str(target))
    if size is not None and target.stat().st_size != size:
        raise OSError(f"{target.stat().st_size} bytes came of {size}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

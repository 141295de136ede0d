"""Files of this machine that are packed with gzip, bzip2 or xz, by their first bytes; others as they are.

Names do not tell: a server may call a file packed for the transfer only, and then it comes unpacked.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

OPEN: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
SUFFIXES = (".gz", ".bz2", ".xz")


def is_packed(path: Path) -> bool:
    return _opener(path) is not None


def open_unpacked(path: Path) -> BufferedIOBase:
    """What the file holds."""
    opener = _opener(path)
    return cast(BufferedIOBase, opener(path, "rb") if opener else path.open("rb"))


def unpacked_name(path: Path) -> Path:
    """The path without the suffix of a packing."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def _opener(path: Path) -> Callable[..., Any] | None:
    with path.open("rb") as file:
        start = file.read(max(map(len, OPEN)))
    return next((opener for magic, opener in OPEN.items() if start.startswith(magic)), None)

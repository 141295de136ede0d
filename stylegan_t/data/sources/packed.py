"""Files of this machine that are packed with gzip, bzip2 or xz, by their names' last suffix; others as they are."""

from __future__ import annotations

import bz2
import gzip
import lzma
from io import BufferedIOBase
from pathlib import Path
from typing import cast

OPEN = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def is_packed(path: Path) -> bool:
    return path.suffix.lower() in OPEN


def open_unpacked(path: Path) -> BufferedIOBase:
    """What the file holds."""
    opener = OPEN.get(path.suffix.lower())
    return cast(BufferedIOBase, opener(path, "rb") if opener else path.open("rb"))


def unpacked_name(path: Path) -> Path:
    """The path without the suffix of the packing."""
    return path.with_suffix("") if is_packed(path) else path

"""Tars as other tools write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], tar_format: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return path


def picture(value: int, width: int = 8, height: int = 6, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(out, kind)
    return out.getvalue()


def sample(key: str, value: int = 0, caption: str = "a caption", ext: str = "png") -> list[tuple[str, bytes]]:
    """Members as img2dataset writes them."""
    metadata = f'{{"caption": "{caption}", "value": {value}}}'.encode()
    return [(f"{key}.{ext}", picture(value)), (f"{key}.json", metadata), (f"{key}.txt", caption.encode())]

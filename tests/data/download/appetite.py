"""What memory pictures take, each in a process of its own: ``python -m tests.data.download.appetite FILE…``.

Prints a line for each: its name, the bytes that it was thought to take at most, and those that it took.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import psutil

from stylegan_t.data.download import pictures
from tests.data.download.world import storage

WAYS = {
    "as it comes": storage(max_pixels=10**8),
    "resized": storage(max_pixels=10**8, resize="keep_ratio", size_px=64),
    "hardly resized": storage(max_pixels=10**8, resize="keep_ratio", size_px=1190),
    "as WebP": storage(max_pixels=10**8, resize="keep_ratio", size_px=1190, image_format="webp"),
}
"""Ways to store a picture of 1200 px."""


def main(*paths: str) -> None:
    for path in paths:
        for way in WAYS:
            if os.fork() == 0:
                take(path, way)
                os._exit(0)
            if os.wait()[1] != 0:
                sys.exit(f"{path} {way}: not kept")


def take(path: str, way: str) -> None:
    data, thought = Path(path).read_bytes(), [0.0]
    pictures._afford = thought.append
    before = psutil.Process().memory_info().rss
    assert isinstance(pictures.keep(data, WAYS[way]), pictures.Kept)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(Path(path).name, way, int(max(thought)), taken, sep=",", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

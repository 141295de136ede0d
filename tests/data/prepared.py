"""Small prepared shards whose every part tells the number of its sample."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample, npy, pack, write_manifest, write_shards

C_DIM = 4


def sample(number: int, captions: int = 1, image_format: str = "png", px: int = 8) -> Sample:
    """A picture of one colour, darker on the left; captions "NUMBER", "NUMBER.1", …; embeddings that say the same."""
    picture = np.full((px, px, 3), number, np.uint8)
    picture[:, : px // 2] //= 2
    texts = [f"{number}.{which}" if which else f"{number}" for which in range(captions)]
    c = np.array([[number, which, 0, 1] for which in range(captions)], np.float16)
    ext = {"jpeg": "jpg"}.get(image_format, image_format)
    return pack(f"s{number:03d}", ext, encode(picture, image_format), texts, {"number": number}, npy=npy(c))


def put(folder: Path, samples: Iterable[Sample], per_shard: int = 7, datasets: str = "") -> Path:
    """Shards and their manifest; shard by shard of the data sets in turn, each of which has one letter."""
    entries = write_shards(folder, samples, per_shard)
    if datasets:
        entries = [{**entry, "dataset": datasets[n % len(datasets)]} for n, entry in enumerate(entries)]
    write_manifest(folder, "prepared", entries, encoder="a" * 64, image_px=8)
    return folder

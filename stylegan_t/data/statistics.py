"""What shards hold, in numbers: counts and bytes of all samples, sizes and captions of some of them."""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stylegan_t.data.found import ShardFolder, captions, open_shard, pictures
from stylegan_t.data.pixels import DECODE_ERRORS
from stylegan_t.data.shards import Sample, Shard
from stylegan_t.errors import DataError


@dataclass
class _Seen:
    """What the samples looked at are like, a number each."""

    formats: Counter[str] = field(default_factory=Counter)
    width_px: list[int] = field(default_factory=list)
    height_px: list[int] = field(default_factory=list)
    picture_bytes: list[int] = field(default_factory=list)
    captions: list[int] = field(default_factory=list)
    chars: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    unreadable: int = 0

    def look_at(self, sample: Sample) -> None:
        try:
            found = captions(sample)
            [data] = pictures(sample).values()
            with Image.open(io.BytesIO(data)) as image:
                width, height, kind = *image.size, image.format
        except DECODE_ERRORS:
            self.unreadable += 1
            return
        self.formats[str(kind).lower()] += 1
        self.width_px.append(width)
        self.height_px.append(height)
        self.picture_bytes.append(len(data))
        self.captions.append(len(found))
        self.chars += map(len, found)
        self.words += [len(caption.split()) for caption in found]


def statistics(place: ShardFolder, looked_at: int, done: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """A folder of shards in numbers that JSON can hold.

    Args:
        place: The folder.
        looked_at: How many samples to open for the sizes of pictures and captions, spread evenly over the shards; 0 for
            all. Counts and bytes are of all samples anyway.
        done: Called after each shard.

    Raises:
        DataError: A tar is missing or not whole.
    """
    count, size, datasets, candidates = (Counter[str]() for _ in range(4))
    samples, tar_bytes, seen = 0, 0, _Seen()
    each = -(-looked_at // max(len(place.shards), 1))
    for path, entry in zip(place.shards, place.entries, strict=True):
        shard = open_shard(path)
        _add_members(shard, count, size)
        samples += len(shard)
        tar_bytes += shard.index.tar_bytes
        datasets[(entry or {}).get("dataset", "")] += len(shard)
        candidates.update(_candidates(path))
        numbers = np.linspace(0, len(shard) - 1, min(each or len(shard), len(shard))).round().astype(int)
        with warnings.catch_warnings(action="ignore"):  # of Pillow, about pictures that are odd
            for number in numbers.tolist():
                seen.look_at(shard[number])
        done()
    return {
        "folder": str(place.folder),
        "kind": place.manifest["kind"] if place.manifest else None,
        "num_shards": len(place.shards),
        "num_samples": samples,
        "tar_bytes": tar_bytes,
        "members": {ext: {"count": count[ext], "bytes": size[ext]} for ext in sorted(count)},
        "datasets": {name: number for name, number in sorted(datasets.items()) if name},
        "candidates": dict(sorted(candidates.items())),
        "looked_at": _of_seen(seen),
    }


def _add_members(shard: Shard, count: Counter[str], size: Counter[str]) -> None:
    index = shard.index
    for number, ext in enumerate(index.ext_names):
        mine = index.ext == number
        count[ext] += int(mine.sum())
        size[ext] += int(index.size[mine].sum(dtype=np.int64))


def _of_seen(seen: _Seen) -> dict[str, Any]:
    numbers = ("width_px", "height_px", "picture_bytes", "captions", "chars", "words")
    return {
        "num_samples": len(seen.width_px) + seen.unreadable,
        "unreadable": seen.unreadable,
        "formats": dict(sorted(seen.formats.items())),
        **{name: _spread(getattr(seen, name)) for name in numbers},
    }


def _spread(numbers: list[int]) -> dict[str, float] | None:
    if not numbers:
        return None
    return {"min": min(numbers), "median": float(np.median(numbers)), "max": max(numbers)}


def _candidates(shard: Path) -> dict[str, int]:
    """How many candidates became samples and how many did not, by reason, as the files beside a shard tell."""
    stats, table = shard.with_name(f"{shard.stem}_stats.json"), shard.with_suffix(".parquet")
    try:
        if stats.is_file():
            return {str(reason): int(number) for reason, number in json.loads(stats.read_text())["status_dict"].items()}
        if table.is_file() and "status" in pq.read_schema(table).names:
            status = pq.read_table(table, columns=["status"])["status"].value_counts().to_pylist()
            return {str(row["values"]): row["counts"] for row in status}
    except (KeyError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(f"{stats if stats.is_file() else table}: not readable ({error}); remove it") from None
    return {}

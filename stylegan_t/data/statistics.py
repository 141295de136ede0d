"""What shards hold, in numbers: counts and bytes of all samples, sizes and captions of some of them."""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from collections.abc import Sequence
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

NUMBERS = ("width_px", "height_px", "picture_bytes", "captions", "chars", "words")
"""What is measured of the samples that are opened."""


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

    def add(self, other: _Seen) -> None:
        self.formats.update(other.formats)
        for name in NUMBERS:
            getattr(self, name).extend(getattr(other, name))
        self.unreadable += other.unreadable

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


@dataclass(frozen=True)
class Measured:
    """What a shard holds.

    Attributes:
        count, size: Of its members, by extension; bytes.
        candidates: What became samples and what did not, by reason, where files beside it tell.
        seen: Of the samples that were opened.
    """

    num_samples: int
    tar_bytes: int
    count: Counter[str]
    size: Counter[str]
    candidates: dict[str, int]
    seen: _Seen


@dataclass(frozen=True)
class Measuring:
    """Measures shards by number: a piece of work for an engine.

    Attributes:
        shards: Each with the number of samples to open, spread evenly over it; None = all.
    """

    shards: Sequence[tuple[Path, int | None]]

    def __call__(self, number: int) -> dict[str, Any]:
        """A shard as ``measured``. Raises DataError where it is missing or not whole."""
        return {"measured": measure(*self.shards[number])}


def to_measure(place: ShardFolder, looked_at: int) -> list[tuple[Path, int | None]]:
    """A folder's shards, each with its part of the samples to open; ``looked_at`` 0 stands for all."""
    each = -(-looked_at // max(len(place.shards), 1)) or None
    return [(path, each) for path in place.shards]


def measure(path: Path, looked_at: int | None) -> Measured:
    """A shard in numbers: counts and bytes of all its samples, and what those opened are like.

    Raises:
        DataError: It is missing or not whole.
    """
    shard, seen = open_shard(path), _Seen()
    most = len(shard) if looked_at is None else min(looked_at, len(shard))
    with warnings.catch_warnings(action="ignore"):  # of Pillow, about pictures that are odd
        for number in np.linspace(0, len(shard) - 1, most).round().astype(int).tolist():
            seen.look_at(shard[number])
    return Measured(len(shard), shard.index.tar_bytes, *_members(shard), _candidates(path), seen)


def statistics(place: ShardFolder, measured: Sequence[Measured]) -> dict[str, Any]:
    """A folder of shards in numbers that JSON can hold, from those of its shards in their order."""
    count, size, datasets, candidates = (Counter[str]() for _ in range(4))
    seen = _Seen()
    for shard, entry in zip(measured, place.entries, strict=True):
        count.update(shard.count)
        size.update(shard.size)
        datasets[(entry or {}).get("dataset", "")] += shard.num_samples
        candidates.update(shard.candidates)
        seen.add(shard.seen)
    return {
        "folder": str(place.folder),
        "kind": place.manifest["kind"] if place.manifest else None,
        "num_shards": len(place.shards),
        "num_samples": sum(shard.num_samples for shard in measured),
        "tar_bytes": sum(shard.tar_bytes for shard in measured),
        "members": {ext: {"count": count[ext], "bytes": size[ext]} for ext in sorted(count)},
        "datasets": {name: number for name, number in sorted(datasets.items()) if name},
        "candidates": dict(sorted(candidates.items())),
        "looked_at": _of_seen(seen),
    }


def _members(shard: Shard) -> tuple[Counter[str], Counter[str]]:
    """Number and bytes of a shard's members, by extension."""
    count, size, index = Counter[str](), Counter[str](), shard.index
    for number, ext in enumerate(index.ext_names):
        mine = index.ext == number
        count[ext] += int(mine.sum())
        size[ext] += int(index.size[mine].sum(dtype=np.int64))
    return count, size


def _of_seen(seen: _Seen) -> dict[str, Any]:
    return {
        "num_samples": len(seen.width_px) + seen.unreadable,
        "unreadable": seen.unreadable,
        "formats": dict(sorted(seen.formats.items())),
        **{name: _spread(getattr(seen, name)) for name in NUMBERS},
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

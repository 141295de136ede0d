"""Are shards what they should be? Ours are compared with what was written; anybody's have to be usable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_t.data.found import ShardFolder, captions, decode, is_picture, metadata, pictures
from stylegan_t.data.index import Index, UnreadableIndex, changed_members, index_path, read_index
from stylegan_t.data.manifest import MANIFEST
from stylegan_t.data.shards import CAPTION, METADATA, Sample, Shard
from stylegan_t.data.tars import Scan, scan
from stylegan_t.files import sha256


@dataclass(frozen=True)
class Checked:
    """What was found out about a shard; ``problems`` are lines that do not name it."""

    num_samples: int
    num_bytes: int
    problems: list[str]


@dataclass(frozen=True)
class Verification:
    """Checks shards by number: a piece of work for an engine.

    Every check but the reading of bytes is quick: the files are there and as long as the manifest says, the tar's
    headers lead to its end, the index agrees with them, and each sample has a picture and a caption. Then, unless
    ``quick``, every byte is read: where there are hashes it is compared with them, and pictures without a hash must
    decode.
    """

    shards: Sequence[tuple[Path, dict[str, Any] | None]]
    quick: bool

    def __call__(self, number: int) -> dict[str, Any]:
        return asdict(check_shard(*self.shards[number], quick=self.quick))


def check_shard(shard: Path, entry: dict[str, Any] | None, *, quick: bool) -> Checked:
    """What is wrong with a shard, given what its manifest says of it."""
    if not shard.is_file():
        return Checked(0, 0, [f"listed in {MANIFEST}, but missing"])
    found = scan(shard)
    problems = [*found.problems]  # what else is wrong then follows from them
    if not problems:
        index, problems = _checked_index(shard, found, wanted=entry is not None)
        problems += _against_manifest(found, entry)
        if not problems and not quick:
            problems += _changed(shard, entry, index)
    if entry is None or entry["sha256"] is None:
        problems += _unusable(Shard(shard, found.index), quick=quick)
    return Checked(found.num_samples, found.tar_bytes, problems)


def check_folder(place: ShardFolder) -> list[str]:
    """What is wrong with a folder beside its shards."""
    if place.manifest is None:
        return []
    total, listed = sum(entry["num_samples"] for entry in place.manifest["shards"]), place.manifest["num_samples"]
    sums = [f"{MANIFEST}: says {listed} samples, its shards have {total}"] if total != listed else []
    unlisted = sorted({path.name for path in place.folder.glob("*.tar")} - {path.name for path in place.shards})
    return sums + [f"{name}: not listed in {MANIFEST}" for name in unlisted]


def _against_manifest(found: Scan, entry: dict[str, Any] | None) -> Iterator[str]:
    if entry and found.tar_bytes != entry["num_bytes"]:
        yield f"{found.tar_bytes} bytes long, {entry['num_bytes']} by {MANIFEST}"
    if entry and found.num_samples != entry["num_samples"]:
        yield f"number of samples: {found.num_samples}, {entry['num_samples']} by {MANIFEST}"


def _checked_index(shard: Path, found: Scan, *, wanted: bool) -> tuple[Index | None, list[str]]:
    try:
        index = read_index(shard)
    except FileNotFoundError:
        return None, [f"its index {index_path(shard).name} is missing"] if wanted else []
    except UnreadableIndex as error:
        return None, [f"its index is not readable ({error})"]
    return index, [] if _same(index, found.index) else ["its index is of another tar"]


def _same(one: Index, other: Index) -> bool:
    arrays = ("first", "ext", "offset", "size")
    return (
        (one.tar_bytes, one.ext_names) == (other.tar_bytes, other.ext_names)
        and one.keys.equals(other.keys)
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    )


def _changed(shard: Path, entry: dict[str, Any] | None, index: Index | None) -> Iterator[str]:
    """Bytes that are not those that were written."""
    members = list(changed_members(shard)) if index else []
    yield from (f"{name}: damaged: its sha256 is not that of the index" for name in members)
    if not members and entry and entry["sha256"] not in (None, sha256(shard)):
        yield f"damaged between its members: its sha256 is not that of {MANIFEST}"


def _unusable(shard: Shard, *, quick: bool) -> Iterator[str]:
    """Samples without a picture that decodes, or without a caption."""
    for number, key in enumerate(shard.index.keys.to_pylist()):
        names = [ext for ext, _, _ in shard.index.members(number)]
        if what := _wrong_names(names) or (None if quick else _wrong_bytes(shard[number])):
            yield f"{key}: {what}"


def _wrong_names(names: list[str]) -> str | None:
    found = [f".{ext}" for ext in names if is_picture(ext)]
    if len(found) != 1:
        return f"{len(found)} pictures ({', '.join(found)}) instead of one" if found else "no picture"
    return None if {CAPTION, METADATA} & set(names) else f"no caption: neither .{CAPTION} nor .{METADATA}"


def _wrong_bytes(sample: Sample) -> str | None:
    [(ext, picture)] = pictures(sample).items()
    try:
        decode(picture)
    except ValueError as error:
        return f"its .{ext} does not decode ({error})"
    try:
        metadata(sample)
        return None if captions(sample) else "its caption is empty"
    except ValueError as error:
        return f"its .{CAPTION} or .{METADATA} is not readable ({error})"

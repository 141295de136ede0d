"""The shard format: webdataset tars, an index beside each, and a manifest that says what belongs together.

A sample is a run of members ``<key>.<ext>`` in a tar. The index (index.py) lets a reader fetch any sample with one
``pread``, which tar iteration cannot. Same samples, same bytes: no dates, no owners.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_t.data.index import (
    Index,
    Keys,
    Member,
    UnreadableIndex,
    changed_members,
    index_path,
    read_index,
    write_index,
)
from stylegan_t.data.manifest import MANIFEST, cure, read_manifest
from stylegan_t.errors import DataError
from stylegan_t.files import atomic, sha256, write_json

CAPTION, METADATA, EMBEDDING = "txt", "json", "npy"
OPEN_SHARDS = 400
"""Files that a reader keeps open: a few hundred are read by turns (see loader.py), and a process may open 1,024."""
READ_THROUGH = 16384
"""Bytes between the members of a sample, per member, that are read and thrown away rather than skipped."""


@dataclass(frozen=True)
class Sample:
    """One picture and what belongs to it, as bytes by extension."""

    key: str
    fields: dict[str, bytes]

    @property
    def image(self) -> bytes:
        return next(data for ext, data in self.fields.items() if ext not in (CAPTION, METADATA, EMBEDDING))

    @property
    def captions(self) -> list[str]:
        """What is said of the picture: a line each, at least one."""
        return self.fields[CAPTION].decode().split("\n")

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads(self.fields[METADATA])

    @property
    def c(self) -> np.ndarray:
        """The captions' embeddings, a row each (prepared shards only)."""
        return np.load(io.BytesIO(self.fields[EMBEDDING]), allow_pickle=False)


@dataclass(frozen=True)
class Skipped:
    """A candidate that became no sample.

    Attributes:
        key: What its sample would have been called.
        reason: One word of a source's list of reasons.
        metadata: What is known of it.
        captions: Those that it has; apart from the metadata, whose names are those of strangers.
    """

    key: str
    reason: str
    metadata: dict[str, Any]
    captions: list[str] = field(default_factory=list)


def one_line(caption: str) -> str:
    """A caption with each run of white space as one space: a line of its own among a sample's captions."""
    return " ".join(caption.split())


def keep_both(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Metadata of others and ours; theirs of a name that is ours is kept as ``list_<name>``."""
    both = {name: value for name, value in theirs.items() if name not in ours} | ours
    for name in theirs.keys() & ours.keys():
        free = f"list_{name}"
        while free in both:
            free = f"list_{free}"
        both[free] = theirs[name]
    return both


def pack(key: str, ext: str, image: bytes, captions: Sequence[str], metadata: dict[str, Any], **more: bytes) -> Sample:
    """A sample of a picture, its captions (white space made even, empty ones left out) and its metadata.

    Raises:
        ValueError: No caption is left.
    """
    lines = [line for caption in captions if (line := one_line(caption))]
    if not lines:
        raise ValueError(f"sample {key}: no caption")
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return Sample(key, {ext: image, CAPTION: "\n".join(lines).encode(), METADATA: text.encode(), **more})


def npy(array: np.ndarray) -> bytes:
    """An array as a field of a sample."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def shard_name(number: int) -> str:
    return f"{number:05d}.tar"


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, Any]:
    """Write a tar and its index, each whole or absent; returns the manifest's entry for it.

    Raises:
        ValueError: Two samples have one key; readers would take them for one.
    """
    members, keys = [], set[str]()
    with atomic(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                if sample.key in keys:
                    raise ValueError(f"{path}: two samples of the key {sample.key!r}; a shard has each key once")
                keys.add(sample.key)
                for ext, data in sorted(sample.fields.items()):
                    member = tarfile.TarInfo(f"{sample.key}.{ext}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                    offset = tar.offset - -len(data) // 512 * -512
                    members.append(Member(sample.key, ext, offset, len(data), hashlib.sha256(data).digest()))
        num_bytes = temporary.stat().st_size
        digest = sha256(temporary)
    write_index(path, members, num_bytes)
    return {"file": path.name, "num_samples": len(keys), "num_bytes": num_bytes, "sha256": digest}


def write_shards(folder: Path, samples: Iterable[Sample], samples_per_shard: int) -> list[dict[str, Any]]:
    """Write all samples as shards of equal size (the last may be smaller); returns the manifest's entries."""
    entries: list[dict[str, Any]] = []
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == samples_per_shard:
            entries.append(write_shard(folder / shard_name(len(entries)), batch))
            batch = []
    if batch:
        entries.append(write_shard(folder / shard_name(len(entries)), batch))
    return entries


def write_manifest(folder: Path, kind: str, shards: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Write the manifest, last of all: a folder with a manifest is complete."""
    num_samples = sum(entry["num_samples"] for entry in shards)
    write_json(folder / MANIFEST, {"kind": kind, "num_samples": num_samples, "shards": list(shards), **facts})


class Shard:
    """The samples of one tar, each with one read. The file is closed when nobody uses the shard any more.

    Raises:
        DataError: The tar is shorter than its index says; ``cure`` ends the message.
    """

    def __init__(self, path: Path, index: Index, cure: str = "replace it by a whole one") -> None:
        self.path, self.index, self._cure = path, index, cure
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        """The sample of a number from 0 on."""
        members, key = self.index.members(number), self.index.keys[number].as_py()
        start, end = members[0][1], members[-1][1] + members[-1][2]
        if end - start > sum(size for _, _, size in members) + READ_THROUGH * len(members):  # they lie far apart
            return Sample(key, {ext: self._read(offset, size) for ext, offset, size in members})
        data = self._read(start, end - start)
        return Sample(key, {ext: data[offset - start : offset - start + size] for ext, offset, size in members})

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file, size, offset)  # leaves the file's position alone, so forked workers may share it
        if len(data) != size:
            raise DataError(f"{self.path}: damaged: truncated before byte {offset + size}; {self._cure}")
        return data


class Shards(Sequence[Sample]):
    """All samples of a folder of shards, by number; safe to use from threads, and from forked and spawned workers.

    Opening compares the manifest with the files' sizes, which is quick for thousands of shards; the index of a shard
    is read when its first sample is. ``verify`` reads every byte.

    Raises:
        DataError: A file is missing, truncated or changed; names the file and the stage that makes it anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.shard_sizes = [entry["num_samples"] for entry in self.manifest["shards"]]
        self._ends = list(accumulate(self.shard_sizes))
        self._open = lru_cache(OPEN_SHARDS)(partial(_open_shard, folder, self.manifest))
        _check_sizes(folder, self.manifest)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Sample:  # type: ignore[override]
        """The sample of a number from 0 on."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = bisect_right(self._ends, number)
        return self._open(shard)[number - self._ends[shard] + self.shard_sizes[shard]]

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    @cached_property
    def keys(self) -> Keys:
        """The keys of all samples; reads all indexes."""
        return Keys(self._open(shard).index.keys for shard in range(len(self.shard_sizes)))

    def shard_range(self, shard: int) -> range:
        """Numbers of the samples in one shard."""
        return range(self._ends[shard] - self.shard_sizes[shard], self._ends[shard])

    def verify(self) -> None:
        """Read every shard and compare it with the manifest's hash; the error names the first samples that differ."""
        for number, entry in enumerate(self.manifest["shards"]):
            shard = self._open(number).path
            if entry["sha256"] not in (None, sha256(shard)):
                changed = ", ".join(islice(changed_members(shard), 3)) or "nothing but what lies between its members"
                what = f"its bytes are not those that were written (sha256 differs): {changed}"
                raise _damaged(shard, what, self.manifest["kind"])

    def __getstate__(self) -> Path:
        return self.folder

    def __setstate__(self, folder: Path) -> None:
        self.__init__(folder)


def _open_shard(folder: Path, manifest: dict[str, Any], number: int) -> Shard:
    entry, kind = manifest["shards"][number], manifest["kind"]
    path = folder / entry["file"]
    try:
        index = read_index(path)
    except (UnreadableIndex, FileNotFoundError) as error:
        raise DataError(f"{index_path(path)}: not a readable index ({error}); {cure(kind)}") from None
    if len(index) != entry["num_samples"]:
        raise _damaged(path, f"its index lists {len(index)} samples, the manifest {entry['num_samples']}", kind)
    if index.tar_bytes != entry["num_bytes"]:
        raise _damaged(path, f"its index is of a tar of {index.tar_bytes} bytes, not {entry['num_bytes']}", kind)
    return Shard(path, index, cure(kind))


def _check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    kind = manifest["kind"]
    with os.scandir(folder) as files:
        there = {file.name: file for file in files}
    for entry in manifest["shards"]:
        for name in (entry["file"], index_path(Path(entry["file"])).name):
            if name not in there:
                raise DataError(f"{folder / name}: listed in {MANIFEST}, but missing; {cure(kind)}")
        if (num_bytes := there[entry["file"]].stat().st_size) != entry["num_bytes"]:
            raise _damaged(folder / entry["file"], f"{num_bytes} bytes long instead of {entry['num_bytes']}", kind)


def _damaged(shard: Path, what: str, kind: str) -> DataError:
    return DataError(f"{shard}: damaged: {what}; {cure(kind)}")

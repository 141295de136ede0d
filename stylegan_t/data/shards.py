"""The shard format: webdataset tars, an index beside each, and a manifest that says what belongs together.

A sample is a run of members ``<key>.<ext>`` in a tar. The index (parquet, a row per member) lets a reader fetch any
sample with one ``pread``, which tar iteration cannot. Same samples, same bytes: no dates, no owners.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stylegan_t.errors import DataError
from stylegan_t.files import atomic, sha256, write_json

MANIFEST = "manifest.json"
CAPTION, METADATA, EMBEDDING = "txt", "json", "npy"
MADE_BY = {"raw": "download", "prepared": "filter"}
"""The stage that writes each kind of shards."""


@dataclass(frozen=True)
class Sample:
    """One picture and what belongs to it, as bytes by extension."""

    key: str
    fields: dict[str, bytes]

    @property
    def image(self) -> bytes:
        return next(data for ext, data in self.fields.items() if ext not in (CAPTION, METADATA, EMBEDDING))

    @property
    def caption(self) -> str:
        return self.fields[CAPTION].decode()

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads(self.fields[METADATA])

    @property
    def c(self) -> np.ndarray:
        """The caption's embedding (prepared shards only)."""
        return np.load(io.BytesIO(self.fields[EMBEDDING]), allow_pickle=False)


def index_path(shard: Path) -> Path:
    return shard.with_suffix(".index.parquet")


def shard_name(number: int) -> str:
    return f"{number:05d}.tar"


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, Any]:
    """Write a tar and its index, each whole or absent; returns the manifest's entry for it."""
    keys, extensions, offsets, sizes, count = [], [], [], [], 0
    with atomic(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                count += 1
                for ext, data in sorted(sample.fields.items()):
                    member = tarfile.TarInfo(f"{sample.key}.{ext}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                    keys.append(sample.key)
                    extensions.append(ext)
                    sizes.append(len(data))
                    offsets.append(tar.offset - -len(data) // 512 * -512)
        num_bytes = temporary.stat().st_size
        digest = sha256(temporary)
    table = pa.table({
        "key": pa.array(keys, pa.string()),
        "ext": pa.array(extensions, pa.string()),
        "offset": pa.array(offsets, pa.int64()),
        "size": pa.array(sizes, pa.int64()),
    })  # fmt: skip
    with atomic(index_path(path)) as temporary:
        pq.write_table(table, temporary)
    return {"file": path.name, "num_samples": count, "num_bytes": num_bytes, "sha256": digest}


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


class Shards(Sequence[Sample]):
    """All samples of a folder of shards, by number; safe to use from forked and spawned workers.

    Opening compares the manifest with the files' sizes and indexes; ``verify`` reads every byte.

    Raises:
        DataError: A file is missing, truncated or changed; names the file and the stage that makes it anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        tables = [self._open_index(entry) for entry in self.manifest["shards"]]
        extensions = pa.chunked_array([t["ext"] for t in tables], pa.string()).combine_chunks().dictionary_encode()
        self._ext, self._ext_names = extensions.indices.to_numpy(), extensions.dictionary.to_pylist()
        none = np.empty(0, np.int64)
        self._offset = np.concatenate([none, *(t["offset"].to_numpy() for t in tables)])
        self._size = np.concatenate([none, *(t["size"].to_numpy() for t in tables)])
        keys = [t["key"].to_numpy(zero_copy_only=False) for t in tables]
        starts = [np.flatnonzero(np.r_[True, k[1:] != k[:-1]]) if len(k) else none for k in keys]
        self.keys = [str(key) for k, start in zip(keys, starts, strict=True) for key in k[start]]
        members_before = np.cumsum([0] + [len(k) for k in keys])
        firsts = [start + before for start, before in zip(starts, members_before[:-1], strict=True)]
        self._first = np.concatenate([*firsts, members_before[-1:]])
        self.shard_sizes = [len(s) for s in starts]
        self._shard_ends = np.cumsum(self.shard_sizes)
        self._files: dict[int, int] = {}
        for entry, size in zip(self.manifest["shards"], self.shard_sizes, strict=True):
            if entry["num_samples"] != size:
                self._damaged(entry, f"its index lists {size} samples, the manifest {entry['num_samples']}")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Sample:  # type: ignore[override]
        """The sample of a number from 0 on."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = int(np.searchsorted(self._shard_ends, number, side="right"))
        members = slice(self._first[number], self._first[number + 1])
        offsets, sizes = self._offset[members], self._size[members]
        start, end = int(offsets[0]), int(offsets[-1] + sizes[-1])
        data = os.pread(self._file(shard), end - start, start)
        if len(data) != end - start:
            self._damaged(self.manifest["shards"][shard], "truncated")
        fields = {
            self._ext_names[ext]: data[offset - start : offset - start + size]
            for ext, offset, size in zip(self._ext[members], offsets.tolist(), sizes.tolist(), strict=True)
        }
        return Sample(self.keys[number], fields)

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def shard_range(self, shard: int) -> range:
        """Numbers of the samples in one shard."""
        end = int(self._shard_ends[shard])
        return range(end - self.shard_sizes[shard], end)

    def verify(self) -> None:
        """Read every shard and compare it with the manifest's hash."""
        for entry in self.manifest["shards"]:
            if sha256(self.folder / entry["file"]) != entry["sha256"]:
                self._damaged(entry, "its bytes are not those that were written (sha256 differs)")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def _file(self, shard: int) -> int:
        if shard not in self._files:  # pread leaves the file's position alone, so forked workers may share it
            self._files[shard] = os.open(self.folder / self.manifest["shards"][shard]["file"], os.O_RDONLY)
        return self._files[shard]

    def _open_index(self, entry: dict[str, Any]) -> pa.Table:
        shard = self.folder / entry["file"]
        for path in (shard, index_path(shard)):
            if not path.is_file():
                raise DataError(f"{path}: listed in {MANIFEST}, but missing; {self._cure()}")
        if shard.stat().st_size != entry["num_bytes"]:
            self._damaged(entry, f"{shard.stat().st_size} bytes long instead of {entry['num_bytes']}")
        try:
            return pq.read_table(index_path(shard), columns=["key", "ext", "offset", "size"])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{index_path(shard)}: not a readable index ({_line(error)}); {self._cure()}") from None

    def _damaged(self, entry: dict[str, Any], what: str) -> NoReturn:
        raise DataError(f"{self.folder / entry['file']}: damaged: {what}; {self._cure()}")

    def _cure(self) -> str:
        stage = MADE_BY.get(self.manifest["kind"], "download")
        return f"make it anew with `dvc repro --force --single-item {stage}` (or `stylegan-t run {stage}`)"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete folder of shards. Raises DataError where there is none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if not isinstance(manifest, dict) or {"kind", "num_samples", "shards"} - manifest.keys():
            raise ValueError("it is no manifest of shards")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; `dvc repro` makes it (stages download and filter)") from None
    except ValueError as error:
        raise DataError(f"{path}: not readable ({_line(error)}); run `dvc repro --force` to make it anew") from None
    return manifest


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

"""The index beside a shard: where each member of the tar lies, so that any sample is one ``pread`` away.

A parquet file with a row per member, the members of a sample together: key, ext, offset (of its first byte), size, and
sha256 (null where nobody has read the bytes). Its key-value metadata holds the tar's length, to tell when the tar is
no longer that one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, UInt

from stylegan_t.files import atomic

TAR_BYTES = b"tar_bytes"
SCHEMA = pa.schema({
    "key": pa.string(), "ext": pa.string(), "offset": pa.int64(), "size": pa.int64(), "sha256": pa.binary(32),
})  # fmt: skip


class Member(NamedTuple):
    """A file of a tar: ``<key>.<ext>``, its first byte and its length, and the hash of its bytes where it is known."""

    key: str
    ext: str
    offset: int
    size: int
    sha256: bytes | None = None

    @property
    def name(self) -> str:
        return f"{self.key}.{self.ext}"


class UnreadableIndex(ValueError):
    """An index is damaged, or of another tar. The message has no name of a file."""


@dataclass(frozen=True)
class Index:
    """The members of one tar, by sample.

    Some ten bytes a member, so that the indexes of a few hundred shards fit into the memory of a loader's process.

    Attributes:
        keys: Of the samples.
        first: Row of each sample's first member, and the number of members at the end.
        ext: Number in ``ext_names``, of each member.
        offset, size: Of each member, bytes.
        tar_bytes: Length of the tar.
    """

    keys: pa.Array
    first: Int[np.ndarray, " starts"]
    ext: UInt[np.ndarray, " members"]
    ext_names: list[str]
    offset: UInt[np.ndarray, " members"]
    size: UInt[np.ndarray, " members"]
    tar_bytes: int

    def __len__(self) -> int:
        return len(self.keys)

    def members(self, sample: int) -> list[tuple[str, int, int]]:
        """Extension, offset and size of each member of a sample, by number in this shard."""
        rows = slice(self.first[sample], self.first[sample + 1])
        names = self.ext_names
        return [
            (names[ext], offset, size)
            for ext, offset, size in zip(
                self.ext[rows].tolist(), self.offset[rows].tolist(), self.size[rows].tolist(), strict=True
            )
        ]


class Keys(Sequence[str]):
    """The keys of many samples, in Arrow's memory: a Python string comes to be only where one is asked for."""

    def __init__(self, shards: Iterable[pa.Array]) -> None:
        self._keys = pa.chunked_array(shards, pa.string())

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]
        return self._keys[number].as_py()

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(chunk.to_pylist() for chunk in self._keys.chunks)

    def index(self, key: str) -> int:  # type: ignore[override]
        """The number of the first sample of this key. Raises ValueError where there is none."""
        number = pc.index(self._keys, key).as_py()
        if number < 0:
            raise ValueError(f"no sample {key!r}")
        return number


def index_path(shard: Path) -> Path:
    return shard.with_suffix(".index.parquet")


def index_table(members: Sequence[Member], tar_bytes: int) -> pa.Table:
    """The index as a table; members of one sample follow each other."""
    columns = zip(*members, strict=True) if members else [()] * len(SCHEMA)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.table(arrays, SCHEMA.with_metadata({TAR_BYTES: str(tar_bytes)}))


def write_index(shard: Path, members: Sequence[Member], tar_bytes: int) -> None:
    """Write the index beside a tar: encoded to be read in a millisecond, the same bytes for the same members."""
    with atomic(index_path(shard)) as temporary:
        pq.write_table(
            index_table(members, tar_bytes),
            temporary,
            compression="none",
            use_dictionary=["key", "ext"],  # type: ignore[arg-type]
            column_encoding={"offset": "DELTA_BINARY_PACKED", "size": "DELTA_BINARY_PACKED"},
            write_statistics=False,
        )


def read_index(shard: Path) -> Index:
    """The index beside a tar.

    Raises:
        UnreadableIndex: It is damaged, or not an index.
        FileNotFoundError: There is none.
    """
    return as_index(_read(shard, ["key", "ext", "offset", "size"]))


def changed_members(shard: Path) -> Iterator[str]:
    """Names of the members whose bytes are not those whose hash the index holds. Raises as ``read_index``."""
    table = _read(shard, SCHEMA.names)
    file = os.open(shard, os.O_RDONLY)
    try:
        for row in table.to_pylist():
            member = Member(**row)
            data = os.pread(file, member.size, member.offset)
            if member.sha256 is not None and hashlib.sha256(data).digest() != member.sha256:
                yield member.name
    finally:
        os.close(file)


def as_index(table: pa.Table) -> Index:
    """The members of a table, by sample."""
    key, ext = (_encoded(table[name]) for name in ("key", "ext"))
    numbers = key.indices.to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=-1)).astype(np.int32)
    return Index(
        keys=key.dictionary.take(pa.array(numbers[starts])),
        first=np.append(starts, np.int32(len(numbers))),
        ext=_small(ext.indices.to_numpy()),
        ext_names=ext.dictionary.to_pylist(),
        offset=_small(table["offset"].to_numpy()),
        size=_small(table["size"].to_numpy()),
        tar_bytes=int(table.schema.metadata[TAR_BYTES]),
    )


def _read(shard: Path, columns: list[str]) -> pa.Table:
    path = index_path(shard)
    try:
        with pq.ParquetFile(path, read_dictionary=["key", "ext"]) as file:
            if TAR_BYTES not in (file.schema_arrow.metadata or {}):
                raise UnreadableIndex("it is a table of something else")
            return file.read(columns, use_threads=False)  # a millisecond either way, and this is safe after a fork
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UnreadableIndex(" ".join(str(error).split())) from None


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return encoded.unify_dictionaries().combine_chunks()


def _small(numbers: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest unsigned type that holds them all."""
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))

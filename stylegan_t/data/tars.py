"""What the headers of any tar of samples tell: which members there are, where they lie, whether the tar is whole.

Only headers are read and the pictures between them skipped. Names are taken apart as webdataset does: the key ends at
the first dot after the last slash, the rest in small letters is the extension; folders, links and ``__names__`` like
these are no samples. Unlike there, hidden files are none either, and the members of a sample may lie apart.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stylegan_t.data.index import Index, Member, as_index, index_table, write_index
from stylegan_t.errors import DataError
from stylegan_t.files import sha256

BLOCK = 512
"""Bytes of a header; a block of zeros ends a tar."""
NO_SAMPLE = re.compile(r"__[^/]*__($|/)")
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\3\4": "zip"}
"""How files begin that have to be unpacked first."""


@dataclass(frozen=True)
class Scan:
    """What was found in a tar.

    Attributes:
        members: Those of a sample together, samples in the order in which they begin; without the one that is cut off.
        num_samples: How many there are.
        tar_bytes: Length of the file.
        problems: Why the tar is not whole or not usable, a line each; none where it is.
    """

    members: list[Member]
    num_samples: int
    tar_bytes: int
    problems: list[str]

    @property
    def index(self) -> Index:
        return as_index(index_table(self.members, self.tar_bytes))


class _DamagedTar(ValueError):
    """The tar cannot be read on.

    Attributes:
        key: Of the sample that is cut off, where it is known.
    """

    def __init__(self, what: str, key: str | None = None) -> None:
        super().__init__(what)
        self.key = key


def scan(path: Path) -> Scan:
    """Read the headers of a tar. What is wrong with it is part of the answer, not an error."""
    samples: dict[str, dict[str, Member]] = {}
    problems, tar_bytes = [], path.stat().st_size
    with path.open("rb") as file:
        if no_tar := _no_tar(file.read(BLOCK)):
            return Scan([], 0, tar_bytes, [no_tar])
        file.seek(0)
        try:
            for member in _members(file, tar_bytes):
                first = samples.setdefault(member.key, {}).setdefault(member.ext, member)
                if first is not member:
                    problems.append(f"{member.name} is there twice, at bytes {first.offset} and {member.offset}")
            if not samples:
                problems.append("holds no samples (files named KEY.EXTENSION)")
        except _DamagedTar as damage:
            if samples:
                samples.pop(damage.key or list(samples)[-1], None)  # it may lack members
            problems.append(f"{damage}; whole samples before that: {len(samples)}")
    members = [member for fields in samples.values() for member in fields.values()]
    return Scan(members, len(samples), tar_bytes, problems)


@dataclass(frozen=True)
class Indexing:
    """Writes the indexes of tars by number: a piece of work for an engine.

    What is wrong with a tar is told rather than raised, which would end the work on the others.
    """

    shards: Sequence[Path]
    hashed: bool

    def __call__(self, number: int) -> dict[str, Any]:
        """The manifest's ``entry`` for a tar, or a ``problem`` that names it; the other one is None."""
        try:
            return {"entry": index_shard(self.shards[number], hashed=self.hashed), "problem": None}
        except DataError as error:
            return {"entry": None, "problem": str(error)}


def index_shard(path: Path, *, hashed: bool) -> dict[str, Any]:
    """Write the index beside a tar; returns the manifest's entry for it.

    Args:
        path: The tar.
        hashed: Read the whole tar for the hashes of its members and its own; else they are null.

    Raises:
        DataError: The tar is missing or not whole, or two of its members have one name.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; put it there, or `stylegan-t data index {path.parent}` without it")
    found = scan(path)
    if found.problems:
        raise DataError(f"{path}: {found.problems[0]}")
    members = list(_hashed(path, found.members)) if hashed else found.members
    write_index(path, members, found.tar_bytes)
    digest = sha256(path) if hashed else None
    return {"file": path.name, "num_samples": found.num_samples, "num_bytes": found.tar_bytes, "sha256": digest}


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a member's name; None where it names no part of a sample."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ext = file.partition(".")
    return (folder + slash + stem, ext.lower()) if stem and dot and not NO_SAMPLE.match(name) else None


def _members(file: BinaryIO, tar_bytes: int) -> Iterator[Member]:
    """The members that are parts of samples. Raises _DamagedTar after the last one that is whole."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="replace") as tar:
            while info := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                name = split_name(info.name) if info.isreg() else None
                if (wanted := info.offset_data + info.size) > tar_bytes:
                    what = f"truncated at byte {tar_bytes}: {info.name} should end at byte {wanted}"
                    raise _DamagedTar(what, name[0] if name else None)
                if tar.offset <= end:
                    raise _DamagedTar(f"the header at byte {end} is damaged")
                if name:
                    yield Member(*name, info.offset_data, info.size)
                end = tar.offset
    except tarfile.TarError as error:
        at_end = max(file.tell(), end) >= tar_bytes
        where = f"truncated at byte {tar_bytes}" if at_end else f"damaged after byte {end}"
        raise _DamagedTar(f"{where} ({error})") from None
    file.seek(end)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise _DamagedTar(f"truncated at byte {tar_bytes}: the mark that ends a tar is missing")
    if any(block):  # tarfile takes it for the end
        raise _DamagedTar(f"the header at byte {end} is damaged")


def _no_tar(head: bytes) -> str | None:
    """What a file is instead of a tar, by its first block; None where it may be one."""
    for magic, name in PACKED.items():
        if head.startswith(magic):
            return f"packed with {name}: unpack it, for no sample in it can be reached without those before"
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "replace")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a tar of nothing
        return None
    except tarfile.HeaderError:
        return f"no tar: it begins with {head[:16]!r}" if head else "no tar: it is empty"
    return None


def _hashed(path: Path, members: list[Member]) -> Iterator[Member]:
    file = os.open(path, os.O_RDONLY)
    try:
        for member in members:
            data = os.pread(file, member.size, member.offset)
            yield member._replace(sha256=hashlib.sha256(data).digest())
    finally:
        os.close(file)

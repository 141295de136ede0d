"""The ledger of a part: every finished row with its picture, in the order in which rows finish.

A file that only grows. A row is one write, made when the row is finished, so that a process that is killed, however
hard, loses no finished row, and a later one goes on behind it. At most the last record is cut off then; it is found by
its length and its checksum, as is what a crash of the whole machine leaves, and its row is fetched again.

(A record costs a quarter of SQLite's row with the same picture in it, which is written to its log, then to its table.)
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

from stylegan_t.errors import DataError, InUse, NotSaved

HEADER = struct.Struct(">4sIQI")
"""Mark, length of the facts, length of the picture, CRC-32 of both."""
MARK = b"row\x01"


class Facts(NamedTuple):
    """What is known of a finished row, beside its picture.

    Attributes:
        row: Its number in the list.
        status: ``success``, or the reason why there is no picture.
        sha256: Of the bytes that came, in hex.
        ext: The stored picture's file extension.
        width, height: Its size, pixels.
        original_width, original_height: Of the picture that came, as it is looked at.
    """

    row: int
    status: str
    sha256: str = ""
    ext: str = ""
    width: int = 0
    height: int = 0
    original_width: int = 0
    original_height: int = 0


class Finished(NamedTuple):
    """A row of the ledger. Without success, the picture is empty."""

    facts: Facts
    image: bytes = b""


class Ledger:
    """Opened for one process at a time.

    Raises:
        InUse: Another process has it open.
        DataError: The file is something else.
        NotSaved: It cannot be written, e.g. on a full disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._records: dict[int, tuple[int, int]] = {}
        """Where each row's record begins, and its length."""
        self._end = 0
        with ExitStack() as at_failure:
            self._file = at_failure.enter_context(path.open("a+b", buffering=0))
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise InUse(f"{path}: another process downloads this part now; wait for it, or stop it") from None
            self._recover()
            at_failure.pop_all()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, row: int) -> bool:
        return row in self._records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Finished:
        """A finished row. Raises KeyError where it is not finished."""
        place, size = self._records[row]
        record = os.pread(self._file.fileno(), size, place)
        facts_end = HEADER.size + HEADER.unpack_from(record)[1]
        return Finished(Facts(*json.loads(record[HEADER.size : facts_end])), record[facts_end:])

    def add(self, finished: Finished) -> None:
        """Record a row; when this returns, no end of this process can lose it. A row that is there stays as it is."""
        facts, image = finished
        told = json.dumps(facts).encode()
        header = HEADER.pack(MARK, len(told), len(image), zlib.crc32(image, zlib.crc32(told)))
        if facts.row not in self._records:
            self._remember(facts.row, self._write([header, told, image]))

    def _write(self, parts: list[bytes]) -> int:
        size, why = sum(map(len, parts)), "the disk is full"
        try:
            if os.writev(self._file.fileno(), parts) == size:
                return size
        except OSError as error:
            why = error.strerror
        os.ftruncate(self._file.fileno(), self._end)  # whatever comes next begins behind a whole record
        raise NotSaved(f"{self.path}: cannot be written ({why}); once that is cured, the same command goes on")

    def _recover(self) -> None:
        reader = io.BufferedReader(self._file, 1 << 20)
        reader.seek(0)
        for facts, size in _whole_records(reader):
            self._remember(facts.row, size)
        reader.detach()  # to close the file anywhere in this process would give up its lock
        rest = os.pread(self._file.fileno(), len(MARK), self._end)
        if rest and not self._end and not MARK.startswith(rest):
            raise DataError(f"{self.path}: no ledger of a download; move it away")
        os.ftruncate(self._file.fileno(), self._end)

    def _remember(self, row: int, size: int) -> None:
        self._records[row] = self._end, size
        self._end += size


def _whole_records(file: IO[bytes]) -> Iterator[tuple[Facts, int]]:
    """Facts and sizes of the records, up to the first that is not whole."""
    left = os.fstat(file.fileno()).st_size
    while len(header := file.read(HEADER.size)) == HEADER.size:
        mark, facts_size, image_size, checksum = HEADER.unpack(header)
        size = HEADER.size + facts_size + image_size
        if mark != MARK or size > left:
            return
        told, image = file.read(facts_size), file.read(image_size)
        if zlib.crc32(image, zlib.crc32(told)) != checksum:
            return
        yield Facts(*json.loads(told)), size
        left -= size


def forget(path: Path) -> None:
    """Remove a ledger, once its part's shard is whole."""
    path.unlink(missing_ok=True)

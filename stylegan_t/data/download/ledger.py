"""The ledger of a part: every finished row with its picture, in the order in which rows finish.

A file that only grows. A row is one write, made when the row is finished, so that a process that is killed, however
hard, loses no finished row, and a later one goes on behind it. At most the last record is cut off then; it is found by
its length and its checksum, as is what a crash of the whole machine leaves, and its row is fetched again. So are the
rows of records that the disk changed: whatever is whole behind them stays.

(A record costs a quarter of SQLite's row with the same picture in it, which is written to its log, then to its table.)
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import re
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
MOST_FACTS_BYTES = 10_000
CHUNK_BYTES = 1 << 20
MOST_IN_VAIN = 4
"""Times a file's length that is read for records that are none: pictures can hold marks, by chance or on purpose."""

log = logging.getLogger(__name__)


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

    def __iter__(self) -> Iterator[int]:
        return iter(self._records)

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
            self._remember(facts.row, self._end, self._write([header, told, image]))

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
        reader, num_damaged = io.BufferedReader(self._file, CHUNK_BYTES), 0
        for place, size, facts in _whole_records(reader):
            num_damaged += place - self._end
            self._remember(facts.row, place, size)
        reader.detach()  # to close the file anywhere in this process would give up its lock
        rest = os.pread(self._file.fileno(), len(MARK), self._end)
        if rest and not self._end and not MARK.startswith(rest):
            raise DataError(f"{self.path}: no ledger of a download; move it away")
        os.ftruncate(self._file.fileno(), self._end)
        if num_damaged:
            log.warning("%s: skipped %d bytes that are damaged; their rows are fetched again", self.path, num_damaged)

    def _remember(self, row: int, place: int, size: int) -> None:
        self._records[row] = place, size
        self._end = place + size


def _whole_records(file: IO[bytes]) -> Iterator[tuple[int, int, Facts]]:
    """Place, size and facts of each record that is whole, whatever lies between them."""
    length, end, in_vain = os.fstat(file.fileno()).st_size, 0, 0
    for place in _marks(file.fileno()):
        if place < end:  # within a picture
            continue
        size, facts = _read_record(file, place, length - place)
        if facts is not None:
            yield place, size, facts
            end = place + size
        elif (in_vain := in_vain + size) > MOST_IN_VAIN * length:
            return


def _read_record(file: IO[bytes], place: int, left: int) -> tuple[int, Facts | None]:
    """How much was read of the file from ``place`` on, and the facts of the record there; None where none is whole."""
    file.seek(place)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return 0, None
    mark, facts_size, image_size, checksum = HEADER.unpack(header)
    size = HEADER.size + facts_size + image_size
    if mark != MARK or facts_size > MOST_FACTS_BYTES or size > left:
        return 0, None
    told, image = file.read(facts_size), file.read(image_size)
    whole = zlib.crc32(image, zlib.crc32(told)) == checksum
    return size, Facts(*json.loads(told)) if whole else None


def _marks(file: int) -> Iterator[int]:
    """Where marks stand in a file."""
    place, seen = 0, b""
    while chunk := os.pread(file, CHUNK_BYTES, place + len(seen)):
        seen += chunk
        yield from (place + found.start() for found in re.finditer(re.escape(MARK), seen))
        place, seen = place + max(0, len(seen) - len(MARK) + 1), seen[1 - len(MARK) :]


def forget(path: Path) -> None:
    """Remove a ledger, once its part's shard is whole."""
    path.unlink(missing_ok=True)

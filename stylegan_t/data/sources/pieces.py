"""A list of rows, cut once into files of equal numbers of rows: the parts of a source that is a list."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylegan_t.data.sources.lists import as_texts, rows_in
from stylegan_t.files import atomic, sha256, write_json

CUT = "cut.json"
ROWS_AT_ONCE = 1024
log = logging.getLogger(__name__)

Lists = Sequence[tuple[str, Callable[[], Iterator[pa.Table]]]]


def cut(lists: Lists, folder: Path, rows_per_piece: int) -> int:
    """Cut lists, as if they were one, into pieces in ``folder``; returns how many there are.

    One pass, in which memory holds no more than two pieces. A killed call goes on after its last whole piece, and opens
    no list again whose rows are all in pieces.

    Args:
        lists: Name of each list, and what gives its rows, in tables of any length.
        folder: Where to.
        rows_per_piece: Rows of each piece; the last may have fewer.
    """
    done = folder / CUT
    if done.is_file():
        return json.loads(done.read_text())["num_pieces"]
    folder.mkdir(parents=True, exist_ok=True)
    number = _whole_pieces(folder)
    buffer: list[pa.Table] = []
    for table in _rows_from(number * rows_per_piece, lists, folder):
        buffer.append(table)
        while sum(map(len, buffer)) >= rows_per_piece:
            piece, buffer = _split(buffer, rows_per_piece)
            _write(folder, number, _together(piece))
            number += 1
    if sum(map(len, buffer)):
        _write(folder, number, _together(buffer))
        number += 1
    write_json(done, _summary(folder, number))
    return number


def read_piece(folder: Path, number: int) -> Iterator[dict[str, Any] | None]:
    """The rows of a piece; None for each that is no row."""
    with pq.ParquetFile(_path(folder, number)) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield from rows_in(batch)


def num_rows(folder: Path) -> int:
    """Rows of all pieces."""
    return json.loads((folder / CUT).read_text())["num_rows"]


def content(folder: Path) -> str:
    """Hex digest of all rows."""
    return json.loads((folder / CUT).read_text())["sha256"]


def _rows_from(start: int, lists: Lists, folder: Path) -> Iterator[pa.Table]:
    """The rows of all lists from number ``start`` on."""
    record, end = folder / "lengths.json", 0
    lengths: dict[str, int] = json.loads(record.read_text()) if record.is_file() else {}
    for name, tables in lists:
        begin = end
        if name in lengths and begin + lengths[name] <= start:
            end += lengths[name]
            continue
        for table in tables():
            end += len(table)
            if end > start:
                yield table[max(0, start - end + len(table)) :]
        lengths[name] = end - begin
        log.info("%s: %d rows", name, lengths[name])
        write_json(record, lengths)


def _split(tables: Sequence[pa.Table], count: int) -> tuple[list[pa.Table], list[pa.Table]]:
    """The first ``count`` rows, and the others, as they came: what a piece is like follows from its own rows alone."""
    first, rest = list[pa.Table](), list[pa.Table]()
    for table in tables:
        wanted = count - sum(map(len, first))
        first.append(table[:wanted])
        rest.append(table[wanted:])
    return [table for table in first if len(table)], [table for table in rest if len(table)]


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """One table; of JSON texts where a column has types that no column can hold together."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.concat_tables(map(as_texts, tables))


def _whole_pieces(folder: Path) -> int:
    number = 0
    while _path(folder, number).is_file():
        number += 1
    return number


def _write(folder: Path, number: int, table: pa.Table) -> None:
    with atomic(_path(folder, number)) as temporary:
        pq.write_table(table.combine_chunks(), temporary, compression="zstd")  # chunks would show in the bytes


def _summary(folder: Path, num_pieces: int) -> dict[str, Any]:
    paths = [_path(folder, number) for number in range(num_pieces)]
    digest = hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest()
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    return {"num_pieces": num_pieces, "num_rows": rows, "sha256": digest}


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.parquet"

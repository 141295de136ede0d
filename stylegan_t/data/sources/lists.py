"""Lists of rows in files: parquet, csv, tsv, jsonl, json, COCO's captions; any of them compressed.

Parquet stays in Arrow's columns. The rows of every other format travel as JSON texts, a row each, so that one that
cannot be read is a row that is counted later, and no end of a list.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import shutil
import tempfile
import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from stylegan_t.data.sources.base import plain
from stylegan_t.data.sources.jsons import values_of
from stylegan_t.data.sources.packed import is_packed, open_unpacked, unpacked_name
from stylegan_t.errors import DataError

Format = Literal["parquet", "csv", "tsv", "jsonl", "json", "coco_captions"]
SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
}  # fmt: skip
JSON_ROW = "json_row"
ROWS_AT_ONCE = 4096
LONGEST_FIELD = 2**24
LINES_OF_A_ROW = 64
"""Of a csv file, in which a quoted text may have several lines."""
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError)
"""What the readers raise for a file that is cut off or no list of its kind."""


@dataclass(frozen=True)
class Layout:
    """How the files of a list are to be read.

    Attributes:
        kind: The format; None = by each file's name.
        header: Names of the columns of csv and tsv files whose first line is a row like the others; None = that line
            names them.
        records: Where a json file is an object: the name of its list of rows; None = the file is that list.
    """

    kind: Format | None = None
    header: tuple[str, ...] | None = None
    records: str | None = None

    def kind_of(self, path: Path, name: str) -> Format:
        """The format of a file. Raises DataError where its path does not tell; ``name`` is what errors call it."""
        if self.kind:
            return self.kind
        suffix = unpacked_name(path).suffix.lower()
        if suffix not in SUFFIXES:
            raise DataError(
                f"{name}: the name does not tell the format; set download.source.format, "
                f"or use one of {', '.join(SUFFIXES)} (compressed: .csv.gz, …)"
            )
        return SUFFIXES[suffix]


def read_tables(path: Path, name: str, layout: Layout, required: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of one file: parquet's own columns, or the one column ``JSON_ROW``.

    Args:
        path: Where the file lies on this machine; its suffixes tell the format.
        name: What errors call it.
        layout: How to read it.
        required: Columns that must be there.

    Raises:
        DataError: The file is damaged, or a required column is missing; names those that there are.
    """
    kind = layout.kind_of(path, name)
    try:
        if kind == "parquet":
            yield from _parquet(path, name, required)
        else:
            with open_unpacked(path) as file:
                rows, found = _open_text(file, name, kind, layout)
                first = list(islice(rows, ROWS_AT_ONCE))
                _check(name, required, found or _names(first))
                yield from tables_of(chain(first, rows))
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{name}: not readable as {kind} ({' '.join(str(error).split())})") from None


def tables_of(rows: Iterable[str]) -> Iterator[pa.Table]:
    """JSON texts, a row each, in tables of the column ``JSON_ROW``."""
    rows = iter(rows)
    while texts := list(islice(rows, ROWS_AT_ONCE)):
        yield pa.table({JSON_ROW: pa.array(texts, pa.string())})


def as_texts(table: pa.Table) -> pa.Table:
    """The rows of a table as JSON texts."""
    if JSON_ROW in table.column_names:
        return table
    return pa.table({JSON_ROW: pa.array([_dumps(plain(row)) for row in table.to_pylist()], pa.string())})


def rows_in(table: pa.Table | pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The rows of a table that the functions above made; None for each that is none."""
    for row in table.to_pylist():
        text = row.pop(JSON_ROW, None)
        yield row if text is None else _row(text)


def _row(text: str) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _parquet(path: Path, name: str, required: Sequence[str]) -> Iterator[pa.Table]:
    with ExitStack() as stack:
        source: Any = path
        if is_packed(path):  # parquet is read from its end, which a decompressor reaches last
            source = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
            shutil.copyfileobj(stack.enter_context(open_unpacked(path)), source)
        reader = stack.enter_context(pq.ParquetFile(source))
        _check(name, required, reader.schema_arrow.names)
        for batch in reader.iter_batches(ROWS_AT_ONCE):
            yield pa.Table.from_batches([batch])


def _open_text(
    file: io.BufferedIOBase, name: str, kind: Format, layout: Layout
) -> tuple[Iterator[str], Sequence[str] | None]:
    """The rows as JSON texts, and the names of their columns where the file tells them."""
    if kind == "coco_captions":
        return _coco_captions(file), None
    if kind == "json":
        return map(_dumps, values_of(file, layout.records)), None
    lines = _text_lines(file, "" if kind == "csv" else "\n")
    if kind == "jsonl":
        return (_unicode(line) for line in lines if line.strip()), None
    fields = _csv_rows(lines) if kind == "csv" else (line.rstrip("\r\n").split("\t") for line in lines)
    rows = ([_unquoted(field) for field in row] if kind == "tsv" else row for row in fields if row not in ([], [""]))
    header = list(layout.header) if layout.header else next(rows, [])
    if len(set(header)) < len(header):
        raise DataError(f"{name}: two columns of one name ({', '.join(header)}); give names in download.source.columns")
    return (_dumps(dict(zip(header, row, strict=True)) if len(row) == len(header) else row) for row in rows), header


def _text_lines(file: io.BufferedIOBase, newline: str) -> Iterator[str]:
    with closing(io.TextIOWrapper(cast(IO[bytes], file), "utf-8-sig", "surrogateescape", newline)) as lines:
        yield from lines


def _csv_rows(lines: Iterator[str]) -> Iterator[list[str]]:
    """The rows; one field with the reason for each that is none.

    A quote that nobody closed makes one row of all lines up to the next quote, or to the end of the list. So a row of
    several lines has to be right to the letter, and few of them: else its first line alone is no row, and the reading
    goes on with the second.
    """
    csv.field_size_limit(LONGEST_FIELD)
    again, taken = deque[str](), list[str]()

    def next_line() -> str | None:
        line = again.popleft() if again else next(lines, None)
        if line is not None:
            taken.append(line)
        if taken and (line is None or len(taken) > LINES_OF_A_ROW):
            raise csv.Error("a quote is not closed")
        return line

    reader = csv.reader(iter(next_line, None))
    while True:
        taken.clear()
        try:
            row = next(reader)
            if len(taken) > 1:
                list(csv.reader(taken, strict=True))
            yield row
        except StopIteration:
            return
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield [str(error)]


def _unquoted(field: str) -> str:
    """A field of a tsv file. The format knows no quotes, but some programs write them, as in csv."""
    if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', ""):
        return field[1:-1].replace('""', '"')
    return field


def _coco_captions(file: io.BufferedIOBase) -> Iterator[str]:
    """A row for each picture of COCO's ``captions_*.json``, with all of its ``captions``."""
    captions: defaultdict[int, list[str]] = defaultdict(list)
    try:
        for annotation in values_of(file, "annotations"):
            captions[annotation["image_id"]].append(annotation["caption"])
        file.seek(0)
        for image in values_of(file, "images"):
            yield _dumps({**image, "captions": captions[image["id"]]})
    except (KeyError, TypeError) as error:
        raise ValueError(f"an image or annotation is not like COCO's: {error!r}") from None


def _names(texts: Sequence[str]) -> list[str] | None:
    """Columns that some of the first rows have, None where there is no row."""
    names = [name for text in texts for name in _row(text) or ()]
    return list(dict.fromkeys(names)) if texts else None


def _check(name: str, required: Sequence[str], found: Sequence[str] | None) -> None:
    missing = [column for column in required if found is not None and column not in found]
    if missing:
        raise DataError(
            f"{name}: no column {', '.join(missing)}; there are {', '.join(found or ['none'])} (set the names of "
            "columns in download.source; where the file has no line of names, all of them in its columns)"
        )


def _dumps(value: Any) -> str:
    return _unicode(json.dumps(value, ensure_ascii=False))


def _unicode(text: str) -> str:
    """The text, or, where bytes of it were no UTF-8, a JSON string that shows them: no row."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text.encode(errors="surrogatepass").decode(errors="replace"))
    return text

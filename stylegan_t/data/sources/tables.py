"""What the parquet file beside a foreign tar tells of its samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylegan_t.data.download.reasons import SUCCESS
from stylegan_t.data.raw import SCHEMA
from stylegan_t.errors import DataError

STATUS = "status"


class Table:
    """The rows of one such file by key; those that were asked for are gone.

    Args:
        path: Where the file lies on this machine; None = there is no such file, and no row.
        name: What errors call it.
        key_column: Holds the samples' keys.

    Raises:
        DataError: It is damaged, or has no such column.
    """

    def __init__(self, path: Path | None, name: str, key_column: str) -> None:
        try:
            self._table = pq.read_table(path) if path else pa.table({key_column: pa.array([], pa.string())})
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{name}: not a readable parquet file ({' '.join(str(error).split())})") from None
        names = self._table.schema.names
        if key_column not in names:
            raise DataError(
                f"{name}: no column {key_column} with the samples' keys; there are {', '.join(names)} "
                "(download.source.key_column)"
            )
        self._key_column, self._is_ours = key_column, names == SCHEMA.names
        keys = self._table[key_column].to_pylist()
        self._numbers = {str(key): number for number, key in reversed([*enumerate(keys)])}

    def pop(self, key: str) -> dict[str, Any]:
        """What is told of a sample, once; nothing where nothing is."""
        name = key.rpartition("/")[2]
        number = self._numbers.pop(key, None) if key in self._numbers else self._numbers.pop(name, None)
        return {} if number is None else self._row(number)[2]

    def left(self) -> Iterator[tuple[str, str, list[str], dict[str, Any]]]:
        """Key, status, captions (of a table of ours) and what is told of each that was not asked for."""
        for key, number in sorted(self._numbers.items(), key=lambda item: item[1]):
            yield key, *self._row(number)

    def _row(self, number: int) -> tuple[str, list[str], dict[str, Any]]:
        row = self._table.slice(number, 1).to_pylist()[0]
        del row[self._key_column]
        status, captions = str(row.pop(STATUS, None) or SUCCESS), []
        if self._is_ours:
            row |= json.loads(row.pop("metadata") or "{}")
            text = row.pop("caption")
            captions = text.split("\n") if text else []
        return status, captions, {name: value for name, value in row.items() if value is not None}

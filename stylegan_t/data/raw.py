"""One raw shard: the tar with its index, a table of all candidates, counts by reason; by img2dataset's file names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylegan_t.data.download.reasons import NOT_DOWNLOADED, SUCCESS, was_downloaded
from stylegan_t.data.shards import CAPTION, Sample, Skipped, one_line, shard_name, write_shard
from stylegan_t.files import atomic, write_json

ROWS_AT_ONCE = 1024
SCHEMA = pa.schema({
    "key": pa.string(), "status": pa.string(), "caption": pa.string(), "url": pa.string(),
    "width": pa.int32(), "height": pa.int32(), "metadata": pa.string(),
})  # fmt: skip
"""A candidate: ``status`` is ``success`` or the reason why it is no sample; ``caption`` has a line per caption; what
else is known of it is JSON in ``metadata``; null where nothing is known."""

KNOWN: dict[str, Callable[[Any], bool]] = {
    "url": lambda value: isinstance(value, str),
    "width": lambda value: isinstance(value, int) and 0 < value < 2**31,
    "height": lambda value: isinstance(value, int) and 0 < value < 2**31,
}
"""What has a column of its own, where it is what the column holds."""
Pair = Sample | Skipped


def write_raw_shard(folder: Path, number: int, pairs: Iterable[Pair]) -> tuple[dict[str, Any], Counter[str]]:
    """Write shard ``number``, one pair in memory at a time; each of its files is whole or absent.

    Returns:
        The manifest's entry for it, and how many candidates ended in which state.
    """
    path = folder / shard_name(number)
    states: Counter[str] = Counter()
    with _table(path.with_suffix(".parquet")) as rows:
        entry = write_shard(path, _samples(pairs, rows, states))
    write_json(path.with_name(f"{path.stem}_stats.json"), stats(states))
    return entry, states


def stats(states: Counter[str]) -> dict[str, Any]:
    """Counts of one shard or of many, by img2dataset's names; ``status_dict`` adds up to ``count``."""
    failed = states - Counter({SUCCESS: states[SUCCESS]})
    return {
        "count": states.total(),
        "successes": states[SUCCESS],
        "failed_to_download": sum(n for r, n in failed.items() if r in NOT_DOWNLOADED or r.startswith("http_")),
        "failed_to_resize": sum(n for reason, n in failed.items() if was_downloaded(reason)),
        "status_dict": dict(sorted(states.items())),
    }


def _samples(pairs: Iterable[Pair], rows: _Rows, states: Counter[str]) -> Iterator[Sample]:
    for pair in pairs:
        states[pair.reason if isinstance(pair, Skipped) else SUCCESS] += 1
        rows.add(pair)
        if isinstance(pair, Sample):
            yield pair


class _Rows:
    """Collects rows and writes them by the thousand."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._rows = writer, []

    def add(self, pair: Pair) -> None:
        metadata = dict(pair.metadata)
        known = {name: metadata.pop(name) for name, fits in KNOWN.items() if fits(metadata.get(name))}
        if isinstance(pair, Sample):
            status, caption = SUCCESS, pair.fields[CAPTION].decode()
        else:
            status, caption = pair.reason, "\n".join(map(one_line, pair.captions)) or None
        rest = json.dumps(metadata, sort_keys=True, ensure_ascii=False) if metadata else None
        self._rows.append({"key": pair.key, "status": status, "caption": caption, **known, "metadata": rest})
        if len(self._rows) == ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows.clear()


@contextmanager
def _table(path: Path) -> Iterator[_Rows]:
    with atomic(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        rows = _Rows(writer)
        yield rows
        rows.flush()

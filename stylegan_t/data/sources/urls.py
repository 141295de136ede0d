"""Lists of addresses of pictures, with captions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stylegan_t.data.download.fetch import Limits
from stylegan_t.data.download.ledger import forget
from stylegan_t.data.download.pictures import Storage
from stylegan_t.data.download.rows import Row, fetch_rows
from stylegan_t.data.shards import Sample, Skipped, keep_both
from stylegan_t.data.sources import pieces
from stylegan_t.data.sources.base import DistinctKeys, Done, Source, captions_in, hash_key, nothing, plain
from stylegan_t.data.sources.lists import Layout, read_tables
from stylegan_t.data.sources.remote import File, find, on_this_machine

UNFIT = re.compile(r"[^A-Za-z0-9_-]")
DECISIVE = ("max_redirects", "max_bytes", "allowed_networks", "opt_outs", "opt_out_agents")
"""Limits that decide what the data is. A download goes on under others, e.g. with more connections or more patience."""
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Columns(NamedTuple):
    """Names of the columns of a list.

    Attributes:
        url: Addresses.
        captions: Captions, one or a list of them each.
        key: Keys of the samples; None = keys are hashes of the addresses.
        sha256: Hashes of the pictures' files, in hex; None = not known.
    """

    url: str
    captions: tuple[str, ...]
    key: str | None = None
    sha256: str | None = None

    @property
    def all(self) -> list[str]:
        return [self.url, *self.captions, *(name for name in (self.key, self.sha256) if name)]


class Urls(Source):
    """A list is cut into parts once; a part is downloaded whole, killed as often as it may be.

    Rows without an address or a caption, and rows that cannot be read, are skipped and counted, as are those whose
    picture cannot be had.

    Args:
        paths: Lists by path, address, brace pattern or glob, read as one in this order.
        layout: How to read them.
        columns: Their columns; all others are kept.
        limits: How to fetch; decides which pictures come, and so belongs to what the data is.
        storage: How to keep.
        rows_per_part: Rows of one part.
        root: Where relative paths start.
    """

    def __init__(
        self,
        paths: Sequence[str],
        layout: Layout,
        columns: Columns,
        limits: Limits,
        storage: Storage,
        rows_per_part: int,
        root: Path,
    ) -> None:
        self.paths, self.layout, self.columns = tuple(paths), layout, columns
        self.limits, self.storage, self.rows_per_part, self.root = limits, storage, rows_per_part, root

    def fingerprint(self) -> str:
        limits = {name: getattr(self.limits, name) for name in DECISIVE}
        limits = {name: sorted(value) if isinstance(value, list) else value for name, value in limits.items()}
        settings = [repr(self.layout), self.columns, limits, repr(self.storage)]
        identities = [file.content() for file in find(self.paths, self.root)]
        return hashlib.sha256(json.dumps([settings, identities]).encode()).hexdigest()

    def plan(self, work: Path) -> int:
        lists = [(str(file), partial(self._tables, file, work)) for file in find(self.paths, self.root)]
        return pieces.cut(lists, work / "rows", self.rows_per_part)

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        distinct = DistinctKeys(partial(UNFIT.sub, "_"))
        read = [self._read(row, distinct) for row in pieces.read_piece(work / "rows", part)]
        unusable = [row for row in read if isinstance(row, Skipped)]
        yield from unusable
        done(len(unusable))
        rows = [row for row in read if isinstance(row, Row)]
        yield from fetch_rows(rows, self._ledger(part, work), self.limits, self.storage, done)

    def forget(self, part: int, work: Path) -> None:
        forget(self._ledger(part, work))

    def facts(self, work: Path) -> dict[str, Any]:
        rows = work / "rows"
        return {
            "kind": "urls",
            "lists": list(self.paths),
            "num_rows": pieces.num_rows(rows),
            "rows": pieces.content(rows),
        }

    def num_candidates(self, work: Path) -> int:
        return pieces.num_rows(work / "rows")

    def _tables(self, file: File, work: Path) -> Iterator[Any]:
        with on_this_machine(file, work / "copies") as path:
            yield from read_tables(path, str(file), self.layout, self.columns.all)

    def _read(self, row: dict[str, Any] | None, distinct: DistinctKeys) -> Row | Skipped:
        if row is None:
            return Skipped(distinct("row", {})[0], "malformed_row", {})
        columns = self.columns
        url, wanted, sha256 = (_text(row, name) for name in (columns.url, columns.key, columns.sha256))
        metadata = plain({name: value for name, value in row.items() if name not in columns.all})
        key, metadata = distinct(wanted or hash_key(url or json.dumps(metadata, sort_keys=True)), metadata)
        unusable = keep_both(metadata, {"url": url} if url else {})
        try:
            captions = captions_in(row, columns.captions)
        except ValueError:
            told = plain({name: row[name] for name in columns.captions if name in row})
            return Skipped(key, "malformed_row", keep_both(unusable, told))
        if not url:
            return Skipped(key, "missing_url", unusable, captions)
        if not captions:
            return Skipped(key, "missing_caption", unusable)
        if sha256 and not SHA256.fullmatch(sha256):
            return Skipped(key, "malformed_row", keep_both(unusable, {"sha256": sha256}), captions)
        return Row(key, url, captions, sha256 or None, metadata)

    def _ledger(self, part: int, work: Path) -> Path:
        return work / "ledgers" / f"{part:05d}.ledger"


def _text(row: dict[str, Any], column: str | None) -> str:
    """A value as text without white space around it; empty where there is none."""
    value = row.get(column) if column else None
    return "" if value is None else plain(str(value)).strip()

"""Shards that are there already: our own, or tars in the layout of img2dataset, NeMo Curator or webdataset."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from stylegan_t.data.download.reasons import SUCCESS
from stylegan_t.data.index import Index, as_index, index_table
from stylegan_t.data.manifest import MADE_BY, MANIFEST
from stylegan_t.data.shards import CAPTION, METADATA, Sample, Shard, Skipped, pack
from stylegan_t.data.sources.base import (
    IMAGE_EXTENSIONS,
    DistinctKeys,
    Done,
    Source,
    captions_in,
    nothing,
    plain,
)  # fmt: skip
from stylegan_t.data.sources.lists import DAMAGE
from stylegan_t.data.sources.packed import is_packed, open_unpacked, unpacked_name
from stylegan_t.data.sources.remote import PIPE, File, failures_named, find, on_this_machine
from stylegan_t.data.sources.tables import Table
from stylegan_t.data.tars import Scan, scan
from stylegan_t.errors import DataError
from stylegan_t.files import write_json

PLAN = "shards.json"
LOOKS_AT_ONCE = 32
MOST_BYTES = 2**28
"""A longer member is no picture; it is passed over, unread."""
log = logging.getLogger(__name__)


class _Shard(NamedTuple):
    """A tar, the number of its samples where a manifest tells that, and whether a stage of ours wrote it."""

    address: str
    path: str
    num_samples: int | None
    is_ours: bool

    @property
    def file(self) -> File:
        return File(self.address, self.path)


class Webdataset(Source):
    """A part is one tar. Samples keep their keys, the bytes of their pictures and what is told of them.

    What a parquet file of the same name beside a tar (``00000.parquet``) tells of a key is kept with its sample, and
    its other rows are candidates that are no samples. Other files of a sample (``.cls``, ``.npy``, …) are left out.
    What cannot be read behind a tar's damage is lost, counted, and no reason to lose the rest.

    Args:
        shards: Tars by path, address, brace pattern, glob or command (``pipe:…``); or folders, which mean the tars of
            their manifest or, where there is none, all in them.
        caption_columns: Where captions are: ``txt`` is the text beside the picture (in our own shards one caption a
            line), other names are those of values in its ``.json`` or in the parquet file.
        key_column: The column of the parquet file that holds the samples' keys.
        metadata_columns: The values of json and parquet file to keep; None = all.
        root: Where relative paths start.
    """

    def __init__(
        self,
        shards: Sequence[str],
        caption_columns: Sequence[str],
        key_column: str,
        metadata_columns: Sequence[str] | None,
        root: Path,
    ) -> None:
        self.root, self.patterns, self.key_column = root, tuple(shards), key_column
        self.caption_columns = tuple(caption_columns)
        self.metadata_columns = None if metadata_columns is None else tuple(metadata_columns)

    def fingerprint(self) -> str:
        settings = [self.caption_columns, self.key_column, self.metadata_columns]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for identity in _identities(list(self._find())):
            digest.update(identity.encode())
        return digest.hexdigest()

    def plan(self, work: Path) -> int:
        if not (work / PLAN).is_file():
            write_json(work / PLAN, list(self._find()))
        return len(self._planned(work))

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        shard, copies = self._planned(work)[part], work / f"copies-{part:05d}"
        beside, distinct = shard.file.sibling(".parquet"), DistinctKeys()
        with ExitStack() as stack:
            told = stack.enter_context(on_this_machine(beside, copies)) if beside else None
            table = Table(told, str(beside), self.key_column)
            path = stack.enter_context(on_this_machine(shard.file, copies))
            path = stack.enter_context(_unpacked(path, copies))
            found = scan(path)
            samples = Shard(path, _of_fair_length(found))
            for sample in samples:
                yield self._pair(sample, table.pop(sample.key), shard.is_ours, distinct)
                done(1)
            damage = None if shard.num_samples == 0 else next(iter(found.problems), None)
            if damage:
                log.warning("%s: %s; what follows is lost", shard.file, damage)
            yield from self._lost(table, damage, distinct, Path(shard.path).stem)

    def _lost(self, table: Table, damage: str | None, distinct: DistinctKeys, name: str) -> Iterator[Skipped]:
        """The candidates that are in the table only, and those that damage took: one for all if nobody counted them."""
        reason, counted = "damaged_shard" if damage else "missing_image", False
        for wanted, status, captions, row in table.left():
            counted |= status == SUCCESS
            if not captions:
                with suppress(ValueError):  # it is no sample anyway
                    captions.extend(captions_in(row, self.caption_columns))
            key, metadata = distinct(wanted, plain(self._kept(row)))
            yield Skipped(key, reason if status == SUCCESS else status, metadata, captions)
        if damage and not counted:
            key, metadata = distinct(name, {"damage": damage})
            yield Skipped(key, reason, metadata)

    def facts(self, work: Path) -> dict[str, Any]:
        return {"kind": "webdataset", "shards": list(self.patterns), "num_shards": len(self._planned(work))}

    def num_candidates(self, work: Path) -> int | None:
        counts = [shard.num_samples for shard in self._planned(work)]
        return None if None in counts else sum(count for count in counts if count)

    def _find(self) -> Iterator[_Shard]:
        ours: dict[str, frozenset[str]] = {}
        for file in find(self.patterns, self.root):
            if file.address.startswith(PIPE):
                yield _Shard(file.address, file.path, None, is_ours=False)
            elif ".tar" in Path(file.path).name:
                if (folder := str(file.folder)) not in ours:
                    ours[folder] = _ours(file.folder)
                yield _Shard(file.address, file.path, None, Path(file.path).name in ours[folder])
            else:
                yield from _in_folder(file)

    def _planned(self, work: Path) -> list[_Shard]:
        return [_Shard(*shard) for shard in json.loads((work / PLAN).read_text())]

    def _pair(self, sample: Sample, told: dict[str, Any], is_ours: bool, distinct: DistinctKeys) -> Sample | Skipped:
        fields, row = sample.fields, told
        try:
            text = fields.get(CAPTION, b"").decode("utf-8-sig")
            values = json.loads(fields.get(METADATA, b"{}"))
            if not isinstance(values, dict):
                raise ValueError("no JSON object")
            row = told | {name: value for name, value in values.items() if value is not None}
            lines = text.split("\n") if is_ours else [text]
            captions = captions_in(row | {CAPTION: lines}, self.caption_columns)
        except (ValueError, RecursionError):
            key, metadata = distinct(sample.key, plain(self._kept(row)))
            return Skipped(key, "malformed_row", metadata)
        key, metadata = distinct(sample.key, plain(self._kept(row)))
        ext = next((ext for ext in fields if ext in IMAGE_EXTENSIONS), None)
        if ext is None:
            return Skipped(key, "missing_image", metadata, captions)
        if not captions:
            return Skipped(key, "missing_caption", metadata)
        return pack(key, ext, fields[ext], captions, metadata)

    def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
        names = row.keys() - set(self.caption_columns)
        if self.metadata_columns is not None:
            names &= set(self.metadata_columns)
        return {name: value for name, value in row.items() if name in names}


def _identities(shards: Sequence[_Shard]) -> Iterator[str]:
    """What changes with a shard or its table, of each in turn; thousands lie where every question takes its time."""
    together = all(shard.file.bears_threads for shard in shards)
    with ThreadPoolExecutor(LOOKS_AT_ONCE if together else 1) as pool:
        yield from pool.map(_identity, shards)


def _identity(shard: _Shard) -> str:
    table = shard.file.sibling(".parquet")
    return f"{shard.file.identity()} {shard.is_ours}\n{table.identity() if table else None}\n"


def _in_folder(folder: File) -> Iterator[_Shard]:
    """The tars of a folder's manifest or, where there is none, all in it, by name."""
    root, manifest = folder.path.rstrip("/"), _read_manifest(folder)
    if manifest:
        try:
            told = json.loads(manifest)
            entries = [(entry["file"], entry["num_samples"]) for entry in told["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}/{MANIFEST}: no manifest of shards ({error!r})") from None
        is_ours = told.get("kind") in MADE_BY
        yield from (_Shard(folder.address, f"{root}/{name}", number, is_ours) for name, number in entries)
        return
    with failures_named(str(folder)):
        paths = sorted(str(path) for path in folder.fs.glob(f"{root}/*.tar"))
    if not paths:
        raise DataError(f"{folder}: no tar, and no folder with tars or with a {MANIFEST} (download.source.shards)")
    yield from (_Shard(folder.address, path, None, is_ours=False) for path in paths)


def _ours(folder: File) -> frozenset[str]:
    """Names of the tars in a folder that a stage of ours wrote, by its manifest; other programs may leave one, too."""
    try:
        manifest = json.loads(_read_manifest(folder) or "{}")
        return frozenset(entry["file"] for entry in manifest["shards"] if manifest["kind"] in MADE_BY)
    except (ValueError, KeyError, TypeError):
        return frozenset()


def _read_manifest(folder: File) -> str | bytes | None:
    path = f"{folder.path.rstrip('/')}/{MANIFEST}"
    with failures_named(str(folder)):
        return folder.fs.cat_file(path) if folder.fs.exists(path) else None


@contextmanager
def _unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """The tar, or a copy of it that is not packed: as much as there is, where the file is cut off."""
    if not is_packed(path):
        yield path
        return
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"unpacked-{unpacked_name(path).name}"
    try:
        with open_unpacked(path) as packed, copy.open("wb") as out:
            try:
                shutil.copyfileobj(packed, out)
            except DAMAGE as error:
                log.warning("%s: damaged (%s)", path, error)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _of_fair_length(found: Scan) -> Index:
    members = [member for member in found.members if member.size <= MOST_BYTES]
    return as_index(index_table(members, found.tar_bytes))

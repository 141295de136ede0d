"""Data sets of the Hugging Face Hub, or in its layouts on this machine, through ``datasets``; an optional extra."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import BadZipFile

import fsspec
import pyarrow as pa

from stylegan_t.data.shards import Sample, Skipped, keep_both, pack
from stylegan_t.data.sources.base import (
    DistinctKeys,
    Done,
    Source,
    captions_in,
    extension,
    hash_key,
    nothing,
    plain,
)  # fmt: skip
from stylegan_t.data.sources.remote import failures_named
from stylegan_t.errors import DataError, SettingsError

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset
    from datasets.data_files import DataFilesDict

EXTRA = "pip install 'stylegan-t[huggingface]'"


class HuggingFace(Source):
    """Streamed: a part is a file of the data set, of which a few hundred rows are in memory at a time.

    Args:
        name: On the Hub (``owner/name``), or a folder of this machine.
        config: Of a data set that has several; None = its only one, or its default.
        split: ``train``, …
        revision: Branch, tag or commit on the Hub; None = the newest.
        image_column: Holds pictures (the feature ``Image``, or bytes).
        caption_columns: Hold captions, one or a list of them each.
        key_column: Holds the samples' keys; None = keys are hashes of the pictures.

    Raises:
        SettingsError: ``datasets`` is not installed.
        DataError: There is no such data set, configuration, split or column.
    """

    def __init__(
        self,
        name: str,
        config: str | None,
        split: str,
        revision: str | None,
        image_column: str,
        caption_columns: Sequence[str],
        key_column: str | None,
        root: Path,
    ) -> None:
        self.name, self.config, self.split, self.revision = name, config, split, revision
        self.image_column, self.caption_columns, self.key_column = image_column, tuple(caption_columns), key_column
        self.root = root

    def fingerprint(self) -> str:
        settings = [self.name, self.config, self.split, self.image_column, self.caption_columns, self.key_column]
        return hashlib.sha256(json.dumps([settings, self._files]).encode()).hexdigest()

    def plan(self, work: Path) -> int:
        found, features = self._rows.column_names, self._rows.features
        wanted = [self.image_column, *self.caption_columns, *([self.key_column] if self.key_column else [])]
        missing = [column for column in wanted if found is not None and column not in found]
        if missing:
            raise DataError(f"{self.name}: no column {', '.join(missing)}; there are {', '.join(found or ())}")
        if features and not _holds_pictures(features[self.image_column]):
            raise DataError(
                f"{self.name}: column {self.image_column} holds {features[self.image_column]}, no pictures; "
                "a list of addresses is a source of kind urls"
            )
        return self._rows.num_shards

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        distinct = DistinctKeys()
        for row in self._stream(part):
            yield self._pair(row, distinct)
            done(1)

    def facts(self, work: Path) -> dict[str, Any]:
        commits = sorted({origin[1] for _, origins in self._files for origin in origins if len(origin) == 2})
        names = {"dataset": self.name, "config": self.config, "split": self.split}
        return {"kind": "huggingface", **names, "commits": commits}

    def num_candidates(self, work: Path) -> int | None:
        splits = self._rows.info.splits
        return splits[self.split].num_examples or None if splits and self.split in splits else None

    @cached_property
    def _builder(self) -> DatasetBuilder:
        """The data set as it was when it was first asked for; workers get this one, and ask nobody."""
        try:
            import datasets
        except ImportError:
            raise SettingsError(f"download.source.kind = huggingface needs a package more: {EXTRA}") from None
        datasets.disable_progress_bars()
        local = self.root / Path(self.name).expanduser()
        with self._failures_named():
            return datasets.load_dataset_builder(
                str(local) if local.is_dir() else self.name, self.config, revision=self.revision
            )

    @property
    def _rows(self) -> IterableDataset:
        from datasets import Image

        with self._failures_named():
            rows = cast("IterableDataset", self._builder.as_streaming_dataset(split=self.split))
        if rows.features and isinstance(rows.features.get(self.image_column), Image):
            return rows.cast_column(self.image_column, Image(decode=False))
        return rows

    @property
    def _files(self) -> list[tuple[list[str], list[tuple[str, ...]]]]:
        """Names of the files, and what tells that they changed: date, or repository and commit."""
        splits = cast("DataFilesDict", self._builder.config.data_files or {})
        return [([str(name) for name in files], list(files.origin_metadata)) for files in splits.values()]

    def _stream(self, part: int) -> Iterator[dict[str, Any]]:
        rows = self._rows
        with self._failures_named():
            yield from (dict(row) for row in rows.shard(rows.num_shards, part))

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Errors of the library as ours."""
        with failures_named(self.name):
            try:
                yield
            except (ValueError, pa.ArrowException, FileNotFoundError) as error:
                raise DataError(f"{self.name}: {' '.join(str(error).split())}") from None

    def _pair(self, row: dict[str, Any], distinct: DistinctKeys) -> Sample | Skipped:
        name, image = _read(row.pop(self.image_column), self._builder.base_path or "")
        metadata = plain({name: value for name, value in row.items() if name not in self.caption_columns})
        told = row.get(self.key_column) if self.key_column else None
        key = "" if told is None else str(told)
        said = plain({name: row[name] for name in self.caption_columns if name in row})
        key, metadata = distinct(key or hash_key(image or json.dumps([said, metadata], sort_keys=True)), metadata)
        try:
            captions = captions_in(row, self.caption_columns)
        except ValueError:
            return Skipped(key, "malformed_row", keep_both(metadata, said))
        if not image:
            return Skipped(key, "missing_image", metadata, captions)
        if not captions:
            return Skipped(key, "missing_caption", metadata)
        return pack(key, extension(name, image), image, captions, metadata)


def _holds_pictures(feature: Any) -> bool:
    from datasets import Image, Value

    if isinstance(feature, dict):  # what the feature Image is without its name
        return "bytes" in feature
    return isinstance(feature, Image) or (isinstance(feature, Value) and "binary" in feature.dtype)


def _read(value: Any, home: str) -> tuple[str, bytes | None]:
    """Name and bytes of a picture: those of a row, or those of the file that it names; see ``own_file``."""
    if isinstance(value, bytes):
        return "", value
    if not isinstance(value, dict):
        return "", None
    name, image = str(value.get("path") or ""), value.get("bytes")
    if image is None and (place := own_file(home, name)):
        with (
            suppress(DataError, BadZipFile),
            failures_named(name),
            fsspec.open(place, "rb") as file,
        ):  # it may not be there
            image = file.read()  # type: ignore[union-attr]
    return name, image


def own_file(home: str, path: str) -> str | None:
    """Where a path in a row leads, if that is to a file of the data set itself.

    Rows are written by strangers, who may name any file of this machine, and any address that it can reach. What their
    paths lead to becomes a sample, so nothing is read but what came with the rows.

    Args:
        home: The data set's folder, or its address on the Hub with the commit.
        path: Absolute (so ``datasets`` names the files of a folder) or from there; or of a member of a zip there.
    """
    archive, chained, place = path.rpartition("::")
    if not home or "\0" in path or (chained and ("::" in archive or not archive.startswith("zip://"))):
        return None
    if home.startswith("hf://"):
        inner = place.removeprefix(f"{home}/")
        place = f"{home}/{inner}"
        is_own = "://" not in inner and not {"", "..", "."} & set(inner.split("/"))
    else:
        folder = Path(os.path.realpath(home))
        if folder.parent.name == "snapshots":  # the Hub's cache, where files are links to blobs/ beside it
            folder = folder.parents[1]
        place = os.path.realpath(os.path.join(home, place))
        is_own = "::" not in place and Path(place).is_relative_to(folder) and os.path.isfile(place)
    if not is_own:
        return None
    return f"{archive}::{place}" if chained else place

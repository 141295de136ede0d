"""Data sets of the Hugging Face Hub, or in its layouts on this machine, through ``datasets``; an optional extra."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fsspec
import pyarrow as pa

from stylegan_t.data.shards import Sample, Skipped, pack
from stylegan_t.data.sources.base import (
    CAPTIONS,
    DistinctKeys,
    Done,
    Source,
    captions_in,
    clean_key,
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
        (name, image), captions = _read(row.pop(self.image_column)), captions_in(row, self.caption_columns)
        metadata = plain({name: value for name, value in row.items() if name not in self.caption_columns})
        told = row.get(self.key_column) if self.key_column else None
        key = "" if told is None else clean_key(str(told))
        key = key or hash_key(image or json.dumps([captions, metadata], sort_keys=True))
        if not image:
            return Skipped(distinct(key), "missing_image", metadata | {CAPTIONS: captions})
        if not captions:
            return Skipped(distinct(key), "missing_caption", metadata)
        return pack(distinct(key), extension(name, image), image, plain(captions), metadata)


def _holds_pictures(feature: Any) -> bool:
    from datasets import Image, Value

    if isinstance(feature, dict):  # what the feature Image is without its name
        return "bytes" in feature
    return isinstance(feature, Image) or (isinstance(feature, Value) and "binary" in feature.dtype)


def _read(value: Any) -> tuple[str, bytes | None]:
    """Name and bytes of a picture: those of a row, or those of the file that it names."""
    if isinstance(value, bytes):
        return "", value
    if not isinstance(value, dict):
        return "", None
    name, image = value.get("path") or "", value.get("bytes")
    if name and image is None:
        with failures_named(name), fsspec.open(name, "rb") as file:
            image = file.read()  # type: ignore[union-attr]
    return name, image

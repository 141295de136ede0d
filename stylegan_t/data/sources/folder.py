"""Pictures in a folder of this machine, with their captions beside them."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from stylegan_t.data.shards import Sample, Skipped, pack
from stylegan_t.data.sources import pieces
from stylegan_t.data.sources.base import (
    IMAGE_EXTENSIONS,
    UNREAD_EXTENSIONS,
    DistinctKeys,
    Done,
    Source,
    captions_in,
    extension,
    is_unicode,
    nothing,
    plain,
)  # fmt: skip
from stylegan_t.data.sources.lists import tables_of
from stylegan_t.errors import DataError

METADATA_FILE = "metadata.jsonl"
CURE = "see data/README.md for the layout of a folder"

Row = dict[str, Any]


class Folder(Source):
    """Pictures with a line of ``metadata.jsonl`` each, or with a ``.txt`` or ``.json`` of the same name beside each.

    A ``metadata.jsonl`` may lie in sub-folders as well, and names files from where it lies, as Hugging Face has it. A
    picture without a caption and a caption without a picture are skipped and counted. Pictures are taken as they are;
    whether they decode is the filter's question.

    Args:
        folder: Sub-folders are read as well, hidden files are not.
        caption_columns: Names of the values of a JSON row that hold captions, one or a list of them each.
        rows_per_part: Candidates of one part.

    Raises:
        DataError: There is no such folder, or its metadata cannot be read.
    """

    def __init__(self, folder: Path, caption_columns: Sequence[str], rows_per_part: int) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (download.source.path); {CURE}")
        self.folder, self.caption_columns, self.rows_per_part = folder, tuple(caption_columns), rows_per_part

    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.caption_columns).encode())
        for name in _walk(self.folder):
            stat = (self.folder / name).stat()
            digest.update(f"{name}\n{stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def plan(self, work: Path) -> int:
        texts = lambda: (json.dumps(row, sort_keys=True) for row in self.rows())
        return pieces.cut([("folder", lambda: tables_of(texts()))], work, self.rows_per_part)

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        distinct = DistinctKeys()
        for row in pieces.read_piece(work, part):
            assert row is not None  # ``plan`` wrote it
            yield self._pair(row, distinct)
            done(1)

    def _pair(self, row: Row, distinct: DistinctKeys) -> Sample | Skipped:
        name = row["name"]
        key, metadata = distinct(os.path.splitext(name)[0], plain(row["metadata"]))
        if row["reason"]:
            return Skipped(key, row["reason"], metadata, row["captions"])
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.folder / name}: cannot be read ({error.strerror})") from None
        return pack(key, extension(name, data), data, row["captions"], metadata)

    def facts(self, work: Path) -> dict[str, Any]:
        return {"kind": "folder", "num_rows": pieces.num_rows(work), "rows": pieces.content(work)}

    def num_candidates(self, work: Path) -> int:
        return pieces.num_rows(work)

    def rows(self) -> Iterator[Row]:
        """Every candidate: its name below the folder, captions, metadata, and why it is none, where it is none."""
        lists = [name for name in _walk(self.folder) if os.path.basename(name) == METADATA_FILE]
        yield from self._listed(lists) if lists else self._beside()

    def _listed(self, lists: Sequence[str]) -> Iterator[Row]:
        """The rows of the metadata files, and after them the pictures that none of them names."""
        named = _Names()
        for path in map(self.folder.joinpath, lists):
            below = os.path.relpath(path.parent, self.folder)
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        values = self._values(path, number, line)
                        name = os.path.normpath(os.path.join(below, values["file_name"]))
                        named.add(name)
                        yield self._row(name, captions_in(values, self.caption_columns), values | {"file_name": name})
        extensions = IMAGE_EXTENSIONS | UNREAD_EXTENSIONS
        unnamed = (name for name in _walk(self.folder) if _extension(name) in extensions and name not in named)
        yield from (self._row(name, [], {"file_name": name}) for name in unnamed)

    def _values(self, path: Path, number: int, line: bytes) -> Row:
        def wrong(what: str) -> NoReturn:
            raise DataError(f'{path}, line {number}: {what}; expected e.g. {{"file_name": "a.png", "text": "a cat"}}')

        try:
            values = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            wrong(f"not UTF-8 text (byte {error.start})")
        except ValueError as error:
            wrong(f"not JSON ({error})")
        if not isinstance(values, dict) or not isinstance(values.get("file_name"), str):
            wrong("no file_name")
        self._check_captions(values, wrong)
        if os.path.isabs(values["file_name"]) or os.path.normpath(values["file_name"]).startswith(".."):
            wrong(f"file_name {values['file_name']!r} lies outside the folder")
        return values

    def _beside(self) -> Iterator[Row]:
        """The pictures with the ``.txt`` and ``.json`` beside them, and those of the latter that have no picture."""
        for files in _by_stem(self.folder):
            images = [name for name in files if _extension(name) in IMAGE_EXTENSIONS]
            texts = [name for name in files if name.endswith((".txt", ".json"))]
            if not images:
                half = [name for name in files if name in texts or _extension(name) in UNREAD_EXTENSIONS]
                yield from (self._row(name, [], {"file_name": name}, "missing_image") for name in half[:1])
                continue
            captions, values = [], {}
            for name in texts:
                if name.endswith(".json"):
                    values = self._json(self.folder / name)
                else:
                    captions = [_read_text(self.folder / name)]
            for name in images:
                yield self._row(
                    name, captions or captions_in(values, self.caption_columns), values | {"file_name": name}
                )

    def _json(self, path: Path) -> Row:
        def wrong(what: str) -> NoReturn:
            raise DataError(f'{path}: {what}; expected e.g. {{"text": "a cat"}}')

        try:
            values = json.loads(_read_text(path))
        except ValueError as error:
            wrong(f"not JSON ({error})")
        if not isinstance(values, dict):
            wrong("no JSON object")
        self._check_captions(values, wrong)
        return values

    def _check_captions(self, values: Row, wrong: Callable[[str], NoReturn]) -> None:
        try:
            captions_in(values, self.caption_columns)
        except ValueError as error:
            wrong(str(error))
        if not is_unicode(json.dumps(values, ensure_ascii=False)):
            wrong("half of a surrogate pair, which no UTF-8 text can hold")

    def _row(self, name: str, captions: list[str], values: Row, reason: str | None = None) -> Row:
        captions = [caption for caption in captions if caption.strip()]
        image = self.folder / name
        if not reason:
            reason = None if image.is_file() else "missing_image"
        if not reason and not captions:
            reason = "missing_caption"
        metadata = {key: value for key, value in values.items() if key not in self.caption_columns}
        num_bytes = 0 if reason else image.stat().st_size  # for the hash of all rows: it follows the pictures too
        return {"name": name, "captions": captions, "metadata": metadata, "reason": reason, "num_bytes": num_bytes}


def _entries(folder: Path, below: str) -> list[tuple[str, bool]]:
    """Names in a sub-folder that are not hidden, in order, and whether each is a folder itself."""
    with os.scandir(folder / below) as found:
        return sorted(
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in found
            if not entry.name.startswith(".") and (entry.is_dir(follow_symlinks=False) or entry.is_file())
        )


def _walk(folder: Path, below: str = "") -> Iterator[str]:
    """Names of all files, in a fixed order; memory holds those of one sub-folder at a time."""
    for name, is_folder in _entries(folder, below):
        if is_folder:
            yield from _walk(folder, f"{below}{name}/")
        else:
            yield below + name


def _by_stem(folder: Path, below: str = "") -> Iterator[list[str]]:
    """Names of all files, those that differ in the suffix only together."""
    entries = _entries(folder, below)
    groups: dict[str, list[str]] = {}
    for name, is_folder in entries:
        if not is_folder:
            groups.setdefault(os.path.splitext(name)[0], []).append(below + name)
    for name, is_folder in entries:
        if is_folder:
            yield from _by_stem(folder, f"{below}{name}/")
        elif group := groups.pop(os.path.splitext(name)[0], None):
            yield group


class _Names:
    """Names of pictures, remembered in 8 bytes each: there may be many millions."""

    def __init__(self) -> None:
        self._hashes, self._sorted = array("Q"), False

    def add(self, name: str) -> None:
        self._hashes.append(self._hash(name))
        self._sorted = False

    def __contains__(self, name: str) -> bool:
        if not self._sorted:
            self._hashes, self._sorted = array("Q", np.sort(np.array(self._hashes, np.uint64)).tobytes()), True
        place = bisect_left(self._hashes, found := self._hash(name))
        return place < len(self._hashes) and self._hashes[place] == found

    @staticmethod
    def _hash(name: str) -> int:
        return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest())


def _extension(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None

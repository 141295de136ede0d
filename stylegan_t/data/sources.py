"""Where image-caption pairs come from: drawn shapes, or a folder of pictures."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from stylegan_t.data import shapes
from stylegan_t.data.images import encode
from stylegan_t.data.shards import Sample
from stylegan_t.errors import DataError

METADATA_FILE = "metadata.jsonl"
IMAGE_EXTENSIONS = frozenset({"png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm"})
RESERVED_EXTENSIONS = frozenset({"txt", "json", "npy"})
CURE = "see data/README.md for the layout of a folder"


class Source(ABC):
    """Pairs in a fixed order, any run of which can be fetched again."""

    num_samples: int
    skipped: Counter[str]
    """Why candidates are no samples, with counts."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the manifest says of the source."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when any sample may have changed."""

    @abstractmethod
    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """The samples numbered ``start`` to ``stop - 1``."""


class Shapes(Source):
    """Drawn shapes; see ``shapes``."""

    CHUNK = 250

    def __init__(self, num_images: int, image_px: int, heldout_fraction: float, seed: int) -> None:
        self.num_samples, self.image_px = num_images, image_px
        self.heldout_fraction, self.seed = heldout_fraction, seed
        self.skipped = Counter()
        self._allowed = shapes.seen_combinations(shapes.heldout_combinations(seed, heldout_fraction))

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "shapes", "image_px": self.image_px, "seed": self.seed,
            "heldout_combinations": self.heldout_fraction, "num_combinations_drawn": len(self._allowed),
        }  # fmt: skip

    def fingerprint(self) -> str:
        return json.dumps({**self.facts(), "num_images": self.num_samples})

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        for first in range(start, stop, self.CHUNK):
            numbers = range(first, min(first + self.CHUNK, stop))
            scenes = [shapes.scene(number, self.seed, self._allowed) for number in numbers]
            for number, scene, picture in zip(numbers, scenes, shapes.draw(scenes, self.image_px), strict=True):
                facts = {
                    **scene.combination._asdict(),
                    "x": scene.x,
                    "y": scene.y,
                    "template": scene.template,
                }
                yield _sample(
                    f"shapes-{number:08d}", "png", encode(picture),
                    shapes.caption(scene.combination, scene.template), facts,
                )  # fmt: skip


class _Pair(NamedTuple):
    image: Path
    caption: str
    metadata: dict[str, Any]


class Folder(Source):
    """Pictures with ``metadata.jsonl`` (``file_name``, ``text``, further columns), or a ``.txt`` beside each.

    A picture without a caption and a caption without a picture are skipped and counted. Pictures are taken as they
    are; whether they decode is the filter's question.

    Raises:
        DataError: No such folder, nothing usable in it, or a line of the metadata that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (download.source.path); {CURE}")
        self.folder = folder
        self.skipped = Counter()
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _hidden(p.relative_to(folder))]
        images = [p for p in files if p.suffix[1:].lower() in IMAGE_EXTENSIONS]
        if (folder / METADATA_FILE).is_file():
            self._pairs = list(self._from_metadata(images))
        else:
            self._pairs = list(self._from_text_files(images, [p for p in files if p.suffix == ".txt"]))
        if not self._pairs:
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items())) or "it is empty"
            raise DataError(f"{folder}: no picture with a caption ({why}); {CURE}")
        self._keys = _unique_keys([p.image.relative_to(folder) for p in self._pairs])
        self.num_samples = len(self._pairs)

    def facts(self) -> dict[str, Any]:
        return {"kind": "folder", "content": self.fingerprint()}

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for key, pair in zip(self._keys, self._pairs, strict=True):
            line = [key, pair.image.stat().st_size, pair.caption, pair.metadata]
            digest.update(json.dumps(line, sort_keys=True).encode())
        return digest.hexdigest()

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        for key, pair in zip(self._keys[start:stop], self._pairs[start:stop], strict=True):
            try:
                data = pair.image.read_bytes()
            except OSError as error:
                raise DataError(f"{pair.image}: cannot be read ({error.strerror})") from None
            yield _sample(key, _extension(pair.image), data, pair.caption, pair.metadata)

    def _from_metadata(self, images: list[Path]) -> Iterator[_Pair]:
        path = self.folder / METADATA_FILE
        known, used = set(images), set()
        for number, line in enumerate(_read_text(path).splitlines(), 1):
            if not line.strip():
                continue
            row = self._row(path, number, line)
            image = self.folder / os.path.normpath(row["file_name"])
            used.add(image)
            caption = _clean(row.pop("text") or "")
            if image not in known and not image.is_file():
                self.skipped["missing_image"] += 1
            elif not caption:
                self.skipped["missing_caption"] += 1
            else:
                yield _Pair(image, caption, row)
        self.skipped["missing_caption"] += len(known - used)
        self.skipped = +self.skipped

    def _row(self, path: Path, number: int, line: str) -> dict[str, Any]:
        def wrong(what: str) -> NoReturn:
            raise DataError(f'{path}, line {number}: {what}; expected e.g. {{"file_name": "a.png", "text": "a cat"}}')

        try:
            row = json.loads(line)
        except ValueError as error:
            wrong(f"not JSON ({error})")
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            wrong("no file_name")
        if not isinstance(row.setdefault("text", None), str | None):
            wrong(f"text is {row['text']!r}, not a string")
        if not _is_unicode(json.dumps(row, ensure_ascii=False)):
            wrong("half of a surrogate pair, which no UTF-8 text can hold")
        if os.path.isabs(row["file_name"]) or os.path.normpath(row["file_name"]).startswith(".."):
            wrong(f"file_name {row['file_name']!r} lies outside the folder")
        return row

    def _from_text_files(self, images: list[Path], texts: list[Path]) -> Iterator[_Pair]:
        captions = {p.with_suffix(""): p for p in texts}
        for image in images:
            text = captions.get(image.with_suffix(""))
            caption = _clean(_read_text(text)) if text else ""
            if caption:
                yield _Pair(image, caption, {"file_name": image.relative_to(self.folder).as_posix()})
            else:
                self.skipped["missing_caption"] += 1
        without_image = captions.keys() - {image.with_suffix("") for image in images}
        self.skipped["missing_image"] += len(without_image)
        self.skipped = +self.skipped


def _sample(key: str, ext: str, image: bytes, caption: str, metadata: dict[str, Any]) -> Sample:
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return Sample(key, {ext: image, "txt": caption.encode(), "json": text.encode()})


def _unique_keys(paths: list[Path]) -> list[str]:
    """Relative paths as webdataset keys: no dots, no slashes, no suffix, no two alike."""
    keys: dict[str, None] = {}
    for path in paths:
        base = path.with_suffix("").as_posix().replace("/", "_").replace(".", "_")
        key, number = base, 2
        while key in keys:
            key, number = f"{base}-{number}", number + 1
        keys[key] = None
    return list(keys)


def _extension(path: Path) -> str:
    ext = path.suffix[1:].lower().replace(".", "_")
    return "bin" if not ext or ext in RESERVED_EXTENSIONS else ext


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _clean(caption: str) -> str:
    return " ".join(caption.split())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None

"""What every source of image-caption pairs offers, and what several of them need to make pairs of rows."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from stylegan_t.data.shards import CAPTION, EMBEDDING, METADATA, Sample, Skipped, keep_both, one_line

IMAGE_EXTENSIONS = frozenset({
    "avif", "bmp", "dib", "gif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "jpx", "pbm", "pcx", "pgm", "png",
    "pnm", "ppm", "qoi", "tga", "tif", "tiff", "webp",
})  # fmt: skip
"""Of pictures that Pillow reads without plug-ins."""
UNREAD_EXTENSIONS = frozenset({"dng", "heic", "heif", "jxl", "svg"})
"""Of pictures that it does not read: they are lost, and are counted."""
MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}
KEY_DIGITS = 20
LONGEST_KEY = 200
"""Bytes. A file's name has 255 at most, some of them for an extension, a number and the data set of a mixture."""
ORIGINAL_KEY = "original_key"
Done = Callable[[int], None]


def nothing(count: int) -> None:
    """Nobody wants to know how far it has come."""


class Source(ABC):
    """Image-caption pairs in parts.

    A part is the unit of work, of resuming and of loss, and becomes one raw shard. A source is pickled and sent to
    whoever makes a part, so it holds what its settings say and no open file; what parts need to know of each other
    lies in the folder ``work``, which ``plan`` makes ready.
    """

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when any sample may have changed. Reads no more than what tells that, e.g. lengths and dates."""

    @abstractmethod
    def plan(self, work: Path) -> int:
        """Make ready in ``work`` what the parts need; returns how many there are.

        A killed call goes on where it was, and a second one finds everything done.
        """

    @abstractmethod
    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        """The pairs of a part, and its candidates that are none, always in the same order.

        ``done`` is told how many candidates came to their end since it was last told.
        """

    def forget(self, part: int, work: Path) -> None:
        """Remove what only making this part needed; its shard is whole. It may have been removed before."""
        return

    @abstractmethod
    def facts(self, work: Path) -> dict[str, Any]:
        """What the manifest says of the source; the same wherever and whenever the same data is read."""

    def num_candidates(self, work: Path) -> int | None:
        """Pairs and candidates that are none, of all parts; None where nobody knows yet."""
        return None

    def dataset(self, part: int, work: Path) -> str | None:
        """Which data set of several a part belongs to."""
        return None


def clean_key(name: str) -> str:
    """A name as a webdataset key: no dot (the extension begins there), no slash, nothing that cannot be printed."""
    return "".join("_" if c in "./\\" or not c.isprintable() else c for c in name)


class DistinctKeys:
    """Makes names usable as keys, and distinct within a part: ``a``, ``a-2``, ``a-3``.

    Args:
        clean: A name without the characters that a key cannot have.
    """

    def __init__(self, clean: Callable[[str], str] = clean_key) -> None:
        self._clean, self._taken = clean, Counter[str]()

    def __call__(self, name: str, metadata: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The key, and the metadata, with the name as ``original_key`` where the key is another."""
        wanted = key = _of_fair_length(self._clean(name))
        while self._taken[key]:
            self._taken[wanted] += 1
            key = f"{wanted}-{self._taken[wanted]}"
        self._taken[key] += 1
        return key, metadata if key == name else keep_both(metadata, {ORIGINAL_KEY: plain(name)})


def hash_key(content: str | bytes) -> str:
    """A key that follows from what a pair is, not from where it stands."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:KEY_DIGITS]


def captions_in(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """The captions in some columns of a row, each of which holds one or a list of them, or nothing; equal ones once.

    A number, e.g. a year, is a caption as well: lists without types make one of any text of digits.

    Raises:
        ValueError: A value is neither text nor a number.
    """
    captions: list[str] = []
    for column in columns:
        value = row.get(column)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(text, bool) or not isinstance(text, str | int | float | Decimal | None) for text in values):
            raise ValueError(f"{column} is {value!r}, not a text, a number or a list of them")
        captions += [one_line(str(text)) for text in map(plain, values) if text is not None]
    return list(dict.fromkeys(filter(None, captions)))


def _of_fair_length(key: str) -> str:
    """The key, or as much of it as leaves room for a hash of it."""
    if len(key.encode()) <= LONGEST_KEY:
        return key
    return f"{key.encode()[: LONGEST_KEY - KEY_DIGITS - 1].decode(errors='ignore')}-{hash_key(key)}"


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it: no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def plain(value: Any) -> Any:
    """A value of a table as JSON can hold it: bytes as hex digits, infinity as null, dates and the like as text."""
    match value:
        case float():
            result = value if math.isfinite(value) else None
        case None | bool() | int():
            result = value
        case bytes():
            result = value.hex()
        case Mapping():
            result = {plain(str(key)): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            result = [plain(inner) for inner in value]
        case _:
            result = str(value).encode(errors="replace").decode()  # half of a surrogate pair becomes a question mark
    return result


def extension(name: str, image: bytes) -> str:
    """The extension of a picture's file: that of its name, else what its first bytes tell, else ``bin``."""
    ext = Path(name).suffix[1:].lower()
    if ext in IMAGE_EXTENSIONS:
        return ext
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    found = next((ext for start, ext in MAGIC.items() if image.startswith(start)), None)
    return found or ("bin" if not ext.isalnum() or ext in (CAPTION, METADATA, EMBEDDING) else ext)

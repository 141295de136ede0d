"""Shards below a path, ours or anybody's: what ``stylegan-t data`` looks at."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from stylegan_t.data.index import UnreadableIndex, read_index
from stylegan_t.data.manifest import MADE_BY, MANIFEST, NoManifest, read_manifest
from stylegan_t.data.pixels import DECODE_ERRORS, rgb, upright
from stylegan_t.data.shards import CAPTION, METADATA, Sample, Shard
from stylegan_t.data.sources.base import IMAGE_EXTENSIONS, UNREAD_EXTENSIONS
from stylegan_t.data.tars import scan
from stylegan_t.errors import DataError

PICTURES = IMAGE_EXTENSIONS | UNREAD_EXTENSIONS
"""Extensions of members that hold a picture."""
CAPTION_COLUMNS = ("caption", "text")
"""Where others keep captions in a sample's metadata, if it has no .txt."""


OBJECT = re.compile(r" <[^>]*>")
"""What Pillow's messages say of the bytes they are about: an address in memory."""
INDEXED = "indexed"
"""Kind of a manifest that was written for tars of others; none of our stages takes it for its own."""


class ShardFolder(NamedTuple):
    """Shards that lie in one folder.

    Attributes:
        folder: Where.
        shards: Their tars, in order.
        manifest: Of a folder that has one; its shards are those that it lists, whether they exist or not (unless
            ``find_shards`` was asked for others).
    """

    folder: Path
    shards: list[Path]
    manifest: dict[str, Any] | None

    @property
    def entries(self) -> list[dict[str, Any] | None]:
        """What the manifest says of each shard."""
        return list(self.manifest["shards"]) if self.manifest else [None] * len(self.shards)


def find_shards(paths: Iterable[Path], *, unlisted: bool = False) -> list[ShardFolder]:
    """The shards that paths name: a tar, a folder with a manifest or with tars, or a folder of such folders.

    Each is found once, however often and by whatever paths it is named.

    Args:
        paths: On this machine.
        unlisted: Of a folder that was indexed, find all tars that are there now, whatever its manifest lists.

    Raises:
        DataError: A path does not exist, or nothing is found below it; a manifest is not readable.
    """
    found: dict[tuple[Path, bool], ShardFolder] = {}  # by where it is, and whether all of it is meant
    for path in paths:
        if path.is_file():
            single = found.setdefault((path.parent.resolve(), False), ShardFolder(path.parent, [], None))
            single.shards.append(path)
        elif path.is_dir():
            below = [place for folder in sorted(os.walk(path)) if (place := _shards_in(Path(folder[0]), unlisted))]
            if not below:
                raise DataError(f"{path}: no shards: neither {MANIFEST} nor a file *.tar in it or in a folder below it")
            found |= {(place.folder.resolve(), True): place for place in below}
        else:
            remote = "; it has to be a local one" if ":/" in str(path) else ""
            raise DataError(f"{path}: no such file or folder{remote}")
    for (where, whole), place in list(found.items()):
        if not whole:
            again = {tar.name for tar in found[where, True].shards} if (where, True) in found else set()
            tars = {tar.name: tar for tar in place.shards if tar.name not in again}
            found[where, whole] = place._replace(shards=list(tars.values()))
    return [place for (_, whole), place in found.items() if whole or place.shards]


def find_tars(paths: Iterable[Path]) -> list[ShardFolder]:
    """The tars that paths name and that may be indexed, whether an earlier manifest of such indexes lists them or not.

    Raises:
        DataError: As by ``find_shards``; a folder, or that of a tar, has a manifest that was written with its indexes;
            all tars of a folder are gone.
    """
    places = find_shards(paths, unlisted=True)
    for place in places:
        path = place.folder / MANIFEST
        kind = read_manifest(place.folder)["kind"] if path.is_file() else INDEXED
        if stage := MADE_BY.get(kind):
            raise DataError(f"{place.folder}: its indexes were written by stage {stage}; only `dvc repro` changes them")
        if kind != INDEXED:
            raise DataError(f"{path}: of kind {kind!r}; only {INDEXED!r} ones are made anew; move it away")
        if not place.shards:
            raise DataError(f"{place.folder}: no file *.tar; put some there, or remove its {MANIFEST}")
    return places


def printable(text: str) -> str:
    """A line in which what is no character to see is escaped: what others wrote may not command the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_shard(path: Path) -> Shard:
    """A tar's samples, by the index beside it or, where there is none that fits, by the tar's headers.

    Raises:
        DataError: The tar is missing or not whole.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; `stylegan-t data verify {path.parent}` lists what else is")
    try:
        index = read_index(path)
        if index.tar_bytes == path.stat().st_size:
            return Shard(path, index)
    except (FileNotFoundError, UnreadableIndex):
        pass  # the headers know as well
    found = scan(path)
    if found.problems:
        raise DataError(f"{path}: {found.problems[0]}")
    return Shard(path, found.index)


def pictures(sample: Sample) -> dict[str, bytes]:
    """A sample's pictures by extension: one, in a sample as it should be."""
    return {ext: data for ext, data in sample.fields.items() if is_picture(ext)}


def is_picture(ext: str) -> bool:
    return ext.rpartition(".")[2] in PICTURES


def decode(data: bytes) -> Image.Image:
    """A picture in RGB as a person would see it: what ``images.decode`` gives to the stages, without their torch.

    Raises:
        ValueError: It is damaged, no picture, or a decompression bomb; the message says which.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd but readable files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return rgb(upright(image))
    except DECODE_ERRORS as error:
        raise ValueError(OBJECT.sub("", str(error))) from None


def captions(sample: Sample) -> list[str]:
    """A sample's captions: the lines of its .txt or, without one, what its metadata call caption or text.

    Raises:
        ValueError: The metadata are no JSON object, or a text is no UTF-8.
    """
    if CAPTION in sample.fields:
        return [line for line in sample.captions if line.strip()]
    said = next((facts[name] for name in CAPTION_COLUMNS if name in (facts := metadata(sample))), [])
    return [str(line) for line in (said if isinstance(said, list) else [said]) if str(line or "").strip()]


def metadata(sample: Sample) -> dict[str, Any]:
    """A sample's metadata; none where it has no .json. Raises ValueError where that is no JSON object."""
    facts = json.loads(sample.fields.get(METADATA, b"{}"))
    if not isinstance(facts, dict):
        raise ValueError(f"its .{METADATA} is no JSON object")
    return facts


def _shards_in(folder: Path, unlisted: bool) -> ShardFolder | None:
    tars = sorted(folder.glob("*.tar"))
    if (folder / MANIFEST).is_file():
        try:
            manifest = read_manifest(folder)
        except NoManifest:
            if tars:
                raise
            return None  # that of other things, e.g. score tables
        if unlisted and manifest["kind"] == INDEXED:
            return ShardFolder(folder, tars, manifest)
        return ShardFolder(folder, [folder / entry["file"] for entry in manifest["shards"]], manifest)
    return ShardFolder(folder, tars, None) if tars else None

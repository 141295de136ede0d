"""A look at some samples: their facts as text, their pictures on one sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from stylegan_t.data.found import ShardFolder, captions, decode, metadata, open_shard, pictures, printable
from stylegan_t.data.shards import Sample
from stylegan_t.errors import DataError

COLUMNS, TILE_PX, MARGIN_PX = 8, 192, 6
TEXT_PX, CHARS, LINES = 12, 32, 4
"""Below each picture of a sheet: the key's end, then as much of the first caption as fits."""
WIDTH, HEIGHT = TILE_PX + MARGIN_PX, TILE_PX + 2 * MARGIN_PX + LINES * (TEXT_PX + 2)
"""Of a picture on the sheet with all that belongs to it, px."""
MOST_PX = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}
"""Height that a file of each kind, as Pillow calls it, can hold."""


@dataclass(frozen=True)
class Peek:
    """A sample as a person sees it.

    Attributes:
        shard: Name of its tar.
        picture: Upright, in RGB; None where there is none that decodes.
        fields: Bytes by extension.
        problem: Why captions or metadata are missing, where they could not be read.
    """

    shard: str
    key: str
    picture: Image.Image | None
    fields: dict[str, int]
    captions: list[str]
    metadata: dict[str, Any]
    problem: str | None

    @property
    def text(self) -> str:
        """A line with key, shard, size and fields, then a line each for captions and metadata; all printable."""
        size = "{} × {} px".format(*self.picture.size) if self.picture else "no picture that decodes"
        fields = ", ".join(f".{ext} {count} bytes" for ext, count in self.fields.items())
        lines = [f"{self.key}  ({self.shard}; {size}; {fields})", *(f"  “{caption}”" for caption in self.captions)]
        lines += [f"  {name}: {value}" for name, value in self.metadata.items()]
        return "\n".join(map(printable, [*lines, f"  {self.problem}"] if self.problem else lines))


def peek(place: ShardFolder, count: int, *, start: int = 0, key: str | None = None) -> list[Peek]:
    """Some samples of a folder, in the order of its shards.

    Args:
        place: The folder.
        count: How many; fewer at the end.
        start: Number of the first one.
        key: Of the first one, instead of its number.

    Raises:
        DataError: No sample has that key or number; a tar is missing or not whole.
    """
    found = [_look(name, sample) for name, sample in islice(_samples(place, start, key), count)]
    if not found:
        which = f"of the key {key!r}" if key is not None else f"number {start} (the first is 0)"
        raise DataError(f"{place.folder}: no sample {which} in its {len(place.shards)} shards")
    return found


def most_on_sheet(kind: str) -> int:
    """How many pictures a sheet of this kind can show."""
    return (MOST_PX[kind] - MARGIN_PX) // HEIGHT * COLUMNS


def contact_sheet(peeks: Sequence[Peek]) -> Image.Image:
    """The pictures in rows, each with its key and the beginning of its first caption."""
    columns = min(COLUMNS, len(peeks))
    rows = -(-len(peeks) // columns)
    sheet = Image.new("RGB", (columns * WIDTH + MARGIN_PX, rows * HEIGHT + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PX)
    for number, each in enumerate(peeks):
        row, column = divmod(number, columns)
        left, top = column * WIDTH + MARGIN_PX, row * HEIGHT + MARGIN_PX
        tile = Image.new("RGB", (TILE_PX, TILE_PX), "lightgrey")
        if each.picture:
            scaled = ImageOps.contain(each.picture, (TILE_PX, TILE_PX))
            tile.paste(scaled, ((TILE_PX - scaled.width) // 2, (TILE_PX - scaled.height) // 2))
        sheet.paste(tile, (left, top))
        said = textwrap.wrap(each.captions[0] if each.captions else "no caption", CHARS)
        draw.text((left, top + TILE_PX + 2), "\n".join([each.key[-CHARS:], *said][:LINES]), "black", font, spacing=2)
    return sheet


def _samples(place: ShardFolder, start: int, key: str | None) -> Iterator[tuple[str, Sample]]:
    for path in place.shards:
        shard = open_shard(path)
        if key is not None:  # not met yet
            start = shard.index.keys.index(key).as_py()
            if start < 0:
                continue
            key = None
        yield from ((path.name, shard[number]) for number in range(start, len(shard)))
        start = max(start - len(shard), 0)


def _look(shard: str, sample: Sample) -> Peek:
    said, facts, problem = [], {}, None
    try:
        said, facts = captions(sample), metadata(sample)
    except ValueError as error:
        problem = f"captions or metadata are not readable ({error})"
    fields = {ext: len(data) for ext, data in sample.fields.items()}
    return Peek(shard, sample.key, _picture(sample), fields, said, facts, problem)


def _picture(sample: Sample) -> Image.Image | None:
    try:
        return next((decode(data) for data in pictures(sample).values()), None)
    except ValueError:
        return None

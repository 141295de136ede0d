"""Contact sheets: some raw pictures on one page, to see at a glance what a rule keeps and drops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64
from PIL import Image, ImageDraw

from stylegan_t.data.images import UndecodableImage, decode
from stylegan_t.files import atomic

TILE_PX, GAP_PX, COLUMNS = 96, 4, 8
NUM_TILES = 32
PAPER, MISSING = "white", "#e4e4e9"


def draw_rows(rows: Int64[np.ndarray, " n"], hashes: UInt64[np.ndarray, " m"], count: int) -> Int64[np.ndarray, " k"]:
    """Some of the rows, drawn by the hashes of their keys: others more or less do not change who comes first."""
    return rows[np.argsort(hashes[rows], kind="stable")[:count]]


def save_sheet(path: Path, pictures: Sequence[bytes]) -> None:
    """Write the pictures as tiles, row by row; the whole of each, enlarged by whole factors if it is small.

    Args:
        path: A PNG file.
        pictures: Files; one that does not decode is a crossed tile.
    """
    columns, lines = min(COLUMNS, len(pictures)), -(-len(pictures) // COLUMNS)
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (columns * step - GAP_PX, lines * step - GAP_PX), PAPER)
    for number, data in enumerate(pictures):
        tile, (line, column) = _tile(data), divmod(number, COLUMNS)
        left, top = column * step + (TILE_PX - tile.width) // 2, line * step + (TILE_PX - tile.height) // 2
        sheet.paste(tile, (left, top))
    with atomic(path) as temporary:
        sheet.save(temporary, "PNG")


def _tile(data: bytes) -> Image.Image:
    try:
        picture = Image.fromarray(decode(data))
    except UndecodableImage:
        tile = Image.new("RGB", (TILE_PX, TILE_PX), MISSING)
        draw = ImageDraw.Draw(tile)
        draw.line((0, 0, TILE_PX, TILE_PX), fill=PAPER, width=2)
        draw.line((0, TILE_PX, TILE_PX, 0), fill=PAPER, width=2)
        return tile
    longer = max(picture.size)
    if longer <= TILE_PX:
        factor = TILE_PX // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(round(side * TILE_PX / longer), 1) for side in picture.size)
    return picture.resize(tuple(size), Image.Resampling.LANCZOS)  # type: ignore[arg-type]

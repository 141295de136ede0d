from __future__ import annotations

import numpy as np
from PIL import Image

from stylegan_t.data.images import encode
from stylegan_t.data.rules.split import key_hashes
from stylegan_t.data.sheets import COLUMNS, GAP_PX, TILE_PX, draw_rows, save_sheet

STEP = TILE_PX + GAP_PX


def picture(height: int, width: int, colour: tuple[int, int, int]) -> bytes:
    return encode(np.full((height, width, 3), colour, np.uint8))


def tile(path, number: int) -> np.ndarray:
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    top, left = number // COLUMNS * STEP, number % COLUMNS * STEP
    return pixels[top : top + TILE_PX, left : left + TILE_PX]


def test_each_picture_has_its_place(tmp_path):
    path, colours = tmp_path / "sheet.png", [(10 * n, 0, 255 - 10 * n) for n in range(11)]
    save_sheet(path, [picture(TILE_PX, TILE_PX, colour) for colour in colours])
    with Image.open(path) as sheet:
        assert sheet.size == (COLUMNS * STEP - GAP_PX, 2 * STEP - GAP_PX)
    for number, colour in enumerate(colours):
        assert (tile(path, number) == colour).all()


def test_all_of_a_picture_is_seen_large_ones_smaller_and_small_ones_by_whole_factors(tmp_path):
    path, red = tmp_path / "sheet.png", (255, 0, 0)
    small = np.zeros((16, 20, 3), np.uint8)
    small[::2, ::2] = red
    save_sheet(path, [picture(400, 100, red), encode(small), picture(1, 700, red)])
    wide = (tile(path, 0) == red).all(axis=2)
    assert wide.any(axis=1).sum() == TILE_PX and wide.any(axis=0).sum() == TILE_PX // 4
    shown = tile(path, 1)[16:80, 8:88]
    np.testing.assert_array_equal(shown[::4, ::4], small)
    assert (tile(path, 2) == red).all(axis=2).any(axis=0).sum() == TILE_PX


def test_what_does_not_decode_is_a_crossed_tile(tmp_path):
    save_sheet(tmp_path / "sheet.png", [b"no picture", picture(9, 9, (1, 2, 3))])
    crossed = tile(tmp_path / "sheet.png", 0)
    assert len(np.unique(crossed.reshape(-1, 3), axis=0)) == 2


def test_other_rows_change_little_in_who_is_drawn():
    keys = [f"key{n}" for n in range(1000)]
    hashes = key_hashes(keys)
    drawn = {keys[row] for row in draw_rows(np.arange(1000), hashes, 32).tolist()}
    fewer = {keys[row] for row in draw_rows(np.arange(0, 1000, 2), hashes, 32).tolist()}
    assert len(drawn) == len(fewer) == 32
    assert {key for key in drawn if int(key[3:]) % 2 == 0} <= fewer

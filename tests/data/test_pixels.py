from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data import pixels
from stylegan_t.data.pixels import rgb, upright

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16"]


def of_mode(mode: str, clear: object = None) -> Image.Image:
    noise = np.random.default_rng(0)
    if mode in ("I", "I;16"):
        grey = noise.integers(0, 70_000 if mode == "I" else 65_536, (30, 40))
        return Image.fromarray(grey.astype(np.int32 if mode == "I" else np.uint16))
    image = Image.fromarray(noise.integers(0, 256, (30, 40, 4), dtype=np.uint8))
    image = image.convert("RGB").quantize(16) if mode == "P" else image.convert("RGB" if mode == "CMYK" else mode)
    image = image.convert(mode)
    if clear is not None:
        image.info["transparency"] = clear
    return image


@pytest.mark.parametrize("tile_px", [1, 7, 30, 39])
@pytest.mark.parametrize(
    ("mode", "clear"), [*((mode, None) for mode in MODES), ("P", 3), ("P", bytes(range(0, 256, 16))), ("L", 7)]
)
def test_colours_are_the_same_whether_converted_at_once_or_in_pieces(monkeypatch, tile_px, mode, clear):
    at_once = np.asarray(rgb(of_mode(mode, clear)))
    monkeypatch.setattr(pixels, "TILE_PX", tile_px)
    np.testing.assert_array_equal(np.asarray(rgb(of_mode(mode, clear))), at_once)


def test_what_is_rgb_and_upright_is_not_copied():
    image = of_mode("RGB")
    core = image.im
    assert rgb(upright(image)) is image and image.im is core

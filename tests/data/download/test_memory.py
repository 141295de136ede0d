"""What memory strangers' pictures may take."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data.download import pictures
from stylegan_t.data.download.pictures import keep
from tests.data.download.test_pictures import kept, turning
from tests.data.download.world import picture, storage, stored
from tests.imports import ROOT


def bomb(side_px: int, colour_type: int = 6, bits: int = 8) -> bytes:
    """A PNG's first lines: enough to see what it would become, by default with alpha."""
    data = bytearray(stored(picture(), "PNG"))
    data[16:26] = side_px.to_bytes(4) * 2 + bytes([bits, colour_type])
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


@pytest.mark.parametrize(("colour_type", "bits"), [(2, 8), (6, 8), (4, 8), (2, 16)])
def test_what_would_take_too_much_memory_is_refused_before_it_is_decoded(colour_type, bits):
    changes = {"max_pixels": 80_000_000, "resize": "keep_ratio", "size_px": 256}
    assert keep(bomb(8900, colour_type, bits), storage(**changes)) == "too_many_pixels"
    assert keep(bomb(4000, colour_type, bits), storage(**changes)) == "undecodable", "but for memory it would be tried"


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("changes", [{}, {"resize": "keep_ratio", "size_px": 20}], ids=["as it comes", "resized"])
def test_only_jpegs_take_less_memory_than_their_pixels(monkeypatch, image_format, changes):
    monkeypatch.setattr(pictures, "MOST_BYTES", 400 * 300)
    assert keep(stored(picture(400, 300), image_format), storage(**changes)) == "too_many_pixels"
    assert kept(stored(picture(400, 300)), **changes)
    assert keep(stored(picture(400, 300), progressive=True), storage(**changes)) == "too_many_pixels"


def test_a_large_jpeg_as_it_comes_is_decoded_at_an_eighth(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_BYTES", 400 * 300)
    data = stored(picture(400, 300))
    assert kept(data) == (data, "jpg", 400, 300, 400, 300)
    assert keep(data[: len(data) // 2], storage()) == "undecodable"


def test_a_sliver_is_not_blown_up_beyond_all_measure():
    data = stored(picture(20_000, 2), "PNG")
    assert keep(data, storage(resize="keep_ratio", size_px=512, upscale=True)) == "too_many_pixels"
    assert kept(data, resize="keep_ratio", size_px=512)


def test_no_memory_is_a_reason(monkeypatch):
    def load(_: object) -> None:
        raise MemoryError

    data = stored(picture(), "PNG")
    monkeypatch.setattr(Image.Image, "load", load)
    assert keep(data, storage()) == "too_many_pixels"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise elsewhere")
def test_no_picture_takes_more_memory_than_is_thought(tmp_path):
    noise = Image.effect_noise((1200, 1200), 100)
    files = {
        **{f"{mode}.png": stored(noise.convert(mode), "PNG", compress_level=1) for mode in ("L", "RGB", "RGBA")},
        "grey of 16 bits.png": stored(Image.fromarray(np.asarray(noise).astype(np.uint16)), "PNG", compress_level=1),
        "lying.png": stored(noise.convert("RGB"), "PNG", compress_level=1, exif=turning(6)),
        "palette.gif": stored(noise.quantize(16), "GIF"),
        "lying.jpg": stored(noise.convert("RGB"), exif=turning(6)),
        "progressive.jpg": stored(noise.convert("RGB"), progressive=True, subsampling=0),
        "CMYK.jpg": stored(noise.convert("CMYK"), progressive=True),
        "alpha.webp": stored(noise.convert("RGBA"), "WEBP", method=0),
        "lossless.webp": stored(noise.convert("RGB"), "WEBP", method=0, lossless=True),
        "alpha.avif": stored(noise.convert("RGBA"), "AVIF", speed=10),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = [sys.executable, "-m", "tests.data.download.appetite", *(str(tmp_path / name) for name in files)]
    lines = subprocess.run(code, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert len(lines) == 4 * len(files)
    for name, way, thought, taken in (line.split(",") for line in lines):
        assert int(taken) <= int(thought) + 12_000_000, (name, way, "for Pillow's plugins and the file")

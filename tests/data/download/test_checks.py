from __future__ import annotations

import io
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_t.data.download.checks import MOST_SCANS, has_too_many_scans, is_polyglot, is_svg, kind_of
from tests.data.download.world import jpeg, picture, stored
from tests.imports import ROOT

EMOJI = ROOT.parent / "shared" / "data" / "emoji" / "images"
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00"
WINDOWS = b"MZ\x90\x00" + bytes(60) + b"\x0e\x1f\xba\x0e\x00\xb4\t\xcd!This program cannot be run in DOS mode.\r\r\n$"


def zipped(prefix: bytes = b"", comment: bytes = b"") -> bytes:
    out = io.BytesIO(prefix)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("a.js", "alert(1)")
        archive.comment = comment
    return out.getvalue()


def in_a_segment(payload: bytes, marker: int = 0xFE) -> bytes:
    """A JPEG with a comment, or another segment, right after its start."""
    data = jpeg()
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def as_tar() -> bytes:
    """A GIF that tar unpacks: the picture's header is the first member's name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("GIF89a" + "x" * 40))
    return out.getvalue()


def noisy_jpeg(side: int, seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return stored(Image.fromarray(noise), quality=100, subsampling=0)


POLYGLOTS = {
    "an archive behind": zipped(jpeg()),
    "an archive behind, with a long comment": zipped(jpeg(), bytes(60_000)),
    "an archive behind, then bytes": zipped(jpeg()) + bytes(100),
    "an archive in a comment": in_a_segment(zipped()),
    "a Java archive behind a GIF": zipped(stored(picture(), "GIF")),
    "a RAR archive": jpeg() + b"Rar!\x1a\x07\x01\x00" + bytes(50),
    "an old RAR archive": jpeg() + b"Rar!\x1a\x07\x00" + bytes(50),
    "a 7z archive": jpeg() + b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(50),
    "a tape": as_tar(),
    "a disk": jpeg() + bytes(32769 - len(jpeg())) + b"CD001" + bytes(50),
    "a medical picture": in_a_segment(bytes(128 - 6) + b"DICM"),
    "a PDF in a comment": in_a_segment(b"%PDF-1.4\n1 0 obj"),
    "a PHP script in a comment": in_a_segment(b"<?php system($_GET['c']); ?>"),
    "a PHP script behind": jpeg() + b"<?PHP\nphpinfo();",
    "a PHP archive": in_a_segment(b"<?=1; __HALT_COMPILER(); ?>"),
    "a web page in a comment": in_a_segment(b"<html><body>"),
    "a script behind": stored(picture(), "PNG") + b"<SCRIPT src=//a.example>",
    "a script in the pixels": jpeg()[:-2] + b"<script>alert(1)</script>\xff\xd9",
    "an SVG in a comment": in_a_segment(b"<svg onload=alert(1)>"),
    "JavaScript that begins like a JPEG": b"\xff\xd8\xff\xe0/*" + jpeg() + b"*/=alert(1)",
    "JavaScript that begins like a GIF": b"GIF89a/*" + stored(picture(), "GIF")[8:] + b"*/=alert(1)",
    "a program behind": jpeg() + ELF,
    "a program of another system behind": jpeg() + WINDOWS,
}  # fmt: skip

HARMLESS = {
    "a JPEG": jpeg(),
    "a PNG": stored(picture(), "PNG"),
    "a GIF": stored(picture(), "GIF"),
    "a WebP": stored(picture(), "WEBP"),
    "an AVIF": stored(picture(), "AVIF"),
    "a progressive JPEG": stored(picture(), "JPEG", progressive=True),
    "zeros behind": jpeg() + bytes(5000),
    "a line break behind": jpeg() + b"\r\n",
    "a second photograph behind": jpeg() + jpeg(1),
    "a film behind, as phones write it": jpeg() + b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(500),
    "a maker's notes behind": jpeg() + b"\x00\x00\x01\x0a\x0e\x00\x00\x00Image_UTC_Data1458170015363SEFHe\x00\x00SEFT",
    "its description": in_a_segment(b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
                                    b"<rdf:Description dc:format='application/pdf'/><b>bold</b> <!-- note -->"
                                    b"</x:xmpmeta><?xpacket end='w'?>", 0xE1),
    "words": in_a_segment(b"made of PK, Rar! and 7z; <3 scripting; <htmlish>; body < mind; <?phpish"),
    "the end of an archive alone": jpeg() + b"PK\x05\x06" + bytes(18),
    "a PDF's first word, late": jpeg() + bytes(2000) + b"%PDF-1.4",
}  # fmt: skip


@pytest.mark.parametrize("what", POLYGLOTS)
def test_a_picture_that_is_something_else_as_well_is_a_polyglot(what):
    assert kind_of(POLYGLOTS[what]), "it begins like a picture"
    assert is_polyglot(POLYGLOTS[what])


@pytest.mark.parametrize("what", HARMLESS)
def test_a_picture_that_is_nothing_else_is_none(what):
    assert kind_of(HARMLESS[what])
    assert not is_polyglot(HARMLESS[what])


def test_noise_is_no_polyglot():
    assert not any(is_polyglot(noisy_jpeg(500, seed)) for seed in range(20)), "each about half a megabyte"


@pytest.mark.skipif(not EMOJI.exists(), reason="the emoji pictures are not here")
def test_real_pictures_are_no_polyglots():
    paths = sorted(EMOJI.iterdir())
    assert paths and not [path for path in paths if is_polyglot(path.read_bytes())]
    assert {kind_of(path.read_bytes()) for path in paths} == {"WEBP"}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_the_first_bytes_tell_the_kind(image_format):
    assert kind_of(stored(picture(), image_format)) == image_format


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8", b"BM" + bytes(50), b"II*\x00" + bytes(50), b"%PDF-1.4", b"RIFF\x00\x00\x00\x00WAVE", b"<svg>",
     b"\x00\x00\x00\x1cftypmp42", b"%!PS-Adobe-3.0 EPSF-3.0", b"P6 1 1 255 abc", Path(__file__).read_bytes()],
)  # fmt: skip
def test_other_files_are_of_no_kind(data):
    assert kind_of(data) is None


@pytest.mark.parametrize(
    "data",
    [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xef\xbb\xbf \n<SVG>", b"<?xml version='1.0'?>\n<!-- a -->\n<svg>",
     b"<!DOCTYPE svg PUBLIC 'a'><svg>"],
)  # fmt: skip
def test_an_svg_is_known_by_its_first_tags(data):
    assert is_svg(data)


@pytest.mark.parametrize("data", [b"", b"<html><body>", b"a text about <svg", jpeg()])
def test_others_are_no_svg(data):
    assert not is_svg(data)


def test_scans_without_end_are_too_many():
    data = stored(picture(), progressive=True)
    assert not has_too_many_scans(data)
    last = data.rindex(b"\xff\xda")
    assert has_too_many_scans(data[:-2] + data[last:-2] * MOST_SCANS + data[-2:])


def test_scans_behind_a_picture_are_not_its_own():
    film = np.random.default_rng(0).bytes(8_000_000)
    assert film.count(b"\xff\xda") > MOST_SCANS
    assert not has_too_many_scans(jpeg() + film)
    assert not has_too_many_scans(jpeg() * (MOST_SCANS + 1)), "each has one"


@pytest.mark.parametrize("fill", [b"", b"\xff\xff"], ids=["", "after fill bytes"])
def test_a_thumbnail_hides_no_scans_and_adds_none(fill):
    thumbnails = in_a_segment(b"Exif\x00\x00" + jpeg() * 50, 0xE1)[:-2]
    scan = fill + thumbnails[thumbnails.rindex(b"\xff\xda") :]
    assert not has_too_many_scans(thumbnails + scan * (MOST_SCANS - 1) + b"\xff\xd9")
    assert has_too_many_scans(thumbnails + scan * MOST_SCANS + b"\xff\xd9")


def test_a_jpeg_of_nothing_but_segments_is_not_counted_to_its_end():
    began = time.monotonic()
    assert has_too_many_scans(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 5_000_000 + b"\xff\xda\x00\x02" * 101)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("part", [b"<sx", b"<", b"<script"])
def test_looking_for_tags_takes_no_memory_whatever_the_bytes_are(part):
    data = jpeg() + part * (3_000_000 // len(part))
    tracemalloc.start()
    try:
        assert not is_polyglot(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()

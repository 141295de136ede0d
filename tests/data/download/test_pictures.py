from __future__ import annotations

import contextlib
import io
import time
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from stylegan_t.data.download import pictures
from stylegan_t.data.download.pictures import Kept, keep
from stylegan_t.data.images import decode
from tests.data.download.world import jpeg, picture, storage, stored

FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "AVIF"]
OF_EVERY_FILE = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background", "timestamp", "duration"}


def kept(data: bytes, **changes: object) -> Kept:
    result = keep(data, storage(**changes))
    assert isinstance(result, Kept), result
    return result


def opened(result: Kept) -> Image.Image:
    image = Image.open(io.BytesIO(result.image))
    image.load()
    return image


def pixels(image: Image.Image | bytes) -> np.ndarray:
    return (decode(image) if isinstance(image, bytes) else np.asarray(image)).astype(int)


def turning(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    exif[0x010F] = "a camera"
    return exif


def lying(orientation: int, image_format: str = "JPEG", width: int = 40, height: int = 30) -> bytes:
    return stored(picture(width, height), image_format, exif=turning(orientation))


@pytest.mark.parametrize("image_format", FORMATS)
def test_as_they_come_means_the_same_bytes(image_format):
    data = stored(picture(), image_format)
    result = kept(data)
    assert result == (data, {"JPEG": "jpg"}.get(image_format, image_format.lower()), 40, 30, 40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_as_they_come_a_picture_is_upright_with_no_tag_that_turns_it_again(orientation, image_format):
    data = lying(orientation, image_format)
    result = kept(data, image_format="png")
    np.testing.assert_array_equal(pixels(result.image), pixels(data))
    assert (result.height, result.width) == decode(data).shape[:2] == (result.original_height, result.original_width)
    assert (result.image == data) == (orientation == 1)
    assert opened(result).getexif().get(pictures.ORIENTATION, 1) == 1


@pytest.mark.parametrize("tag", ['tiff:Orientation="6"', "><tiff:Orientation>6</tiff:Orientation"])
def test_a_picture_may_lie_by_its_xmp_alone(tag):
    data = stored(picture(), xmp=f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description {tag}></x:xmpmeta>".encode())
    for changes in ({}, {"resize": "keep_ratio", "size_px": 30}):
        result = kept(data, image_format="png", **changes)
        assert opened(result).size == (result.width, result.height) == (30, 40)
        np.testing.assert_array_equal(pixels(result.image), pixels(data))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_senseless_orientation_turns_nothing(orientation):
    data = lying(orientation)
    assert kept(data).image == data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["keep_ratio", "centre_crop"])
def test_what_is_resized_is_upright(orientation, resize):
    data = lying(orientation, width=400, height=300)
    result = kept(data, resize=resize, size_px=60, image_format="png")
    size = (60, 60) if resize == "centre_crop" else (60, 80) if orientation >= 5 else (80, 60)
    assert (result.width, result.height) == opened(result).size == size
    upright = Image.fromarray(decode(data))
    if resize == "centre_crop":
        left, top = (upright.width - 300) // 2, (upright.height - 300) // 2
        upright = upright.crop((left, top, left + 300, top + 300))
    expected = pixels(upright.resize(size, Image.Resampling.LANCZOS))
    assert np.abs(pixels(result.image) - expected).max() <= 4, "at a reduced scale it is decoded almost the same"
    assert (result.original_width, result.original_height) == ((300, 400) if orientation >= 5 else (400, 300))


@pytest.mark.parametrize(
    ("resize", "size_px", "upscale", "came", "size"),
    [
        ("keep_ratio", 20, False, (40, 30), (27, 20)),
        ("keep_ratio", 30, False, (40, 30), (40, 30)),
        ("keep_ratio", 60, False, (40, 30), (40, 30)),
        ("keep_ratio", 60, True, (40, 30), (80, 60)),
        ("keep_ratio", 1, False, (1000, 3), (333, 1)),
        ("centre_crop", 20, False, (30, 40), (20, 20)),
        ("centre_crop", 64, False, (40, 30), (30, 30)),
        ("centre_crop", 64, True, (40, 30), (64, 64)),
    ],
)
def test_sizes(resize, size_px, upscale, came, size):
    data = stored(picture(*came), "PNG")
    result = kept(data, resize=resize, size_px=size_px, upscale=upscale, image_format="png")
    assert (result.width, result.height) == opened(result).size == size


def test_a_square_is_cut_from_the_very_centre():
    columns = np.broadcast_to(np.arange(50, dtype=np.uint8)[None, :, None], (30, 50, 3)).copy()
    result = kept(stored(Image.fromarray(columns), "PNG"), resize="centre_crop", size_px=30, image_format="png")
    np.testing.assert_array_equal(pixels(result.image), columns[:, 10:40])


@pytest.mark.parametrize(("image_format", "ext"), [("jpeg", "jpg"), ("webp", "webp"), ("png", "png")])
def test_resized_pictures_are_of_the_format_asked_for_and_of_one_size_for_one_quality(image_format, ext):
    data = stored(picture(200, 200), "PNG")
    fine, coarse = (kept(data, resize="keep_ratio", size_px=100, image_format=image_format, quality=q) for q in (95, 5))
    assert fine.ext == ext and opened(fine).format == image_format.upper()
    assert (len(coarse.image) < len(fine.image)) == (image_format != "png")
    assert kept(data, resize="keep_ratio", size_px=100, image_format=image_format, quality=5) == coarse


@pytest.mark.parametrize("image_format", ["jpeg", "webp", "png"])
def test_nothing_but_pixels_survives_a_new_encoding(image_format):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
    exif[0x010E] = "where I live"
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "me at home")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (
        stored(picture(), "JPEG", exif=exif, comment=b"me at home", icc_profile=profile, xmp=b"<x>home</x>"),
        stored(picture(), "PNG", exif=exif, pnginfo=text, icc_profile=profile),
        stored(picture(), "WEBP", exif=exif, icc_profile=profile, xmp=b"<x>home</x>"),
    ):
        result = kept(data, resize="keep_ratio", size_px=20, image_format=image_format)
        assert not opened(result).getexif()
        assert set(opened(result).info) <= OF_EVERY_FILE
        assert b"home" not in result.image


def test_transparency_is_laid_over_white():
    result = kept(stored(Image.new("RGBA", (8, 8)), "PNG"), resize="keep_ratio", size_px=4, image_format="png")
    assert pixels(result.image).min() == 255


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("changes", [{}, {"resize": "keep_ratio", "size_px": 20}], ids=["as it comes", "resized"])
def test_pictures_of_all_colour_modes_are_kept(mode, changes):
    image = picture().convert("RGB" if mode == "I;16" else mode)
    image = Image.fromarray(np.zeros((30, 40), np.uint16)) if mode == "I;16" else image
    assert kept(stored(image, "JPEG" if mode in ("L", "CMYK") else "PNG"), **changes)


@pytest.mark.parametrize(
    ("changes", "came", "reason"),
    [
        ({"max_pixels": 1199}, (40, 30), "too_many_pixels"),
        ({"min_side_px": 31}, (40, 30), "too_small"),
        ({"max_aspect_ratio": 1.3}, (40, 30), "aspect"),
        ({"max_aspect_ratio": 1.3}, (30, 40), "aspect"),
    ],
)
@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("resize", ["none", "centre_crop"])
def test_sizes_are_judged_by_the_header_before_anything_is_decoded(
    monkeypatch, changes, came, reason, image_format, resize
):
    data = stored(picture(*came), image_format)
    if image_format != "AVIF":  # its header is read by its decoder
        monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
        monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    size_px = None if resize == "none" else 20
    assert keep(data, storage(resize=resize, size_px=size_px, **changes)) == reason


def test_sides_at_the_limits_are_kept():
    kept(stored(picture(40, 30)), max_pixels=1200, min_side_px=30, max_aspect_ratio=4 / 3)


def test_a_header_beyond_all_measure_is_refused():
    data = bytearray(stored(picture(), "PNG"))
    data[16:24] = b"\x00\xff\xff\xff" * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    assert keep(bytes(data), storage()) == "too_many_pixels"


def test_a_jpeg_of_endless_scans_is_refused_at_once():
    data = stored(picture(), progressive=True)
    last = data.rindex(b"\xff\xda")
    began = time.monotonic()
    assert keep(data[:-2] + data[last:-2] * 100_000 + data[-2:], storage(max_pixels=10**7)) == "too_many_scans"
    assert time.monotonic() - began < 1


def test_a_film_behind_a_jpeg_is_left_alone():
    data = jpeg() + np.random.default_rng(0).bytes(8_000_000)
    assert kept(data).image is data
    assert kept(data, resize="keep_ratio", size_px=20)


def test_only_the_kind_that_the_first_bytes_tell_is_tried():
    for other in ("TIFF", "BMP", "PPM", "ICO", "TGA", "JPEG2000"):
        assert keep(stored(picture(), other), storage()) == "wrong_type"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    assert keep(postscript, storage()) == "wrong_type"


@pytest.mark.parametrize("changes", [{}, {"resize": "keep_ratio", "size_px": 16}], ids=["as it comes", "resized"])
@pytest.mark.parametrize("image_format", FORMATS)
def test_cut_off_pictures_are_undecodable(image_format, changes):
    data = stored(picture(160, 120), image_format)
    assert keep(data[: len(data) // 2], storage(**changes)) in ("undecodable", "too_small")


@pytest.mark.parametrize("changes", [{}, {"resize": "centre_crop", "size_px": 16}], ids=["as it comes", "resized"])
@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_randomly_damaged_pictures_are_kept_or_refused_with_a_reason(image_format, changes):
    rng = np.random.default_rng(1)
    whole = np.frombuffer(stored(picture(), image_format), np.uint8)
    for _ in range(100):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
        result = keep(damaged.tobytes(), storage(**changes))
        if isinstance(result, Kept):
            with contextlib.suppress(ValueError):
                assert decode(result.image).shape[:2] == (result.height, result.width)


def test_odd_jpegs_that_others_read_are_kept():
    data = stored(picture())
    odd = data[:-2] + b"\x00" * 20 + data[-2:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(odd)
    assert kept(odd).image == odd


@pytest.mark.parametrize("image_format", FORMATS)
def test_no_other_decoder_sees_a_picture_than_that_of_its_kind(monkeypatch, image_format):
    asked: list[object] = []
    whole = Image.open

    def spy(file: object, *, formats: object = None) -> Image.Image:
        asked.append(formats)
        return whole(file, formats=formats)

    monkeypatch.setattr(Image, "open", spy)
    kept(stored(picture(), image_format), resize="keep_ratio", size_px=20)
    assert asked == [[image_format]]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_no_larger_than_needed(monkeypatch, orientation):
    decoded: list[tuple[int, int]] = []
    load = JpegImagePlugin.JpegImageFile.load

    def spy(image: JpegImagePlugin.JpegImageFile) -> object:
        decoded.append(image.size)
        return load(image)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", spy)
    kept(lying(orientation, width=400, height=300), resize="keep_ratio", size_px=60)
    assert decoded[0] == (200, 150)


def test_damage_anywhere_in_a_jpeg_is_found_at_the_reduced_scale_as_at_the_full_one():
    rng = np.random.default_rng(2)
    whole = np.frombuffer(stored(picture(160, 120), quality=95), np.uint8)
    verdicts = set()
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(2, len(whole))] ^= 1 << int(rng.integers(8))
        data = damaged.tobytes()[: len(whole) - int(rng.choice([0, 0, 0, 1, 300]))]
        results = []
        for scale in ({}, {"min_height": 1, "min_width": 1}):
            try:
                simplejpeg.decode_jpeg(data, **scale)
                results.append(True)
            except ValueError:
                results.append(False)
        assert results[0] == results[1]
        verdicts.add(results[0])
    assert verdicts == {True, False}

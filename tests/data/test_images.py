from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_t.data.images import (
    UndecodableImage,
    decode,
    decode_batch,
    decode_stored,
    encode,
    square,
    stack,
    to_signed,
    to_uint8,
)


def stored(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def noise(height: int = 12, width: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_byte_survives_the_way_to_floats_and_back():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    signed = to_signed(images)
    assert signed.min() == -1 and signed.max() == 1
    assert torch.equal(to_uint8(signed), images)


def test_floats_outside_the_range_are_clipped():
    assert to_uint8(torch.tensor([-7.0, 0.0, 7.0]).view(1, 1, 3)).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_lossless_formats_return_the_same_pixels(image_format):
    np.testing.assert_array_equal(decode(encode(noise(), image_format)), noise())


def test_jpeg_returns_nearly_the_same_pixels():
    smooth = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (32, 32, 3)).copy()
    assert np.abs(decode(encode(smooth, "jpeg")).astype(int) - smooth).max() <= 3


def test_a_batch_is_decoded_channel_first_in_order():
    pictures = [noise(), 255 - noise()]
    batch = decode_batch([encode(p) for p in pictures])
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), np.stack(pictures))


def test_a_damaged_picture_of_a_batch_is_undecodable():
    with pytest.raises(UndecodableImage, match="damaged"):
        decode_batch([encode(noise()), encode(noise())[:60]])


def waves(px: int) -> np.ndarray:
    """A picture of a few waves, none finer than four pixels at an eighth of the size."""
    down, right = np.mgrid[:px, :px] * 2 * np.pi / px
    channels = [np.sin(3 * down + 2 * right), np.cos(right - px // 64 * down), np.sin(right) * np.cos(2 * down)]
    return (127.5 + 100 * np.stack(channels, axis=-1)).astype(np.uint8)


def test_a_stored_jpeg_has_the_pixels_that_pillow_sees():
    data = encode(waves(64), "jpeg")
    np.testing.assert_array_equal(decode_stored(data), decode(data))


@pytest.mark.parametrize(("least_px", "side"), [(0, 128), (128, 128), (65, 80), (64, 64), (17, 32), (16, 16), (4, 16)])
def test_a_jpeg_comes_at_the_smallest_eighth_of_its_size_that_is_enough(least_px, side):
    assert decode_stored(encode(waves(128), "jpeg"), least_px).shape == (side, side, 3)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_jpeg_at_reduced_scale_is_close_to_the_mean_over_each_area(scale):
    data, px = encode(waves(256), "jpeg"), 256 // scale
    by_area = decode(data).reshape(px, scale, px, scale, 3).mean(axis=(1, 3))
    error = np.abs(decode_stored(data, px) - by_area)
    assert error.mean() < 1 and error.max() < 5


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_other_formats_are_decoded_whole(image_format):
    np.testing.assert_array_equal(decode_stored(encode(waves(64), image_format), 8), waves(64))


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_stored_picture_cut_short_is_undecodable(image_format):
    data = encode(waves(64), image_format)
    for length in (0, 20, len(data) // 2):
        with pytest.raises(UndecodableImage, match="damaged"):
            decode_stored(data[:length])


def test_pictures_of_several_sizes_are_no_batch():
    with pytest.raises(UndecodableImage, match=r"several sizes: \(12, 20, 3\), \(64, 64, 3\)"):
        stack([waves(64), noise(), noise()])


def test_transparent_pixels_are_white_and_half_transparent_ones_half_way():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 128, 255]
    assert decode(stored(Image.fromarray(rgba)))[0, :, 0].tolist() == [255, 127, 0]


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.putdata([0, 1])
    assert decode(stored(image, transparency=0))[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    assert decode(stored(image))[0, :, 0].tolist() == [0, 128, 255]


def test_cmyk_is_shown_in_colours():
    red = decode(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[4, 4]
    assert red[0] > 200 and red[1] < 60 and red[2] < 60


def test_a_photo_taken_sideways_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270°
    assert decode(stored(Image.fromarray(noise(12, 20)), "JPEG", exif=exif)).shape == (20, 12, 3)


def test_a_damaged_exif_block_loses_no_picture():
    data = stored(Image.fromarray(noise()), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(decode(data), noise())


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = stored(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>404</html>",
        encode(noise())[:80],
        stored(Image.fromarray(noise(64, 64)), "JPEG")[:300],
        encode(noise()).replace(b"IHDR", b"IHXX"),
    ],
    ids=["empty", "a web page", "cut png", "cut jpeg", "broken chunk"],
)
def test_bytes_that_are_no_picture_say_so(data):
    with pytest.raises(UndecodableImage):
        decode(data)


def test_a_decompression_bomb_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UndecodableImage):
        decode(encode(noise(12, 20)))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_randomly_damaged_files_decode_or_say_so(image_format):
    rng = np.random.default_rng(1)
    whole = np.frombuffer(stored(Image.fromarray(noise()), image_format), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
        with contextlib.suppress(UndecodableImage):
            assert decode(damaged.tobytes()).shape[2] == 3


def test_the_centre_square_of_the_right_size_is_untouched():
    picture = noise(12, 20)
    np.testing.assert_array_equal(square(picture, 12), picture[:, 4:16])


def test_reducing_averages_instead_of_skipping_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(square(stripes, 8).astype(int) - 127).max() <= 8

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import laplace

from stylegan_t.data import measures
from stylegan_t.data.images import decode, encode
from stylegan_t.data.measures import LOW_FREQUENCIES, Languages


def photo(seed: int, height: int = 300, width: int = 400) -> np.ndarray:
    """Soft blobs of several sizes with a few hard edges: as varied as photographs, and never twice the same."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (width, height))
    for cells in (3, 7, 16):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        picture = Image.blend(picture, noise.resize((width, height), Image.Resampling.BICUBIC), 0.5)
    picture.paste((20, 200, 90), (width // 3, height // 4, width // 2, height // 2))
    return np.asarray(picture)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=quality)
    return decode(out.getvalue())


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def perceptual_hash(picture: np.ndarray) -> int:
    (found,) = measures.perceptual_hashes(measures.hash_input(measures.luminance(picture))[None])
    return int(found)


def bits_apart(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_the_pixel_hash_is_of_pixels_and_size_not_of_files():
    picture = photo(0)
    assert measures.pixel_hash(decode(encode(picture, "webp"))) == measures.pixel_hash(decode(encode(picture, "png")))
    changed = picture.copy()
    changed[-1, -1, 2] ^= 1
    flat = np.zeros((4, 8, 3), np.uint8)
    others = [changed, flat, flat.reshape(8, 4, 3)]
    assert len({measures.pixel_hash(other) for other in [picture, *others]}) == 4
    assert measures.pixel_hash(np.asfortranarray(picture)) == measures.pixel_hash(picture)


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_in_another_quality_or_size_keeps_its_perceptual_hash(seed):
    picture = photo(seed)
    copies = [
        jpeg(picture, 50),
        resized(picture, 800, 600),
        resized(picture, 130, 90),
        jpeg(resized(picture, 97, 60), 70),
    ]
    assert max(bits_apart(perceptual_hash(picture), perceptual_hash(copy)) for copy in copies) <= 6


def test_other_pictures_have_far_perceptual_hashes():
    hashes = [perceptual_hash(photo(seed)) for seed in range(12)]
    hashes.append(perceptual_hash(photo(0)[:, ::-1]))
    apart = [bits_apart(a, b) for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(apart) >= 14 and 24 <= np.mean(apart) <= 40


def test_the_perceptual_hash_is_the_sign_of_low_frequencies_about_their_median():
    inputs = np.stack([measures.hash_input(measures.luminance(photo(seed))) for seed in range(3)])
    k, n, size = np.arange(LOW_FREQUENCIES)[:, None], np.arange(inputs.shape[1]), inputs.shape[1]
    cosines = 2 * np.cos(np.pi * k * (2 * n + 1) / (2 * size))
    for found, grey in zip(measures.perceptual_hashes(inputs).tolist(), inputs, strict=True):
        low = (cosines @ grey @ cosines.T).ravel()
        assert f"{found:064b}" == "".join("1" if value > np.median(low) else "0" for value in low)


@pytest.mark.parametrize("grey", [0, 77, 255])
def test_plain_pictures_share_a_hash_whatever_their_brightness(grey):
    black, other = np.zeros((1, 32, 32), np.uint8), np.full((1, 32, 32), grey, np.uint8)
    assert bits_apart(int(measures.perceptual_hashes(black)[0]), int(measures.perceptual_hashes(other)[0])) <= 1


def test_frequencies_that_a_picture_lacks_set_no_bit():
    stripes = np.random.default_rng(0).integers(0, 256, 32, dtype=np.uint8)
    (found,) = measures.perceptual_hashes(np.broadcast_to(stripes, (1, 32, 32)))
    assert int(found) % 2**56 == 0, "upright stripes vary along rows alone, whose bits are the highest eight"


def sharpness(picture: np.ndarray, side_px: int) -> float:
    return measures.sharpness(measures.luminance(picture), side_px)


def test_sharpness_is_the_variance_of_the_laplacian():
    grey = measures.luminance(photo(0, 64, 64))
    expected = laplace(grey.astype(float))[1:-1, 1:-1].var()
    assert measures.sharpness(grey, 64) == pytest.approx(expected, rel=1e-12)


def test_blur_lowers_the_sharpness_and_a_plain_picture_has_none():
    picture = photo(1, 256, 256)
    softer = [np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(r))) for r in (1, 2, 4)]
    found = [sharpness(each, 128) for each in [picture, *softer, np.full_like(picture, 9)]]
    assert found == sorted(found, reverse=True) and found[-1] == 0


def test_sharpness_compares_between_sizes():
    small = photo(2, 128, 128)
    large = resized(small, 512, 512)
    assert sharpness(large, 128) == pytest.approx(sharpness(small, 128), rel=0.5)
    assert sharpness(large, 512) < sharpness(small, 128) / 5, "at its own size the blown-up picture is blurred"


def test_sharpness_looks_at_the_centre_square_alone():
    picture = photo(3, 100, 160)
    edged = picture.copy()
    edged[:, :30:2] = edged[:, -30::2] = 255
    assert sharpness(edged, 64) == sharpness(picture, 64)


@pytest.mark.parametrize(("caption", "words"), [("a red  circle", 3), ("", 0), ("猫が寝ている", 1), ("non-stop", 1)])
def test_words_are_what_spaces_part(caption, words):
    assert measures.num_words(caption) == words


SENTENCES = {
    "en": "a large red circle on a blue background",
    "de": "eine Katze schläft auf dem Sofa",
    "fr": "un chat qui dort sur le canapé rouge",
    "ja": "猫が寝ている",
    "el": "ένας γάτος κοιμάται στον καναπέ",
}


@pytest.fixture(scope="module")
def languages():
    return Languages(0.5)


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_tells_its_language(languages, language):
    assert languages(SENTENCES[language]) == language


def test_too_little_text_is_undetermined_unless_a_guess_will_do(languages):
    guess = Languages(0.0)
    for caption in ["", "12345", "IMG_1234.JPG", "cat", "grinning face"]:
        assert languages(caption) == "und" != guess(caption)


def test_a_repeated_caption_is_looked_at_once(monkeypatch):
    looked, classify = [], measures.LanguageIdentifier.classify
    monkeypatch.setattr(
        measures.LanguageIdentifier, "classify", lambda self, text: looked.append(text) or classify(self, text)
    )
    languages = Languages(0.5)
    found = [languages(caption) for caption in ["a cat", "a dog", "a cat", "a cat"]]
    assert looked == ["a cat", "a dog"] and found[0] == found[2] == found[3]

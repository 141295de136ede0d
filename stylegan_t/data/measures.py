"""What can be told of a picture and of a caption without a network: pure functions, the same on every machine."""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache

import numpy as np
from jaxtyping import UInt8, UInt64
from PIL import Image
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from scipy.fft import dctn

HASH_PX = 32
"""Side of the grey picture that a perceptual hash looks at."""
LOW_FREQUENCIES = 8
"""Of these, per axis, a perceptual hash keeps one bit each."""


def pixel_hash(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A sha256 that two files share exactly when they show the same pixels at the same size."""
    digest = hashlib.sha256(f"{picture.shape[1]}x{picture.shape[0]} ".encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.digest()


def luminance(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """Brightness by ITU-R 601, as JPEG stores it."""
    return np.asarray(Image.fromarray(picture).convert("L"))


def hash_input(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "p p"]:
    """The whole picture, squashed to the square that ``perceptual_hashes`` looks at."""
    return _resized(grey, HASH_PX)


def perceptual_hashes(inputs: UInt8[np.ndarray, "n p p"]) -> UInt64[np.ndarray, " n"]:
    """64 bits each, of which a copy in another size, format or quality shares nearly all, another picture about half.

    A bit says whether one of the 8 × 8 lowest frequencies of the discrete cosine transform exceeds their median (as in
    the ``imagehash`` package; Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"). Rows
    first, the mean brightness in the highest bit. Frequencies are rounded to whole numbers, so that in a plain picture
    all of them are zero, whatever the arithmetic.

    Args:
        inputs: Pictures by ``hash_input``.
    """
    frequencies = np.asarray(dctn(inputs.astype(np.float64), axes=(1, 2)))
    low = frequencies[:, :LOW_FREQUENCIES, :LOW_FREQUENCIES].round().reshape(len(inputs), LOW_FREQUENCIES**2)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def sharpness(grey: UInt8[np.ndarray, "h w"], side_px: int) -> float:
    """Variance of the Laplacian of the luminance, of the centre square at a fixed size; low where it is blurred.

    Edges weigh by their square: a plain picture has 0, a photograph in focus some hundreds or thousands. It is taken
    after the crop and the resize, so that pictures of all sizes compare, and say how sharp a training at this size
    would see them: a large picture gains, one that is smaller than the size loses.

    Args:
        grey: The picture by ``luminance``.
        side_px: The size; 3 or more.
    """
    height, width = grey.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    seen = _resized(grey[top : top + side, left : left + side], side_px).astype(np.int16)
    neighbours = seen[:-2, 1:-1] + seen[2:, 1:-1] + seen[1:-1, :-2] + seen[1:-1, 2:]
    laplacian = (neighbours - 4 * seen[1:-1, 1:-1]).astype(np.int32)
    mean, mean_square = laplacian.sum() / laplacian.size, np.square(laplacian).sum() / laplacian.size
    return float(mean_square - mean**2)  # the sums are of whole numbers, so the same on each machine


def num_words(caption: str) -> int:
    """Words between spaces; 1 in a script that sets none, such as Chinese or Thai."""
    return len(caption.split())


class Languages:
    """Tells languages by py3langid, which carries its own model and knows about 140.

    The answer is an ISO 639 code of two letters (three where there are none of two); ``zxx`` where nothing is said, as
    in a row of digits; ``und`` (undetermined) where the model's confidence is lower than asked: in one or two words
    there is no telling Latin from English.

    Args:
        min_confidence: Probability from 0 (always a guess) to 1.
    """

    def __init__(self, min_confidence: float) -> None:
        self._classify = lru_cache(maxsize=2**16)(_identifier(min_confidence).classify)

    def __call__(self, caption: str) -> str:
        language, _ = self._classify(caption)
        return language


@cache
def _identifier(min_confidence: float) -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=min_confidence)


def _resized(grey: UInt8[np.ndarray, "h w"], side_px: int) -> UInt8[np.ndarray, "p p"]:
    if grey.shape == (side_px, side_px):
        return grey
    return np.asarray(Image.fromarray(grey).resize((side_px, side_px), Image.Resampling.LANCZOS))

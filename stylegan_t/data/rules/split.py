"""The split into training and held-out pairs, by a hash of the key: other samples change nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, UInt64


def key_hashes(keys: Iterable[str], variant_pattern: str | None = None) -> UInt64[np.ndarray, " n"]:
    """64 bits of the sha256 of each key.

    Args:
        variant_pattern: What it matches is cut from the key first, so that variants of a picture share their hash.
    """
    if variant_pattern is not None:
        variant = re.compile(variant_pattern)
        keys = (variant.sub("", key) for key in keys)
    digests = b"".join([hashlib.sha256(key.encode()).digest()[:8] for key in keys])
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def held_out(hashes: UInt64[np.ndarray, " n"], p_heldout: float) -> Bool[np.ndarray, " n"]:
    """True for about the share ``p_heldout`` of the keys; a larger share holds out the same ones and more."""
    return hashes / 2.0**64 < p_heldout

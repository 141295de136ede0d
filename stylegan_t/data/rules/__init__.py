"""Which pairs are trained on, and on which side of the split each falls: pure functions of the score tables.

Rules are asked in the order of ``REASONS``, and a row gets the first reason that applies. Duplicates come last: of
several pairs with the same pixels, the first by key *that passes every other rule* stays, so no good one is lost.
"""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

KEPT = "kept"
REASONS = (
    "undecodable",
    "too_small",
    "aspect",
    "caption_too_short",
    "caption_too_long",
    "low_clip_score",
    "duplicate",
)

SCORE_COLUMNS = {
    "key": pa.string(),
    "caption_chars": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "decodable": pa.bool_(),
    "pixel_sha256": pa.string(),
    "clip_score": pa.float32(),
}
"""What the rules read, a row per pair (the tables also hold the embeddings)."""


def judge(
    scores: pa.Table,
    *,
    min_side_px: int,
    max_aspect_ratio: float,
    min_caption_chars: int,
    max_caption_chars: int,
    drop_exact_duplicates: bool,
    min_clip_score: float | None,
    keep_fraction: float | None,
) -> np.ndarray:
    """One of ``REASONS`` or ``KEPT`` for each row.

    Args:
        scores: Columns as in ``SCORE_COLUMNS``.
        keep_fraction: Share of the distinct pictures that pass the other rules (rounded up; ties stay), by the best
            CLIP score of each.
    """
    column = {name: scores[name].to_numpy() for name in SCORE_COLUMNS if name not in ("key", "pixel_sha256")}
    shorter, longer = (
        np.minimum(column["width"], column["height"]),
        np.maximum(column["width"], column["height"]),
    )
    reasons = np.full(len(scores), KEPT, dtype=object)

    def drop(reason: str, applies: Bool[np.ndarray, " n"]) -> None:
        reasons[(reasons == KEPT) & applies] = reason

    drop("undecodable", ~column["decodable"])
    drop("too_small", shorter < min_side_px)
    drop("aspect", longer > max_aspect_ratio * shorter)
    drop("caption_too_short", column["caption_chars"] < min_caption_chars)
    drop("caption_too_long", column["caption_chars"] > max_caption_chars)
    if min_clip_score is not None:
        drop("low_clip_score", ~(column["clip_score"] >= min_clip_score))
    pictures = scores["pixel_sha256"].combine_chunks().dictionary_encode().indices.to_numpy()
    if not drop_exact_duplicates:
        pictures = np.arange(len(scores))
    if keep_fraction is not None:
        least = cutoff(column["clip_score"][reasons == KEPT], pictures[reasons == KEPT], keep_fraction)
        drop("low_clip_score", ~(column["clip_score"] >= least))
    drop("duplicate", _repeats(scores, pictures, reasons == KEPT))
    return reasons


def cutoff(clip_score: Float[np.ndarray, " n"], pictures: np.ndarray, keep_fraction: float) -> float:
    """The CLIP score that the best ``keep_fraction`` of the pictures reach; -inf where there are none."""
    if not len(clip_score):
        return -math.inf
    order = np.lexsort((clip_score, pictures))
    last_of_picture = np.append(pictures[order][1:] != pictures[order][:-1], True)
    best = np.sort(clip_score[order][last_of_picture])[::-1]
    return float(best[math.ceil(keep_fraction * len(best)) - 1])


def split(keys: list[str], p_heldout: float, variant_pattern: str | None) -> Bool[np.ndarray, " n"]:
    """True where a sample is held out: by a hash of its key, so other samples change nothing.

    Args:
        variant_pattern: What it matches is cut from the key first, so variants of a picture stay together.
    """
    variant = re.compile(variant_pattern) if variant_pattern else None
    bases = [variant.sub("", key) for key in keys] if variant else keys
    return np.array([_unit_hash(base) < p_heldout for base in bases], dtype=bool)


def _unit_hash(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _repeats(scores: pa.Table, pictures: np.ndarray, good: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """True for the good rows whose picture a good row with a lower key shows already."""
    rows = np.flatnonzero(good)
    by_key = rows[np.argsort(scores["key"].combine_chunks().take(rows).to_numpy(zero_copy_only=False), kind="stable")]
    _, first = np.unique(pictures[by_key], return_index=True)
    repeats = good.copy()
    repeats[by_key[first]] = False
    return repeats

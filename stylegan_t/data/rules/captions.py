"""Rules on captions: length, boilerplate, addresses, language, agreement with the picture.

Each caption of a pair is judged by itself: those that pass stay, and the pair with them; where none does, the pair is
dropped for the reason of its first caption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from stylegan_t.data.rules.columns import bools, floats, pc
from stylegan_t.data.rules.verdicts import Verdicts
from stylegan_t.data.scores import flat
from stylegan_t.errors import SettingsError

REASONS = (
    "caption_too_short", "caption_too_long", "caption_few_words", "caption_many_words", "caption_few_letters",
    "caption_url", "caption_boilerplate", "caption_language", "low_clip_score",
)  # fmt: skip
"""In the order in which they are asked."""
COLUMNS = {"captions", "caption_words", "language", "clip_score"}
URL = (
    r"(?i)\b(?:https?|ftp)://|\bwww\.\pL"  # an address
    r"|\b[\w-]+\.(?:com|net|org|info|biz|co\.\pL{2}|html?|php|aspx?)\b"  # a host or a page without its scheme
    r"|\b[\w-]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|pdf|psd|eps|mp4|mov)\b"  # a file's name
)
OTHER_SIGN = r"[^\pL\pM\s]"


@dataclass(frozen=True)
class CaptionRules:
    """What a caption must be like; None (or nothing in the list) asks nothing.

    Attributes:
        min_chars, max_chars: Characters.
        min_words, max_words: Words between spaces.
        min_letters: Share of letters (of any script) among the characters that are no space.
        drop_urls: Whether a caption may hold no web address and no name of a file.
        boilerplate: Regular expressions, searched for in either case.
        languages: Codes as in the score tables, ``und`` where the language could not be told.
        min_clip_score: Cosine of picture and caption.
    """

    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_letters: float | None = None
    drop_urls: bool = False
    boilerplate: tuple[str, ...] = ()
    languages: tuple[str, ...] | None = None
    min_clip_score: float | None = None

    def __post_init__(self) -> None:
        for pattern in self.boilerplate:
            try:
                pc.match_substring_regex(pa.array([""]), pattern)
            except pa.ArrowInvalid as error:
                raise SettingsError(
                    f"filter.boilerplate_captions: {pattern!r} is not understood ({' '.join(str(error).split())}); "
                    "patterns are searched by RE2, which has no look-ahead, look-behind or back-references"
                ) from None


def judge_captions(table: pa.Table, rules: CaptionRules) -> tuple[Int64[np.ndarray, " n_plus_1"], Verdicts]:
    """Where the captions of each row of a score table begin, and a verdict on each caption."""
    starts, captions = flat(table["captions"])
    verdicts = Verdicts(REASONS, len(captions))
    chars = np.asarray(pc.utf8_length(captions))
    words = np.asarray(flat(table["caption_words"])[1])
    for name, values, least, most in (
        ("caption_too_short", chars, rules.min_chars, None), ("caption_too_long", chars, None, rules.max_chars),
        ("caption_few_words", words, rules.min_words, None), ("caption_many_words", words, None, rules.max_words),
    ):  # fmt: skip
        if least is not None:
            verdicts.drop(name, values < least, values)
        if most is not None:
            verdicts.drop(name, values > most, values)
    if rules.min_letters is not None:
        share = share_of_letters(captions)
        verdicts.drop("caption_few_letters", share < rules.min_letters, share)
    if rules.drop_urls:
        verdicts.drop("caption_url", bools(pc.match_substring_regex(captions, URL)))
    if rules.boilerplate:
        pattern = "|".join(f"(?:{each})" for each in rules.boilerplate)
        verdicts.drop("caption_boilerplate", bools(pc.match_substring_regex(captions, pattern, ignore_case=True)))
    if rules.languages is not None:
        spoken = pc.is_in(flat(table["language"])[1], value_set=pa.array(rules.languages, pa.string()))
        verdicts.drop("caption_language", ~bools(spoken))
    if rules.min_clip_score is not None:
        scores = floats(flat(table["clip_score"])[1])
        verdicts.drop("low_clip_score", ~(scores >= np.float32(rules.min_clip_score)), scores)
    return starts, verdicts


def share_of_letters(captions: pa.ChunkedArray) -> Float32[np.ndarray, " m"]:
    """Letters among the characters that are no space (the only white space in a caption); 0 where there is none."""
    visible = np.asarray(pc.subtract(pc.utf8_length(captions), pc.count_substring(captions, " ")), np.float32)
    others = np.asarray(pc.count_substring_regex(captions, OTHER_SIGN), np.float32)
    return np.where(visible > 0, 1 - others / np.maximum(visible, 1), 0).astype(np.float32)

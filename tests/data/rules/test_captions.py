from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import yaml

from stylegan_t.data.rules.captions import CaptionRules, judge_captions, share_of_letters
from stylegan_t.errors import SettingsError
from tests.data.rules.tables import score_table
from tests.imports import ROOT

BOILERPLATE = tuple(
    yaml.safe_load((ROOT / "stylegan_t" / "profiles" / "lite.yaml").read_text())["filter"]["boilerplate_captions"]
)


def verdict(caption: str, *, language: str = "en", score: float = 0.5, **rules: Any) -> str:
    table = score_table({"caption": caption, "language": [language], "score": score})
    starts, verdicts = judge_captions(table, CaptionRules(**rules))
    assert starts.tolist() == [0, 1]
    return ["", *verdicts.reasons][verdicts.codes[0]]


@pytest.mark.parametrize(
    ("caption", "rules", "reason"),
    [
        ("ab", {"min_chars": 3}, "caption_too_short"),
        ("äöü", {"min_chars": 3}, ""),
        ("abcd", {"max_chars": 3}, "caption_too_long"),
        ("äöü", {"max_chars": 3}, ""),
        ("a dog", {"min_words": 3}, "caption_few_words"),
        ("a red dog", {"min_words": 3}, ""),
        ("a big red dog", {"max_words": 3}, "caption_many_words"),
        ("a red dog", {"max_words": 3}, ""),
        ("a1 b2 c3", {"min_letters": 0.51}, "caption_few_letters"),
        ("a1 b2 c3", {"min_letters": 0.5}, ""),
        ("12345", {"min_letters": 0.1}, "caption_few_letters"),
    ],
)
def test_each_rule_draws_its_line_where_the_setting_says(caption, rules, reason):
    assert verdict(caption, **rules) == reason


def test_rules_that_are_off_ask_nothing():
    assert verdict("!", language="xx", score=-1.0) == ""


@pytest.mark.parametrize(
    "caption",
    ["see https://example.com/cats", "WWW.EXAMPLE.ORG", "a cat by example.com", "img_0815.JPG", "index.html",
     "shop.co.uk", "my cat.jpeg and I"],
)  # fmt: skip
def test_captions_with_an_address_or_a_file_name_are_told(caption):
    assert verdict(caption, drop_urls=True) == "caption_url"
    assert verdict(caption) == ""


@pytest.mark.parametrize(
    "caption",
    ["Dr. No. One of the best", "a net. Another one", "3.5 kg of flour", "St. John's, e.g. here", "a .net event"],
)
def test_full_stops_are_no_addresses(caption):
    assert verdict(caption, drop_urls=True) == ""


@pytest.mark.parametrize(
    "caption",
    [
        "image",
        "A photo of",
        "Untitled.",
        "IMG_0815",
        "DSCF 1234",
        "Photo 3",
        "Sunset - Shutterstock",
        "a cat (royalty-free)",
    ],
)
def test_the_boilerplate_of_the_profiles_is_found_in_either_case(caption):
    assert verdict(caption, boilerplate=BOILERPLATE) == "caption_boilerplate"


@pytest.mark.parametrize(
    "caption", ["a photo of a cat", "an image on a wall", "picture book", "photograph 3 of my cat"]
)
def test_captions_that_only_begin_like_boilerplate_stay(caption):
    assert verdict(caption, boilerplate=BOILERPLATE) == ""


def test_a_pattern_that_the_search_does_not_know_is_a_settings_error():
    with pytest.raises(SettingsError, match=r"boilerplate_captions: 'a\(\?=b\)' is not understood.*RE2"):
        CaptionRules(boilerplate=("a(?=b)",))


@pytest.mark.parametrize(
    ("language", "allowed", "reason"),
    [("en", ("en",), ""), ("de", ("en",), "caption_language"), ("und", ("en",), "caption_language"),
     ("und", ("en", "und"), ""), ("de", None, "")],
)  # fmt: skip
def test_languages_that_are_not_listed_are_dropped(language, allowed, reason):
    assert verdict("a dog", language=language, languages=allowed) == reason


@pytest.mark.parametrize(
    ("score", "reason"), [(0.25, ""), (0.2499, "low_clip_score"), (float("nan"), "low_clip_score")]
)
def test_the_similarity_to_the_picture_is_asked_of_each_caption(score, reason):
    assert verdict("a dog", score=score, min_clip_score=0.25) == reason


def test_a_caption_gets_the_first_reason_of_the_documented_order():
    asked: dict[str, Any] = {"min_chars": 60, "min_words": 20, "min_letters": 0.99, "drop_urls": True,
                             "boilerplate": ("photo",), "languages": ("en",), "min_clip_score": 0.9}  # fmt: skip
    expected = ["caption_too_short", "caption_few_words", "caption_few_letters", "caption_url", "caption_boilerplate",
                "caption_language", "low_clip_score"]  # fmt: skip
    for position, reason in enumerate(expected):
        rules = dict(list(asked.items())[position:])
        assert verdict("photo 1 by example.com", language="de", score=0.1, **rules) == reason


def test_every_caption_of_a_pair_is_judged_by_itself():
    table = score_table({"captions": ["ab", "a long one", "c"], "scores": [0.1, 0.2, 0.9]}, {"caption": "another"})
    starts, verdicts = judge_captions(table, CaptionRules(min_chars=3, min_clip_score=0.3))
    assert starts.tolist() == [0, 3, 4]
    assert [["", *verdicts.reasons][code] for code in verdicts.codes] == [
        "caption_too_short", "low_clip_score", "caption_too_short", "",
    ]  # fmt: skip
    assert verdicts.values[:3].tolist() == pytest.approx([2, 0.2, 1])


def test_letters_of_any_script_are_letters():
    captions = pa.chunked_array([["日本語の写真", "naïve café", "ab12", "", "!?", "नमस्ते दुनिया"]])
    assert share_of_letters(captions).tolist() == [1, 1, 0.5, 0, 0, 1]

"""Every rule's setting changes a verdict, and impossible ones are refused."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import yaml

from stylegan_t.data.rules.judge import judge
from stylegan_t.data.scores import open_scores
from stylegan_t.data.shards import MANIFEST
from stylegan_t.errors import SettingsError
from stylegan_t.files import sha256
from stylegan_t.models.encoder_files import identity
from stylegan_t.settings.filter import Filter
from stylegan_t.stages import filter
from tests.imports import ROOT
from tests.settings_fields import leaves
from tests.stages.data_world import config
from tests.stages.filter_world import RULES, filtered, scored_world


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return scored_world(tmp_path_factory.mktemp("scored"))


EFFECTS: dict[str, Any] = {
    "min_side_px": None, "max_aspect_ratio": None, "min_caption_chars": None, "max_caption_chars": None,
    "thresholds": [{"column": "width", "min": 34.0, "max": None, "keep_fraction": None}],
    "blocklists": [{"kind": "keys", "path": "keys", "sha256": None}],
    "min_caption_words": 3, "max_caption_words": 2, "min_caption_letters": 0.8,
    "drop_url_captions": True, "boilerplate_captions": ["^good 1"], "languages": ["xx"], "min_clip_score": 0.9,
    "keep_fraction": 0.5, "duplicates.same_pixels": False, "duplicates.max_perceptual_distance": 16,
    "duplicates.min_cosine": 0.0, "decontamination.same_pixels": False,
    "decontamination.max_perceptual_distance": 16, "decontamination.min_cosine": 0.0, "p_heldout": 0.5,
    "variant_pattern": None,
}  # fmt: skip
"""Another value for each setting of a rule, which must change a verdict or a side of the split."""
ELSEWHERE = {"image_px", "image_format", "engine", "duplicates.cell_size"}
"""Tested above, or with the rules."""
NEEDS = {
    "decontamination.same_pixels": {"duplicates": RULES["duplicates"] | {"same_pixels": False}},
}  # fmt: skip


def test_no_setting_is_left_out():
    assert set(leaves(Filter)) == set(EFFECTS) | ELSEWHERE


def test_cells_are_of_the_size_in_the_settings():
    duplicates = RULES["duplicates"] | {"cell_size": 17}
    assert filter.rules_of(config(filter={**RULES, "duplicates": duplicates}).filter, []).cell_size == 17


def test_dvc_sees_every_setting_but_the_engine_which_changes_no_result():
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["filter"]["params"]
    mine = [f"filter.{name}" for name in Filter.model_fields if name != "engine"]
    assert listed == [*mine, "download.samples_per_shard"]


@pytest.mark.parametrize("name", EFFECTS)
def test_every_setting_of_a_rule_changes_a_verdict(scored, tmp_path, name):
    (tmp_path / "keys").write_text("good03")
    before = {**RULES, **NEEDS.get(name, {})}
    first, _, rest = name.partition(".")
    changed = before | {first: before[first] | {rest: EFFECTS[name]} if rest else EFFECTS[name]}
    found = []
    for settings in (config(filter=rules).filter for rules in (before, changed)):
        scores = open_scores(scored.scores, sha256(scored.raw / MANIFEST), identity(scored.players / "clip"))
        lists = [filter.open_blocklist(entry, tmp_path) for entry in settings.blocklists]
        judgement = judge(scores, filter.rules_of(settings, lists), tmp_path)
        found.append(
            (judgement.verdicts.codes.tolist(), judgement.each.caption_kept.tolist(), judgement.heldout.tolist())
        )
    assert found[0] != found[1]


def test_a_pattern_that_cannot_be_searched_is_a_settings_error(scored):
    with pytest.raises(SettingsError, match=r"boilerplate_captions.*RE2"):
        filtered(scored, boilerplate_captions=["a(?!b)"])


def test_patterns_are_those_of_the_search_from_the_start():
    patterns = [r"\p{Han}", r"\pL{3}\z", r"(?i)stock"]
    assert config(filter={**RULES, "boilerplate_captions": patterns}).filter.boilerplate_captions == patterns
    with pytest.raises(SettingsError, match=r"boilerplate_captions.*= 'a\(\?=b\)': RE2 does not understand it"):
        config(filter={**RULES, "boilerplate_captions": ["cat", "a(?=b)"]})


def test_settings_can_be_read_where_nothing_can_be_searched(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert config(filter={**RULES, "boilerplate_captions": ["("]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thresholds": [{"column": "sharpness", "min": None, "max": None, "keep_fraction": None}]}, "all are null"),
        ({"thresholds": [{"column": "sharpness", "min": 3.0, "max": 2.0, "keep_fraction": None}]}, "at least 3.0"),
        ({"languages": []}, "languages"),
        ({"boilerplate_captions": ["("]}, "RE2 does not understand it (missing"),
        ({"variant_pattern": "("}, "not a regular expression"),
        ({"duplicates": RULES["duplicates"] | {"max_perceptual_distance": 40}}, "max_perceptual_distance = 40"),
        ({"blocklists": [{"kind": "words", "path": "x", "sha256": "abc"}]}, "sha256"),
    ],
)
def test_settings_that_ask_nothing_possible_are_refused(change, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        config(filter={**RULES, **change})

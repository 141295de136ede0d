"""Whether a run is good enough against the last accepted one."""

import json

import pytest

from flows.reports.gate import Rule, judge, read_rules
from tests.imports import ROOT

DISTANCE = Rule(metric="fd_*", better="lower", tolerance=0.005)
ACCURACY = Rule(metric="mean_accuracy", better="higher", tolerance=0.1)


def figures(record: str = "docs/records/tiny.jsonl") -> dict[str, float]:
    """The final model's, as metrics.json has them at its top."""
    lines = map(json.loads, (ROOT / record).read_text().splitlines())
    final = next(each for each in lines if each["subject"] == "train_super_resolution")
    return {each["name"]: each["value"] for each in final["measurements"] if "value" in each} | final["facts"]


@pytest.mark.parametrize(
    ("rule", "before", "now", "good"),
    [
        pytest.param(DISTANCE, 0.002, 0.0069, True, id="higher by less than the tolerance"),
        pytest.param(DISTANCE, 0.002, 0.0071, False, id="higher by more"),
        pytest.param(DISTANCE, 0.02, 0.001, True, id="lower"),
        pytest.param(ACCURACY.model_copy(update={"metric": "fd_*"}), 0.9, 0.81, True, id="an accuracy a little lower"),
        pytest.param(ACCURACY.model_copy(update={"metric": "fd_*"}), 0.9, 0.79, False, id="an accuracy much lower"),
        pytest.param(ACCURACY.model_copy(update={"metric": "fd_*"}), 0.5, 0.99, True, id="an accuracy higher"),
    ],
)
def test_a_figure_may_be_worse_by_the_tolerance_and_no_more(rule, before, now, good):
    assert judge({"fd_x": now}, {"fd_x": before}, [rule]).accepted is good


def test_a_relative_tolerance_grows_with_the_accepted_figure_and_adds_to_the_absolute_one():
    rule = Rule(metric="fid*", better="lower", tolerance=1, relative_tolerance=0.1)
    assert judge({"fid": 22.9}, {"fid": 20.0}, [rule]).accepted
    assert not judge({"fid": 23.1}, {"fid": 20.0}, [rule]).accepted
    assert not judge({"fid": -17.9}, {"fid": -20.9}, [rule.model_copy(update={"tolerance": 0.5})]).accepted


def test_one_figure_too_bad_is_enough():
    good, bad = {"fd_x": 0.002, "mean_accuracy": 0.9}, {"fd_x": 0.001, "mean_accuracy": 0.7}
    verdict = judge(bad, good, [DISTANCE, ACCURACY])
    assert not verdict.accepted
    assert [line for line in verdict.lines if "allowed" in line] == [
        "mean_accuracy: 0.7 against 0.9: worse by 0.2, and 0.1 is allowed"
    ]


def test_the_first_run_is_accepted_and_it_says_so():
    verdict = judge({"fd_x": 99.0}, None, [DISTANCE])
    assert verdict.accepted
    assert "first run" in verdict.lines[0]


def test_what_neither_run_measured_is_skipped_and_said():
    verdict = judge({"other": 1.0}, {"other": 0.0}, [DISTANCE])
    assert verdict.accepted
    assert verdict.lines == ("fd_*: skipped, it was not measured",)


@pytest.mark.parametrize("now", [{}, {"fd_a": "none"}, {"fd_a": None}], ids=["absent", "a text", "null"])
def test_a_figure_that_is_gone_is_worse(now):
    verdict = judge(now, {"fd_a": 0.1}, [DISTANCE])
    assert not verdict.accepted
    assert verdict.lines == ("fd_a: worse, it is no longer measured",)


def test_one_of_several_figures_that_is_gone_is_worse():
    assert not judge({"fd_a": 0.1}, {"fd_a": 0.1, "fd_b": 0.1}, [DISTANCE]).accepted


def test_figures_of_another_protocol_are_not_compared():
    verdict = judge({"fd_clip_500_shapes32": 9.0}, {"fd_clip_5k_shapes32": 0.001}, [DISTANCE])
    assert verdict.accepted
    assert "not compared" in verdict.lines[0]


def test_how_far_repetitions_lie_apart_is_no_figure():
    lines = judge({"fd_a": 0.1, "fd_a_range": 9.0}, {"fd_a": 0.1, "fd_a_range": 0.0}, [DISTANCE]).lines
    assert lines == ("fd_a: 0.1 against 0.1: the same",)


def test_our_rules_find_the_final_model_s_figures_in_a_real_record():
    found = {rule.metric: rule.names(figures()) for rule in read_rules()}
    assert found["fd_small_clip_*"] == ["fd_small_clip_5k_shapes32"]
    assert found["mean_accuracy"] == ["mean_accuracy"]
    assert found["mean_accuracy_heldout"] == ["mean_accuracy_heldout"]


SEEDS = {  # docs/three_seeds.md, in other names
    0: {"fd_small_clip_5k_shapes32": 0.003627, "mean_accuracy": 0.9263, "mean_accuracy_heldout": 0.6300,
        "oracle_background": 0.9805, "oracle_colour": 0.9805},
    1: {"fd_small_clip_5k_shapes32": 0.005424, "mean_accuracy": 0.8457, "mean_accuracy_heldout": 0.8374,
        "oracle_background": 0.9688, "oracle_colour": 0.9688},
    2: {"fd_small_clip_5k_shapes32": 0.005634, "mean_accuracy": 0.8984, "mean_accuracy_heldout": 0.8569,
        "oracle_background": 0.9883, "oracle_colour": 0.9883},
}  # fmt: skip


@pytest.mark.parametrize("before", SEEDS)
@pytest.mark.parametrize("now", SEEDS)
def test_our_rules_take_no_seed_for_worse_than_another(before, now):
    verdict = judge(SEEDS[now], SEEDS[before], read_rules())
    assert verdict.accepted, verdict.lines


@pytest.mark.parametrize(
    ("name", "value"),
    [("fd_small_clip_5k_shapes32", 0.0101), ("mean_accuracy", 0.8), ("oracle_colour", 0.9)],
    ids=["distance", "accuracy", "colour"],
)
def test_our_rules_reject_what_no_other_seed_explains(name, value):
    accepted = figures()
    assert judge(accepted, accepted, read_rules()).accepted
    assert not judge(accepted | {name: value}, accepted, read_rules()).accepted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{metric: a, better: smaller}]", "rules.0.better = 'smaller'.*'lower' or 'higher'"),
        ("rules: [{metric: a, better: lower, tolerence: 1}]", "tolerence.*metric, better, tolerance, relative_tol"),
        ("rules: [{metric: a, better: lower, tolerance: -1}]", "tolerance = -1"),
        ("rules: [{metric: a, better: lower, tolerance: .inf}]", "tolerance = inf"),
        ("[", "not valid YAML"),
        ("", "all of it = None"),
    ],
    ids=["direction", "misspelt", "negative", "infinite", "no YAML", "empty"],
)
def test_a_wrong_rule_is_named_with_what_is_allowed(tmp_path, text, said):
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_rules(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_rules(tmp_path / "gate.yaml")

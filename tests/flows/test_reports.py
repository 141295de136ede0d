"""The end of a flow: the verdict, the history, and what is told of them."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.reports import gate, history, report
from flows.reports.gate import Rule
from flows.reports.history import Entry
from flows.reports.report import cell, conclude, metrics_table
from flows.reports.settings import Change, changes, flat, read_settings
from tests.imports import ROOT

DISTANCE = "fd_small_clip_5k_shapes32"
RULES = (Rule(metric="fd_*", better="lower", tolerance=0.005), Rule(metric="accuracy", better="higher"))


@dataclass(frozen=True)
class Done:
    stage: str
    outcome: str
    seconds: float = 1.5


ALL = [Done("train_generator", "ran", 61.04), Done("evaluate", "ran", 2.0)]
CACHED = [Done("train_generator", "cached"), Done("evaluate", "cached")]


def entry(run: str = "a", accepted: bool = True, settings: dict | None = None, **metrics: Any) -> Entry:
    return Entry(
        when="2026-01-01T00:00:00+00:00", run=run, commit=None, settings=settings or {}, metrics=metrics, rules=RULES,
        accepted=accepted, lines=("as it is",),
    )  # fmt: skip


# ---- settings --------------------------------------------------------------------------------------------------------


def test_settings_are_compared_key_by_key():
    before = flat({"seed": 0, "a": {"b": [1, 2], "c": None, "gone": "x"}, "empty": {}})
    now = flat({"seed": 0, "a": {"b": [1, 3], "c": 1.5, "new": None}, "empty": {}})
    assert changes(before, now) == [
        Change("a.b", "[1, 2]", "[1, 3]"), Change("a.c", "null", "1.5"), Change("a.new", "", "null"),
        Change("a.gone", '"x"', ""),
    ]  # fmt: skip
    assert changes(now, now) == []


def test_the_default_settings_are_read(tmp_path):
    assert read_settings(ROOT)["train_generator.network.z_dim"] == 64
    assert read_settings(tmp_path) == {}


@pytest.mark.parametrize("text", ["a: [", "- a"], ids=["no YAML", "a list"])
def test_settings_that_are_none_are_named(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ValueError, match="params.yaml: "):
        read_settings(tmp_path)


# ---- the history -----------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_again(tmp_path):
    entries = [entry("a", d=0.1, n=3, word="x"), entry("b", accepted=False, settings={"seed": 1, "list": [1, {}]})]
    for each in entries:
        history.append(tmp_path, each)
    assert history.read(tmp_path) == entries
    assert history.last(tmp_path) == entries[-1]


def test_a_line_tells_whoever_reads_it_without_us(tmp_path):
    history.append(tmp_path, entry("a", settings={"seed": 1}, d=0.1))
    line = json.loads((tmp_path / ".state" / "history.jsonl").read_text())
    assert (line["run"], line["accepted"], line["metrics"]) == ("a", True, {"d": 0.1})
    assert line["settings_digest"] == entry(settings={"seed": 1}).settings_digest
    assert line["settings_digest"] != entry(settings={"seed": 2}).settings_digest


@pytest.mark.parametrize("cut", [1, 50], ids=["its newline", "half of it"])
def test_a_torn_last_line_is_no_entry_and_spoils_none(tmp_path, cut):
    for name in "ab":
        history.append(tmp_path, entry(name))
    path = tmp_path / history.HISTORY
    path.write_bytes(path.read_bytes()[:-cut])
    assert [each.run for each in history.read(tmp_path)] == ["a"]
    history.append(tmp_path, entry("c"))
    assert [each.run for each in history.read(tmp_path)] == ["a", "c"]


def test_a_damaged_line_is_named_for_without_it_a_worse_run_could_pass(tmp_path):
    for name in "ab":
        history.append(tmp_path, entry(name))
    path = tmp_path / history.HISTORY
    path.write_bytes(b"{" + path.read_bytes())
    with pytest.raises(ValueError, match=r"history.jsonl: line 1 is no entry.*remove that line"):
        history.read(tmp_path)


def test_the_last_accepted_and_the_best_are_found():
    entries = [entry("a", d=0.3), entry("b", d=0.1), entry("c", d=0.1, other=1.0), entry("d", accepted=False, d=0.9)]
    assert history.last_accepted(entries) == entries[2]
    assert history.last_accepted(entries[3:]) is None
    assert history.best(entries, "d", "lower") == entries[1]
    assert history.best(entries, "d", "higher") == entries[3]
    assert history.best(entries, "unknown", "lower") is None


@pytest.mark.parametrize(
    ("settings", "reals", "same"),
    [
        ({"seed": 7, "train_generator.total_kimg": 1.0, "evaluate.num_psi_images": 2}, 1000, True),
        ({}, 1050, True),
        ({}, 2000, False),
        ({"evaluate.num_oracle_prompts": 32}, 1000, False),
        ({"evaluate.protocol": "quick"}, 1000, False),
        ({"download.source.kind": "folder"}, 1000, False),
        ({"fetch_encoders.judges.small_clip.seed": 9}, 1000, False),
    ],
    ids=["a training", "fresh data", "much more data", "oracle", "protocol", "source", "judge"],
)
def test_only_what_is_measured_alike_is_comparable(settings, reals, same):
    usual = flat(yaml.safe_load((ROOT / "params.yaml").read_text()))
    assert settings.keys() <= usual.keys()
    one = entry(settings=usual, **{history.NUM_REALS: 1000})
    other = entry(settings=usual | settings, **{history.NUM_REALS: reals})
    assert history.comparable(one, other) is same
    assert history.comparable(other, one) is same


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_table_has_each_figure_against_the_best_and_the_last_accepted():
    rivals = [entry("best", d=0.1, up=0.5), entry("last", d=0.3, up=0.75), entry("bad", accepted=False, d=0.9, up=1.0)]
    now = entry("now", d=0.25, up=0.5, unknown=3.0)
    assert metrics_table(now, rivals, {"d": "lower", "up": "higher"}) == [
        {"metric": "d", "better": "lower", "now": 0.25, "best so far": 0.1, "of run": "best", "last accepted": 0.3,
         "change": -0.05, "which is": "better"},
        {"metric": "up", "better": "higher", "now": 0.5, "best so far": 1.0, "of run": "bad", "last accepted": 0.75,
         "change": -0.25, "which is": "worse"},
    ]  # fmt: skip


def test_a_first_run_is_its_own_best():
    (row,) = metrics_table(entry("now", d=0.2), [], {"d": "lower"})
    assert (row["of run"], row["last accepted"], row["change"], row["which is"]) == ("now", None, None, "")


# ---- the end of a flow ------------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A repository with settings and an evaluation, under rules that no change of ours reaches."""
    rules = tmp_path / "gate.yaml"
    rules.write_text(yaml.safe_dump({"rules": [rule.model_dump() for rule in RULES]}))
    monkeypatch.setattr(report, "read_rules", lambda: gate.read_rules(rules))
    monkeypatch.delenv(report.DASHBOARD, raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / ".gitignore").write_text("/artifacts\n/.state\n/gate.yaml\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first")
    measured(tmp_path, 0.002)
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def measured(root: Path, distance: float, accuracy: float = 0.9) -> None:
    """What an evaluation leaves."""
    folder = root / "artifacts" / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    figures = {DISTANCE: distance, "accuracy": accuracy, "kd_small_clip_5k_shapes32": 1e-5, "none_rate": 0.1}
    groups = {"psi": {"0.8": {DISTANCE: distance}}, "protocol": {"name": "shapes", "num_reals": 1957}}
    (folder / "metrics.json").write_text(json.dumps(figures | groups))
    says = [{"name": name, "better": "lower"} for name in (DISTANCE, "kd_small_clip_5k_shapes32")]
    (folder / "evaluations.jsonl").write_text(json.dumps({"subject": "x", "measurements": says}) + "\n")


@pytest.fixture
def ended(workspace, monkeypatch):
    """Ends a flow of this name: gives the verdict, and the artifacts by key. (test_artifacts.py has a server.)"""
    seen = {}
    for kind in ("table", "markdown"):
        monkeypatch.setattr(report, f"create_{kind}_artifact", lambda data, key, **_: seen.update({key: data}))

    def end(run: str, results=ALL):
        seen.clear()
        return conclude(workspace, run, results, "Nightly | end to end"), dict(seen)

    return end


def test_a_worse_run_is_rejected_and_a_good_one_after_it_is_judged_by_the_last_accepted(workspace, ended):
    first, seen = ended("first")
    assert first.accepted
    measured(workspace, 0.02)
    second, seen = ended("second")
    assert not second.accepted
    assert f"{DISTANCE}: 0.02 against 0.002: worse by 0.018, and 0.005 is allowed" in second.lines
    assert "## Rejected" in seen["report"]
    measured(workspace, 0.006)
    third, seen = ended("third")
    assert third.accepted
    rows = {row["metric"]: row for row in seen["metrics"]}
    assert list(rows) == [DISTANCE, "accuracy", "kd_small_clip_5k_shapes32"]
    assert rows[DISTANCE]["last accepted"] == rows[DISTANCE]["best so far"] == 0.002
    assert (rows[DISTANCE]["of run"], rows[DISTANCE]["which is"]) == ("first", "worse")
    assert [each.accepted for each in history.read(workspace)] == [True, False, True]


def test_a_night_without_news_adds_nothing_and_keeps_the_verdict(workspace, ended):
    ended("good")
    measured(workspace, 0.02)
    rejected, seen = ended("bad")
    again, seen_again = ended("no news", CACHED)
    assert again == rejected
    assert seen_again["metrics"] == seen["metrics"]
    assert [each.run for each in history.read(workspace)] == ["good", "bad"]


def test_changed_rules_judge_the_same_model_anew(workspace, ended):
    ended("as good as it gets")
    measured(workspace, 0.02)
    assert not ended("too bad")[0].accepted
    (workspace / "gate.yaml").write_text("rules: [{metric: fd_*, better: lower, tolerance: 0.1}]")
    assert ended("on purpose", CACHED)[0].accepted
    assert history.present(workspace).run == "on purpose"


def test_going_back_to_accepted_settings_is_accepted(workspace, ended):
    ended("before")
    measured(workspace, 0.02)
    ended("worse")
    measured(workspace, 0.002)
    assert ended("back", [Done("evaluate", "restored")])[0].accepted
    assert len(history.read(workspace)) == 3


def test_another_protocol_starts_afresh(workspace, ended):
    ended("many prompts")
    change_settings(workspace, "num_oracle_prompts: 512", "num_oracle_prompts: 32")
    measured(workspace, 0.02)
    verdict, seen = ended("few prompts")
    assert verdict.accepted
    assert "first run of its kind" in verdict.lines[0]
    assert {row["of run"] for row in seen["metrics"]} == {"few prompts"}


@pytest.mark.parametrize(
    "results",
    [[Done("train_generator", "ran")], [Done("train_generator", "failed"), Done("evaluate", "skipped")]],
    ids=["not asked for", "skipped"],
)
def test_a_flow_that_evaluates_nothing_judges_nothing(workspace, results, ended):
    verdict, seen = ended(f"no verdict on {len(results)}", results)
    assert verdict is None
    assert "metrics" not in seen
    assert "train\\_generator" in seen["report"]
    assert not (workspace / history.HISTORY).exists()


def test_the_report_tells_what_ran_what_changed_and_where_to_look(workspace, monkeypatch, ended):
    monkeypatch.setenv(report.DASHBOARD, "http://dashboard.example/")
    ended("old settings")
    change_settings(workspace, "z_dim: 64", "z_dim: 32")
    measured(workspace, 0.003)
    text = ended("new settings")[1]["report"]
    assert "# Nightly \\| end to end" in text
    assert f"Commit: {git(workspace, 'rev-parse', 'HEAD')}+changes" in text
    assert "| train\\_generator | ran | 61.0 |" in text
    assert "| train\\_generator.network.z\\_dim | 64 | 32 |" in text
    assert "the last accepted run, old settings" in text
    assert "[Samples](http://dashboard.example/)" in text
    assert "[Metrics](http://dashboard.example/metrics)" in text


def test_the_lock_file_that_a_run_writes_is_no_change_to_the_commit(workspace):
    head = git(workspace, "rev-parse", "HEAD")
    (workspace / "dvc.lock").write_text("stages: {}")
    git(workspace, "add", "dvc.lock")
    assert report.commit(workspace) == head
    change_settings(workspace, "seed: 0", "seed: 1")
    assert report.commit(workspace) == f"{head}+changes"


def test_without_a_commit_there_is_none_to_name(tmp_path):
    assert report.commit(tmp_path) is None


def test_the_present_entry_is_of_the_metrics_that_are_there(workspace, ended):
    assert history.present(workspace) is None
    ended("judged")
    assert history.present(workspace).run == "judged"
    measured(workspace, 0.0021)
    assert history.present(workspace) is None


def test_damaged_metrics_are_named(workspace):
    (workspace / history.METRICS).write_text("[")
    with pytest.raises(ValueError, match="metrics.json: no JSON object"):
        history.read_metrics(workspace)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", "a\\|b"), ("a\nb", "a b"), ("<b>*x*_y_</b>", "\\<b\\>\\*x\\*\\_y\\_\\</b\\>"), ("[a](b)", "\\[a\\](b)")],
    ids=["a column", "a line", "markup", "a link"],
)
def test_a_text_is_shown_as_it_is(text, shown):
    assert cell(text) == shown


def change_settings(root: Path, before: str, now: str) -> None:
    path = root / "params.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, now))


def test_runs_that_end_at_once_lose_no_line(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(history.append, tmp_path, entry(str(number))) for number in range(100)]:
            done.result()
    assert {each.run for each in history.read(tmp_path)} == {str(number) for number in range(100)}

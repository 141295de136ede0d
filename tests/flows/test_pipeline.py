"""The flow as people start it: ``python -m flows.pipeline`` in its own process, with Prefect's own server."""

import json
import os
import re
import signal
import sqlite3

import psutil
import pytest

from tests.flows import standin

ONCE = "echo $STYLEGAN_T_RESUME >> resume-{0}; test -e tried-{0} || {{ touch tried-{0}; exit {1}; }}; cp {2} {0}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A first run in which one stage fails for good, and a second one after its data was mended."""
    folder = standin.make(
        tmp_path_factory.mktemp("pipeline"),
        first={"cmd": "echo hello from first; echo 1 > first"},
        flaky={
            "cmd": ONCE.format("flaky", 1, "first"), "deps": ["first"],
            "meta": {"prefect": {"retries": 1, "retry_delay_seconds": 0}},
        },
        stopped={"cmd": ONCE.format("stopped", 75, "flaky"), "deps": ["flaky"]},
        bad={
            "cmd": "echo once >> attempts; test -e mended || exit 3; cp stopped bad", "deps": ["stopped"],
            "meta": {"prefect": {"retries": 2, "retry_delay_seconds": 0}},
        },
        last={"cmd": "cp bad last", "deps": ["bad"]},
    )  # fmt: skip
    failed = standin.run(folder, STYLEGAN_T_RESUME="never")
    assert (folder / "attempts").exists(), failed[1]
    attempts = (folder / "attempts").read_text().count("once")
    resume = {stage: (folder / f"resume-{stage}").read_text().split() for stage in ("flaky", "stopped")}
    (folder / "mended").touch()
    return {"failed": failed, "attempts": attempts, "resume": resume, "mended": standin.run(folder)}


def test_a_failed_stage_fails_the_process_with_its_own_exit_code(runs):
    assert runs["failed"][0] == 3


def test_the_table_tells_what_became_of_each_stage(runs):
    expected = {"first": "ran", "flaky": "ran", "stopped": "ran", "bad": "failed", "last": "skipped"}
    assert standin.table(runs["failed"][1]) == expected


def test_data_errors_are_not_tried_again(runs):
    assert runs["attempts"] == 1


@pytest.mark.parametrize("stage", ["flaky", "stopped"], ids=["retried", "stopped to be resumed"])
def test_only_the_first_attempt_forgets_earlier_states(runs, stage):
    assert runs["resume"][stage] == ["never", "auto"]


def test_lines_of_a_stage_are_streamed(runs):
    assert "hello from first" in runs["failed"][1]


def test_a_failure_is_told_without_a_traceback(runs):
    assert "bad: its command exited with 3" in runs["failed"][1]
    assert "Traceback" not in runs["failed"][1]


def test_the_next_run_does_only_what_is_left(runs):
    code, output = runs["mended"]
    assert code == 0
    cached = dict.fromkeys(("first", "flaky", "stopped"), "cached")
    assert standin.table(output) == cached | {"bad": "ran", "last": "ran"}


def test_prefect_knows_the_failed_flow_and_keeps_the_table(runs, prefect_home):
    names = [re.search(r"Beginning flow run '([\w-]+)'", runs[run][1])[1] for run in ("failed", "mended")]
    with sqlite3.connect(prefect_home / "prefect.db") as database:  # other tests' flows are in it too
        found = dict(database.execute("SELECT name, state_type FROM flow_run"))
        table = (
            "SELECT data FROM artifact JOIN flow_run ON flow_run.id = artifact.flow_run_id "
            "WHERE artifact.key = 'pipeline-result' AND flow_run.name = ?"
        )
        rows = json.loads(json.loads(database.execute(table, names[:1]).fetchone()[0]))
    assert [found[name] for name in names] == ["FAILED", "COMPLETED"]
    assert [row["outcome"] for row in rows] == ["ran", "ran", "ran", "failed", "skipped"]
    assert all(row["seconds"] >= 0 for row in rows)


@pytest.mark.parametrize(
    ("to", "number"),
    [
        pytest.param(os.kill, signal.SIGTERM, id="flow", marks=pytest.mark.slow),
        pytest.param(os.killpg, signal.SIGTERM, id="group", marks=pytest.mark.slow),
        pytest.param(os.killpg, signal.SIGINT, id="ctrl-c"),
    ],
)
def test_a_stopped_run_leaves_no_process_behind_and_lets_the_stage_save(tmp_path, to, number):
    trap = "trap 'kill $!; sleep 1; echo saved > saved; exit 75' TERM INT; "
    work = "sleep 300 & echo $$ $! > pids; while :; do sleep 0.1; done"  # goes on, should a child be hit first
    folder = standin.make(tmp_path, stage={"cmd": trap + work})
    process = standin.start(folder)
    pids = standin.wait_for(folder / "pids").split()
    family = psutil.Process(process.pid).children(recursive=True)
    to(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert (folder / "saved").exists()
    assert not any(standin.is_running(int(pid)) for pid in pids)


def test_an_unknown_stage_is_refused_before_anything_starts(tmp_path):
    code, output = standin.run(standin.make(tmp_path, stage={"cmd": "touch stage"}), "stgae")
    assert (code, output.count("\n")) == (2, 1)
    assert "stgae is unknown; dvc.yaml has: stage" in output
    assert not (tmp_path / "stage").exists()


def test_a_second_run_in_the_same_workspace_is_refused_and_told_who_has_it(tmp_path):
    folder = standin.make(
        tmp_path, stage={"cmd": "echo begun > begun; until test -e go; do sleep 0.1; done; touch stage"}
    )
    first = standin.start(folder)
    standin.wait_for(folder / "begun")
    code, output = standin.run(folder)
    assert (code, output.count("\n")) == (73, 1)
    assert f"in use by pipeline, process {first.pid} since" in output
    (folder / "go").touch()
    first.communicate(timeout=60)
    assert first.returncode == 0


def test_a_plan_says_what_would_run_and_why_and_runs_nothing(tmp_path):
    folder = standin.make(tmp_path, first={"cmd": "touch first"}, last={"cmd": "cp first last", "deps": ["first"]})
    code, output = standin.run(folder, "--plan")
    assert code == 0 and re.search(r"first +│ run +│ it never ran", output), output
    assert re.search(r"last +│ run +│ first would run before it", output)
    assert not (folder / "first").exists()


@pytest.mark.slow
def test_a_refresh_that_fails_first_asks_the_source_again_and_takes_nothing_old(tmp_path):
    fails_once = "test ! -e ../away || { rm ../away; exit 1; }; date +%N > download"
    once_more = {"prefect": {"retries": 1, "retry_delay_seconds": 0}}
    download = {"cmd": fails_once, "params": ["a"], "meta": once_more}  # without any, DVC's run cache has nothing of it
    folder = standin.make(tmp_path / "w", {"a": 1}, download=download)
    assert standin.run(folder)[0] == 0
    before = (folder / "download").read_text()
    (tmp_path / "away").touch()
    code, output = standin.run(folder, "--refresh")
    assert code == 0 and not (tmp_path / "away").exists()
    assert standin.table(output) == {"download": "ran"} and (folder / "download").read_text() != before

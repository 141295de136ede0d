"""The seam to DVC, on pipelines of shell commands."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from flows.dvc import Options, Stage, StageFailed, read_stages, repair, repro, running
from flows.processes.guard import Tree
from stylegan_t.errors import InUse
from tests.flows import standin
from tests.imports import ROOT

CHAIN: dict = {
    "last": {"cmd": "cp middle last", "deps": ["middle"], "params": ["c"]},
    "middle": {
        "cmd": "cp first middle",
        "deps": ["first"],
        "params": ["b"],
        "meta": {"prefect": {"retries": 2}},
    },
    "first": {"cmd": "echo 1 > first", "params": ["a"]},
    "apart": {"cmd": "echo 1 > apart", "params": ["a"]},
}
PARAMS = {"a": 1, "b": 1, "c": 1}
SLEEPER = "echo $$ > pid; sleep 300 & echo $! > child; wait"


def outcome(folder, name="stage", log=print, **facts):
    return repro(Stage(name, options=Options(**facts)), folder, log)


def outcomes(folder) -> dict[str, str]:
    return {stage.name: outcome(folder, stage.name) for stage in read_stages(folder)}


@pytest.fixture
def chain(tmp_path):
    return standin.make(tmp_path / "chain", PARAMS, **CHAIN)


def test_each_stage_comes_after_what_it_needs_whatever_the_order_in_the_file(chain):
    names = [stage.name for stage in read_stages(chain)]
    assert sorted(names) == sorted(CHAIN)
    assert names.index("first") < names.index("middle") < names.index("last")


def test_targets_bring_what_they_need_and_nothing_else(chain):
    assert [stage.name for stage in read_stages(chain, ["middle"])] == ["first", "middle"]


def test_retries_are_read_from_the_stage(chain):
    assert {stage.name: stage.options.retries for stage in read_stages(chain, ["middle"])} == {
        "first": 0,
        "middle": 2,
    }


def test_an_unknown_target_is_named_with_those_that_exist(chain):
    with pytest.raises(ValueError, match=r"midle.*unknown.*last, middle, first, apart"):
        read_stages(chain, ["midle"])


def test_an_unknown_key_for_prefect_is_an_error(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "true", "meta": {"prefect": {"retry": 2}}})
    with pytest.raises(ValueError, match=r"stage: meta\.prefect: retry = 2: .*; there are: .*retries"):
        read_stages(folder)


def test_a_folder_without_a_pipeline_says_where_to_run(tmp_path):
    with pytest.raises(ValueError, match="repository's root"):
        read_stages(tmp_path)


def test_a_changed_parameter_reruns_its_stage_and_those_after_it_only(chain):
    assert set(outcomes(chain).values()) == {"ran"}
    assert set(outcomes(chain).values()) == {"cached"}
    (chain / "params.yaml").write_text("{a: 1, b: 2, c: 1}")
    (chain / "dvc.yaml").write_text((chain / "dvc.yaml").read_text().replace("cp first middle", "echo 2 > middle"))
    assert outcomes(chain) == {"first": "cached", "apart": "cached", "middle": "ran", "last": "ran"}


def test_what_dvc_computed_before_comes_from_its_run_cache(chain):
    outcomes(chain)
    (chain / "middle").unlink()
    assert outcome(chain, "middle") == "restored"
    assert (chain / "middle").read_text() == "1\n"


@pytest.mark.parametrize(("code", "again"), [(1, True), (2, False), (3, False), (75, True)])
def test_the_commands_own_exit_code_comes_through(tmp_path, code, again):
    folder = standin.make(tmp_path, stage={"cmd": f"echo working; exit {code}"})
    lines = []
    with pytest.raises(StageFailed, match=f"stage: its command exited with {code}") as failure:
        outcome(folder, log=lines.append)
    assert failure.value.exit_code == code
    assert failure.value.worth_retrying == again
    assert "working" in lines


def test_a_failure_of_dvc_itself_is_a_failure(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "true", "deps": ["absent"]})
    with pytest.raises(StageFailed, match="DVC failed"):
        outcome(folder)


def test_a_command_that_makes_no_output_fails(tmp_path):
    with pytest.raises(StageFailed):
        outcome(standin.make(tmp_path, stage={"cmd": "true"}))


def test_carriage_returns_end_lines(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": r"printf '1%%\r2%%\r\nend\n'; touch stage"})
    lines = []
    outcome(folder, log=lines.append)
    assert ["1%", "2%", "end"] == [line for line in lines if line in ("1%", "2%", "end", "1%2%")]


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param("", id="silent", marks=pytest.mark.slow),
        pytest.param("(while true; do echo noise; done) & ", id="chatty"),
    ],
)
def test_the_deadline_ends_the_command_and_what_it_started(tmp_path, noise):
    folder = standin.make(tmp_path, stage={"cmd": noise + SLEEPER})
    start = time.monotonic()
    with pytest.raises(StageFailed, match="not done after 6 s") as failure:
        outcome(folder, timeout_seconds=6, log=lambda line: None)
    assert failure.value.worth_retrying
    assert time.monotonic() - start < 25
    assert not any(standin.is_running(int((folder / name).read_text())) for name in ("pid", "child"))


def test_whoever_interrupts_us_stops_the_command_after_it_saved(tmp_path):
    trap = "trap 'kill $!; sleep 1; echo saved > saved; exit 75' TERM; "
    folder = standin.make(tmp_path, stage={"cmd": trap + "sleep 300 & echo ready; wait"})

    def interrupt(line: str) -> None:
        if line == "ready":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcome(folder, log=interrupt)
    assert (folder / "saved").exists()
    outcome(standin.make(folder, stage={"cmd": "touch stage"}))  # no lock was left behind


def test_parents_are_asked_to_stop_before_their_children(monkeypatch):
    asked = []
    terminate = psutil.Process.terminate
    monkeypatch.setattr(psutil.Process, "terminate", lambda process: (asked.append(process.pid), terminate(process)))
    for _ in range(3):  # a family of one moment: its members' ages do not tell them apart
        nested = "sh -c 'sh -c \"sleep 300 & echo; wait\" & wait' & wait"
        root = subprocess.Popen(["sh", "-c", nested], stdout=subprocess.PIPE)
        root.stdout.read(1)
        line = [process.pid for process in psutil.Process(root.pid).children(recursive=True)]
        parents = {process.pid: process.ppid() for process in map(psutil.Process, line)}
        asked.clear()
        Tree(root.pid, is_wrapper=True).end()
        root.communicate()
        assert sorted(asked) == sorted(line)
        assert all(asked.index(parent) < asked.index(pid) for pid, parent in parents.items() if parent != root.pid)


def test_a_command_that_ignores_the_request_to_stop_is_killed():
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", ignore], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "deaf\n"
        Tree(process.pid, is_wrapper=False).end(grace_seconds=1)
        assert not psutil.pid_exists(process.pid)


def test_a_command_ends_with_whoever_asked_for_it_though_killed(tmp_path):
    trap = "trap 'kill $!; sleep 1; echo saved > saved; exit 75' TERM; "
    folder = standin.make(tmp_path, stage={"cmd": trap + SLEEPER})
    code = "import pathlib; from flows.dvc import *; repro(Stage('stage'), pathlib.Path.cwd(), print)"
    asker = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
    pids = [int(standin.wait_for(folder / name)) for name in ("pid", "child")]
    asker.kill()
    asker.wait()
    standin.wait_for(folder / "saved", seconds=15)
    assert psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)[1] == []


def test_an_empty_lock_file_of_a_killed_dvc_is_repaired(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "touch stage"})
    lock = folder / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir()
    lock.touch()
    with pytest.raises(StageFailed, match="DVC failed"):
        outcome(folder)
    repair(folder)
    assert outcome(folder) == "ran"


def test_a_lock_that_says_something_is_left_alone(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "touch stage"})
    outcome(folder)
    lock = folder / ".dvc" / "tmp" / "rwlock"
    before = lock.read_text()
    repair(folder)
    assert lock.read_text() == before


def at_once(folder, *names) -> list[str]:
    """Outcomes of stages brought up to date at the same time."""
    found = []
    threads = [threading.Thread(target=lambda name=name: found.append(outcome(folder, name))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def test_two_stages_that_need_the_same_can_run_at_once(tmp_path):
    stages = {name: {"cmd": f"sleep 1; cp first {name}", "deps": ["first"]} for name in ("left", "right")}
    folder = standin.make(tmp_path, first={"cmd": "echo 1 > first"}, **stages)
    outcome(folder, "first")
    assert at_once(folder, "left", "right") == ["ran", "ran"]


def test_one_stage_asked_for_twice_at_once_runs_once(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BUSY_SECONDS", 0.5)
    folder = standin.make(tmp_path, stage={"cmd": "sleep 2; echo once >> count; touch stage"})
    assert at_once(folder, "stage", "stage") == ["cached", "ran"]
    assert (folder / "count").read_text() == "once\n"


def test_reading_the_graph_needs_no_prefect_and_no_torch():
    code = "import sys, flows.dvc; sys.exit(bool({'prefect', 'torch', 'dvc'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=standin.ROOT).returncode == 0


def test_a_stage_of_a_killed_asker_saves_though_nobody_reads_what_it_says(tmp_path):
    trap = "trap 'kill $!; echo saving; echo saved > saved; exit 75' TERM; "
    folder = standin.make(tmp_path, stage={"cmd": trap + "echo $$ > pid; sleep 300 & wait"})
    code = "import pathlib; from flows.dvc import *; repro(Stage('stage'), pathlib.Path.cwd(), print)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as asker:
        standin.wait_for(folder / "pid")
        asker.kill()
    assert standin.wait_for(folder / "saved", seconds=20) == "saved\n"


def test_what_a_killed_dvc_had_started_ends_too(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "echo $PPID > dvc; " + SLEEPER})

    def kill() -> None:
        standin.wait_for(folder / "child")
        time.sleep(1.5)  # the guard looks once a second
        parent = psutil.Process(int((folder / "dvc").read_text()))
        parent.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(StageFailed, match="DVC failed"):
        outcome(folder)
    thread.join()
    assert not any(standin.is_running(int((folder / name).read_text())) for name in ("pid", "child"))


def test_a_stage_that_another_process_makes_meanwhile_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BUSY_SECONDS", 0.1)
    folder = standin.make(
        tmp_path, stage={"cmd": f"test -e tried || {{ touch tried; exit {InUse.exit_code}; }}; touch stage"}
    )
    assert outcome(folder, "stage") == "ran"


def test_a_pipeline_that_dvc_cannot_read_is_a_mistake_of_who_wrote_it(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "touch stage"})
    (folder / "dvc.yaml").write_text("stages: [")
    with pytest.raises(ValueError, match=r"dvc\.yaml cannot be read"):
        read_stages(folder)

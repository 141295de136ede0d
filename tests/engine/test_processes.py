"""Parts on processes of this machine, which are killed, stopped and lied to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from stylegan_t.engine.run import run_parts
from stylegan_t.errors import DataError, WorkerLost
from stylegan_t.settings.engine import ProcessEngine
from tests.engine.works import Keep, Write, begun, results
from tests.imports import ROOT


def processes(num_workers: int) -> ProcessEngine:
    return ProcessEngine(kind="processes", num_workers=num_workers)


def nothing(part: int, facts: dict) -> None:
    """For those who do not care."""


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_each_part_is_made_once_and_told_once(tmp_path, num_workers):
    told = []
    run_parts(Write(tmp_path), [4, 2, 7, 1], processes(num_workers), lambda part, facts: told.append((part, facts)))
    assert sorted(told) == [(part, {"square": part**2}) for part in (1, 2, 4, 7)]
    assert begun(tmp_path) == dict.fromkeys([1, 2, 4, 7], 1)
    assert results(tmp_path) == {"1": b"1", "2": b"4", "4": b"16", "7": b"49"}
    assert not active_children()


def test_no_parts_are_no_work(tmp_path):
    run_parts(Write(tmp_path), [], processes(2), nothing)
    assert not begun(tmp_path)


def test_a_killed_worker_costs_its_part_in_hand_and_nothing_else(tmp_path):
    run_parts(Write(tmp_path, dies_once=(2,)), range(6), processes(2), nothing)
    assert begun(tmp_path) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 1}
    assert results(tmp_path) == {str(part): str(part**2).encode() for part in range(6)}


def test_workers_killed_between_two_parts_cost_nothing(tmp_path):
    def kill_all(part: int, facts: dict) -> None:
        if part == 0:
            for worker in active_children():  # of the two, one has just answered and waits for its next part
                worker.kill()

    run_parts(Write(tmp_path), range(5), processes(2), kill_all)
    made = begun(tmp_path)
    assert made.keys() == set(range(5)) and made.total() <= 6


def test_a_part_that_loses_its_worker_each_time_is_named_and_ends_the_run(tmp_path):
    with pytest.raises(WorkerLost, match="part 3 lost its process 3 times"):
        run_parts(Write(tmp_path, dies=(3,)), range(4), processes(2), nothing)
    assert begun(tmp_path) == {0: 1, 1: 1, 2: 1, 3: 3}
    assert not active_children()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_the_work_comes_through_as_itself_and_stops_the_rest_at_once(tmp_path, num_workers):
    start = time.monotonic()
    with pytest.raises(DataError, match="^part 0 is bad$"):
        run_parts(Write(tmp_path, complains=(0,), sleeps=(1,)), range(100), processes(num_workers), nothing)
    assert begun(tmp_path)[0] == 1 and begun(tmp_path).keys() <= {0, 1}
    assert time.monotonic() - start < 30 and not active_children()


@pytest.mark.parametrize(
    ("what", "line"),
    [({"confuses": (0,)}, "tests.engine.works.Unreadable: one two"), ({"grabs": (0,)}, "Unwritable: .*three")],
)
def test_an_error_that_cannot_be_sent_arrives_as_its_name_and_text_with_where_it_was(tmp_path, what, line):
    with pytest.raises(RuntimeError, match=line) as error:
        run_parts(Write(tmp_path, **what), [0], processes(1), nothing)
    assert "works.py" in str(error.value.__cause__) and begun(tmp_path) == {0: 1}


def test_an_answer_that_cannot_be_read_is_no_lost_worker(tmp_path):
    with pytest.raises(BrokenProcessPool) as error:
        run_parts(Write(tmp_path, riddles=(0,)), [0], processes(1), nothing)
    assert "missing 2 required positional arguments" in str(error.value.__cause__)
    assert begun(tmp_path) == {0: 1}


def test_a_worker_keeps_what_its_first_part_loaded():
    told: dict[int, dict] = {}
    run_parts(Keep(), range(12), processes(2), told.__setitem__)
    assert len({facts["loaded"] for facts in told.values()}) == len({facts["process"] for facts in told.values()}) <= 2


@pytest.mark.parametrize(
    ("num_workers", "expected", "given"),
    [
        (1, len(os.sched_getaffinity(0)), None),
        (2, max(1, len(os.sched_getaffinity(0)) // 2), None),
        (5, 1, None),
        (1, 5, "5"),
    ],
)
def test_workers_share_the_cores_unless_told_otherwise(monkeypatch, num_workers, expected, given):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    told: dict[int, dict] = {}
    run_parts(Keep(), range(num_workers), processes(num_workers), told.__setitem__)
    assert {facts["threads"] for facts in told.values()} == {str(expected)}


# ---- a command, stopped from outside --------------------------------------------------------------------------


def start(folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """``tests.engine.drive`` with two parts in hand, in a process group of its own that hears Ctrl-C; its children."""
    what = {"engine": {"kind": "processes", "num_workers": 2}, "parts": 99, "folder": str(folder), "seconds": 0.4}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.drive", json.dumps(what)],
        cwd=ROOT, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no thread of ours forks)
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[")
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize(
    ("to", "number"),
    [
        pytest.param(os.killpg, signal.SIGINT, id="ctrl-c"),
        pytest.param(os.kill, signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(os.kill, signal.SIGINT, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(os.killpg, signal.SIGTERM, id="SIGTERM to all", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_command_ends_its_workers_at_once_and_says_one_line(tmp_path, to: Callable, number):
    process, family = start(tmp_path)
    to(process.pid, number)
    output, _ = process.communicate(timeout=10)
    said = [line for line in output.splitlines() if not line.startswith("[")]
    assert said == ["drive: stopped; the same command goes on (75)"]
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_the_workers_of_a_killed_command_end_by_themselves(tmp_path):
    process, family = start(tmp_path)
    process.kill()
    assert psutil.wait_procs(family, timeout=10)[1] == []
    process.communicate()

"""A stage's parts range by range: here, and on two real Prefect workers, one of which is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import dvc
from flows.server import prefect_server
from tests.engine.works import begun, log, results
from tests.flows import standin
from tests.imports import ROOT

QUICK = {
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "6",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "2",
}
"""What takes minutes by default: to notice that a worker is gone."""

start = partial(standin.start, module="flows.ranges")
run = partial(standin.run, module="flows.ranges")


def make(folder: Path, parts: int, **what: Any) -> Path:
    """A pipeline with one stage made in parts; returns the folder in which they wait."""
    state = folder / ".state" / "stage" / "digest"
    arguments = json.dumps({"state": str(state), "output": "stage", "parts": parts, **what})
    standin.make(folder, stage={"cmd": f"python -m tests.stages.parts_drive '{arguments}'"})
    return state


def squares(count: int) -> dict[str, bytes]:
    return {str(number): str(number**2).encode() for number in range(count)}


# ---- here -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage", "--num-ranges", "0"], "--num-ranges 0: use 1 or more"),
        (["stgae", "--num-ranges", "2"], "stage stgae is unknown; dvc.yaml has: stage"),
        (["stage", "--num-ranges", "2", "--pool", "cpu"], "--pool cpu: set PREFECT_API_URL to the server that its"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(tmp_path, arguments, message):
    make(tmp_path, 2)
    code, output = run(tmp_path, *arguments)
    assert (code, output.count("\n")) == (2, 1)
    assert message in output


@pytest.mark.slow
def test_ranges_make_each_part_once_and_nothing_where_the_output_is_up_to_date(tmp_path):
    make(tmp_path, 5)
    code, output = run(tmp_path, "stage", "--num-ranges", "2")
    assert code == 0 and "stage: ran" in output
    assert results(tmp_path / "stage") == squares(5)
    made = log(tmp_path / "stage")
    assert sorted(part for part, _ in made) == [0, 1, 2, 3, 4] and len({process for _, process in made}) == 2
    shutil.rmtree(tmp_path / ".state")
    code, output = run(tmp_path, "stage", "--num-ranges", "2")
    assert code == 0 and "stage: cached" in output
    assert not (tmp_path / ".state" / "stage" / "digest").exists()


@pytest.mark.slow
def test_a_stopped_run_leaves_no_process_behind_and_the_next_one_goes_on(tmp_path):
    state = make(tmp_path, 4, seconds=1)
    process = start(tmp_path, "stage", "--num-ranges", "1")
    while len(begun(state)) < 2:
        assert process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert run(tmp_path, "stage", "--num-ranges", "3")[0] == 0
    made = begun(tmp_path / "stage")
    assert made[0] == 1 and made.total() <= 5


# ---- on workers -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """A server with its services, and a pool without workers, in a home of its own."""
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings(restore_defaults=[PREFECT_API_URL]),
    ):
        for name, value in (QUICK | {"PREFECT_HOME": str(tmp_path_factory.mktemp("home"))}).items():
            patch.setenv(name, value)
        with prefect_server(services=True) as url:
            create = [sys.executable, "-m", "prefect", "work-pool", "create", "cpu", "--type", "process"]
            subprocess.run(create, check=True, capture_output=True)
            yield url


@contextmanager
def worker(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A machine that takes one range at a time, started in a folder of no meaning."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu", "--limit", "1"],
        cwd=folder.parent, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            end(process)


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]


def end(process: subprocess.Popen) -> None:
    """Kill a process and all below it, as when a machine goes."""
    for each in family(process):
        each.kill()
    process.wait()


@pytest.mark.slow
def test_a_lost_worker_costs_its_part_in_hand_and_another_one_goes_on_with_its_range(tmp_path, server):
    state = make(tmp_path, 12, seconds=1)
    with worker(tmp_path) as one, worker(tmp_path):
        process = start(tmp_path, "stage", "--num-ranges", "3", "--pool", "cpu", PREFECT_API_URL=server)
        lost = in_hand(state, one, process)
        end(one)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "stage: ran" in output, output
    assert output.count("lost its worker; another one goes on") == 1
    assert results(tmp_path / "stage") == squares(12)
    assert begun(tmp_path / "stage") == dict.fromkeys(range(12), 1) | {lost: 2}


def in_hand(state: Path, worker: subprocess.Popen, process: subprocess.Popen) -> int:
    """A part that a worker has begun, not its first, and not ended, as soon as it has one."""
    while True:
        assert process.poll() is None
        mine = [part for part, number in log(state) if number in {each.pid for each in family(worker)}]
        if len(mine) > 1 and str(mine[-1]) not in results(state):
            return mine[-1]


@pytest.mark.slow
def test_a_failed_range_ends_the_others_and_its_exit_code_is_that_of_the_flow(tmp_path, server):
    state = make(tmp_path, 4, sleeps=[0], complains=[2], after=[0])
    with worker(tmp_path), worker(tmp_path):
        code, output = run(tmp_path, "stage", "--num-ranges", "2", "--pool", "cpu", PREFECT_API_URL=server)
        assert code == 3 and output.endswith("stage: parts 2/2: its command exited with 3\n"), output
        sleeping = [psutil.Process(process) for part, process in log(state) if part == 0 and psutil.pid_exists(process)]
        assert psutil.wait_procs(sleeping, timeout=40)[1] == []
    assert not (tmp_path / "stage").exists() and begun(state) == {0: 1, 2: 1}


@pytest.mark.slow
def test_what_dvc_misses_is_told(tmp_path):
    standin.make(tmp_path, stage={"cmd": "touch stage", "deps": ["absent"]})
    code, output = run(tmp_path, "stage", "--num-ranges", "2")
    assert code == 1 and "absent" in output and output.endswith("stage: DVC failed\n"), output


@pytest.mark.slow
def test_a_pool_that_does_not_exist_is_named_with_how_to_make_it(tmp_path, server):
    make(tmp_path, 2)
    code, output = run(tmp_path, "stage", "--num-ranges", "2", "--pool", "gpu", PREFECT_API_URL=server)
    assert code == 2
    assert "the server has no pool gpu; `prefect work-pool create --type process gpu` makes it" in output


@pytest.mark.slow
def test_a_workspace_that_is_in_use_is_left_alone(tmp_path):
    make(tmp_path, 2)
    with dvc.working(tmp_path, "nightly"):
        code, output = run(tmp_path, "stage", "--num-ranges", "2")
    assert code == dvc.IN_USE and "is in use by nightly" in output and not (tmp_path / "stage").exists()

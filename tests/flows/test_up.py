"""A machine that is up: a real server and real workers with a stand-in pipeline; what is killed comes back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows import up
from tests.flows import standin
from tests.imports import ROOT

SLOW = "trap 'echo saved > saved; exit 75' TERM; echo $$ > began; while :; do sleep 0.1; done"


RUNNING = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))


def answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health").is_success
    return False


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def workspace(folder: Path) -> Path:
    """``prepare_data`` are two quick stages, ``evaluate`` is one that goes on until it is told to save."""
    standin.make(
        folder,
        filter={"cmd": 'echo "GPU $CUDA_VISIBLE_DEVICES of $STYLEGAN_T_DEVICES" > filter'},
        reference_statistics={"cmd": "cp filter reference_statistics", "deps": ["filter"]},
        evaluate={"cmd": SLOW, "deps": ["filter"]},
    )
    (folder / "flows").symlink_to(ROOT / "flows")
    shutil.copy(ROOT / "prefect.yaml", folder)
    return folder


class Site:
    """``flows.up`` in a folder, from the time that its server can be asked."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        # Else the server looks for new schedules once a minute.
        often = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
        self.process = standin.start(folder, *arguments, module="flows.up", **often)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self.process.poll() is not None or "Ctrl-C stops all of it" in self.output, 240)
        assert self.process.poll() is None, self.output
        (self.url,) = re.findall(r"PREFECT_API_URL=(\S+)", self.output)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            self.lines += stdout

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def one(self, words: str) -> psutil.Process:
        """The process with these words in its command, itself and not its guard."""
        (found,) = [p for p in self.family() if words in (line := " ".join(p.cmdline())) and "guard.py" not in line]
        return found

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(90)
        self._reader.join(10)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(workspace(tmp_path_factory.mktemp("site") / "repository"), "--gpus", "0")
    try:
        yield site
    finally:
        if site.process.poll() is None:
            site.end(signal.SIGTERM)
        print(site.output)  # shown where a test failed


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: site.url}), get_client(sync_client=True) as client:
        yield client


@pytest.mark.slow
def test_a_scheduled_run_fires_on_the_worker_with_the_gpu_and_completes(site, client):
    deployment = client.read_deployment_by_name("prepare-data/weekly-data").id
    every = IntervalSchedule(interval=timedelta(seconds=10))
    (schedule,) = client.create_deployment_schedules(deployment, [(every, True)])
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    done = lambda: [run for run in client.read_flow_runs(deployment_filter=ours) if run.state.is_completed()]
    until(done)
    client.delete_deployment_schedule(deployment, schedule.id)
    run = done()[0]
    assert run.work_pool_name == "gpu" and run.auto_scheduled and run.parameters == {"refresh": True}
    assert (site.folder / "reference_statistics").read_text() == "GPU 0 of 1\n"


@pytest.mark.slow
def test_a_killed_server_and_a_killed_worker_come_back_and_the_other_workers_runs_go_on(site, client):
    run = run_deployment("evaluate/on-demand", timeout=0)
    assert isinstance(run, FlowRun)
    stage = int(standin.wait_for(site.folder / "began"))
    worker, idle, server = (site.one(words) for words in ("start --pool gpu", "start --pool cpu", "server start"))
    for process in (server, idle):
        process.kill()
        process.wait()
    until(lambda: answers(site.url))
    until(lambda: site.output.count(" started!") == 3)  # as each worker says
    assert worker.is_running() and standin.is_running(stage)
    assert client.read_flow_run(run.id).state.is_running()
    assert site.one("server start") != server and site.one("start --pool cpu") != idle


@pytest.mark.slow
def test_a_cancelled_run_lets_its_stage_save_is_shown_as_cancelled_and_makes_room_for_the_next_one(site, client):
    at_work = lambda: client.read_flow_runs(flow_run_filter=FlowRunFilter(state=RUNNING))
    (run,), stage = at_work(), int((site.folder / "began").read_text())
    cancel = [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run.id)]
    subprocess.run(cancel, env={**os.environ, "PREFECT_API_URL": site.url}, check=True, capture_output=True)
    until(lambda: client.read_flow_run(run.id).state_name == "Cancelled")
    until(lambda: not standin.is_running(stage))
    for name in ("saved", "began"):
        (site.folder / name).unlink()
    run_deployment("evaluate/on-demand", timeout=0)
    standin.wait_for(site.folder / "began")
    until(at_work)


@pytest.mark.slow
def test_stopping_lets_stages_save_says_what_became_of_runs_and_leaves_nothing_behind(site, client):
    (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=RUNNING))
    family = site.family()
    site.end(signal.SIGINT)
    assert site.process.returncode == 0 and site.lines[-1] == "stopped\n"
    assert (site.folder / "saved").exists()
    assert [process for process in family if process.is_running()] == []
    assert not standin.is_running(int((site.folder / "began").read_text()))
    with closing(sqlite3.connect(PREFECT_HOME.value() / "prefect.db")) as database:
        query = "SELECT state_type FROM flow_run WHERE id = ?"
        assert database.execute(query, [str(run.id)]).fetchall() == [("CRASHED",)]


@pytest.mark.slow
def test_all_ends_where_we_are_killed_ourselves(tmp_path):
    site = Site(workspace(tmp_path / "repository"), "--gpus", "none")
    until(lambda: site.output.count(" started!") == 1)  # as the worker says
    family = site.family()
    assert site.one("server start") and site.one("worker start")
    site.end(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=40)
    assert not alive


@pytest.mark.parametrize(
    ("given", "workers"), [("none", []), ("0", [["0"]]), ("0,1", [["0"], ["1"]]), ("0+1,2", [["0", "1"], ["2"]])]
)
def test_workers_are_separated_by_commas_and_their_gpus_by_plus(given, workers):
    assert up.parse_gpus(given) == workers


@pytest.mark.parametrize("given", ["", "all", "0,0", "0+1,1", "0,", "-1"])
def test_gpus_that_are_none_or_are_given_twice_are_refused_with_what_is_allowed(given):
    with pytest.raises(ValueError, match=r"--gpus .*auto, none, or GPUs, each once: 0,1"):
        up.parse_gpus(given)


@pytest.mark.parametrize(("visible", "workers"), [("", []), ("-1", []), ("2,3", [["2"], ["3"]])])
def test_auto_keeps_to_the_gpus_that_cuda_leaves_us(monkeypatch, visible, workers):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert up.parse_gpus("auto") == workers


def test_auto_asks_the_driver(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert up.parse_gpus("auto") == [["0"], ["1"]]


def test_a_second_server_on_the_same_home_is_refused_with_what_else_can_be_done(tmp_path):
    refused = pytest.raises(ValueError, match=r"runs already on .*PREFECT_API_URL")
    with temporary_settings({PREFECT_HOME: tmp_path}), up.only_one(), refused, up.only_one():
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--cpu-workers", "-1"], "--cpu-workers -1: use 0 or more"), (["--deploy-only"], "set PREFECT_API_URL")],
    ids=["workers", "deploy"],
)
def test_what_is_asked_wrongly_is_one_line_and_starts_nothing(tmp_path, arguments, said):
    code, output = standin.run(tmp_path, *arguments, module="flows.up", PREFECT_API_URL="")
    assert code == 2 and said in output and output.count("\n") == 1


@pytest.mark.parametrize(
    ("ours", "visible", "seen"), [([], "0,1", []), ([["0"]], "0", []), ([], "", None)],
    ids=["others have them", "a worker of ours has it", "there is none"],
)  # fmt: skip
def test_workers_without_gpus_see_none_that_others_may_have(monkeypatch, ours, visible, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert up.gpus_besides(ours) == seen

"""Automations on a real server: what is dead is called dead, and failures are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending
from prefect.workers.process import ProcessWorker

from flows import automations
from flows.machines.jobs import deploy
from flows.ranges import make_range
from flows.server import prefect_server
from tests.flows import standin

FLOW = """
import sys, time
from prefect import flow, tags

@flow(name="errand", flow_run_name=sys.argv[1], persist_result=False)
def errand(seconds: float):
    time.sleep(seconds)
    raise RuntimeError('no "space" left')

with tags("stylegan-t"):
    errand(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def client() -> Iterator[SyncPrefectClient]:
    with prefect_server(services=True), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Address of a server, and what was posted to it."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", received
        server.shutdown()
        thread.join()


def start(folder: Path, name: str, seconds: float) -> subprocess.Popen[bytes]:
    (folder / "errand.py").write_text(FLOW)
    return subprocess.Popen(
        [sys.executable, folder / "errand.py", name, str(seconds)],
        env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def state_of(client: SyncPrefectClient, name: str, wanted: str, seconds: float = 60) -> State:
    """The run's state as soon as it is the wanted one, or at the latest."""
    deadline = time.monotonic() + seconds
    state = None
    while time.monotonic() < deadline and not (state and state.name == wanted):
        time.sleep(0.2)
        state = run.state if (run := find(client, name)) else None
    assert state is not None, f"{name} never began"
    return state


def find(client: SyncPrefectClient, name: str) -> FlowRun | None:
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["errand"])),
        flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])),
    )
    return runs[0] if runs else None


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_shown_as_crashed(client, tmp_path):
    automations.ship(client, silent_seconds=10)
    with start(tmp_path, "killed", 300) as process:
        assert state_of(client, "killed", "Running").is_running()
        time.sleep(3)  # for its first heartbeat, which it sends as it begins
        process.send_signal(signal.SIGKILL)
    state = state_of(client, "killed", "Crashed")
    assert state.is_crashed() and state.message is not None and "heartbeats have stopped" in state.message


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "state"), [("process", "Crashed"), ("docker", "Pending")])
def test_a_run_that_its_worker_took_and_never_began_is_crashed_where_workers_start_processes(client, kind, state):
    automations.ship(client, starting_seconds=10)
    template = ProcessWorker.get_default_base_job_template()
    client.create_work_pool(WorkPoolCreate(name=f"a {kind} pool", type=kind, base_job_template=template))
    to_do = {"stage": {"name": "stage"}, "parts": "1/1"}
    run = client.create_flow_run_from_deployment(deploy(make_range, f"a {kind} pool"), parameters=to_do, name=kind)
    client.set_flow_run_state(run.id, Pending())
    deadline = time.monotonic() + 60
    while (now := client.read_flow_run(run.id)).state_name != "Crashed" and time.monotonic() < deadline:
        if now.state_name == state and time.monotonic() > deadline - 30:
            break  # long enough
        time.sleep(0.5)
    assert now.state_name == state


@pytest.mark.slow
def test_a_run_by_hand_is_looked_after_as_well(client, tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "touch stage"})
    code, output = standin.run(folder, PREFECT_API_URL=str(client.api_url))
    assert code == 0, output
    (run,) = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["pipeline"])), limit=1, sort=FlowRunSort.START_TIME_DESC
    )
    assert run.tags == [automations.TAG]
    heartbeats = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        any_resource=[EventAnyResourceFilter(id=[f"prefect.flow-run.{run.id}"])],
    )
    deadline = time.monotonic() + 30
    while not client.read_events(heartbeats, limit=1).events:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_a_failure_is_posted_with_the_flow_and_why_and_where_to_look(client, inbox, tmp_path):
    address, received = inbox
    automations.ship(client, notify=address)
    with start(tmp_path, "failing", 0):
        pass
    deadline = time.monotonic() + 30
    while not received and time.monotonic() < deadline:
        time.sleep(0.2)
    run = find(client, "failing")
    assert run is not None
    page = f"{str(client.api_url).removesuffix('/').removesuffix('/api')}/runs/flow-run/{run.id}"
    assert received == [
        {"text": f'errand failing: Failed (Flow run encountered an exception: RuntimeError: no "space" left)\n{page}'}
    ]


@pytest.mark.slow
def test_shipping_again_changes_what_is_there_and_leaves_switched_off_what_somebody_switched_off(client):
    names = automations.ship(client, notify="http://127.0.0.1:9/first")
    off = client.read_automations_by_name(automations.ZOMBIES)[0]
    client.pause_automation(off.id)
    assert automations.ship(client, notify="http://127.0.0.1:9/second", silent_seconds=70) == names
    assert sorted(each.name for each in client.read_automations()) == sorted(names)
    now = client.read_automation(off.id)
    assert now is not None and not now.enabled
    assert now.trigger.within.total_seconds() == 70
    client.resume_automation(off.id)


@pytest.mark.parametrize("address", ["slack://token", "example.com/hook"])
def test_an_address_that_cannot_be_posted_to_is_refused_before_anything_is_created(address):
    with pytest.raises(ValueError, match=r"--notify .*: expected an address that begins with http"):
        automations.ship(None, notify=address)  # pyright: ignore  (it is not asked)


def test_without_a_server_there_is_one_line_that_says_what_to_do(capsys):
    with temporary_settings(restore_defaults=[PREFECT_API_URL]):
        assert automations.main([]) == 2
    assert "PREFECT_API_URL is not set" in capsys.readouterr().err

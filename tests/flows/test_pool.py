"""Ranges on a work pool whose server cannot always be reached: a stand-in for its client answers as it is told."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, State, Worker, WorkerStatus
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed, Failed, Running

from flows import dvc, pool
from flows.machines import jobs
from flows.machines.jobs import Job

STAGE = dvc.Stage("stage")
GONE = httpx.ConnectError("All connection attempts failed")
REQUEST = httpx.Request("GET", "http://server/api")


def answered(code: int) -> Exception:
    """What the client makes of an answer that is none."""
    return PrefectHTTPStatusError("no", request=REQUEST, response=httpx.Response(code, request=REQUEST))


class Server:
    """What a run's state is, at each time that it is asked for; the last answer stays.

    Attributes:
        answers: By range; an error is raised.
        refuses: Ranges of which a state that is to be set is refused.
        online: Whether a worker is, at each time that the pool is asked for; the last answer stays.
        submitted, stopped: What was asked for.
    """

    def __init__(self, **answers: list[State | Exception]) -> None:
        self.answers = {parts: deque(states) for parts, states in answers.items()}
        self.refuses: set[str] = set()
        self.online = {"one": deque([True]), "two": deque([True])}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.silent_submissions = 0
        self._parts: dict[UUID, str] = {}

    def submit(self, job: Job) -> UUID:
        parts = job.parameters["parts"]
        assert job.job_variables == {"working_dir": str(Path.cwd())}
        if self.silent_submissions:
            self.silent_submissions -= 1
            raise GONE
        self.submitted.append(parts)
        self._parts[run := uuid4()] = parts
        return run

    def read_flow_run(self, run: UUID) -> FlowRun:
        answers = self.answers[self._parts[run]]
        answer = answers[0] if len(answers) == 1 else answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        worker = "one" if self.submitted.count(self._parts[run]) == 1 else "two"
        return FlowRun.model_construct(id=run, state=answer, labels={"prefect.worker.name": worker})

    def read_workers_for_work_pool(self, pool: str) -> list[Worker]:
        said = {name: each[0] if len(each) == 1 else each.popleft() for name, each in self.online.items()}
        status = {True: WorkerStatus.ONLINE, False: WorkerStatus.OFFLINE}
        return [
            Worker.model_construct(name=name, status=status[each], heartbeat_interval_seconds=0.01)
            for name, each in said.items()
        ]

    def set_flow_run_state(self, run: UUID, state: State, **options: Any) -> None:
        self.stopped.append(self._parts[run])
        if self._parts[run] in self.refuses:
            raise GONE


@contextmanager
def client_of(server: Server) -> Iterator[Server]:
    yield server


def spread(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(jobs, "get_client", lambda sync_client: client_of(server))
    monkeypatch.setattr(jobs, "get_run_logger", lambda: logging.getLogger("ranges"))
    monkeypatch.setattr(jobs._Watch, "_submit", lambda watch: server.submit(watch.job))
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(pool, "deploy", lambda flow, name: uuid4())
    pool.spread("cpu", STAGE, list(server.answers))


def test_a_server_that_is_out_of_reach_for_a_while_costs_no_range_and_is_one_line_of_warning(monkeypatch, caplog):
    server = Server(a=[Running(), GONE, GONE, Completed()], b=[Running(), answered(503), Completed()])
    spread(monkeypatch, server)
    assert server.submitted == ["a", "b"] and not server.stopped
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 <= len(warnings) <= 2 and all("cannot be reached" in line for line in warnings)


def test_a_range_that_could_not_be_handed_out_is_handed_out_later(monkeypatch):
    server = Server(a=[Completed()], b=[Completed()])
    server.silent_submissions = 2
    spread(monkeypatch, server)
    assert server.submitted == ["a", "b"]


def test_a_server_that_stays_out_of_reach_ends_it_in_one_line(monkeypatch):
    monkeypatch.setattr(jobs, "UNREACHABLE_SECONDS", 0.1)
    server = Server(a=[Running(), GONE], b=[Running()])
    with pytest.raises(dvc.StageFailed, match=r"stage: the Prefect server .*cannot be reached .*the same command") as e:
        spread(monkeypatch, server)
    assert e.value.__cause__ is GONE and server.stopped == ["a", "b"]


def test_a_range_that_cannot_be_stopped_hides_no_cause_and_keeps_no_other_from_being_stopped(monkeypatch, caplog):
    server = Server(a=[Failed(message="its command exited with 3")], b=[Running()], c=[Running()])
    server.refuses = {"b"}
    with pytest.raises(dvc.StageFailed, match="stage: parts a: its command exited with 3"):
        spread(monkeypatch, server)
    assert server.stopped == ["b", "c"]
    assert "stage b cannot be stopped" in caplog.text and "All connection attempts failed" in caplog.text


def test_what_the_server_refuses_is_no_outage(monkeypatch):
    server = Server(a=[Running(), answered(404)], b=[Running()])
    with pytest.raises(PrefectHTTPStatusError):
        spread(monkeypatch, server)
    assert server.stopped == ["a", "b"]


def test_the_range_of_a_worker_that_stays_offline_goes_to_another_one(monkeypatch, caplog):
    server = Server(a=[*[Running()] * 12, Completed()])
    server.online["one"] = deque([True, *[False] * 10, True])
    spread(monkeypatch, server)
    assert server.submitted == ["a", "a"] and server.stopped == ["a"]  # called crashed, for whoever looks
    assert "stage a lost its worker; another one goes on" in caplog.text


def test_a_worker_that_is_offline_for_a_moment_is_not_lost(monkeypatch):
    server = Server(a=[*[Running()] * 12, Completed()])
    server.online["one"] = deque([True, False, False, True, False, False, True])
    spread(monkeypatch, server)
    assert server.submitted == ["a"]


def test_no_worker_is_lost_because_the_server_was_away(monkeypatch):
    server = Server(a=[Running(), GONE, Running(), GONE, Running(), GONE, Running(), GONE, Running(), Completed()])
    server.online["one"] = deque([True, *[False] * 8, True])
    spread(monkeypatch, server)
    assert server.submitted == ["a"]


def test_a_range_whose_workers_are_lost_three_times_ends_it(monkeypatch):
    server = Server(a=[Running()])
    server.online.clear()  # a server that was set up anew, say
    with pytest.raises(dvc.StageFailed, match="stage: parts a: lost its worker 3 times"):
        spread(monkeypatch, server)
    assert server.submitted == ["a"] * 3

"""Flow runs on the workers of a pool, some of which may be lost."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Crashed
from prefect.types.entrypoint import EntrypointType

POLL_SECONDS = 1.0
MAX_LOSSES = 3
"""A job that has lost so many workers is given up."""
MISSED_HEARTBEATS = 6
"""A worker that is silent for so long is gone; one in a network that stutters is not."""
SLOW_SECONDS = 3.0
"""A server that answers so late was away, and its client has asked again without a word."""
UNREACHABLE_SECONDS = 300.0
"""For so long the server may be out of reach, besides what its client tries by itself: long enough to start it anew."""


@dataclass(frozen=True)
class Job:
    """Something for a worker to do.

    Attributes:
        name: Of the flow run.
        parameters: Of the deployment's flow.
    """

    name: str
    pool: str
    deployment: UUID
    parameters: dict[str, Any]


class JobFailed(Exception):
    """A job failed, was cancelled, or lost its workers too often; or the server is gone (then of no job)."""

    def __init__(self, said: str, job: Job | None = None) -> None:
        super().__init__(said)
        self.job = job


class Stopped(Exception):
    """Somebody else's failure, or Ctrl-C, ended the jobs."""


def deploy(flow: Flow[Any, Any], pool: str, **options: Any) -> UUID:
    """A deployment of a flow of ours on a pool, which runs the code that its worker has.

    Args:
        options: Of Prefect's ``Flow.deploy``.

    Raises:
        ValueError: There is no such pool.
    """
    with get_client(sync_client=True) as client:
        online_workers(client, pool)
    found = flow.deploy(
        name=pool,
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
        build=False,
        push=False,
        print_next_steps=False,
        ignore_warnings=True,
        **options,
    )
    assert isinstance(found, UUID)
    return found


def finish(jobs: Sequence[Job], stop: threading.Event | None = None) -> list[UUID]:
    """Have jobs done by workers of their pools, as many at a time as these take; the flow runs that did them.

    A job whose worker is lost goes to another one. While the server is out of reach, workers go on with what they have.
    Whatever ends this early cancels the flow runs that are left.

    Args:
        stop: Set when all shall end.

    Raises:
        JobFailed: With what the first flow run that failed said at its end.
        Stopped: As it was told.
    """
    stop = stop or threading.Event()
    with get_client(sync_client=True) as client:
        for pool in {job.pool for job in jobs}:
            if not online_workers(client, pool):
                waiting = ", ".join(job.name for job in jobs if job.pool == pool)
                get_run_logger().warning("no worker of pool %s is online: waiting for one: %s", pool, waiting)
        server, watches = _Server(client), [_Watch(job) for job in jobs]
        try:
            while not stop.is_set():
                server.ask(watches)
                if all(watch.is_done for watch in watches):
                    return [watch.run for watch in watches if watch.run]
                stop.wait(POLL_SECONDS)
            raise Stopped(", ".join(job.name for job in jobs))
        except BaseException:
            for watch in watches:
                watch.cancel(client)
            raise


class _Server:
    """What knows of all jobs, while it can be reached."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._heard, self._warned, self._within_reach = time.monotonic(), False, -math.inf

    def ask(self, watches: Sequence[_Watch]) -> None:
        """Bring all that is known of the jobs up to date; whoever is interrupted in it can do so again."""
        try:
            for watch in watches:
                asked = time.monotonic()
                watch.look(self._client, asked - self._within_reach)
                self._heard, self._warned = time.monotonic(), False
                if self._heard - asked > SLOW_SECONDS:
                    self._within_reach = self._heard
        except httpx.TransportError as error:
            said = f"the Prefect server {PREFECT_API_URL.value() or ''} cannot be reached ({error})"
            if time.monotonic() - self._heard > UNREACHABLE_SECONDS:
                raise JobFailed(f"{said}; what is done stays, and the same command goes on") from error
            if not self._warned:
                get_run_logger().warning("%s; asking again for %g minutes", said, UNREACHABLE_SECONDS / 60)
            self._warned, self._within_reach = True, time.monotonic()


class _Watch:
    """A job on its way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.run: UUID | None = None
        """The flow run that does it now, or did it."""
        self.is_done = False
        self._losses = 0

    def look(self, client: SyncPrefectClient, heard_seconds: float) -> None:
        """See what became of it; hand it out where nobody does it. Raises JobFailed."""
        if self.is_done:
            return
        if self.run is None:
            self.run = _submit(self.job)
            return
        end = end_of(client, self.job.pool, self.run, heard_seconds)
        if end == "made":
            self.is_done = True
        elif end == "lost":
            self.run, self._losses = None, self._losses + 1
            if self._losses == MAX_LOSSES:
                raise JobFailed(f"lost its worker {MAX_LOSSES} times", self.job)
            get_run_logger().warning("%s lost its worker; another one goes on", self.job.name)
        elif end is not None:
            self.run = None
            raise JobFailed(end, self.job)

    def cancel(self, client: SyncPrefectClient) -> None:
        """Stop it, if the server can be reached; raise nothing, since there is a first cause already."""
        if self.run is None or self.is_done:
            return
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):  # else a server that is gone costs a minute
            try:
                client.set_flow_run_state(self.run, Cancelling())
            except (httpx.HTTPError, PrefectException) as error:
                get_run_logger().warning("%s cannot be stopped (%s)", self.job.name, error)


def end_of(client: SyncPrefectClient, pool: str, run_id: UUID, heard_seconds: float = math.inf) -> str | None:
    """What became of a run: ``made``, ``lost`` (with its worker, or by itself), or why it failed; None = it goes on.

    Prefect leaves the run of a worker that is gone as it was: that the server has not heard of the worker for a while
    is all there is to see. A server that was away has not heard of any worker: they get the time to report to it.

    Args:
        heard_seconds: For how long the server has been within reach.
    """
    asked = time.monotonic()
    run = client.read_flow_run(run_id)
    assert run.state is not None
    if run.state.is_completed():
        return "made"
    if run.state.is_crashed():
        return "lost"
    if run.state.is_final():
        return run.state.message or run.state.name
    worker = run.labels.get("prefect.worker.name")
    heard_seconds = 0 if time.monotonic() - asked > SLOW_SECONDS else heard_seconds
    if worker is None or not _is_lost(client, pool, str(worker), heard_seconds):
        return None
    client.set_flow_run_state(run_id, Crashed(message=f"Worker {worker} is offline."), force=True)
    return "lost"


def _is_lost(client: SyncPrefectClient, pool: str, name: str, heard_seconds: float) -> bool:
    """Whether a worker has missed so many heartbeats that it must be gone."""
    found = next((each for each in client.read_workers_for_work_pool(pool) if each.name == name), None)
    if found is None or found.last_heartbeat_time is None:
        return True
    patience = MISSED_HEARTBEATS * (found.heartbeat_interval_seconds or 30)
    silent = (datetime.now(UTC) - found.last_heartbeat_time).total_seconds()
    return silent > patience and heard_seconds > patience


def online_workers(client: SyncPrefectClient, pool: str) -> set[str]:
    """Names of those that the server hears of. Raises ValueError: there is no such pool."""
    try:
        workers = client.read_workers_for_work_pool(pool)
    except ObjectNotFound:
        raise ValueError(
            f"the server has no pool {pool}; `prefect work-pool create --type process {pool}` makes it"
        ) from None
    return {worker.name for worker in workers if worker.status == WorkerStatus.ONLINE}


def _submit(job: Job) -> UUID:
    run = run_deployment(job.deployment, parameters=job.parameters, flow_run_name=job.name, timeout=0)
    assert isinstance(run, FlowRun)
    return run.id

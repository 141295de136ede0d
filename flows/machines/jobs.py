"""Flow runs on the workers of a pool, some of which may be lost."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Crashed

POLL_SECONDS = 1.0
MAX_LOSSES = 3
"""A job that has lost so many workers is given up."""
MISSED_HEARTBEATS = 6
"""A worker that is silent for so long is gone; one in a network that stutters is not."""
SLOW_SECONDS = 3.0
"""A server that answers so late was away, and its client has asked again without a word."""
UNREACHABLE_SECONDS = 300.0
"""For so long the server may be out of reach, besides what its client tries by itself: long enough to start it anew."""


class JobFailed(Exception):
    """A job failed, was cancelled, or lost its workers too often; or the server is gone."""


class Stopped(Exception):
    """Somebody else's failure, or Ctrl-C, ended a job."""


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


def finish(job: Job, stop: threading.Event) -> UUID:
    """Have a job done by a worker of its pool, by another one where that is lost; the flow run that did it.

    While the server is out of reach, workers go on with what they have.

    Args:
        stop: Set when it shall end; its flow run is cancelled then.

    Raises:
        JobFailed: With what the flow run said at its end.
        Stopped: As it was told.
    """
    with get_client(sync_client=True) as client:
        if not online_workers(client, job.pool):
            get_run_logger().warning("no worker of pool %s is online: %s waits for one", job.pool, job.name)
        watch = _Watch(job)
        try:
            while not stop.wait(POLL_SECONDS if watch.run else 0):
                if watch.look(client):
                    assert watch.run
                    return watch.run
            raise Stopped(job.name)
        except BaseException:
            if watch.run:
                _cancel(client, watch.run, job)
            raise


class _Watch:
    """A job on its way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.run: UUID | None = None
        """The flow run that does it now."""
        self._losses, self._heard, self._warned = 0, time.monotonic(), False
        self._within_reach = -math.inf

    def look(self, client: SyncPrefectClient) -> bool:
        """Whether it is done; hands it out where nobody does it. Raises JobFailed."""
        asked = time.monotonic()
        try:
            self.run = self.run or _submit(self.job)
            end = end_of(client, self.job.pool, self.run, time.monotonic() - self._within_reach)
        except httpx.TransportError as error:
            self._unreachable(error)
            return False
        self._heard, self._warned = time.monotonic(), False
        if self._heard - asked > SLOW_SECONDS:
            self._within_reach = self._heard
        if end == "lost":
            self.run, self._losses = None, self._losses + 1
            if self._losses == MAX_LOSSES:
                raise JobFailed(f"lost its worker {MAX_LOSSES} times")
            get_run_logger().warning("%s lost its worker; another one goes on", self.job.name)
        elif end not in (None, "made"):
            self.run = None
            raise JobFailed(end)
        return end == "made"

    def _unreachable(self, error: httpx.TransportError) -> None:
        said = f"the Prefect server {PREFECT_API_URL.value() or ''} cannot be reached ({error})"
        if time.monotonic() - self._heard > UNREACHABLE_SECONDS:
            raise JobFailed(f"{said}; what is done stays, and the same command goes on") from error
        if not self._warned:
            get_run_logger().warning("%s; asking again for %g minutes", said, UNREACHABLE_SECONDS / 60)
        self._warned = True
        self._within_reach = time.monotonic()
        time.sleep(POLL_SECONDS)


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


def _cancel(client: SyncPrefectClient, run: UUID, job: Job) -> None:
    """Stop a run, if the server can be reached; raise nothing, since there is a first cause already."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):  # else a server that is gone costs a minute
        try:
            client.set_flow_run_state(run, Cancelling())
        except (httpx.HTTPError, PrefectException) as error:
            get_run_logger().warning("%s cannot be stopped (%s)", job.name, error)

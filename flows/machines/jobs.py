"""Flow runs on the workers of a pool, some of which may be lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import httpx
from prefect import Flow, get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, Worker, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Crashed
from prefect.types.entrypoint import EntrypointType

from flows.automations import TAG

POLL_SECONDS = 1.0
MAX_LOSSES = 3
"""A job that has lost so many workers is given up."""
MISSED_HEARTBEATS = 3
"""A worker that misses so many more when the server has called it offline is gone; a network may stutter before."""
SLOW_SECONDS = 3.0
"""A server that answers so late was away, and its client has asked again without a word."""
UNREACHABLE_SECONDS = 300.0
"""For so long the server may be out of reach, besides what its client tries by itself: long enough to start it anew."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """Something for a worker to do.

    Attributes:
        name: Of the flow run.
        parameters: Of the deployment's flow.
        job_variables: Of the pool, in place of the deployment's.
    """

    name: str
    pool: str
    deployment: UUID
    parameters: dict[str, Any]
    job_variables: dict[str, Any] = field(default_factory=dict)


class JobFailed(Exception):
    """A job failed, was cancelled, or lost its workers too often; or the server is gone (then of no job)."""

    def __init__(self, said: str, job: Job | None = None) -> None:
        super().__init__(said)
        self.job = job


class Stopped(Exception):
    """Somebody else's failure, or Ctrl-C, ended the jobs."""


def deploy(flow: Flow[Any, Any], pool: str) -> UUID:
    """A deployment of a flow of ours on a pool, which runs the code that its worker has.

    Raises:
        ValueError: There is no such pool.
    """
    require_pool(pool)
    found = flow.deploy(
        name=pool,
        work_pool_name=pool,
        tags=[TAG],
        entrypoint_type=EntrypointType.MODULE_PATH,
        build=False,
        push=False,
        print_next_steps=False,
        ignore_warnings=True,
    )
    assert isinstance(found, UUID)
    return found


def require_pool(pool: str) -> None:
    """Raises ValueError, with the cure, where the server has no such pool."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            cure = f"`prefect work-pool create --type process {pool}` makes it"
            raise ValueError(f"the server has no pool {pool}; {cure}") from None


def finish(
    jobs: Sequence[Job], read: Callable[[SyncPrefectClient, UUID], T], stop: threading.Event | None = None
) -> list[T]:
    """Have jobs done by workers of their pools, as many at a time as these take; what is read of each flow run then.

    A job whose worker is lost goes to another one. While the server is out of reach, workers go on with what they have.
    Whatever ends this early cancels the flow runs that are left.

    Args:
        read: Reads what a flow run made.
        stop: Set when all shall end.

    Raises:
        JobFailed: With what the first flow run that failed said at its end.
        Stopped: As it was told.
    """
    stop = stop or threading.Event()
    with get_client(sync_client=True) as client:
        server, watches = _Server(client), [_Watch(job, read) for job in jobs]
        try:
            while not stop.is_set():
                server.ask(watches)
                if all(watch.made for watch in watches):
                    return [made for watch in watches for made in watch.made]
                stop.wait(POLL_SECONDS)
            raise Stopped(", ".join(job.name for job in jobs))
        finally:
            for watch in watches:
                watch.cancel(client)


class _Server:
    """What knows of all jobs and workers, while it can be reached."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        self._heard, self._warned = time.monotonic(), False
        self._workers: dict[str, dict[str, Worker]] = {}
        self._offline: dict[str, float] = {}
        """Workers that it has not heard of for a while, and since when."""

    def ask(self, watches: Sequence[_Watch[Any]]) -> None:
        """Bring all that is known of the jobs up to date; whoever is interrupted in it can do so again."""
        try:
            for pool in {watch.job.pool for watch in watches if not watch.made}:
                self._timed(lambda pool=pool: self._hear_of_workers(pool))
            for watch in watches:
                self._timed(lambda watch=watch: watch.look(self))
            self._heard, self._warned = time.monotonic(), False
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                raise
            said = f"the Prefect server {PREFECT_API_URL.value() or ''} cannot be reached ({error})"
            if time.monotonic() - self._heard > UNREACHABLE_SECONDS:
                raise JobFailed(f"{said}; what is done stays, and the same command goes on") from error
            if not self._warned:
                get_run_logger().warning("%s; asking again for %g minutes", said, UNREACHABLE_SECONDS / 60)
            self._warned = True
            self._was_away()

    def _timed(self, call: Callable[[], None]) -> None:
        asked = time.monotonic()
        call()
        if time.monotonic() - asked > SLOW_SECONDS:
            self._was_away()

    def _was_away(self) -> None:
        """Then it has not heard of any worker: they get the time to report to it."""
        self._offline.clear()

    def _hear_of_workers(self, pool: str) -> None:
        found = {worker.name: worker for worker in self.client.read_workers_for_work_pool(pool)}
        online = {name for name, worker in found.items() if worker.status == WorkerStatus.ONLINE}
        if not online and pool not in self._workers:
            get_run_logger().warning("no worker of pool %s is online; its jobs wait for one", pool)
        self._workers[pool] = found
        for name in found:
            if name in online:
                self._offline.pop(name, None)
            else:
                self._offline.setdefault(name, time.monotonic())

    def has_lost(self, worker: str, pool: str) -> bool:
        """Whether a worker must be gone. Prefect leaves its runs as they were; this is all there is to see of it."""
        if worker not in self._workers[pool]:
            return True
        patience = MISSED_HEARTBEATS * (self._workers[pool][worker].heartbeat_interval_seconds or 30)
        return worker in self._offline and time.monotonic() - self._offline[worker] > patience


class _Watch(Generic[T]):
    """A job on its way."""

    def __init__(self, job: Job, read: Callable[[SyncPrefectClient, UUID], T]) -> None:
        self.job, self._read = job, read
        self.made: list[T] = []
        """One thing, when it is done."""
        self._run: UUID | None = None
        """The flow run that does it now."""
        self._losses, self._id = 0, uuid4()

    def look(self, server: _Server) -> None:
        """See what became of it; hand it out where nobody does it. Raises JobFailed."""
        if self.made:
            return
        if self._run is None:
            self._run = self._submit()
            return
        run = server.client.read_flow_run(self._run)
        assert run.state is not None
        if run.state.is_completed():
            self.made, self._run = [self._read(server.client, self._run)], None
        elif run.state.is_crashed():
            self._lost()
        elif run.state.is_final():
            self._run = None
            raise JobFailed(run.state.message or str(run.state.name), self.job)
        elif (worker := run.labels.get("prefect.worker.name")) and server.has_lost(str(worker), self.job.pool):
            server.client.set_flow_run_state(self._run, Crashed(message=f"Worker {worker} is offline."), force=True)
            self._lost()

    def _lost(self) -> None:
        self._run, self._losses = None, self._losses + 1
        if self._losses == MAX_LOSSES:
            raise JobFailed(f"lost its worker {MAX_LOSSES} times", self.job)
        get_run_logger().warning("%s lost its worker; another one goes on", self.job.name)

    def _submit(self) -> UUID:
        run = run_deployment(
            self.job.deployment,
            parameters=self.job.parameters,
            job_variables=self.job.job_variables,
            flow_run_name=self.job.name,
            idempotency_key=f"{self._id}-{self._losses}",  # a server that was away may have taken it already
            timeout=0,
        )
        assert isinstance(run, FlowRun)
        return run.id

    def cancel(self, client: SyncPrefectClient) -> None:
        """Stop it where it is not done; raise nothing, since there is a first cause already."""
        if self._run is None:
            return
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):  # else a server that is gone costs a minute
            try:
                client.set_flow_run_state(self._run, Cancelling())
            except (httpx.HTTPError, PrefectException) as error:
                get_run_logger().warning("%s cannot be stopped (%s)", self.job.name, error)

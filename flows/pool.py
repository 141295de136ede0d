"""Ranges of a stage's parts as flow runs on the workers of a work pool, some of which may be lost."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling
from prefect.types.entrypoint import EntrypointType

from flows import dvc
from flows.machines.jobs import MAX_LOSSES, POLL_SECONDS, UNREACHABLE_SECONDS, end_of, online_workers
from flows.ranges import make_range


def spread(pool: str, stage: dvc.Stage, ranges: Sequence[str]) -> None:
    """Have each range made by a worker of the pool, as many at a time as the workers take.

    The range of a worker that is lost goes to another one, which makes what the first one had not finished. While the
    server is out of reach, workers go on with what they have. Whatever ends this early stops the runs that are left.

    Raises:
        StageFailed: A range failed or lost its worker too often, or the server is gone.
        ValueError: There is no such pool.
    """
    logger = get_run_logger()
    with get_client(sync_client=True) as client:
        deployment = _deploy(client, pool)
        if not online_workers(client, pool):
            logger.warning("no worker of pool %s is online; `prefect worker start --pool %s` starts one", pool, pool)
        runs = _Runs(client, pool, deployment, stage, deque(ranges))
        heard, warned = time.monotonic(), False
        try:
            while runs.waiting or runs.running:
                try:
                    runs.look_after()
                    heard, warned = time.monotonic(), False
                except httpx.TransportError as error:
                    said = f"the Prefect server {PREFECT_API_URL.value() or ''} cannot be reached ({error})"
                    if time.monotonic() - heard > UNREACHABLE_SECONDS:
                        goes_on = "parts that are made stay, and the same command goes on"
                        raise dvc.StageFailed(stage.name, 1, f"{said}; {goes_on}") from error
                    if not warned:
                        logger.warning("%s; asking again for %g minutes", said, UNREACHABLE_SECONDS / 60)
                    warned = True
                time.sleep(POLL_SECONDS)
        finally:
            runs.stop()


@dataclass
class _Runs:
    """Those of the ranges that are not made yet.

    Attributes:
        waiting: Ranges to be handed out.
        running: Those that were, by their run.
        losses: How many workers each has lost.
    """

    client: SyncPrefectClient
    pool: str
    deployment: UUID
    stage: dvc.Stage
    waiting: deque[str]
    running: dict[UUID, str] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)

    def look_after(self) -> None:
        """Hand out what waits, and see what became of the others; whoever is interrupted in it can do so again."""
        logger = get_run_logger()
        while self.waiting:
            run = _submit(self.deployment, self.stage, self.waiting[0])
            self.running[run] = self.waiting.popleft()
        for run, parts in list(self.running.items()):
            end = end_of(self.client, self.pool, run)
            if end is None:
                continue
            del self.running[run]
            if end == "made":
                logger.info("%s: parts %s are made", self.stage.name, parts)
                continue
            self.losses[parts] += 1
            if end != "lost" or self.losses[parts] == MAX_LOSSES:
                raise _failure(self.stage, parts, end)
            logger.warning("%s: parts %s lost their worker; another one goes on", self.stage.name, parts)
            self.waiting.append(parts)

    def stop(self) -> None:
        """Stop what is left: each of it that can be, and raise nothing, since there is a first cause already."""
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}):  # else a server that is gone costs a minute for each
            for run, parts in self.running.items():
                try:
                    self.client.set_flow_run_state(run, Cancelling())
                except (httpx.HTTPError, PrefectException) as error:
                    get_run_logger().warning("%s: parts %s cannot be stopped (%s)", self.stage.name, parts, error)


def _deploy(client: SyncPrefectClient, pool: str) -> UUID:
    """The deployment whose runs work in this folder, wherever their worker was started."""
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        raise ValueError(
            f"--pool {pool}: the server has none of this name; `prefect work-pool create --type process {pool}` does"
        ) from None
    deployment = make_range.deploy(
        name=pool,
        work_pool_name=pool,
        job_variables={"working_dir": str(Path.cwd())},
        entrypoint_type=EntrypointType.MODULE_PATH,
        build=False,
        push=False,
        print_next_steps=False,
        ignore_warnings=True,
    )
    assert isinstance(deployment, UUID)
    return deployment


def _submit(deployment: UUID, stage: dvc.Stage, parts: str) -> UUID:
    parameters = {"stage": asdict(stage), "parts": parts}
    run = run_deployment(deployment, parameters=parameters, flow_run_name=f"{stage.name} {parts}", timeout=0)
    assert isinstance(run, FlowRun)
    return run.id


def _failure(stage: dvc.Stage, parts: str, end: str) -> dvc.StageFailed:
    said = re.search(r"its command exited with (\d+)", end)
    reason = said[0] if said else f"lost their worker {MAX_LOSSES} times" if end == "lost" else end
    return dvc.StageFailed(stage.name, int(said[1]) if said else 1, f"parts {parts}: {reason}")

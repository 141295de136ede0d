"""Ranges of a stage's parts as flow runs on the workers of a work pool, some of which may be lost."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed
from prefect.types.entrypoint import EntrypointType

from flows import dvc
from flows.ranges import make_range

POLL_SECONDS = 1.0
MAX_LOSSES = 3
"""A range that has lost so many workers is given up; what they finished of it stays."""


def spread(pool: str, stage: dvc.Stage, ranges: Sequence[str]) -> None:
    """Have each range made by a worker of the pool, as many at a time as the workers take.

    The range of a worker that is lost goes to another one, which makes what the first one had not finished. Whatever
    ends this early stops the runs that are left.

    Raises:
        StageFailed: A range failed or lost its worker too often.
        ValueError: There is no such pool.
    """
    logger = get_run_logger()
    with get_client(sync_client=True) as client:
        deployment = _deploy(client, pool)
        if not _workers(client, pool):
            logger.warning("no worker of pool %s is online; `prefect worker start --pool %s` starts one", pool, pool)
        losses = Counter[str]()
        running = {_submit(deployment, stage, parts): parts for parts in ranges}
        try:
            while running:
                time.sleep(POLL_SECONDS)
                for run, parts in list(running.items()):
                    end = _end_of(client, pool, run)
                    if end is None:
                        continue
                    del running[run]
                    if end == "made":
                        logger.info("%s: parts %s are made", stage.name, parts)
                        continue
                    losses[parts] += 1
                    if end != "lost" or losses[parts] == MAX_LOSSES:
                        raise _failure(stage, parts, end)
                    logger.warning("%s: parts %s lost their worker; another one goes on", stage.name, parts)
                    running[_submit(deployment, stage, parts)] = parts
        finally:
            for left in running:
                client.set_flow_run_state(left, Cancelling())


def _end_of(client: SyncPrefectClient, pool: str, run_id: UUID) -> str | None:
    """What became of a run: ``made``, ``lost`` (with its worker, or by itself), or why it failed; None = it goes on.

    Prefect leaves the run of a worker that is gone as it was: that the server has not heard of the worker for a while
    is all there is to see.
    """
    run = client.read_flow_run(run_id)
    assert run.state is not None
    if run.state.is_completed():
        return "made"
    if run.state.is_crashed():
        return "lost"
    if run.state.is_final():
        return run.state.message or run.state.name
    worker = run.labels.get("prefect.worker.name")
    if worker is None or worker in _workers(client, pool):
        return None
    client.set_flow_run_state(run_id, Crashed(message=f"Worker {worker} is offline."), force=True)
    return "lost"


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


def _workers(client: SyncPrefectClient, pool: str) -> set[str]:
    """Names of those that the server hears of."""
    return {w.name for w in client.read_workers_for_work_pool(pool) if w.status == WorkerStatus.ONLINE}


def _failure(stage: dvc.Stage, parts: str, end: str) -> dvc.StageFailed:
    said = re.search(r"its command exited with (\d+)", end)
    reason = said[0] if said else f"lost their worker {MAX_LOSSES} times" if end == "lost" else end
    return dvc.StageFailed(stage.name, int(said[1]) if said else 1, f"parts {parts}: {reason}")

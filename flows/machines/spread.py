"""The pipeline over many machines: each stage on a worker of the pool that its ``meta.prefect`` names.

``python -m flows.machines.spread`` sends what is stale; this machine only commits dvc.lock, stage by stage, on a branch
of the run's own. Workers: ``python -m flows.machines.worker``.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL

from flows import dvc, git
from flows.command_line import as_command
from flows.failures import failed_elsewhere, told_without_a_trace
from flows.machines.jobs import Job, JobFailed, Stopped, deploy, finish, require_pool
from flows.machines.stage_run import ENTRY, Made, stage
from flows.machines.workspace import prepared_for_parent
from flows.pipeline import SELECTIONS, SOURCE, end, targets_of
from flows.reports.history import METRICS
from flows.reports.report import EVALUATE, EVALUATIONS, UP_TO_DATE, conclude
from flows.results import Result

told_without_a_trace(dvc.StageFailed, git.GitFailed, Stopped)


@dataclass
class Run:
    """One run over many machines. It alone writes to its branch."""

    root: Path
    branch: str
    commit: str
    stop: threading.Event = field(default_factory=threading.Event)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def add(self, made: Made) -> None:
        """Commit what a worker made; what is sent from now on starts from there."""
        with self._writing:
            dvc.write_entry(self.root, made.stage, made.entry)
            message = f"{made.stage}: {made.outcome}"
            self.commit = git.commit_and_push(self.root, self.branch, ["dvc.lock"], message)


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE, persist_result=False)
def send(stage: dvc.Stage, run: Run, deployment: UUID, force: bool) -> Result:
    """Have a stage made by a worker, and commit its entry. Raises StageFailed."""
    start = time.monotonic()
    parameters = {"name": stage.name, "branch": run.branch, "commit": run.commit, "force": force}
    try:
        job = Job(f"{stage.name} {run.branch}", stage.options.pool, deployment, parameters)
        (made,) = finish([job], _made, run.stop)
    except JobFailed as error:
        raise failed_elsewhere(stage.name, str(error)) from None
    run.add(made)
    return Result(stage.name, made.outcome, round(time.monotonic() - start, 1))


@flow(name="spread", persist_result=False)
def spread(
    targets: list[str] | None = None, revision: str = "main", settings: list[str] | None = None, refresh: bool = False
) -> Any:
    """Bring stages and all that they need up to date, each on a worker of its pool, those apart at the same time.

    Args:
        targets: Names of stages; None means all.
        revision: What to start from: a branch of the origin, a tag, a commit.
        settings: ``KEY=VALUE`` each, set in params.yaml and committed on the run's branch.
        refresh: Ask the data's source again, which DVC cannot know to have changed.

    Raises:
        StageFailed: The first stage that failed; those that need it are skipped.
    """
    name, root = flow_run.name or "run", prepared_for_parent()
    with dvc.working(root, f"run {name}", wait_seconds=math.inf if deployment.id else 0):
        branch = f"runs/{datetime.now():%Y-%m-%d}-{re.sub('[^0-9A-Za-z_-]+', '-', name)}-{str(flow_run.id)[:8]}"
        git.check_out(root, revision, branch)
        if not dvc.has_remote(root):
            cure = "`dvc remote add --default NAME URL`, commit and push it"
            raise dvc.NoRemote(f"{revision} names no DVC remote; {cure}")
        dvc.apply_settings(root, settings or [])
        stages = dvc.read_stages(root, targets)
        stale = _stale(root, stages, refresh)
        with get_client(sync_client=True) as client:
            deployments = {each.name: _deployment(client, each.options.pool) for each in stages if each.name in stale}
        message = "Settings: " + ", ".join(settings or [])
        run = Run(root, branch, git.commit_and_push(root, branch, ["params.yaml"] if settings else [], message))
        get_run_logger().info("branch %s of %s starts at %s", branch, revision, run.commit[:12])
        results, failure = _send_all(run, stages, deployments, refresh)
        return end(results, failure, lambda: _conclude(run, name, results))


def _stale(root: Path, stages: Sequence[dvc.Stage], refresh: bool) -> set[str]:
    """Stages to be sent. What follows something that is made anew may have to be made anew: its worker finds out."""
    plan = dvc.plan(root, [each.name for each in stages], contents_elsewhere=True)
    stale = {each.stage for each in plan if each.would == "run" or (refresh and each.stage == SOURCE)}
    for each in stages:
        stale |= {each.name} if stale & set(each.needs) else set()
    return stale


def _send_all(
    run: Run, stages: Sequence[dvc.Stage], deployments: Mapping[str, UUID], refresh: bool
) -> tuple[list[Result], BaseException | None]:
    sent: dict[str, PrefectFuture[Result]] = {}
    try:
        for each in stages:
            if deployment := deployments.get(each.name):
                before: list[Any] = [sent[name] for name in each.needs if name in sent]
                forced = refresh and each.name == SOURCE
                sent[each.name] = send.submit(each, run, deployment, forced, wait_for=before)  # pyright: ignore
        for future in sent.values():
            future.wait()
    finally:
        run.stop.set()  # where this is stopped, so is what others do for it
    results, failure = [], None
    for each in stages:
        state = sent[each.name].state if each.name in sent else None
        if state is None:
            results.append(Result(each.name, "cached", 0.0))
        elif state.is_completed():
            results.append(state.result())
        elif state.is_failed() or state.is_crashed():
            failure = failure or state.result(raise_on_failure=False)
            results.append(Result(each.name, "failed", 0.0))
        else:
            results.append(Result(each.name, "skipped", 0.0))
    return results, failure


def _conclude(run: Run, name: str, results: Sequence[Result]) -> Any:
    """The report, for which alone what was measured comes here."""
    if any(result.stage == EVALUATE and result.outcome in UP_TO_DATE for result in results):
        dvc.pull(run.root, [f"./{METRICS}", f"./{EVALUATIONS}"], get_run_logger().info, force=True)
    return conclude(run.root, name, results, title="spread")


def _deployment(client: SyncPrefectClient, pool: str) -> UUID:
    """That of the flow ``stage`` on a pool, made where there is none. Raises ValueError: there is no such pool."""
    require_pool(pool)
    try:
        return client.read_deployment_by_name(f"stage/{pool}").id
    except ObjectNotFound:
        return deploy(stage, pool)


def _made(client: SyncPrefectClient, run: UUID) -> Made:
    (artifact,) = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[ENTRY])
        )
    )
    return Made.model_validate_json(str(artifact.data))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: of the stage that failed, or 1."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.machines.spread",
        description="Bring the pipeline up to date, each stage on a worker of its pool.",
        epilog=f"Names for several stages: {', '.join(SELECTIONS)}.",
    )
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="these stages and what they need; default: all")
    parser.add_argument("--revision", default="main", help="start from this branch, tag or commit; default: main")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; repeatable")
    parser.add_argument("--refresh", action="store_true", help="ask the data's source again")
    options = parser.parse_args(arguments)

    def work() -> None:
        if not PREFECT_API_URL.value():
            raise ValueError("set PREFECT_API_URL to the server that the workers know (`make up` says it)")
        spread(targets_of(options.targets), options.revision, options.set, options.refresh)

    return as_command(work)


if __name__ == "__main__":
    sys.exit(main())

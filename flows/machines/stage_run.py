"""What a worker does: one stage at one commit, with contents from DVC's remote and back to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from pydantic import BaseModel, ConfigDict

from flows import dvc, git
from flows.failures import told_without_a_trace, worth_retrying
from flows.machines.workspace import environment_of, prepared
from flows.pipeline import run_to_the_end
from flows.reports.progress import watching

ENTRY = "stage-entry"
"""Key of the artifact that tells what a stage's run made."""

told_without_a_trace(dvc.StageFailed, git.GitFailed)


class Made(BaseModel):
    """What a stage's run made: its entry for dvc.lock. The contents are in DVC's remote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    outcome: str
    entry: dict[str, Any]


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=worth_retrying,
)
def make(stage: dvc.Stage, root: Path, force: bool) -> Made:
    """Pull a stage's inputs, bring it up to date, push its outputs. Raises StageFailed."""
    retried, log = (task_run.run_count or 1) > 1, get_run_logger().info
    inputs = [f"./{path}" for path in stage.inputs]  # plain, one could be taken for a stage's name
    dvc.pull(root, inputs, log, force=True)
    with watching(root, stage.name):
        outcome = run_to_the_end(
            stage, root, retried=retried, force=force, pull=not force, environment=environment_of(root)
        )
    dvc.push(root, [stage.name], log, with_history=True)
    entry = dvc.read_entry(root, stage.name)
    assert entry is not None
    return Made(stage=stage.name, outcome=outcome, entry=entry)


@flow(name="stage", flow_run_name="{name} {branch}", persist_result=False)
def stage(name: str, branch: str, commit: str, force: bool = False) -> None:
    """Bring one stage up to date on this machine, in the workspace that its worker's environment names.

    Args:
        branch: The run's, for people.
        commit: With the settings, and the entries of dvc.lock for what the stage needs.
        force: Run it though nothing changed.

    Raises:
        StageFailed: As often as the stage's retries say, or for a reason that no retry cures.
    """
    root = prepared()
    with dvc.working(root, f"stage {name} of {branch}", wait_seconds=float("inf")):
        git.check_out(root, commit)
        os.chdir(root)
        found = next(each for each in dvc.read_stages(root, [name]) if each.name == name)
        options = found.options
        attempt = make.with_options(
            retries=options.retries, retry_delay_seconds=options.retry_delay_seconds, tags=options.tags
        )
        made = attempt(found, root, force)
        create_markdown_artifact(made.model_dump_json(), key=ENTRY, description=f"{name}: {made.outcome}")

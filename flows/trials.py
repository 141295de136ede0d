"""Trials: experiments of DVC's that are wanted, one after the other; those that exist are not run again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment

from flows import dvc
from flows.failures import told_without_a_trace


class TrialsFailed(Exception):
    """Experiments failed; the others are finished."""


told_without_a_trace(TrialsFailed, dvc.StageFailed, dvc.InUse)


@dataclass(frozen=True)
class Trial:
    """An experiment that is wanted.

    Attributes:
        name: Of the experiment.
        settings: ``KEY=VALUE`` each, against params.yaml; of two for the same key, the later counts.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What has just become of a trial; ``exists`` where an earlier run of ours finished it."""

    trial: Trial
    state: Literal["running", "exists", "done", "failed", "stopped"]
    seconds: float = 0.0
    reason: str = ""


def check(trials: Sequence[Trial], there: Mapping[str, dvc.Experiment], root: Path) -> None:
    """Raise ValueError where an experiment has a trial's name and other settings: it would pass for what was asked."""
    for trial in trials:
        last = {setting.partition("=")[0]: setting for setting in trial.settings}
        if trial.name in there and (wrong := dvc.differing(root, there[trial.name], list(last.values()))):
            raise ValueError(
                f"experiment {trial.name} exists, without {', '.join(wrong)}; `dvc exp remove {trial.name}` makes room"
            )


@task(task_run_name="{trial.name}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(trial: Trial) -> None:
    """Run one experiment to its end. Raises StageFailed."""
    dvc.run_experiment(trial.name, trial.settings, Path.cwd(), get_run_logger().info)


def run_trials(
    what: str, trials: Sequence[Trial], root: Path, told: Callable[[Step], None] = lambda step: None
) -> list[str]:
    """Run the trials that are no experiments of the present commit yet; one that fails does not stop the others.

    The workspace is ours meanwhile. DVC copies it for each experiment, and a machine has room for one training.

    Args:
        what: Said to others who want the workspace.
        told: Hears of every step.

    Returns:
        What was wrong with those that failed, in a line each.

    Raises:
        InUse: Another run has the workspace; a deployment's waits for it.
    """
    logger, failures = get_run_logger(), []
    with dvc.working(root, what, wait_seconds=math.inf if deployment.id else 0):
        there = dvc.experiments(root)
        numbered = {f"{number}/{len(trials)} {trial.name}": trial for number, trial in enumerate(trials, start=1)}
        for which, trial in numbered.items():
            if trial.name in there:
                logger.info("%s: exists", which)
                told(Step(trial, "exists"))
        for which, trial in numbered.items():
            if trial.name in there:
                continue
            told(Step(trial, "running"))
            step = _run(trial, told)
            told(step)
            if step.state == "failed":
                failures.append(step.reason)
                logger.error("%s: failed", which)
            else:
                logger.info("%s: done in %.0f s", which, step.seconds)
    return failures


def _run(trial: Trial, told: Callable[[Step], None]) -> Step:
    start = time.monotonic()
    try:
        outcome = run_trial(trial, return_state=True).result(raise_on_failure=False)
        if isinstance(outcome, BaseException) and not isinstance(outcome, dvc.StageFailed):
            raise outcome
    except BaseException:  # cancelled, Ctrl-C, or a mistake of ours
        told(Step(trial, "stopped", time.monotonic() - start, "stopped before its end"))
        raise
    seconds = time.monotonic() - start
    failed = isinstance(outcome, dvc.StageFailed)
    return Step(trial, "failed", seconds, str(outcome)) if failed else Step(trial, "done", seconds)


def raise_failures(failures: Sequence[str], of: int) -> None:
    """Raise TrialsFailed where any of so many trials failed."""
    if failures:
        raise TrialsFailed(f"{len(failures)} of {of} failed:\n" + "\n".join(failures))

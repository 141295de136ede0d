"""Ranges of a stage's parts as flow runs on the workers of a work pool, some of which may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flows import dvc
from flows.failures import failed_elsewhere
from flows.machines.jobs import Job, JobFailed, deploy, finish
from flows.ranges import make_range


def spread(pool: str, stage: dvc.Stage, ranges: Sequence[str]) -> None:
    """Have each range made by a worker of the pool, as many at a time as the workers take.

    The range of a worker that is lost goes to another one, which makes what the first one had not finished.

    Raises:
        StageFailed: A range failed or lost its worker too often, or the server is gone; the others are stopped.
        ValueError: There is no such pool.
    """
    deployment = deploy(make_range, pool)
    here = {"working_dir": str(Path.cwd())}  # the runs work in this folder, wherever their worker was started
    jobs = [
        Job(f"{stage.name} {parts}", pool, deployment, {"stage": asdict(stage), "parts": parts}, here)
        for parts in ranges
    ]
    try:
        finish(jobs, lambda client, run: run)
    except JobFailed as error:
        of = f"parts {error.job.parameters['parts']}: " if error.job else ""
        raise failed_elsewhere(stage.name, str(error), of) from error.__cause__

"""The pipeline as a Prefect flow: one task per DVC stage, in DVC's order.

``python -m flows.pipeline`` brings everything up to date once; with ``--cron`` it stays and does so on a schedule.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from rich.console import Console
from rich.table import Table

from flows import dvc
from flows.server import prefect_server

MAX_RESUMES = 100
"""How often a stage that stops itself to be resumed (exit code 75) is run again."""


@dataclass(frozen=True)
class Result:
    """What became of one stage: ran, cached, restored (from DVC's run cache), failed or skipped (after a failure)."""

    stage: str
    outcome: str
    seconds: float


def worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Whether to try a failed task again, as Prefect asks it."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, dvc.StageFailed) and error.worth_retrying


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=worth_retrying,
)
def run_stage(stage: dvc.Stage) -> dvc.Outcome:
    """Bring one stage up to date. DVC decides whether there is work; a failing command fails the task."""
    logger = get_run_logger()
    retried = (task_run.run_count or 1) > 1
    for attempt in range(MAX_RESUMES):
        try:
            return dvc.repro(stage, Path.cwd(), logger.info, again=retried or attempt > 0)
        except dvc.StageFailed as error:
            if error.exit_code != dvc.STOPPED:
                raise
            logger.warning("%s stopped and saved its state; going on", stage.name)
    raise dvc.StageFailed(stage.name, dvc.STOPPED, f"stopped itself {MAX_RESUMES} times")


@flow(name="pipeline", persist_result=False)
def pipeline(targets: list[str] | None = None) -> list[Result]:
    """Bring the stages ``targets`` and all that they need up to date; None means every stage.

    Raises:
        StageFailed: The first stage that failed; those after it are skipped.
    """
    dvc.repair(Path.cwd())
    results: list[Result] = []
    failure: BaseException | None = None
    for stage in dvc.read_stages(Path.cwd(), targets):
        if failure:
            results.append(Result(stage.name, "skipped", 0.0))
            continue
        start = time.monotonic()
        attempt = run_stage.with_options(retries=stage.retries, retry_delay_seconds=stage.retry_delay_seconds)
        outcome = attempt(stage, return_state=True).result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            failure, outcome = outcome, "failed"
        results.append(Result(stage.name, outcome, round(time.monotonic() - start, 1)))
    _show(results)
    if failure:
        raise failure
    return results


def _show(results: Sequence[Result]) -> None:
    """The results as a table on the terminal and as an artifact of the flow run."""
    create_table_artifact(key="pipeline-result", table=[asdict(r) for r in results])
    table = Table("stage", "outcome", "seconds")
    for result in results:
        style = {"failed": "red", "skipped": "yellow", "ran": "green"}.get(result.outcome)
        table.add_row(result.stage, result.outcome, f"{result.seconds:.1f}", style=style)
    Console().print(table)


def _without_trace(record: logging.LogRecord) -> bool:
    """A failed stage has said what was wrong in its own words; where we raised is of no use to anyone."""
    if record.exc_info and isinstance(record.exc_info[1], dvc.StageFailed):
        record.exc_info = None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_trace)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: of the stage that failed, or 1."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Bring the pipeline up to date.")
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="these stages and what they need; default: all")
    parser.add_argument("--cron", metavar="SCHEDULE", help='stay and run on a schedule, e.g. "0 3 * * *"')
    options = parser.parse_args(arguments)
    targets = options.targets or None
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends Prefect's server with us
    try:
        dvc.read_stages(Path.cwd(), targets)  # what is wrong here is better said before anything starts
        if options.cron:
            from flows.schedule import serve

            serve(options.cron, targets)
        else:
            with prefect_server():
                pipeline(targets)
    except dvc.StageFailed as error:
        print(error, file=sys.stderr)
        return error.exit_code if 0 < error.exit_code < 128 else 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return dvc.SETTINGS
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

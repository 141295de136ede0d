"""The pipeline as Prefect flows: one task per DVC stage, in DVC's order, on this machine.

``python -m flows.pipeline`` brings everything up to date once; with ``--cron`` it stays and does so on a schedule.
Many machines: ``flows/machines``.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run, task_run
from prefect.states import Completed
from rich.console import Console
from rich.table import Table

from flows import dvc
from flows.command_line import as_command
from flows.failures import told_without_a_trace, worth_retrying
from flows.reports.gate import Verdict
from flows.reports.progress import watching
from flows.reports.report import conclude
from flows.results import Result, show
from flows.server import prefect_server

MAX_RESUMES = 100
"""How often a stage that stops itself to be resumed (exit code 75) is run again."""

SELECTIONS = {
    "prepare_data": ["filter", "reference_statistics"],
    "train": ["train_super_resolution"],
    "evaluate": ["evaluate"],
    "end_to_end": None,
}
"""Named flows: the last of the stages that each brings up to date, with all that they need; None: all there are."""

SOURCE = "download"
"""The stage that reads what DVC does not see."""

told_without_a_trace(dvc.StageFailed, dvc.InUse)


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=worth_retrying,
)
def run_stage(stage: dvc.Stage, force: bool = False) -> dvc.Outcome:
    """Bring one stage up to date. DVC decides whether there is work; a failing command fails the task."""
    retried = (task_run.run_count or 1) > 1
    with watching(Path.cwd(), stage.name):
        return run_to_the_end(stage, Path.cwd(), retried=retried, force=force)


def run_to_the_end(stage: dvc.Stage, root: Path, *, retried: bool = False, **options: Any) -> dvc.Outcome:
    """Bring a stage up to date, again where it stopped itself to be resumed. Raises StageFailed."""
    logger = get_run_logger()
    for attempt in range(MAX_RESUMES):
        try:
            return dvc.repro(stage, root, logger.info, again=retried or attempt > 0, **options)
        except dvc.StageFailed as error:
            if error.exit_code != dvc.STOPPED:
                raise
            logger.warning("%s stopped and saved its state; going on", stage.name)
    raise dvc.StageFailed(stage.name, dvc.STOPPED, f"stopped itself {MAX_RESUMES} times")


def bring_up_to_date(targets: Sequence[str] | None, refresh: bool = False) -> State | list[Result]:
    """Run the stages ``targets`` and all that they need, as a flow run does; None means every stage.

    A run by hand is refused where another one has the workspace; one that was scheduled waits for it.

    Args:
        refresh: Ask the data's source again, which DVC cannot know to have changed.

    Returns:
        What became of each stage; where the quality gate rejects the model, a state of that name.

    Raises:
        StageFailed: The first stage that failed; those after it are skipped.
        InUse: Another run has the workspace.
    """
    root, what = Path.cwd(), str(flow_run.flow_name)
    with dvc.working(root, what, wait_seconds=math.inf if deployment.id else 0):
        results, failure = _run_all(dvc.read_stages(root, targets), refresh)
        return end(results, failure, lambda: conclude(root, flow_run.name or what, results, title=what))


def end(
    results: list[Result], failure: BaseException | None, report: Callable[[], Verdict | None]
) -> State | list[Result]:
    """What a flow returns: its results, or where the quality gate rejects the model, a state of that name.

    Raises:
        StageFailed: The failure, whatever becomes of the report on it.
    """
    try:
        show(results)
        verdict = report()
    except Exception as error:
        if failure:
            get_run_logger().error("no report: %s", error)
            raise failure from None
        raise
    if failure:
        raise failure
    if verdict and not verdict.accepted:
        return Completed(name="Rejected", message="; ".join(verdict.lines), data=results)
    return results


def _run_all(stages: Sequence[dvc.Stage], refresh: bool) -> tuple[list[Result], BaseException | None]:
    results: list[Result] = []
    states: dict[str, State] = {}
    failure: BaseException | None = None
    for stage in stages:
        if failure:
            results.append(Result(stage.name, "skipped", 0.0))
            continue
        start = time.monotonic()
        attempt = run_stage.with_options(
            retries=stage.options.retries,
            retry_delay_seconds=stage.options.retry_delay_seconds,
            tags=stage.options.tags,
        )
        needed = [states[name] for name in stage.needs]
        state = attempt(stage, force=refresh and stage.name == SOURCE, return_state=True, wait_for=needed)
        outcome = state.result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            failure, outcome = outcome, "failed"
        # Prefect knows results again by their identity, and would take equal words for the same: edges that are none.
        states[stage.name] = state.model_copy(update={"data": True})
        results.append(Result(stage.name, outcome, round(time.monotonic() - start, 1)))
    return results, failure


@flow(name="pipeline", persist_result=False)
def pipeline(targets: list[str] | None = None, refresh: bool = False) -> Any:
    """Bring any stages and all that they need up to date (``bring_up_to_date``)."""
    return bring_up_to_date(targets, refresh)


@flow(name="prepare-data", persist_result=False)
def prepare_data(refresh: bool = False) -> Any:
    """Download, filter and measure the data; ``refresh`` asks the source again."""
    return bring_up_to_date(SELECTIONS["prepare_data"], refresh)


@flow(name="train", persist_result=False)
def train() -> Any:
    """Train both stages and super-resolution, on data that is brought up to date first."""
    return bring_up_to_date(SELECTIONS["train"])


@flow(name="evaluate", persist_result=False)
def evaluate() -> Any:
    """Measure the model, after all that it needs was brought up to date."""
    return bring_up_to_date(SELECTIONS["evaluate"])


@flow(name="end-to-end", persist_result=False)
def end_to_end() -> Any:
    """From the source to the measured model."""
    return bring_up_to_date(SELECTIONS["end_to_end"])


def targets_of(names: Sequence[str]) -> list[str] | None:
    """Stages for names of stages and of selections; None for all."""
    found: list[str] = []
    for name in names:
        selected = SELECTIONS.get(name, [name])
        if selected is None:
            return None
        found += selected
    return found or None


def _show_plan(targets: Sequence[str] | None) -> None:
    table = Table("stage", "would", "why")
    for each in dvc.plan(Path.cwd(), targets):
        style = "green" if each.would == "run" else "dim"
        table.add_row(each.stage, each.would, "\n".join(each.why), style=style)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: of the stage that failed, or 1."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        description="Bring the pipeline up to date.",
        epilog=f"Names for several stages: {', '.join(SELECTIONS)}. Many machines: python -m flows.machines.spread.",
    )
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="these stages and what they need; default: all")
    parser.add_argument("--plan", action="store_true", help="only tell what would run, and why")
    parser.add_argument("--refresh", action="store_true", help="ask the data's source again")
    parser.add_argument("--cron", metavar="SCHEDULE", help='stay and run on a schedule, e.g. "0 3 * * *"')
    options = parser.parse_args(arguments)
    targets = targets_of(options.targets)

    def work() -> None:
        dvc.read_stages(Path.cwd(), targets)  # what is wrong here is better said before anything starts
        if options.plan:
            _show_plan(targets)
        elif options.cron:
            from flows.schedule import serve

            serve(options.cron, targets)
        else:
            if held := dvc.holder(Path.cwd()):
                raise dvc.InUse(f"this workspace is in use by {held}; wait for it, or use another clone")
            with prefect_server():
                pipeline(targets, options.refresh)

    return as_command(work)


if __name__ == "__main__":
    sys.exit(main())

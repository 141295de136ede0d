"""A stage that is made in parts, range by range, on this machine or on the workers of a Prefect work pool.

``python -m flows.ranges download --num-ranges 8 --pool cpu``: workers (``prefect worker start --pool cpu``, one per
machine) each make some of the parts; then DVC runs the stage, which finds all parts and only publishes them. All
machines see the workspace, at the same path. Without a pool, ranges come one after another here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL

from flows import dvc
from flows.command_line import as_command
from flows.failures import worth_retrying
from flows.pipeline import MAX_RESUMES
from flows.processes.commands import run_command
from flows.server import prefect_server


@task(
    task_run_name="{stage.name} {parts}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=worth_retrying,
)
def make_parts(stage: dvc.Stage, parts: str) -> None:
    """Run the stage's own command for some parts; what is finished stays, whatever becomes of the rest."""
    logger = get_run_logger()
    for _ in range(MAX_RESUMES):
        code = run_command(f"{stage.command} --parts {parts}", Path.cwd(), logger.info, name=stage.name)
        if code == 0:
            return
        if code != dvc.STOPPED:
            break
    raise dvc.StageFailed(stage.name, code, f"parts {parts}: its command exited with {code}")


@flow(name="range", flow_run_name="{stage.name} {parts}", persist_result=False)
def make_range(stage: dvc.Stage, parts: str) -> None:
    """What a worker does: make some parts, as often as the stage's retries say."""
    options = stage.options
    attempt = make_parts.with_options(retries=options.retries, retry_delay_seconds=options.retry_delay_seconds)
    attempt(stage, parts)


@flow(name="ranges", persist_result=False)
def ranges(stage: dvc.Stage, num_ranges: int, pool: str | None = None) -> dvc.Outcome:
    """Make a stage's parts in so many ranges, and then its output; nothing, if DVC says that it is up to date.

    Raises:
        StageFailed: A range failed, and so often that it is not tried again; the others are stopped.
        InUse: Another run has the workspace.
    """
    logger, root = get_run_logger(), Path.cwd()
    with dvc.working(root, f"ranges of {stage.name}"):
        if _is_stale(stage, root):
            each = [f"{number}/{num_ranges}" for number in range(1, num_ranges + 1)]
            if pool:
                from flows.pool import spread

                spread(pool, stage, each)
            else:
                for parts in each:
                    make_range(stage, parts)
        return dvc.repro(stage, root, logger.info)


def _is_stale(stage: dvc.Stage, root: Path) -> bool:
    """Whether DVC would run it; what it says is told only where it fails."""
    said: list[str] = []
    try:
        return dvc.repro(stage, root, said.append, dry=True) == "ran"
    except dvc.StageFailed:
        get_run_logger().error("\n".join(said))
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: of the stage if it failed, or 1."""
    parser = argparse.ArgumentParser(prog="python -m flows.ranges", description="Make a stage's parts range by range.")
    parser.add_argument("stage", metavar="STAGE", help="download, score or filter")
    parser.add_argument("--num-ranges", type=int, required=True, help="ranges of about as many parts each")
    parser.add_argument("--pool", help="a work pool of type process, whose workers make the ranges; default: we do")
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.num_ranges < 1:
            raise ValueError(f"--num-ranges {options.num_ranges}: use 1 or more")
        if options.pool and not PREFECT_API_URL.value():
            raise ValueError(f"--pool {options.pool}: set PREFECT_API_URL to the server that its workers know")
        stage = next(each for each in dvc.read_stages(Path.cwd(), [options.stage]) if each.name == options.stage)
        with prefect_server():
            print(f"{stage.name}: {ranges(stage, options.num_ranges, options.pool)}")

    return as_command(work)


if __name__ == "__main__":
    sys.exit(main())

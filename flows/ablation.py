"""The ablation as a Prefect flow: each variant of flows/ablation.yaml under each seed, as an experiment of DVC's.

``python -m flows.ablation`` runs those that do not exist yet, one after the other, and writes the table of all.
``benchmarks/ablation.py`` makes docs/ablation.md from it, and can run the same without DVC, many at a time.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import dvc
from flows.experiments import Experiment, differing, experiments, read_file, run_experiment
from flows.server import prefect_server
from flows.variants import TABLES, VARIANTS_FILE, Row, Variant, parse_seeds, read_variants, rows_of, write_rows

EVALUATION = "artifacts/evaluate"


class AblationFailed(Exception):
    """Experiments failed; the others are finished."""


def _without_trace(record: logging.LogRecord) -> bool:
    """Failed experiments have said what was wrong in their own words; where we raised is of no use to anyone."""
    if record.exc_info and isinstance(record.exc_info[1], AblationFailed | dvc.StageFailed):
        record.exc_info = None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_trace)


@dataclass(frozen=True)
class Trial:
    """One variant under one seed."""

    variant: Variant
    seed: int
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the experiment."""
        return f"ablation-{self.variant.name}-{self.seed}"


@task(task_run_name="{trial.name}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(trial: Trial) -> None:
    """Run one experiment to its end. Raises StageFailed."""
    run_experiment(trial.name, trial.settings, Path.cwd(), get_run_logger().info)


@flow(name="ablation", persist_result=False)
def ablation(trials: list[Trial], table: Path) -> None:
    """Run the trials that are no experiments of the present commit yet; write the table of all that are finished.

    Raises:
        AblationFailed: Some failed, after all others were run.
    """
    logger, root = get_run_logger(), Path.cwd()
    dvc.repair(root)
    there = experiments(root)
    failures = []
    for number, trial in enumerate(trials, start=1):
        if trial.name in there:
            logger.info("%d/%d %s: exists", number, len(trials), trial.name)
            continue
        start = time.monotonic()
        outcome = run_trial(trial, return_state=True).result(raise_on_failure=False)
        if isinstance(outcome, BaseException):
            failures.append(str(outcome))
            logger.error("%d/%d %s: failed", number, len(trials), trial.name)
        else:
            logger.info("%d/%d %s: done in %.0f s", number, len(trials), trial.name, time.monotonic() - start)
    rows = collect(trials, root)
    if rows:
        write_rows(table, rows)
        logger.info("%s: %d rows", table, len(rows))
    if failures:
        raise AblationFailed(f"{len(failures)} of {len(trials)} failed:\n" + "\n".join(failures))


def make_trials(variants: Sequence[Variant], seeds: Sequence[int], settings: Sequence[str]) -> list[Trial]:
    """All variants under the first seed, then under the next.

    Args:
        settings: ``KEY=VALUE`` in all of them; a variant's own come later and count.
    """
    return [
        Trial(variant, seed, (f"seed={seed}", *settings, *variant.settings)) for seed in seeds for variant in variants
    ]


def check(trials: Sequence[Trial], there: dict[str, Experiment], root: Path) -> None:
    """Raise ValueError where an experiment has a trial's name and other settings: it would pass for what was asked."""
    for trial in trials:
        last = {setting.partition("=")[0]: setting for setting in trial.settings}
        if trial.name in there and (wrong := differing(root, there[trial.name], list(last.values()))):
            raise ValueError(
                f"experiment {trial.name} exists, without {', '.join(wrong)}; `dvc exp remove {trial.name}` makes room"
            )


def collect(trials: Sequence[Trial], root: Path) -> list[Row]:
    """What the finished experiments among the trials measured."""
    there = experiments(root)
    return [
        row
        for trial in trials
        if trial.name in there
        for row in rows_of(
            trial.variant.name, trial.seed, lambda file, e=there[trial.name]: read_file(root, e, f"{EVALUATION}/{file}")
        )
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 where an experiment failed, 2 for what was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.ablation",
        description="Take the paper's redesigns away, one at a time, and measure what that changes.",
        epilog=f"The table has the rows of {' and '.join(f'{EVALUATION}/{name}.csv' for name in TABLES)}.",
    )
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--only", default="", metavar="NAME,…", help="these variants; default: all of the file's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="in all experiments, lists as [a,b]; repeatable"
    )
    parser.add_argument("--file", type=Path, default=VARIANTS_FILE, help="the variants; default: flows/ablation.yaml")
    parser.add_argument(
        "--table", type=Path, default=Path("ablation.csv"), metavar="OUT.csv", help="what they measured"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends Prefect's server with us
    try:
        only = [name for name in options.only.split(",") if name]
        trials = make_trials(read_variants(options.file, only), parse_seeds(options.seeds), options.set)
        check(trials, experiments(Path.cwd()), Path.cwd())
        with prefect_server():
            ablation(trials, options.table)
    except AblationFailed as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return dvc.SETTINGS
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

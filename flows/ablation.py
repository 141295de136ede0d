"""The ablation as a Prefect flow: each variant of flows/ablation.yaml under each seed, as an experiment of DVC's.

``python -m flows.ablation`` runs those that do not exist yet, one after the other, and writes the table of all.
``benchmarks/ablation.py`` makes docs/ablation.md from it, and can run the same without DVC, many at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger

from flows import dvc
from flows.command_line import as_command
from flows.server import prefect_server
from flows.trials import Trial, TrialsFailed, check, raise_failures, run_trials
from flows.variants import TABLES, VARIANTS_FILE, Row, Variant, parse_seeds, read_variants, rows_of, write_rows

EVALUATION = "artifacts/evaluate"


@dataclass(frozen=True)
class VariantTrial(Trial):
    """One variant under one seed."""

    variant: str
    seed: int


@flow(name="ablation", persist_result=False)
def ablation(trials: list[VariantTrial], table: Path) -> None:
    """Run the trials that are no experiments of the present commit yet; write the table of all that are finished.

    Raises:
        TrialsFailed: Some failed, after all others were run.
    """
    root = Path.cwd()
    failures = run_trials("ablation", trials, root)
    rows = collect(trials, root)
    if rows:
        write_rows(table, rows)
        get_run_logger().info("%s: %d rows", table, len(rows))
    raise_failures(failures, len(trials))


def make_trials(variants: Sequence[Variant], seeds: Sequence[int], settings: Sequence[str]) -> list[VariantTrial]:
    """All variants under the first seed, then under the next.

    Args:
        settings: ``KEY=VALUE`` in all of them; a variant's own come later and count.
    """
    return [
        VariantTrial(f"ablation-{v.name}-{seed}", (f"seed={seed}", *settings, *v.settings), v.name, seed)
        for seed in seeds
        for v in variants
    ]


def collect(trials: Sequence[VariantTrial], root: Path) -> list[Row]:
    """What the finished experiments among the trials measured."""
    there = dvc.experiments(root)
    return [
        row
        for trial in trials
        if trial.name in there
        for row in rows_of(
            trial.variant,
            trial.seed,
            lambda file, e=there[trial.name]: dvc.read_file(root, e, f"{EVALUATION}/{file}"),
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

    def work() -> None:
        only = [name for name in options.only.split(",") if name]
        trials = make_trials(read_variants(options.file, only), parse_seeds(options.seeds), options.set)
        check(trials, dvc.experiments(Path.cwd()), Path.cwd())
        with prefect_server():
            ablation(trials, options.table)

    return as_command(work, (TrialsFailed,))


if __name__ == "__main__":
    sys.exit(main())

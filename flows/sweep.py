"""A sweep over settings as a Prefect flow: every combination of some values, each as an experiment of DVC's.

``python -m flows.sweep --name lr --set train_generator.generator_lr=0.006,0.012 --set seed=0,1`` runs the points that
do not exist yet, one after the other, and ranks all of them. ``.state/sweeps/NAME.json`` says how far it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from rich.console import Console
from rich.table import Table

from flows import dvc
from flows.command_line import as_command
from flows.grid import Sweep, in_words, make_sweep, parse_grid, written
from flows.reports.gate import number
from flows.reports.history import METRICS
from flows.reports.settings import flat
from flows.server import prefect_server
from flows.trials import Step, Trial, TrialsFailed, raise_failures, run_trials


@flow(name="sweep", flow_run_name="sweep {name}", persist_result=False)
def sweep(name: str, grid: dict[str, list[Any]], fixed: list[str] | None = None, metric: str | None = None) -> None:
    """Run every combination of the grid's values that is no experiment yet, and rank all of them.

    Args:
        name: Of the sweep; part of its experiments' names.
        grid: Values by setting.
        fixed: ``KEY=VALUE`` in all points.
        metric: What ranks them, as a dotted path in metrics.json; None takes its first headline.

    Raises:
        TrialsFailed: Some points failed, after all others were run.
        ValueError: A name, setting or value that cannot be.
    """
    root = Path.cwd()
    made = make_sweep(name, grid, fixed or [], read_params(root), metric)
    made.recall(root)
    points = {point.experiment: point for point in made.points}

    def told(step: Step) -> None:
        point = points[step.trial.name]
        point.state, point.reason = "done" if step.state == "exists" else step.state, step.reason
        point.seconds = round(step.seconds, 1) or point.seconds
        if point.state == "done":
            point.metrics = measured(root, point.experiment)
        made.save(root)

    trials = [Trial(point.experiment, written(made.fixed | point.settings)) for point in made.points]
    failures = run_trials(f"sweep {name}", trials, root, told)
    rows = ranking(made)
    create_table_artifact(key=f"sweep-{name}", table=rows, description=f"Sweep {name}, the best first")
    show(rows)
    get_run_logger().info("%s: %d points", made.save(root), len(points))
    raise_failures(failures, len(points))


def read_params(root: Path) -> Any:
    """What params.yaml says. Raises ValueError: there is none."""
    path = root / "params.yaml"
    if not path.exists():
        raise ValueError(f"{root} has no params.yaml; run this in the repository's root")
    return yaml.safe_load(path.read_text())


def measured(root: Path, experiment: str) -> dict[str, float]:
    """The figures of a finished experiment; none where its pipeline evaluates nothing."""
    try:
        text = dvc.read_file(root, dvc.experiments(root)[experiment], METRICS)
    except FileNotFoundError:
        return {}
    told = flat(json.loads(text))
    return {name: value for name in told if (value := number(told, name)) is not None}


def ranking(made: Sweep) -> list[dict[str, Any]]:
    """A row for each point, the best first: what was set, the headline, what became of it."""
    metric = made.headline
    return [
        {key: in_words(value) for key, value in point.settings.items()}
        | ({metric: point.metrics.get(metric)} if metric else {})
        | {"state": point.state, "seconds": point.seconds, "experiment": point.experiment}
        for point in made.ranked()
    ]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows on the terminal."""
    table = Table(*rows[0])
    for row in rows:
        style = "red" if row["state"] == "failed" else None
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()), style=style)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 where a point failed, 2 for what was asked wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.sweep", description="Run every combination of some settings, each as an experiment."
    )
    parser.add_argument("--name", required=True, help="of the sweep; its experiments are sweep-NAME-…")
    parser.add_argument(
        "--set", action="append", required=True, metavar="KEY=VALUE,…", help="values to try, lists as [a,b]; repeatable"
    )
    parser.add_argument("--fixed", action="append", default=[], metavar="KEY=VALUE", help="in all points; repeatable")
    parser.add_argument("--metric", metavar="PATH", help="ranks the points; default: the first headline measured")
    parser.add_argument("--only-plan", action="store_true", help="list the points and run nothing")
    options = parser.parse_args(arguments)

    def work() -> None:
        root, grid = Path.cwd(), parse_grid(options.set)
        made = make_sweep(options.name, grid, options.fixed, read_params(root), options.metric)
        there = dvc.experiments(root)  # what is wrong here is better said before anything starts
        if options.only_plan:
            for point in made.points:
                state = "exists" if point.experiment in there else "would run"
                print(f"{point.experiment}  {state}  {' '.join(written(made.fixed | point.settings))}")
        else:
            with prefect_server():
                sweep(options.name, grid, options.fixed, options.metric)

    return as_command(work, (TrialsFailed,))


if __name__ == "__main__":
    sys.exit(main())

"""A sweep's grid: its points, what they measured, and the record of both that the dashboard reads. Knows no Prefect."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flows import dvc
from flows.reports.gate import Better, read_rules

RECORDS = Path(".state/sweeps")
LOWER_IS_BETTER = ("fid", "fd_", "kid", "kd_", "cmmd")
"""Beginnings of metrics' names, where no rule of gate.yaml says it."""


@dataclass
class Point:
    """One combination of the grid's values.

    Attributes:
        experiment: Its name for DVC.
        settings: Those that are swept over.
        state: waiting, running, done, failed or stopped (before its end).
        reason: What was wrong.
        metrics: By dotted path in metrics.json.
    """

    experiment: str
    settings: dict[str, Any]
    state: str = "waiting"
    reason: str = ""
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Sweep:
    """All points of a grid.

    Attributes:
        fixed: Settings that are the same in all of them.
        metric: What ranks them, where that was asked for.
    """

    name: str
    fixed: dict[str, Any]
    points: list[Point]
    metric: str | None = None

    @property
    def headline(self) -> str | None:
        """The metric that ranks the points: else the first of gate.yaml's; None as long as nothing is measured."""
        names = {name: value for point in self.points for name, value in point.metrics.items()}
        judged = (name for rule in read_rules() for name in rule.names(names))
        return self.metric or next(judged, next(iter(names), None))

    @property
    def better(self) -> Better:
        """Which way the headline is better."""
        name = self.headline or ""
        for rule in read_rules():
            if rule.names({name: 0}):
                return rule.better
        return "lower" if name.rpartition(".")[2].startswith(LOWER_IS_BETTER) else "higher"

    def ranked(self) -> list[Point]:
        """The points, the best first; those without the metric last."""
        name, sign = self.headline or "", 1 if self.better == "lower" else -1
        return sorted(self.points, key=lambda point: sign * point.metrics.get(name, sign * math.inf))

    def save(self, root: Path) -> Path:
        """Write the record at once; its path."""
        path = root / RECORDS / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        told = asdict(self) | {"metric": self.headline, "better": self.better}
        told["written"] = datetime.now(UTC).isoformat(timespec="seconds")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(told, indent=1, default=str) + "\n")
        temporary.replace(path)
        return path

    def recall(self, root: Path) -> None:
        """Take the times of points that ran earlier from the record that they left."""
        path = root / RECORDS / f"{self.name}.json"
        earlier = json.loads(path.read_text())["points"] if path.exists() else []
        seconds = {point["experiment"]: point["seconds"] for point in earlier if point["state"] == "done"}
        for point in self.points:
            point.seconds = seconds.get(point.experiment, 0.0)


def parse_grid(settings: Sequence[str]) -> dict[str, list[Any]]:
    """``KEY=VALUE,VALUE`` each as values by key; a list as ``[a,b]`` is one value. Raises ValueError."""
    grid: dict[str, list[Any]] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        try:
            values = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            values = []
        if not values:
            raise ValueError(f"--set {setting}: expected KEY=VALUE,VALUE and so on, a list as [a,b]")
        if key in grid:
            raise ValueError(f"--set {key} comes twice; give all its values at once")
        grid[key] = values
    return grid


def make_sweep(
    name: str, grid: Mapping[str, Sequence[Any]], fixed: Sequence[str], params: Any, metric: str | None = None
) -> Sweep:
    """The sweep with all its points, none of them run.

    A point's name holds a digest of all that params.yaml says with the point's settings. So a point that has run is
    known again when the grid grows, and is another one when params.yaml changes.

    Args:
        grid: Values by setting.
        fixed: ``KEY=VALUE`` each.
        params: What params.yaml says.

    Raises:
        ValueError: A name, setting or value that cannot be.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"sweep {name!r}: use lower-case letters, digits and single dashes, e.g. lr-2")
    if not grid or not all(grid.values()):
        raise ValueError("nothing to sweep over; give a setting and its values, e.g. --set seed=0,1")
    constant = dict(map(_pair, fixed))
    for key in [*constant, *grid]:
        _require(params, key)
    if both := constant.keys() & grid.keys():
        raise ValueError(f"{', '.join(sorted(both))}: fixed and swept over; it can be one of the two")
    points: dict[str, Point] = {}
    for values in itertools.product(*grid.values()):
        settings = {key: _number(value) for key, value in zip(grid, values, strict=True)}
        whole = json.dumps([params, constant, settings], sort_keys=True, default=str)
        experiment = f"sweep-{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
        points[experiment] = Point(experiment, settings)
    return Sweep(name, constant, list(points.values()), metric)


def _pair(setting: str) -> tuple[str, Any]:
    key, is_one, text = setting.partition("=")
    if not is_one:
        raise ValueError(f"--fixed {setting}: expected KEY=VALUE")
    return key, dvc.parse_value(text)


def _number(value: Any) -> Any:
    return dvc.parse_value(value) if isinstance(value, str) else value


def _require(params: Any, key: str) -> None:
    """Raise ValueError where params.yaml has no such setting."""
    within, where = params, "params.yaml"
    for part in key.split("."):
        if not isinstance(within, dict) or part not in within:
            there = ", ".join(map(str, within)) if isinstance(within, dict) else f"the value {within!r}"
            raise ValueError(f"setting {key} is unknown; {where} has: {there}")
        within, where = within[part], part


def written(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings as ``KEY=VALUE`` in the syntax that DVC takes them in."""
    return tuple(f"{key}={in_words(value)}" for key, value in settings.items())


def in_words(value: Any) -> str:
    """A value in Hydra's syntax; text with characters that mean something there is put in quotes."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)

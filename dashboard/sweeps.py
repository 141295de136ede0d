"""What sweeps and evaluated runs leave in ``.state``: points of a grid with what they measured, verdicts over time.

Like ``dashboard/runs.py``: whatever is absent, torn or by another version counts as not there. No Streamlit, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

SPREAD = "_range"
"""Ends the name of how far repetitions lie apart: no figure of the model."""

Row = dict[str, Any]
Record = TypeVar("Record", bound=BaseModel)


class Point(BaseModel):
    """One combination of settings; ``reason`` tells what was wrong."""

    experiment: str
    settings: dict[str, Any]
    state: str
    reason: str = ""
    seconds: float = 0.0
    metrics: dict[str, float] = Field(default_factory=dict)


class Sweep(BaseModel):
    """A grid of settings; ``metric`` ranks its points, as far as anything is measured."""

    name: str
    written: datetime
    points: list[Point] = Field(min_length=1)
    fixed: dict[str, Any] = Field(default_factory=dict)
    metric: str | None = None
    better: Literal["lower", "higher"] = "higher"

    @property
    def varied(self) -> list[str]:
        """The settings that differ between points."""
        keys = self.points[0].settings
        return [key for key in keys if len({repr(point.settings.get(key)) for point in self.points}) > 1]

    @property
    def metrics(self) -> list[str]:
        """What was measured, what ranks the points first."""
        names = dict.fromkeys(name for point in self.points for name in point.metrics)
        return figures(names if self.metric not in names else {self.metric: None} | names)

    def count(self, state: str) -> int:
        return sum(point.state == state for point in self.points)


class Rule(BaseModel):
    """A metric that runs are judged by; ``*`` stands for any text."""

    metric: str


class Verdict(BaseModel):
    """An evaluated run."""

    when: datetime
    run: str
    commit: str | None = None
    metrics: dict[str, Any]
    rules: list[Rule] = Field(default_factory=list)
    accepted: bool
    lines: list[str] = Field(default_factory=list)


def list_sweeps(root: Path) -> list[Sweep]:
    """All sweeps, the one that wrote last first."""
    found = [_parsed(Sweep, _text(path)) for path in (root / ".state" / "sweeps").glob("[!.]*.json")]
    return sorted((sweep for sweep in found if sweep), key=lambda sweep: sweep.written, reverse=True)


def list_verdicts(root: Path) -> list[Verdict]:
    """All evaluated runs, oldest first."""
    lines = _text(root / ".state" / "history.jsonl").splitlines()
    return [verdict for line in lines if (verdict := _parsed(Verdict, line))]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _parsed(kind: type[Record], text: str) -> Record | None:
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None


def figures(names: Sequence[str] | dict[str, Any]) -> list[str]:
    """Metrics of the final model, then those of other stages and controls, which stand in groups."""
    plain = [name for name in names if not name.endswith(SPREAD)]
    return sorted(plain, key=lambda name: "." in name)


def judged_first(verdicts: Sequence[Verdict]) -> list[str]:
    """What was measured in any run, what the newest was judged by first."""
    known: dict[str, None] = {}
    for verdict in reversed(verdicts):
        numbers = [name for name, value in verdict.metrics.items() if is_number(value)]
        for rule in verdict.rules:
            known |= dict.fromkeys(name for name in figures(numbers) if fnmatchcase(name, rule.metric))
        known |= dict.fromkeys(figures(numbers))
    return list(known)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each setting's name, where that tells it from the others."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def sweep_rows(sweep: Sweep, metric: str | None) -> list[Row]:
    """A row for each point: settings, metric, state. By the metric that ranks them, the best comes first."""
    names = short_names(sweep.varied)
    sign = -1 if sweep.better == "higher" else 1
    ranked = sorted(
        sweep.points,
        key=lambda p: (sweep.metric not in p.metrics, sign * p.metrics.get(sweep.metric or "", 0.0)),
    )
    return [
        {short: shown(point.settings.get(key)) for key, short in names.items()}
        | ({metric: point.metrics.get(metric)} if metric else {})
        | {"state": point.state, "minutes": point.seconds / 60 or None, "experiment": point.experiment}
        | ({"reason": point.reason} if any(each.reason for each in sweep.points) else {})
        for point in ranked
    ]


def chart_rows(sweep: Sweep, metric: str, along: str) -> list[Row]:
    """A row for each point that has the metric: ``x``, ``y``, and in words what else was set."""
    others = [key for key in sweep.varied if key != along]
    names = short_names(sweep.varied)
    return [
        {
            "x": point.settings.get(along),
            "y": point.metrics[metric],
            "others": ", ".join(f"{names[key]} {shown(point.settings.get(key))}" for key in others if key != "seed"),
            "seed": point.settings.get("seed"),
            "experiment": point.experiment,
        }
        for point in sweep.points
        if metric in point.metrics
    ]


def shown(value: object) -> object:
    """A setting's value in a cell: numbers stay numbers, everything else is text."""
    return value if is_number(value) else str(value).replace("'", "")


def verdict_rows(verdicts: Sequence[Verdict], metric: str) -> list[Row]:
    """A row for each evaluated run, oldest first; without the metric where it was not measured."""
    return [
        {
            "when": verdict.when,
            "run": verdict.run,
            "verdict": "accepted" if verdict.accepted else "rejected",
            metric: value if is_number(value := verdict.metrics.get(metric)) else None,
            "commit": (verdict.commit or "")[:10],
            "why": "; ".join(verdict.lines),
        }
        for verdict in verdicts
    ]

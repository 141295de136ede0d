"""Whether a run is good enough: its metrics against those of the last accepted run, by the rules of gate.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

GATE_FILE = Path(__file__).with_name("gate.yaml")
SPREAD = "_range"
"""Ends the name of how far repetitions lie apart: no figure of the model."""

Better = Literal["lower", "higher"]


class Rule(BaseModel):
    """How much worse a metric may be than in the last accepted run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: str = Field(min_length=1, description="dotted path in metrics.json; * stands for any text")
    better: Better
    tolerance: float = Field(0.0, ge=0, description="worse by so much is good enough")
    relative_tolerance: float = Field(0.0, ge=0, description="and by so large a part of the accepted figure besides")

    def names(self, metrics: Mapping[str, Any]) -> list[str]:
        """The figures among flat metrics that this rule is about."""
        return [
            name
            for name in metrics
            if fnmatchcase(name, self.metric) and number(metrics, name) is not None and not name.endswith(SPREAD)
        ]

    def allowed(self, before: float) -> float:
        return self.tolerance + self.relative_tolerance * abs(before)


class Rules(BaseModel):
    """gate.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a run was accepted, and why, in a line for each metric."""

    accepted: bool
    lines: tuple[str, ...]

    @property
    def word(self) -> str:
        return "accepted" if self.accepted else "rejected"


def read_rules(path: Path = GATE_FILE) -> tuple[Rule, ...]:
    """The rules in their file's order. Raises ValueError where the file is missing or wrong."""
    try:
        return Rules.model_validate(yaml.safe_load(path.read_text())).rules
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; flows/reports/gate.yaml is ours") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'all of it'} = {each['input']!r}: {each['msg']}"
            for each in error.errors()
        )
        raise ValueError(f"{path}: {wrong}; a rule has: {', '.join(Rule.model_fields)}") from None


def number(metrics: Mapping[str, Any], name: str) -> float | None:
    """A figure among flat metrics; None where there is no number of that name."""
    value = metrics.get(name)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def loss(now: float, before: float, better: Better) -> float:
    """By how much a figure became worse; below zero where it became better."""
    return now - before if better == "lower" else before - now


def judge(metrics: Mapping[str, Any], accepted: Mapping[str, Any] | None, rules: Sequence[Rule]) -> Verdict:
    """The verdict on a run's flat metrics.

    A name states its protocol, so figures are compared under their own name only. Where none of a rule's names is the
    same, the protocol is another one; where names are gone, and no other came in their place, the run is worse.

    Args:
        accepted: Those of the last accepted run; None where there is none to compare with.
    """
    if accepted is None:
        return Verdict(True, ("nothing to compare with: the first run of its kind is accepted",))
    lines: list[str] = []
    good = True
    for rule in rules:
        for fine, line in _compared(rule, metrics, accepted):
            good = good and fine
            lines.append(line)
    return Verdict(good, tuple(lines))


def _compared(rule: Rule, metrics: Mapping[str, Any], accepted: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Of each figure that a rule is about, whether it is good enough, and the line that says so."""
    now, before = rule.names(metrics), rule.names(accepted)
    if not now and not before:
        return [(True, f"{rule.metric}: skipped, it was not measured")]
    if now and not set(now) & set(before):
        return [(True, f"{name}: not compared, the accepted run has no figure of that name") for name in now]
    gone = [(False, f"{name}: worse, it is no longer measured") for name in before if name not in now]
    return gone + [_weighed(rule, name, metrics, accepted) for name in now if name in before]


def _weighed(rule: Rule, name: str, metrics: Mapping[str, Any], accepted: Mapping[str, Any]) -> tuple[bool, str]:
    value, before = float(metrics[name]), float(accepted[name])
    lost, allowed = loss(value, before, rule.better), rule.allowed(before)
    said = f"{name}: {value:.4g} against {before:.4g}"
    if lost > allowed:
        return False, f"{said}: worse by {lost:.3g}, and {allowed:.3g} is allowed"
    if lost > 0:
        return True, f"{said}: worse by {lost:.3g}, as allowed (up to {allowed:.3g})"
    return True, f"{said}: {'the same' if lost == 0 else f'better by {-lost:.3g}'}"

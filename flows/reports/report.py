"""The end of a flow: its verdict, and the artifacts that tell what ran, what changed and what came of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.reports import history
from flows.reports.gate import Better, Verdict, judge, loss, number, read_rules
from flows.reports.history import Entry
from flows.reports.settings import Flat, changes, read_settings

EVALUATE = "evaluate"
UP_TO_DATE = ("ran", "cached", "restored")
EVALUATIONS = "artifacts/evaluate/evaluations.jsonl"

DASHBOARD = "STYLEGAN_T_DASHBOARD"
"""Environment variable: the address at which people who read the report find the dashboard."""

USUAL_DASHBOARD = "http://127.0.0.1:8501"
PAGES = {"Samples": "", "Metrics": "metrics", "Copies": "copies", "Data": "data", "Experiments": "experiments"}


class Outcome(Protocol):
    """What became of a stage: ran, cached, restored, failed or skipped."""

    @property
    def stage(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def seconds(self) -> float: ...


def conclude(root: Path, run_name: str, results: Sequence[Outcome], title: str) -> Verdict | None:
    """The verdict on the model that a flow made or found up to date; None where the flow evaluated none.

    To be called in the flow, at its end. Makes the artifacts ``metrics`` (a table) and ``report``, and adds the run to
    the history. What was judged before, by the same rules, is not judged again.

    Raises:
        ValueError: gate.yaml, params.yaml, the metrics or the history cannot be read.
    """
    evaluated = any(result.stage == EVALUATE and result.outcome in UP_TO_DATE for result in results)
    metrics = history.read_metrics(root) if evaluated else None
    settings, entries = read_settings(root), history.read(root)
    if metrics is None:
        text = report(title, root, results, settings, None, history.last_accepted(entries))
        create_markdown_artifact(text, key="report")
        return None
    entry, earlier = _judged(root, run_name, metrics, settings, entries)
    rivals = [each for each in earlier if history.comparable(each, entry)]
    table = metrics_table(entry, rivals, _directions(root, entry))
    create_table_artifact(table, key="metrics", description=f"{run_name}: {entry.verdict.word}")
    text = report(title, root, results, settings, entry, history.last_accepted(earlier))
    create_markdown_artifact(text, key="report")
    return entry.verdict


def _judged(
    root: Path, run_name: str, metrics: dict[str, Any], settings: Flat, entries: list[Entry]
) -> tuple[Entry, list[Entry]]:
    """The present model's entry, new unless the newest is of the same, and those before it."""
    rules = read_rules()
    if entries and (entries[-1].metrics, entries[-1].settings, entries[-1].rules) == (metrics, settings, rules):
        return entries[-1], entries[:-1]
    unjudged = Entry(
        when=datetime.now(UTC).isoformat(timespec="seconds"), run=run_name, commit=commit(root), settings=settings,
        metrics=metrics, rules=rules, accepted=False, lines=(),
    )  # fmt: skip
    accepted = history.last_accepted([each for each in entries if history.comparable(each, unjudged)])
    verdict = judge(metrics, accepted.metrics if accepted else None, rules)
    entry = unjudged.model_copy(update={"accepted": verdict.accepted, "lines": verdict.lines})
    history.append(root, entry)
    return entry, entries


def commit(root: Path) -> str | None:
    """What is checked out, "+changes" where files differ from it; ``dvc.lock``, which every run writes, does not count.

    None where there is no commit.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(root), *arguments], check=False, capture_output=True, text=True)

    head = git("rev-parse", "--verify", "--quiet", "HEAD")
    if head.returncode != 0:
        return None
    same = git("diff", "--quiet", "HEAD", "--", ".", ":!dvc.lock").returncode == 0
    return head.stdout.strip() + ("" if same else "+changes")


def _directions(root: Path, entry: Entry) -> dict[str, Better]:
    """Which way each figure of the final model is better: as the evaluation says, or the gate."""
    known: dict[str, Better] = {}
    path = root / EVALUATIONS
    for line in path.read_text().splitlines() if path.exists() else ():
        known |= {each["name"]: each["better"] for each in json.loads(line)["measurements"]}
    for rule in entry.rules:
        known |= dict.fromkeys(rule.names(entry.metrics), rule.better)
    return {name: known[name] for name in entry.metrics if name in known}


def metrics_table(entry: Entry, rivals: Sequence[Entry], directions: dict[str, Better]) -> list[dict[str, Any]]:
    """A row for each figure: now, the best of all runs, and the last accepted one's.

    Args:
        rivals: Earlier runs that were measured alike.
        directions: Which way each figure is better.
    """
    accepted = history.last_accepted(rivals)
    rows = []
    for name, better in directions.items():
        now = number(entry.metrics, name)
        leader = history.best([*rivals, entry], name, better)
        before = number(accepted.metrics, name) if accepted else None
        if now is None or leader is None:
            continue
        lost = None if before is None else loss(now, before, better)
        rows.append(
            {
                "metric": name,
                "better": better,
                "now": _rounded(now),
                "best so far": _rounded(float(leader.metrics[name])),
                "of run": leader.run,
                "last accepted": _rounded(before),
                "change": None if before is None else _rounded(now - before),
                "which is": "" if lost is None else "worse" if lost > 0 else "better" if lost < 0 else "the same",
            }
        )
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def report(
    title: str, root: Path, results: Sequence[Outcome], settings: Flat, entry: Entry | None, accepted: Entry | None
) -> str:
    """A run in markdown.

    Args:
        entry: The model's; None where the flow evaluated none.
        accepted: The last accepted run before this one, with whose settings ours are compared.
    """
    parts = [f"# {cell(title)}", f"Commit: {cell(commit(root) or 'none')}"]
    if entry:
        lines = "\n".join(f"- {cell(line)}" for line in entry.lines)
        parts.append(f"## {entry.verdict.word.capitalize()}\n\nJudged as {cell(entry.run)}, {entry.when}.\n\n{lines}")
    ran = [(each.stage, each.outcome, f"{each.seconds:.1f}") for each in results]
    parts.append("## What ran\n\n" + table(("stage", "outcome", "seconds"), ran))
    parts.append(f"## Settings\n\n{_settings(settings, accepted)}")
    base = os.environ.get(DASHBOARD, USUAL_DASHBOARD).rstrip("/")
    links = " · ".join(f"[{name}]({base}/{page})" for name, page in PAGES.items())
    return "\n\n".join([*parts, f"## Dashboard\n\n{links}"]) + "\n"


def _settings(settings: Flat, accepted: Entry | None) -> str:
    """What changed since the last accepted run."""
    if accepted is None:
        return "No run was accepted before, so there is nothing to compare with."
    since = f"the last accepted run, {cell(accepted.run)}, {accepted.when}"
    rows = [(each.key, each.before, each.now) for each in changes(accepted.settings, settings)]
    return f"Against {since}:\n\n{table(('setting', 'before', 'now'), rows)}" if rows else f"The same as of {since}."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown, whatever its cells hold."""
    lines = [heads, ["---"] * len(heads), *([cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """A text that markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(text.split()))

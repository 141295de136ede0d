"""Evaluations as rows of tables and as the nested numbers of ``metrics.json``."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stylegan_t.evaluation.scores import SEEN_IN_TRAINING
from stylegan_t.files import write_text
from stylegan_t.records import Evaluation, Measurement

Row = dict[str, Any]

HEADLINES = {"frechet_distance": "frechet", "kernel_distance": "kernel", "clip_score": "clip_score"}
"""Columns that hold ``headline`` of a metric, whichever judge it is of: what plots are drawn from."""


def row_of(evaluation: Evaluation, repetition: int) -> Row:
    """One line of a table: headlines, then every measurement by metric and judge, then what the oracle read."""
    row: Row = {"stage": evaluation.subject, "psi": evaluation.psi, "repetition": repetition}
    row |= {"resolution": evaluation.px, "num_images": evaluation.count}
    for column, metric in HEADLINES.items():
        row[column] = headline(evaluation, metric)
    for each in evaluation.measurements:
        row[f"{each.metric}_{each.extractor}{SEEN_IN_TRAINING if each.in_training else ''}"] = each.value
    return row | evaluation.facts


def headline(evaluation: Evaluation, metric: str) -> float | None:
    """The value of ``leading``."""
    found = leading(evaluation, metric)
    return found.value if found else None


def leading(evaluation: Evaluation, metric: str) -> Measurement | None:
    """The first value of a metric by a judge that took no part in the training; None where there is none.

    A number that flatters stands under its own name alone, where the flag is. The dashboard keeps the same rule.
    """
    fair = (m for m in evaluation.measurements if m.metric == metric and not m.in_training)
    return next((m for m in fair if m.value is not None), None)


def values(evaluations: Sequence[Evaluation]) -> Row:
    """Every value by its full name: the median over repetitions, and with several ``<name>_range``.

    Args:
        evaluations: The same subject under other latents. Some figures only the first has.
    """
    each = [
        {m.name: m.value for m in e.measurements if m.value is not None} | e.facts for e in evaluations
    ]  # fmt: skip
    found: Row = {}
    for name in dict.fromkeys(name for one in each for name in one):
        numbers = [one[name] for one in each if name in one]
        found[name] = statistics.median(numbers)
        if len(numbers) > 1:
            found[f"{name}_range"] = max(numbers) - min(numbers)
    return found


def against(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Row:
    """What stage two changed: gains of the CLIP score and of the oracle's mean accuracy, ratio of Fréchet distances."""
    found: Row = {}
    score, distance = (
        [_median(headline(e, metric) for e in group) for group in (first, second)]
        for metric in ("clip_score", "frechet")
    )
    if score[0] is not None and score[1] is not None:
        found["clip_score_gain"] = score[1] - score[0]
    if distance[0] and distance[1] is not None:
        found["frechet_distance_ratio"] = distance[1] / distance[0]
    for name in ("mean_accuracy", "binding_correct"):
        if name in first[0].facts and name in second[0].facts:
            one, two = (statistics.median(e.facts[name] for e in group) for group in (first, second))
            found[f"{name}_gain"] = two - one
    return found


def _median(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """A CSV file with a line for each row; what a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())

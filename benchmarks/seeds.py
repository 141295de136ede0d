"""Figures of several runs side by side, with their median: ``python benchmarks/seeds.py RUN RUN …``.

A run is a clone of this repository in which the pipeline has finished, each with its own seed:
``stylegan-t profile tiny --set seed=1 && python -m flows.pipeline``. A figure that a run lacks is a dash.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from stylegan_t.records import EVALUATIONS, Evaluation, read_lines

FINAL, JUDGE = "train_super_resolution", "small_clip"
FACTS = {
    "background": "oracle_background",
    "colour": "oracle_colour",
    "size": "oracle_size",
    "shape": "oracle_shape",
    "background, held-out pairs": "oracle_heldout_background",
    "colour, held-out pairs": "oracle_heldout_colour",
    "size, held-out pairs": "oracle_heldout_size",
    "shape, held-out pairs": "oracle_heldout_shape",
    "spread of positions, of the data's": "position_spread_relative",
    "diversity of sizes, of the data's": "size_diversity_relative",
    "both figures bound right": "binding_correct",
    "both figures bound right, held-out pairings": "binding_heldout_correct",
}
METRICS = {
    "CLIP score": "clip_score",
    "CLIP score of wrong captions": "clip_score_of_wrong_captions",
    "right caption of 32": "retrieval_1_of_32",
    "Fréchet distance": "frechet",
    "kernel distance": "kernel",
    "CMMD": "cmmd",
    "precision": "precision",
    "recall": "recall",
}
STAGE_TWO = {
    "stage two: gain in CLIP score": "clip_score_gain",
    "stage two: gain in mean accuracy": "mean_accuracy_gain",
    "stage two: Fréchet distance, of stage one's": "frechet_distance_ratio",
}


@dataclass(frozen=True)
class Run:
    """What a run's evaluation recorded.

    Attributes:
        final: Of the final model at psi 1 and the full count, a repetition each.
        reals: Of one half of the real pictures against the other.
        stage_two: What stage two changed against stage one.
    """

    seed: int
    final: list[Evaluation]
    reals: list[Evaluation]
    stage_two: dict[str, float]


def read_run(folder: Path) -> Run:
    """The records of a clone."""
    artifacts = folder / "artifacts"
    evaluations = read_lines(artifacts / "evaluate" / EVALUATIONS, Evaluation)
    whole = [each for each in evaluations if each.subject == FINAL and each.psi == 1]
    if not whole:
        sys.exit(f"{folder}: no evaluation of {FINAL} at psi 1; run `dvc repro evaluate` there")
    count = max(each.count for each in whole)
    # where the sweep is as large, its point at psi 1 is the first repetition once more, and has no facts
    by_seeds = {each.seeds: each for each in reversed(whole) if each.count == count}
    statistics_file = artifacts / "reference_statistics" / "statistics.json"
    reals = map(Evaluation.model_validate, json.loads(statistics_file.read_text())["reals"])
    return Run(
        yaml.safe_load((folder / "params.yaml").read_text())["seed"],
        list(by_seeds.values()),
        [each for each in reals if each.px == whole[0].px],
        json.loads((artifacts / "evaluate" / "metrics.json").read_text()).get("stage_two_against_one", {}),
    )


def fact(evaluations: list[Evaluation], name: str) -> float | None:
    """The median of what the oracle read."""
    return median([each.facts.get(name) for each in evaluations])


def metric(evaluations: list[Evaluation], name: str) -> float | None:
    """The median of a metric by the judge."""
    measured = [m for each in evaluations for m in each.measurements if (m.metric, m.extractor) == (name, JUDGE)]
    return median([each.value for each in measured])


def median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def table(runs: list[Run]) -> list[str]:
    """Markdown, a row for each figure that any run has."""
    rows: dict[str, list[float | None]] = {title: [fact(r.final, name) for r in runs] for title, name in FACTS.items()}
    for title, name in METRICS.items():
        rows[title] = [metric(run.final, name) for run in runs]
        rows[f"… {title}, real pictures"] = [metric(run.reals, name) for run in runs]
    rows |= {title: [run.stage_two.get(name) for run in runs] for title, name in STAGE_TWO.items()}
    head = " | ".join(f"seed {run.seed}" for run in runs)
    lines = [f"| | {head} | median |", "|---|" + "---|" * (len(runs) + 1)]
    for title, values in rows.items():
        if any(value is not None for value in values):
            words = ["–" if value is None else f"{value:.4g}" for value in [*values, median(values)]]
            lines.append(f"| {title} | {' | '.join(words)} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("\n".join(table([read_run(Path(argument)) for argument in sys.argv[1:]])))

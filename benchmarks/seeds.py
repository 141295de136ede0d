"""Figures of several runs side by side, with their median: ``python benchmarks/seeds.py RUN RUN …``.

A run is a clone of this repository in which the pipeline has finished, each with its own seed:
``stylegan-t profile tiny --set seed=1 && python -m flows.pipeline``.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

FIGURES = {
    "background": "oracle_background",
    "colour": "oracle_colour",
    "size": "oracle_size",
    "shape": "oracle_shape",
    "background, held-out pairs": "oracle_heldout_background",
    "colour, held-out pairs": "oracle_heldout_colour",
    "size, held-out pairs": "oracle_heldout_size",
    "shape, held-out pairs": "oracle_heldout_shape",
    "spread of positions, of the data's": "position_spread_relative",
    "judge's CLIP score": "clip_score_judge",
    "… of real pictures": "reals.32px.clip_score_judge",
    "… with captions shuffled": "clip_score_judge_shuffled_captions",
    "right caption of 32 by the judge": "retrieval_accuracy_judge_of_32",
    "judge's Fréchet distance": "frechet_distance_judge_clip_5000",
    "… between halves of the real pictures": "reals.32px.frechet_distance_of_halves",
    "stage two: gain in CLIP score": "stage_two_against_one.clip_score_gain",
    "stage two: gain in mean accuracy": "stage_two_against_one.mean_accuracy_gain",
    "stage two: Fréchet distance, of stage one's": "stage_two_against_one.frechet_distance_ratio",
}


def figure(metrics: dict[str, Any], path: str) -> float:
    """The number at a dotted path."""
    value: Any = metrics
    for key in path.split("."):
        value = value[key]
    return value


def main(runs: list[Path]) -> None:
    """Print the table."""
    seeds = [yaml.safe_load((run / "params.yaml").read_text())["seed"] for run in runs]
    metrics = [json.loads((run / "artifacts" / "evaluate" / "metrics.json").read_text()) for run in runs]
    print("| |", " | ".join(f"seed {seed}" for seed in seeds), "| median |")
    print("|---|" + "---|" * (len(runs) + 1))
    for name, path in FIGURES.items():
        values = [figure(each, path) for each in metrics]
        print(f"| {name} |", " | ".join(f"{value:.4g}" for value in [*values, statistics.median(values)]), "|")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])

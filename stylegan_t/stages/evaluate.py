"""Measures every stage's model over psi by a protocol, and for drawn shapes by the oracle; shows what it measured."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from stylegan_t import records
from stylegan_t.config import Config
from stylegan_t.evaluation.curves import curve, write_chart
from stylegan_t.evaluation.fakes import Model, speeds
from stylegan_t.evaluation.sets import Share
from stylegan_t.evaluation.tables import Row, leading, row_of, write_table
from stylegan_t.files import write_json
from stylegan_t.progress import Progress
from stylegan_t.records import Evaluation, SampleGrid, SampleSheet
from stylegan_t.sampling import grid, save_webp
from stylegan_t.stages.examination import FIRST, SECOND, Examination, Findings
from stylegan_t.stages.seen import device_of, seen_sets
from stylegan_t.stages.workspace import Workspace

NAME = "evaluate"
SAMPLE_SEEDS = range(8)


def run(config: Config, workspace: Workspace, device: str, afresh: bool = False) -> None:
    """Write metrics.json, evaluations.jsonl, tables, curves, sample grids and the check for copies.

    How fast it went lies beside the folder. Under torchrun, each process paints and looks at its share of the pictures.

    Args:
        afresh: Forget what a stopped run painted and saw.
    """
    share = Share.of_torchrun()
    where = device_of(device, share)
    with (
        seen_sets(workspace.state(NAME), where, share, afresh) as work,
        Progress(NAME, 1, shown=share.rank == 0) as progress,
    ):
        exam = Examination(config, workspace, where, work, share, progress)
        progress.total = exam.num_pictures
        start = time.perf_counter()
        exam.look()
        looking = time.perf_counter() - start
        if exam.evaluator.meet():
            write(workspace.artifacts(NAME), exam, exam.examine(), looking)


def write(out: Path, exam: Examination, findings: Findings, looking: float) -> None:
    """All outputs. ``looking``: the seconds that this process painted and looked, without what was there already."""
    shutil.rmtree(out, ignore_errors=True)  # grids of a psi that is no longer asked for
    write_grids(out, exam.models[-1], exam.prompts, exam.settings.psi)
    records.write_record(out / records.NEIGHBOURS, exam.copies(out))
    write_findings(out, findings)
    seconds = {"painting and looking": looking} | {
        f"{e.subject}, psi {e.psi:g}, {e.seeds}, {each.name}": each.seconds
        for e in findings.all()
        for each in e.measurements
        if each.seconds
    }
    write_json(out.with_name("evaluate_speed.json"), speeds(exam.models) | {"seconds": seconds})
    write_json(out / "metrics.json", exam.numbers(findings))


def write_findings(out: Path, findings: Findings) -> None:
    """The records, the tables, and the curves that are drawn from them."""
    timeless = [
        e.model_copy(update={"measurements": [m.model_copy(update={"seconds": None}) for m in e.measurements]})
        for e in findings.all()
    ]
    records.write_lines(out / records.EVALUATIONS, timeless)
    write_table(out / "stages.csv", [row_of(e, r) for group in findings.stages.values() for r, e in enumerate(group)])
    sweeps = {stage: [row_of(e, 0) for e in found] for stage, found in findings.sweep.items()}
    write_table(out / "psi_sweep.csv", [row for rows in sweeps.values() for row in rows])
    write_curves(out, sweeps, axis_titles(findings.control))


def axis_titles(evaluation: Evaluation) -> tuple[str, str]:
    """What the curves show, with the judges whose numbers they are."""
    words = {"clip_score": "CLIP score", "frechet": "Fréchet distance"}
    judges = {metric: leading(evaluation, metric) for metric in words}
    x, y = (f"{words[metric]} by {judge.extractor}" if judge else words[metric] for metric, judge in judges.items())
    return x, y


def write_curves(out: Path, sweeps: dict[str, list[Row]], axes: tuple[str, str]) -> None:
    """Fig. 5 (every stage) and Fig. 6 (with and without the trained text encoder) of the paper, for these models."""
    figures: dict[str, tuple[str, Sequence[str]]] = {
        "quality_against_agreement": ("Quality against agreement, psi from 1 down", tuple(sweeps)),
        "text_encoder": ("With and without the trained text encoder", (FIRST, SECOND)),
    }
    for name, (title, stages) in figures.items():
        rows = [row for stage in stages for row in sweeps.get(stage, [])]
        if set(stages) <= set(sweeps) and all(
            isinstance(row[column], float) for row in rows for column in ("clip_score", "frechet_distance")
        ):
            chart = curve(rows, "clip_score", "frechet_distance", (title, *axes))
            write_chart(out / "plots" / f"{name}.png", out / "vega" / f"{name}.json", chart)


def write_grids(out: Path, model: Model, prompts: Sequence[str], psis: Sequence[float]) -> None:
    """A grid of prompts and seeds for each psi, ascending, and the sheet that describes them."""
    seeds = list(SAMPLE_SEEDS)
    tiles, tile_seeds = [p for p in prompts for _ in seeds], seeds * len(prompts)
    grids = []
    for psi in sorted(set(psis)):
        images = torch.cat(list(model.paint(tiles, tile_seeds, psi)))
        name = f"samples/psi_{psi:.2f}.webp"
        save_webp(out / name, grid(images, columns=len(seeds)))
        grids.append(SampleGrid(kimg=model.kimg, resolution=model.resolution, file=name))
    sheet = SampleSheet(prompts=list(prompts), seeds=seeds, psi=max(psis), grids=grids)
    records.write_record(out / records.SAMPLES, sheet)

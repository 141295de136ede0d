"""Measures the final model over psi, and every stage's at psi 1, with the judges and, for shapes, the oracle."""

from __future__ import annotations

import csv
import io
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stylegan_t import records
from stylegan_t.config import Config
from stylegan_t.data.shards import Shards
from stylegan_t.device import pick_device
from stylegan_t.evaluation.captions import Captions, read_captions
from stylegan_t.evaluation.fakes import Model, measure_fakes, untrained
from stylegan_t.evaluation.oracle_metrics import Oracle
from stylegan_t.evaluation.panel import Measured, Panel
from stylegan_t.evaluation.prompts import sample_prompts
from stylegan_t.evaluation.reference import load_statistics
from stylegan_t.evaluation.scores import agreement, distances
from stylegan_t.files import write_json, write_text
from stylegan_t.models.bundle import load_bundle
from stylegan_t.progress import Progress
from stylegan_t.randomness import derive_seed, image_seeds
from stylegan_t.records import SampleGrid, SampleSheet
from stylegan_t.sampling import grid, save_webp
from stylegan_t.settings.sources import ShapesSource
from stylegan_t.stages import reference_statistics
from stylegan_t.stages.workspace import Workspace

NAME = "evaluate"
FIRST, SECOND, FINAL = TRAINING_STAGES = (
    "train_generator",
    "finetune_text_encoder",
    "train_super_resolution",
)
SAMPLE_SEEDS = range(8)
DISTANCES = ("frechet_distance", "kernel_distance")

Row = dict[str, Any]


def run(config: Config, workspace: Workspace, device: str) -> None:
    """Write metrics.json, stages.csv, psi_sweep.csv and sample grids; how fast it went lies beside the folder."""
    examination = Examination(config, workspace, pick_device(device))
    out = workspace.artifacts(NAME)
    final = examination.models[-1]
    with Progress(NAME, examination.num_images) as progress:
        rows = [examination.row(m, r, progress) for r in range(config.evaluate.num_seeds) for m in examination.models]
        control = examination.control(final, progress)
        sweep = examination.sweep(final, progress)
    shutil.rmtree(out, ignore_errors=True)  # grids of a psi that is no longer asked for
    write_grids(out, final, examination.prompts, config.evaluate.psi)
    write_table(out / "stages.csv", rows)
    write_table(out / "psi_sweep.csv", sweep)
    speed = {"device": str(examination.device)} | {model.name: model.speed() for model in examination.models}
    write_json(out.with_name("evaluate_speed.json"), speed)
    write_json(out / "metrics.json", examination.summary(rows, sweep, control))


class Examination:
    """What every measurement needs: models, judges, real images' statistics, captions.

    Raises:
        SettingsError: No such prompt set.
        DataError: An input is missing, damaged, or does not belong to the others.
    """

    def __init__(self, config: Config, workspace: Workspace, device: torch.device) -> None:
        self.seed, self.settings, self.device = config.seed, config.evaluate, device
        source = config.download.source
        heldout = Shards(workspace.prepared / "heldout")
        captions = read_captions(heldout)
        self.prompts = sample_prompts(
            self.settings.prompt_set, self.settings.num_prompts,
            captions=captions, source=source, seed=config.seed, root=workspace.root,
        )  # fmt: skip
        bundles = {stage: load_bundle(workspace.artifacts(stage)) for stage in TRAINING_STAGES}
        self.models = [Model(stage, bundle, self.settings.batch_size, device) for stage, bundle in bundles.items()]
        self.panel = Panel(workspace.judges, device)
        self.clip_name, self.features_name = self.panel.names(workspace.players)
        folder, origin = (
            workspace.artifacts(reference_statistics.NAME),
            reference_statistics.origin(workspace, self.panel),
        )
        resolutions = {model.generator.resolution for model in self.models}
        self.references, self.reals = load_statistics(folder, origin, sorted(resolutions))
        self.captions = Captions(captions, self.panel.encode_text, derive_seed(config.seed, "wrong captions"))
        num_oracle_prompts = self.settings.num_oracle_prompts
        self.oracle = Oracle(source, config.seed, num_oracle_prompts) if isinstance(source, ShapesSource) else None
        self._measured_at_one: Measured | None = None

    @property
    def num_images(self) -> int:
        """Pictures painted in all."""
        settings = self.settings
        per_row = settings.num_images + (self.oracle.num_images if self.oracle else 0)
        num_psi = sum(psi != 1 for psi in settings.psi)
        return settings.num_seeds * len(self.models) * per_row + (1 + num_psi) * settings.num_psi_images

    def measure(self, model: Model, psi: float, repetition: int, count: int, progress: Progress) -> Measured:
        """The same captions and latents for every model and psi."""
        seeds = image_seeds(self.seed, f"evaluate {repetition}", 0, count)
        prompts = self.captions.prompts(count)
        return measure_fakes(model, prompts, seeds, psi, panel=self.panel, progress=progress)

    def row(self, model: Model, repetition: int, progress: Progress) -> Row:
        """All figures of one stage's model at psi 1."""
        resolution = model.generator.resolution
        measured = self.measure(model, 1.0, repetition, self.settings.num_images, progress)
        if model.name == FINAL and repetition == 0:
            self._measured_at_one = measured
        row = {"stage": model.name, "repetition": repetition, "resolution": resolution, "psi": 1.0}
        row |= {"num_images": self.settings.num_images}
        row |= distances(measured, self.references[resolution]) | agreement(measured, self.captions)
        if self.oracle:
            row |= self.oracle.examine(model.paint, repetition, resolution)
            progress.advance(self.oracle.num_images)
        return row

    def sweep(self, model: Model, progress: Progress) -> list[Row]:
        """Quality against agreement as psi falls."""
        count, rows = self.settings.num_psi_images, []
        for psi in self.settings.psi:
            known = self._measured_at_one if psi == 1 else None
            measured = known.first(count) if known else self.measure(model, psi, 0, count, progress)
            scores = distances(measured, self.references[model.generator.resolution]) | agreement(
                measured, self.captions
            )
            rows.append({"stage": model.name, "psi": psi, "num_images": count} | scores)
        return rows

    def control(self, final: Model, progress: Progress) -> Row:
        """Distances of an untrained generator, and the final model's at the same count of pictures."""
        assert self._measured_at_one is not None
        count, reference = self.settings.num_psi_images, self.references[final.generator.resolution]
        fresh = self.measure(untrained(final, self.seed, self.device), 1.0, 0, count, progress)
        scores = distances(fresh, reference)
        trained = distances(self._measured_at_one.first(count), reference)
        ratio = trained["frechet_distance"] / scores["frechet_distance"]
        return self.named(scores, count) | {"frechet_distance_of_final_relative": ratio}

    def named(self, row: Row, count: int) -> Row:
        """The figures of a row under names that state judge, count and number of choices."""
        names = {name: f"{name}_{self.features_name}_{count}" for name in DISTANCES}
        names |= {
            "clip_score": f"clip_score_{self.clip_name}",
            "clip_score_shuffled": f"clip_score_{self.clip_name}_shuffled_captions",
            "retrieval_accuracy": f"retrieval_accuracy_{self.clip_name}_of_{self.captions.num_choices}",
        }
        left_out = {"stage", "repetition", "num_images", "psi"}
        return {names.get(name, name): value for name, value in row.items() if name not in left_out}

    def summary(self, rows: list[Row], sweep: list[Row], control: Row) -> Row:
        """metrics.json: the final model's figures at the top, the other stages' and controls in groups.

        Each is the median over repetitions; with several, ``<name>_range`` is the largest less the smallest.
        """
        stages = {
            stage: self.named(medians([row for row in rows if row["stage"] == stage]), self.settings.num_images)
            for stage in TRAINING_STAGES
        }
        first, second = (medians([row for row in rows if row["stage"] == stage]) for stage in (FIRST, SECOND))
        reference = next(iter(self.references.values()))
        return stages[FINAL] | {
            "stages": {stage: stages[stage] for stage in (FIRST, SECOND)},
            "stage_two_against_one": {
                "clip_score_gain": second["clip_score"] - first["clip_score"],
                "frechet_distance_ratio": second["frechet_distance"] / first["frechet_distance"],
            }
            | ({"mean_accuracy_gain": second["mean_accuracy"] - first["mean_accuracy"]} if self.oracle else {}),
            "reals": {f"{px}px": self.named(facts, reference.moments.count) for px, facts in self.reals.items()},
            "untrained": control,
            "psi": {f"{row['psi']:g}": self.named(row, row["num_images"]) for row in sweep},
            "protocol": {
                "num_reals": reference.moments.count,
                "num_features": reference.features.shape[1],
                "covariance_is_singular": min(reference.moments.count, self.settings.num_images)
                <= reference.features.shape[1],
                "num_images": self.settings.num_images,
                "num_psi_images": self.settings.num_psi_images,
                "num_seeds": self.settings.num_seeds,
                "psi": 1.0,
                "weights": "ema",
            },
        }


def medians(rows: Sequence[Row]) -> Row:
    """Of every figure over the repetitions; its range too where there are several."""
    result: Row = {}
    for name, value in rows[0].items():
        if not isinstance(value, float):
            result[name] = value
            continue
        values = [row[name] for row in rows]
        result[name] = statistics.median(values)
        if len(rows) > 1:
            result[f"{name}_range"] = max(values) - min(values)
    return result


def write_table(path: Path, rows: list[Row]) -> None:
    """A CSV file with a line for each row."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


def write_grids(out: Path, model: Model, prompts: Sequence[str], psis: Sequence[float]) -> None:
    """A grid of prompts and seeds for each psi, ascending, and the sheet that describes them."""
    seeds = list(SAMPLE_SEEDS)
    tiles, tile_seeds = [p for p in prompts for _ in seeds], seeds * len(prompts)
    grids = []
    for psi in sorted(set(psis)):
        images = torch.cat(list(model.paint(tiles, tile_seeds, psi)))
        name = f"samples/psi_{psi:.2f}.webp"
        save_webp(out / name, grid(images, columns=len(seeds)))
        grids.append(SampleGrid(kimg=model.kimg, resolution=model.generator.resolution, file=name))
    sheet = SampleSheet(prompts=list(prompts), seeds=seeds, psi=max(psis), grids=grids)
    records.write_record(out / records.SAMPLES, sheet)

"""What ``evaluate`` leaves, with figures that are known: records, tables, speed, the check for copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from stylegan_t.evaluation.tables import row_of, write_table
from stylegan_t.files import write_json
from stylegan_t.records import (
    EVALUATIONS,
    NEIGHBOURS,
    Evaluation,
    Measurement,
    Neighbour,
    Neighbours,
    write_lines,
    write_record,
)

STAGES = ["train_generator", "finetune_text_encoder", "train_super_resolution"]
PSIS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
PX, FULL, FEWER, NUM_HALF = 32, 5000, 1500, 975
REFERENCE = "b5bd6d"
TILE_PX = 64


def measurement(metric: str, value: float | None, count: int, **facts: object) -> Measurement:
    short = {"frechet": "fd", "kernel": "kd"}.get(metric, metric)
    lower = metric in ("frechet", "kernel", "cmmd")
    made: dict[str, object] = {
        "name": f"{short}_small_clip_{count}_shapes{PX}",
        "metric": metric,
        "better": "lower" if lower else "higher",
        "value": value,
        "extractor": "small_clip",
        "in_training": False,
    }
    if value is not None:
        made |= {"low": 0.9 * value, "high": 1.1 * value, "uncertainty": "20 random halves without replacement"}
    return Measurement.model_validate(made | facts)


def evaluation(
    subject: str,
    psi: float | None,
    count: int,
    values: dict[str, float | None],
    *,
    facts: dict[str, float] | None = None,
    in_training: Sequence[str] = (),
    repetition: int = 0,
) -> Evaluation:
    few = {"leads": False, "note": f"{count} pictures are few for it"} if count < 2048 else {}
    absent = {"absent": "no network has it: dinov2", "extractor": "dinov2", "in_training": None}
    return Evaluation(
        protocol="shapes",
        subject=subject,
        subject_sha256="a1",
        weights="ema" if psi is not None else "none",
        psi=psi,
        seeds=f"images 0 to {count - 1} of 'evaluate {repetition}', seed 0",
        count=count,
        px=PX,
        fit="centre square; smaller by the mean of the area, larger by Lanczos",
        captions_sha256="c1",
        reference="shapes",
        reference_sha256=REFERENCE,
        reference_count=2 * NUM_HALF,
        measurements=[
            measurement(
                metric, value, count,
                **({"in_training": True} if metric in in_training else {}),
                **(few if metric == "frechet" else {}),
                **(absent if value is None else {}),
            )
            for metric, value in values.items()
        ],
        facts=facts or {},
    )  # fmt: skip


def values_of(distance: float, score: float) -> dict[str, float | None]:
    return {
        "frechet": distance,
        "kernel": distance / 8,
        "cmmd": 4 * distance,
        "precision": 0.71,
        "clip_score": score,
        "clip_score_of_wrong_captions": 0.06,
        "retrieval_1_of_32": 0.83,
        "clip_score_best_of_8": score + 0.05,
        "recall": None,
    }


def read_by_oracle(*, pairs: bool) -> dict[str, float]:
    if pairs:
        outcomes = {"correct": 0.5, "swapped": 0.25, "misplaced": 0.125, "missing": 0.0625, "wrong": 0.0625}
        attributes = {"shape": 0.625, "colour": 0.75, "background": 0.875}
        seen = {f"binding_{name}": value for name, value in (outcomes | attributes).items()}
        heldout = {f"binding_heldout_{name}": value for name, value in (outcomes | attributes).items()}
        return seen | heldout | {"binding_correct_of_data": 0.97}
    facts = {}
    for number, name in enumerate(["shape", "colour", "background", "size"]):
        facts[f"oracle_{name}"] = 0.69 + 0.1 * number
        facts[f"oracle_heldout_{name}"] = 0.55 + 0.14 * number
    means = {"mean_accuracy": 0.84, "mean_accuracy_heldout": 0.76}
    return facts | means | {"position_spread_relative": 0.47, "size_diversity_relative": 0.92}


def write_evaluation(
    root: Path,
    prompts: Sequence[str],
    *,
    facts: dict[str, float],
    in_training: Sequence[str] = (),
    repetitions: int = 1,
    count: int = FULL,
) -> None:
    """Everything but the sample grids.

    Args:
        root: Of the project.
        prompts: For the sheet of nearest pictures.
        facts: What the oracle read.
        in_training: Metrics whose judge took part in the training.
        repetitions: Under other latents: the second is better by 0.01 in score, and so on.
        count: Pictures of each stage at psi 1.
    """
    folder = root / "artifacts" / "evaluate"
    last = len(STAGES) - 1
    stages = [
        evaluation(
            stage, 1.0, count, values_of(0.0312 + 0.01 * (last - place), 0.671 + 0.01 * r - 0.02 * (last - place)),
            facts=facts, in_training=in_training, repetition=r,
        )
        for place, stage in enumerate(STAGES)
        for r in range(repetitions)
    ]  # fmt: skip
    sweep = [
        evaluation(
            stage, psi, FEWER, values_of(0.04 + 0.01 * place + 0.2 * (1 - psi) ** 2, 0.67 + 0.05 * (1 - psi)),
            in_training=in_training,
        )
        for place, stage in enumerate(STAGES)
        for psi in PSIS
    ]  # fmt: skip
    untrained = evaluation("untrained", 1.0, FEWER, values_of(1.31, 0.02), in_training=in_training)
    reals = evaluation("real pictures", None, NUM_HALF, values_of(0.0066, 0.74), in_training=in_training)
    write_lines(folder / EVALUATIONS, [*stages, *sweep, untrained])
    write_table(folder / "stages.csv", [row_of(each, 0) for each in stages])
    write_table(folder / "psi_sweep.csv", [row_of(each, 0) for each in sweep])
    write_json(
        folder / "metrics.json",
        {m.name: m.value for m in stages[-1].measurements if m.value is not None}
        | facts
        | {"psi": {}, "protocol": {"name": "shapes", "num_images": count}},
    )
    write_json(root / "artifacts" / "reference_statistics" / "statistics.json", {"reals": [reals.model_dump()]})
    write_json(folder.with_name("evaluate_speed.json"), speeds())
    write_nearest(folder, prompts[:2], in_training=bool(in_training))


def speeds() -> dict[str, object]:
    by_stage: dict[str, object] = {
        stage: {
            "resolution": PX,
            "batch_size": 100,
            "images_per_second": 100.0 * (place + 1),
            "latency_p50_seconds": 0.02,
            "latency_p95_seconds": 0.03,
        }
        for place, stage in enumerate(STAGES)
    }
    return by_stage | {"device": "a processor, 2 threads", "seconds": {"fd_small_clip_5000_shapes32": 0.25}}


def nearest_colour(row: int, column: int) -> tuple[int, int, int]:
    """Of a tile of the sheet."""
    return (60 + 90 * row, 40 * column, 200 - 30 * column)


def write_nearest(folder: Path, prompts: Sequence[str], *, in_training: bool) -> None:
    """A sheet of tiles in colours of their own: a sample and three training pictures for each prompt."""
    sheet = Image.new("RGB", (4 * TILE_PX, len(prompts) * TILE_PX))
    for row in range(len(prompts)):
        for column in range(4):
            tile = Image.new("RGB", (TILE_PX, TILE_PX), nearest_colour(row, column))
            sheet.paste(tile, (column * TILE_PX, row * TILE_PX))
    sheet.save(folder / "nearest.webp", lossless=True)
    record = Neighbours(
        sheet="nearest.webp",
        tile_px=TILE_PX,
        extractor="small_clip",
        in_training=in_training,
        num_training=17550,
        prompts=list(prompts),
        neighbours=[
            [
                Neighbour(key=f"key{row}{n}", caption=f"a <b>picture</b> {row}{n}", cosine=0.99 - 0.01 * n)
                for n in range(3)
            ]
            for row in range(len(prompts))
        ],
        median_of_samples=0.9312,
        median_of_heldout=0.9355,
        closer_than_heldout=0.032,
        num_samples=500,
    )
    write_record(folder / NEIGHBOURS, record)

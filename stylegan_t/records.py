"""The JSON lines and JSON files that stages write and the dashboard reads. No torch here.

A training run's folder ``.state/<stage>/<digest>/live/`` holds::

    run.json        RunRecord: what runs, since when
    log.jsonl       LogRecord lines, one per log interval
    samples.json    SampleSheet: one grid of fixed prompts and seeds per entry
    samples/*.webp  the grids
    tensorboard/    the same lines and grids for TensorBoard, where that is installed

``log.jsonl`` without the speed (and as ``losses.csv``), ``samples.json`` and ``samples/`` go to the stage's outputs at
the end: they are the same bytes for every run of the same settings and data (a run whose end was put off keeps the
grid of its old one).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stylegan_t.files import write_json, write_text

LIVE = "live"
RUN, LOG, SAMPLES = "run.json", "log.jsonl", "samples.json"
EVALUATIONS, NEIGHBOURS = "evaluations.jsonl", "nearest.json"
LATER_LOG, LATER_SAMPLES = "later.jsonl", "later.json"
"""What a longer run told beyond the end of this one: its states are kept, and so is what belongs to them."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class RunRecord(Record):
    """One training run: a stage under one digest of settings and inputs."""

    stage: str
    digest: str
    started: str
    """ISO time when it started from nothing, UTC."""
    total_kimg: float
    settings: dict[str, object]
    """The stage's section of params.yaml."""
    finished: bool
    resumed: list[float] = []
    """Where processes took over from interrupted ones, thousand images."""


class Speed(Record):
    """What differs from run to run."""

    seconds: float
    """Wall time since this process started."""
    images_per_second: float
    data_wait: float
    """Share of the step time spent waiting for data."""
    memory_mib: float
    """Resident memory of the process, or peak device memory on a GPU."""


class LogRecord(Record):
    """One log interval: means since the line before, and the settings that change while the training goes on."""

    kimg: float
    resolution: int
    terms: dict[str, float]
    """The same for every run of these settings, by name: d_real, g_adversarial, logits_fake, generator_lr, …"""
    speed: Speed | None = None
    """Absent in a stage's outputs, which are compared byte for byte."""


class SampleGrid(Record):
    """One picture of equal square tiles, small images enlarged; row i shows prompt i, column j seed j."""

    kimg: float
    resolution: int
    file: str
    """Relative to the folder of samples.json."""


class SampleSheet(Record):
    """All grids of a run, or of an evaluation."""

    prompts: list[str]
    seeds: list[int]
    psi: float
    grids: list[SampleGrid]


class Measurement(Record):
    """One number, under a name that states its protocol, or the reason why there is none."""

    name: str
    """Metric, judge, count of pictures, real pictures and side: ``fid30k_coco64_clean``. One name, one protocol."""
    metric: str
    """What it is in general: frechet, kernel, cmmd, precision, recall, density, coverage, clip_score, …"""
    better: Literal["lower", "higher"]
    value: float | None = None
    absent: str | None = None
    """Why there is no value."""
    low: float | None = None
    high: float | None = None
    """Where it lies with 95 %, for other pictures of the same source."""
    uncertainty: str | None = None
    """What that was taken from."""
    leads: bool = True
    """False where another metric of the same judge says more at this count."""
    note: str | None = None
    extractor: str
    """The judge, and clean-fid's resize where it has one."""
    weights_sha256: str | None = None
    """Of the extractor."""
    resize: str | None = None
    """How pictures came to its input."""
    in_training: bool | None = None
    """Whether the same weights took part in the training: such a number flatters. None where that is not known."""
    seconds: float | None = None
    """How long the algebra took; absent in a stage's outputs, which are compared byte for byte."""


class Evaluation(Record):
    """One set of pictures, measured by one protocol."""

    protocol: str
    subject: str
    """A model's stage, or a folder."""
    subject_sha256: str
    """Of the model's files, or of the pictures."""
    weights: Literal["ema", "untrained", "none"]
    """Which of a model's weights painted: the average over its training, or those it began with (a control); none:
    the pictures were there."""
    psi: float | None = None
    seeds: str | None = None
    """Which latents."""
    count: int
    px: int | None = None
    """Side at which pictures were compared; None: as they were."""
    fit: str | None = None
    """How pictures of another side came to it, before each judge's own resize."""
    captions_sha256: str | None = None
    """Of the list of captions painted, in order."""
    reference: str
    """Name of the real pictures in those of the metrics."""
    reference_sha256: str
    reference_count: int
    measurements: list[Measurement]
    facts: dict[str, float] = {}
    """What an oracle read, and other numbers that need no judge."""
    made_on: str | None = None
    """Processor and torch; absent, as ``seconds``, in a stage's outputs, which are compared byte for byte."""
    seconds: float | None = None
    """From the first picture to the last number, without what was on disk already."""


class Neighbour(Record):
    """A training picture near a sample."""

    key: str
    caption: str
    cosine: float


class Neighbours(Record):
    """The training pictures that are nearest to samples, to see whether a model copies.

    ``sheet`` has a row for each sample: the sample, then its neighbours, nearest first.
    """

    sheet: str
    tile_px: int
    extractor: str
    in_training: bool | None
    num_training: int
    """Training pictures that were compared."""
    prompts: list[str]
    neighbours: list[list[Neighbour]]
    median_of_samples: float
    """Median cosine of all samples measured to their nearest training picture."""
    median_of_heldout: float
    """The same for real pictures that were not trained on: a model that does not copy comes no nearer."""
    closer_than_heldout: float
    """Share of samples nearer to a training picture than 99 % of the held-out ones are; 0.01 is chance."""
    num_samples: int


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_record(path: Path, record: Record) -> None:
    write_json(path, record.model_dump())


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """The record in a file; None where the file is absent or not (yet) one."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def append_line(path: Path, record: Record) -> None:
    """Add a line to a file, whole or not at all.

    Raises:
        OSError: The line could not be written; the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = _line(record).encode()
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if file.write(line) != len(line):
            file.truncate(size)  # else the next line would be glued to this one's beginning
            raise OSError(f"{path}: no room for a line of {len(line)} bytes")


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """Write a file of lines, in place of one that is there."""
    write_text(path, "".join(map(_line, records)))


def _line(record: Record) -> str:
    return record.model_dump_json(exclude_none=True) + "\n"


def read_lines(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """All whole lines of a file that may still be written to; [] where it is absent."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    records = []
    for line in lines[:-1]:
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError:
            continue  # torn by a crash in the middle of a write; the next line is whole again
    return records

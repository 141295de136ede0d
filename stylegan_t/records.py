"""The JSON lines and JSON files that stages write and the dashboard reads. No torch here.

A training run's folder ``.state/<stage>/<digest>/live/`` holds::

    run.json        RunRecord: what runs, since when
    losses.jsonl    LossRecord lines: the same for the same settings and data
    speed.jsonl     SpeedRecord lines: differ from run to run
    samples.json    SampleSheet: one grid of fixed prompts and seeds per entry
    samples/*.webp  the grids

``losses.jsonl`` (and as ``losses.csv``), ``samples.json`` and ``samples/`` go to the stage's outputs at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stylegan_t.files import write_json, write_text

LIVE = "live"
RUN, LOSSES, SPEED, SAMPLES = "run.json", "losses.jsonl", "speed.jsonl", "samples.json"


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunRecord(Record):
    """One training run: a stage under one digest of settings and inputs."""

    stage: str
    digest: str
    started: str
    """ISO time of the first start, UTC."""
    total_kimg: float
    settings: dict[str, object]
    """The stage's section of params.yaml."""
    finished: bool
    resumed: list[float] = []
    """Where processes took over from interrupted ones, thousand images."""


class LossRecord(Record):
    """Means since the line before."""

    kimg: float
    resolution: int
    losses: dict[str, float]
    """Terms by name: d_real, d_fake, g_adversarial, clip_guidance, logits_real, logits_fake, lr, …"""


class SpeedRecord(Record):
    kimg: float
    seconds: float
    """Wall time since this process started."""
    images_per_second: float
    data_wait: float
    """Share of the step time spent waiting for data."""
    memory_mib: float
    """Resident memory of the process, or peak device memory on a GPU."""


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
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(record.model_dump_json() + "\n")


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


def keep_lines_until(path: Path, kind: type[LossRecord] | type[SpeedRecord], kimg: float) -> None:
    """Drop what a resumed run will write again: lines after ``kimg``."""
    kept = [record for record in read_lines(path, kind) if record.kimg <= kimg]
    write_text(path, "".join(record.model_dump_json() + "\n" for record in kept))

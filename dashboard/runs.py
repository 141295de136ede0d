"""What there is to look at: training runs, their records and pictures, the evaluation's tables.

Reads files that may be written at the same moment: whatever is absent, torn or not yet whole counts as not there.
Neither Streamlit nor torch is imported here.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image

from stylegan_t.config import STAGES
from stylegan_t.records import (
    LIVE,
    LOG,
    RUN,
    SAMPLES,
    AnyRecord,
    LogRecord,
    RunRecord,
    SampleGrid,
    SampleSheet,
    read_lines,
    read_record,
)  # fmt: skip

OUTPUTS = "outputs"
"""Stands where a run's digest would: a stage's outputs whose live folder is not on this machine."""
TAIL_BYTES = 1 << 16
QUIET_SECONDS = 600
"""A run that is not finished and wrote nothing for so long has stopped."""

State = Literal["running", "stopped", "finished"]


def root() -> Path:
    """The repository whose runs are shown: ``STYLEGAN_T_ROOT``, or the working directory."""
    return Path(os.environ.get("STYLEGAN_T_ROOT", "."))


@dataclass(frozen=True)
class Run:
    """One training run, or a stage's outputs without one."""

    stage: str
    digest: str
    folder: Path
    state: State
    started: datetime | None = None
    total_kimg: float | None = None
    kimg: float = 0.0
    resolutions: tuple[int, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tells it apart, in words that stay the same while it trains."""
        started = f"{self.started.astimezone():%d %b %H:%M}" if self.started else "outputs"
        sizes = "→".join(map(str, self.resolutions))
        digest = "" if self.digest == OUTPUTS else self.digest[:6]
        return " · ".join(part for part in (started, sizes and f"{sizes} px", self.state, digest) if part)

    @property
    def progress(self) -> float | None:
        """Share of the training that is done."""
        return min(self.kimg / self.total_kimg, 1.0) if self.total_kimg else None

    def log(self) -> Sequence[LogRecord]:
        """The whole lines so far."""
        return _lines(self.folder / LOG, LogRecord)

    def sheet(self) -> SampleSheet | None:
        """The sample grids whose picture is there, in the order of training; None where there is none yet."""
        sheet = read_record(self.folder / SAMPLES, SampleSheet)
        if sheet is None:
            return None
        there = [grid for grid in sheet.grids if (self.folder / grid.file).is_file()]
        return sheet.model_copy(update={"grids": there}) if there and sheet.prompts and sheet.seeds else None

    def picture(self, grid: SampleGrid) -> Image.Image | None:
        """A grid's picture, decoded; None where its file is absent or only half written."""
        path = self.folder / grid.file
        try:
            return _decode(path, _version(path))
        except (OSError, SyntaxError):  # Pillow raises SyntaxError for some broken headers
            return None


def list_runs(root: Path) -> list[Run]:
    """All training runs and sampled outputs: by stage in the pipeline's order, the newest run first."""
    found = [run for path in root.glob(f".state/*/*/{LIVE}/{RUN}") if (run := _live_run(path))]
    for folder in sorted(root.glob("artifacts/*")):
        outputs = _outputs(folder)
        if outputs and not any(_same_run(run, outputs) for run in found):
            found.append(outputs)
    order = {stage: place for place, stage in enumerate(STAGES)}
    return sorted(found, key=lambda r: (order.get(r.stage, len(order)), -(r.started.timestamp() if r.started else 0)))


def newest(runs: Sequence[Run]) -> Run:
    """The run to show first: one that trains now, else the last stage that has anything."""
    running = [run for run in runs if run.state == "running" and run.started]
    if running:
        return max(running, key=lambda r: r.started or datetime.min)
    return next(run for run in runs if run.stage == runs[-1].stage)


def time_left(run: Run) -> timedelta | None:
    """How long a running run still needs, at the speed of its last lines."""
    rates = [
        line.speed.images_per_second for line in run.log()[-10:] if line.speed and line.speed.images_per_second > 0
    ]
    if run.state != "running" or not run.total_kimg or not rates:
        return None
    seconds = 1000 * max(run.total_kimg - run.kimg, 0) * len(rates) / sum(rates)
    return timedelta(seconds=round(seconds))


def read_json(path: Path) -> dict:
    """A JSON file's object; {} where the file is absent, torn or something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_table(path: Path) -> list[dict[str, str | float]]:
    """A CSV file's whole rows, numbers as numbers; [] where the file is absent."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return []
    return [{name: _number(text) for name, text in row.items()} for row in rows if None not in (*row, *row.values())]


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _live_run(path: Path) -> Run | None:
    record, live = read_record(path, RunRecord), path.parent
    if record is None:
        return None
    try:
        started = datetime.fromisoformat(record.started)
    except ValueError:
        started = None
    last = _last_line(live / LOG)
    state: State = "finished" if record.finished else "running" if _age_seconds(live) < QUIET_SECONDS else "stopped"
    return Run(
        record.stage, record.digest, live, state, started, record.total_kimg, last.kimg if last else 0.0,
        _resolutions(record.settings, last), record.settings,
    )  # fmt: skip


def _outputs(folder: Path) -> Run | None:
    last = _last_line(folder / LOG)
    if last is None and not (folder / SAMPLES).is_file():
        return None
    kimg, sizes = (last.kimg, (last.resolution,)) if last else (0.0, ())
    return Run(folder.name, OUTPUTS, folder, "finished", total_kimg=kimg or None, kimg=kimg, resolutions=sizes)


def _same_run(run: Run, outputs: Run) -> bool:
    """Whether a stage's outputs are copies of a run's records: then the run stands for both.

    Losses to their last digit tell one run from another, so the last line stands for all.
    """
    if run.stage != outputs.stage or run.state != "finished" or run.kimg != outputs.kimg:
        return False
    mine, theirs = _last_line(run.folder / LOG), _last_line(outputs.folder / LOG)
    return mine is not None and theirs is not None and mine.terms == theirs.terms


def _resolutions(settings: dict[str, object], last: LogRecord | None) -> tuple[int, ...]:
    planned = settings.get("resolutions")
    if isinstance(planned, list) and planned:
        return tuple(planned)
    return (last.resolution,) if last else ()


def _age_seconds(live: Path) -> float:
    """Seconds since anything in a run's folder was written."""
    versions = [_version(live / name) for name in (RUN, LOG, SAMPLES)]
    return time.time() - max(modified_ns for modified_ns, _ in versions) / 1e9


def _last_line(path: Path) -> LogRecord | None:
    """The last whole line, read from the file's end: listing many long runs stays cheap."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return LogRecord.model_validate_json(line)
        except ValueError:
            continue  # torn by a crash, or cut by our seek
    return None


def _version(path: Path) -> tuple[int, int]:
    """Changes when a file does: modification time in ns, and size; zeros where it is absent."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _lines(path: Path, kind: type[AnyRecord]) -> Sequence[AnyRecord]:
    return _parse(path, kind, _version(path))


@lru_cache(maxsize=32)
def _parse(path: Path, kind: type[AnyRecord], version: tuple[int, int]) -> Sequence[AnyRecord]:
    return tuple(read_lines(path, kind))


@lru_cache(maxsize=8)
def _decode(path: Path, version: tuple[int, int]) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")

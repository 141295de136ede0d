"""What a run tells while it trains: records and sample grids in its ``live/`` folder (formats in records.py)."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from jaxtyping import UInt8
from torch import Tensor

from stylegan_t import records
from stylegan_t.records import LogRecord, RunRecord, SampleGrid, SampleSheet
from stylegan_t.sampling import grid, save_webp
from stylegan_t.training.loggers import Loggers, usual_loggers
from stylegan_t.training.schedules import images

log = logging.getLogger(__name__)

Told = TypeVar("Told", LogRecord, SampleGrid)


class LiveFolder:
    """The records of one run, and the loggers that show them elsewhere.

    Telling never ends a training: a line or a grid that cannot be written is left out, a logger that fails is
    switched off, and a warning says so.

    Args:
        folder: ``live/`` of the run.
        prompts: Captions of the sample grids' rows.
        seeds: Seeds of their columns.
        wandb_project: Project of Weights & Biases to log to as well.
    """

    def __init__(
        self, folder: Path, prompts: Sequence[str], seeds: Sequence[int], wandb_project: str | None = None
    ) -> None:
        self.folder, self.prompts, self.seeds = folder, list(prompts), list(seeds)
        self.wandb_project = wandb_project
        self._loggers = Loggers([])
        self._failing: set[str] = set()

    def begin(self, run: RunRecord, kimg: float, end_kimg: float) -> None:
        """Say that the run goes on from ``kimg`` to ``end_kimg``.

        What an interrupted process wrote after ``kimg`` is dropped. Where a longer run wrote beyond the end, all of
        that is put aside instead, for the day when the run is made longer again.

        Raises:
            OSError: The folder cannot be written to. It holds the resume state as well, so this is no logger's failure.
        """
        known = records.read_record(self.folder / records.RUN, RunRecord) if kimg else None
        started = known.started if known else datetime.now(UTC).isoformat(timespec="milliseconds")
        resumed = [*known.resumed, kimg] if known else []
        run = run.model_copy(update={"started": started, "resumed": resumed})
        records.write_record(self.folder / records.RUN, run)
        lines = {line.kimg: line for line in [*self._lines(records.LATER_LOG), *self._lines()]}
        kept, later = _split(lines.values(), kimg, end_kimg)
        records.write_lines(self.folder / records.LOG, kept)
        records.write_lines(self.folder / records.LATER_LOG, later)
        grids = {grid.file: grid for grid in [*self._sheet_grids(records.LATER_SAMPLES), *self._sheet_grids()]}
        kept, later = _split(grids.values(), kimg, end_kimg)
        self._write_sheet(kept)
        self._write_sheet(later, records.LATER_SAMPLES)
        self._loggers.finish()  # those from before a rollback
        self._loggers = usual_loggers(self.folder, self.wandb_project)
        self._loggers.begin(run, images(kimg))

    def forget(self) -> None:
        """Drop what earlier processes told; for a run that starts afresh."""
        for name in (records.RUN, records.LOG, records.SAMPLES, records.LATER_LOG, records.LATER_SAMPLES):
            (self.folder / name).unlink(missing_ok=True)

    def finish(self) -> None:
        run = records.read_record(self.folder / records.RUN, RunRecord)
        assert run is not None
        records.write_record(self.folder / records.RUN, run.model_copy(update={"finished": True}))
        self._loggers.finish()

    def log(self, record: LogRecord) -> None:
        """Append a line."""
        with self._left_out_on_failure(records.LOG):
            records.append_line(self.folder / records.LOG, record)
        self._loggers.log(record)

    def show(self, pictures: UInt8[Tensor, "n 3 h w"], kimg: float) -> None:
        """Add a grid of the prompts (rows) and seeds (columns)."""
        resolution = pictures.shape[-1]
        name = f"samples/kimg{kimg:09.3f}-{resolution}px.webp"
        picture = grid(pictures, columns=len(self.seeds))
        with self._left_out_on_failure("samples"):
            save_webp(self.folder / name, picture)
            others = [each for each in self._sheet_grids() if each.file != name]
            self._write_sheet([*others, SampleGrid(kimg=kimg, resolution=resolution, file=name)])
        self._loggers.show(kimg, picture)

    def copy_to(self, output: Path) -> None:
        """Put what is the same for every run of these settings into the stage's output."""
        lines = [line.model_copy(update={"speed": None}) for line in self._lines()]
        records.write_lines(output / records.LOG, lines)
        names = list(dict.fromkeys(name for line in lines for name in line.terms))
        with (output / "losses.csv").open("w", newline="") as file:  # DVC's plots do not read JSON lines
            table = csv.DictWriter(file, ["kimg", "resolution", *names])
            table.writeheader()
            table.writerows({"kimg": line.kimg, "resolution": line.resolution, **line.terms} for line in lines)
        shutil.copy(self.folder / records.SAMPLES, output / records.SAMPLES)
        for each in self._sheet_grids():
            (output / each.file).parent.mkdir(exist_ok=True)
            shutil.copy(self.folder / each.file, output / each.file)

    @contextmanager
    def _left_out_on_failure(self, what: str) -> Iterator[None]:
        """A write that fails is left out; said once, until one has worked again."""
        try:
            yield
            self._failing.discard(what)
        except OSError as error:
            if what not in self._failing:
                log.warning("%s: cannot be written; the training goes on (%s)", self.folder / what, error)
            self._failing.add(what)

    def _lines(self, name: str = records.LOG) -> list[LogRecord]:
        return records.read_lines(self.folder / name, LogRecord)

    def _sheet_grids(self, name: str = records.SAMPLES) -> list[SampleGrid]:
        sheet = records.read_record(self.folder / name, SampleSheet)
        return sheet.grids if sheet else []

    def _write_sheet(self, grids: list[SampleGrid], name: str = records.SAMPLES) -> None:
        sheet = SampleSheet(prompts=self.prompts, seeds=self.seeds, psi=1.0, grids=grids)
        records.write_record(self.folder / name, sheet)


def _split(told: Iterable[Told], kimg: float, end_kimg: float) -> tuple[list[Told], list[Told]]:
    """What was told until ``kimg``; and what was told later, if that goes on beyond the end."""
    in_order = sorted(told, key=lambda each: each.kimg)
    later = [each for each in in_order if each.kimg > kimg]
    goes_beyond = bool(later) and later[-1].kimg > end_kimg
    return [each for each in in_order if each.kimg <= kimg], later if goes_beyond else []

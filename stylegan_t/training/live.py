"""What a run tells while it trains: records and sample grids in its ``live/`` folder (formats in records.py)."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from stylegan_t import records
from stylegan_t.records import LossRecord, RunRecord, SampleGrid, SampleSheet, SpeedRecord
from stylegan_t.sampling import grid, save_webp


class LiveFolder:
    """The records of one run.

    Args:
        folder: ``live/`` of the run.
        prompts: Captions of the sample grids' rows.
        seeds: Seeds of their columns.
    """

    def __init__(self, folder: Path, prompts: Sequence[str], seeds: Sequence[int]) -> None:
        self.folder, self.prompts, self.seeds = folder, list(prompts), list(seeds)

    def begin(self, run: RunRecord, kimg: float) -> None:
        """Say that the run goes on from ``kimg``; what an interrupted process wrote after it is dropped."""
        known = records.read_record(self.folder / records.RUN, RunRecord)
        started = known.started if known else datetime.now(UTC).isoformat(timespec="seconds")
        resumed = [*known.resumed, kimg] if known and kimg else []
        update = {"started": started, "resumed": resumed}
        records.write_record(self.folder / records.RUN, run.model_copy(update=update))
        for name, kind in ((records.LOSSES, LossRecord), (records.SPEED, SpeedRecord)):
            records.keep_lines_until(self.folder / name, kind, kimg)
        kept = [each for each in self._sheet_grids() if each.kimg <= kimg]
        self._write_sheet(kept)

    def finish(self) -> None:
        run = records.read_record(self.folder / records.RUN, RunRecord)
        assert run is not None
        records.write_record(self.folder / records.RUN, run.model_copy(update={"finished": True}))

    def log(self, losses: LossRecord, speed: SpeedRecord) -> None:
        """Append a line to both files."""
        records.append_line(self.folder / records.LOSSES, losses)
        records.append_line(self.folder / records.SPEED, speed)

    def show(self, images: UInt8[Tensor, "n 3 h w"], kimg: float) -> None:
        """Add a grid of the prompts (rows) and seeds (columns)."""
        resolution = images.shape[-1]
        name = f"samples/kimg{kimg:09.3f}-{resolution}px.webp"
        save_webp(self.folder / name, grid(images, columns=len(self.seeds)))
        others = [each for each in self._sheet_grids() if each.file != name]
        self._write_sheet([*others, SampleGrid(kimg=kimg, resolution=resolution, file=name)])

    def copy_to(self, output: Path) -> None:
        """Put what is the same for every run of these settings into the stage's output."""
        shutil.copy(self.folder / records.LOSSES, output / records.LOSSES)
        lines = records.read_lines(self.folder / records.LOSSES, LossRecord)
        with (output / "losses.csv").open("w", newline="") as file:  # DVC's plots do not read JSON lines
            table = csv.DictWriter(file, ["kimg", "resolution", *(lines[0].losses if lines else [])])
            table.writeheader()
            table.writerows({"kimg": line.kimg, "resolution": line.resolution, **line.losses} for line in lines)
        shutil.copy(self.folder / records.SAMPLES, output / records.SAMPLES)
        for each in self._sheet_grids():
            (output / each.file).parent.mkdir(exist_ok=True)
            shutil.copy(self.folder / each.file, output / each.file)

    def _sheet_grids(self) -> list[SampleGrid]:
        sheet = records.read_record(self.folder / records.SAMPLES, SampleSheet)
        return sheet.grids if sheet else []

    def _write_sheet(self, grids: list[SampleGrid]) -> None:
        sheet = SampleSheet(prompts=self.prompts, seeds=self.seeds, psi=1.0, grids=grids)
        records.write_record(self.folder / records.SAMPLES, sheet)

"""The live folder: what goes to the outputs, what a resumed run drops, and what a write that fails does."""

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from stylegan_t import records
from stylegan_t.records import LogRecord, RunRecord, SampleSheet, Speed
from stylegan_t.training.live import LiveFolder

RUN = RunRecord(stage="test", digest="0123456789abcdef", started="", total_kimg=1.0, settings={}, finished=False)


def line(kimg: float, images_per_second: float = 250.0, **terms: float) -> LogRecord:
    speed = Speed(seconds=4.0, images_per_second=images_per_second, data_wait=0.02, memory_mib=900.0)
    return LogRecord(kimg=kimg, resolution=8, terms={"d_real": 0.5 + kimg, **terms}, speed=speed)


def begun(folder: Path, kimg: float = 0.0, **changes: str) -> LiveFolder:
    live = LiveFolder(folder, ["red", "blue"], [0, 1, 2], **changes)
    live.begin(RUN, kimg, RUN.total_kimg)
    return live


def pictures(grey: int) -> torch.Tensor:
    return torch.full((6, 3, 8, 8), grey, dtype=torch.uint8)


def output(live: LiveFolder, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    live.copy_to(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_outputs_are_the_same_bytes_whatever_the_speed(tmp_path):
    found = []
    for name, speed in (("slow", 10.0), ("fast", 1000.0)):
        live = begun(tmp_path / name)
        live.show(pictures(7), 0.0)
        live.log(line(0.1, speed))
        live.finish()
        found.append(output(live, tmp_path / f"{name}-output"))
    assert found[0] == found[1]
    assert set(found[0]) == {"log.jsonl", "losses.csv", "samples.json", "samples/kimg00000.000-8px.webp"}
    assert json.loads(found[0]["log.jsonl"]) == {"kimg": 0.1, "resolution": 8, "terms": {"d_real": 0.6}}


def test_the_table_has_a_column_for_every_term_that_ever_came(tmp_path):
    live = begun(tmp_path / "live")
    live.log(line(0.1, early=1.0))
    live.log(line(0.2, late=2.0))
    (tmp_path / "output").mkdir()
    live.copy_to(tmp_path / "output")
    with (tmp_path / "output" / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"kimg": "0.1", "resolution": "8", "d_real": "0.6", "early": "1.0", "late": ""},
        {"kimg": "0.2", "resolution": "8", "d_real": "0.7", "early": "", "late": "2.0"},
    ]


def test_a_resumed_run_ends_with_the_lines_and_grids_of_an_unbroken_one(tmp_path):
    unbroken, broken = begun(tmp_path / "unbroken"), begun(tmp_path / "broken")
    for live in (unbroken, broken):
        for kimg in (0.1, 0.2, 0.3):
            live.log(line(kimg))
            live.show(pictures(round(100 * kimg)), kimg)
    resumed = begun(tmp_path / "broken", 0.1)
    for kimg in (0.2, 0.3):
        resumed.log(line(kimg, 99.0))
        resumed.show(pictures(round(100 * kimg)), kimg)
    assert output(resumed, tmp_path / "a") == output(unbroken, tmp_path / "b")


def test_a_line_that_cannot_be_written_is_left_out_and_said_once(tmp_path, caplog):
    live = begun(tmp_path)
    log = tmp_path / records.LOG
    live.log(line(0.1))
    kept = log.read_bytes()
    log.unlink()
    log.symlink_to("/dev/full")  # whatever is written: no space left on device
    live.log(line(0.2))
    live.log(line(0.3))
    (said,) = warnings(caplog)
    assert "log.jsonl" in said
    assert "No space left on device" in said
    log.unlink()
    log.write_bytes(kept)
    live.log(line(0.4))
    assert [each.kimg for each in records.read_lines(log, LogRecord)] == [0.1, 0.4]


def test_a_second_failure_after_a_success_is_said_again(tmp_path, caplog):
    live = begun(tmp_path)
    for kimg, fails in ((0.1, True), (0.2, False), (0.3, True)):
        (tmp_path / records.LOG).unlink(missing_ok=True)
        if fails:
            (tmp_path / records.LOG).symlink_to("/dev/full")
        live.log(line(kimg))
    assert len(warnings(caplog)) == 2


def test_a_grid_that_cannot_be_written_is_left_out_and_said_once(tmp_path, caplog):
    live = begun(tmp_path / "live")
    live.show(pictures(1), 0.0)
    shutil.rmtree(tmp_path / "live" / "samples")
    (tmp_path / "live" / "samples").write_text("in the way")
    live.show(pictures(2), 0.1)
    live.show(pictures(3), 0.2)
    (said,) = warnings(caplog)
    assert "samples" in said
    (tmp_path / "live" / "samples").unlink()
    live.show(pictures(4), 0.3)
    sheet = records.read_record(tmp_path / "live" / records.SAMPLES, SampleSheet)
    assert sheet is not None
    assert [grid.kimg for grid in sheet.grids] == [0.0, 0.3]


def told(live: LiveFolder) -> tuple[list[float], list[float]]:
    sheet = records.read_record(live.folder / records.SAMPLES, SampleSheet)
    assert sheet is not None
    lines = records.read_lines(live.folder / records.LOG, LogRecord)
    return [each.kimg for each in lines], [each.kimg for each in sheet.grids]


def test_a_run_made_shorter_and_longer_again_has_told_all_of_it_once(tmp_path):
    live = begun(tmp_path)
    for kimg in (0.25, 0.5, 0.75, 1.0):
        live.log(line(kimg))
        live.show(pictures(7), kimg)
    shorter = RUN.model_copy(update={"total_kimg": 0.5})
    live.begin(shorter, 0.25, 0.5)
    live.log(line(0.5))
    live.show(pictures(7), 0.5)
    assert told(live) == ([0.25, 0.5], [0.25, 0.5])
    live.begin(shorter, 0.5, 0.5)  # nothing is left to do: what lies beyond stays put aside
    live.begin(shorter, 0.25, 0.5)  # stopped before it has told 0.5 again
    live.begin(RUN.model_copy(update={"total_kimg": 2.0}), 1.0, 2.0)
    assert told(live) == ([0.25, 0.5, 0.75, 1.0], [0.25, 0.5, 0.75, 1.0])


def test_lines_of_a_last_batch_that_goes_beyond_the_length_are_the_runs_own(tmp_path):
    live = LiveFolder(tmp_path, ["red", "blue"], [0, 1, 2])
    run = RUN.model_copy(update={"total_kimg": 0.5})
    live.begin(run, 0.0, 0.504)
    live.log(line(0.504))
    live.begin(run, 0.25, 0.504)
    assert told(live) == ([], [])
    assert records.read_lines(tmp_path / records.LATER_LOG, LogRecord) == []


@pytest.mark.parametrize("forgotten", [True, False], ids=["on purpose", "states lost"])
def test_a_run_that_starts_from_nothing_again_is_another_and_has_told_nothing(tmp_path, forgotten):
    live = begun(tmp_path)
    live.log(line(0.25))
    live.begin(RUN, 0.25, 1.0)
    before = records.read_record(tmp_path / records.RUN, RunRecord)
    if forgotten:
        live.forget()
        assert not (tmp_path / records.LOG).exists()
    live.begin(RUN, 0.0, 1.0)
    after = records.read_record(tmp_path / records.RUN, RunRecord)
    assert before is not None and after is not None
    assert (before.resumed, after.resumed) == ([0.25], [])
    assert before.started < after.started
    assert told(live) == ([], [])


def test_a_folder_that_cannot_be_written_to_stops_a_run_before_it_trains(tmp_path):
    (tmp_path / "live").write_text("in the way")
    with pytest.raises(OSError):
        begun(tmp_path / "live")

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from dashboard import runs
from stylegan_t.records import LOG, RUN, SAMPLES


def test_an_empty_folder_has_no_runs(project):
    assert runs.list_runs(project.root) == []


def test_stages_come_in_the_pipelines_order_and_the_newest_run_first(project):
    project.train("train_super_resolution", "c", kimg=2)
    project.train("train_generator", "old", kimg=2, started="2026-01-01T00:00:00+00:00")
    project.train("train_generator", "new", kimg=2, started="2026-02-01T00:00:00+00:00")
    found = [(run.stage, run.digest) for run in runs.list_runs(project.root) if run.digest != runs.OUTPUTS]
    assert found == [("train_generator", "new"), ("train_generator", "old"), ("train_super_resolution", "c")]


def test_a_finished_run_and_its_outputs_are_one(project):
    project.train(kimg=3, total=3)
    assert [run.digest for run in runs.list_runs(project.root)] == ["3fa9c1d2e8"]


def test_outputs_of_another_run_are_listed_beside_it(project):
    live = project.train(kimg=3, total=3)
    (live / LOG).write_text((live / LOG).read_text().replace("0.99", "0.98"))
    assert [run.digest for run in runs.list_runs(project.root)] == ["3fa9c1d2e8", runs.OUTPUTS]


def test_a_run_is_stopped_when_nothing_was_written_for_long(project):
    live = project.train(kimg=3, finished=False)
    assert runs.list_runs(project.root)[0].state == "running"
    long_ago = time.time() - runs.QUIET_SECONDS - 1
    for path in live.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert runs.list_runs(project.root)[0].state == "stopped"


def test_the_label_tells_start_sizes_state_and_digest_and_does_not_change_with_every_line(project):
    started = "2026-11-22T14:22:05+00:00"
    project.train(kimg=3, finished=False, started=started)
    before = runs.list_runs(project.root)[0].label
    local = datetime.fromisoformat(started).astimezone()
    assert before == f"{local:%d %b %H:%M} · 8→16 px · running · 3fa9c1"
    project.train(kimg=5, finished=False)
    assert runs.list_runs(project.root)[0].label == before


def test_progress_and_time_left_follow_from_the_last_lines(project):
    project.train(kimg=15, total=60, finished=False)
    (run,) = runs.list_runs(project.root)
    assert run.progress == 0.25
    rates = [line.speed.images_per_second for line in run.log()[-10:]]
    seconds = 45_000 / (sum(rates) / len(rates))
    assert runs.time_left(run) == timedelta(seconds=round(seconds))


def test_the_first_shown_is_the_run_that_trains_else_the_last_stage(project):
    project.train("train_generator", "a", kimg=2, started="2026-01-01T00:00:00+00:00")
    project.train("finetune_text_encoder", "b", kimg=2, started="2026-01-02T00:00:00+00:00")
    assert runs.newest(runs.list_runs(project.root)).digest == "b"
    now = datetime.now(UTC).isoformat()
    project.train("train_generator", "c", kimg=2, finished=False, started=now)
    assert runs.newest(runs.list_runs(project.root)).digest == "c"


def test_torn_lines_are_left_out_and_whole_ones_kept(project):
    live = project.train(kimg=6, finished=False)
    with (live / LOG).open("a") as file:
        file.write('{"kimg": 7.0, "resol')
    (run,) = runs.list_runs(project.root)
    assert [line.kimg for line in run.log()] == [1, 2, 3, 4, 5, 6]
    assert run.kimg == 6


@pytest.mark.parametrize("name", [RUN, SAMPLES])
def test_a_half_written_record_counts_as_absent(project, name):
    live = project.train(kimg=6, finished=False)
    project.tear(live / name)
    found = runs.list_runs(project.root)
    assert found == [] if name == RUN else found[0].sheet() is None


def test_grids_without_a_picture_are_left_out(project):
    live = project.train(kimg=24, finished=False)
    (live / "samples/00012.00.webp").unlink()
    sheet = runs.list_runs(project.root)[0].sheet()
    assert [grid.kimg for grid in sheet.grids] == [0, 24]


def test_a_half_written_picture_is_none_and_readable_once_it_is_whole(project):
    live = project.train(kimg=12, finished=False)
    (run,) = runs.list_runs(project.root)
    grid = run.sheet().grids[0]
    path = live / grid.file
    whole = path.read_bytes()
    for cut in (0, 10, 40, len(whole) // 2):
        path.write_bytes(whole[:cut])
        assert run.picture(grid) is None
    path.write_bytes(whole)
    assert run.picture(grid).size == (6 * 64, 6 * 64)


def test_new_lines_are_seen_by_the_next_look(project):
    project.train(kimg=3, finished=False)
    assert len(runs.list_runs(project.root)[0].log()) == 3
    project.train(kimg=2, finished=False)  # appends
    assert len(runs.list_runs(project.root)[0].log()) == 5


def test_a_torn_table_loses_its_last_row_only(project):
    path = project.root / "table.csv"
    path.write_text("stage,psi,clip_score\na,1.0,0.5\na,0.8,0.6\na,0.")
    assert runs.read_table(path) == [
        {"stage": "a", "psi": 1.0, "clip_score": 0.5},
        {"stage": "a", "psi": 0.8, "clip_score": 0.6},
    ]
    assert runs.read_table(project.root / "absent.csv") == []


def test_listing_hundreds_of_long_runs_is_cheap(project):
    live = project.train(kimg=60, finished=False)
    (live / LOG).write_bytes((live / LOG).read_bytes() * 200)
    for number in range(300):
        copy = project.root / ".state" / "train_generator" / f"{number:03d}" / "live"
        copy.mkdir(parents=True)
        (copy / RUN).write_bytes((live / RUN).read_bytes().replace(b"3fa9c1d2e8", b"%03d" % number))
        (copy / LOG).hardlink_to(live / LOG)
    start = time.process_time()
    assert len(runs.list_runs(project.root)) == 301
    assert time.process_time() - start < 1


def test_the_dashboard_starts_without_torch_and_reading_runs_without_streamlit():
    code = """if True:
        import sys, dashboard.runs
        assert not {"torch", "streamlit", "pandas"} & set(sys.modules)
        import dashboard.controls, dashboard.quality
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)

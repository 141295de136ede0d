"""How far a training is, read from the records that it writes while it runs."""

import pytest

from flows.reports import progress
from flows.reports.progress import LiveRecords, Progress, in_words
from tests.flows.live import STAGE, TOTAL, begin, live, log


def test_it_says_how_far_how_fast_and_how_long_still():
    assert str(Progress(12.3, 128.0, 210.0, False)) == "12.3 of 128 kimg, 210 images/s, 9 min left"
    assert str(Progress(0.0, 25000.0, None, False)) == "0.0 of 25,000 kimg"
    assert str(Progress(128.0, 128.0, 210.0, True)) == "128.0 of 128 kimg, 210 images/s, done"


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (551, "9 min"), (5399, "90 min"), (12240, "3.4 h")])
def test_a_time_is_told_in_words(seconds, words):
    assert in_words(seconds) == words


@pytest.mark.parametrize(("kimg", "percent"), [(0.0, 0.0), (32.0, 25.0), (128.03, 100.0)])
def test_a_training_that_overshoots_by_a_batch_is_not_beyond_its_end(kimg, percent):
    assert Progress(kimg, 128.0, None, False).percent == percent


def test_the_run_that_is_written_now_is_found_among_older_ones(tmp_path):
    old, new = live(tmp_path, "old"), live(tmp_path, "new")
    begin(old, finished=True)
    log(old, 128.0)
    records = LiveRecords(tmp_path, STAGE)
    assert records.look() is None
    begin(new)
    assert records.look() == Progress(0.0, TOTAL, None, False)
    log(new, 1.0, 100.0)
    log(new, 2.0, 300.0)
    assert records.look() == Progress(2.0, TOTAL, 200.0, False)
    begin(new, finished=True)
    assert records.look() == Progress(2.0, TOTAL, 200.0, True)


def test_a_run_that_is_resumed_counts_from_its_first_new_line(tmp_path):
    begin(live(tmp_path))
    log(live(tmp_path), 10.0)
    records = LiveRecords(tmp_path, STAGE)
    log(live(tmp_path), 11.0)
    found = records.look()
    assert found is not None
    assert found.kimg == 11.0


def test_other_stages_are_not_looked_at(tmp_path):
    records = LiveRecords(tmp_path, "evaluate")
    begin(live(tmp_path))
    assert records.look() is None


def test_the_end_of_a_long_log_is_enough_and_a_torn_line_is_left_out(tmp_path):
    folder = live(tmp_path)
    records = LiveRecords(tmp_path, STAGE)
    begin(folder)
    for kimg in range(2000):  # longer than what is read
        log(folder, float(kimg), 1.0 if kimg < 1990 else 50.0)
    assert (folder / "log.jsonl").stat().st_size > 2 * progress.TAIL_BYTES
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"kimg": 2000.0, "resol')
    assert records.look() == Progress(1999.0, TOTAL, 50.0, False)


def test_a_run_file_that_is_half_written_is_not_there_yet(tmp_path):
    records = LiveRecords(tmp_path, STAGE)
    live(tmp_path).mkdir(parents=True)
    (live(tmp_path) / "run.json").write_text('{"stage": "trai')
    assert records.look() is None

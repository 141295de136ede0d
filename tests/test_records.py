import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stylegan_t.records import LogRecord, Speed, append_line, read_lines, write_lines

SPEED = Speed(seconds=4.0, images_per_second=250.0, data_wait=0.02, memory_mib=900.0)


def line(kimg: float, **terms: float) -> LogRecord:
    return LogRecord(kimg=kimg, resolution=8, terms={"d_real": 0.5, **terms}, speed=SPEED)


def test_lines_are_read_back_as_they_were_logged(tmp_path):
    written = [line(1.0), line(2.0, clamped=0.25), line(3.0).model_copy(update={"speed": None})]
    for each in written:
        append_line(tmp_path / "live" / "log.jsonl", each)
    assert read_lines(tmp_path / "live" / "log.jsonl", LogRecord) == written


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_is_told_and_not_lost(tmp_path, value):
    append_line(tmp_path / "log.jsonl", line(1.0, fakes_diversity=value))
    (found,) = read_lines(tmp_path / "log.jsonl", LogRecord)
    assert repr(found.terms["fakes_diversity"]) == repr(value)


def test_a_line_without_speed_does_not_mention_it(tmp_path):
    write_lines(tmp_path / "log.jsonl", [line(1.0).model_copy(update={"speed": None})])
    assert (tmp_path / "log.jsonl").read_text() == '{"kimg":1.0,"resolution":8,"terms":{"d_real":0.5}}\n'


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that is nearly full: what does not fit is cut off."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 10])
def test_a_line_that_does_not_fit_leaves_the_file_whole(tmp_path: Path, room):
    path = tmp_path / "log.jsonl"
    append_line(path, line(1.0))
    with files_of_at_most(path.stat().st_size + room), pytest.raises(OSError):
        append_line(path, line(2.0))
    append_line(path, line(3.0))
    assert [each.kimg for each in read_lines(path, LogRecord)] == [1.0, 3.0]

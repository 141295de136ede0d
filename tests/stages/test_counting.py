from __future__ import annotations

import time

import pytest

from stylegan_t.stages import counting
from stylegan_t.stages.counting import Counters, Watch


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_TOLD", 0.0)
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_SHOWN", 0.01)
    monkeypatch.setattr("stylegan_t.progress.SECONDS_BETWEEN_LINES", 0.02)


def test_what_parts_tell_adds_up(tmp_path):
    counters = Counters(tmp_path / "counts")
    first, second = counters.of(0), counters.of(1)
    for tell in (first, first, second):
        tell(10)
    assert counters.read([0, 1]) == 30 and counters.read([1]) == 10 and counters.read([7]) == 0


def test_a_part_that_is_begun_again_counts_from_nothing(tmp_path):
    Counters(tmp_path).of(0)(99)
    Counters(tmp_path).of(0)(5)
    assert Counters(tmp_path).read([0]) == 5


def test_a_part_that_has_ended_leaves_nothing(tmp_path):
    counters = Counters(tmp_path)
    for part in range(3):
        counters.of(part)(7)
    counters.forget(1)
    counters.forget(1)
    assert counters.read(range(3)) == 14 and len(list(tmp_path.iterdir())) == 2


def test_files_are_written_now_and_then_only(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_TOLD", 60.0)
    tell = Counters(tmp_path).of(0)
    for _ in range(1000):
        tell(1)
    assert Counters(tmp_path).read([0]) == 1


def shown(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("work: ")]


def test_shows_parts_in_hand_and_finished_ones_together(tmp_path, capsys):
    counters = Counters(tmp_path)
    with Watch("work", counters, {0: 50}, [1, 2], total=150, guess=1) as watch:
        counters.of(1)(20)
        time.sleep(0.1)
        watch.finished(1, 40)
        watch.finished(2, 60)
    lines = shown(capsys)
    assert any(line.startswith("work: 70/150 images") for line in lines)
    assert lines[-1].startswith("work: 150/150 images")


def test_a_total_that_nobody_knows_follows_from_the_parts_that_end(tmp_path, capsys):
    counters = Counters(tmp_path)
    with Watch("work", counters, {}, range(4), total=None, guess=1000) as watch:
        counters.of(0)(5)
        time.sleep(0.1)
        for part in range(4):
            watch.finished(part, 30)
            time.sleep(0.05)
    lines = shown(capsys)
    assert any(line.startswith("work: 5/4000 images") for line in lines)
    assert any(line.startswith("work: 30/120 images") for line in lines)
    assert lines[-1].startswith("work: 120/120 images")


def test_an_error_comes_through(tmp_path):
    with pytest.raises(ZeroDivisionError), Watch("work", Counters(tmp_path), {}, [0], total=1, guess=1):
        raise ZeroDivisionError

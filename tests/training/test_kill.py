"""kill -9 at random moments, and the signals that ask for something: real processes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from stylegan_t import records
from stylegan_t.records import LogRecord, RunRecord, read_lines, read_record
from stylegan_t.training.signals import Wish, Wishes
from tests.training import processes
from tests.training.processes import differing, last_state, start, wait_until, whole_states

KIMG = 4.8
LONG = {"total_kimg": KIMG, "save_every_kimg": 0.064, "log_every_kimg": 0.064, "sample_every_kimg": 1.6}
TWENTY = 20


def lines(folder: Path) -> list[LogRecord]:
    found = read_lines(folder / "live" / records.LOG, LogRecord)
    return [line.model_copy(update={"speed": None}) for line in found]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    process = start({"folder": str(folder), "settings": LONG})
    process.join(processes.WAIT_SECONDS)
    assert process.exitcode == 0
    return folder


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_never_killed(unbroken, tmp_path):
    moments = random.Random(5)
    job = {"folder": str(tmp_path), "settings": LONG}
    saved = 0
    for number in range(TWENTY):
        process = start(job | {"pause": 0.01})  # so that no machine is fast enough to reach the end
        if number % 4:  # the others are hit while they start
            wait_until(lambda: max(whole_states(tmp_path), default=0) > saved)  # noqa: B023
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join(processes.WAIT_SECONDS)
        assert process.exitcode == -signal.SIGKILL
        states = whole_states(tmp_path)
        assert max(states, default=0) >= saved, "a state that was whole is lost"
        saved = max(states, default=0)
    assert 0 < saved < KIMG * 1000
    process = start(job)
    process.join(processes.WAIT_SECONDS)
    assert process.exitcode == 0
    assert differing(last_state(unbroken), last_state(tmp_path)) == []
    assert lines(tmp_path) == lines(unbroken)
    run = read_record(tmp_path / "live" / records.RUN, RunRecord)
    assert run is not None and run.finished
    assert run.resumed == sorted(run.resumed) and len(run.resumed) > 5


@pytest.fixture
def endless(tmp_path):
    """A training that has saved for the first time and would go on for hours."""
    job = {"folder": str(tmp_path), "settings": LONG | {"total_kimg": 1000.0, "save_every_kimg": 500.0}}
    process = start(job | {"pause": 0.005})
    wait_until(lambda: whole_states(tmp_path) and read_lines(tmp_path / "live" / records.LOG, LogRecord))
    yield process
    process.kill()
    process.join(processes.WAIT_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop_it_saves_and_says_that_it_can_go_on(endless, tmp_path, number):
    before = time.monotonic()
    os.kill(endless.pid, number)
    endless.join(processes.WAIT_SECONDS)
    assert endless.exitcode == 75
    assert time.monotonic() - before < 20
    assert len(whole_states(tmp_path)) == 2
    assert lines(tmp_path)[-1].kimg * 1000 <= max(whole_states(tmp_path))


def test_asked_to_save_it_saves_and_goes_on(endless, tmp_path):
    os.kill(endless.pid, signal.SIGUSR1)
    wait_until(lambda: len(whole_states(tmp_path)) == 2)
    count = len(lines(tmp_path))
    wait_until(lambda: len(lines(tmp_path)) > count + 1)
    assert endless.is_alive()
    assert len(whole_states(tmp_path)) == 2


def test_a_second_ctrl_c_ends_it_at_once(tmp_path):
    process = start({"folder": str(tmp_path), "settings": LONG, "pause": 20.0})  # a step takes ages
    wait_until(lambda: whole_states(tmp_path))
    time.sleep(0.3)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.is_alive(), "the first one waits for the step"
    os.kill(process.pid, signal.SIGINT)
    process.join(processes.WAIT_SECONDS)
    assert process.exitcode == 130
    assert whole_states(tmp_path) == [0], "neither the step nor another state was waited for"


def some_handler(number, frame):
    """Anything but ignoring; the default would end the tests, should the signal not be heard."""


@pytest.mark.parametrize(("handler", "heard"), [(some_handler, True), (signal.SIG_IGN, False)], ids=["ssh", "nohup"])
def test_a_terminal_that_goes_away_stops_a_training_unless_nohup_started_it(handler, heard):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with Wishes() as wishes:
            signal.raise_signal(signal.SIGHUP)
            assert (wishes.current == Wish.STOP) == heard
    finally:
        signal.signal(signal.SIGHUP, before)


def test_once_saved_a_wish_to_save_is_forgotten_and_one_to_stop_is_not():
    """Its state may still be on its way to the disk: Ctrl-C must find that a stop was asked for, and end at once."""
    with Wishes() as wishes:
        for number, left in ((signal.SIGUSR1, Wish.NOTHING), (signal.SIGTERM, Wish.STOP)):
            signal.raise_signal(number)
            wishes.saved()
            assert wishes.current == left


def test_more_sigterms_after_the_first_do_not_disturb_the_saving(endless, tmp_path):
    for _ in range(5):
        if endless.is_alive():
            os.kill(endless.pid, signal.SIGTERM)
        time.sleep(0.01)
    endless.join(processes.WAIT_SECONDS)
    assert endless.exitcode == 75
    assert len(whole_states(tmp_path)) == 2

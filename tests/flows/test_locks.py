"""Whose the workspace is, and that nobody collects what a run needs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from flows.dvc import InUse, Stage, StageFailed, collecting, holder, lock_holders, repair, repro, working
from tests.flows import standin
from tests.imports import ROOT

HOLD = "from flows.dvc import *; import pathlib, time\nwith working(pathlib.Path.cwd(), 'nightly'): {}"


def python(folder, code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.fixture
def folder(tmp_path):
    return standin.make(tmp_path / "one", stage={"cmd": "touch stage"})


def sharing(folder, tmp_path):
    """Another workspace with the same cache."""
    other = standin.make(tmp_path / "two", stage={"cmd": "touch stage"})
    for each in (folder, other):
        with (each / ".dvc" / "config").open("a") as config:
            config.write(f"[cache]\n    dir = {tmp_path / 'cache'}\n")
    return other


def test_a_second_run_is_refused_and_told_who_has_the_workspace(folder):
    with working(folder, "nightly"):
        assert str(os.getpid()) in holder(folder)
        with (
            pytest.raises(InUse, match=rf"in use by nightly, process {os.getpid()} since .*another clone"),
            working(folder),
        ):
            pass
    assert holder(folder) is None
    with working(folder):
        pass


def test_one_that_may_wait_has_it_afterwards(folder):
    first = python(folder, HOLD.format("open('held', 'w').write('x'); time.sleep(4)"))
    standin.wait_for(folder / "held")
    with working(folder, wait_seconds=60):
        assert first.wait(10) == 0


def test_a_killed_run_keeps_it_until_its_commands_have_ended(tmp_path):
    trap = "trap 'kill $!; sleep 3; echo saved > saved; exit 75' TERM; echo > begun; echo $$ > begun; sleep 300 & wait"
    folder = standin.make(tmp_path, stage={"cmd": trap})
    first = python(folder, HOLD.format("repro(Stage('stage'), pathlib.Path.cwd(), print)"))
    standin.wait_for(folder / "begun")
    first.kill()
    first.wait()
    with pytest.raises(InUse), working(folder):
        pass
    with working(folder, wait_seconds=30):
        assert (folder / "saved").exists()


def test_nothing_is_collected_while_a_run_works_here_or_with_the_same_cache(folder, tmp_path):
    other = sharing(folder, tmp_path)
    for at_work in (folder, other):
        with working(at_work), pytest.raises(InUse, match="a run works with"), collecting(folder):
            pass
    with collecting(folder), pytest.raises(InUse, match="is being cleaned up"), working(other):
        pass


def test_nothing_is_collected_while_dvc_alone_is_at_work(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "echo $$ > begun; sleep 300"})
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=folder, stdout=subprocess.DEVNULL)
    standin.wait_for(folder / "begun")
    assert any(str(process.pid) in each for each in lock_holders(folder))
    with pytest.raises(InUse, match=r"DVC is at work: .*dvc.* repro"), collecting(folder):
        pass
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        each.kill()
    process.wait()
    assert lock_holders(folder) == []
    with collecting(folder):
        pass


@pytest.mark.parametrize("torn", ["", '{"read": {', "[]"], ids=["empty", "half written", "something else"])
def test_a_lock_file_that_a_killed_dvc_left_broken_is_removed(folder, torn):
    lock = folder / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text(torn)
    with pytest.raises(StageFailed):
        repro(Stage("stage"), folder, print)
    assert repair(folder)
    assert repro(Stage("stage"), folder, print) == "ran"


def test_a_lock_file_that_dvc_is_just_writing_is_left_alone(folder):
    from dvc.lock import Lock

    lock = folder / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    held = "from dvc.lock import Lock; import time\nwith Lock('.dvc/tmp/rwlock.lock'):\n"
    held += " open('held','w').write('x'); time.sleep(60)"
    process = python(folder, held)
    standin.wait_for(folder / "held")
    start = time.monotonic()
    assert not repair(folder) and lock.exists()
    assert time.monotonic() - start < 20
    process.kill()
    process.wait()
    with Lock(f"{lock}.lock"):
        pass

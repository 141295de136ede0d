"""Outputs made part by part, by processes that are killed, that come twice, and that share the work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from stylegan_t.errors import DataError, InUse, SettingsError
from stylegan_t.settings.engine import ProcessEngine
from stylegan_t.stages import parts as module
from stylegan_t.stages.parts import Parts, open_parts, parse_parts
from tests.engine.works import Write, begun, results
from tests.imports import ROOT
from tests.stages.parts_drive import ENGINE, stage

TWO = ProcessEngine(kind="processes", num_workers=2)


@pytest.fixture
def state(tmp_path):
    return tmp_path / ".state" / "download" / "digest"


def nothing(number: int, facts: dict) -> None:
    """For those who do not care."""


def squares(count: int) -> dict[str, bytes]:
    return {str(number): str(number**2).encode() for number in range(count)}


def start(state: Path, parts: int, only: str | None = None, **what) -> subprocess.Popen[str]:
    """``tests.stages.parts_drive`` as a process of its own."""
    what |= {"state": str(state), "output": str(output(state)), "parts": parts}
    options = ["--parts", only] if only else []
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stages.parts_drive", json.dumps(what), *options],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def output(state: Path) -> Path:
    return state.parents[2] / "output"


def run(state: Path, parts: int, **what) -> tuple[int, str]:
    process = start(state, parts, **what)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


# ---- one run after another ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [ENGINE, TWO], ids=["one process", "two"])
def test_facts_come_in_the_order_of_the_parts_and_the_output_is_nothing_but_them(state, engine):
    with open_parts(state) as made:
        facts = made.make(Write(made.folder), 5, engine, nothing)
        made.publish(output(state))
    assert facts == [{"square": number**2} for number in range(5)]
    assert {path.name for path in output(state).iterdir()} == {*squares(5), "log"}
    assert results(output(state)) == squares(5)


@pytest.mark.parametrize("engine", [ENGINE, TWO], ids=["one process", "two"])
def test_what_was_finished_before_is_not_made_again_and_tells_the_same_facts(state, engine):
    with pytest.raises(DataError), open_parts(state) as made:
        made.make(Write(made.folder, complains=(3,)), 5, ENGINE, nothing)
    told: dict[int, dict] = {}
    with open_parts(state) as made:
        assert made.finished(5) == {number: {"square": number**2} for number in range(3)}
        facts = made.make(Write(made.folder), 5, engine, told.__setitem__)
        assert made.finished(5).keys() == set(range(5))
    assert facts == [{"square": number**2} for number in range(5)]
    assert told.keys() == {3, 4}
    assert begun(state) == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}


def test_a_command_killed_in_the_middle_goes_on_after_its_last_whole_part(state):
    process = start(state, 3, dies_once=[1])
    process.communicate(timeout=60)
    assert process.returncode == -9 and not output(state).exists()
    assert run(state, 3, dies_once=[1]) == (0, "")
    assert begun(output(state)) == {0: 1, 1: 2, 2: 1}
    assert results(output(state)) == squares(3)
    assert not list(output(state).glob(".*")), "what was half written is gone"


def test_a_named_part_is_made_once(state):
    with open_parts(state) as made:
        assert made.make_named("clip", lambda: {"loss": 1.5}) == {"loss": 1.5}
    with open_parts(state) as made:
        assert made.make_named("clip", lambda: {"loss": 1 / 0}) == {"loss": 1.5}


def test_an_old_output_stays_until_the_new_one_is_whole(state):
    output(state).mkdir()
    (output(state) / "old").touch()
    with pytest.raises(DataError), open_parts(state) as made:
        made.make(Write(made.folder, complains=(1,)), 2, ENGINE, nothing)
    assert (output(state) / "old").exists()
    stage(str(state), str(output(state)), 2)
    assert not (output(state) / "old").exists() and results(output(state)) == squares(2)


def test_the_parts_of_an_output_are_there_until_another_one_is_made(state):
    """DVC, killed before it has noted an output, deletes it and asks for it again."""
    assert run(state, 3) == (0, "")
    shutil.rmtree(output(state))
    assert run(state, 3) == (0, "") and begun(output(state)) == dict.fromkeys(range(3), 1)
    assert (state / "0").samefile(output(state) / "0"), "one file of two names"
    other = state.with_name("other")
    assert run(other, 2) == (0, "") and results(output(state)) == squares(2)
    assert not state.exists() and other.exists()


def test_finished_parts_are_forgotten_on_demand(state):
    stage(str(state), str(output(state)), 2)
    with open_parts(state, afresh=True) as made:
        assert not made.finished(2)


def test_unfinished_work_under_other_settings_is_told_and_left_alone(state, caplog):
    with pytest.raises(DataError), open_parts(state) as made:
        made.make(Write(made.folder, complains=(2,)), 3, ENGINE, nothing)
    other = state.with_name("other")
    stage(str(other), str(output(state)), 1)
    assert f"2 finished parts of other settings, inputs or code lie in {state};" in caplog.text
    assert state.exists()


def no_links(source: str, target: str) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def killed_at(patch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Let the process be killed in the middle of the so manieth call of a function of ``shutil``."""
    whole, calls = getattr(shutil, name), []

    def may_be_killed(folder: Path, *arguments, **options):
        calls.append(folder)
        if len(calls) < call:
            return whole(folder, *arguments, **options)
        if name == "rmtree":
            next(path for path in sorted(folder.iterdir()) if path.is_file()).unlink()
        raise KeyboardInterrupt

    patch.setattr(shutil, name, may_be_killed)


@pytest.mark.parametrize(
    ("links", "name", "call"),
    [(True, "copytree", 1), (True, "rmtree", 2), (False, "copytree", 1), (False, "copy2", 2), (False, "rmtree", 2)],
)
def test_an_output_is_whole_after_a_kill_at_any_moment(state, monkeypatch, name, call, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    output(state).mkdir()
    (output(state) / "old").touch()
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch, open_parts(state) as made:
        made.make(Write(made.folder), 3, ENGINE, nothing)
        killed_at(patch, name, call)
        made.publish(output(state))
    stage(str(state), str(output(state)), 3)
    assert results(output(state)) == squares(3)
    assert {path.name for path in output(state).iterdir()} == {*squares(3), "log", "plans"}
    assert not list(output(state).parent.glob(".output*"))


# ---- several at a time ----------------------------------------------------------------------------------------


def test_processes_with_a_share_each_make_all_parts_once_and_the_last_one_only_the_output(state):
    shares = [start(state, 7, only=f"{share}/3", seconds=0.1) for share in (1, 2, 3)]
    said = [process.communicate(timeout=60)[0] for process in shares]
    assert [process.returncode for process in shares] == [0, 0, 0]
    assert sorted(line.split(",")[0] for line in said) == [f"download: parts {k}/3 are made" for k in (1, 2, 3)]
    assert any("7 of 7 in all; `dvc repro --single-item download` makes" in line for line in said)
    assert not output(state).exists()
    assert run(state, 7) == (0, "")
    assert results(output(state)) == squares(7)
    assert begun(output(state)) == dict.fromkeys(range(7), 1)
    assert (output(state) / "plans").read_text() == "begin end " * 4, "one after another"


def test_two_that_come_for_the_same_part_make_it_once(state):
    both = [start(state, 4, only="0-3", seconds=0.2) for _ in range(2)]
    assert all("4 of 4 in all" in process.communicate(timeout=60)[0] for process in both)
    assert begun(state) == dict.fromkeys(range(4), 1)


@pytest.mark.parametrize(
    ("first", "second"), [pytest.param(None, None, marks=pytest.mark.slow), (None, "1/2"), ("1/2", None)]
)
def test_who_makes_the_output_is_alone_with_the_stage(state, first, second):
    assert run(state.with_name("earlier"), 1)[0] == 0  # it has left its number in the lock
    process = start(state, 4, only=first, seconds=5)
    while not begun(state):
        assert process.poll() is None
    other = state.with_name("other settings")
    code, said = run(other, 4, only=second)
    assert code == InUse.exit_code and said.count("\n") == 1
    who = "another process" if first else f"process {process.pid}"
    assert said == f"{state.parent}: {who} works in it; wait for it, or stop it\n"
    process.kill()
    process.communicate()
    assert run(other, 4, only=second)[0] == 0, "a killed one keeps nobody out"


# ---- machines that see different things ------------------------------------------------------------------------


def test_a_machine_that_does_not_see_the_workspace_says_so(state):
    with open_parts(state) as made:
        shutil.rmtree(made.folder)
        with pytest.raises(DataError, match=f"{state}: no such folder on .*file system that all machines share"):
            made.make(Write(made.folder), 2, ENGINE, nothing)


def test_a_file_that_the_work_misses_is_its_own_error(state):
    with open_parts(state) as made, pytest.raises(FileNotFoundError, match="nowhere"):
        made.make(Write(made.folder / "nowhere"), 1, ENGINE, nothing)


def test_a_part_made_where_this_machine_does_not_see_it_is_an_error_after_a_while(state, monkeypatch):
    monkeypatch.setattr(module, "run_parts", lambda work, parts, engine, done: done(0, {"square": 0}))
    monkeypatch.setattr(module, "SEEN_AFTER_SECONDS", 0.2)
    with open_parts(state) as made, pytest.raises(DataError, match="part 0 was made on another machine and is not her"):
        made.make(Write(made.folder), 1, ENGINE, nothing)


# ---- --parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [("3", [3]), ("0-2", [0, 1, 2]), ("9-9", [9]), ("2/5", [2, 3])])
def test_parts_are_named_by_number_range_or_share(text, expected):
    assert list(parse_parts(text).numbers(10)) == expected


@pytest.mark.parametrize("num_parts", [0, 1, 3, 10, 97])
@pytest.mark.parametrize("shares", [1, 2, 4, 7])
def test_shares_have_every_part_once_and_differ_by_one_at_most(num_parts, shares):
    each = [parse_parts(f"{k}/{shares}").numbers(num_parts) for k in range(1, shares + 1)]
    assert Counter(number for share in each for number in share) == dict.fromkeys(range(num_parts), 1)
    assert max(map(len, each)) - min(map(len, each)) <= 1


@pytest.mark.parametrize("text", ["", "-1", "3-1", "0/4", "5/4", "1/0", "a-b", "1-2-3", " 1", "1.5"])
def test_other_words_are_refused_with_what_is_allowed(text):
    with pytest.raises(SettingsError, match=r"--parts .*: use a number from 0 on, a range \(0-99\) or a share"):
        parse_parts(text)


def test_parts_that_do_not_exist_are_refused_with_those_that_do(state):
    with pytest.raises(SettingsError, match="--parts 3-10: there are 10 parts; use 0 to 9, or 1/4"):
        Parts(state, parse_parts("3-10")).chosen(10)

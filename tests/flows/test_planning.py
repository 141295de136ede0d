"""What would run, and why."""

from __future__ import annotations

import shutil

import pytest

from flows.dvc import Planned, plan, push, read_stages, repro
from tests.flows import standin

STAGES: dict = {
    "raw": {"cmd": "mkdir raw; seq 20 > raw/a; seq 9 > raw/b"},
    "left": {"cmd": "cp raw/a left", "deps": ["raw/a"], "params": ["size"]},
    "right": {"cmd": "cp raw/b right", "deps": ["raw/b"]},
    "both": {"cmd": "cat left right > both", "deps": ["left", "right"]},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = standin.make(tmp_path_factory.mktemp("planning"), {"size": 1}, **STAGES)
    with (folder / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = store\n['remote \"store\"']\n    url = {folder.with_name('store')}\n")
    assert {each.would for each in plan(folder)} == {"run"}
    assert plan(folder)[0].why == ("it never ran",)
    for stage in read_stages(folder):
        repro(stage, folder, print)
    push(folder, list(STAGES), print)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of the finished one, whose remote has everything."""
    return shutil.copytree(finished, tmp_path / "copy")


def reasons(folder, **options) -> dict[str, tuple[str, ...]]:
    return {each.stage: each.why for each in plan(folder, **options) if each.would == "run"}


def test_nothing_would_run_where_all_is_up_to_date(folder):
    assert plan(folder) == [Planned(name, "nothing") for name in STAGES]


def test_a_changed_setting_is_named_and_what_follows_is_said_to_follow(folder):
    (folder / "params.yaml").write_text("{size: 2}")
    assert reasons(folder) == {"left": ("size is modified",), "both": ("left would run before it",)}


def test_a_changed_command_and_a_lost_output_are_named(folder):
    (folder / "dvc.yaml").write_text((folder / "dvc.yaml").read_text().replace("cp raw/b", "cp -p raw/b"))
    (folder / "left").unlink()
    found = reasons(folder)
    assert found["right"] == ("its command changed",) and found["left"] == ("left is deleted",)


def test_only_what_the_targets_need_is_planned(folder):
    assert [each.stage for each in plan(folder, ["left"])] == ["raw", "left"]


def without_contents(folder) -> None:
    for name in STAGES:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ".dvc" / "cache")


def test_contents_that_lie_elsewhere_count_as_the_lock_file_has_them(folder):
    without_contents(folder)
    assert set(reasons(folder)) == set(STAGES)
    assert reasons(folder, contents_elsewhere=True) == {}


def test_of_a_folder_that_changed_elsewhere_only_the_readers_of_the_changed_part_would_run(folder):
    (folder / "raw" / "a").chmod(0o644)
    (folder / "dvc.yaml").write_text((folder / "dvc.yaml").read_text().replace("seq 20", "seq 21"))
    repro(read_stages(folder)[0], folder, print)
    push(folder, ["raw"], print)
    without_contents(folder)
    assert reasons(folder, contents_elsewhere=True) == {
        "left": ("raw/a is modified",),
        "both": ("left would run before it",),
    }

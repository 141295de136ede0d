"""``stylegan-t evaluate`` as a command: alone in an empty folder, in several processes, and wrongly called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stylegan_t.records import Evaluation, read_record
from tests.evaluation.judged import INCEPTION_FILE, make_folders
from tests.imports import ROOT


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_folders(tmp_path_factory.mktemp("world"))


def value_of(found: Evaluation) -> dict[str, float | None]:
    return {each.name: each.value for each in found.measurements}


OFFLINE = {
    "PYTHONPATH": str(ROOT), "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    "STYLEGAN_T_DEVICE": "cpu", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
}  # fmt: skip


def command(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stylegan_t.cli", "evaluate", *map(str, arguments)],
        cwd=folder, timeout=500, env=OFFLINE | environment, capture_output=True, text=True,
    )  # fmt: skip


def arguments_of(world: Path, *others: object) -> list[object]:
    return ["--against", world / "b", "--protocol", world / "both.yaml", "--judges", world / "judges", *others]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give --model DIR or --images DIR"),
        (["--images", "nowhere"], 3, "nowhere: no such folder"),
        (["--images", ".", "--weights", "inception"], 2, "write NAME=FILE"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(world, tmp_path, arguments, code, message):
    done = command(tmp_path, *arguments_of(world, *arguments))
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert message in done.stderr


@pytest.mark.slow
def test_it_works_alone_in_an_empty_folder_without_a_network(world, tmp_path):
    """With one local file: a table, absent judges with their reasons, a record; the real ones are known afterwards."""
    folder, cache = tmp_path / "empty", tmp_path / "cache"
    folder.mkdir()
    weights = f"inception={world / 'judges' / 'inception' / INCEPTION_FILE}"
    arguments = ("--images", world / "a", "--against", world / "b", "--weights", weights)
    done = command(folder, *arguments, XDG_CACHE_HOME=str(cache))
    assert done.returncode == 0, done.stderr
    assert "kid20_heldout_clean" in done.stdout
    said = " ".join(done.stdout.split())
    assert "absent: kd_dinov2_20_heldout, fd_dinov2_20_heldout" in said
    assert "name it as weights" in said
    assert [path.name for path in folder.iterdir()] == ["evaluation.json"]
    record = read_record(folder / "evaluation.json", Evaluation)
    assert {each.extractor for each in record.measurements if each.value is not None} == {"inception_clean"}
    seen = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    again = command(folder, *arguments, "--out", "again.json", XDG_CACHE_HOME=str(cache))
    assert again.returncode == 0, again.stderr
    assert value_of(read_record(folder / "again.json", Evaluation)) == value_of(record)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == seen


@pytest.mark.slow
def test_several_processes_share_the_parts_and_find_what_one_finds(world, tmp_path):
    """A weights file is given: the second process must wait for the first one to put it in its place."""
    weights = ("--weights", f"inception={world / 'judges' / 'inception' / INCEPTION_FILE}")
    arguments = arguments_of(world, "--model", world / "model", "--num-images", 1100, *weights)
    found = []
    for devices in (1, 2):
        work, out = tmp_path / f"work {devices}", tmp_path / f"{devices}.json"
        done = command(tmp_path, *arguments, "--work", work, "--out", out, "--devices", devices)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("record: ") == 1
        found.append(read_record(out, Evaluation))
    assert found[0].count == 1100
    assert value_of(found[1]) == pytest.approx(value_of(found[0]), rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_an_error_in_several_processes_is_one_message_and_its_exit_code(world, tmp_path):
    done = command(tmp_path, *arguments_of(world, "--images", tmp_path / "nowhere", "--devices", 2))
    assert done.returncode == 3
    assert done.stderr.count("no such folder") == 1, done.stderr

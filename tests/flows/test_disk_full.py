"""A disk that is full: said, not tried again, and after making room the same command goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.dvc import Stage, StageFailed, repro
from tests.flows import standin

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Twelve megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def write(megabytes: int) -> dict[str, str]:
    return {"cmd": f"dd if=/dev/zero of=stage bs=1M count={megabytes} && echo once >> ../count"}


def test_a_stage_that_fills_the_disk_says_so_and_the_next_run_goes_on(small_disk, tmp_path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(11 * 2**20))
    folder = standin.make(small_disk / "w", {"size": 1}, stage=write(2) | {"meta": {"prefect": {"retries": 3}}})
    code, output = standin.run(folder)
    assert code == 1 and "the disk is full: make room and start again" in output.splitlines()[-1], output
    assert output.count("Running stage 'stage'") == 1, "no retry makes room"
    ballast.unlink()
    code, output = standin.run(folder)
    assert (code, standin.table(output)) == (0, {"stage": "ran"}), output


def test_a_cache_without_room_fails_the_stage_and_what_it_made_is_made_again(small_disk, tmp_path):
    folder = standin.make(tmp_path / "w", stage=write(5))
    with (folder / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {small_disk / 'cache'}\n    type = copy\n")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(9 * 2**20))
    with pytest.raises(StageFailed, match="the disk is full") as failure:
        repro(Stage("stage"), folder, print)
    assert failure.value.disk_full and not failure.value.worth_retrying
    ballast.unlink()
    assert repro(Stage("stage"), folder, print) == "ran"
    assert (tmp_path / "count").read_text().split() == ["once", "once"]

"""download, score and filter, wherever their parts are made: the same bytes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stylegan_t.stages.workspace import Workspace
from tests.imports import ROOT
from tests.stages.data_world import contents, put_clip

STAGES = ("download", "score", "filter")
ENGINES: dict[str, dict[str, Any]] = {
    "two processes": {"kind": "processes", "num_workers": 2},
    "ray": {"kind": "ray", "address": None, "num_cpus": 1.0, "num_gpus": 0.0},
}


def command(folder: Path, *arguments: str) -> str:
    """What ``stylegan-t`` says."""
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = subprocess.run(
        [sys.executable, "-m", "stylegan_t.cli", *arguments],
        cwd=folder, env={**os.environ, **ray, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def prepare(folder: Path, engine: dict[str, Any]) -> None:
    """A workspace with parameters and an encoder."""
    engines = [f"{stage}.engine={json.dumps(engine)}" for stage in STAGES]
    changes = [*engines, "download.source.num_images=90", "download.samples_per_shard=20"]
    command(folder, "profile", "micro", *(word for change in changes for word in ("--set", change)))
    put_clip(Workspace(folder))


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, bytes]:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    prepare(folder, {"kind": "processes", "num_workers": 0})
    for stage in STAGES:
        command(folder, "run", stage)
    return contents(folder / "data")


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_another_engine_makes_the_same_bytes(tmp_path, alone, name):
    prepare(tmp_path, ENGINES[name])
    for stage in STAGES:
        command(tmp_path, "run", stage)
    assert contents(tmp_path / "data") == alone


@pytest.mark.slow
def test_commands_that_make_some_parts_each_make_the_same_bytes(tmp_path, alone):
    prepare(tmp_path, {"kind": "processes", "num_workers": 0})
    for stage in STAGES:
        assert f"{stage}: parts 2/2 are made, 3 of 5 in all" in command(tmp_path, "run", stage, "--parts", "2/2")
        assert f"{stage}: parts 0-1 are made, 5 of 5 in all" in command(tmp_path, "run", stage, "--parts", "0-1")
        assert not (tmp_path / "data" / {"download": "raw", "score": "scores", "filter": "prepared"}[stage]).exists()
        command(tmp_path, "run", stage)
    assert contents(tmp_path / "data") == alone

"""Training stages as people run them: the real command, several processes, workers that load data, kill -9."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from stylegan_t.errors import InUse
from stylegan_t.profile import profile_values
from stylegan_t.records import RUN, RunRecord, read_record
from tests.imports import ROOT
from tests.stages.training_world import config, make_world, put_bundle
from tests.training.processes import WAIT_SECONDS, process_of, wait_until, whole_states

pytestmark = pytest.mark.slow
CLI = ["-m", "stylegan_t.cli", "run"]
ALONE = [sys.executable, *CLI]
OUR_TORCHRUN = [*ALONE, "--devices", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
OUTER_TORCHRUN = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *CLI]
PUBLISHED = {
    "share_fakes": False, "share_vit_pass": False, "wrong_caption_weight": 0.0, "p_hard_caption": 0.0,
    "range_penalty_weight": 0.0,
}  # fmt: skip
ROUNDING = 1e-3
"""Of three steps, relative to the largest number of a tensor."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A workspace with players, data, and stage two's model."""
    workspace = make_world(tmp_path_factory.mktemp("origin"))
    put_bundle(workspace, workspace.artifacts("finetune_text_encoder"), 16)
    return workspace.root


def plant(origin: Path, folder: Path, stage: str, **changes: Any) -> Path:
    shutil.copytree(origin, folder)
    settings = config(stage, **{"batch_size": 16, **changes}).model_dump(mode="json")
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    return folder


def start(command: list[str], stage: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, stage, "--device", "cpu"], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(command: list[str], stage: str, folder: Path) -> dict[str, torch.Tensor]:
    """The generator that comes out."""
    process = start(command, stage, folder)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    return load_file(folder / "artifacts" / stage / "generator.safetensors")


def states(folder: Path, stage: str) -> list[int]:
    return [nimg for run in folder.glob(f".state/{stage}/*") for nimg in whole_states(run)]


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], bound: float) -> list[str]:
    """Names of tensors that differ by more, relative to the largest number of each."""
    assert one.keys() == other.keys()
    largest = {name: value.abs().max().clamp(min=0.01) for name, value in one.items()}
    return [name for name in one if (one[name] - other[name]).abs().max() > bound * largest[name]]


def test_super_resolution_by_two_processes_is_that_by_one_under_our_torchrun_and_under_anyone_elses(origin, tmp_path):
    stage, three_steps = "train_super_resolution", {"total_kimg": 0.048, "save_every_kimg": 0.016}
    made = [
        run(command, stage, plant(origin, tmp_path / str(number), stage, **three_steps))
        for number, command in enumerate((ALONE, OUR_TORCHRUN, OUTER_TORCHRUN))
    ]
    assert differing(made[0], made[1], ROUNDING) == []
    assert differing(made[1], made[2], 0) == []


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_two_nodes_of_one_process_make_the_weights_of_one_node_of_two(origin, tmp_path):
    """Each node's torchrun is told apart from the other's by nothing but the rendezvous; both see one folder."""
    stage = "train_super_resolution"
    settings = {"total_kimg": 0.048, "save_every_kimg": 0.016}
    folder = plant(origin, tmp_path / "nodes", stage, **settings)
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "nodes"]
    node = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", *meeting, *CLI]
    nodes = [start(node, stage, folder) for _ in range(2)]
    for process in nodes:
        _, said = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said
    one_node = run(OUR_TORCHRUN, stage, plant(origin, tmp_path / "node", stage, **settings))
    assert differing(load_file(folder / "artifacts" / stage / "generator.safetensors"), one_node, 0) == []


def test_an_elastic_torchrun_whose_process_was_killed_starts_anew_from_the_last_state(origin, tmp_path):
    stage, settings = "train_generator", {"total_kimg": 0.96, "save_every_kimg": 0.032, "log_every_kimg": 0.032}
    folder = plant(origin, tmp_path / "elastic", stage, **settings)
    elastic = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", *CLI, "--resume", "never"]
    process = start(elastic, stage, folder)
    wait_until(lambda: max(states(folder, stage), default=0) > 0)
    process_of(process, rank=1).kill()
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    (record,) = folder.glob(f".state/{stage}/*/live/{RUN}")
    (went_on_at,) = read_record(record, RunRecord).resumed
    assert went_on_at > 0
    unbroken = run(OUR_TORCHRUN, stage, plant(origin, tmp_path / "unbroken", stage, **settings))
    made = load_file(folder / "artifacts" / stage / "generator.safetensors")
    assert differing(made, unbroken, 0) == []


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler for CPUs: apt install g++")
def test_a_compiled_stage_that_grows_makes_the_weights_of_an_eager_one(origin, tmp_path):
    """With a guide of its own, so that the CLIP's image tower is compiled as well as the discriminator's.

    And without our deviations: with them, single weights begin with a gradient that is rounding, and Adam makes full
    steps of it.
    """
    stage = "train_generator"
    compute = config(stage).train_generator.compute.model_dump()
    eager, compiled = (
        run(ALONE, stage, plant(origin, tmp_path / str(wanted), stage, deviations=PUBLISHED, batch_size=8,
            compute=compute | {"compile": wanted}))
        for wanted in (False, True)
    )  # fmt: skip
    assert differing(eager, compiled, ROUNDING) == []


@pytest.mark.parametrize("command", [ALONE, OUR_TORCHRUN], ids=["one process", "two"])
def test_killed_with_its_loading_workers_busy_the_same_command_goes_on_at_once(origin, tmp_path, command):
    stage = "train_generator"
    endless = {"total_kimg": 1000.0, "save_every_kimg": 0.16, "log_every_kimg": 0.16, "num_workers": 2}
    folder = plant(origin, tmp_path / "killed", stage, **endless)

    process = start(command, stage, folder)
    wait_until(lambda: max(states(folder, stage), default=0) > 0)
    refused = start(command, stage, folder)
    _, said = refused.communicate(timeout=WAIT_SECONDS)
    assert refused.returncode == InUse.exit_code
    assert "works in it; wait for it, or stop it" in said and "Traceback" not in said
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children()]:  # torchrun's, not the workers
        each.kill()
    process.wait()
    process.stderr.close()
    reached = max(states(folder, stage))
    again = start(command, stage, folder)
    wait_until(lambda: max(states(folder, stage)) > reached)
    stopped = time.monotonic()
    again.send_signal(signal.SIGTERM)
    _, said = again.communicate(timeout=WAIT_SECONDS)
    assert again.returncode == 75, said
    assert time.monotonic() - stopped < 20
    assert "Traceback" not in said


def test_at_the_size_of_tiny_it_stops_within_20_seconds_while_it_trains_and_while_it_paints_a_grid(origin, tmp_path):
    stage, tiny = "train_generator", profile_values("tiny")["train_generator"]
    endless = {"total_kimg": 1000.0, "log_every_kimg": 0.064, "sample_every_kimg": 0.032, "save_every_kimg": 500.0}
    folder = plant(origin, tmp_path / "tiny", stage, **(tiny | endless))  # a grid after every step
    process = start(ALONE, stage, folder)
    wait_until(lambda: list(folder.glob(".state/*/*/live/log.jsonl")))
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 75, said
    assert time.monotonic() - asked < 20
    assert max(states(folder, stage)) > 0


def test_processes_whose_torchrun_was_killed_save_and_end(origin, tmp_path):
    stage = "train_generator"
    folder = plant(origin, tmp_path / "orphans", stage, total_kimg=1000.0, save_every_kimg=500.0)
    process = start(OUR_TORCHRUN, stage, folder)
    wait_until(lambda: list(folder.glob(".state/*/*/live/log.jsonl")))
    orphans = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=WAIT_SECONDS)
    assert psutil.wait_procs(orphans, timeout=20)[1] == []
    assert max(states(folder, stage)) > 0

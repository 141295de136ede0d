"""Trainings of tests/training/worker.py in processes of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.imports import ROOT
from tests.training import worker

WAIT_SECONDS = 300
"""A bound for what fails, never for what is slow: the machine may be busy."""
NO_EFFECT = ("conv.bias",)
"""A bias in front of a batch norm: its true gradient is zero, and Adam makes full steps of the rounding."""


def start(*jobs: dict[str, Any]) -> BaseProcess:
    """The jobs in a new process; it starts in a tenth of a second, since a server has imported torch for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.worker"])
    process = context.Process(target=_run, args=[[json.dumps(job) for job in jobs]])
    process.start()
    return process


def _run(jobs: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it,
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and what nohup started this one
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    worker.main(jobs)


def launch(*jobs: dict[str, Any], devices: int) -> subprocess.Popen[str]:
    """The jobs as ``stylegan-t run --devices`` would start them."""
    code = (
        "import sys; from stylegan_t.launch import launch; "
        f"sys.exit(launch({devices}, 8 * {devices}, sys.argv[1:], 'tests.training.worker'))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(json.dumps, jobs)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def process_of(launched: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The process that torchrun started for a rank."""
    (found,) = [c for c in psutil.Process(launched.pid).children() if c.environ().get("RANK") == str(rank)]
    return found


def whole_states(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("state-")) for path in sorted(folder.glob("state-*.json"))]


def last_state(folder: Path) -> dict[str, Any]:
    path = sorted(folder.glob("state-*.pt"))[-1]
    return torch.load(path, weights_only=True)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for inner in value for key, leaf in flat(value[inner], f"{name}.{inner}").items()}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of all leaves that are not the same to the bit."""
    a, b = flat(one), flat(other)
    same = lambda x, y: torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
    return sorted(a.keys() ^ b.keys()) + [name for name in a.keys() & b.keys() if not same(a[name], b[name])]


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Between all weights, averages and heads that have an effect, as a part of their length (L2).

    Of all numbers together: where a single weight's gradient is rounding, Adam makes full steps of it, and which weight
    that is changes with the processor.
    """
    parts = ("trained", "averaged", "heads")
    a, b = (flat({part: state[part] for part in parts}) for state in (one, other))
    assert a.keys() == b.keys()
    names = [name for name in a if not name.endswith(NO_EFFECT)]
    together = lambda state: torch.cat([state[name].double().flatten() for name in names])
    return (torch.dist(together(a), together(b)) / together(a).norm()).item()

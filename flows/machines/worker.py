"""A worker of a pool, with a workspace of its own: ``python -m flows.machines.worker --pool gpu --gpus 0``."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from prefect.settings import PREFECT_API_URL

from flows import dvc, git
from flows.automations import HEARTBEAT_SECONDS
from flows.machines.workspace import DEVICES, HOME, ORIGIN, ROOT, WORKSPACE, default_folder, origin
from flows.processes.gpus import claimed, visible
from flows.processes.guard import GRACE_SECONDS
from flows.server import start_guarded, stop
from flows.services import drain

POLL_SECONDS = 0.2

EAGER = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_PREFETCH_SECONDS": "0",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
}
"""Stages begin soon after they are sent, and lost workers are soon noticed. What is set already counts."""


RUNS_OF_CPU_WORKER = 2
"""One may be the parent of a run, which waits for its stages; a workspace takes one stage at a time anyway."""


def environment(name: str, gpus: Sequence[str] | None, workspace: Path, repository: str) -> dict[str, str]:
    """What the worker, its flow runs and their commands are told.

    Args:
        gpus: Their indices, or names as CUDA knows them; none at all hides every GPU; None leaves it to the machine.
    """
    added = {WORKSPACE: str(workspace), ORIGIN: repository, ROOT: str(HOME), "PYTHONPATH": str(HOME)}
    if gpus is not None:
        added |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus), DEVICES: str(max(len(gpus), 1))}
    return {**EAGER, **os.environ, **added}


def parse_gpus(text: str | None, pool: str) -> list[str]:
    """``0+1`` as a list; ``none`` is none, and so is nothing for the pool ``cpu``; else nothing means all there are."""
    if text is None:
        return [] if pool == "cpu" else visible()
    return [] if text == "none" else text.split("+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line until it is stopped; returns the exit code of Prefect's worker."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.machines.worker",
        description="Take stages from a work pool, one at a time, in a workspace of its own.",
        epilog="Contents come from DVC's remote and go there, commits from and to the git repository.",
    )
    parser.add_argument("--pool", required=True, help="cpu, gpu, or another that dvc.yaml's meta.prefect names")
    parser.add_argument(
        "--gpus",
        metavar="0+1",
        help="only these, by torchrun if several; none; default: all, but for the pool cpu none",
    )
    parser.add_argument("--name", help="of the worker; default: from machine, pool and GPUs")
    parser.add_argument("--workspace", type=Path, help="default: .workspaces/NAME in this repository")
    parser.add_argument("--origin", metavar="URL", help="the git repository; default: this one's origin")
    parser.add_argument(
        "--states", type=Path, metavar="FOLDER", help="resume states here, e.g. on a disk that all workers share"
    )
    options = parser.parse_args(arguments)
    gpus = parse_gpus(options.gpus, options.pool)
    name = options.name or "-".join([socket.gethostname(), options.pool, *gpus])
    workspace = (options.workspace or default_folder(name)).resolve()
    try:
        if gpus and not all(each and "," not in each for each in gpus):
            raise ValueError(f"--gpus {options.gpus}: expected none, 0, or 0+1; two workers are two commands")
        if not PREFECT_API_URL.value():
            raise ValueError("set PREFECT_API_URL to the server (`make up` says it)")
        repository = options.origin or origin()
        git.clone(repository, workspace)
        if options.states:
            _link_states(workspace, options.states.resolve())
        with claimed(gpus):
            return _work(name, options.pool, environment(name, gpus, workspace, repository), workspace)
    except ValueError as error:
        print(error, file=sys.stderr)
        return dvc.SETTINGS


def _work(name: str, pool: str, environment: dict[str, str], workspace: Path) -> int:
    """Run Prefect's worker until it ends or we are told to; then until what it had begun has saved its state."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name]
    limit = RUNS_OF_CPU_WORKER if pool == "cpu" else 1
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: told.set())
    process = start_guarded([*command, "--limit", str(limit)], environment)
    while process.poll() is None and not told.wait(POLL_SECONDS):
        pass
    drain([process.pid])
    stop(process)
    deadline = time.monotonic() + GRACE_SECONDS + 10
    while dvc.holder(workspace) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return 0 if told.is_set() else process.returncode


def _link_states(workspace: Path, states: Path) -> None:
    states.mkdir(parents=True, exist_ok=True)
    link = workspace / ".state"
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise ValueError(f"--states: {link} is a folder; move what is in it to {states}, and remove it")
    link.symlink_to(states)


if __name__ == "__main__":
    sys.exit(main())

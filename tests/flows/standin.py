"""A small pipeline of shell commands in a DVC repository of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.imports import ROOT


def make(folder: Path, params: dict[str, Any] | None = None, **stages: dict[str, Any]) -> Path:
    """Write ``dvc.yaml``; a stage writes the file of its name unless it says otherwise."""
    folder.mkdir(exist_ok=True)
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        (folder / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    document = {"stages": {name: {"outs": [name]} | stage for name, stage in stages.items()}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    if params:
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def start(folder: Path, *arguments: str, module: str = "flows.pipeline", **environment: str) -> subprocess.Popen[str]:
    """``python -m flows.pipeline``, or another of ours, in a process group of its own that hears Ctrl-C.

    A shell's background jobs ignore SIGINT, and so would everything that the tests start in one.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **environment}, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (no thread of ours forks)
    )  # fmt: skip


def run(folder: Path, *arguments: str, module: str = "flows.pipeline", **environment: str) -> tuple[int, str]:
    """Exit code and output of ``python -m flows.pipeline``, or another of ours."""
    process = start(folder, *arguments, module=module, **environment)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def table(output: str) -> dict[str, str]:
    """Outcome of each stage, from the printed result."""
    return dict(re.findall(r"^│ (\w+) +│ (\w+) +│ +[\d.]+ +│$", output, re.MULTILINE))


def wait_for(path: Path, seconds: float = 180) -> str:
    """Text of a file that a command is about to write."""
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)
    return path.read_text()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

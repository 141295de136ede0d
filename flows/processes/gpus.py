"""The GPUs of this machine, and that each has one worker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.processes.commands import inherited


def visible() -> list[str]:
    """Indices of those that this machine has, or names of those that CUDA_VISIBLE_DEVICES leaves us."""
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in told.split(",") if gpu and gpu != "-1"]
    if not (program := shutil.which("nvidia-smi")):
        return []
    listed = subprocess.run(
        [program, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []


@contextlib.contextmanager
def claimed(gpus: Sequence[str]) -> Iterator[None]:
    """Those GPUs are ours, and of what we started under a guard, while the block lasts or that still runs.

    Raises:
        ValueError: Another worker of this machine has one.
    """
    with contextlib.ExitStack() as held:
        for gpu in gpus:
            path = Path(tempfile.gettempdir()) / f"stylegan-t-gpu-{gpu}.lock"
            try:
                file = held.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise ValueError(f"--gpus: another worker, or user, has GPU {gpu} ({path}); one run per GPU") from None
            inherited.add(file.fileno())
            held.callback(inherited.discard, file.fileno())
        yield

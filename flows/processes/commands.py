"""Commands in processes of their own: their output as it comes, and an end to all that they started."""

from __future__ import annotations

import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from flows.processes import guard

POLL_SECONDS = 0.2

inherited: set[int] = set()
"""Open files (locks) that commands shall hold as long as they run, though we be killed: see ``flows/dvc/locks.py``."""


def run_command(
    command: str | Sequence[str],
    root: Path,
    log: Callable[[str], None],
    *,
    name: str,
    is_wrapper: bool = False,
    timeout_seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command in a folder; its exit code (128 and the number of the signal that ended it).

    Whatever ends this call early (a deadline, a cancelled run, Ctrl-C) ends the whole tree of processes first, and
    where we are killed ourselves, its guard does.

    Args:
        command: A line for the shell, or a program and its arguments. `stylegan-t` is found, also where the environment
            is not activated.
        log: Called with each line of output as it comes.
        name: What to call it where it is stopped.
        is_wrapper: It waits for a command of its own (as DVC does), which is the one to be asked to stop.
        environment: Added to ours.

    Raises:
        TimeoutError: It took longer than it may.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    process = subprocess.Popen(
        [sys.executable, guard.__file__, "wrapper" if is_wrapper else "command", *words],
        cwd=root,
        env={**os.environ, "PATH": path, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # universal newlines: a progress bar's \r ends a line too
        errors="replace",
        start_new_session=True,
        pass_fds=tuple(inherited),
    )
    assert process.stdin is not None
    try:
        for line in _lines(process, timeout_seconds):
            log(line)
        return process.wait()
    finally:
        is_running = process.poll() is None
        process.stdin.close()  # before a word of it, which may be one too many for whoever ends us
        try:
            if is_running:
                log(f"{name}: stopping its processes")
        finally:
            process.wait()


def _lines(process: subprocess.Popen[str], timeout_seconds: float | None) -> Iterator[str]:
    """Lines of output until the process ends; raises TimeoutError at the deadline, though no line comes."""
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, args=[process.stdout], daemon=True).start()
    deadline = time.monotonic() + (timeout_seconds or math.inf)
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if process.poll() is not None:  # a process that outlives the command still holds the pipe
                return
            continue
        if line is None:
            return
        if line:
            yield line
    raise TimeoutError

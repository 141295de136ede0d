"""Commands in processes of their own: their output as it comes, and an end to all that they started."""

from __future__ import annotations

import contextlib
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

import psutil

GRACE_SECONDS = 25.0
"""What a training needs to save its state after SIGTERM."""

POLL_SECONDS = 0.2


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
    """Run a command as a child of ours, in a folder; its exit code.

    It stays in our process group, so that whoever kills the group reaches it and its children too. Whatever ends this
    call early (a deadline, a cancelled run, Ctrl-C) ends the whole tree of processes first.

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
    process = subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=root,
        env={**os.environ, "PATH": path, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # universal newlines: a progress bar's \r ends a line too
        errors="replace",
    )
    tree = Tree(process.pid, is_wrapper)
    try:
        for line in _lines(process, tree, timeout_seconds):
            log(line)
        return process.wait()
    finally:
        if process.poll() is None:
            log(f"{name}: stopping its processes")
            tree.end()
            process.wait()


def _lines(process: subprocess.Popen[str], tree: Tree, timeout_seconds: float | None) -> Iterator[str]:
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
        tree.look()
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


class Tree:
    """A process and all below it, remembered while they run.

    Where a signal to the whole group ends DVC first, its command loses its parent and could not be found any more.
    """

    def __init__(self, pid: int, is_wrapper: bool) -> None:
        self._root, self._is_wrapper = psutil.Process(pid), is_wrapper
        self._below: dict[psutil.Process, None] = {}  # in the order of discovery: parents before their children
        self._next_look = 0.0

    def look(self) -> None:
        """Notice new processes, at most once a second."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + 1
            with contextlib.suppress(psutil.NoSuchProcess):
                self._below.update(dict.fromkeys(self._root.children(recursive=True)))

    def end(self) -> None:
        """SIGTERM to the commands, so that a training saves and DVC itself cleans up; SIGKILL after the grace.

        A wrapper hears nothing while there is what it waits for. Parents hear of it before their children, whose end
        they would else take for a failure. (The times at which processes began do not tell who is whose parent: the
        kernel counts them in hundredths of a second.)
        """
        self._next_look = 0
        self.look()
        spared = self._is_wrapper and self._below
        for process in self._below if spared else [self._root, *self._below]:
            _ignoring_the_dead(process.terminate)
        psutil.wait_procs({*self._below, self._root}, timeout=GRACE_SECONDS)
        self._next_look = 0
        self.look()
        for process in {*self._below, self._root}:
            _ignoring_the_dead(process.kill)
        psutil.wait_procs({*self._below, self._root}, timeout=5)


def _ignoring_the_dead(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()

"""Runs a command and ends all that it started, whenever whoever asked for it is gone.

``guard.py {wrapper|command} PROGRAM ARGUMENT …``, with the asker's end of a pipe as standard input. Killed with
SIGKILL, an asker can end nothing any more; but its end of the pipe closes, and then, as on SIGTERM, we ask the command
to stop. We are in a session of our own, so that what kills the asker's process group leaves us the time for it. Needs
nothing of ours: it also runs where the working folder is another repository.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil

GRACE_SECONDS = 25.0
"""What a training needs to save its state after SIGTERM."""

POLL_SECONDS = 0.2


class Tree:
    """A process and all below it, remembered while they run.

    Where DVC ends first, its command loses its parent and could not be found any more.

    Args:
        is_wrapper: The process waits for a command of its own (as DVC does), which is the one to be asked to stop.
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

    def end(self, grace_seconds: float = GRACE_SECONDS) -> None:
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
        psutil.wait_procs({*self._below, self._root}, timeout=grace_seconds)
        self._next_look = 0
        self.look()
        for process in {*self._below, self._root}:
            _ignoring_the_dead(process.kill)
        psutil.wait_procs({*self._below, self._root}, timeout=5)


def _ignoring_the_dead(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()


class Output:
    """What a command says, passed on; when nobody listens any more, it is still heard, and not ended by that."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout.fileno()
        self._passed, self._is_waiting = 0, True
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        heard = True
        while piece := os.read(self._stream, 1 << 16):
            self._is_waiting = False
            while heard and piece:
                try:
                    piece = piece[os.write(1, piece) :]
                except OSError:
                    heard = False
            self._passed, self._is_waiting = self._passed + 1, True

    def finish(self) -> None:
        """Pass on what is left; a process that outlives the command may hold the stream open, and is not waited for."""
        passed = -1
        while self._thread.is_alive() and (passed != self._passed or not self._is_waiting):
            passed = self._passed
            self._thread.join(POLL_SECONDS)


def main(kind: str, command: list[str]) -> int:
    """Run the command; its exit code, or 128 and the number of the signal that ended it."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    tree, output = Tree(process.pid, kind == "wrapper"), Output(process)

    def wait_for_the_asker() -> None:
        os.read(0, 1)  # nothing is ever written; unlike sys.stdin it does not keep Python from ending
        stop.set()

    threading.Thread(target=wait_for_the_asker, daemon=True).start()
    while process.poll() is None and not stop.is_set():
        tree.look()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    if process.poll() != 0:  # it runs, or failed, perhaps killed alone: what it had started would go on
        tree.end()
    code = process.wait()
    output.finish()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

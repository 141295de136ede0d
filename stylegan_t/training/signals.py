"""Signals that ask a training for something; it finishes its step first.

SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal went away): save and stop. SIGUSR1: save and go on.
"""

from __future__ import annotations

import os
import signal
import sys
from enum import IntEnum
from types import FrameType, TracebackType

from stylegan_t.errors import Stopped

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""torchrun sets this for the processes that it starts."""

OUR_LAUNCHER = "STYLEGAN_T_LAUNCHER"
"""launch.py sets this for them beside it."""

SHOW_CURSOR = b"\x1b[?25h\n"


def stopping() -> list[signal.Signals]:
    """The signals that ask a training to stop; not SIGHUP where ``nohup`` keeps it away."""
    hears_hangup = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hears_hangup else [])]


def stop_no_more() -> None:
    """For the last words of a process that ends anyway: it is asked to stop in vain, except by one more Ctrl-C."""
    for number in stopping():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda number, frame: _end_at_once())


class Wish(IntEnum):
    """What was asked for; of several wishes the larger one counts."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Wishes:
    """While entered, remembers what signals ask for. Ctrl-C after a wish to stop ends the process at once.

    Further SIGTERMs change nothing: who stops a pipeline signals the whole group and then, to be sure, each process.
    The death of the torchrun that started this process is a wish to stop as well: nobody would stop it any more.
    """

    def __init__(self) -> None:
        self._asked = Wish.NOTHING
        self._torchrun = os.getppid() if TORCHRUN in os.environ else None

    @property
    def current(self) -> Wish:
        """What is asked for now."""
        orphaned = self._torchrun is not None and self._torchrun != os.getppid()
        return Wish.STOP if orphaned else self._asked

    def __enter__(self) -> Wishes:
        asking = {**dict.fromkeys(stopping(), self._stop), signal.SIGUSR1: self._save}
        self._before = {number: signal.signal(number, handler) for number, handler in asking.items()}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, asking)  # launch.py lets SIGUSR1 wait for this moment
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def saved(self) -> None:
        """Forget a wish to save. One to stop stays, so that Ctrl-C ends a process at once while it writes its state."""
        if self._asked == Wish.SAVE:
            self._asked = Wish.NOTHING

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked == Wish.STOP:
            _end_at_once()
        self._asked = Wish.STOP

    def _save(self, number: int, frame: FrameType | None) -> None:
        self._asked = max(self._asked, Wish.SAVE)


def stop_at_once(what: str) -> None:
    """Until a training begins its first step, and after its last: what asks to stop stops it, there is nothing to save.

    Raises:
        Stopped: In the main thread, when one of them comes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        stop_no_more()  # who stops a pipeline asks more than once
        raise Stopped(f"{what}: stopped; the same command goes on")

    for number in stopping():
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _end_at_once() -> None:
    """Leave without waiting for anything, a half-written state included; it was never finished, so it is not used."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)  # a progress bar hides it
    os._exit(128 + signal.SIGINT)

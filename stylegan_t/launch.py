"""Several processes on this machine for one command, started and watched by torchrun."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, get_error_handler
from torch.distributed.run import get_args_parser, run

from stylegan_t.errors import DataError, InUse, PeerLost, SettingsError, Stopped
from stylegan_t.training.distributed import World
from stylegan_t.training.signals import OUR_LAUNCHER, TORCHRUN, stop_no_more, stopping

ENDED_BY_TORCHRUN = -signal.SIGTERM
MAIN_FIRST_SECONDS = 1.0
"""Several times as long as torchrun takes to notice that a process has ended."""


def is_launched() -> bool:
    """Whether torchrun started this process, ours or one outside; several nodes and elastic jobs use their own."""
    return TORCHRUN in os.environ


def launch(
    devices: int,
    batch_size: int | None,
    arguments: Sequence[str],
    module: str = "stylegan_t.cli",
    *,
    on_gpus: bool = False,
) -> int:
    """Run ``python -m MODULE ARGUMENTS`` once per device and wait; the exit code, as one process's would be.

    Signals are passed on, and the processes take the time that they need: torchrun itself would kill them after 30
    seconds, or at the third signal. A second Ctrl-C ends all of them at once.

    Args:
        devices: Processes to start; each takes the GPU of its number, or shares the CPU's cores.
        batch_size: Must split evenly over them; None where nothing is trained.
        on_gpus: Whether each needs a GPU of its own.

    Raises:
        SettingsError: It does not, or there are not so many GPUs.
    """
    if batch_size is not None:
        World(torch.device("cpu"), size=devices).share(batch_size)
    if on_gpus and devices > torch.cuda.device_count():
        raise SettingsError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // devices)))
    given = ["--standalone", "--nproc-per-node", str(devices), "--monitor-interval", "0.2"]
    given += ["--signals-to-handle", "SIGUSR2"]  # it wants one; those that follow are ours
    handlers = dict.fromkeys([*stopping(), signal.SIGQUIT], _stop)
    handlers |= {signal.SIGINT: _interrupt, signal.SIGUSR1: _pass_on}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # New processes inherit the blocking: SIGUSR1 would end one that does not handle it yet, and so it waits instead.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threading.Thread(target=_pass_on_what_waits, daemon=True).start()
    os.environ[OUR_LAUNCHER] = "1"
    logging.disable(logging.CRITICAL)  # torch's own lines: `_report` says it in one
    try:
        run(get_args_parser().parse_args([*given, "--module", module, *arguments]))
    except ChildFailedError as failed:
        return _report({rank: _end_of(failure) for rank, failure in failed.failures.items()})
    except Stopped:
        return Stopped.exit_code
    finally:
        _kill_the_rest()
        logging.disable(logging.NOTSET)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _pass_on(number: int, frame: FrameType | None) -> None:
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            child.send_signal(number)


def _pass_on_what_waits() -> None:
    while True:
        _pass_on(signal.sigwait({signal.SIGUSR1}), None)


def _stop(number: int, frame: FrameType | None) -> None:
    if not psutil.Process().children():
        raise Stopped("before any process was started")
    _pass_on(signal.SIGTERM, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_at_once)
    _stop(number, frame)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    _kill_the_rest()
    os._exit(128 + number)


def _kill_the_rest() -> None:
    """Nothing is left running, whatever interrupted torchrun."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        code: Its exit code, negative for a signal.
        error: Class of the error that it left as its reason, if any.
        reason: What that error says.
    """

    code: int
    error: str = ""
    reason: str = ""

    def __str__(self) -> str:
        if self.code < 0:
            return f"was ended by {signal.Signals(-self.code).name}"
        return f"exited with {self.code}" + (f" ({self.reason})" if self.reason else "")


def leave_reason(error: Exception) -> None:
    """Leave an error to the launcher, which knows how all processes ended and tells the reason once.

    If the main process fails as well, it comes first: it has said why, and is then the one to be named.
    """
    stop_no_more()
    time.sleep(MAIN_FIRST_SECONDS)
    try:
        get_error_handler().record_exception(error)
    except OSError:  # a full disk may be the reason itself
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).unlink(missing_ok=True)
        print(error, file=sys.stderr)


def _end_of(failure: ProcessFailure) -> End:
    left = failure.error_file_data.get("message")
    if not isinstance(left, dict):
        return End(failure.exitcode)
    error, _, reason = left["message"].partition(": ")  # "DataError: …", as the process left it
    return End(failure.exitcode, error, reason)


def _report(ends: dict[int, End]) -> int:
    """Say in one line which process failed; the exit code that this means for all."""
    stopped = (ENDED_BY_TORCHRUN, Stopped.exit_code)
    failed = {rank: end for rank, end in ends.items() if end.code not in stopped}
    if not failed:
        return Stopped.exit_code
    blamed = {rank: end for rank, end in failed.items() if end.error != PeerLost.__name__} or failed
    if 0 in blamed and blamed[0].code > 0:  # it has said why, and where others failed too, it was for the same reason
        blamed = {0: blamed[0]}
    said = ", ".join(f"process {rank} {end}" for rank, end in sorted(blamed.items()))
    said_why = any(end.code > 0 and not end.reason for end in blamed.values())
    telling = {SettingsError.exit_code, DataError.exit_code, InUse.exit_code} & {end.code for end in failed.values()}
    advice = "; see above" if said_why else "" if telling else "; the same command goes on from the last state"
    print(f"{said}, and the others were stopped{advice}", file=sys.stderr)
    return min(telling, default=1)

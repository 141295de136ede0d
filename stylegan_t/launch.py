"""Several processes on this machine for one command, started and watched by torchrun."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import psutil
import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from stylegan_t.errors import DataError, PeerLost, SettingsError, Stopped
from stylegan_t.training.distributed import World
from stylegan_t.training.signals import TORCHRUN

ENDED_BY_TORCHRUN = -signal.SIGTERM


def is_launched() -> bool:
    """Whether torchrun started this process, ours or one outside; several nodes and elastic jobs use their own."""
    return TORCHRUN in os.environ


def launch(
    devices: int, batch_size: int, arguments: Sequence[str], module: str = "stylegan_t.cli", *, on_gpus: bool = False
) -> int:
    """Run ``python -m MODULE ARGUMENTS`` once per device and wait; the exit code, as one process's would be.

    SIGINT and SIGTERM reach the processes through torchrun, which gives them 30 seconds; SIGUSR1 is passed on. A
    second Ctrl-C ends all of them at once.

    Args:
        devices: Processes to start; each takes the GPU of its number, or shares the CPU's cores.
        batch_size: Must split evenly over them.
        on_gpus: Whether each needs a GPU of its own.

    Raises:
        SettingsError: It does not, or there are not so many GPUs.
    """
    World(torch.device("cpu"), size=devices).share(batch_size)
    if on_gpus and devices > torch.cuda.device_count():
        raise SettingsError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // devices)))
    given = ["--standalone", "--nproc-per-node", str(devices), "--monitor-interval", "0.2"]
    given += ["--signals-to-handle", "SIGTERM,SIGHUP"]  # SIGINT is ours: torch would begin to wait again at the second
    before = {signal.SIGUSR1: signal.signal(signal.SIGUSR1, _pass_on)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    # New processes inherit the blocking: SIGUSR1 would end one that does not handle it yet, and so it waits instead.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threading.Thread(target=_pass_on_what_waits, daemon=True).start()
    try:
        run(get_args_parser().parse_args([*given, "--module", module, *arguments]))
    except ChildFailedError as failed:
        return _report({rank: failure.exitcode for rank, failure in failed.failures.items()})
    except SignalException:
        return Stopped.exit_code
    finally:
        _kill_the_rest()
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_at_once)
    raise SignalException("interrupted", signal.SIGINT)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    _kill_the_rest()
    os._exit(128 + number)


def _kill_the_rest() -> None:
    """Nothing is left running, whatever interrupted torchrun."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _report(exit_codes: dict[int, int]) -> int:
    """Say in one line which process failed; the exit code that this means for all."""
    stopped = (ENDED_BY_TORCHRUN, Stopped.exit_code)
    failed = {rank: code for rank, code in exit_codes.items() if code not in stopped}
    if not failed:
        return Stopped.exit_code
    codes = set(failed.values())
    blamed = {rank: code for rank, code in failed.items() if code != PeerLost.exit_code} or failed
    said = ", ".join(
        f"process {rank} " + (f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}")
        for rank, code in sorted(blamed.items())
    )
    incurable = {SettingsError.exit_code, DataError.exit_code} & codes
    said_why = any(code > 0 for code in blamed.values())
    advice = "see above" if said_why else "the same command goes on from the last state"
    print(f"{said}, and the others were stopped; {advice}", file=sys.stderr)
    return incurable.pop() if incurable else 1

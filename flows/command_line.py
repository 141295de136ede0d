"""What all commands of ours do alike: errors that a user can cause are one line and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect import tags
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import dvc, git
from flows.automations import HEARTBEAT_SECONDS, TAG


def as_command(work: Callable[[], object], failures: tuple[type[Exception], ...] = ()) -> int:
    """Do a command line's work; its exit code.

    That of the stage that failed; 1 for other failures; 2 for what was asked or set up wrongly; 73 where something is
    in use; 130 after Ctrl-C. SIGTERM ends what the work has started, as Ctrl-C does.

    Args:
        failures: Other errors that say all there is to say.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _looked_after():
            work()
    except (dvc.StageFailed, ValueError, *failures) as error:
        print(error, file=sys.stderr)
        return _exit_code(error)
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def _looked_after() -> Iterator[None]:
    """On a server that others look at, a run that is killed is called so by its automation, as one on a worker is."""
    if not PREFECT_API_URL.value():
        yield
        return
    with tags(TAG), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_SECONDS}):
        yield


def _exit_code(error: Exception) -> int:
    match error:
        case dvc.Busy() | dvc.InUse():
            return dvc.IN_USE
        case dvc.StageFailed():
            return error.exit_code if 0 < error.exit_code < 128 else 1
        case git.GitUnreachable():
            return 1
        case ValueError():
            return dvc.SETTINGS
    return 1

"""What a check found."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["OK", "WARN", "FAIL", "SKIP"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        check: What was looked at.
        state: WARN where things may go wrong, FAIL where they will, SKIP where there is nothing to look at.
        line: What was found.
        cure: What helps; empty where nothing needs to be done.
    """

    check: str
    state: State
    line: str
    cure: str = ""


def said_by(command: Sequence[str], root: Path, seconds: float) -> tuple[int | None, str]:
    """Exit code and output of a command; None as the code where it took longer than it may."""
    with subprocess.Popen(
        command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None, f"no answer after {seconds:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever it started would keep us waiting
    return process.returncode, (out.strip() or err.strip())

"""Bringing one stage up to date, in a subprocess: DVC decides whether there is work."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from flows.dvc.failures import IN_USE, TIMED_OUT, Busy, StageFailed
from flows.dvc.stages import Stage
from flows.processes.commands import run_command

RESUME = "STYLEGAN_T_RESUME"
"""What ``stylegan-t run --resume`` reads where the option is not given."""

BUSY_SECONDS = 15.0

Outcome = Literal["ran", "cached", "restored"]
PHRASES: dict[str, Outcome] = {
    "didn't change, skipping": "cached",
    "is cached - skipping run, checking out outputs": "restored",
}


def repro(
    stage: Stage,
    root: Path,
    log: Callable[[str], None],
    *,
    again: bool = False,
    dry: bool = False,
    force: bool = False,
    pull: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Bring one stage up to date; DVC decides whether there is work.

    Where another process does the same work, or another DVC command has the same files, this waits: ``--wait-for-lock``
    covers DVC's own files only.

    Args:
        log: Called with each line of output as it comes.
        again: Whether this is another attempt at work that was begun and stopped; a training then goes on from its
            state even where it was told to forget earlier ones, since that state is of the first attempt.
        dry: Only tell what would become of it.
        force: Run it though nothing that DVC knows of changed.
        pull: Take from the remote what is not here: outputs that are as dvc.lock says, and results of earlier runs.
        environment: Added to ours.

    Raises:
        StageFailed: With the exit code of the stage's own command where it ran.
    """
    flags = {"--dry": dry, "--force": force, "--pull": pull}
    options = [flag for flag, wanted in flags.items() if wanted]
    resume = {RESUME: "auto"} if again and os.environ.get(RESUME) == "never" else {}
    while True:
        try:
            return _repro_once(stage, root, log, options, {**resume, **(environment or {})})
        except Busy:
            log(f"{stage.name}: another process works on it, or on its files; asking again in {BUSY_SECONDS:g} s")
            time.sleep(BUSY_SECONDS)


def _repro_once(
    stage: Stage, root: Path, log: Callable[[str], None], options: list[str], environment: Mapping[str, str]
) -> Outcome:
    heard = _Heard()

    def hear(line: str) -> None:
        log(line)
        heard.line(line)

    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *options, stage.name]
    try:
        code = run_command(
            command,
            root,
            hear,
            name=stage.name,
            is_wrapper=True,
            timeout_seconds=stage.options.timeout_seconds,
            environment=environment,
        )
    except TimeoutError:
        raise StageFailed(stage.name, TIMED_OUT, f"not done after {stage.options.timeout_seconds:g} s") from None
    if code != 0:
        raise heard.failure(stage.name, code)
    return heard.outcome


class _Heard:
    """What DVC said of a stage, line by line."""

    def __init__(self) -> None:
        self.outcome: Outcome = "ran"
        self._exit_code: int | None = None
        self._reason = "DVC failed"
        self._is_busy = self._disk_full = False

    def line(self, line: str) -> None:
        for phrase, outcome in PHRASES.items():
            if phrase in line:
                self.outcome = outcome
        if failure := re.search(r"failed to run: .*, exited with (-?\d+)$", line):
            self._exit_code, self._reason = int(failure[1]), f"its command exited with {failure[1]}"
        self._is_busy |= "is busy, it is being blocked by" in line
        self._disk_full |= "No space left on device" in line

    def failure(self, stage: str, code: int) -> StageFailed:
        is_busy = self._exit_code == IN_USE or (self._is_busy and self._exit_code is None)
        kind = Busy if is_busy else StageFailed
        reason = self._reason + ("; the disk is full: make room and start again" if self._disk_full else "")
        return kind(stage, self._exit_code or code, reason, disk_full=self._disk_full)

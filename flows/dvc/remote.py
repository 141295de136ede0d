"""Contents to and from DVC's remote, tried again where the way there fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.dvc.failures import DATA, RemoteFailed
from flows.processes.commands import run_command

ATTEMPTS = 5
BACKOFF_SECONDS = 2.0
"""Before the second attempt; twice as long before each later one."""

LACKING = ("missing-files", "do not exist neither locally nor on remote", "Is your cache up to date?")
"""What DVC says of contents that are nowhere."""


class NoRemote(ValueError):
    """The repository names no default remote."""


def has_remote(root: Path) -> bool:
    """Whether DVC knows where to push."""
    from dvc.config import Config

    return bool(Config(str(root / ".dvc"), validate=False).get("core", {}).get("remote"))


def pull(root: Path, targets: Sequence[str], log: Callable[[str], None], *, force: bool = False) -> None:
    """Bring outputs here: stages by name, or paths (``./path``, lest a stage of that name be meant).

    Args:
        force: In place of what lies there, though it be nowhere else, as what a killed stage leaves.

    Raises:
        RemoteFailed, NoRemote.
    """
    if targets:
        _transfer(root, ["pull", *(["--force"] if force else []), *targets], log)


def push(root: Path, targets: Sequence[str], log: Callable[[str], None], *, with_history: bool = False) -> None:
    """Send stages' outputs to the remote.

    Args:
        with_history: And what this machine's run cache knows, so that others need not run again what ran here. Of
            earlier runs, contents may be gone everywhere; that is no reason to fail.

    Raises:
        RemoteFailed, NoRemote.
    """
    if not targets:
        return
    if with_history:
        try:
            _transfer(root, ["push", "--run-cache", *targets], log)
            return
        except RemoteFailed as error:
            if error.exit_code != DATA:
                raise
            log("the history of earlier runs is incomplete; only this run's outputs are pushed")
    _transfer(root, ["push", *targets], log)


def _transfer(root: Path, words: list[str], log: Callable[[str], None]) -> None:
    if not has_remote(root):
        raise NoRemote(f"{root}: no DVC remote; `dvc remote add --default NAME URL` names one")
    verb, what = words[0], ", ".join(word for word in words[1:] if not word.startswith("-"))
    for attempt in range(1, ATTEMPTS + 1):
        said: list[str] = []

        def hear(line: str, said: list[str] = said) -> None:
            said.append(line)
            log(line)

        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *words]
        if run_command(command, root, hear, name=f"dvc {verb}") == 0:
            return
        reason = next((line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")), "DVC failed")
        if any(phrase in line for line in said for phrase in LACKING):
            cure = "`dvc push` where it was made, or make it anew"
            raise RemoteFailed(what, DATA, f"the remote lacks it ({reason}); {cure}")
        if any("No space left on device" in line for line in said):
            raise RemoteFailed(what, 1, f"dvc {verb}: {reason}", disk_full=True)
        if attempt < ATTEMPTS:
            seconds = BACKOFF_SECONDS * 2 ** (attempt - 1)
            log(f"dvc {verb} {what}: failed ({reason}); again in {seconds:g} s")
            time.sleep(seconds)
    raise RemoteFailed(what, 1, f"dvc {verb} failed {ATTEMPTS} times: {reason}")

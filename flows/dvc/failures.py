"""How bringing a stage up to date can fail, by exit code, and which of it may be tried again."""

from __future__ import annotations

SETTINGS, DATA, STOPPED, TIMED_OUT = 2, 3, 75, 124
"""Exit codes of a stage's command (``stylegan_t/errors.py``), and ours for a stage out of time."""

IN_USE = 73
"""Of a stage's command where another process does the same work, and ours where another run has the workspace."""


class StageFailed(Exception):
    """A stage's command, or DVC itself, failed."""

    def __init__(self, stage: str, exit_code: int, reason: str, *, disk_full: bool = False) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage, self.exit_code, self.reason, self.disk_full = stage, exit_code, reason, disk_full

    def __reduce__(self) -> tuple:
        """Exceptions are made anew from their message alone otherwise, and Prefect sends them between processes."""
        return _stage_failed, (type(self), self.stage, self.exit_code, self.reason, self.disk_full)

    @property
    def worth_retrying(self) -> bool:
        """Whether another attempt can end differently: not with the same settings, data or room on the disk."""
        return self.exit_code not in (SETTINGS, DATA) and not self.disk_full


def _stage_failed(kind: type[StageFailed], stage: str, exit_code: int, reason: str, disk_full: bool) -> StageFailed:
    return kind(stage, exit_code, reason, disk_full=disk_full)


class Busy(StageFailed):
    """Another process does the same work, or another DVC command works on the stage's files."""


class RemoteFailed(StageFailed):
    """DVC's remote could not be reached, several times, or lacks what was to be pulled."""

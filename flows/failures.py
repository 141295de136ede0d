"""How failures of stages look to Prefect: what is tried again, and what is said of them."""

from __future__ import annotations

import logging
import re
from typing import Any

from flows import dvc


def worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Whether to try a failed task again, as Prefect asks it."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, dvc.StageFailed) and error.worth_retrying


def told_without_a_trace(*kinds: type[BaseException]) -> None:
    """Errors of these kinds say what was wrong in their own words; where we raised them is of no use to anyone."""

    def shorten(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], kinds):
            record.exc_info = None
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(shorten)


def failed_elsewhere(stage: str, said: str, of: str = "") -> dvc.StageFailed:
    """The failure of a stage on another machine, from what its flow run said.

    Args:
        of: What of the stage it was, for words that do not begin with it.
    """
    reason = said.partition(f"{stage}: ")[2] or said
    return dvc.StageFailed(stage, exit_code_in(said), of + reason.removeprefix(of))


def exit_code_in(said: str) -> int:
    """The exit code of a stage's command in what its failure said on another machine; 1 where it says none."""
    if found := re.search(r"its command exited with (\d+)", said):
        return int(found[1])
    return dvc.DATA if "the remote lacks it" in said else dvc.TIMED_OUT if "not done after" in said else 1

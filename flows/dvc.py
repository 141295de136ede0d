"""The pipeline in DVC: its graph, and bringing one stage up to date in a subprocess (experiments: experiments.py)."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.commands import run_command

SETTINGS, DATA, STOPPED, TIMED_OUT = 2, 3, 75, 124
"""Exit codes of a stage's command (``stylegan_t/errors.py``), and ours for a stage out of time."""

RESUME = "STYLEGAN_T_RESUME"
"""What ``stylegan-t run --resume`` reads where the option is not given."""

BUSY_SECONDS = 15.0

Outcome = Literal["ran", "cached", "restored"]
PHRASES: dict[str, Outcome] = {
    "didn't change, skipping": "cached",
    "is cached - skipping run, checking out outputs": "restored",
}


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml: its name and command, and what its ``meta: {prefect: …}`` asks for."""

    name: str
    command: str = ""
    retries: int = 0
    retry_delay_seconds: float = 10.0
    timeout_seconds: float | None = None


class StageFailed(Exception):
    """A stage's command, or DVC itself, failed."""

    def __init__(self, stage: str, exit_code: int, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.exit_code = exit_code

    @property
    def worth_retrying(self) -> bool:
        """Whether another attempt can end differently: not with the same settings, nor with the same data."""
        return self.exit_code not in (SETTINGS, DATA)


class Busy(StageFailed):
    """Another DVC command works on the stage's files."""


def read_stages(root: Path, targets: Sequence[str] | None = None) -> list[Stage]:
    """The stages of ``dvc.yaml`` in an order in which each comes after all that it needs.

    Args:
        targets: Only these stages and what they need; None means all.

    Raises:
        ValueError: There is no pipeline in ``root``, a target does not exist, or a stage's ``meta.prefect`` has a
            key that does not.
    """
    if not (root / "dvc.yaml").exists():
        raise ValueError(f"{root} has no dvc.yaml; run this in the repository's root")
    import networkx
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    with Repo(str(root)) as repo:
        index = repo.index
        ours = [s for s in index.stages if isinstance(s, PipelineStage) and Path(s.path) == root / "dvc.yaml"]
        by_name = {str(stage.name): stage for stage in ours}
        if unknown := set(targets or ()) - by_name.keys():
            raise ValueError(f"stage {', '.join(sorted(unknown))} is unknown; dvc.yaml has: {', '.join(by_name)}")
        wanted = {by_name[name] for name in targets or by_name}
        wanted |= {needed for stage in wanted for needed in networkx.descendants(index.graph, stage)}
        position = {stage: number for number, stage in enumerate(ours)}
        graph = index.graph.subgraph(wanted & position.keys()).reverse()
        order = networkx.lexicographical_topological_sort(graph, key=position.__getitem__)
        return [_stage(stage) for stage in order]


def _stage(stage: Any) -> Stage:
    """What we need to know of one of DVC's stages. Raises ValueError."""
    meta = (stage.meta or {}).get("prefect", {})
    unknown = meta.keys() - (Stage.__dataclass_fields__.keys() - {"name", "command"})
    if unknown:
        raise ValueError(f"dvc.yaml: {stage.name}: meta.prefect: unknown {', '.join(sorted(unknown))}")
    return Stage(stage.name, stage.cmd, **meta)


def repair(root: Path) -> None:
    """Remove the empty lock file that a killed DVC can leave and that blocks every later command."""
    lock = root / ".dvc" / "tmp" / "rwlock"
    if lock.exists() and not lock.read_text().strip():
        lock.unlink()


def repro(stage: Stage, root: Path, log: Callable[[str], None], *, again: bool = False, dry: bool = False) -> Outcome:
    """Bring one stage up to date; DVC decides whether there is work.

    Where another DVC command works on the same files, this waits: ``--wait-for-lock`` covers DVC's own files only.

    Args:
        log: Called with each line of output as it comes.
        again: Whether this is another attempt at work that was begun and stopped; a training then goes on from its
            state even where it was told to forget earlier ones, since that state is of the first attempt.
        dry: Only tell what would become of it.

    Raises:
        StageFailed: With the exit code of the stage's own command where it ran.
    """
    while True:
        try:
            return _repro_once(stage, root, log, again, dry)
        except Busy:
            log(f"{stage.name}: another DVC command works on its files; asking again in {BUSY_SECONDS:g} s")
            time.sleep(BUSY_SECONDS)


def _repro_once(stage: Stage, root: Path, log: Callable[[str], None], again: bool, dry: bool) -> Outcome:
    outcome: Outcome = "ran"
    exit_code, reason, busy = None, "DVC failed", False

    def hear(line: str) -> None:
        nonlocal outcome, exit_code, reason, busy
        log(line)
        for phrase, what in PHRASES.items():
            if phrase in line:
                outcome = what
        if failure := re.search(r"failed to run: .*, exited with (-?\d+)$", line):
            exit_code, reason = int(failure[1]), f"its command exited with {failure[1]}"
        busy = busy or "is busy, it is being blocked by" in line

    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name]
    try:
        code = run_command(
            [*command, "--dry"] if dry else command,
            root,
            hear,
            name=stage.name,
            is_wrapper=True,
            timeout_seconds=stage.timeout_seconds,
            environment={RESUME: "auto"} if again and os.environ.get(RESUME) == "never" else None,
        )
    except TimeoutError:
        raise StageFailed(stage.name, TIMED_OUT, f"not done after {stage.timeout_seconds:g} s") from None
    if code != 0:
        raise (Busy if busy and exit_code is None else StageFailed)(stage.name, exit_code or code, reason)
    return outcome

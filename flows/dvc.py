"""The only module that knows DVC: the pipeline's graph, and bringing one stage up to date in a subprocess."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import psutil

SETTINGS, DATA, STOPPED, TIMED_OUT = 2, 3, 75, 124
"""Exit codes of a stage's command (``stylegan_t/errors.py``), and ours for a stage out of time."""

RESUME = "STYLEGAN_T_RESUME"
"""What ``stylegan-t run --resume`` reads where the option is not given."""

GRACE_SECONDS = 25.0
"""What a training needs to save its state after SIGTERM."""

POLL_SECONDS, BUSY_SECONDS = 0.2, 15.0

Outcome = Literal["ran", "cached", "restored"]
PHRASES: dict[str, Outcome] = {
    "didn't change, skipping": "cached",
    "is cached - skipping run, checking out outputs": "restored",
}


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, with what its ``meta: {prefect: …}`` asks for."""

    name: str
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
        return [_stage(str(stage.name), (stage.meta or {}).get("prefect", {})) for stage in order]


def _stage(name: str, meta: dict[str, float]) -> Stage:
    unknown = meta.keys() - Stage.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"dvc.yaml: {name}: meta.prefect: unknown {', '.join(sorted(unknown))}")
    return Stage(name, **meta)  # type: ignore[arg-type]


def repair(root: Path) -> None:
    """Remove the empty lock file that a killed DVC can leave and that blocks every later command."""
    lock = root / ".dvc" / "tmp" / "rwlock"
    if lock.exists() and not lock.read_text().strip():
        lock.unlink()


def repro(stage: Stage, root: Path, log: Callable[[str], None], *, again: bool = False) -> Outcome:
    """Bring one stage up to date; DVC decides whether there is work.

    Where another DVC command works on the same files, this waits: ``--wait-for-lock`` covers DVC's own files only.

    Args:
        log: Called with each line of output as it comes.
        again: Whether this is another attempt at work that was begun and stopped; a training then goes on from its
            state even where it was told to forget earlier ones, since that state is of the first attempt.

    Raises:
        StageFailed: With the exit code of the stage's own command where it ran.
    """
    while True:
        try:
            return _repro_once(stage, root, log, again)
        except Busy:
            log(f"{stage.name}: another DVC command works on its files; asking again in {BUSY_SECONDS:g} s")
            time.sleep(BUSY_SECONDS)


def _repro_once(stage: Stage, root: Path, log: Callable[[str], None], again: bool) -> Outcome:
    """Run DVC as a child of ours.

    It stays in our process group, so that whoever kills the group reaches the training too. Whatever ends this call
    early (a deadline, a cancelled run, Ctrl-C) ends the whole tree of processes first.
    """
    scripts = str(Path(sys.executable).parent)  # where `stylegan-t` is, also when the environment is not activated
    environment = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])}
    if again and environment.get(RESUME) == "never":
        environment[RESUME] = "auto"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage.name],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # universal newlines: a progress bar's \r ends a line too
        errors="replace",
    )
    tree = Tree(process.pid)
    outcome: Outcome = "ran"
    exit_code, reason, busy = None, "DVC failed", False
    try:
        for line in _lines(process, tree, stage.timeout_seconds):
            log(line)
            for phrase, what in PHRASES.items():
                if phrase in line:
                    outcome = what
            if failure := re.search(r"failed to run: .*, exited with (-?\d+)$", line):
                exit_code, reason = int(failure[1]), f"its command exited with {failure[1]}"
            busy = busy or "is busy, it is being blocked by" in line
        process.wait()
    except TimeoutError:
        raise StageFailed(stage.name, TIMED_OUT, f"not done after {stage.timeout_seconds:g} s") from None
    finally:
        if process.poll() is None:
            log(f"{stage.name}: stopping its processes")
            tree.end()
            process.wait()
    if process.returncode != 0:
        raise (Busy if busy and exit_code is None else StageFailed)(stage.name, exit_code or process.returncode, reason)
    return outcome


def _lines(process: subprocess.Popen[str], tree: Tree, timeout_seconds: float | None) -> Iterator[str]:
    """Lines of output until the process ends; raises TimeoutError at the deadline, though no line comes."""
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(stream: IO[str]) -> None:
        with stream:
            for line in stream:
                lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, args=[process.stdout], daemon=True).start()
    deadline = time.monotonic() + (timeout_seconds or math.inf)
    while time.monotonic() < deadline:
        tree.look()
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if process.poll() is not None:  # a process that outlives the command still holds the pipe
                return
            continue
        if line is None:
            return
        if line:
            yield line
    raise TimeoutError


class Tree:
    """A DVC process and all below it, remembered while they run.

    Where a signal to the whole group ends DVC first, its command loses its parent and could not be found any more.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._below: dict[psutil.Process, None] = {}  # in the order of discovery: parents before their children
        self._next_look = 0.0

    def look(self) -> None:
        """Notice new processes, at most once a second."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + 1
            with contextlib.suppress(psutil.NoSuchProcess):
                self._below.update(dict.fromkeys(self._root.children(recursive=True)))

    def end(self) -> None:
        """SIGTERM to the commands, so that a training saves and DVC itself cleans up; SIGKILL after the grace.

        Parents hear of it before their children, whose end they would else take for a failure. (The times at which
        processes began do not tell who is whose parent: the kernel counts them in hundredths of a second.)
        """
        self._next_look = 0
        self.look()
        for process in self._below or [self._root]:
            _ignoring_the_dead(process.terminate)
        psutil.wait_procs({*self._below, self._root}, timeout=GRACE_SECONDS)
        self._next_look = 0
        self.look()
        for process in {*self._below, self._root}:
            _ignoring_the_dead(process.kill)
        psutil.wait_procs({*self._below, self._root}, timeout=5)


def _ignoring_the_dead(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()

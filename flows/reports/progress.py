"""How far a training is, as a progress artifact of its task run, from the records that it writes while it runs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run, task_run
from pydantic import BaseModel, ValidationError

Kind = TypeVar("Kind", bound=BaseModel)

POLL_SECONDS = 5.0
CLOSING_SECONDS = 5.0
"""For so long a stage's end waits until its last progress is shown."""

ANSWER_SECONDS = 10.0
TAIL_BYTES = 64 * 1024
NUM_LINES = 10
"""Of the log's last lines, whose mean speed tells the time left."""


class _Run(BaseModel):
    """What we read of ``run.json``."""

    total_kimg: float
    finished: bool


class _Speed(BaseModel):
    images_per_second: float


class _Line(BaseModel):
    """What we read of a line of ``log.jsonl``."""

    kimg: float
    speed: _Speed | None = None


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        images_per_second: None before the first line of the log.
    """

    kimg: float
    total_kimg: float
    images_per_second: float | None
    finished: bool

    @property
    def percent(self) -> float:
        return 100 * min(self.kimg / self.total_kimg, 1.0) if self.total_kimg > 0 else 100.0

    def __str__(self) -> str:
        facts = [f"{self.kimg:,.1f} of {self.total_kimg:,g} kimg"]
        if self.images_per_second:
            facts.append(f"{self.images_per_second:,.4g} images/s")
            if not self.finished:
                left = 1000 * max(self.total_kimg - self.kimg, 0) / self.images_per_second
                facts.append(f"{in_words(left)} left")
        return ", ".join([*facts, *(["done"] if self.finished else [])])


class LiveRecords:
    """The records of a stage's runs below ``.state``; only what changes from now on is of the run that works now."""

    def __init__(self, root: Path, stage: str) -> None:
        self._folder = root / ".state" / stage
        self._old = self._stamps()

    def look(self) -> Progress | None:
        """How far the run is that is being written; None before there is one."""
        changed = {path: stamp for path, stamp in self._stamps().items() if self._old.get(path) != stamp}
        if not changed:
            return None
        live = max(changed, key=lambda path: changed[path]).parent
        run = _parsed(_Run, _tail(live / "run.json"))
        if run is None:
            return None
        lines = [line for text in _tail(live / "log.jsonl").split(b"\n") if (line := _parsed(_Line, text))]
        rates = [line.speed.images_per_second for line in lines[-NUM_LINES:] if line.speed]
        return Progress(
            kimg=lines[-1].kimg if lines else 0.0,
            total_kimg=run.total_kimg,
            images_per_second=sum(rates) / len(rates) if rates else None,
            finished=run.finished,
        )

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        """When each file of the runs was written, and how long it is."""
        found = {}
        for name in ("run.json", "log.jsonl"):
            for path in self._folder.glob(f"*/live/{name}"):
                try:
                    facts = path.stat()
                except FileNotFoundError:  # a run that is cleaned away
                    continue
                found[path] = (facts.st_mtime_ns, facts.st_size)
        return found


@contextmanager
def watching(root: Path, stage: str) -> Iterator[None]:
    """While entered, shows how far the stage's training is; nothing for a stage that writes no live records.

    To be used in a task. A server that does not answer costs the artifact, with a warning, and never the training.
    """
    ended = threading.Event()
    artifact = _Artifact(stage)
    thread = threading.Thread(
        target=contextvars.copy_context().run,  # where the server is, a thread does not know by itself
        args=[_follow, LiveRecords(root, stage), artifact, ended],
        name=f"progress of {stage}",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(CLOSING_SECONDS)


def _follow(live: LiveRecords, artifact: _Artifact, ended: threading.Event) -> None:
    done = False
    while not done:
        done = ended.wait(POLL_SECONDS)
        if progress := live.look():
            artifact.show(progress)


class _Artifact:
    """One progress artifact of the present task run, made when there is something to show."""

    def __init__(self, stage: str) -> None:
        self._key = f"{stage.replace('_', '-')}-progress"
        self._stage, self._logger = stage, get_run_logger()
        self._of: dict[str, Any] = {"flow_run_id": flow_run.id, "task_run_id": task_run.id}
        self._id: UUID | None = None
        self._shown: Progress | None = None
        self._warned = False

    def show(self, progress: Progress) -> None:
        """Bring it up to date, if there is news and the server answers."""
        if progress == self._shown:
            return
        try:
            self._send(progress)
        except (httpx.HTTPError, PrefectException) as error:
            if not self._warned:
                self._logger.warning("%s: its progress cannot be shown (%s)", self._stage, str(error).split("\n")[0])
            self._warned = True
        else:
            self._shown = progress

    def _send(self, progress: Progress) -> None:
        facts: dict[str, Any] = {"data": progress.percent, "description": str(progress)}
        with get_client(sync_client=True, httpx_settings={"timeout": ANSWER_SECONDS}) as client:  # a thread's own
            if self._id:
                client.update_artifact(self._id, ArtifactUpdate(**facts))
            else:
                made = client.create_artifact(ArtifactCreate(key=self._key, type="progress", **facts, **self._of))
                self._id = made.id


def in_words(seconds: float) -> str:
    """A time for people: ``40 s``, ``9 min``, ``3.4 h``."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _tail(path: Path) -> bytes:
    """The last lines of a file; its first one may lack its beginning. Nothing where it is absent."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
            return file.read()
    except FileNotFoundError:
        return b""


def _parsed(kind: type[Kind], text: bytes) -> Kind | None:
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None

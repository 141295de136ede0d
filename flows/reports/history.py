"""The evaluated runs of a workspace, a line each, with what they measured and whether they were accepted."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field

from flows.reports.gate import Better, Rule, Verdict, number
from flows.reports.settings import Flat, flat

HISTORY = ".state/history.jsonl"
METRICS = "artifacts/evaluate/metrics.json"

YARDSTICK = (
    "download.source",
    "fetch_encoders.judges",
    "evaluate.protocol",
    "evaluate.against",
    "evaluate.num_seeds",
    "evaluate.num_oracle_prompts",
)
"""Settings of what is measured, and by whom, that the metrics' names do not state."""

NUM_REALS = "protocol.num_reals"
MAX_CHANGE_OF_REALS = 0.1
"""By so large a part the number of real pictures may change, as with fresh data, and distances still be compared."""


class Entry(BaseModel):
    """One evaluated run.

    Attributes:
        when: Its end, ISO, UTC.
        run: Name of the flow run.
        commit: What was checked out, "+changes" where files differed from it; None without a commit.
        settings: params.yaml, flat.
        metrics: metrics.json, flat.
        rules: Those that it was judged by.
        lines: Why it was accepted or rejected.
    """

    model_config = ConfigDict(frozen=True)

    when: str
    run: str
    commit: str | None
    settings: Flat
    metrics: dict[str, Any]
    rules: tuple[Rule, ...]
    accepted: bool
    lines: tuple[str, ...]

    @computed_field
    @property
    def settings_digest(self) -> str:
        """Short and the same for the same settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.accepted, self.lines)


def read_metrics(root: Path) -> dict[str, Any] | None:
    """What the present evaluation measured, flat; None where there is none.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return flat(json.loads((root / METRICS).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        raise ValueError(f"{METRICS}: no JSON object; `dvc checkout evaluate` brings it back") from None


def read(root: Path) -> list[Entry]:
    """All entries, oldest first; a last line that a crash left unfinished is no entry.

    Raises:
        ValueError: Another line is damaged: without it a worse run could pass.
    """
    try:
        lines = (root / HISTORY).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    entries = []
    for place, line in enumerate(lines, start=1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(
                f"{HISTORY}: line {place} is no entry ({error.errors()[0]['msg']}); remove that line, and the runs are "
                "judged without it"
            ) from None
    return entries


def append(root: Path, entry: Entry) -> None:
    """Add an entry, whole or not at all, in place of an unfinished last line.

    Raises:
        OSError: It could not be written; the file is as it was.
    """
    path = root / HISTORY
    path.parent.mkdir(exist_ok=True)
    line = entry.model_dump_json().encode() + b"\n"
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # runs over many machines have workspaces of their own, and one history
        file.seek(0)
        end = file.read().rfind(b"\n") + 1
        file.truncate(end)
        if file.write(line) != len(line):
            file.truncate(end)
            raise OSError(f"{HISTORY}: no room for a line of {len(line)} bytes")
        os.fsync(file.fileno())


def last(root: Path) -> Entry | None:
    """The newest entry."""
    return next(reversed(read(root)), None)


def present(root: Path) -> Entry | None:
    """The newest entry, if it is of what artifacts/evaluate holds now; None where that was not judged."""
    entry = last(root)
    return entry if entry and entry.metrics == read_metrics(root) else None


def last_accepted(entries: Sequence[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.accepted), None)


def best(entries: Sequence[Entry], metric: str, better: Better) -> Entry | None:
    """The entry with the best figure of a metric, the oldest of those that are as good; None where none has it."""
    found = [(value, entry) for entry in entries if (value := number(entry.metrics, metric)) is not None]
    choose = min if better == "lower" else max
    return choose(found, key=lambda pair: pair[0])[1] if found else None


def comparable(one: Entry, other: Entry) -> bool:
    """Whether the same things were measured by the same judges; names of metrics state the rest."""
    reals = [number(entry.metrics, NUM_REALS) for entry in (one, other)]
    if None in reals:
        alike = reals[0] == reals[1]
    else:
        few, many = sorted(each for each in reals if each is not None)
        alike = many - few <= MAX_CHANGE_OF_REALS * many
    return alike and _yardstick(one) == _yardstick(other)


def _yardstick(entry: Entry) -> Flat:
    return {
        key: value
        for key, value in entry.settings.items()
        if any(f"{key}.".startswith(f"{group}.") for group in YARDSTICK)
    }

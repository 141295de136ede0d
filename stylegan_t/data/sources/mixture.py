"""Several sources as one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylegan_t.data.shards import Sample, Skipped
from stylegan_t.data.sources.base import Done, Source, nothing
from stylegan_t.files import write_json

PLAN = "mixture.json"


class Mixture(Source):
    """The parts of each source after those of the one before; keys begin with the data set's name.

    Args:
        datasets: Sources by the name of their data set.
    """

    def __init__(self, datasets: Mapping[str, Source]) -> None:
        self.datasets = dict(datasets)

    def fingerprint(self) -> str:
        return json.dumps({name: source.fingerprint() for name, source in self.datasets.items()})

    def plan(self, work: Path) -> int:
        counts = {name: source.plan(self._folder(work, name)) for name, source in self.datasets.items()}
        write_json(work / PLAN, counts)
        return sum(counts.values())

    def pairs(self, part: int, work: Path, done: Done = nothing) -> Iterator[Sample | Skipped]:
        name, number = self._place(part, work)
        for pair in self.datasets[name].pairs(number, self._folder(work, name), done):
            yield dataclasses.replace(pair, key=f"{name}-{pair.key}")

    def forget(self, part: int, work: Path) -> None:
        name, number = self._place(part, work)
        self.datasets[name].forget(number, self._folder(work, name))

    def facts(self, work: Path) -> dict[str, Any]:
        facts = {name: source.facts(self._folder(work, name)) for name, source in self.datasets.items()}
        return {"kind": "mixture", "datasets": facts}

    def num_candidates(self, work: Path) -> int | None:
        counts = [source.num_candidates(self._folder(work, name)) for name, source in self.datasets.items()]
        return None if None in counts else sum(count for count in counts if count)

    def dataset(self, part: int, work: Path) -> str:
        return self._place(part, work)[0]

    def _place(self, part: int, work: Path) -> tuple[str, int]:
        """Name of the data set that a part belongs to, and its number there."""
        counts: dict[str, int] = json.loads((work / PLAN).read_text())
        for name in self.datasets:
            if part < counts[name]:
                return name, part
            part -= counts[name]
        raise IndexError("no such part")

    @staticmethod
    def _folder(work: Path, name: str) -> Path:
        return work / name

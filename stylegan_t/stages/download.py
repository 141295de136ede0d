"""Stage ``download``: image-caption pairs of a source into shards, resumable shard by shard, or picture by picture."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_t.config import Config
from stylegan_t.data.download.reasons import SUCCESS
from stylegan_t.data.raw import write_raw_shard
from stylegan_t.data.shards import write_manifest
from stylegan_t.data.sources.base import Source
from stylegan_t.errors import DataError
from stylegan_t.files import write_json
from stylegan_t.settings.sources import MixtureSource, OneSource
from stylegan_t.stages.code import code_hash
from stylegan_t.stages.counting import Counters, Watch
from stylegan_t.stages.parts import PartRange, Parts, open_parts
from stylegan_t.stages.sources import open_source
from stylegan_t.stages.workspace import Workspace

FETCHED = {"urls", "webdataset", "huggingface"}
"""Kinds of sources of which what is there stays when the code changes: to fetch it again may take weeks."""


def run(
    config: Config, workspace: Workspace, device: str, parts: PartRange | None = None, afresh: bool = False
) -> None:
    """Write ``data/raw``. A killed run goes on with the shards that were not whole.

    Of a list of addresses, no row that had come to its end is fetched again.

    Args:
        parts: Make only these; see ``open_parts``.
        afresh: Forget the parts that are finished.
    """
    per_shard = config.download.samples_per_shard
    source = open_source(
        config.download.source, config.download.fetching, config.download.stored,
        per_part=per_shard, seed=config.seed, root=workspace.root,
    )  # fmt: skip
    code = None if _kinds(config.download.source) & FETCHED else code_hash("download")
    digest = hashlib.sha256(f"{source.fingerprint()} {per_shard} {code}".encode()).hexdigest()[:16]
    with open_parts(workspace.state("download", digest), parts, afresh) as made:
        num_parts = made.plan(source.plan)
        counters, before = Counters(made.hidden / "counts"), made.finished(num_parts)
        for number in before:
            source.forget(number, made.scratch)
        started, states_now = time.monotonic(), Counter[str]()
        with _watch(source, made, num_parts, counters, per_shard) as watch:

            def done(number: int, facts: dict[str, Any]) -> None:
                source.forget(number, made.scratch)  # now that the shard is known to be whole
                watch.finished(number, sum(facts["states"].values()))
                states_now.update(facts["states"])

            work = DownloadParts(source, made.folder, made.scratch, counters)
            facts = made.make(work, num_parts, config.download.engine, done)
        _write_speed(workspace, states_now, time.monotonic() - started)
        if facts is not None:
            _write_manifest(source, made, facts)
            made.publish(workspace.raw)


def _kinds(source: OneSource | MixtureSource) -> set[str]:
    return {each.kind for each in (source.datasets.values() if isinstance(source, MixtureSource) else [source])}


@dataclass(frozen=True)
class DownloadParts:
    """Makes the shard of a part; see ``run_parts``.

    Attributes:
        folder: Where to.
        scratch: What the source made ready.
        counters: Where to tell how far it has come.
    """

    source: Source
    folder: Path
    scratch: Path
    counters: Counters

    def __call__(self, number: int) -> dict[str, Any]:
        pairs = self.source.pairs(number, self.scratch, self.counters.of(number))
        entry, states = write_raw_shard(self.folder, number, pairs)
        dataset = self.source.dataset(number, self.scratch)
        return {"entry": entry | ({"dataset": dataset} if dataset else {}), "states": states}


def _watch(source: Source, made: Parts, num_parts: int, counters: Counters, per_shard: int) -> Watch:
    chosen, before = made.chosen(num_parts), made.finished(num_parts)
    total = source.num_candidates(made.scratch) if len(chosen) == num_parts else None
    sizes = {number: sum(facts["states"].values()) for number, facts in before.items()}
    return Watch("download", counters, sizes, set(chosen) - before.keys(), total, per_shard)


def _write_manifest(source: Source, made: Parts, facts: Sequence[dict[str, Any]]) -> None:
    """The manifest, unless there is nothing to put in it. Raises DataError then."""
    states = sum((Counter(part["states"]) for part in facts), Counter[str]())
    skipped = {reason: count for reason, count in sorted(states.items()) if reason != SUCCESS}
    if not states[SUCCESS]:
        why = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it is empty"
        raise DataError(f"download.source: no picture with a caption in it ({why}); see data/README.md")
    entries = [part["entry"] for part in facts]
    write_manifest(made.folder, "raw", entries, source=source.facts(made.scratch), skipped=skipped)


def _write_speed(workspace: Workspace, states: Counter[str], seconds: float) -> None:
    """What this run did and how long it took: such facts differ from run to run, and belong to no compared output."""
    facts = {"candidates": states.total(), "images": states[SUCCESS], "seconds": seconds}
    write_json(workspace.artifacts("download_speed.json"), facts | {"images_per_second": states[SUCCESS] / seconds})

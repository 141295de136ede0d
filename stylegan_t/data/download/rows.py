"""The downloader: rows of a list in, samples in the same order out, whatever ends it in between."""

from __future__ import annotations

import asyncio
import gc
import re
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from stylegan_t.data.download.crew import Crew, Wanted
from stylegan_t.data.download.fetch import Limits
from stylegan_t.data.download.ledger import Finished, Ledger
from stylegan_t.data.download.outage import MOST_REMEMBERED
from stylegan_t.data.download.pictures import Storage
from stylegan_t.data.download.reasons import SUCCESS
from stylegan_t.data.shards import Sample, Skipped, keep_both, pack
from stylegan_t.errors import SettingsError

OTHER_FILES = 128
"""Files that a process has open beside its connections."""
OBJECTS_BETWEEN_COLLECTIONS = 20_000
KEY = re.compile(r"[A-Za-z0-9_-]+")


class Row(NamedTuple):
    """A line of the list.

    Attributes:
        key: Of the sample; a letter, digit, hyphen or underscore each.
        url: Where the picture is.
        captions: At least one that is not empty.
        sha256: What the bytes that come must hash to, in hex; None takes any.
        metadata: Further columns, kept; those called like what is told here become ``list_<name>``.
    """

    key: str
    url: str
    captions: Sequence[str]
    sha256: str | None
    metadata: dict[str, Any]


def fetch_rows(
    rows: Sequence[Row],
    ledger: Path,
    limits: Limits,
    storage: Storage,
    done: Callable[[int], None] = lambda count: None,
) -> Iterator[Sample | Skipped]:
    """Fetch all rows, then give a sample or a reason for each, in the rows' order.

    Every finished row is in the ledger at once, with its picture: whoever calls this again after an end of any kind,
    with the same rows, limits and storage, gets the same result, and no finished row is fetched again. Once what came
    of the samples is safe, the ledger can go (``ledger.forget``).

    What is in memory does not depend on the number of rows, but for 100 bytes each.

    Args:
        rows: Read one at a time, some of them twice.
        done: Told the number of rows that were finished since it was last told.

    Raises:
        InUse: Another process has the ledger.
        NotSaved: It cannot be written.
        SettingsError: More connections than this process may have.
        Unreachable: The network here seems to be down.
    """
    with Ledger(ledger) as finished:
        done(len(finished))
        if len(finished) < len(rows):
            allow_connections(limits.max_connections)
            missing = (_wanted(number, rows[number]) for number in range(len(rows)) if number not in finished)
            answered = (rows[number].url for number in finished if finished[number].facts.status == SUCCESS)
            with _rare_collections():
                crew = Crew(finished, limits, storage, done)
                asyncio.run(crew.fetch(missing, list(islice(answered, MOST_REMEMBERED))))
        for number, row in enumerate(rows):
            yield _result(row, finished[number])


def allow_connections(count: int) -> None:
    """Let this process have so many connections, beside its other files. Raises SettingsError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * count + OTHER_FILES  # as many again stay open for a while when their request is done
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SettingsError(
            f"download.fetching.max_connections = {count}: this process may have {hard} files open, {OTHER_FILES} are "
            f"others, and a connection takes up to two; use {max(1, (hard - OTHER_FILES) // 2)} or fewer, or raise "
            "`ulimit -Hn`"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for unreachable cycles less often: a request makes hundreds of objects, and few cycles."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _wanted(number: int, row: Row) -> Wanted:
    return Wanted(number, row.url, row.sha256.strip().lower() if row.sha256 else None)


def _result(row: Row, finished: Finished) -> Sample | Skipped:
    facts, image = finished
    if not KEY.fullmatch(row.key):
        raise ValueError(f"key {row.key!r}: letters, digits, - and _ only, since files are named by it")
    if facts.status != SUCCESS:
        return Skipped(row.key, facts.status, keep_both(row.metadata, {"url": row.url}), list(row.captions))
    measured = {
        "url": row.url, "width": facts.width, "height": facts.height, "original_width": facts.original_width,
        "original_height": facts.original_height, "sha256": facts.sha256,
    }  # fmt: skip
    return pack(row.key, facts.ext, image, row.captions, keep_both(row.metadata, measured))

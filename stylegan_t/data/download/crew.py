"""Those who work on a list at the same time: a task for each request, and one for each process that decodes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from yarl import URL

from stylegan_t.data.download.decoder import Decoder, Judgement
from stylegan_t.data.download.fetch import Client, Limits, parse
from stylegan_t.data.download.ledger import Facts, Finished, Ledger
from stylegan_t.data.download.outcomes import Body, Failure, Redirect
from stylegan_t.data.download.pictures import Storage
from stylegan_t.data.download.reasons import SUCCESS
from stylegan_t.data.download.turns import Turn, Turns

AHEAD = 10_000
"""Rows that wait for their turn: so many that hosts take turns, so few that a list may be of any length."""
BATCH, BATCH_BYTES = 32, 1_000_000
"""What a decoder is given at a time at most: to hand a small picture over costs about as much as to look at it."""


class Wanted(NamedTuple):
    """A row to fetch: its number, where from, and the hash of the bytes if it is known."""

    row: int
    url: str
    sha256: str | None


class _Came(NamedTuple):
    """A row whose fetching has ended."""

    turn: Turn
    outcome: Body | Failure


class Crew:
    """Fetches rows into a ledger.

    A row is under way until it is recorded, so that the limit on connections also bounds what waits to be looked at.

    Args:
        done: Told the number of rows that were finished since it was last told.
    """

    def __init__(self, ledger: Ledger, limits: Limits, storage: Storage, done: Callable[[int], None]) -> None:
        self.ledger, self.limits, self.storage, self.done = ledger, limits, storage, done
        self.num_requests = self.num_bytes = 0
        self.statuses: Counter[str] = Counter()

    async def fetch(self, wanted: Iterator[Wanted]) -> None:
        """Record every wanted row. When this is cancelled or fails, what is finished is recorded."""
        self._turns = Turns(self.limits.max_connections, self.limits.max_connections_per_host)
        self._came: asyncio.Queue[_Came] = asyncio.Queue()
        started = time.monotonic()
        try:
            async with Client.opened(self.limits) as client, asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(self._keep()) for _ in range(self.limits.num_decoders)]
                while (turn := await self._next(wanted)) is not None:
                    tasks.create_task(self._request(client, turn))
                await self._came.join()
                for keeper in keepers:
                    keeper.cancel()
        except BaseExceptionGroup as group:  # one task failed, and ended the others
            raise group.exceptions[0] from None
        finally:
            self._write_speed(self.ledger.path, time.monotonic() - started)

    async def _next(self, wanted: Iterator[Wanted]) -> Turn | None:
        while self._turns.num_waiting < AHEAD and (row := next(wanted, None)) is not None:
            url = parse(row.url)
            if url is None:
                await self._refuse(row.row)
            else:
                self._turns.add(Turn(row.row, url, row.sha256))
        return await self._turns.next()

    async def _refuse(self, row: int) -> None:
        self.ledger.add(Finished(Facts(row, "bad_url")))
        self.statuses["bad_url"] += 1
        self.done(1)
        await asyncio.sleep(0)  # there may be many

    async def _request(self, client: Client, turn: Turn) -> None:
        outcome = await client.request(turn.url, lasting=self._turns.many_wait_for(turn.host))
        self.num_requests += 1
        if isinstance(outcome, Redirect):
            outcome = self._follow(turn, outcome.to)
        elif isinstance(outcome, Failure) and outcome.again and turn.attempt < self.limits.max_attempts:
            outcome = self._try_again(turn, outcome)
        if outcome is None:
            self._turns.done(turn)
        else:
            self._came.put_nowait(_Came(turn, outcome))

    def _follow(self, turn: Turn, to: URL) -> Failure | None:
        came_by = (*turn.came_by, turn.url)
        if to in came_by:
            return Failure("redirect_loop")
        if len(came_by) > self.limits.max_redirects:
            return Failure("too_many_redirects")
        self._turns.add(replace(turn, url=to, came_by=came_by), first=True)
        return None

    def _try_again(self, turn: Turn, failure: Failure) -> None:
        seconds = self.limits.backoff_seconds * 2 ** (turn.attempt - 1)
        seconds = min(max(seconds, failure.wait_seconds), self.limits.max_backoff_seconds)
        if failure.wait_seconds:
            self._turns.pause(turn.host, seconds)
        first = turn.came_by[0] if turn.came_by else turn.url
        self._turns.add_later(Turn(turn.row, first, turn.sha256, turn.attempt + 1), seconds)

    async def _keep(self) -> None:
        """Record what comes, with the help of a decoder."""
        decoder = Decoder(self.storage, self.limits.decode_seconds)
        await decoder.start()
        try:
            while True:
                batch = await self._next_batch()
                bodies = [came.outcome.data for came in batch if isinstance(came.outcome, Body)]
                judgements = iter(await decoder.judge(bodies) if bodies else [])
                for came in batch:
                    self._record(came, next(judgements) if isinstance(came.outcome, Body) else None)
                self.done(len(batch))
        finally:
            await decoder.end()

    async def _next_batch(self) -> list[_Came]:
        batch, size = [await self._came.get()], 0
        while not self._came.empty() and len(batch) < BATCH and size < BATCH_BYTES:
            size += len(batch[-1].outcome.data) if isinstance(batch[-1].outcome, Body) else 0
            batch.append(self._came.get_nowait())
        return batch

    def _record(self, came: _Came, judgement: Judgement | None) -> None:
        finished = _finished(came, judgement)
        self.ledger.add(finished)
        self.statuses[finished.facts.status] += 1
        if isinstance(came.outcome, Body):
            self.num_bytes += len(came.outcome.data)
            for loan in came.outcome.loans:
                loan.give_back()
        self._turns.done(came.turn)
        self._came.task_done()

    def _write_speed(self, ledger: Path, seconds: float) -> None:
        """A line for this run beside the ledger: such facts differ from run to run, and belong to no output."""
        facts = {
            "seconds": round(seconds, 3), "requests": self.num_requests, "bytes": self.num_bytes,
            "statuses": dict(sorted(self.statuses.items())),
        }  # fmt: skip
        with speed_file(ledger).open("a") as file:
            file.write(json.dumps(facts) + "\n")


def speed_file(ledger: Path) -> Path:
    """Where the facts of the runs that filled a ledger stand, a JSON object a line."""
    return ledger.with_suffix(".speed.jsonl")


def _finished(came: _Came, judgement: Judgement | None) -> Finished:
    row = came.turn.row
    if isinstance(came.outcome, Failure) or judgement is None:
        assert isinstance(came.outcome, Failure)
        return Finished(Facts(row, came.outcome.reason))
    sha256, kept = judgement
    if came.turn.sha256 not in (None, sha256):
        return Finished(Facts(row, "hash_mismatch"))
    if isinstance(kept, str):
        return Finished(Facts(row, kept, sha256))
    image, ext, *sides = kept
    return Finished(Facts(row, SUCCESS, sha256, ext, *sides), image)

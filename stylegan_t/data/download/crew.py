"""Those who work on a list at the same time: a task for each request, and one for each process that decodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from yarl import URL

from stylegan_t.data.download.decoder import Decoder, Judgement
from stylegan_t.data.download.fetch import Client, Limits, parse
from stylegan_t.data.download.hosts import Hosts
from stylegan_t.data.download.ledger import Facts, Finished, Ledger
from stylegan_t.data.download.outage import Held, Outage
from stylegan_t.data.download.outcomes import Body, Failure, Outcome, Redirect, is_answer
from stylegan_t.data.download.pictures import Storage
from stylegan_t.data.download.reasons import SUCCESS
from stylegan_t.data.download.turns import Turn, Turns

AHEAD = 10_000
"""Rows that wait for their turn: so many that hosts take turns, so few that a list may be of any length."""
BATCH, BATCH_BYTES = 32, 1_000_000
"""What a decoder is given at a time at most: to hand a small picture over costs about as much as to look at it."""
MOST_WAITS = 10
"""Times that a row waits because a server asks for it, beside its attempts."""


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

    A row is under way until it is recorded, so that the limit on connections also bounds what waits to be looked at;
    but for one that reaches nobody, which may wait (see ``Outage``).

    Args:
        done: Told the number of rows that were finished since it was last told.
    """

    def __init__(self, ledger: Ledger, limits: Limits, storage: Storage, done: Callable[[int], None]) -> None:
        self.ledger, self.limits, self.storage, self.done = ledger, limits, storage, done

    async def fetch(self, wanted: Iterator[Wanted], answered: Sequence[str] = ()) -> None:
        """Record every wanted row. When this is cancelled or fails, what is finished is recorded.

        Rows that reached nobody are no result then, until somebody answered (see ``Outage``).

        Args:
            answered: Addresses that answered in an earlier run.

        Raises:
            Unreachable: The network here seems to be down.
        """
        self._turns, self._hosts = Turns(self.limits.max_connections, self.limits.max_connections_per_host), Hosts()
        self._outage = Outage(self.limits, self._record_unreached, [url for url in map(parse, answered) if url])
        self._came: asyncio.Queue[_Came] = asyncio.Queue()
        try:
            async with Client.opened(self.limits) as client, asyncio.TaskGroup() as tasks:
                keepers = [tasks.create_task(self._keep()) for _ in range(self.limits.num_decoders)]
                while (turn := await self._next(wanted)) is not None:
                    tasks.create_task(self._request(client, turn))
                await self._came.join()
                self._outage.settle()
                for keeper in keepers:
                    keeper.cancel()
        except BaseExceptionGroup as group:  # one task failed, and ended the others
            raise group.exceptions[0] from None

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
        self.done(1)
        await asyncio.sleep(0)  # there may be many

    async def _request(self, client: Client, turn: Turn) -> None:
        outcome = self._hosts.given_up(turn.host) or await self._ask(client, turn)
        if isinstance(outcome, Failure) and outcome.is_unreached:
            await self._outage.hold(Held(turn, outcome))
        elif outcome is not None:
            self._came.put_nowait(_Came(turn, outcome))
            return
        self._turns.done(turn)

    async def _ask(self, client: Client, turn: Turn) -> Body | Failure | None:
        """What a row comes to; None where that takes another request."""
        doubted = self._hosts.is_doubted(turn.host)
        outcome = await client.request(turn.url, lasting=self._turns.many_wait_for(turn.host))
        self._learn(turn, outcome)
        if isinstance(outcome, Redirect):
            return self._follow(turn, outcome.to)
        if isinstance(outcome, Body) or not outcome.again:
            return outcome
        return self._try_again(turn, outcome, 1 if doubted else self.limits.max_attempts)

    def _learn(self, turn: Turn, outcome: Outcome) -> None:
        """What an outcome tells of its host."""
        if is_answer(outcome):
            self._outage.answered(turn.url)
        if isinstance(outcome, Failure) and outcome.wait_seconds:
            if self._turns.pause(turn.host, self._wait_seconds(turn, outcome)):  # else it was under way when that began
                self._hosts.asked_in_vain(turn.host, outcome)
        elif isinstance(outcome, Failure) and outcome.is_silence:
            self._hosts.asked_in_vain(turn.host, outcome)
        elif is_answer(outcome):
            self._hosts.answered(turn.host)
            if not isinstance(outcome, Failure):
                self._turns.relax(turn.host)

    def _follow(self, turn: Turn, to: URL) -> Failure | None:
        came_by = (*turn.came_by, turn.url)
        if to in came_by:
            return Failure("redirect_loop")
        if len(came_by) > self.limits.max_redirects:
            return Failure("too_many_redirects")
        self._turns.add(replace(turn, url=to, came_by=came_by), first=True)
        return None

    def _try_again(self, turn: Turn, failure: Failure, max_attempts: int) -> Failure | None:
        """Let a row be tried later; gives its failure back where it has been tried enough."""
        if failure.wait_seconds and turn.waits < MOST_WAITS:
            later = replace(turn, waits=turn.waits + 1)
        elif turn.attempt < max_attempts:
            later = replace(turn, attempt=turn.attempt + 1)
        else:
            return failure
        first = turn.came_by[0] if turn.came_by else turn.url
        self._turns.add_later(replace(later, url=first, came_by=()), self._wait_seconds(turn, failure))
        return None

    def _wait_seconds(self, turn: Turn, failure: Failure) -> float:
        seconds = self.limits.backoff_seconds * 2 ** (turn.attempt - 1)
        return min(max(seconds, failure.wait_seconds), self.limits.max_backoff_seconds)

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
        self.ledger.add(_finished(came, judgement))
        if isinstance(came.outcome, Body):
            came.outcome.give_back()
        self._turns.done(came.turn)
        self._came.task_done()

    def _record_unreached(self, held: Sequence[Held]) -> None:
        for row in held:
            self.ledger.add(Finished(Facts(row.turn.row, row.failure.reason)))
        self.done(len(held))


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

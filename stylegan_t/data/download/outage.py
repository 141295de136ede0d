"""Whether it is us: rows that reach nobody are no result while the network here may be down."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from yarl import URL

from stylegan_t.data.download.fetch import Client, Limits
from stylegan_t.data.download.outcomes import Body, Failure, is_answer
from stylegan_t.data.download.turns import Turn
from stylegan_t.errors import Unreachable

MOST_REMEMBERED = 3
"""Addresses that answered last: they are asked again where it is not clear whose the trouble is."""


class Held(NamedTuple):
    """A row that reached nobody."""

    turn: Turn
    failure: Failure


class Outage:
    """Holds back rows that reached nobody, and of ``limits.max_unreached`` finds out whether it is their hosts' fault.

    That others answer meanwhile would not tell: their names and connections may be from before. Nor would silence: a
    part ends with its dead hosts, whose rows take longest. So one that answered lately is asked again, as if by a
    stranger.

    Args:
        record: Told the rows that may be recorded.
        answered: Addresses that answered in an earlier run.
    """

    def __init__(self, limits: Limits, record: Callable[[list[Held]], None], answered: Iterable[URL]) -> None:
        self.limits, self._record = limits, record
        self._held: list[Held] = []
        self._answered = deque(answered, MOST_REMEMBERED)
        self._somebody_answered = asyncio.Event()
        if self._answered:
            self._somebody_answered.set()

    def answered(self, url: URL) -> None:
        """Somebody answered there."""
        self._answered.append(url)
        self._somebody_answered.set()

    async def hold(self, row: Held) -> None:
        """Hold a row back that reached nobody, or record it.

        Whoever brings the last of so many has to wait for the verdict, with its turn, so that the download goes on.

        Raises:
            Unreachable: So many are held back, and nobody answers for as long as a request may take.
        """
        self._held.append(row)
        if self.limits.max_unreached is None:
            self.settle()
        elif len(self._held) >= self.limits.max_unreached:
            held, self._held = self._held, []
            if not await self._somebody_answers():
                raise _unreachable(held)
            self._record(held)

    def settle(self) -> None:
        """Record what is held back."""
        if self._held:
            held, self._held = self._held, []
            self._record(held)

    async def _somebody_answers(self) -> bool:
        """Whether one of those who answered does so now; or of a part in which nobody did yet, the first who will."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.total_seconds), Client.opened(self.limits) as stranger:
                await self._somebody_answered.wait()
                for url in {url.raw_host: url for url in self._answered}.values():
                    outcome = await stranger.request(url, lasting=False)
                    if isinstance(outcome, Body):
                        outcome.give_back()
                    if is_answer(outcome):
                        return True
        return False


def _unreachable(held: list[Held]) -> Unreachable:
    hosts, reasons = {row.turn.host for row in held}, Counter(row.failure.reason for row in held)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return Unreachable(
        f"download: {len(held)} rows reached nobody ({told}; hosts: {len(hosts)}, as {held[-1].turn.host}), and no "
        "other host answers; none of these rows counts as done. Look at the network of this machine, then run the same "
        "command again: it goes on. If these hosts are really gone, set download.fetching.max_unreached = null first"
    )

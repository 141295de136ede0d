"""An amount that many share: whoever needs some of it waits until there is enough."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple


class Budget:
    """Bytes that may be held at a time, given out in the order in which they were asked for.

    Each asks once, for all that it needs, and gives it back: nobody waits while holding something, so that all get on.

    Args:
        total: What there is. Who asks for more waits until all is back, and gets all.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, amount: int) -> int | None:
        """What has to be given back; None where one has to wait for ``amount``."""
        amount = min(amount, self.total)
        if self._waiting or amount > self.free:
            return None
        self.free -= amount
        return amount

    async def take(self, amount: int) -> int:
        """Wait for ``amount``; returns what has to be given back."""
        if (taken := self.take_now(amount)) is not None:
            return taken
        amount = min(amount, self.total)
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, given))
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.give_back(amount)
            raise
        return amount

    def give_back(self, amount: int) -> None:
        """Return what ``take`` returned."""
        self.free += amount
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self.free):
            amount, given = self._waiting.popleft()
            if not given.cancelled():
                self.free -= amount
                given.set_result(None)


class Loan(NamedTuple):
    """A part of a budget, to be returned once."""

    budget: Budget
    amount: int

    def give_back(self) -> None:
        self.budget.give_back(self.amount)

"""Whose turn it is: requests by host, a few at a time for each, all hosts in rotation.

A list often has long runs of one host. Taken in its order, all connections would soon wait for that host; here a
request waits in its own host's queue and holds nothing else up.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass

from yarl import URL


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to make.

    Attributes:
        row: The row of the list that it is for.
        url: What to ask for now.
        sha256: What the bytes must hash to, in hex; None where nobody knows.
        attempt: 1 for the first time that the row is tried.
        waits: How often a server asked to come later; that is no attempt.
        came_by: The addresses that redirected here, the row's own first.
    """

    row: int
    url: URL
    sha256: str | None = None
    attempt: int = 1
    waits: int = 0
    came_by: tuple[URL, ...] = ()

    @property
    def host(self) -> str:
        return self.url.raw_host or ""


class Turns:
    """Requests that wait, and how many are under way.

    Args:
        at_once: Most requests under way.
        per_host: Most requests under way to one host.
    """

    def __init__(self, at_once: int, per_host: int) -> None:
        self.at_once, self.per_host = at_once, per_host
        self.num_under_way = self.num_waiting = 0
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[Turn]] = {}
        self._paused: dict[str, float] = {}
        self._share: dict[str, int] = {}
        """Most requests under way to a host that was asked too much; of others it is ``per_host``."""
        self._ready: deque[str] = deque()
        """Hosts that someone waits for and that can take a request, each once."""
        self._is_ready: set[str] = set()
        self._later: list[tuple[float, int, Turn | str]] = []
        """A heap: when a turn is due, or when a host's pause ends."""
        self._number = itertools.count()
        self._changed = asyncio.Event()

    def add(self, turn: Turn, first: bool = False) -> None:
        """Let a request wait for its turn, as the last or the first of its host's."""
        waiting = self._waiting.setdefault(turn.host, deque())
        (waiting.appendleft if first else waiting.append)(turn)
        self.num_waiting += 1
        self._consider(turn.host)

    def add_later(self, turn: Turn, seconds: float) -> None:
        """Let a request wait, but not before so many seconds have passed."""
        self._push(asyncio.get_running_loop().time() + seconds, turn)

    def pause(self, host: str, seconds: float) -> bool:
        """Ask nothing of a host for so many seconds, then half as much at a time: it said that it is asked too much.

        Returns:
            Whether a pause begins; else the host has one, which now lasts so long at least.
        """
        until, begins = asyncio.get_running_loop().time() + seconds, host not in self._paused
        if begins:
            self._share[host] = max(1, self._share.get(host, self.per_host) // 2)
        if until > self._paused.get(host, 0):
            self._paused[host] = until
            self._push(until, host)
        return begins

    def relax(self, host: str) -> None:
        """Ask one request more at a time, up to ``per_host``, of a host that was paused: it gave what was asked for."""
        if host in self._share and host not in self._paused:
            self._share[host] += 1
            if self._share[host] >= self.per_host:
                del self._share[host]

    def done(self, turn: Turn) -> None:
        """A request is no longer under way. Whatever comes of it has to be added before."""
        self.num_under_way -= 1
        self._under_way[turn.host] -= 1
        if not self._under_way[turn.host]:
            del self._under_way[turn.host]
        self._consider(turn.host)
        self._changed.set()

    def many_wait_for(self, host: str) -> bool:
        """Whether a host has more to do than may be under way: it will be asked again at once."""
        return len(self._waiting.get(host, ())) >= self.per_host

    async def next(self) -> Turn | None:
        """The next request to make, as soon as there may be one more; None when all are done."""
        while True:
            self._wake_those_due()
            if self.num_under_way < self.at_once and (turn := self._take()) is not None:
                return turn
            if not (self.num_under_way or self.num_waiting or self._later):
                return None
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._later[0][0] if self._later else None):
                    await self._changed.wait()

    def _take(self) -> Turn | None:
        while self._ready:
            host = self._ready.popleft()
            self._is_ready.remove(host)
            if host in self._paused:  # it will be considered again when the pause ends
                continue
            waiting = self._waiting[host]
            turn = waiting.popleft()
            if not waiting:
                del self._waiting[host]
            self.num_waiting -= 1
            self.num_under_way += 1
            self._under_way[host] += 1
            self._consider(host)
            return turn
        return None

    def _consider(self, host: str) -> None:
        if host in self._is_ready or host not in self._waiting or host in self._paused:
            return
        if self._under_way[host] < self._share.get(host, self.per_host):
            self._ready.append(host)
            self._is_ready.add(host)

    def _wake_those_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, _, what = heapq.heappop(self._later)
            if isinstance(what, Turn):
                self.add(what, first=True)
            elif self._paused.get(what) == due:
                del self._paused[what]
                self._consider(what)

    def _push(self, when: float, what: Turn | str) -> None:
        heapq.heappush(self._later, (when, next(self._number), what))
        self._changed.set()

"""Names of hosts made addresses, once for all who ask, remembered for a while, and never waited for too long."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

MOST_AT_ONCE = 64
"""Lookups under way: each is a thread that mostly waits."""
PASSING_SECONDS = 1.0
"""How long a passing failure is remembered: not until the row is tried again."""


@dataclass
class _Known:
    answer: asyncio.Future[list[Any] | OSError]
    until: float = math.inf


class Names(AbstractResolver):
    """What aiohttp asks for addresses.

    The system's resolver blocks its thread for as long as it likes, half a minute for a dead name server. Here each
    lookup has a thread that nobody waits for at exit; failures are remembered like addresses, so that a thousand links
    to a dead host cost one lookup.

    Args:
        cache_seconds: How long an answer is remembered.
        wait_seconds: How long to wait for one.
    """

    def __init__(self, cache_seconds: float, wait_seconds: float) -> None:
        self.cache_seconds, self.wait_seconds = cache_seconds, wait_seconds
        self._known: dict[str, _Known] = {}
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        """All addresses of a host. Raises OSError (``socket.gaierror``) where there is none, TimeoutError included."""
        known = self._known.get(host)
        if known is None or known.until < asyncio.get_running_loop().time():
            known = self._known[host] = _Known(asyncio.ensure_future(self._ask(host)))
        answer = await asyncio.shield(known.answer)  # who gives up leaves the others waiting
        if isinstance(answer, OSError):
            raise answer
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=found, proto=proto, flags=0)
            for found, _, proto, _, address in answer
            if family in (socket.AF_UNSPEC, found)
        ]

    async def close(self) -> None:
        """Nothing is open."""

    async def _ask(self, host: str) -> list[Any] | OSError:
        answer = await self._look_up(host)
        passing = isinstance(answer, OSError) and is_passing(answer)
        seconds = min(PASSING_SECONDS, self.cache_seconds) if passing else self.cache_seconds
        self._known[host].until = asyncio.get_running_loop().time() + seconds
        return answer

    async def _look_up(self, host: str) -> list[Any] | OSError:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any] | OSError] = loop.create_future()

        def settle(found: list[Any] | OSError) -> None:
            if not answer.done():
                answer.set_result(found)

        def look_up() -> None:
            found = _addresses(host)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        async with self._free:
            threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
            try:
                return await asyncio.wait_for(answer, self.wait_seconds)
            except TimeoutError:
                return socket.gaierror(socket.EAI_AGAIN, f"no answer within {self.wait_seconds} s")


def is_passing(error: OSError) -> bool:
    """Whether a lookup failed for now only: no name server answered."""
    return error.errno == socket.EAI_AGAIN


def _addresses(host: str) -> list[Any] | OSError:
    try:
        return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as error:
        return error
    except UnicodeError as error:  # a label that is empty or too long for the domain name system
        return socket.gaierror(socket.EAI_NONAME, str(error))

"""One request: its bytes, where it was redirected to, or why it failed; always within a known time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from yarl import URL

from stylegan_t.data.download.addresses import Gate
from stylegan_t.data.download.budget import Budget, Loan
from stylegan_t.data.download.headers import is_svg_type, may_be_picture, opted_out, retry_after_seconds
from stylegan_t.data.download.names import Names
from stylegan_t.data.download.outcomes import EXPECTED, Body, Failure, Outcome, Redirect, explain
from stylegan_t.data.download.reasons import http

REDIRECTS = frozenset({301, 302, 303, 307, 308})
ACCEPT = "image/jpeg, image/png, image/*;q=0.8, */*;q=0.1"
"""Some servers make a poorer copy in a newer format for whoever says that it may be any."""
READY = re.compile(
    r"(?P<site>https?://[^/?#]+)(?![^?#]*/(?:\.|%2e){1,2}(?:[/?#]|$))"
    r"(?P<rest>(?:[/?](?:[!$&-;=?-\[\]_a-z~]|%[0-9a-f]{2})*)?)(?:#[!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
"""An address that can be sent as it stands: its path leads nowhere up, and all in it that must be quoted is."""
FIRST_BYTES = 1_000_000
"""Memory set aside for a body whose length the server does not tell; most have less."""


@dataclass(frozen=True)
class Limits:
    """By whom, how fast, how patiently and how far a list is fetched.

    Attributes:
        user_agent: What the servers are told.
        max_connections, max_connections_per_host: At a time.
        dns_cache_seconds: How long a host's addresses, or that it has none, are remembered.
        connect_seconds: For the host's address, and again for the connection.
        read_seconds: Of silence in an answer.
        total_seconds: For a request from its start to its last byte; a redirect is a request of its own.
        max_attempts: Times that a row is tried in all.
        backoff_seconds: Before the second time; doubled for each further one.
        max_backoff_seconds: Longest wait, also where a server asks for more.
        max_unreached: Rows that may reach nobody before one looks whether the network here is down; None = any number.
        max_redirects: Of a row.
        max_bytes: Of a picture.
        max_held_bytes: Of all pictures in memory; at least twice ``max_bytes``.
        allowed_networks: That may be connected to although they are not public.
        opt_outs: Directives of X-Robots-Tag that are honoured.
        opt_out_agents: Names under which such a directive means us.
        num_decoders: Processes that look at what has come.
        decode_seconds: Longest that one may look at a picture.
    """

    user_agent: str
    max_connections: int
    max_connections_per_host: int
    dns_cache_seconds: float
    connect_seconds: float
    read_seconds: float
    total_seconds: float
    max_attempts: int
    backoff_seconds: float
    max_backoff_seconds: float
    max_unreached: int | None
    max_redirects: int
    max_bytes: int
    max_held_bytes: int
    allowed_networks: list[str]
    opt_outs: list[str]
    opt_out_agents: list[str]
    num_decoders: int
    decode_seconds: float


class Client:
    """Makes requests within the limits. Use ``opened``."""

    def __init__(self, lasting: aiohttp.ClientSession, passing: aiohttp.ClientSession, limits: Limits) -> None:
        self._lasting, self._passing, self.limits = lasting, passing, limits
        self.long_bodies = Budget(limits.max_bytes)
        """Of bodies of unknown length beyond ``FIRST_BYTES``, one by one: two that grow could wait for each other."""
        self.memory = Budget(limits.max_held_bytes - limits.max_bytes)
        self._opt_outs = [directive.lower() for directive in limits.opt_outs]
        self._agents = [agent.lower() for agent in limits.opt_out_agents]

    @classmethod
    @asynccontextmanager
    async def opened(cls, limits: Limits) -> AsyncIterator[Client]:
        """A client whose connections close at the end.

        It keeps no cookies, reads no proxy and no password from the environment, and decompresses nothing: a picture
        needs none of it, and a stranger's server could use each.
        """
        names, gate = Names(limits.dns_cache_seconds, limits.connect_seconds), Gate(limits.allowed_networks)
        patience = aiohttp.ClientTimeout(
            total=None, sock_connect=limits.connect_seconds, sock_read=limits.read_seconds, ceil_threshold=60
        )

        def session(lasting: bool) -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(
                limit=0,  # whoever asks knows how many requests are under way, and does so by host
                force_close=not lasting, use_dns_cache=False, resolver=names, socket_factory=gate.make_socket,
            )  # fmt: skip
            return aiohttp.ClientSession(
                connector=connector, timeout=patience, auto_decompress=False, trust_env=False,
                headers={"User-Agent": limits.user_agent, "Accept": ACCEPT, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )  # fmt: skip

        async with session(lasting=True) as lasting, session(lasting=False) as passing:
            yield cls(lasting, passing, limits)

    async def request(self, url: URL, lasting: bool = True) -> Outcome:
        """Ask for ``url`` once.

        Args:
            lasting: Keep the connection open for a while: its host will soon be asked again. For each of a million
                hosts, that would be too many.
        """
        session = self._lasting if lasting else self._passing
        try:
            async with (
                asyncio.timeout(self.limits.total_seconds) as deadline,
                session.get(url, allow_redirects=False) as answer,
            ):
                return self._verdict(answer) or await self._read(answer, deadline)
        except EXPECTED as error:
            return explain(error)

    def _verdict(self, answer: aiohttp.ClientResponse) -> Redirect | Failure | None:
        """What the headers settle; None where the body is wanted."""
        headers = answer.headers
        redirected = answer.status in REDIRECTS and "Location" in headers
        if answer.status != HTTPStatus.OK and not redirected:
            wait = retry_after_seconds(headers.get("Retry-After"))
            return Failure(http(answer.status), again=deserves_another_try(answer.status), wait_seconds=wait)
        if opted_out(headers.getall("X-Robots-Tag", ()), self._opt_outs, self._agents):
            return Failure("opted_out")
        return redirect(answer.url, headers["Location"]) if redirected else self._objection(answer)

    def _objection(self, answer: aiohttp.ClientResponse) -> Failure | None:
        """Why the body of an answer is not wanted, before a byte of it is read."""
        headers = answer.headers
        content_type = headers.get("Content-Type")
        if is_svg_type(content_type):
            return Failure("svg")
        if not may_be_picture(content_type):
            return Failure("wrong_type")
        if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            return Failure("wrong_encoding")
        if (answer.content_length or 0) > self.limits.max_bytes:
            return Failure("too_large")
        return None

    async def _read(self, answer: aiohttp.ClientResponse, deadline: asyncio.Timeout) -> Body | Failure:
        known, loans, data = answer.content_length, [], None
        try:
            await self._borrow(self.memory, FIRST_BYTES if known is None else known, loans, deadline)
            data = await (answer.read() if known is not None else self._read_on(answer, loans, deadline))
        finally:
            if data is None:
                for loan in loans:
                    loan.give_back()
        return Failure("too_large") if data is None else Body(data, loans)

    async def _read_on(
        self, answer: aiohttp.ClientResponse, loans: list[Loan], deadline: asyncio.Timeout
    ) -> bytes | None:
        """A body of unknown length; None as soon as it is too long."""
        parts, size = [], 0
        async for part in answer.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self.limits.max_bytes:
                return None
            if size > FIRST_BYTES and len(loans) == 1:
                await self._borrow(self.long_bodies, self.limits.max_bytes, loans, deadline)
        return b"".join(parts)

    async def _borrow(self, budget: Budget, amount: int, loans: list[Loan], deadline: asyncio.Timeout) -> None:
        """Wait for memory. How long that takes is not the server's fault: its time stands still meanwhile."""
        taken = budget.take_now(amount)
        if taken is None:
            clock, due = asyncio.get_running_loop().time, deadline.when()
            assert due is not None
            left = due - clock()
            deadline.reschedule(None)
            taken = await budget.take(amount)
            deadline.reschedule(clock() + left)
        loans.append(Loan(budget, taken))


def parse(url: str, base: URL | None = None) -> URL | None:
    """An address that may be asked for: http or https, a host, no user name; None for any other.

    What follows the host is asked for as it was written, because some servers sign that very text; it is quoted anew
    only where it cannot be sent so.

    Args:
        base: Where a Location header stood that gave ``url``.
    """
    try:
        text = str(base.join(URL(url.strip(), encoded=True))) if base else url.strip()
        ready = READY.fullmatch(text)
        parsed = URL(ready["site"] if ready else text)
        named = parsed.raw_user is not None or parsed.raw_password is not None
        if named or parsed.scheme not in ("http", "https") or not parsed.raw_host or not parsed.port:
            return None
    except (ValueError, IndexError):  # yarl's, the latter about odd brackets
        return None
    if ready:
        return URL(f"{parsed}{ready['rest']}", encoded=True)
    return parsed.with_fragment(None) if parsed.raw_fragment else parsed


def redirect(base: URL, location: str) -> Redirect | Failure:
    """Where a Location header leads from ``base``."""
    to = parse(location, base)
    return Failure("bad_url") if to is None else Redirect(to)


def deserves_another_try(status: int) -> bool:
    """Whether a status tells of a passing trouble: the server's own, or too many requests."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
        HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS,
    )  # fmt: skip

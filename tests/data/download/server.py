"""A server on this machine that misbehaves as told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Self

Handler = Callable[["Visit"], Awaitable[None]]
RESET_AT_ONCE = struct.pack("ii", 1, 0)
TLS_HELLO = b"\x16"


class Visit:
    """One request, and the means to answer it in any way."""

    def __init__(self, path: str, headers: dict[str, str], times: int, writer: asyncio.StreamWriter) -> None:
        self.path, self.headers, self.times, self.writer = path, headers, times, writer
        """``times``: how often the path has been asked for, this time included."""
        self.keeps_connection = True

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes = b"", content_type: str = "image/jpeg", status: int = 200, headers: str = "",
        length: int | None = None,
    ) -> None:  # fmt: skip
        """A whole answer, or one whose Content-Length is ``length``. ``headers``: further ones, a line each."""
        lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"Content-Type: {content_type}"] if content_type else []
        lines += headers.splitlines()
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def redirect(self, to: str, status: int = 302) -> None:
        await self.answer(status=status, content_type="text/html", headers=f"Location: {to}")

    def hang_up(self) -> None:
        self.keeps_connection = False

    def reset(self) -> None:
        """End the connection as a crashed server's machine does."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
        self.writer.transport.abort()
        self.hang_up()


class Server:
    """Runs in a thread while entered.

    Attributes:
        handlers: What answers a path.
        log: Paths in the order in which they were asked for.
        most_at_once: Most requests to a host name that were under way at the same time.
    """

    def __init__(self, handlers: dict[str, Handler] | None = None, otherwise: Handler | None = None) -> None:
        self.handlers = handlers or {}
        self.otherwise = otherwise
        self.log: list[str] = []
        self.headers: dict[str, dict[str, str]] = {}
        self.num_connections = 0
        self.most_at_once: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready, self._stop = threading.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while await self._visited(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == TLS_HELLO:  # what a server without TLS does
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split(" ")[1]
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        host = headers["host"].partition(":")[0]
        self.log.append(path)
        self.headers[path] = headers
        self._at_once[host] += 1
        self.most_at_once[host] = max(self.most_at_once[host], self._at_once[host])
        visit = Visit(path, headers, self.log.count(path), writer)
        handler = self.handlers.get(path) or self.otherwise
        try:
            if handler is None:
                await visit.answer(b"nothing here", "text/plain", status=404)
            else:
                await handler(visit)
        finally:
            self._at_once[host] -= 1
        return visit.keeps_connection


def always(body: bytes = b"", content_type: str = "image/jpeg", status: int = 200, headers: str = "") -> Handler:
    """The same answer each time."""

    async def handler(visit: Visit) -> None:
        await visit.answer(body, content_type, status, headers)

    return handler


def moved(to: str, status: int = 302) -> Handler:
    """A redirect each time."""

    async def handler(visit: Visit) -> None:
        await visit.redirect(to, status)

    return handler

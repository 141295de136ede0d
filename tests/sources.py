"""Small sources to read from, and what comes out of one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stylegan_t.data.shards import Sample, Skipped
from stylegan_t.data.sources.base import Source

Answer = Callable[[str], bytes | int]
Headers = Callable[[Message], dict[str, str]]
"""Of the answer, by those of the question."""


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parts_of(source: Source, work: Path) -> list[list[Sample | Skipped]]:
    """The pairs of each part, as whoever makes it gets them; the counts that it tells must be right."""
    parts = []
    for part in range(source.plan(work)):
        told: list[int] = []
        parts.append(list(source.pairs(part, work, told.append)))
        assert sum(told) >= sum(isinstance(pair, Sample) for pair in parts[-1])
    return parts


def all_of(source: Source, work: Path) -> tuple[list[Sample], dict[str, str]]:
    """All samples, and the reason for each candidate that is none, by its key."""
    pairs = [pair for part in parts_of(source, work) for pair in part]
    samples = [pair for pair in pairs if isinstance(pair, Sample)]
    return samples, {pair.key: pair.reason for pair in pairs if isinstance(pair, Skipped)}


@contextmanager
def serve(answer: Answer, headers: Headers = lambda _: {}) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine: its address, and the paths that it was asked for; an int is a status without a body."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = answer(self.path)
            self.send_response(200 if isinstance(body, bytes) else body)
            body = body if isinstance(body, bytes) else b""
            for name, value in {"Content-Length": str(len(body)), **headers(self.headers)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                asked.append(self.path)
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""As much of S3 as reading needs, on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs


@contextmanager
def bucket_of(folder: Path) -> Iterator[str]:
    """A server whose only bucket, called bucket, holds a folder's files: its list, and parts of them."""

    class Bucket(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            place, _, query = self.path.partition("?")
            file = folder / place.removeprefix("/bucket").strip("/")
            if "list-type=2" in query:
                row = "<Contents><Key>{}</Key><Size>{}</Size></Contents>"
                prefix = parse_qs(query).get("prefix", [""])[0]
                files = [each for each in sorted(folder.iterdir()) if each.name.startswith(prefix)]
                rows = "".join(row.format(each.name, each.stat().st_size) for each in files)
                self.answer(
                    200, f"<ListBucketResult>{rows}<IsTruncated>false</IsTruncated></ListBucketResult>".encode()
                )
            elif not file.is_file():
                self.answer(404, b"")
            else:
                first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
                data = file.read_bytes()[int(first) : int(last) + 1 if last else None]
                self.answer(206 if "Range" in self.headers else 200, data)

        do_HEAD = do_GET

        def answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()

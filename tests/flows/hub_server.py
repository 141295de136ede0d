"""A Hugging Face hub in miniature: repositories that take commits and tags, as HfApi asks for them. No Xet."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_miniature"


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON for a request."""
        for wanted, pattern, action in (
            ("POST", r"/api/repos/create", self.create),
            ("POST", r"/api/validate-yaml", lambda body: (200, {"errors": [], "warnings": []})),
            ("POST", r"/api/models/(?P<name>.+)/preupload/main", self.preupload),
            ("POST", r"/(?P<name>.+)\.git/info/lfs/objects/batch", self.batch),
            ("PUT", r"/objects/(?P<oid>\w+)", self.store),
            ("POST", r"/api/models/(?P<name>.+)/commit/main", self.commit),
            ("POST", r"/api/models/(?P<name>.+)/tag/(?P<revision>\w+)", self.tag),
        ):
            if method == wanted and (found := re.fullmatch(pattern, path)):
                return action(body=body, **found.groupdict())
        return 404, {"error": f"{method} {path}: not in the miniature"}

    def create(self, body: bytes) -> tuple[int, dict[str, Any]]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name.startswith("somebody-else/"):
            return 403, {"error": "You don't have the rights to create a model under the namespace"}
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, Repository(asked.get("private", asked.get("visibility") == "private")))
        return status, {"url": f"{self.url}/{name}", "name": name}

    def preupload(self, body: bytes, name: str) -> tuple[int, dict[str, Any]]:
        modes = [
            {"path": f["path"], "shouldIgnore": False, "oid": None}
            | {"uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
            for f in json.loads(body)["files"]
        ]
        return 200, {"files": modes}

    def batch(self, body: bytes, name: str) -> tuple[int, dict[str, Any]]:
        objects = [
            each | {"actions": {"upload": {"href": f"{self.url}/objects/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def store(self, body: bytes, oid: str) -> tuple[int, dict[str, Any]]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "these are other bytes"}
        self.objects[oid] = body
        return 200, {}

    def commit(self, body: bytes, name: str) -> tuple[int, dict[str, Any]]:
        repository = self.repositories[name]
        for line in map(json.loads, body.splitlines()):
            match line:
                case {"key": "header", "value": {"summary": summary}}:
                    oid = hashlib.sha1(body).hexdigest()
                    repository.commits[oid] = summary
                case {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}}:
                    repository.files[path] = base64.b64decode(content)
                case {"key": "lfsFile", "value": {"path": path, "oid": stored}}:
                    repository.files[path] = self.objects[stored]
                case _:
                    return 400, {"error": f"{line}: not in the miniature"}
        address = f"{self.url}/{name}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": address, "hookOutput": ""}

    def tag(self, body: bytes, name: str, revision: str) -> tuple[int, dict[str, Any]]:
        repository, tag = self.repositories[name], json.loads(body)["tag"]
        if tag in repository.tags:
            return 409, {"error": "exists"}
        assert revision in repository.commits
        repository.tags[tag] = revision
        return 200, {}


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub at a port of its own, which knows who has ``TOKEN`` and nobody else."""
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = self.path.startswith("/objects/") or self.headers.get("Authorization") == f"Bearer {TOKEN}"
            answer = served.answer(self.command, self.path, body) if known else (401, {"error": "who are you?"})
            text = json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            if "error" in answer[1]:
                self.send_header("X-Error-Message", answer[1]["error"])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET = do_HEAD = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()

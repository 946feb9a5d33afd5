"""A stand-in on this machine for the hub's data sets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

FIRST, SECOND = "1" * 40, "2" * 40
"""Two commits."""


class StandIn:
    """The little of the hub that fetching takes: what a revision is, its files, and their bytes."""

    def __init__(self) -> None:
        self.branches = {"main": FIRST}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, Any, dict[str, str]]:
        self.asked.append(path)
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[:2] == ["api", "datasets"] and parts[2:4] == ["org", "name"]:
            return self._facts(*parts[4:6])
        if parts[:4] == ["datasets", "org", "name", "resolve"]:
            data = self.commits[parts[4]].get("/".join(parts[5:]))
            if data is not None:
                return 200, data, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": parts[4]}
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    def _facts(self, what: str = "revision", revision: str = "main") -> tuple[int, Any, dict[str, str]]:
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        files = self.commits[commit]
        if what == "tree":
            return (
                200,
                [
                    {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
                    for name, data in files.items()
                ],
                {},
            )
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        return 200, {"id": "org/name", "sha": commit, "siblings": siblings, "tags": [], "private": False}, {}


@contextmanager
def served(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Has the hub's library ask a stand-in, with a cache of its own."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = hub.answer(self.path)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    resolve = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()

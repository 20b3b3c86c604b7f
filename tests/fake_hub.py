"""A Hub on loopback: the routes that huggingface_hub and dgemma use, with faults to order.

with FakeHub() as hub:
    hub.add("tiny/bf16", {"config.json": b"...", ...})
    hub.faults.append(Fault("model.safetensors", cut=1000, times=1))
    ...HF_ENDPOINT=hub.url...
    hub.served["model.safetensors"]   # bytes of it that were sent
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_fake"  # the only one that is accepted
_PIECE = 8192


@dataclass
class Fault:
    """What goes wrong with requests whose path contains ``path``, the first ``times`` of them.

    status: answered instead, with ``headers``. cut: the connection breaks after this many bytes of the body.
    corrupt: the bytes differ. short: the file ends this many bytes early, properly announced. no_ranges: a range is
    answered with the whole file. rate: bytes a second. redirect: the file is at this other Hub. silent: no byte comes.
    """

    path: str
    times: int = 1_000_000
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    corrupt: bool = False
    short: int = 0
    no_ranges: bool = False
    rate: float | None = None
    redirect: str | None = None
    silent: bool = False


@dataclass
class Repository:
    """files by commit and name; commits by revision. gated and private: only TOKEN (and ``accepted``) gets in."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    accepted: bool = True


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]


class FakeHub:
    """url: what HF_ENDPOINT is to be. served: bytes sent of each file. asked: the requests so far."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.served: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Publish ``files`` as the newest commit of a revision. Returns the commit."""
        repository = self.repositories.setdefault(name, Repository())
        seed = json.dumps([name, revision, {file: _sha256(data) for file, data in sorted(files.items())}])
        commit = hashlib.sha1(seed.encode()).hexdigest()
        repository.files[commit] = dict(files)
        repository.revisions[revision] = commit
        return commit

    def total_served(self) -> int:
        """Bytes of files sent so far."""
        with self.lock:
            return sum(self.served.values())

    def fault(self, path: str) -> Fault:
        """The fault to apply to a request now: an empty one if there is none."""
        with self.lock:
            for fault in self.faults:
                if fault.path in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault("")


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)  # absolute, when this stands in for a proxy
        path = unquote(parts.path)
        with self.hub.lock:
            self.hub.asked.append(Asked(self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        fault = self.hub.fault(path)
        try:
            if fault.status is not None:
                self._send(fault.status, b"{}", dict(fault.headers))
            elif path == "/api/models":
                owner = parse_qs(parts.query).get("author", [""])[0]
                self._json([{"id": name} for name in self.hub.repositories if name.startswith(f"{owner}/")])
            elif path.startswith("/api/models/"):
                owner, name, kind, *rest = [*path.removeprefix("/api/models/").split("/"), ""]
                self._api(f"{owner}/{name}", kind, "/".join(rest).rstrip("/"))
            elif path.count("/") >= 5 and path.split("/")[3] == "resolve":
                _, owner, name, _, revision, file = path.split("/", 5)
                self._file(f"{owner}/{name}", revision, file, fault)
            else:
                self._send(404, b"", {})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _admit(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if "Authorization" in self.headers and not known:
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository is None or (repository.private and not known):
            # The real one tells strangers no more than this.
            self._send(404 if known else 401, b"", {"X-Error-Code": "RepoNotFound"} if known else {})
        elif repository.gated and not (known and repository.accepted):
            self._send(403 if known else 401, b"", {"X-Error-Code": "GatedRepo"})
        else:
            return repository
        return None

    def _api(self, name: str, kind: str, rest: str) -> None:
        # A gated repository's description is public, its files are not.
        repository = self.hub.repositories.get(name)
        if repository is None or not repository.gated:
            repository = self._admit(name)
        if repository is None:
            return
        if kind == "refs":
            refs = [
                {"name": each, "ref": f"refs/heads/{each}", "targetCommit": commit}
                for each, commit in repository.revisions.items()
            ]
            self._json({"branches": refs, "tags": [], "converts": []})
            return
        commit = repository.revisions.get(rest, rest)
        if commit not in repository.files:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        files = repository.files[commit]
        if kind == "tree":
            self._json([_tree_entry(file, data) for file, data in files.items()])
            return
        siblings = [_sibling(file, data) for file, data in files.items()]
        gated = "auto" if repository.gated else False
        self._json({"id": name, "sha": commit, "gated": gated, "private": repository.private, "siblings": siblings})

    def _file(self, name: str, revision: str, file: str, fault: Fault) -> None:
        repository = self._admit(name)
        if repository is None:
            return
        commit = repository.revisions.get(revision, revision)
        data = repository.files.get(commit, {}).get(file)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if fault.redirect is not None:
            self._send(302, b"", {"Location": fault.redirect + self.path})
            return
        headers = {"ETag": f'"{_etag(file, data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if fault.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        data = data[: len(data) - fault.short]
        first, last = self._range(len(data)) if not fault.no_ranges else (0, len(data) - 1)
        if first >= len(data) > 0:
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        partial = "Range" in self.headers and not fault.no_ranges
        if partial:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(206 if partial else 200, data[first : last + 1], headers, file, fault)

    def _range(self, size: int) -> tuple[int, int]:
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        return int(first), min(int(last) if last else size - 1, size - 1)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str], file: str | None = None, fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.silent:
            time.sleep(5)
            self.close_connection = True
            return
        for start in range(0, len(body), _PIECE):
            piece = body[start : start + _PIECE]
            if fault is not None and fault.cut is not None and start + len(piece) > fault.cut:
                self._count(file, max(0, fault.cut - start))
                self.wfile.write(body[start : max(start, fault.cut)])
                self.close_connection = True
                return
            self.wfile.write(piece)
            self._count(file, len(piece))
            if fault is not None and fault.rate:
                time.sleep(len(piece) / fault.rate)

    def _count(self, file: str | None, size: int) -> None:
        if file is not None:
            with self.hub.lock:
                self.hub.served[file] += size


def is_large(file: str, data: bytes) -> bool:
    """Kept outside of git, as the Hub does with weights and anything big."""
    return file.endswith(".safetensors") or len(data) > 50_000


def _etag(file: str, data: bytes) -> str:
    return _sha256(data) if is_large(file, data) else _git(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _sibling(file: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": _git(data)}
    if is_large(file, data):
        entry["lfs"] = {"size": len(data), "sha256": _sha256(data), "pointerSize": 130}
    return entry


def _tree_entry(file: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(data), "oid": _git(data)}
    if is_large(file, data):
        entry["lfs"] = {"size": len(data), "oid": _sha256(data), "pointerSize": 130}
    return entry

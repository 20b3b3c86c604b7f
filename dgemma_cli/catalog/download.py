"""Files of a repository, fetched so that nothing is lost: a pull that was killed goes on at the byte where it stopped.

huggingface_hub 2 throws away what it has of a file when it is interrupted (a shard has 10 GB), so the bytes come over
its session and its settings, but into a file of ours: ``blobs/<digest>.incomplete``, which only ever grows, and is
renamed once its digest is right. Locks and layout are the cache's own, so that other tools and pulls can take part.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from dgemma_cli.catalog.hub import RemoteFile, stream
from dgemma_cli.catalog.hub_errors import explain, explained
from dgemma_cli.catalog.plan import Plan
from dgemma_cli.errors import CheckpointError

# Called from several threads: a file's name, and how many of its bytes are here.
Report = Callable[[str, int], None]

_TRIES = 6  # requests in a row that bring no byte before a pull gives up
_DELAY = 0.5  # seconds before the second of them; doubled for each, up to _LONGEST_DELAY
_LONGEST_DELAY = 8.0
_PASSING = (408, 429, 500, 502, 503, 504)  # statuses that may be gone in a moment


class _Stopped(Exception):
    """Another file failed, or the user interrupted."""


def fetch(plan: Plan, files: Sequence[RemoteFile], workers: int, report: Report) -> None:
    """Bring ``files`` into the snapshot, ``workers`` at a time. Those that are here already are only linked.

    Raises NetworkError, ModelUnavailable, CheckpointError, DiskError for the first that fails; what came of the
    others is kept.
    """
    waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    for file in files:
        waiting.put(file)
    stop = threading.Event()
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not stop.is_set():
                _fetch_file(plan, waiting.get_nowait(), report, stop)
        except (queue.Empty, _Stopped):
            ended.put(None)
        except Exception as error:
            ended.put(error)
        else:
            ended.put(None)

    # Daemons: an interrupted process need not wait for a server that is silent. Their files can be cut off anywhere.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(workers, len(files))))]
    for thread in threads:
        thread.start()
    try:
        failures = [error for _ in threads if (error := _next(ended, stop)) is not None]
    finally:
        stop.set()
    if failures:
        raise failures[0]


def _next(ended: queue.SimpleQueue[Exception | None], stop: threading.Event) -> Exception | None:
    """How the next worker ended; a failure makes the others stop."""
    error = ended.get()
    if error is not None:
        stop.set()
    return error


def _fetch_file(plan: Plan, file: RemoteFile, report: Report, stop: threading.Event) -> None:
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    blob, partial = plan.blob(file), plan.incomplete(file)
    with explained(plan.reference):
        pointer = plan.snapshot / file.name
        if pointer.exists() and pointer.stat().st_size == file.size:
            report(file.name, file.size)
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock = plan.cache / ".locks" / plan.folder.name / f"{file.digest}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not (blob.exists() and blob.stat().st_size == file.size):
                blob.unlink(missing_ok=True)
                _fetch_blob(plan, file, partial, report, stop)
                partial.replace(blob)
            report(file.name, file.size)
            _link(blob, pointer)


def _fetch_blob(plan: Plan, file: RemoteFile, partial: Path, report: Report, stop: threading.Event) -> None:
    """Complete ``partial`` and check its digest. A wrong one is thrown away and fetched once more: another tool may
    have left it, or the disk may have lost its end in a power cut.
    """
    resumed = partial.exists()
    _append(plan, file, partial, report, stop)
    if _digest(partial, file) == file.digest:
        return
    partial.unlink()
    if resumed:
        _append(plan, file, partial, report, stop)
        if _digest(partial, file) == file.digest:
            return
        partial.unlink()
    raise CheckpointError(
        f"{plan.reference.repository}: what the Hub sends as {file.name} is corrupt (its digest is wrong).",
        f"Try again later: dgemma pull {plan.reference.name}",
    )


def _append(plan: Plan, file: RemoteFile, partial: Path, report: Report, stop: threading.Event) -> None:
    """Fetch what ``partial`` lacks of ``file``, over as many requests as it takes while each brings something."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    fruitless = 0
    with partial.open("ab", buffering=0) as out:
        if out.tell() > file.size:
            out.truncate(0)
        while (have := out.seek(0, os.SEEK_END)) < file.size:
            report(file.name, have)
            retry_after: str | None = None
            try:
                _receive(plan, file, out, have, report, stop)
                failure: Exception | None = None
            except HfHubHTTPError as error:
                if error.response.status_code == 416:
                    raise _wrong_size(plan, file, f"has only {have:,}") from None
                if error.response.status_code not in _PASSING:
                    raise
                failure, retry_after = error, error.response.headers.get("Retry-After")
            except httpx2.TransportError as error:
                failure = error
            fruitless = 0 if out.tell() > have else fruitless + 1
            if fruitless == _TRIES:
                if failure is None:
                    raise _wrong_size(plan, file, f"has only {have:,}")
                raise explain(failure, plan.reference) from failure
            if fruitless:
                stop.wait(_delay(fruitless, retry_after))
            if stop.is_set():
                raise _Stopped


def _receive(plan: Plan, file: RemoteFile, out: BinaryIO, have: int, report: Report, stop: threading.Event) -> None:
    """Append the bytes of one response."""
    with stream(plan.reference, plan.commit, file.name, have) as response:
        if have and response.status_code == 200:  # the server knows no ranges: from the beginning, then
            out.truncate(0)
            have = 0
        for chunk in response.iter_bytes():
            if stop.is_set():
                raise _Stopped
            if have + len(chunk) > file.size:
                out.truncate(0)
                raise _wrong_size(plan, file, "has more")
            out.write(chunk)
            have += len(chunk)
            report(file.name, have)


def _delay(fruitless: int, retry_after: str | None) -> float:
    """Seconds before the next request; a server that names a time is believed up to a minute."""
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), 60.0)
    return float(min(_LONGEST_DELAY, _DELAY * 2.0 ** (fruitless - 1)))


def _wrong_size(plan: Plan, file: RemoteFile, what: str) -> CheckpointError:
    return CheckpointError(
        f"{plan.reference.repository}: {file.name} should have {file.size:,} bytes, what the Hub sends {what}.",
        f"Try again later: dgemma pull {plan.reference.name}",
    )


def _digest(path: Path, file: RemoteFile) -> str:
    """The digest that a blob of the cache is named after."""
    with path.open("rb") as content:
        if file.large:
            return hashlib.file_digest(content, "sha256").hexdigest()
        git = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        git.update(content.read())
        return git.hexdigest()


def _link(blob: Path, pointer: Path) -> None:
    """Let the snapshot's ``pointer`` lead to ``blob``, as the cache has it; without symbolic links, move it there."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    fresh = pointer.with_name(f"{pointer.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        fresh.symlink_to(os.path.relpath(blob, pointer.parent))
    except (NotImplementedError, PermissionError):
        blob.replace(pointer)
        return
    fresh.replace(pointer)

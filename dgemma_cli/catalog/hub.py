"""The Hub as dgemma needs it: what a repository holds, and bytes of its files. All else is huggingface_hub's.

Its settings are honoured: HF_ENDPOINT, HF_TOKEN and the stored token, HF_HUB_OFFLINE, proxies, timeouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from dgemma_cli import __version__
from dgemma_cli.catalog.hub_errors import explained
from dgemma_cli.catalog.names import Reference
from dgemma_cli.catalog.session import LIBRARY, request_headers
from dgemma_cli.errors import NetworkError

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. size: in bytes; digest: SHA-256 of its content if large, else git's SHA-1 of it, which
    is also the name of its blob in the cache.
    """

    name: str
    size: int
    digest: str
    large: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit."""

    reference: Reference
    commit: str
    files: tuple[RemoteFile, ...]


def list_files(reference: Reference) -> Listing:
    """Ask the Hub what ``reference`` holds now: one request. Raises ModelUnavailable, NetworkError."""
    from huggingface_hub import HfApi, constants

    with explained(reference):
        try:
            api = HfApi(endpoint=constants.ENDPOINT, library_name=LIBRARY, library_version=__version__)
            info = api.model_info(
                reference.repository,
                revision=reference.revision,
                files_metadata=True,
                timeout=constants.DEFAULT_REQUEST_TIMEOUT,
            )
        except (ValueError, KeyError, TypeError):
            raise NetworkError(
                f"What answers at {constants.ENDPOINT} is not a Hub.",
                "Is it a proxy's log-in page? See also HF_ENDPOINT.",
            ) from None
    files = []
    for sibling in info.siblings or []:
        digest = (sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id) or ""
        if sibling.size is None or not _is_hex(digest) or not _is_hex(info.sha):
            raise NetworkError(
                f"The Hub does not tell size and digest of {sibling.rfilename} in {reference.repository}.",
                "Is HF_ENDPOINT a complete mirror of the Hub?",
            )
        files.append(RemoteFile(sibling.rfilename, sibling.size, digest, sibling.lfs is not None))
    return Listing(reference, str(info.sha), tuple(files))


@contextmanager
def stream(
    reference: Reference, commit: str, name: str, first: int, last: int | None = None
) -> Iterator[httpx2.Response]:
    """A response with the bytes of a file from ``first`` to ``last`` (inclusive; None: its end), its body unread.

    Its status is 206, or 200 where the server sent the whole file instead. Raises huggingface_hub's and httpx2's
    errors as they are: a download may try again.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    url = f"{constants.ENDPOINT}/{reference.repository}/resolve/{commit}/{quote(name)}"
    headers = {**request_headers(), "Accept-Encoding": "identity"}  # ranges count the bytes of the file itself
    if first or last is not None:
        headers["Range"] = f"bytes={first}-{'' if last is None else last}"
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        if response.is_error:
            response.read()  # so that the error can quote it
        hf_raise_for_status(response)
        yield response


def read(reference: Reference, commit: str, name: str, first: int, length: int) -> bytes:
    """``length`` bytes of a file, fewer at its end. Raises ModelUnavailable, NetworkError."""
    if length == 0:
        return b""
    with explained(reference), stream(reference, commit, name, first, first + length - 1) as response:
        skip = first if response.status_code == 200 else 0
        data = bytearray()
        for chunk in response.iter_bytes(64 * 1024):
            data += chunk
            if len(data) >= skip + length:
                break
        return bytes(data[skip : skip + length])


def _is_hex(text: str | None) -> bool:
    return text is not None and len(text) in (40, 64) and set(text) <= set("0123456789abcdef")

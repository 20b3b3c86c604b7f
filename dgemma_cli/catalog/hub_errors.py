"""What went wrong between here and the Hub, in the user's words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dgemma_cli.catalog import cache, known
from dgemma_cli.catalog.names import Reference, near_names
from dgemma_cli.catalog.session import request_headers
from dgemma_cli.errors import DgemmaError, DiskError, ModelUnavailable, NetworkError

GOES_ON = "It goes on where it stopped."


@contextmanager
def explained(reference: Reference) -> Iterator[None]:
    """Raise what huggingface_hub, httpx2 and the file system raise inside as DgemmaErrors about ``reference``."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise explain(error, reference) from error


def explain(error: Exception, reference: Reference) -> DgemmaError:
    """The DgemmaError for a failed request or write. May ask the Hub for near names."""
    import httpx2
    from huggingface_hub import constants, errors

    repository = reference.repository
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ModelUnavailable(
            f"{reference.name} cannot be fetched: HF_HUB_OFFLINE is set.",
            f"Unset HF_HUB_OFFLINE, then: dgemma pull {reference.name}",
        )
    if isinstance(error, errors.GatedRepoError):  # before RepositoryNotFoundError, whose subclass it is
        return _gated(repository)
    if isinstance(error, errors.RevisionNotFoundError):
        near = near_names(reference.revision, _revisions(repository))
        hint = f"Did you mean {' or '.join(f'{repository}@{name}' for name in near)}?" if near else ""
        return ModelUnavailable(f"{repository} has no revision {reference.revision!r}.", hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(repository)
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error.response.status_code, error.response.headers.get("Retry-After"), reference)
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        what = "does not answer in time" if isinstance(error, httpx2.TimeoutException) else "cannot be reached"
        reason = " ".join(str(error).split())
        return NetworkError(
            f"The Hub at {constants.ENDPOINT} {what}{f': {reason}' if reason else ''}.",
            f"Look at the network, HF_ENDPOINT and the proxy settings, then: dgemma pull {reference.name}\n{GOES_ON}",
        )
    if isinstance(error, OSError):
        return disk_error(error)
    raise error


def disk_error(error: OSError) -> DgemmaError:
    """The DgemmaError for a file that cannot be written."""
    place = str(Path(str(error.filename)).parent) if error.filename else "the model cache"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            f"The disk with {place} is full.",
            "Make room (dgemma list, dgemma rm), or name a larger disk: --cache-dir, or HF_HOME.\n"
            "What is fetched is kept.",
        )
    return DiskError(
        f"{place} cannot be written: {error.strerror or error}.",
        "Name a folder that you may write to: --cache-dir, or HF_HOME.",
    )


def _gated(repository: str) -> ModelUnavailable:
    page = _page(repository)
    if _token() is None:
        return ModelUnavailable(
            f"{repository} is gated, and you are not logged in.",
            f"Accept its conditions at {page}, then: hf auth login",
        )
    return ModelUnavailable(
        f"{repository} is gated, and your account has no access to it.", f"Ask for access at {page}, then try again."
    )


def _not_found(repository: str) -> ModelUnavailable:
    candidates = {known_model.repository for known_model in known.KNOWN} | set(cache.repositories())
    near = near_names(repository, candidates | set(_models_of(repository.split("/")[0])))
    lines = [f"Did you mean {' or '.join(near)}?"] if near else []
    if _token() is None:
        lines.append("If it is private: hf auth login")
        return ModelUnavailable(f"The Hub has no model {repository}, or it is private.", "\n".join(lines))
    return ModelUnavailable(
        f"The Hub has no model {repository}, or your account may not see it.", "\n".join(lines) or _page(repository)
    )


def _refused(status: int, retry_after: str | None, reference: Reference) -> DgemmaError:
    again = f"dgemma pull {reference.name}"
    if status == 401 and _token() is None:
        return _not_found(reference.repository)  # the Hub does not tell strangers which of the two
    if status == 401:
        return ModelUnavailable("The Hub does not accept your token.", "Log in again: hf auth login")
    if status == 403:
        return ModelUnavailable(
            f"The Hub forbids your account to read {reference.repository}.",
            f"See {_page(reference.repository)}; another account or token: hf auth login",
        )
    if status == 404:
        return ModelUnavailable(f"A file of {reference.repository} is gone from the Hub.", f"Look again: {again}")
    if status == 429:
        wait = f"in {retry_after} s" if retry_after and retry_after.isdigit() else "in some minutes"
        return NetworkError(
            "The Hub says that this address asks too often (429).",
            f"Try again {wait}; logged-in users may ask more.\n{again}",
        )
    return NetworkError(
        f"The Hub failed with status {status}.", f"Try again later, it goes on where it stopped:\n{again}"
    )


def _page(repository: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _revisions(repository: str) -> list[str]:
    """Branches and tags; none if the Hub does not tell."""
    refs = _ask(f"/api/models/{repository}/refs")
    kinds = [refs.get("branches"), refs.get("tags")] if isinstance(refs, dict) else []
    return [str(ref["name"]) for kind in kinds if isinstance(kind, list) for ref in kind]


def _models_of(owner: str) -> list[str]:
    """The ids of an owner's models; none if the Hub does not tell."""
    models = _ask(f"/api/models?author={owner}&limit=100")
    return [str(model["id"]) for model in models] if isinstance(models, list) else []


def _ask(path: str) -> Any:
    """A JSON answer that is only good for a hint: None if there is none."""
    import httpx2
    from huggingface_hub import constants, get_session

    try:
        url = constants.ENDPOINT + path
        response = get_session().get(url, headers=request_headers(), timeout=constants.DEFAULT_REQUEST_TIMEOUT)
        return response.json() if response.is_success else None
    except (httpx2.HTTPError, OSError, ValueError):
        return None

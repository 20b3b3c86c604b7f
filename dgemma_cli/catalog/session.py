"""What every request of dgemma to the Hub carries."""

from __future__ import annotations

from dgemma_cli import __version__

LIBRARY = "dgemma"


def request_headers() -> dict[str, str]:
    """The user's token, if there is one, and who asks: dgemma and the versions of huggingface_hub and Python."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers: dict[str, str] = build_hf_headers(library_name=LIBRARY, library_version=__version__)
    return headers

"""Suggestions for a name that is none."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def near(name: str, names: Sequence[str], prefix: str = "") -> str:
    """A hint with the names most like ``name``, or with all of them. prefix: what stands before each."""
    found = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    found += [other for other in names if name and other.startswith(name.lower()) and other not in found]
    label = "Near:" if found else "There are:"
    return f"{label} {', '.join(prefix + other for other in found or names)}"

"""Model text made safe to show. Whatever a model writes, a terminal must only ever print it."""

from __future__ import annotations

import re

# C0 without newline and tab, DEL, C1, the bidi embeddings, overrides and isolates (they reorder what stands around
# them), the line and paragraph separators, and lone surrogates (which no encoding can write).
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")
_NEWLINES = re.compile("\r\n?")


def visible(text: str) -> str:
    """``text`` without anything that steers a terminal. Newlines and tabs stay; CR and CRLF become newlines."""
    return _CONTROLS.sub("", _NEWLINES.sub("\n", text))


def escape_controls(json_text: str) -> str:
    """JSON text with the same characters written as ``\\uXXXX``: exact for a program, harmless on a terminal."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)

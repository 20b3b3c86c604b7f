"""What the colour of a position can tell."""

from __future__ import annotations

from enum import StrEnum


class ColorBy(StrEnum):
    """STATE: noise, draft, accepted or settled. ENTROPY: how sure the model is of it."""

    STATE = "state"
    ENTROPY = "entropy"

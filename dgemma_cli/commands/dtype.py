"""The number formats a command may be asked for."""

from __future__ import annotations

from enum import StrEnum


class Dtype(StrEnum):
    """Number formats of the weights."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"

"""The colours of exported pictures, which have no terminal to ask."""

from __future__ import annotations

BACKGROUND = "#12151c"
FOREGROUND = "#e5e9f0"
COLORS = {
    31: "#f07178",
    32: "#8fd67f",
    33: "#f2c572",
    34: "#82aaff",
    35: "#c792ea",
    36: "#7fdbca",
}
DIM_SHARE = 0.5  # of the foreground in dim text

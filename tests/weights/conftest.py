"""Tiny checkpoints of every format, and the tools to damage them."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS / "parity")]

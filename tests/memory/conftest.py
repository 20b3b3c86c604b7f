"""Tiny checkpoints to weigh."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS / "weights")]

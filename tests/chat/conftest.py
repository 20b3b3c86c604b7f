"""A chat for these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from talk import Talk, talk


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Talk]:
    made = talk(tmp_path)
    yield made
    made.chat.close()

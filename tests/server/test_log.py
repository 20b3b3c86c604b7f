"""What a server in the background says goes into a file that does not grow for ever."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgemma_cli.commands import hosting, loading
from dgemma_cli.errors import NoDevice
from dgemma_cli.server import background
from dgemma_cli.terminal.environment import Environment

TALK = """
import logging, sys
from dgemma_cli.server.background import BoundedLog
logging.getLogger().addHandler(BoundedLog(5000))
for number in range(int(sys.argv[1])):
    logging.getLogger("dgemma.server").error("request %d failed", number)
"""


def test_it_is_emptied_when_it_is_full(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with background._opened(log) as said:
        talking = [subprocess.Popen([sys.executable, "-c", TALK, count], stderr=said) for count in ("400", "401")]
    assert [process.wait() for process in talking] == [0, 0]
    text = log.read_text()
    assert len(text) < 5000 + 200  # two may have written before one of them looked again
    assert "\0" not in text
    assert "request 400 failed" in text or "request 399 failed" in text


def test_a_large_one_makes_way_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOG_BYTES", 10)
    log = tmp_path / "server.log"
    for said in (b"first", b" and more", b"second, long enough", b"third"):
        with background._opened(log) as file:
            file.write(said)
    assert log.read_bytes() == b"third"
    assert (tmp_path / "server.log.1").read_bytes() == b"second, long enough"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_server_in_the_background_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(*_: object) -> None:
        raise NoDevice("far enough")

    monkeypatch.setattr(loading, "load_session", load)
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    reach = hosting.Reach("127.0.0.1", 0, None, None, [])
    root, (reading, writing) = logging.getLogger(), os.pipe()
    before = list(root.handlers)
    try:
        serving = hosting.Serving("nano", "cpu", "auto", "off", reach, None, 1, 1, None, None, 1, 1, False, writing)
        with pytest.raises(NoDevice):
            hosting.hold(serving, Environment.current())
        added = [handler for handler in root.handlers if handler not in before]
        assert [type(handler) for handler in added] == [background.BoundedLog]
    finally:
        root.handlers[:] = before
        os.close(reading)

"""The runtime folder and its sockets: for one user, never in somebody else's hands, never stale."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from dgemma_cli.errors import DgemmaError, DiskError, NetworkError, UsageError
from dgemma_cli.server import places
from dgemma_cli.server.serving import bind


@pytest.fixture
def folder() -> Path:
    """A short one."""
    return Path(os.environ["DGEMMA_RUNTIME_DIR"])


def test_where_it_is() -> None:
    assert places.runtime_folder({"DGEMMA_RUNTIME_DIR": "/a", "XDG_RUNTIME_DIR": "/b"}) == Path("/a")
    assert places.runtime_folder({"XDG_RUNTIME_DIR": "/b"}) == Path("/b/dgemma")
    assert places.runtime_folder({}).name == f"dgemma-{os.getuid()}"


def test_it_is_made_for_one_user(tmp_path: Path) -> None:
    made = places.own_folder(tmp_path / "a")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o755)
    with pytest.raises(DgemmaError, match="open to other users"):
        places.own_folder(made)
    (made / "1.sock").touch()
    assert places.sockets(made) == []
    (tmp_path / "file").touch()
    with pytest.raises(DiskError):
        places.own_folder(tmp_path / "file" / "x")
    link = tmp_path / "link"  # whoever can make it may point it elsewhere
    link.symlink_to(places.own_folder(tmp_path / "b"))
    with pytest.raises(DgemmaError):
        places.own_folder(link)


def test_a_socket_has_a_listener_and_no_other_reader(folder: Path) -> None:
    path = folder / "1.sock"
    with places.listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert places.is_alive(path)
        with pytest.raises(UsageError, match="already"):
            places.listen(path)
        places.sweep(path)
        assert path.exists()
    assert not places.is_alive(path)
    with places.listen(path):  # replaces the stale one
        assert places.is_alive(path)
    places.sweep(path)
    assert not path.exists()
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(".")] == []


def test_what_is_in_the_way(folder: Path) -> None:
    path = folder / "2.sock"
    path.touch()
    with pytest.raises(UsageError, match="no socket"):
        places.listen(path)
    places.sweep(path)
    assert path.exists()
    path.unlink()
    with pytest.raises(UsageError, match="bytes"):
        places.listen(folder / ("x" * 100))
    with pytest.raises(DiskError):
        places.listen(folder / "none" / "3.sock")


def test_a_server_with_a_full_queue_is_alive(folder: Path) -> None:
    path = folder / "3.sock"
    with places.listen(path) as listening:
        listening.listen(0)
        waiting = []
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect_ex(str(path))
            waiting.append(client)
        assert places.is_alive(path)
        for client in waiting:
            client.close()
    path.unlink()


def test_answers_over_tcp_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY where the socket names its protocol; without it every answer took 40 ms."""
    with bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_an_address_that_is_taken() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(NetworkError, match="cannot be served"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="no address"):
        bind("no.such.host.invalid", 1)

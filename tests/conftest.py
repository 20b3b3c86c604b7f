"""Every test runs offline, in directories of its own, on one thread: the suite shares two cores between its workers."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: the commands under test would inherit a deaf ear for Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("untimed", deadline=None)  # what a busy machine makes slow is not wrong
settings.load_profile("untimed")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PYTHONUNBUFFERED", None)  # users have it not, and it hides what is left in buffers
os.environ["OMP_NUM_THREADS"] = "1"
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton, as torch may
for _variable in [name for name in os.environ if name.startswith("DGEMMA_")]:
    del os.environ[_variable]
os.environ["DGEMMA_CONFIG"] = os.devnull  # nobody's settings
_state = tempfile.TemporaryDirectory(prefix="dgemma-state-")
Path(_state.name, "met-nano").touch()  # what is said once would be in the way
os.environ["DGEMMA_STATE_DIR"] = _state.name
_sockets = tempfile.TemporaryDirectory(prefix="dg-")  # a socket's path must be short
os.environ["DGEMMA_RUNTIME_DIR"] = _sockets.name  # and no test meets a server of whoever runs it
for _name in ("DGEMMA_API_KEY", "DGEMMA_ENDPOINT"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a command changes in its process is put back: how signals are handled, and DGEMMA_DEBUG."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    os.environ.pop("DGEMMA_DEBUG", None)
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)

"""``dgemma tune`` where there is nothing to measure, and forgetting. On a simulated GPU: tests/simulated."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import platformdirs
import pytest
import torch
from command_fixtures import Run


@pytest.fixture
def dgemma(dgemma: Run) -> Run:
    """``dgemma tune``."""
    return partial(dgemma, "tune")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "dgemma" / "tiles.json"


def test_without_a_gpu(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = dgemma("-m", "nano")
    assert (code, out) == (4, "")
    assert err == (
        "error: There are no tiles to measure on a CPU (auto: no CUDA device is visible).\n"
        "  dgemma tune is for GPUs: see nvidia-smi.\n"
    )


def test_what_cannot_be_meant(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, why in (
        (["--device", "cpu"], "A CPU's kernels work in no tiles that could be measured."),
        (["--reset", "--json"], "--reset forgets all that was measured: it takes no --json."),
        (["--reset", "-m", "nano"], "--reset forgets all that was measured: it takes no --model."),
        (["--fit", "much"], "--fit"),
    ):
        code, out, err = dgemma(*arguments)
        assert (code, out) == (2, "")
        assert why in err.splitlines()[0]
    monkeypatch.setenv("DGEMMA_KERNELS", "reference")
    code, _, err = dgemma("-m", "nano", "--device", "cuda")
    assert (code, err.splitlines()[0]) == (2, "error: DGEMMA_KERNELS=reference leaves no kernels to measure.")


def test_reset(dgemma: Run, file: Path) -> None:
    assert dgemma("--reset") == (0, "", "No tiles are remembered.\n")
    file.parent.mkdir()
    file.write_text(json.dumps({"a": {}}))
    assert dgemma("--reset") == (0, "", "Forgotten: the usual tiles are back.\n")
    assert not file.exists()
    file.mkdir()  # what is no file is not removed
    assert dgemma("--reset").code == 6


def test_reset_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from dgemma_cli.__main__ import main; code = main(['tune', '--reset']);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True).returncode == 0

"""``dgemma check`` on simulated machines: verdicts, figures, exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dgemma_cli.__main__ import main
from dgemma_cli.commands import check as command
from dgemma_cli.machine import Gpu, Machine, User

Run = Callable[..., tuple[int, str, str]]
GB = 10**9


@pytest.fixture
def dgemma(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("DGEMMA_MODEL", raising=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["check", *arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    yield run
    for number, handler in kept.items():
        signal.signal(number, handler)


def gpu(gigabytes: float, index: int = 0) -> Gpu:
    free = int(gigabytes * GB) - 500_000_000
    return Gpu(index, "Fake", int(gigabytes * GB), free, (8, 9), "580.95", False, (User(7, "Xorg", 200_000_000),))


def pretend(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, host: float = 64) -> None:
    why, remedy = ("", "") if gpus else ("No NVIDIA driver is loaded.", "Install the driver.")
    machine = Machine(gpus, 16, int(host * GB), int(host * GB), "2.13.0", "13.0", why, remedy)
    monkeypatch.setattr(command, "look", lambda: machine)
    monkeypatch.setattr(command, "_free", lambda folder: 100 * GB)


@pytest.mark.parametrize(
    ("gigabytes", "code", "others"),
    [
        (8, 5, []),
        (12, 5, []),
        (16, 5, []),
        (20, 5, ["diffusiongemma:nvfp4-redhat", "diffusiongemma:int4"]),
        (24, 0, ["diffusiongemma:nvfp4-redhat", "diffusiongemma:int4"]),
        (80, 0, [f"diffusiongemma:{form}" for form in ("nvfp4-redhat", "int4", "fp8", "bf16")]),
    ],
)
def test_cards(dgemma: Run, monkeypatch: pytest.MonkeyPatch, gigabytes: int, code: int, others: list[str]) -> None:
    pretend(monkeypatch, gpu(gigabytes))
    found, out, err = dgemma("--json")
    report = json.loads(out)
    assert (found, report["exit_code"], report["fits"]) == (code, code, code == 0)
    assert report["others_that_fit"] == others
    assert report["device"] == ("cuda:0" if code == 0 else None)
    needs = report["needs"]["diffusiongemma:nvfp4"]
    parts = ("weights", "cache", "working", "process")
    assert needs["total"] == sum(needs[part] for part in parts)
    assert needs["weights"] == 17_672_415_864
    assert (needs["total"] <= report["free"]) == (code == 0)
    if code:
        assert err.startswith(f"error: diffusiongemma:nvfp4 needs {needs['total'] / GB:.1f} GB with 8,192 tokens")
        assert all(name in err for name in others)
        assert "-m nano" in err
    else:
        assert err == ""


def test_table_for_people(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(24))
    code, out, err = dgemma()
    assert (code, err) == (0, "")
    assert "cuda:0   Fake, 24.0 GB, 23.5 GB free; compute capability 8.9, driver 580.95" in out
    assert "200.0 MB held by Xorg (7)" in out
    assert "100.0 GB free in" in out
    assert "18.8 GB to fetch" in out
    row = next(line for line in out.splitlines() if line.startswith("diffusiongemma:int4"))
    assert row.split()[1:3] == ["16.1", "GB"]
    assert "diffusiongemma:nvfp4 fits on cuda:0" in out


def test_the_roomiest_card_is_taken(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(12), gpu(24, index=1))
    code, out, _ = dgemma("--json")
    assert (code, json.loads(out)["device"]) == (0, "cuda:1")


def test_context_counts(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(24))
    longest = json.loads(dgemma("--json")[1])["longest_context"]
    assert dgemma("--context", str(longest))[0] == 0
    code, _, err = dgemma("--context", str(longest + 1024))
    assert code == 5
    assert f"--context {longest}" in err


@pytest.mark.parametrize("context", ["0", "-1", "262145"])
def test_context_out_of_range(dgemma: Run, monkeypatch: pytest.MonkeyPatch, context: str) -> None:
    pretend(monkeypatch, gpu(24))
    code, out, err = dgemma("--context", context)
    assert (code, out) == (2, "")
    assert "context must be from 1 to 262,144 tokens" in err


@pytest.mark.parametrize(("host", "words"), [(16, "which is too little"), (64, "which is enough")])
def test_no_gpu(dgemma: Run, monkeypatch: pytest.MonkeyPatch, host: int, words: str) -> None:
    pretend(monkeypatch, host=host)
    code, out, err = dgemma()
    assert code == 4
    assert "gpu      none: No NVIDIA driver is loaded." in out
    assert err.startswith("error: No NVIDIA driver is loaded.\n  Install the driver.\n")
    assert "--device cpu" in err
    assert words in err


def test_no_room_on_the_disk(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(24))
    monkeypatch.setattr(command, "_free", lambda folder: 10 * GB)
    code, out, err = dgemma("--json")
    assert (code, json.loads(out)["disk_free"]) == (6, 10 * GB)
    assert "a download of 18.8 GB, 10.0 GB are free" in err


def test_a_small_model_needs_no_gpu(dgemma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import make_synthetic
    import synthetic_tensors

    folder = make_synthetic.write(tmp_path / "tiny", synthetic_tensors.tiny(), "int4")
    pretend(monkeypatch)
    code, out, err = dgemma(str(folder), "--context", "100", "--json")
    report = json.loads(out)
    assert (code, err, report["device"], report["download"]) == (0, "", "cpu", 0)
    assert report["needs"][str(folder)]["weights"] < 10**6
    without = json.loads(dgemma(str(folder), "--json")[1])
    assert (
        without["context"] == json.loads((folder / "config.json").read_text())["text_config"]["max_position_embeddings"]
    )
    pretend(monkeypatch, host=0.1)
    assert dgemma(str(folder), "--context", "100")[0] == 5


def test_unknown_model(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(24))
    code, out, err = dgemma("diffusiongemma:nvfp5")
    assert (code, out) == (3, "")
    assert "diffusiongemma:nvfp4" in err


def test_no_torch_is_imported() -> None:
    """Unless NVIDIA's library is missing where its driver is there."""
    code = (
        "import sys, dgemma_cli.machine as m, dgemma_cli.__main__ as d; m._driver_is_there = lambda: False;"
        "d.main(['check', '--json']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

"""``dgemma check`` on simulated machines: verdicts, figures, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command_fixtures import Run

from dgemma_cli.commands import check as command
from dgemma_cli.machine import Gpu, Machine, User
from dgemma_cli.weights.published import NETWORK

GB = 10**9


@pytest.fixture
def dgemma(dgemma: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """``dgemma check``, where no models are."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("DGEMMA_MODEL", raising=False)
    return partial(dgemma, "check")


def gpu(gigabytes: float, index: int = 0) -> Gpu:
    free = int(gigabytes * GB) - 500_000_000
    return Gpu(index, "Fake", int(gigabytes * GB), free, (8, 9), "580.95", False, (User(7, "Xorg", 200_000_000),))


def pretend(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu, host: float = 64, triton: bool = True) -> None:
    why, remedy = ("", "") if gpus else ("No NVIDIA driver is loaded.", "Install the driver.")
    machine = Machine(gpus, 16, int(host * GB), int(host * GB), "2.13.0", "13.0", why, remedy, triton)
    monkeypatch.setattr("dgemma_cli.machine.look", lambda: machine)
    monkeypatch.setattr(command, "_free", lambda folder: 100 * GB)


CARDS = {
    8: [],
    12: [],
    16: [],
    19: ["diffusiongemma:int4"],
    20: ["diffusiongemma:nvfp4-redhat", "diffusiongemma:int4"],
    24: ["diffusiongemma:nvfp4-redhat", "diffusiongemma:int4"],
    80: [f"diffusiongemma:{form}" for form in ("nvfp4-redhat", "int4", "fp8", "bf16")],
}


@pytest.mark.parametrize(("gigabytes", "others"), CARDS.items())
def test_cards(dgemma: Run, monkeypatch: pytest.MonkeyPatch, gigabytes: int, others: list[str]) -> None:
    """As it is stored."""
    code = 0 if gigabytes >= 20 else 5
    pretend(monkeypatch, gpu(gigabytes))
    found, out, err = dgemma("--json", "--fit", "off")
    report = json.loads(out)
    assert (found, report["exit_code"], report["fits"]) == (code, code, code == 0)
    assert (report["plan"] is None) == (code == 5)
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


PACKED = "attention, mlp {}; self-conditioning, embedding int8"
IN_HOST = "experts of the last {} layers in the host's memory"


@pytest.mark.parametrize(
    ("gigabytes", "words"),
    [
        (8, [PACKED.format("nvfp4"), IN_HOST.format(23)]),
        (12, [PACKED.format("nvfp4"), IN_HOST.format(14)]),
        (16, [PACKED.format("nvfp4"), IN_HOST.format(5)]),
        (17.17, [PACKED.format("nvfp4")]),  # 16 GiB, as most cards of "16 GB" have
        (19, ["attention, mlp, self-conditioning, embedding int8"]),
        (20, ["as stored"]),
        (21, ["as stored"]),
        (24, ["as stored"]),
        (80, ["as stored"]),
    ],
)
def test_plans(dgemma: Run, monkeypatch: pytest.MonkeyPatch, gigabytes: float, words: list[str]) -> None:
    """What --fit auto does, on every card: the least that is enough."""
    pretend(monkeypatch, gpu(gigabytes))
    code, out, err = dgemma("--json")
    report = json.loads(out)
    assert (code, err, report["device"]) == (0, "", "cuda:0")
    plan = report["plan"]
    assert plan["text"] == "; ".join(words)
    parts = ("weights", "cache", "working", "process")
    assert plan["needs"]["total"] == sum(plan["needs"][part] for part in parts) <= report["free"]
    if plan["offloaded_layers"]:
        a_layer = plan["needs"]["host"] // plan["offloaded_layers"]
        assert plan["needs"]["total"] + a_layer > report["free"]  # with one layer less it would not fit
    text = dgemma()[1]
    if words != ["as stored"]:
        row = next(line for line in text.splitlines() if "with --fit auto" in line)
        assert f"{plan['needs']['total'] / GB:.1f} GB" in row
        assert f"by --fit auto ({plan['text']})" in text


def test_a_device_is_asked_for(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(20), gpu(80, 1))
    found = [json.loads(dgemma("--json", "--device", name).out)["device"] for name in ("auto", "cuda", "cuda:1", "cpu")]
    assert found == ["cuda:1", "cuda:0", "cuda:1", "cpu"]
    code, out, err = dgemma("--device", "cuda:2")
    assert (code, "cannot run here" in out) == (4, True)
    assert err.startswith("error: There is no GPU cuda:2 here.")
    assert dgemma("--device", "tpu")[:2] == (4, "")
    pretend(monkeypatch)
    assert dgemma("--device", "cpu").code == 0
    assert dgemma("--device", "cuda").err.startswith("error: No NVIDIA driver is loaded.")


def test_a_host_without_room_for_experts(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(12), host=6)
    code, _, err = dgemma()
    assert code == 5
    assert "weights 17.7 GB, KV cache " in err
    assert ", working memory " in err
    assert "CUDA context 500.0 MB" in err
    assert "200.0 MB are held by Xorg (7)" in err
    pretend(monkeypatch, replace(gpu(12), unified=True))
    assert dgemma()[0] == 5  # there the host's memory is the same


@pytest.mark.parametrize(
    ("cap", "code", "offloaded"), [("24GB", 0, 0), ("16GB", 0, 3), ("16 GiB", 0, 0), ("2GB", 5, 0)]
)
def test_a_cap_by_hand(dgemma: Run, monkeypatch: pytest.MonkeyPatch, cap: str, code: int, offloaded: int) -> None:
    pretend(monkeypatch, gpu(80))
    found, out, err = dgemma("--json", "--fit", cap)
    report = json.loads(out)
    assert (found, report["exit_code"]) == (code, code)
    if code == 0:
        assert report["plan"]["offloaded_layers"] == offloaded
        assert report["plan"]["needs"]["total"] <= report["free"] <= 24 * GB
    else:
        assert "79.5 GB are free on cuda:0, 2.0 GB of them allowed by --fit" in err


@pytest.mark.parametrize("fit", ["", "much", "0GB", "-3GB", "16", "16XB", "1e9GB"])
def test_no_such_fit(dgemma: Run, monkeypatch: pytest.MonkeyPatch, fit: str) -> None:
    pretend(monkeypatch, gpu(24))
    code, out, err = dgemma(f"--fit={fit}")
    assert (code, out) == (2, "")
    assert "--fit takes auto, off or a size" in err


def test_off_says_what_auto_would_do(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(19))
    assert "It fits with --fit auto: attention, mlp" in dgemma("--fit", "off")[2]


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


def test_canvases_side_by_side_count(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each more takes its logits; with several, steps are not recorded."""
    pretend(monkeypatch, gpu(22))
    copy = 4 * NETWORK.canvas_length * NETWORK.vocab_size
    found = {n: json.loads(dgemma("--json", "--fit", "off", "--best-of", str(n))[1]) for n in (1, 2, 4)}
    needs = {n: each["needs"]["diffusiongemma:nvfp4"]["total"] for n, each in found.items()}
    assert needs[4] - needs[2] == 2 * copy
    assert needs[2] > needs[1]
    assert [each["best_of"] for each in found.values()] == [1, 2, 4]
    assert "4 canvases side by side" in dgemma("--best-of", "4")[1]
    code, _, err = dgemma("--fit", "off", "--best-of", "12")
    fewer = re.search(r"--best-of (\d+)", err)
    assert code == 5
    assert fewer is not None
    assert dgemma("--fit", "off", "--best-of", fewer[1])[0] == 0
    assert dgemma("--fit", "off", "--best-of", str(int(fewer[1]) + 1))[0] == 5
    repaired = json.loads(dgemma("--json", "--fit", "off", "--repair")[1])["needs"]["diffusiongemma:nvfp4"]
    assert repaired["total"] > needs[1]  # a second writing is not recorded, but what was recorded stays


@pytest.mark.parametrize("why", ["old", "no triton", "asked"])
def test_without_tritons_kernels_torch_unpacks(dgemma: Run, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Where they unpack in registers nothing is held; torch holds a matrix, and a cache of another shape."""

    def working() -> dict[str, int]:
        report = json.loads(dgemma("--json", "--fit", "off")[1])
        needs: dict[str, int] = report["needs"]["diffusiongemma:nvfp4-redhat"]
        return needs

    card = gpu(80)
    pretend(monkeypatch, card)
    fused = working()
    if why == "old":
        pretend(monkeypatch, replace(card, capability=(7, 5)))
    elif why == "asked":
        monkeypatch.setenv("DGEMMA_KERNELS", "reference")
    else:
        pretend(monkeypatch, card, triton=False)
    plain = working()
    assert plain["cache"] < fused["cache"]
    assert plain["weights"] == fused["weights"]
    assert plain["working"] != fused["working"]


def test_context_counts(dgemma: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpu(24))
    longest = json.loads(dgemma("--json")[1])["longest_context"]
    assert dgemma("--context", str(longest), "--fit", "off")[0] == 0
    code, _, err = dgemma("--context", str(longest + 1024), "--fit", "off")
    assert code == 5
    assert "--context 4096" in err
    packed = json.loads(dgemma("--context", str(longest + 1024), "--json")[1])["plan"]
    assert "int8" in packed["text"]


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
    assert (code, err, report["device"], report["download"], report["plan"]["text"]) == (0, "", "cpu", 0, "as stored")
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

"""The judgement before loading, and --fit, as users of ``run`` meet them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Outcome, Run

from dgemma_cli import memory
from dgemma_cli.__main__ import main
from dgemma_cli.chat.settings import Settings
from dgemma_cli.commands import before_loading, conversing, hosting, loading
from dgemma_cli.commands.before_loading import Length, work_of
from dgemma_cli.commands.memory_report import Report
from dgemma_cli.commands.where import Where
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import NoDevice, OutOfMemory, UsageError
from dgemma_cli.fit import Place, parse_fit, plan
from dgemma_cli.machine import Gpu, Machine
from dgemma_cli.memory import Work
from dgemma_cli.prompting.prompter import Prompter
from dgemma_cli.sampling.presets import Preset
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.weights.checkpoint import Checkpoint, read_checkpoint
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK
from dgemma_cli.weights.recipe import Recipe, recipe

NANO = Path(memory.__file__).parent / "nano"
GB = 10**9


@pytest.fixture
def dgemma(dgemma: Run) -> Run:
    """A question to nano on the CPU."""

    def run(*arguments: str) -> Outcome:
        asked = ("-m", "nano", "--device", "cpu", "--seed", "1", *arguments, "What is the capital of France?")
        return dgemma("run", *asked)

    return run


def between(one: Recipe, other: Recipe) -> str:
    """A cap under which the second recipe is the first that fits."""
    checkpoint = read_checkpoint(NANO)
    sizes = [
        memory.of_checkpoint(checkpoint, "float32", each).needs(checkpoint.config.max_context, "cpu").total
        for each in (one, other)
    ]
    assert sizes[0] > sizes[1] + 2000
    return f"{(sizes[0] - 1000) / 1e6:.3f}MB"


def test_a_cap_packs_the_model_and_says_so(dgemma: Run) -> None:
    cap = between(Recipe(), recipe(dense="8bit"))
    code, out, err = dgemma("--fit", cap, "--dtype", "float32", "--json", "-v", "-n", "4096")
    assert code == 0
    found = json.loads(out)
    assert found["fit"] == "attention, mlp, self-conditioning, embedding int8"
    assert "Paris" in found["text"]
    assert f": {found['fit']}\n" in err
    assert "fit     attention, mlp, self-conditioning, embedding int8 (errors: " in err
    assert "embedding 0.6%" in err


def test_nothing_is_changed_unasked(dgemma: Run) -> None:
    code, out, err = dgemma("--json")
    assert (code, json.loads(out)["fit"], err) == (0, "as stored", "")


def test_quiet(dgemma: Run) -> None:
    cap = between(Recipe(), recipe(dense="8bit"))
    code, out, err = dgemma("--fit", cap, "--dtype", "float32", "-q", "-n", "4096")
    assert (code, err) == (0, "")
    assert "Paris" in out


def test_a_run_needs_what_its_prompt_and_answer_take(dgemma: Run) -> None:
    cap = between(Recipe(), recipe(dense="8bit"))  # with all of nano's context
    code, out, err = dgemma("--fit", cap, "--dtype", "float32", "--json", "-n", "64")
    assert (code, json.loads(out)["fit"], err) == (0, "as stored", "")


def test_too_small_a_cap(dgemma: Run) -> None:
    code, out, err = dgemma("--fit", "5MB")
    assert (code, out) == (5, "")
    assert "5.0 MB of them allowed by --fit" in err
    assert "weights " in err


def test_a_small_model_asks_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(**_: object) -> Machine:
        raise AssertionError("the machine was asked")

    monkeypatch.setattr(before_loading, "look", look)
    for device in ("auto", "cpu", "cuda"):
        assert before_loading.judge_before_loading("nano", read_checkpoint(NANO), device, "auto", "auto") is None


def large(monkeypatch: pytest.MonkeyPatch, *gigabytes: float, host: float = 64) -> Checkpoint:
    """A checkpoint that is not trivial by its files, on a machine made up."""
    monkeypatch.setattr(before_loading, "TRIVIAL", 0)
    gpus = tuple(
        Gpu(index, "Fake", 100 * GB, int(free * GB), (8, 9), "580", False, ()) for index, free in enumerate(gigabytes)
    )
    why = ("", "") if gpus else ("No NVIDIA driver is loaded.", "Install it.")
    monkeypatch.setattr(
        before_loading, "look", lambda gpus_too: Machine(gpus, 8, 99 * GB, int(host * GB), "2", "13", *why)
    )
    return read_checkpoint(NANO)


def test_the_judgement_of_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = large(monkeypatch, 0.1, 3)
    report = before_loading.judge_before_loading("m", checkpoint, "auto", "auto", "auto")
    assert report is not None
    assert report.plan is not None
    assert (report.device, report.plan.as_stored) == ("cuda:1", True)
    with pytest.raises(OutOfMemory, match=r"m needs .* are free on cuda:0"):
        before_loading.judge_before_loading("m", checkpoint, "cuda", "auto", "auto")
    on_host = before_loading.judge_before_loading("m", checkpoint, "cpu", "auto", "auto")
    assert on_host is not None
    assert on_host.device == "cpu"


def test_the_length_of_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = large(monkeypatch)
    most = checkpoint.config.max_context

    def judged(prompt: int, answer: int) -> Report:
        length = partial(Length, prompt, answer)
        report = before_loading.judge_before_loading("m", checkpoint, "cpu", "float32", "off", length=length)
        assert report is not None
        return report

    assert judged(100, 256).context == 356
    assert judged(100, 8192).context == judged(most - 64, 256).context == most
    large(monkeypatch, host=(judged(1000, 256).needs(Work()).total + 1000) / GB)
    with pytest.raises(OutOfMemory, match=r"m needs .* with 3,048 tokens of context") as caught:
        judged(1000, 2048)
    assert "It fits with a shorter answer: --max-tokens 1024\n" in caught.value.hint
    assert judged(1000, 1024).context == 2024
    with pytest.raises(OutOfMemory) as caught:
        judged(3000, 256)
    assert "--max-tokens" not in caught.value.hint


def test_memory_for_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """--best-of and --repair reach the judgement; replies share passes where no steps are recorded."""
    assert work_of(Options()) == Work()
    assert work_of(Options(best_of=3)) == Work(canvases=3)
    assert work_of(Options(preset=Preset(best_of=2), repair=True)) == Work(canvases=2, plain=True)
    assert work_of(Options(held={0: 5})) == Work(plain=True)
    checkpoint = large(monkeypatch, 3)
    copy = 4 * checkpoint.config.canvas_length * checkpoint.config.vocab_size

    def working(device: str, work: Work) -> int:
        report = before_loading.judge_before_loading("m", checkpoint, device, "bfloat16", "auto", work)
        assert report is not None
        assert report.plan is not None
        return report.plan.needs.working

    assert working("cpu", Work(canvases=8)) - working("cpu", Work(canvases=7)) == copy
    assert working("cpu", Work(replies=8)) == working("cpu", Work(canvases=8))
    assert working("cuda", Work(replies=8)) - working("cuda", Work(replies=6)) == copy
    assert working("cuda", Work(canvases=8)) > working("cuda", Work(canvases=7))
    report = before_loading.judge_before_loading("m", checkpoint, "cuda", "bfloat16", "auto")
    assert report is not None
    assert report.plan is not None
    assert report.most(16, lambda n: Work(canvases=n)) == 16
    for canvases in (9, 12):  # enough for their logits to be the most of it
        exact = replace(report, room=report.needs(Work(canvases=canvases)).total)
        assert exact.most(16, lambda n: Work(canvases=n)) == canvases
        exact.check(Work(canvases=canvases))
        short = replace(exact, room=exact.room - 1)
        assert short.most(16, lambda n: Work(canvases=n)) == canvases - 1
        with pytest.raises(OutOfMemory, match="were free on cuda:0") as caught:
            short.check(Work(canvases=canvases))
        assert caught.value.hint == f"There is memory for best-of {canvases - 1}."
    with pytest.raises(OutOfMemory) as caught:
        replace(report, room=5).check(Work(plain=True))
    assert caught.value.hint == ""


def test_a_chat_holds_settings_against_what_was_free(monkeypatch: pytest.MonkeyPatch) -> None:
    report = before_loading.judge_before_loading("m", large(monkeypatch, 3), "cuda", "bfloat16", "auto")
    assert report is not None
    room = report.needs(Work(canvases=9, goes_on=True)).total  # enough for their logits to be the most of it
    one: Any = None
    session = loading.Session("m", NANO, one, one, one, replace(report, room=room))
    session.check_memory(Options(best_of=9))
    with pytest.raises(OutOfMemory):
        session.check_memory(Options(best_of=10))
    loading.Session("nano", NANO, one, one, one).check_memory(Options(best_of=99))


@pytest.mark.parametrize("command", ["run", "chat", "serve"])
def test_what_is_asked_reaches_the_loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    asked: list[Any] = []

    def load(*arguments: Any) -> None:
        asked.extend(arguments[6:])
        raise NoDevice("far enough")

    monkeypatch.setattr(loading, "load_session", load)
    monkeypatch.setenv("DGEMMA_RUNTIME_DIR", str(tmp_path / "run"))
    environment = Environment.current()
    if command == "run":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
        assert (
            main(["run", "-m", "nano", "--device", "cpu", "-n", "300", "--best-of", "3", "--repair", "Hi"])
            == NoDevice.exit_code
        )
    elif command == "chat":
        settings = Settings(Options(best_of=3, repair=True))
        place = Where(False, None, None)
        opening = conversing.Opening(
            "nano", "cpu", "auto", place, "off", None, settings, False, False, None, False, False
        )
        with pytest.raises(NoDevice, match="far enough"):
            conversing._load(opening, environment, lambda: settings, "nano")
    else:
        reach = hosting.Reach("127.0.0.1", 0, None, None, [])
        serving = hosting.Serving("nano", "cpu", "auto", "off", reach, None, 5, 1, 800, 200, 1, 7, False, None)
        with pytest.raises(NoDevice, match="far enough"):
            hosting.hold(serving, environment)
    if command == "run":
        prompter, config, length = Prompter.load(NANO), read_checkpoint(NANO).config, asked.pop()
        found = length(prompter, config)
        assert (found.answer, 3 < found.prompt < 20) == (320, True)  # whole canvases
        with pytest.raises(UsageError, match="the context of 65 is full"):
            length(prompter, replace(config, max_context=65))
    expected = {
        "run": [Work(canvases=3, plain=True), ("--best-of",)],
        "chat": [Work(canvases=3, plain=True, goes_on=True), ("--best-of",), 8192],
        "serve": [Work(replies=5, at_rest=7, plain=True, goes_on=True), ("--parallel", "--cache"), 1000],
    }
    assert asked == expected[command]


def test_a_large_model_is_not_put_on_the_cpu_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = large(monkeypatch)
    monkeypatch.setattr("dgemma_cli.commands.memory_report._SMALL", 0)
    with pytest.raises(NoDevice, match="No NVIDIA driver"):
        before_loading.judge_before_loading("m", checkpoint, "auto", "auto", "auto")
    assert before_loading.judge_before_loading("m", checkpoint, "cpu", "auto", "auto") is not None
    assert before_loading.judge_before_loading("m", checkpoint, "cuda", "auto", "auto") is None  # opening it will tell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", "auto"),
        ("off", "off"),
        ("16GB", 16 * GB),
        ("16 gb", 16 * GB),
        ("15.5GiB", 16_642_998_272),
        ("900M", 900_000_000),
    ],
)
def test_sizes(text: str, expected: object) -> None:
    assert parse_fit(text) == expected


@pytest.mark.parametrize("text", ["", "on", "16", "GB", "-1GB", "0GB", "1e3GB", "16GBs", "99999999GB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--fit takes"):
        parse_fit(text)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_rung_takes_less(name: str) -> None:
    """Over all rooms: a plan exists from some size on, needs no more than there is, and only gets milder."""
    scheme = CHECKPOINTS[name].scheme
    offloaded, changed = 99, True
    gpu = Gpu(0, "Fake", 99 * GB, 99 * GB, (8, 9), "580", False, ())
    for gigabytes in (4, 6, 9, 12, 14, 15, 16, 17, 18, 19, 20, 28, 60):
        found = plan(
            lambda recipe: memory.of_scheme(NETWORK, recipe.over(scheme)),
            8192,
            Place(gpu, gigabytes * GB, 99 * GB),
            "auto",
        )
        if found is None:
            assert gigabytes == 4
            continue
        assert found.needs.total <= gigabytes * GB
        assert found.longest >= 8192
        assert found.offloaded <= offloaded
        assert changed or found.as_stored
        offloaded, changed = found.offloaded, not found.as_stored
    assert not changed


def test_a_cpu_changes_nothing_unasked() -> None:
    def footprint_of(recipe: Recipe) -> memory.Footprint:
        return memory.of_scheme(NETWORK, recipe.over(CHECKPOINTS["diffusiongemma:nvfp4"].scheme))

    assert plan(footprint_of, 8192, Place(None, 18 * GB, 0), "auto") is None
    asked = plan(footprint_of, 8192, Place(None, 18 * GB, 0), 18 * GB)
    assert asked is not None
    assert not asked.offloaded
    assert plan(footprint_of, 8192, Place(None, 5 * GB, 0), 5 * GB) is None  # there is no other memory to put experts


def test_imports_no_torch() -> None:
    code = "import sys, dgemma_cli.commands.before_loading, dgemma_cli.fit; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

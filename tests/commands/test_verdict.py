"""Whether a pull's model would fit, on machines that are made up."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from fake_hub import FakeHub

from dgemma_cli import memory
from dgemma_cli.catalog.known import KNOWN
from dgemma_cli.catalog.names import Reference, parse_hub
from dgemma_cli.catalog.plan import make_plan
from dgemma_cli.catalog.pull import pull
from dgemma_cli.commands.default_model import default_model
from dgemma_cli.commands.verdict import best, verdict
from dgemma_cli.machine import Gpu, Machine
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

Checkpoint = Callable[..., dict[str, bytes]]
GB = 1_000_000_000


def machine(*free: float) -> Machine:
    """A host of 64 GB with GPUs that have so many GB free."""
    gpus = tuple(
        Gpu(
            index=index,
            name="GPU",
            total=100 * GB,
            free=int(each * GB),
            capability=(9, 0),
            driver="1",
            unified=False,
            users=(),
        )
        for index, each in enumerate(free)
    )
    return Machine(gpus, 8, 64 * GB, 60 * GB, "2.13", "13.0", "" if gpus else "There is no GPU.", "Buy one.")


def chosen(*free: float) -> str:
    return best(parse_hub("diffusiongemma"), machine(*free)).repository


def test_the_first_that_fits_is_the_best() -> None:
    needs = {
        each.repository: memory.of_scheme(NETWORK, CHECKPOINTS[each.name].scheme).needs(8192, "cuda").total
        for each in KNOWN
    }
    first, second = "nvidia/diffusiongemma-26B-A4B-it-NVFP4", "RedHatAI/diffusiongemma-26B-A4B-it-NVFP4"
    assert chosen(80) == first
    assert needs[second] < needs[first]
    assert chosen(needs[first] / GB) == first
    assert chosen((needs[first] - 1) / GB) == second
    assert chosen(1, 80) == first
    assert chosen(1) == first  # nothing fits: the plan will say so


def test_without_a_gpu_the_default_stays() -> None:
    assert chosen() == "nvidia/diffusiongemma-26B-A4B-it-NVFP4"


def test_the_only_meaning_is_taken_as_it_is() -> None:
    references = parse_hub("diffusiongemma:bf16@v1")
    assert best(references, machine(1)) == references[0]


def test_a_plan_is_held_against_the_machine(hub: FakeHub, checkpoint: Checkpoint) -> None:
    hub.add("tiny/bf16", checkpoint())
    plan = make_plan(Reference("tiny/bf16", "tiny/bf16"))
    assert verdict(plan, machine(80, 40)).text() == "It fits on cuda:0."
    assert verdict(plan, machine()).text() == "It fits on cpu."
    full = verdict(plan, machine(0.001))
    assert "are free on cuda:0" in full.text()
    assert full.context == 4096  # the tiny model has no more
    # Its 287,000 numbers, a cache, logits and the process itself.
    assert 500_000_000 < full.needs < 700_000_000


def test_a_published_model_without_a_gpu_says_what_is_missing(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    config = json.loads(files["config.json"])
    config["text_config"] |= {"hidden_size": 2816, "num_experts": 128, "moe_intermediate_size": 704}
    hub.add("large/bf16", {**files, "config.json": json.dumps(config).encode()})
    plan = make_plan(Reference("large/bf16", "large/bf16"))
    assert verdict(plan, machine()).text() == "There is no GPU."


def test_of_several_on_the_disk_the_one_that_fits_is_taken_and_said(
    hub: FakeHub, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("diffusiongemma:nvfp4", "diffusiongemma:int4")

    def taken(quiet: bool, *free: float) -> str:
        return default_model(Environment.current(), quiet, machine(*free))

    assert taken(False, 80) == "diffusiongemma"  # nothing is here: nothing to choose from
    for name in names:
        repository = parse_hub(name)[0].repository
        hub.add(repository, checkpoint())
        pull(make_plan(Reference(name, repository)), lambda *_: None)
    assert capsys.readouterr().err == ""
    assert taken(False, 80) == names[0]
    assert "diffusiongemma:nvfp4: the first of 2 on this disk that fits cuda:0" in capsys.readouterr().err
    int4 = memory.of_scheme(NETWORK, CHECKPOINTS[names[1]].scheme).needs(8192, "cuda").total
    assert taken(True, int4 / GB) == names[1]
    assert capsys.readouterr().err == ""
    assert taken(False, 1) == names[0]
    assert "none of them fits" in capsys.readouterr().err

"""The sections of ``gpu.py``: what each measures. One runs in a process of its own and writes figures as it goes."""

from __future__ import annotations

import platform
import re
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import gpu_measure as measure
import torch
from gpu import write
from gpu_attention import attention
from gpu_memory import memory
from gpu_tiles import tiles
from gpu_weights import narrow_routing, published, random_model
from torch import Tensor, nn

from dgemma_cli.engine.comparison import compare, recorded_as_called
from dgemma_cli.engine.denoise import Task
from dgemma_cli.engine.events import BlockCommitted, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.graphed import AHEAD, Board, board_of, graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.sampler import Sampler
from dgemma_cli.kernels.operations import Operations
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import Encoding, FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls, Executor, Graphs
from dgemma_cli.model.static_cache import StaticCache
from dgemma_cli.sampling.draws import SeededDraws

PUBLISHED_TOKENS_PER_FORWARD = 18.8  # of the technical report


@dataclass
class Bench:
    """Where a section measures, and the figures it has so far, which are in ``file`` at any time."""

    file: Path
    dry: bool
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry else "cuda")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.dry else torch.bfloat16

    @property
    def contexts(self) -> tuple[int, ...]:
        return (40, 100) if self.dry else (1024, 4096, 32_768)

    def put(self, **figures: Any) -> None:
        self.figures |= figures
        write(self.file, self.figures)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What fails inside is written down, and the section goes on."""
        try:
            yield
        except Exception:
            traceback.print_exc()
            self.put(errors={**self.figures.get("errors", {}), name: traceback.format_exc()[-1500:]})

    def operations(self) -> Operations:
        if self.dry:
            return PlainOperations()
        from dgemma_cli.kernels.fast import FastOperations

        return FastOperations()

    def executor(self) -> Executor:
        return Calls() if self.dry else Graphs(self.device)


def run(name: str, file: Path, dry: bool) -> None:
    """One section; its figures in ``file``."""
    torch.set_grad_enabled(False)
    bench = Bench(file, dry)
    if dry:
        torch.set_num_threads(1)
    sections = {
        "environment": environment,
        "tests": tests,
        "transformers": transformers,
        "tiles": tiles,
        "attention": attention,
    }
    if name == "memory":
        memory(bench.put, dry)
    elif name in sections:
        sections[name](bench)
    else:
        steps(bench, name)


def environment(bench: Bench) -> None:
    """What this machine is, and the rates that bound everything."""
    bench.put(python=platform.python_version(), torch=torch.__version__, cuda=str(torch.version.cuda))
    with bench.part("versions"):
        import triton

        bench.put(triton=triton.__version__)
    with bench.part("commit"):
        bench.put(commit=_output("git", "rev-parse", "HEAD"))
    if not bench.dry:
        with bench.part("card"):
            card = torch.cuda.get_device_properties(0)
            bench.put(
                card=card.name,
                compute_capability=f"{card.major}.{card.minor}",
                multiprocessors=card.multi_processor_count,
                memory=card.total_memory,
            )
            asked = "driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu,utilization.gpu"
            bench.put(nvidia_smi=f"{asked}: {_output('nvidia-smi', f'--query-gpu={asked}', '--format=csv,noheader')}")
    with bench.part("rates"):
        bench.put(copy_bytes_per_second=measure.copy_rate(bench.device))
        bench.put(matrix_operations_per_second=measure.matrix_rate(bench.device))


def tests(bench: Bench) -> None:
    """The kernels' tests against their references, on the device."""
    targets = ["tests/kernels/test_reference.py"] if bench.dry else ["tests/kernels"]
    workers = "1" if bench.dry else "8"  # their time goes into compiling
    command = [sys.executable, "-m", "pytest", *targets, "-vv", "-n", workers, "-p", "no:cacheprovider", "--no-header"]
    # What compiles for every card ahead of time needs none, and takes minutes.
    command += ["--ignore=tests/kernels/test_compile_kernels.py", "--tb=short"]
    ended: Counter[str] = Counter()
    failed: list[str] = []
    line = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for line in running.stdout or ():
            print(line, end="")
            test = re.match(r"\[gw\d+\] \[ *\d+%\] ([A-Z]+) (.*)", line)
            if test is not None:
                ended[test[1].lower()] += 1
                failed += [test[2].strip()] if test[1] in ("FAILED", "ERROR") else []
                bench.put(**ended, failed_tests=failed[:40])
    bench.put(summary=line.strip("= \n"))
    bench.put(exit_code=running.returncode)


def steps(bench: Bench, form: str) -> None:
    """A format: its steps at each context with ordinary and narrow routing, and all that goes with them."""
    device, config = bench.device, published(bench.dry)
    bench.put(copy_bytes_per_second=measure.copy_rate(device))
    started = time.perf_counter()
    plain = random_model(config, form, device, bench.dtype)
    measure.wait(device)
    bench.put(making_weights_seconds=time.perf_counter() - started)
    if not bench.dry:  # what filling the weights took is nobody's peak
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    fused = FusedModel(plain, bench.operations(), bench.executor())
    bench.put(experts_in=measure.expert_rows(plain), kernels_used=fused.kernels)
    if not bench.dry:
        bench.put(weights_bytes=torch.cuda.memory_allocated())
    with bench.part("recording"):
        _recording(bench, fused)
    for distinct in (config.num_experts, round(config.num_experts * 84 / 128)):
        narrow_routing(plain, distinct)
        for context in bench.contexts:
            with bench.part(f"steps of {distinct} experts at {context}"):
                row = _step(bench, fused, plain, context)
                bench.put(steps=[*bench.figures.get("steps", []), row])
    for name, work in (
        ("prefill", _prefill),
        ("whole loop", _whole_loop),
        ("peak", _peak),  # before plain torch computes
        ("kernels", _kernels),
        ("parity", _parity),
    ):
        with bench.part(name):
            work(bench, fused)


def _recording(bench: Bench, fused: FusedModel) -> None:
    """How long the first recording of a step takes, kernels compiled or read from Triton's cache, and a later one."""
    cache = held(fused, bench.contexts[0])
    for name in ("first", "later"):
        cache.buffers.programs.clear()
        taken = measure.seconds(bench.device, lambda: board_of(fused, cache.buffers, 48))
        bench.put(**{f"recording_{name}_seconds": taken})


def _step(bench: Bench, fused: FusedModel, plain: Model, context: int) -> dict[str, object]:
    device, canvas = bench.device, fused.config.canvas_length
    cache = held(fused, context)
    board = board_of(fused, cache.buffers, 48)
    begin(board, fused, cache)
    repetitions = 3 if bench.dry else 40
    look, soften = measure.milliseconds(device, [board.look, board.soften], repetitions)
    ids = torch.randint(0, fused.config.vocab_size, (canvas,), device=device)
    soft = torch.zeros(canvas, fused.config.hidden_size, dtype=fused.dtype, device=device)
    network = fused.executor.record(lambda: fused.scores(fused.decode(ids, soft, cache.buffers)))
    (of_network,) = measure.milliseconds(device, [network], repetitions)
    fused.encode(ids, cache)  # records a commit
    commit = cast(Encoding, cache.buffers.programs["encode"])
    (commit_ms,) = measure.milliseconds(device, [commit.run], repetitions)
    distinct, busiest = distinct_experts(bench, plain, context)
    parts = measure.step_bytes(fused, context, distinct)
    floor = sum(parts.values()) / bench.figures["copy_bytes_per_second"] * 1000
    step = look + soften
    return {
        "context": context,
        "distinct_experts": distinct,
        "most_rows_of_an_expert": busiest,
        "step_ms": step,
        "look_ms": look,
        "soften_ms": soften,
        "network_ms": of_network,
        "sampling_share": (look - of_network) / step,
        "commit_ms": commit_ms,
        "bytes": parts,
        "floor_ms": floor,
        "floor_share": floor / step,
        "tokens_per_second_at_18.8": PUBLISHED_TOKENS_PER_FORWARD / step * 1000,
    }


def _peak(bench: Bench, fused: FusedModel) -> None:
    """The most bytes of the device so far, all contexts among them."""
    if not bench.dry:
        bench.put(peak_bytes=torch.cuda.max_memory_allocated(), reserved_bytes=torch.cuda.max_memory_reserved())


def _prefill(bench: Bench, fused: FusedModel) -> None:
    length = 100 if bench.dry else 4096
    ids = torch.randint(0, fused.config.vocab_size, (length,))
    fused.encode(ids, fused.new_cache())
    times = [measure.seconds(bench.device, lambda: fused.encode(ids, fused.new_cache())) for _ in range(3)]
    bench.put(prefill_tokens=length, prefill_tokens_per_second=length / statistics.median(times))


def _whole_loop(bench: Bench, fused: FusedModel) -> None:
    """``generate`` by the host's clock: blocks of a fixed number of steps, each kind in turns."""
    blocks, steps, prompt = 3, 3 if bench.dry else 12, [5] * (30 if bench.dry else 1000)
    fused.defaults = type(fused.defaults)(eos_ids=frozenset())

    def once(ahead: int = AHEAD, drafts: bool = False, **options: Any) -> tuple[float, float]:
        """Milliseconds a pass, and a block."""
        asked = Options(max_tokens=blocks * fused.config.canvas_length, seed=0, drafts=drafts, **options)
        events = list(generate(fused, prompt, asked, denoiser=lambda task: graphed(task, ahead)))
        last = events[-1]
        assert isinstance(last, Finished)
        figures = last.statistics
        written = (figures.seconds - figures.prefill_seconds) * 1000
        assert sum(isinstance(event, BlockCommitted) for event in events) == figures.blocks
        return written / (figures.steps + figures.blocks - 1), written / figures.blocks

    never: dict[str, Any] = {"steps": steps, "stability": 10_000}
    at_once: dict[str, Any] = {"steps": steps, "stability": 0, "confidence": 1e6}
    kinds: dict[str, Callable[[], float]] = {
        "pass_ms": lambda: once(**never)[0],
        "pass_ms_with_live_events": lambda: once(drafts=True, **never)[0],
        "pass_ms_one_step_ahead": lambda: once(ahead=1, **never)[0],
        "block_ms_of_one_step": lambda: once(ahead=0, **at_once)[1],
        "block_ms_of_one_step_one_ahead": lambda: once(ahead=1, **at_once)[1],
    }
    for work in kinds.values():
        work()
    rounds = [{name: work() for name, work in kinds.items()} for _ in range(2 if bench.dry else 7)]
    found = {name: statistics.median(turn[name] for turn in rounds) for name in kinds}
    bench.put(**found, live_events_cost=found["pass_ms_with_live_events"] / found["pass_ms"] - 1)
    bench.put(tokens_per_second_at_published=PUBLISHED_TOKENS_PER_FORWARD / found["pass_ms"] * 1000)


def _kernels(bench: Bench, fused: FusedModel) -> None:
    cache = held(fused, bench.contexts[-2])
    board = board_of(fused, cache.buffers, 48)
    begin(board, fused, cache)

    def step() -> None:
        board.look()
        board.soften()

    bench.put(kernels=measure.kernels(bench.device, step, 3)[:60])


def _parity(bench: Bench, fused: FusedModel) -> None:
    """Beside plain torch on the same weights: what is done once on a GPU when a model is loaded there. Both round to
    bfloat16 on the way, in other places; on small networks tests/kernels says how near each is to the truth.
    """
    begun = time.perf_counter()
    found = compare(fused)
    bench.put(parity_network=found.network, parity_wrong=str(found.wrong))
    bench.put(recorded_as_called=recorded_as_called(fused), comparing_seconds=time.perf_counter() - begun)


def held(model: Model, context: int) -> StaticCache:
    """A cache of ``context`` tokens that were never encoded: random keys and values, as large as norms make them."""
    cache = model.new_cache()
    assert isinstance(cache, StaticCache)
    cache.reserve(context + 2 * model.config.canvas_length)
    for done in range(0, context, model.chunk):
        new = min(model.chunk, context - done)
        cache.begin(new)
        cache.end(new)
    generator = torch.Generator(model.device).manual_seed(0)
    for k, v in zip(cache.buffers.k, cache.buffers.v, strict=True):
        k.normal_(0, k.shape[-1] ** -0.25, generator=generator)
        v.normal_(generator=generator)
    return cache


def begin(board: Board, model: FusedModel, cache: StaticCache) -> None:
    """Tell ``board`` of a canvas that takes all of 48 steps; no more may be launched."""
    options = Options(steps=48, stability=10_000)
    draws = SeededDraws(0, model.config.canvas_length, model.config.vocab_size, model.device)
    sampler = Sampler.resolve(options, model.defaults)
    board.begin(Task(model, cache, sampler, [draws], 0, model.config.canvas_length, False), draws)


def distinct_experts(bench: Bench, plain: Model, context: int) -> tuple[float, int]:
    """How many experts a layer's tokens go to in a step, on average, and the most tokens that one of them has."""
    counts: list[Tensor] = []

    class Counting(type(bench.operations())):  # type: ignore[misc]
        def experts(self, x: Tensor, module: nn.Module, weights: Tensor, experts: Tensor) -> Tensor:
            counts.append(torch.bincount(experts.flatten().long(), minlength=plain.config.num_experts))
            found: Tensor = super().experts(x, module, weights, experts)
            return found

    fused = FusedModel(plain, Counting(), Calls())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, plain.config.vocab_size, (plain.config.canvas_length,), generator=generator)
    fused.decode(ids.to(bench.device), None, held(fused, context).buffers)
    each = torch.stack(counts)
    return float((each > 0).sum(-1).float().mean()), int(each.max())


def transformers(bench: Bench) -> None:
    """The reference implementation as it is fastest, compiled with a static cache, on the same bfloat16 weights."""
    from gpu_transformers import borrowed, generation

    config = published(bench.dry)
    model = random_model(config, "bf16", bench.device, bench.dtype)
    narrow_routing(model, round(config.num_experts * 84 / 128))
    network = borrowed(model)
    import transformers as library

    bench.put(transformers=library.__version__)
    prompt = torch.randint(0, config.vocab_size, (1, 40 if bench.dry else 4096), device=bench.device)
    if bench.dry:
        cache = model.new_cache()
        model.encode(prompt[0], cache)
        canvas = torch.arange(config.canvas_length)
        theirs = network(input_ids=prompt, decoder_input_ids=canvas[None]).logits[0]
        difference = float((theirs - model.denoise(canvas, cache, None)).abs().max())
        assert difference < 1e-3, difference
        bench.put(largest_difference=difference)
    few, many = (1, 3) if bench.dry else (4, 20)
    bench.put(context=prompt.shape[1])

    theirs_generate: Any = network.generate  # how it is annotated changes from version to version

    def taken(steps: int, compiled: bool) -> float:
        settings = generation(config, steps, compiled)
        work = partial(theirs_generate, prompt, generation_config=settings)
        return measure.seconds(bench.device, work)

    def step_ms(compiled: bool) -> float:
        """What a further step costs."""
        taken(few, compiled)
        times = [taken(many, compiled) - taken(few, compiled) for _ in range(1 if bench.dry else 3)]
        return statistics.median(times) / (many - few) * 1000

    with bench.part("not compiled"):
        bench.put(not_compiled_step_ms=step_ms(compiled=False))
    if not bench.dry:
        with bench.part("compiled"):
            bench.put(compiling_seconds=taken(few, compiled=True))
            bench.put(step_ms=step_ms(compiled=True))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

"""What kernels compute on a device is held against plain torch there: faults are found, rounding is not one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gpu_weights
import pytest
import torch
from tape import Tape
from torch import Tensor, nn

from dgemma_cli.engine.comparison import LIMIT, apart, compare, recorded_as_called
from dgemma_cli.kernels.operations import Sampled
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.programs import Calls, Executor, Run
from dgemma_cli.sampling.draws import pick_by_inverse_cdf
from dgemma_cli.sampling.rules import Rules
from dgemma_cli.sampling.statistics import predict


def model(
    operations: PlainOperations, dtype: torch.dtype = torch.bfloat16, executor: Executor | None = None
) -> FusedModel:
    sizes = replace(gpu_weights.TINY, canvas_length=32, sliding_window=20, num_experts=4)
    plain = gpu_weights.random_model(sizes, "nvfp4", torch.device("cpu"), dtype)
    return FusedModel(plain, operations, executor or Calls(), chunk=64)


class Reading(PlainOperations):
    """Reads the logits and decides by kernels of its own, which are right."""

    def sample(self, scores: Tensor, cap: float, temperature: Tensor, uniform: Tensor) -> Sampled:  # type: ignore[override]
        logits = scores.float().div(cap).tanh().mul(cap)
        probabilities, entropy, draft = predict(logits, temperature)
        return Sampled(draft, entropy, pick_by_inverse_cdf(probabilities, uniform[:, None]), probabilities)

    def advance(self, *given: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        numbers, eos, previous, unchanged, draft, entropy, picked, noise, canvas = given
        rules = Rules(numbers, len(draft), eos.tolist())
        rules.previous, rules.unchanged = previous, unchanged
        accepted = rules.accept(entropy)
        canvas.copy_(torch.where(accepted, picked, noise))
        return accepted, rules.stop(draft, entropy)


class LastRowsLost(Reading):
    def experts(self, x: Tensor, module: nn.Module, weights: Tensor, experts: Tensor) -> Tensor:
        found = super().experts(x, module, weights, experts).clone()
        found[-16 * experts.shape[1] :] = 0
        return found


class AColumnLost(Reading):
    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        found = super().mlp(x, module).clone()
        found[:, -16:] = 0
        return found


class LooksPastTheWindow(Reading):
    def attend_canvas(self, q: Tensor, k: Tensor, v: Tensor, first: Tensor, start: Tensor, planes: int = 1) -> Tensor:
        return super().attend_canvas(q, k, v, torch.zeros_like(first), start, planes)


class NotANumber(Reading):
    def rms_norm(self, x: Tensor, weight: Tensor | None, eps: float, planes: int = 1) -> Tensor:
        found = super().rms_norm(x, weight, eps, planes).clone()
        found[-1, -1] = torch.nan
        return found


class NextExpert(Reading):
    def route(self, scores: Tensor, top_k: int, per_expert_scale: Tensor) -> tuple[Tensor, Tensor]:
        weights, experts = super().route(scores, top_k, per_expert_scale)
        return weights, (experts + 1) % scores.shape[1]


class Misreads(Reading):
    def __init__(self, part: str) -> None:
        self._part = part

    def sample(self, *given: Any) -> Sampled:  # type: ignore[override]
        read = super().sample(*given)
        wrong: dict[str, Tensor] = {
            "draft": read.draft.roll(1),
            "entropy": read.entropy + 0.1,
            "probabilities": read.probabilities.roll(1, dims=1),
            "picked": torch.zeros_like(read.picked),
        }
        return read._replace(**{self._part: wrong[self._part]})


class AcceptsAll(Reading):
    def advance(self, *given: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        accepted, stop = super().advance(*given)
        return torch.ones_like(accepted), stop


class StopsAtOnce(Reading):
    def advance(self, *given: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        accepted, stop = super().advance(*given)
        return accepted, torch.ones_like(stop)


class KeepsTheCanvas(Reading):
    def advance(self, *given: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        *state, canvas = given
        return super().advance(*state, canvas.clone())


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("operations", [PlainOperations(), Reading()])
def test_what_is_right_is_found_right(dtype: torch.dtype, near: float, operations: PlainOperations) -> None:
    found = compare(model(operations, dtype))
    assert found.wrong is None
    assert found.network < near < LIMIT / 5


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        (LastRowsLost(), "the network's outputs differ by"),
        (AColumnLost(), "the network's outputs differ by"),
        (LooksPastTheWindow(), "the network's outputs differ by"),
        (NotANumber(), "the network's outputs differ by inf"),
        (NextExpert(), "tokens go to other experts, by"),
        (Misreads("draft"), "what is read off the logits differs in the drafts"),
        (Misreads("entropy"), "what is read off the logits differs in the entropies"),
        (Misreads("probabilities"), "what is read off the logits differs in the probabilities"),
        (Misreads("picked"), "what is read off the logits differs in the draws"),
        (AcceptsAll(), "what is accepted differs"),
        (StopsAtOnce(), "what is accepted differs"),
        (KeepsTheCanvas(), "what is accepted differs"),
    ],
)
def test_faults_are_found(fault: PlainOperations, wrong: str) -> None:
    found = compare(model(fault))
    assert found.wrong is not None
    assert found.wrong.startswith(wrong)


def test_rows_are_told_apart_in_groups() -> None:
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    few, tile = rows.clone(), rows.clone()
    few[::16] = 0  # one in each group: two experts that are as good as tied may be chosen otherwise
    tile[16:32] = 0
    assert apart(rows, rows) == 0
    assert apart(few, rows) == 0
    assert apart(tile, rows) == 1


class Forgetful(Tape):
    """Records, but plays nothing of the last recording, which is that of a commit."""

    def record(self, work: Run) -> Run:
        play = super().record(work)
        return play if self.recordings < 3 else lambda: None


def test_recorded_steps_are_those_that_are_called() -> None:
    recorded = model(PlainOperations(), torch.float32, Tape())
    tape = recorded.executor
    assert recorded_as_called(recorded)
    assert recorded.executor is tape
    assert tape.recordings == 3  # type: ignore[attr-defined]
    assert {"denoise", "encode"} <= recorded.new_cache().buffers.programs.keys()  # they serve the first reply
    assert not recorded_as_called(model(PlainOperations(), torch.float32, Forgetful()))

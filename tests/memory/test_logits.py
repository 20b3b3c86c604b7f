"""The copies of a canvas's logits that memory.py counts on, against those that torch's operations hold.

What a GPU would hold is seen on meta tensors, which take the same way as CUDA's through the code: each operation's
results are counted from its call until nobody refers to them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.memory import Footprint, Work, logit_copies
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.sampling.draws import pick_by_inverse_cdf
from dgemma_cli.sampling.statistics import predict

VOCAB = 1 << 17
CONFIG = replace(tiny.config(canvas=64), vocab_size=VOCAB, hidden_size=64)
COPY = 4 * CONFIG.canvas_length * VOCAB


class Held(TorchDispatchMode):
    """Bytes of the results that are still referred to, but for ``known``: now, and the most so far."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in (each for each in tree_leaves(found) if isinstance(each, Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.now:
                self.now[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.now.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.now.values()))
        return found


def on_meta(packed: bool) -> Model:
    with torch.device("meta"):
        model = Model(CONFIG).bfloat16().requires_grad_(False)
        if packed:
            matrix = Int8(1, 1, VOCAB, CONFIG.hidden_size, torch.bfloat16)
            model.embed_tokens = PackedEmbedding(matrix, torch.bfloat16)  # type: ignore[assignment]
    return model


def copies(model: Model, canvases: int) -> float:
    """Of a step: the head over all canvases, and what is made of the logits of each."""
    hidden = torch.empty(canvases, CONFIG.canvas_length, CONFIG.hidden_size, dtype=torch.bfloat16, device="meta")
    uniform = torch.empty(CONFIG.canvas_length, 1, device="meta")
    held = Held([*model.parameters(), *model.buffers()])
    with held, torch.no_grad():
        logits = model.head(hidden)
        for own in logits:
            probabilities, _, _ = predict(own, 0.7)
            pick_by_inverse_cdf(probabilities, uniform)
            model.expected_embedding(probabilities)
    return held.most / COPY


def test_rows_of_a_packed_embedding() -> None:
    matrix = on_meta(packed=True).embed_tokens.matrix
    assert isinstance(matrix, Int8)
    held = Held(matrix.buffers())
    with held:
        matrix.unpack(0, torch.bfloat16, slice(0, 4096))
    values = 4096 * CONFIG.hidden_size
    without, packed = (Footprint(CONFIG, "bfloat16", 0, values, rows) for rows in (0, values))
    counted = packed.needs(100, "cuda").working - without.needs(100, "cuda").working
    assert held.most == pytest.approx(counted, rel=0.02)
    # Torch unpacks matrices; Triton's kernels hold nothing of them but such rows.
    assert without.needs(100, "cuda") == Footprint(CONFIG, "bfloat16", 0, 0).needs(100, "cuda")
    torchs = Work(triton=False)
    assert (
        without.needs(100, "cuda", work=torchs).working
        > Footprint(CONFIG, "bfloat16", 0, 0).needs(100, "cuda", work=torchs).working
    )


@pytest.mark.parametrize("canvases", [1, 2, 4, 16])
def test_the_plain_loop_on_cuda(canvases: int) -> None:
    found = copies(on_meta(packed=False), canvases)
    assert found == pytest.approx(logit_copies("cuda", False, Work(canvases))[0], rel=0.02)


@pytest.mark.parametrize("canvases", [1, 2, 4, 16])
@pytest.mark.parametrize("packed", [False, True])
def test_the_plain_loop_of_the_fused_model(canvases: int, packed: bool) -> None:
    plain = on_meta(packed)
    fused = object.__new__(FusedModel)
    nn.Module.__init__(fused)
    fused.config, fused.operations, fused.embed_tokens = CONFIG, PlainOperations(), plain.embed_tokens
    fused.stack, fused._embedding_scale = plain.stack, plain._embedding_scale
    found = copies(fused, canvases)
    assert found == pytest.approx(logit_copies("cuda", True, Work(canvases, plain=True))[0], rel=0.02)

"""The model's modules for a plan, without weights yet: packed ones in the places of plain ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import NVFP4
from dgemma_cli.kernels.packed import Packed, PackedExperts, PackedLinear, StackedLinear
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.model import Model
from dgemma_cli.weights.formats import Format, FP8Format, Int4Format, Int8Format, NVFP4Format
from dgemma_cli.weights.layout import PackedEmbeddingSpec, PackedExpertsSpec, PackedLinearSpec, Plan

TORCH_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
}


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out the initial values of modules. On the meta device they are not even drawn, and yet cost seconds: the
    first ``normal_`` there imports all of torch's compiler.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def build(config: ModelConfig, plan: Plan, device: str, dtype: torch.dtype, offloaded: int = 0) -> Model:
    """A model whose parameters and buffers have their places on ``device``, and nothing in them.

    dtype is that of the plain parameters; packed ones keep the dtypes of their format. offloaded: how many of the last
    layers have their experts in the host's memory instead, pinned for copies to the device.
    """
    with torch.device("meta"), _NoRandomNumbers():
        model = Model(config).to(dtype)
        for name, spec in plan.packed.items():
            if isinstance(spec, PackedExpertsSpec):
                made: nn.Module = _experts(config, spec)
            elif isinstance(spec, PackedEmbeddingSpec):
                scale_dtype = TORCH_DTYPES[spec.format.scale_dtype]
                made = PackedEmbedding(Int8(1, 1, spec.rows, spec.columns, scale_dtype), dtype)
            else:
                made = _linear(spec, dtype)
            model.set_submodule(name, made)
    count = len(config.layers)
    in_host = tuple(f"stack.layers.{index}.experts" for index in range(count - offloaded, count))
    pinned = torch.device(device).type == "cuda"
    for path, module in model.named_modules():  # as Module.to_empty does, whose empty_like would import the compiler
        host = path.startswith(in_host) if in_host else False
        where = {"device": "cpu", "pin_memory": pinned} if host else {"device": device}
        for name, parameter in list(module.named_parameters(recurse=False)):
            place = torch.empty(parameter.shape, dtype=parameter.dtype, **where)
            setattr(module, name, nn.Parameter(place, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, **where))
    return model.eval()


def _linear(spec: PackedLinearSpec, dtype: torch.dtype) -> nn.Module:
    parts = [
        PackedLinear(packed(form, 1, spec.stack, rows, spec.columns))
        if form is not None
        else nn.Linear(spec.columns, rows, bias=False, dtype=dtype)
        for rows, form in spec.parts
    ]
    return parts[0] if len(parts) == 1 else StackedLinear(parts)


def _experts(config: ModelConfig, spec: PackedExpertsSpec) -> PackedExperts:
    count, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
    return PackedExperts(
        packed(spec.gate_up, count, 2, inner, hidden),
        packed(spec.down, count, 1, hidden, inner),
    )


def packed(form: Format, count: int, stack: int, rows: int, columns: int) -> Packed:
    """An empty module of a format, see ``kernels.packed``."""
    match form:
        case NVFP4Format():
            return NVFP4(count, stack, rows, columns, form.compressed, form.matrix_scale_shape)
        case Int4Format():
            return Int4(count, stack, rows, columns, TORCH_DTYPES[form.scale_dtype])
        case Int8Format():
            return Int8(count, stack, rows, columns, TORCH_DTYPES[form.scale_dtype])
        case FP8Format():
            return FP8(count, stack, rows, columns)
    raise AssertionError(f"no module for {form.label}")

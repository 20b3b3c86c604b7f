"""The section of ``gpu.py`` on a canvas's attention: the kernels beside torch's own, and in other tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import gpu_measure as measure
import torch
from gpu_weights import published
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dgemma_cli.model.cache import attend

if TYPE_CHECKING:
    from gpu_sections import Bench

_BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
_LAUNCHES = 8  # one after the other in a recording, each on keys of its own


def attention(bench: Bench) -> None:
    """Microseconds of a layer's attention for a canvas, by the keys that it sees: of the kernels with as many parts of
    the keys as they choose and with others, and of torch's functions on the same keys without a recording's freedom of
    length. It is told which function does not do such heads, and which tile does not fit.
    """
    config, device = published(bench.dry), bench.device
    operations = bench.operations()
    for layer in {(shape.sliding, shape.head_dim): shape for shape in config.layers}.values():
        dim, kv_heads, tokens = layer.head_dim, layer.num_kv_heads, config.canvas_length
        seen = (config.sliding_window - 1,) if layer.sliding else bench.contexts
        for kept in seen:
            length = kept + tokens
            q = torch.randn(tokens, layer.num_heads, dim, device=device).to(bench.dtype) * dim**-0.25
            keys, values = (
                [torch.randn(kv_heads, length, dim, device=device).to(bench.dtype) for _ in range(_LAUNCHES)]
                for _ in range(2)
            )
            first, start = (torch.tensor([number], dtype=torch.int32, device=device) for number in (0, kept))

            def kernels(k: Tensor, v: Tensor, q: Tensor = q, first: Tensor = first, start: Tensor = start) -> Tensor:
                return operations.attend_canvas(q, k, v, first, start)

            def torchs(k: Tensor, v: Tensor, q: Tensor = q) -> Tensor:
                return attend(q.transpose(0, 1)[None], k[None], v[None])

            tried: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kernels": kernels, "torch": torchs}
            for backend in _BACKENDS:
                tried[f"torch {backend.name.lower()}"] = _by(backend, torchs)
            if not bench.dry:
                tried |= _in_tiles(dim, q, first, start)
            kind = "sliding" if layer.sliding else "full"
            for name, work in tried.items():
                try:
                    told = f"{_microseconds(bench, work, keys, values):.1f} us"
                except Exception as error:  # whatever a function raises that cannot do it
                    told = f"{type(error).__name__}: {str(error)[:80]}"
                row = f"{kind} {length} keys, {name}: {told}"
                bench.put(attention=[*bench.figures.get("attention", []), row])


def _by(backend: SDPBackend, work: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def through(k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return work(k, v)

    return through


def _in_tiles(dim: int, q: Tensor, first: Tensor, start: Tensor) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    from dgemma_cli.kernels.attention import SPLITS, Tiles, attend_canvas, other_tiles, tiles_for
    from dgemma_cli.kernels.launch import architecture

    def within(tiles: Tiles, splits: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda k, v: attend_canvas(q, k, v, first, start, tiles=tiles, splits=splits)

    card = architecture(q)
    return {
        f"{tuple(tiles)} in {splits}": within(tiles, splits)
        for tiles in (tiles_for(dim, card), *other_tiles(dim, card))
        for splits in SPLITS
    }


def _microseconds(
    bench: Bench, work: Callable[[Tensor, Tensor], Tensor], keys: list[Tensor], values: list[Tensor]
) -> float:
    def layers() -> None:
        for k, v in zip(keys, values, strict=True):
            work(k, v)

    (taken,) = measure.milliseconds(bench.device, [bench.executor().record(layers)], 2 if bench.dry else 10)
    return taken * 1000 / len(keys)

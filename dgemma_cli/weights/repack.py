"""A checkpoint's matrices packed anew while they are read: a few at a time, never a second copy of the model."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from dgemma_cli.weights.build import TORCH_DTYPES, packed
from dgemma_cli.weights.checkpoint import Checkpoint
from dgemma_cli.weights.formats import Format, Int4Format, Int8Format, NVFP4Format
from dgemma_cli.weights.layout import Matrix, Plan
from dgemma_cli.weights.quantise import Loss, Quantised, to_int4, to_int8, to_nvfp4
from dgemma_cli.weights.reader import Files, Task, check_values
from dgemma_cli.weights.recipe import part_of
from dgemma_cli.weights.shards import Stored

Sink = Callable[[str, int, Tensor], None]
"""Takes a tensor of the new checkpoint by its name there, or its rows from a first one on."""

_ROWS = 16_384  # packed at once, where rows do not depend on one another


class Losses:
    """What rounding did, by layer (-1 for what belongs to none) and part of the network. Threads may add at once."""

    def __init__(self) -> None:
        self.by_part: dict[tuple[int, str], Loss] = defaultdict(Loss)
        self._lock = threading.Lock()

    def add(self, matrix: str, loss: Loss) -> None:
        """Count a matrix, by its name in the checkpoint."""
        words = matrix.split(".")
        layer = int(words[words.index("layers") + 1]) if "layers" in words else -1
        with self._lock:
            self.by_part[layer, part_of(matrix) or ""] += loss

    def parts(self) -> dict[str, Loss]:
        """By part, all layers together."""
        found: dict[str, Loss] = defaultdict(Loss)
        for (_, part), loss in sorted(self.by_part.items()):
            found[part] += loss
        return dict(found)


@dataclass(frozen=True, slots=True)
class _Repacking:
    """A reader's task. pairs: matrices that are used together, as they are stored and as they shall be: they get one
    matrix scale, as fused kernels of other engines expect it. sources: what is read. first: number of the first row.
    """

    pairs: tuple[tuple[Matrix, Matrix], ...]
    sources: Mapping[str, Stored]
    device: str
    sink: Sink
    losses: Losses
    first: int = 0

    def run(self, files: Files) -> None:
        form = self.pairs[0][1].format
        if isinstance(form, NVFP4Format) and all(isinstance(before.format, NVFP4Format) for before, _ in self.pairs):
            for before, after in self.pairs:
                self._rename(files, before, after)
            return
        values = [self._values(files, before) for before, _ in self.pairs]
        pack = _packer(form, values)
        for (_, after), each in zip(self.pairs, values, strict=True):
            buffers, loss = pack(each)
            self.losses.add(after.name, loss)
            self._hand_over(after, buffers)

    def _values(self, files: Files, matrix: Matrix) -> Tensor:
        """Float32 [rows, columns]."""
        if matrix.format is None:
            return self._read(files, matrix.name, matrix.tensor, "finite").to(self.device).float()
        with torch.device(self.device):
            module = packed(matrix.format, 1, 1, matrix.rows, matrix.columns)
        for name, found in self._parts(files, matrix).items():
            module.get_buffer(name)[0, 0].copy_(found)
        return module.unpack(0, torch.float32)

    def _parts(self, files: Files, matrix: Matrix) -> dict[str, Tensor]:
        """What is stored of a packed matrix, by the names of its module's buffers."""
        assert matrix.format is not None
        return {
            part.buffer: self._read(files, f"{matrix.name}.{part.name}", f"{matrix.name}.{part.name}", part.check)
            for part in matrix.format.parts(matrix.rows, matrix.columns)
            if part.buffer
        }

    def _read(self, files: Files, key: str, tensor: str, check: str) -> Tensor:
        stored = self.sources[key]
        found = torch.empty(stored.shape, dtype=TORCH_DTYPES[stored.dtype], device="cpu")
        files.read(tensor, stored, 0, found)
        if check:
            check_values(tensor, stored, found, check)
        return found

    def _rename(self, files: Files, before: Matrix, after: Matrix) -> None:
        """From one kind of NVFP4 into the other: the codes stay, a matrix scale that multiplied divides."""
        buffers = self._parts(files, before)
        scale = buffers["matrix_scale"]
        if not bool(scale):  # such a matrix is all zeros, and zero cannot divide
            buffers["scale"] = torch.zeros_like(buffers["scale"])
            scale = torch.ones_like(scale)
        buffers["matrix_scale"] = scale.reciprocal()
        self._hand_over(after, buffers)

    def _hand_over(self, matrix: Matrix, buffers: Mapping[str, Tensor]) -> None:
        assert matrix.format is not None
        for part in matrix.format.parts(matrix.rows, matrix.columns):
            name = f"{matrix.name}.{part.name}"
            if part.buffer:
                values = buffers[part.buffer]
                self.sink(name, self.first, values.view(part.shape) if part.buffer == "matrix_scale" else values)
            elif part.equals and self.first == 0:
                self.sink(name, 0, torch.tensor(part.equals))


def _packer(form: Format | None, values: list[Tensor]) -> Callable[[Tensor], Quantised]:
    match form:
        case NVFP4Format():
            return partial(to_nvfp4, largest=max(float(each.abs().max()) for each in values))
        case Int4Format():
            return partial(to_int4, scale_dtype=TORCH_DTYPES[form.scale_dtype])
        case Int8Format():
            return partial(to_int8, scale_dtype=TORCH_DTYPES[form.scale_dtype])
    raise AssertionError(f"nothing packs into {form}")


def changed(before: Plan, after: Plan) -> dict[str, tuple[Matrix, Matrix]]:
    """The matrices whose format differs between two plans of one network, by name."""
    return {
        name: (before.matrices[name], matrix)
        for name, matrix in after.matrices.items()
        if matrix.format != before.matrices[name].format
    }


def repack(
    checkpoint: Checkpoint, pairs: Mapping[str, tuple[Matrix, Matrix]], device: str, sink: Sink, losses: Losses
) -> list[Task]:
    """The tasks that pack the matrices of ``pairs`` on ``device`` and hand them to ``sink``, in the files' order."""
    groups: dict[tuple[str, Format | None], list[tuple[Matrix, Matrix]]] = defaultdict(list)
    for before, after in pairs.values():
        groups[after.together, after.format].append((before, after))
    tasks: list[_Repacking] = []
    for (_, form), group in groups.items():
        if isinstance(form, NVFP4Format):
            tasks.append(_task(checkpoint, tuple(group), device, sink, losses))
            continue
        for pair in group:  # without a matrix scale, every row stands alone
            step = _ROWS if pair[0].format is None else pair[0].rows
            for first in range(0, pair[0].rows, step):
                count = min(step, pair[0].rows - first)
                tasks.append(_task(checkpoint, (pair,), device, sink, losses, first, count))
    return [*sorted(tasks, key=_where)]


def _task(
    checkpoint: Checkpoint,
    pairs: tuple[tuple[Matrix, Matrix], ...],
    device: str,
    sink: Sink,
    losses: Losses,
    first: int = 0,
    count: int | None = None,
) -> _Repacking:
    sources: dict[str, Stored] = {}
    for matrix, _ in pairs:
        if matrix.format is None:
            whole = checkpoint.stored[matrix.tensor]
            rows = matrix.rows if count is None else count
            item = whole.size // prod(whole.shape)
            row = matrix.columns * item
            start = whole.start + (matrix.first_row + first) * row
            sources[matrix.name] = Stored(whole.file, whole.dtype, (rows, matrix.columns), start, rows * row)
            continue
        for part in matrix.format.parts(matrix.rows, matrix.columns):
            name = f"{matrix.name}.{part.name}"
            if part.buffer:
                sources[name] = checkpoint.stored[name]
    return _Repacking(pairs, sources, device, sink, losses, first)


def _where(task: _Repacking) -> tuple[str, int]:
    first = next(iter(task.sources.values()))
    return first.file.name, first.start

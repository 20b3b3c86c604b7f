"""How one matrix is stored in each published format: its tensors' names, dtypes and shapes. Imports no torch.

Sources: the published checkpoints' headers. How the values are read is in ``kernels``, a file of the same name each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

PLAIN_DTYPES = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of a matrix.

    name: what follows the module's name; shape, dtypes: as stored; buffer: where it goes in the packed module, None if
    it is not loaded. check: what its values must be, since one bad scale spoils a matrix. optional: may be absent.
    equals: the values it must hold.
    """

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    buffer: str | None = None
    check: Literal["", "finite", "finite and not zero", "finite and not negative"] = ""
    optional: bool = False
    equals: tuple[int, ...] = ()


class Format(Protocol):
    """A way to store a matrix. bits: of a value; group: how many columns share a scale, columns come in multiples."""

    @property
    def label(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def group(self) -> int: ...

    def parts(self, rows: int, columns: int) -> tuple[Part, ...]:
        """The tensors of a matrix [rows, columns]."""
        ...


@dataclass(frozen=True, slots=True)
class NVFP4Format:
    """4 bits with FP8 scales. compressed: as compressed-tensors names it, with a matrix scale that divides; else as
    ModelOpt does, with one that multiplies.
    """

    compressed: bool
    bits: int = 4
    group: int = 16

    @property
    def label(self) -> str:
        return "nvfp4 (compressed-tensors)" if self.compressed else "nvfp4 (modelopt)"

    @property
    def matrix_scale_shape(self) -> tuple[int, ...]:
        """Of one matrix's scale."""
        return (1,) if self.compressed else ()

    def parts(self, rows: int, columns: int) -> tuple[Part, ...]:
        codes, scale, used = (rows, columns // 2), (rows, columns // self.group), self.matrix_scale_shape
        names = ("weight_packed", "weight_global_scale", "input_global_scale")
        if not self.compressed:
            names = ("weight", "weight_scale_2", "input_scale")
        return (
            Part(names[0], ("U8",), codes, "codes"),
            # Hardware takes these as numbers without a sign, and so do the GPU's kernels here.
            Part("weight_scale", ("F8_E4M3",), scale, "scale", "finite and not negative"),
            Part(names[1], ("F32",), used, "matrix_scale", "finite and not zero" if self.compressed else "finite"),
            # Only for 4-bit activations; ours are not rounded.
            Part(names[2], ("F32",), used, optional=True),
        )


@dataclass(frozen=True, slots=True)
class Int4Format:
    """4-bit integers with a scale for every 32. scale_dtype: safetensors' name, F16 or BF16."""

    scale_dtype: str = "F16"
    bits: int = 4
    group: int = 32

    @property
    def label(self) -> str:
        return "int4 (compressed-tensors)"

    def parts(self, rows: int, columns: int) -> tuple[Part, ...]:
        return (
            Part("weight_packed", ("I32",), (rows, columns // 8), "codes"),
            Part("weight_scale", (self.scale_dtype,), (rows, columns // self.group), "scale", "finite"),
            Part("weight_shape", ("I64", "I32"), (2,), equals=(rows, columns)),
        )


@dataclass(frozen=True, slots=True)
class Int8Format:
    """8-bit integers with a scale for every 64. scale_dtype: as for INT4."""

    scale_dtype: str = "BF16"
    bits: int = 8
    group: int = 64

    @property
    def label(self) -> str:
        return "int8 (compressed-tensors)"

    def parts(self, rows: int, columns: int) -> tuple[Part, ...]:
        return (
            Part("weight_packed", ("I32",), (rows, columns // 4), "codes"),
            Part("weight_scale", (self.scale_dtype,), (rows, columns // self.group), "scale", "finite"),
            Part("weight_shape", ("I64", "I32"), (2,), equals=(rows, columns)),
        )


@dataclass(frozen=True, slots=True)
class FP8Format:
    """8-bit floats with a scale for each row. Activations stay as they are: rounding them is a choice of speed."""

    bits: int = 8
    group: int = 1

    @property
    def label(self) -> str:
        return "fp8 (compressed-tensors)"

    def parts(self, rows: int, columns: int) -> tuple[Part, ...]:
        return (
            Part("weight", ("F8_E4M3",), (rows, columns), "codes", "finite"),
            Part("weight_scale", ("F32", "BF16"), (rows, 1), "scale", "finite"),
        )

"""As much of PTX as the unpacking needs, on NumPy arrays of 32-bit registers: what it means, without a GPU."""

from __future__ import annotations

import re

import numpy as np
import torch


def run(text: str, outputs: int, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Run an inline assembly block. inputs: uint32, for the operands behind the outputs."""
    registers: dict[str, np.ndarray] = {f"${outputs + i}": given for i, given in enumerate(inputs)}

    def value(operand: str) -> np.ndarray:
        return registers[operand] if operand in registers else np.uint32(int(operand, 0))

    for line in re.findall(r"[^{};]+;", text.replace(".reg .b32", "#")):
        if line.strip().startswith("#"):
            continue
        operation, rest = line.strip(" \n;").split(maxsplit=1)
        target, *operands = [part.strip() for part in rest.split(",")]
        registers[target] = _OPERATIONS[operation](*map(value, operands)).astype(np.uint32)
    return [registers[f"${i}"] for i in range(outputs)]


def _lop3(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: np.ndarray) -> np.ndarray:
    found = np.uint32(0)
    for index in range(8):
        if int(table) >> index & 1:
            bits = [word if index & weight else ~word for word, weight in ((a, 4), (b, 2), (c, 1))]
            found = found | (bits[0] & bits[1] & bits[2])
    return found


def _prmt(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    found = np.uint32(0)
    for place in range(4):
        which = int(selector) >> 4 * place & 15
        assert which < 8, "the mode that spreads a sign is not here"
        source = a if which < 4 else b
        found = found | ((source >> np.uint32(8 * (which & 3)) & np.uint32(255)) << np.uint32(8 * place))
    return found


def halves(words: np.ndarray) -> np.ndarray:
    """The two bfloat16 of each word as float64, the lower half first: [..., 2]."""
    bits = np.stack((words << np.uint32(16), words & np.uint32(0xFFFF0000)), axis=-1)
    return bits.view(np.float32).astype(np.float64)


def _fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    # Exact in float64: 16 bits of product, and sums whose parts are not further apart than its 53 bits.
    exact = torch.from_numpy(np.atleast_2d(halves(a) * halves(b) + halves(c)))
    single = exact.float()
    # Rounded once: through float32 the other way, were it a tie there.
    assert bool((single.double() == exact).all()), "float32 does not hold the sum"
    bits = single.bfloat16().view(torch.int16).numpy().view(np.uint16).astype(np.uint32)
    return bits[..., 0] | bits[..., 1] << np.uint32(16)


_OPERATIONS = {
    "mov.b32": lambda a: a,
    "shl.b32": lambda a, n: a << n,
    "shr.b32": lambda a, n: a >> n,
    "and.b32": lambda a, b: a & b,
    "mul.lo.u32": lambda a, b: a * b,
    "lop3.b32": _lop3,
    "prmt.b32": _prmt,
    "fma.rn.bf16x2": _fma,
}

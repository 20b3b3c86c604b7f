"""Compiles every Triton kernel as the real model launches it, for GPUs that need not be here, and says what it takes.

    python tools/compile_kernels.py [--only WORD ...] [--target 90 ...] [--dump FOLDER]
    python tools/compile_kernels.py --others [--only WORD ...] [--target 90 ...]

With --others it is the tiles that ``dgemma tune`` measures beside the usual ones, which must not ask for too much.

Prints one JSON line for each kernel and target: registers a thread, bytes of local memory a thread (spills land there),
bytes of shared memory a block. Exits with 1 if one exceeds what the GPU has. What is compiled is what a launch would
compile: Triton is told that such a GPU is here, and each launch ends before it would start. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # what it does anyhow; Triton 3.9 wants to be told

import triton
from kernel_variants import VARIANTS, Variant, in_other_tiles
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

SHARED_LIMIT = {
    80: 163,
    86: 99,
    89: 99,
    90: 227,
    100: 227,
    120: 99,
}  # KiB a block may have, by the CUDA programming guide
REGISTER_LIMIT = 255
LOCAL_LIMIT = 80  # bytes a thread: registers put aside while a loop runs cost nothing that counts


@dataclass(frozen=True, slots=True)
class Row:
    """What a compiled kernel takes."""

    variant: str
    kernel: str
    target: int
    warps: int
    registers: int
    local_bytes: int
    shared_bytes: int
    key: str  # the same for the same compiled kernel

    @property
    def excess(self) -> str:
        """What is too much; empty if all fits."""
        if self.local_bytes > LOCAL_LIMIT:
            return f"{self.local_bytes} bytes of local memory"
        if self.shared_bytes > SHARED_LIMIT[self.target] * 1024:
            return f"{self.shared_bytes} bytes of shared memory"
        return f"{self.registers} registers" if self.registers > REGISTER_LIMIT else ""


class _NoGPU:
    """As much of a Triton driver as compiling asks for. The target serves as the number of the device, under which
    Triton keeps what it has compiled.
    """

    def __init__(self, target: int) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._target, 32)

    def get_current_device(self) -> int:
        return self._target

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(launches: Variant, target: int) -> list[Any]:
    """The kernels that ``launches`` would run on a GPU of compute capability ``target``, each once."""
    found: dict[str, Any] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        found[kernel.hash] = kernel

    _pretend(target)
    JITFunction.run = compile_only
    try:
        launches()
    finally:
        JITFunction.run = run
    return list(found.values())


def _pretend(target: int) -> None:
    """That a GPU of compute capability ``target`` is here."""
    triton.runtime.driver.set_active(_NoGPU(target))


def resources(kernel: Any) -> tuple[int, int]:
    """Registers and bytes of local memory a thread of a compiled kernel takes."""
    told = _binary_tool("cuobjdump", kernel, "--dump-resource-usage")
    usage = dict(re.findall(r"(\w+):(\d+)", told.split(f"Function {kernel.metadata.name}:")[1]))
    return int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"])


def _binary_tool(name: str, kernel: Any, *options: str) -> str:
    """What one of the tools that come with Triton says of a kernel's machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        return subprocess.run([tool, *options, file.name], check=True, capture_output=True, text=True).stdout


def rows(variants: dict[str, Variant], targets: list[int], dump: Path | None = None) -> Iterator[Row]:
    """Compile the variants for each target. dump: a folder for their layouts, PTX and machine code."""
    for name, launches in variants.items():
        for target in targets:
            for kernel in compiled(launches, target):
                meta = kernel.metadata
                registers, local = resources(kernel)
                if dump is not None:
                    stem = re.sub(r"\W+", "-", f"{name}-{meta.name}-{target}")
                    (dump / f"{stem}.ttgir").write_text(kernel.asm["ttgir"])
                    (dump / f"{stem}.ptx").write_text(kernel.asm["ptx"])
                    (dump / f"{stem}.sass").write_text(_binary_tool("nvdisasm", kernel, "--print-code"))
                yield Row(
                    name, meta.name.strip("_"), target, meta.num_warps, registers, local, meta.shared, kernel.hash[:16]
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="variants with such a word in the name")
    parser.add_argument("--target", nargs="+", type=int, choices=SHARED_LIMIT, default=list(SHARED_LIMIT))
    parser.add_argument("--others", action="store_true", help="the tiles that are measured beside the usual ones")
    parser.add_argument("--dump", type=Path, help="write Triton's layouts, PTX and machine code here")
    args = parser.parse_args()
    too_much = False
    if args.dump is not None:
        args.dump.mkdir(parents=True, exist_ok=True)
    for variants, targets in _asked(args.others, args.target):
        chosen = {name: variants[name] for name in variants if any(word in name for word in args.only)}
        if not chosen:
            parser.error(f"no variant is called so; there are: {', '.join(variants)}")
        for row in rows(chosen, targets, args.dump):
            print(json.dumps(asdict(row) | ({"excess": row.excess} if row.excess else {})), flush=True)
            too_much |= bool(row.excess)
    return int(too_much)


def _asked(others: bool, targets: list[int]) -> Iterator[tuple[dict[str, Variant], list[int]]]:
    """Variants, and for which targets: each target has other tiles."""
    if not others:
        yield VARIANTS, targets
        return
    for target in targets:
        _pretend(target)
        yield in_other_tiles(target), [target]


if __name__ == "__main__":
    sys.exit(main())

"""A first kernel, launched at load: what keeps Triton from working on a machine is found before it is relied on.

Triton builds a small library with the machine's C compiler and Python's headers, compiles kernels with an assembler of
its own, and hands them to the driver. Each of these may be missing or too old, and says so only at a first launch.
"""

from __future__ import annotations

import subprocess

import torch
import triton
import triton.language as tl

from dgemma_cli.kernels.placing import on

_MESSAGE = 160  # characters of a foreign message that are passed on


def trial(device: torch.device) -> str | None:
    """Why Triton cannot run a kernel on ``device``, in a few words; None if it can."""
    try:
        out = torch.zeros(1, dtype=torch.int32, device=device)
        with on(device):
            _write_one[(1,)](out)
        found = int(out.item())
    except subprocess.CalledProcessError:
        return "the C compiler that Triton needs failed (are Python's headers installed, python3-dev?)"
    except Exception as error:  # a compiler, an assembler, a driver: whatever each of them may raise
        text = " ".join(str(error).split())
        if "compiler" in text.lower() and "find" in text.lower():
            return "Triton finds no C compiler (install gcc)"
        return f"Triton fails here: {type(error).__name__}: {text[:_MESSAGE]}"
    return None if found == 1 else f"a first kernel of Triton's wrote {found} for 1"


@triton.jit
def _write_one(out_ptr):
    tl.store(out_ptr, 1)

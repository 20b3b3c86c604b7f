"""Memory that this process holds now."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch


def in_use(device: torch.device) -> dict[str, int]:
    """Bytes by where they are: "process" (resident; where the system does not tell, the peak), and the device's."""
    found = {"process": _resident()}
    if device.type == "cuda":
        found["device"] = torch.cuda.memory_allocated(device)
        found["device_reserved"] = torch.cuda.memory_reserved(device)
    return found


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()

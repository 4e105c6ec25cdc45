"""The machine that numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from ..support.processes import usable_cores

# The instructions that decide how fast matrices are multiplied, as Linux names them.
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def processor() -> str:
    """The processor's name, as far as the system tells."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Processor, the cores this process may use, instructions for matrices, memory in bytes."""
    flags = _cpuinfo().get("flags", "").split()
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}

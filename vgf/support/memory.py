"""How much memory this process may still take, and what a file may ask for."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from .errors import VGFError

# The share of the free memory that the arrays of one file may take: reading briefly holds them
# together with what is made from them.
SHARE = 0.5


def free_memory() -> int | None:
    """Bytes of memory that this process could still take; None if the system does not say.

    The least of what the machine has, what its control group allows (a container, a job of a
    cluster), and its own limit of address space.
    """
    found = [_machine(), _control_group(), _address_space()]
    known = [bytes_ for bytes_ in found if bytes_ is not None]
    return min(known) if known else None


def check_fits(size: int, what: str) -> None:
    """Check that an array that a file declares can be read.

    Args:
        size: bytes that it needs in memory.
        what: the file and the array, in words.

    Raises:
        VGFError: it takes more than :data:`SHARE` of the free memory.
    """
    free = free_memory()
    if free is not None and size > SHARE * free:
        raise VGFError(
            f"{what} needs {_gib(size)} of memory, and {_gib(int(SHARE * free))} can be used here; "
            "use a machine with more, or a .npz file with --data-memory mapped"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else int(free) * 1024


def _control_group() -> int | None:
    """What version 2 of Linux' control groups, or version 1, leaves this process."""
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max": no limit
            place = Path(folder)
            return max(0, int((place / limit).read_text()) - int((place / used).read_text()))
    return None


def _address_space() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return max(0, soft - pages * resource.getpagesize())
    return soft

"""Worker processes: how many there may be, and Ctrl-C while they start."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process, resource_tracker
from types import FrameType
from typing import Any

from .interrupts import SIGNALS, begin_worker

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def usable_cores() -> int:
    """How many cores this process may use: the system's answer, or VGF_CORES if that is fewer."""
    own = os.environ.get("VGF_CORES", "")
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    there = len(usable(0)) if usable else os.cpu_count() or 1
    return min(there, max(1, int(own))) if own.isdigit() else there


class Stops:
    """How long this process was stopped: by Ctrl-Z, or by a scheduler that suspends a job.

    A thread that waits for another one to let go of the interpreter wakes every few milliseconds,
    and one that is stopped does not. Linux counts that for each thread; elsewhere no stop is seen.

    Args:
        tick: seconds from one look to the next while the process runs.
    """

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._waits = _waits()
        self._seen = time.monotonic()

    def look(self) -> float:
        """Seconds that the process was stopped since the last look, by the same thread."""
        gap = time.monotonic() - self._seen
        waits = _waits()  # those of a longer time than the gap, never of a shorter one
        stopped = gap > 2 * self._tick and waits - self._waits < _WAKES * gap
        self._waits, self._seen = waits, time.monotonic()
        return gap - self._tick if stopped else 0.0


# A waiting thread asks for the interpreter 200 times a second (sys.getswitchinterval).
_WAKES = 20.0


def _waits() -> float:
    """How often this thread has waited for something; NaN where the system does not tell."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return math.nan
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold back the signals that end a command for a moment; they take effect afterwards.

    A process that is started meanwhile never receives them, from its first instruction on: it
    inherits the blocked signals. They are for its parent, which ends it. (Windows lacks this.)
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # the tracker's first start would unblock the signal, so it must have started before
    resource_tracker.ensure_running()
    heard: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # another thread, of a matrix library say, may take a signal: Python receives it all the
        # same
        for number in SIGNALS:
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda *call: heard.append(call))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if heard:
            handlers[heard[0][0]](*heard[0])


def leave_warnings_to_parent() -> None:
    """Silence in this process, a worker, what gymnasium warns of when environments are registered
    and made: the parent has made one too, and said it.
    """
    warnings.filterwarnings("ignore", module=r"gymnasium\.")


def end_with_parent() -> None:
    """End this process, a worker, when its parent ends, however that ends.

    A thread waits for that; on Linux the system sees to it too, in case no thread gets to run.
    """
    parent = parent_process()
    if parent is None:
        return
    begin_worker()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if not parent.is_alive():
            os._exit(1)

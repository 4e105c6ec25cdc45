"""Worker processes: how many there may be, and Ctrl-C while they start."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any


def usable_cores() -> int:
    """How many cores this process may use: the system's answer, or VGF_CORES if that is fewer."""
    own = os.environ.get("VGF_CORES", "")
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    there = len(usable(0)) if usable else os.cpu_count() or 1
    return min(there, max(1, int(own))) if own.isdigit() else there


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; it takes effect afterwards.

    A process that is started meanwhile never receives it, from its first instruction on: it
    inherits the blocked signal. Ctrl-C is for its parent, which ends it. (Windows lacks this.)
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # the tracker's first start would unblock the signal, so it must have started before
    resource_tracker.ensure_running()
    heard: list[tuple[int, FrameType | None]] = []
    handler: Any = None
    if threading.current_thread() is threading.main_thread():
        # another thread, of a matrix library say, may take the signal: Python receives it all the
        # same
        handler = signal.signal(signal.SIGINT, lambda *call: heard.append(call))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if heard and callable(handler):
            handler(*heard[0])

"""What the data package and its callers share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
# Called with a line for the person at the terminal.
Say = Callable[[str], None]


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; it is heard afterwards.

    A process that is started meanwhile never hears of it: it inherits the deaf ear, from its
    first instruction on. Ctrl-C is for its parent, which ends it. (Windows has no such thing.)
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # the tracker's first start would unblock the signal, so that must have been
    resource_tracker.ensure_running()
    heard: list[tuple[int, FrameType | None]] = []
    handler: Any = None
    if threading.current_thread() is threading.main_thread():
        # another thread, of a matrix library say, may take the signal: Python hears it all the same
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

"""Worker processes: how many there may be, and Ctrl-C while they start."""

from __future__ import annotations

import contextlib
import ctypes
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


def usable_cores() -> int:
    """How many cores this process may use: the system's answer, or VGF_CORES if that is fewer."""
    own = os.environ.get("VGF_CORES", "")
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    there = len(usable(0)) if usable else os.cpu_count() or 1
    return min(there, max(1, int(own))) if own.isdigit() else there


class RunningClock:
    """A clock that stands still while this process is stopped: by Ctrl-Z, or by a scheduler.

    Args:
        tick: seconds from one `look` to the next while the process runs.
    """

    def __init__(self, tick: float) -> None:
        self._tick, self._stopped = tick, 0.0
        self._seen = time.monotonic(), time.process_time()

    def now(self) -> float:
        """Seconds on this clock."""
        return time.monotonic() - self._stopped

    def look(self) -> float:
        """Seconds on this clock. One thread calls this, again and again.

        A gap in which the process used no processor is one in which it was stopped.
        """
        (before, used), self._seen = self._seen, (time.monotonic(), time.process_time())
        gap, busy = self._seen[0] - before, self._seen[1] - used
        if gap > 2 * self._tick and busy < gap / 2:
            self._stopped += gap - self._tick
        return self.now()


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

"""Ctrl-C that takes effect only where the work so far is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import VGFError


class Interrupted(VGFError):  # noqa: N818  (it is what happened, not what went wrong)
    """The run was stopped from the keyboard."""


class StopRunError(Exception):
    """Raised in a run that should stop where it is, and keep what it has."""


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back; yields a function that raises if it was pressed meanwhile.

    A second Ctrl-C interrupts at once. In any thread but the main one, or where Ctrl-C is already
    ignored or handled differently, this changes nothing.
    """
    asked = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    def check() -> None:
        if asked:
            raise StopRunError

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, hold)
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

"""Stopping where the work so far is complete: Ctrl-C, and the signals that end a job.

SIGTERM (a scheduler's, a container's) and SIGHUP (a terminal's that is gone) do what the first
Ctrl-C does. A run is stopped within LIMIT seconds of the first of them, whatever it is doing:

    at once      between updates, and between the steps of an evaluation
    PATIENCE     in what can be repeated (:func:`repeatable`): an update, an evaluation, a step
    LIMIT        anywhere, such as in a compiler: from a thread that watches, which first does what
                 :func:`last_resort` was given, and then ends the process
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .errors import VGFError

PATIENCE, LIMIT = 4.0, 14.0
# How long what must be completed, such as writing a checkpoint, may go on after LIMIT.
_COMPLETION = 60.0

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(VGFError):  # noqa: N818  (it is what happened, not what went wrong)
    """The run was stopped by Ctrl-C or another signal."""


class StopRunError(BaseException):
    """Raised in a run that should stop where it is, and keep what it has.

    Like KeyboardInterrupt it is no Exception: a compiler that catches those lets it through.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, where Ctrl-C would raise KeyboardInterrupt."""


class _State:
    """What this process has been told to do, and what it is in the middle of."""

    def __init__(self) -> None:
        self.heard: int | None = None  # the first signal
        self.deferred = self.repeatable = self.completing = 0  # depths
        self.nudged = False  # the next signal is from the thread that watches
        self.command = False  # whether this process is one of vgf's commands, or its worker
        self.last_resort: list[Callable[[], object]] = []


_state = _State()


def exit_status() -> int:
    """The exit status that says which signal stopped this command: 130 is Ctrl-C's."""
    return 128 + (signal.SIGINT if _state.heard is None else _state.heard)


@contextmanager
def repeatable() -> Iterator[None]:
    """Work that changes nothing that is kept, so that it may be broken off by StopRunError."""
    _state.repeatable += 1
    try:
        yield
    finally:
        _state.repeatable -= 1


@contextmanager
def completing() -> Iterator[None]:
    """Work that is waited for even after LIMIT."""
    _state.completing += 1
    try:
        yield
    finally:
        _state.completing -= 1


@contextmanager
def last_resort(save: Callable[[], object]) -> Iterator[None]:
    """What to do, from another thread, before the process is ended in the middle of something."""
    _state.last_resort.append(save)
    try:
        yield
    finally:
        _state.last_resort.remove(save)


@contextmanager
def ending_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`Terminated`, and watch that any signal is obeyed.

    For a command as a whole. In any thread but the main one, or where a signal is handled
    otherwise already (ignored, as by nohup), it is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _state
    _state = _State()
    _state.command = True
    ours = [n for n in SIGNALS if signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _terminate)
    try:
        with _watched():
            yield
    finally:
        _state.command = False
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    if _state.heard is None:
        _state.heard = number
        raise Terminated


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Hold back the signals; yields a function that raises StopRunError if there was one.

    A second Ctrl-C interrupts at once. In any thread but the main one, or where a signal is already
    ignored or handled differently, this changes nothing.
    """
    asked = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if _state.nudged:
            _state.nudged = False
            if _state.repeatable:
                raise StopRunError
        elif not asked:
            asked = True
            _state.heard = number
        elif number == signal.SIGINT:
            signal.default_int_handler(number, frame)

    def check() -> None:
        if asked:
            raise StopRunError

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        _state.heard = None
        for number in SIGNALS:
            known = (_terminate, signal.default_int_handler, signal.SIG_DFL)
            if signal.getsignal(number) in known:
                before[number] = signal.signal(number, hold)
    _state.deferred += 1
    try:
        yield check
    finally:
        _state.deferred -= 1
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watched() -> Iterator[None]:
    """A thread that hears signals even while the main one is not in Python, and sees to them."""
    if not hasattr(signal, "pthread_kill"):  # Windows
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    if before != -1:  # somebody else watches
        signal.set_wakeup_fd(before)
        os.close(heard)
        os.close(told)
        yield
        return
    main = threading.main_thread().ident
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(heard, main, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(-1)
        os.write(told, b"\0")
        thread.join(timeout=1)
        os.close(told)
        os.close(heard)


def _watch(heard: int, main: int, over: threading.Event) -> None:
    number = 0
    while number not in SIGNALS:
        if over.is_set():
            return
        number = os.read(heard, 1)[0]
    start = time.monotonic()
    while not over.wait(0.5):
        waited = time.monotonic() - start
        if waited > PATIENCE and _state.deferred and _state.repeatable:
            _state.nudged = True
            signal.pthread_kill(main, number)
        if waited > (LIMIT + _COMPLETION if _state.completing else LIMIT):
            _end(number)


def _end(number: int) -> None:
    """End the process in the middle of something."""
    end_command("stopped in the middle of something", 128 + number)


def begin_worker() -> None:
    """This process is a worker of a command, which :func:`end_command` may end."""
    _state.command = True


def end_command(line: str, status: int) -> None:
    """End a command, or its worker, at once, from another thread.

    What :func:`last_resort` was given is done first. Outside a command, in somebody's own program,
    this does nothing.
    """
    if not _state.command:
        return
    for save in list(_state.last_resort):
        with contextlib.suppress(BaseException):
            save()
    with contextlib.suppress(BaseException):
        print(line, file=sys.stderr, flush=True)
    os._exit(status)

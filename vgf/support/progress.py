"""The progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Protocol, TextIO

from .extras import need


class ProgressBar(Protocol):
    """The progress of something that takes a while; a context manager."""

    def update(self, n: int = 1) -> None:
        """`n` more are done."""

    def write(self, line: str) -> None:
        """Print a line on standard output without disturbing the count."""

    def close(self) -> None:
        """Finish, whether or not all is done."""

    def __enter__(self) -> ProgressBar: ...

    def __exit__(self, *error: object) -> None: ...


def progress(
    total: int, what: str, unit: str = "it", done: int = 0, stream: TextIO | None = None
) -> ProgressBar:
    """Show the progress of something.

    On a terminal, a bar with rate and time left. Elsewhere plain whole lines, without control
    characters: one for every 10 % or 30 s, never two within a second.

    Args:
        total: how many there are.
        what: the work, such as "training".
        unit: what is counted, such as "update".
        done: how many were done before, by a run that this one continues.
        stream: where to; None is standard error.

    Raises:
        VGFError: on a terminal, if the package that draws bars is missing.
    """
    stream = sys.stderr if stream is None else stream
    kind: type[_Bar] | type[_Lines] = _Bar if stream.isatty() else _Lines
    return kind(total, what, unit, done, stream)


@contextmanager
def shown_progress(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows the progress of several things, by label, until the block ends.

    Its arguments are a label, how much is done, and how much there is; what its first call reports
    counts as done before.

    Args:
        unit: what is counted, such as "episode".
    """
    shown: dict[str, tuple[ProgressBar, int]] = {}

    def show(label: str, done: int, total: int) -> None:
        bar, before = shown.get(label) or (progress(total, label, unit, done), done)
        bar.update(done - before)
        shown[label] = (bar, done)
        if done >= total:
            bar.close()

    try:
        yield show
    finally:
        for bar, _ in shown.values():
            bar.close()


class _Bar:
    def __init__(self, total: int, what: str, unit: str, done: int, stream: TextIO) -> None:
        size = shutil.get_terminal_size()  # 0 before Python 3.11 where it is not known
        self._bar = need("tqdm", "run").tqdm(
            total=total,
            desc=what,
            unit=f" {unit}",
            initial=done,
            file=stream,
            leave=None,
            ncols=(size.columns or 80) - 1,
            nrows=size.lines or 24,
        )

    def update(self, n: int = 1) -> None:
        self._bar.update(n)

    def write(self, line: str) -> None:
        with self._bar.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Lines:
    SHARE, PAUSE, SECONDS = 0.1, 1.0, 30.0

    def __init__(self, total: int, what: str, unit: str, done: int, stream: TextIO) -> None:
        self._total, self._what, self._unit, self._stream = total, what, unit, stream
        self._first = self._done = self._told = done
        self._start = self._told_at = time.monotonic()
        self._lines = 0

    def update(self, n: int = 1) -> None:
        self._done += n
        waited = time.monotonic() - self._told_at
        share = (self._done - self._told) / max(self._total, 1)
        if waited >= self.SECONDS or (waited >= self.PAUSE and share >= self.SHARE):
            self._tell()

    def write(self, line: str) -> None:
        say_line(line)

    def close(self) -> None:
        if self._told != self._done or (self._done > self._first and not self._lines):
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        spent = now - self._start
        rate = (self._done - self._first) / spent if spent > 0 else 0.0
        left = self._total - self._done
        time_left = f"{_clock(left / rate)} left" if left > 0 and rate > 0 else _clock(spent)
        share = 100 * self._done // max(self._total, 1)
        with suppress(OSError):  # a full disk, say
            print(
                f"{self._what}: {share} % ({self._done}/{self._total}), "
                f"{rate:.3g} {self._unit}/s, {time_left}",
                file=self._stream,
                flush=True,
            )
        self._told, self._told_at, self._lines = self._done, now, self._lines + 1

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def say_line(line: str) -> None:
    """Print a line, at once even into a file. What cannot be printed stops no run."""
    with suppress(OSError):
        print(line, flush=True)

"""Processes side by side, timed in short blocks by turns, and the ratios between them.

A machine's speed drifts: with its temperature, its clock, its neighbours. What is timed one after
the other, minutes apart, says little of a ratio near one. So all sides are alive at once, one works
while the others sleep, and a ratio is taken between blocks of the same round.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..support.errors import VGFError

# The number of units to run -> the seconds they took.
Timer = Callable[[int], float]

LONGEST = 2_000  # units in a block
PAUSE = 0.15  # seconds, in which the threads of the last block fall asleep


def package_path() -> dict[str, str]:
    """The variable with which our own Python finds this package, wherever it stands."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class MissingPackageError(VGFError):
    """A worker's Python lacks a package."""

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(f"{package} is not installed")


class Worker:
    """A process that runs vgf/bench/worker.py; a context manager that ends it.

    Args:
        label: who it is, for messages.
        python: the interpreter; our own can import this package.
        variables: of its environment, besides our own.

    Raises:
        VGFError: it cannot be started.
    """

    def __init__(
        self, label: str, python: str = sys.executable, variables: Mapping[str, str] | None = None
    ) -> None:
        self.label, self.idle = label, 0.0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        # many share one GPU: none may take its memory when it starts
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if python == sys.executable:
            environment |= package_path()
        environment |= variables or {}
        try:
            self._process = subprocess.Popen(
                [python, str(Path(__file__).with_name("worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._errors.close()
            raise VGFError(f"{label}: cannot run {python}: {error.strerror}") from error

    def start(self, module: str, **options: Any) -> dict[str, Any]:
        """Have it start something else; what it started before is dropped.

        Args:
            module: a module's name or file, with a function `start`.
            options: of that function, as JSON can hold them.

        Returns:
            What it says of itself.

        Raises:
            VGFError: it could not.
            MissingPackageError: its Python lacks a package.
        """
        return self.ask(do="start", module=module, options=options)

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request of vgf/bench/worker.py.

        Raises:
            VGFError: it could not do it, or has died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise VGFError(f"{self.label}: its process ended with status {status}{self._said()}")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("missing"):
            raise MissingPackageError(answer["missing"])
        if "error" in answer:
            raise VGFError(f"{self.label}: {answer['error']}")
        return answer

    def time(self, count: int) -> float:
        """The seconds that `count` units take."""
        answer = self.ask(do="run", count=count)
        self.idle += answer["idle"]
        return float(answer["seconds"])

    def about(self) -> dict[str, Any]:
        """What it has started says of itself now."""
        return self.ask(do="about")

    def memory(self) -> dict[str, int | None]:
        """Its peak in bytes: on the "host", and on the "device" or None."""
        return self.ask(do="memory")

    def _said(self) -> str:
        """The end of what it wrote to standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return "".join(f"\n  {line}" for line in lines[-5:])

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()


def calibrate(timer: Timer, seconds: float) -> int:
    """The number of units that take about `seconds`; all that they need is compiled afterwards."""
    timer(1)
    count, took = 1, timer(1)
    for _ in range(6):
        wanted = min(max(1, math.ceil(count * seconds / max(took, 1e-9))), LONGEST)
        if wanted <= 1.5 * count and count <= 3 * wanted:
            break
        count = wanted
        timer(count)  # may compile
        took = timer(count)
    return count


def take_turns(
    timers: Mapping[str, Timer],
    counts: Mapping[str, int],
    rounds: int,
    shown: Callable[[], None] = lambda: None,
    pause: float = PAUSE,
) -> dict[str, list[float]]:
    """The seconds of one unit, of every side in every round.

    Args:
        timers: of the sides.
        counts: units in a block of each.
        rounds: in each of which every side has one block; the order turns round every time.
        shown: called after each block.
        pause: seconds before each block.
    """
    found: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(rounds):
        for name in list(timers) if number % 2 == 0 else reversed([*timers]):
            time.sleep(pause)
            found[name].append(timers[name](counts[name]) / counts[name])
            shown()
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as fast as theirs ours is: theirs / ours, round by round.

    Returns:
        The median, the lowest and the highest.
    """
    pairs = np.asarray(theirs) / np.asarray(ours)
    return {
        "median": float(np.median(pairs)),
        "low": float(pairs.min()),
        "high": float(pairs.max()),
    }

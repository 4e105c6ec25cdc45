"""Runs in environments that misbehave: kinds x processes x evaluation and online."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vgf.cli import main
from vgf.runs.checkpoint import list_steps

from .killing import data_file
from .misbehaving import KINDS

SECONDS = 240
_COMMAND = "import sys; from vgf.cli import main; sys.exit(main())"


def command(*words: str, **changes: str) -> tuple[int, str, str]:
    """Run a vgf command in a process of its own: its status, output and errors."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **changes},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


_warm = False


def forked(folder: Path, *words: str, **changes: str) -> tuple[int, str]:
    """Run a vgf command in a process forked from this one, which has imported what it needs.

    Returns:
        Its exit status, or minus the signal that ended it; and what it wrote on standard error.
    """
    global _warm
    if not _warm:  # imports
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main([*flags(folder, "Not"), "--steps", "8", "--out", str(folder / "first")])
        _warm = True
    log = folder / "errors.txt"
    process = os.fork()
    if process == 0:
        status = 1
        try:
            for number, name in ((0, os.devnull), (1, os.devnull), (2, log)):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
            sys.modules["__main__"] = types.ModuleType("__main__")  # workers import it
            os.environ.update(changes)
            status = main(list(words))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    for _ in range(100 * SECONDS):  # not by a clock: both may be halted meanwhile
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError


def flags(folder: Path, environment: str) -> list[str]:
    """The flags of a run of a second, in one of the environments."""
    name = f"gymnasium:validation.faults.misbehaving:Misbehaving/{environment}-v0"
    words = (
        f"run --env {name} --backend numpy --batch-size 4 --log-every 4 --evaluate-every 8 "
        "--checkpoint-every 100 --episodes 2 --evaluation-steps 0 1 --critic-hidden 4 "
        "--reference-hidden 4 --particles 2 --step-timeout 6 --retries 1"
    )
    return [*words.split(), "--data", str(data_file(folder))]


def trials(folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, str]]]]:
    """Every kind, with its processes and its phase, and what runs it."""
    for kind in KINDS:
        for workers in (0, 2):
            for phase in ("evaluation", "online"):
                name = f"{kind}, workers {workers}, {phase}"

                def trial(
                    kind: str = kind, workers: int = workers, phase: str = phase
                ) -> dict[str, str]:
                    return run(folder, kind, workers, phase)

                yield name, trial


def run(folder: Path, kind: str, workers: int, phase: str) -> dict[str, str]:
    """A run in an environment: what it came to, and what is wrong with that ("" if nothing)."""
    place = folder / f"{kind}-{workers}-{phase}"
    words = [*flags(folder, kind), "--workers", str(workers), "--out", str(place)]
    if phase == "evaluation":
        words += ["--steps", "8"]
    else:
        words += ["--steps", "8", "--online-steps", "12", "--warmup", "4", "--evaluate-every", "99"]
    try:
        # online: once an episode has been collected, so after the evaluation before it
        after = str(place / "online.jsonl") if phase == "online" else ""
        status, errors = forked(folder, *words, VGF_FAULT_AFTER=after)
    except TimeoutError:
        return {"found": "", "wrong": f"it runs on after {SECONDS} s"}
    lines = [line for line in errors.splitlines() if line.startswith(("error:", "warning:"))]
    said = lines[-1] if lines else errors[-200:]
    wrong = judged(kind, workers, status, errors, said)
    if kind == "RaisesMade" and phase == "online":  # it was made before
        wrong = "" if status == 0 else f"status {status}"
    if not wrong and status == 2 and kind != "RaisesMade" and place.is_dir():
        with contextlib.suppress(OSError):
            if not list_steps(place):
                wrong = "the training before it is lost: no checkpoint"
    return {"found": re.sub(r"\s+", " ", said)[:200], "wrong": wrong}


def judged(kind: str, workers: int, status: int, errors: str, said: str) -> str:
    """What is wrong with how a run ended; "" if nothing."""
    words: Any = KINDS[kind]
    if kind == "Crashes" and not workers:
        return "" if status == -11 else f"status {status}"  # the process itself crashed
    if "Traceback" in errors:
        return "a traceback"
    if words is None:
        return "" if status == 0 else f"status {status}"
    if status != 2:
        return f"status {status}"
    return "" if re.search(words, said) else "it does not name the fault"

"""Makes some runs of a sweep, or goes on with them: ``python -m vgf.sweep.worker SWEEP NAME...``.

Several names are seeds that are trained side by side. A run that fails leaves its reason in the
sweep's folder; the others go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from ..runs.folder import CONFIG, FAILED, RUNS
from ..runs.loop import train_together
from ..runs.report import report
from ..runs.updates import FailedRuns
from ..support.errors import VGFError
from ..support.files import write_atomically
from ..support.interrupts import Interrupted
from ..support.locks import waited_for
from .folder import FAILURE, FINISHED, LOCKS, LOGS, cell_config, state_of


def run_cells(folder: Path, names: Sequence[str]) -> None:
    """Make some runs, or go on with them; those that are finished or failed are left alone.

    Waits for another process that makes one of them.

    Raises:
        Interrupted, KeyboardInterrupt: Ctrl-C.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(
            open(folder / LOGS / f"{names[0]}.log", "a", encoding="utf-8", buffering=1)
        )
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        for name in sorted(names):
            stack.enter_context(
                waited_for(folder / LOCKS / name, print, f"{name}: another process makes it")
            )
        over = {name for name in names if state_of(folder, name).state in (FINISHED, FAILURE)}
        if over != set(names):
            _make(folder, names, over)


def _make(folder: Path, names: Sequence[str], over: Collection[str]) -> None:
    """Make runs side by side, each in its place; `over` are those that have ended."""
    places = {name: folder / RUNS / name for name in names}
    for name in set(names) - set(over):
        if places[name].exists() and not (places[name] / CONFIG).is_file():
            shutil.rmtree(places[name])  # killed while it was made
    begun = {place for place in places.values() if place.exists()}
    runs = {places[name]: cell_config(folder, name) for name in names}
    failed: dict[int, VGFError] = {}
    try:
        try:
            train_together(runs, begun, over={places[name] for name in over})
        except FailedRuns as faults:
            failed = faults.errors
        for number, name in enumerate(names):
            if number in failed:
                fail(folder, name, failed[number])
            elif name not in over:
                report(places[name])
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever it was, the other runs of the sweep go on
        if len(names) > 1:
            print(f"side by side: {error}; one after another from here")
            for name in names:
                if state_of(folder, name).state not in (FINISHED, FAILURE):
                    _make(folder, [name], ())
            return
        traceback.print_exc()
        fail(
            folder,
            names[0],
            error if isinstance(error, VGFError) else f"{type(error).__name__}: {error}",
        )


def fail(folder: Path, name: str, why: object) -> None:
    """Record that a run failed, and why, in one line."""
    write_atomically(folder / FAILED / f"{name}.txt", " ".join(str(why).split()) + "\n")


def fail_rest(folder: Path, names: Sequence[str], why: object) -> None:
    """Record that those of a job's runs failed that have not ended otherwise."""
    for name in names:
        if state_of(folder, name).state not in (FINISHED, FAILURE):
            fail(folder, name, why)


def share(cores: int) -> dict[str, str]:
    """The environment of a process that shares a machine with others.

    Args:
        cores: on which it computes; a run's numbers depend on how many there are.
    """
    names = ("VGF_CORES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # or the first one would take 75 % of a GPU's memory
    own = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return {**dict.fromkeys(names, str(cores)), "XLA_PYTHON_CLIENT_PREALLOCATE": own}


if __name__ == "__main__":
    try:
        run_cells(Path(sys.argv[1]), sys.argv[2:])
    except (Interrupted, KeyboardInterrupt):
        sys.exit(130)

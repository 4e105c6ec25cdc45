"""The folder of a sweep, and where each of its runs is.

SWEEP/
  cells/NAME.toml    the configuration of every run that was asked for
  runs/NAME/         its run folder
  failed/NAME.txt    why it failed, one line
  logs/NAME.log      what it said
  sweep.log          what happened when

Every cell is in one state: finished, failed, stopped (it has begun, and goes on where it was), or
not started. The state is read from these files alone, wherever the runs were made.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runs.checkpoint import SIDECAR, checkpoint_path, latest_step
from ..runs.config import RunConfig, dump_config
from ..runs.folder import CELLS, CONFIG, FAILED, RUNS
from ..runs.log import METRICS, read_log
from ..runs.resolve import load_config
from ..support.errors import VGFError
from ..support.files import check_writable, make_folder, read_json, write_atomically
from ..support.tables import counted

LOGS, LOG, LOCKS = "logs", "sweep.log", "locks"
FINISHED, FAILURE, STOPPED, NOT_STARTED = "finished", "failed", "stopped", "not started"
STATES = (FINISHED, FAILURE, STOPPED, NOT_STARTED)


@dataclass(frozen=True)
class Cell:
    """Where one run of a sweep is.

    Args:
        name: of the run.
        state: one of :data:`STATES`.
        done, updates: updates done, out of how many.
        why: of a failure, one line.
    """

    name: str
    state: str
    done: int
    updates: int
    why: str = ""


def write_cells(folder: Path, cells: Mapping[str, RunConfig]) -> None:
    """Record what a sweep runs. A sweep that goes on may have gained runs, but changed none.

    Raises:
        VGFError: a folder of something else, or of other runs; a run of it that was changed.
    """
    check_writable(folder)
    known = set(cell_names(folder))
    if folder.exists() and any(folder.iterdir()) and not (folder / CELLS).is_dir():
        raise VGFError(f"{folder} exists and is not a sweep's; choose another --out")
    for name in sorted(known - set(cells)):
        raise VGFError(
            f"{folder} has {name}, which the file no longer names; put it back, or choose another "
            "--out"
        )
    for name in sorted(known):
        if load_config(folder / CELLS / f"{name}.toml") != cells[name]:
            raise VGFError(
                f"{folder} has {name} with other settings; undo the change, or choose another --out"
            )
    make_folder(folder / CELLS)
    for name in (LOGS, LOCKS, FAILED, RUNS):
        make_folder(folder / name)
    for name, config in cells.items():
        if name not in known:
            write_atomically(folder / CELLS / f"{name}.toml", dump_config(config))


def cell_names(folder: Path) -> list[str]:
    """The names of a sweep's runs."""
    return sorted(path.stem for path in (folder / CELLS).glob("*.toml"))


def cell_config(folder: Path, name: str) -> RunConfig:
    """The configuration of one run; once begun, with the starting point it found."""
    begun = folder / RUNS / name / CONFIG
    return load_config(begun if begun.is_file() else folder / CELLS / f"{name}.toml")


def state_of(folder: Path, name: str) -> Cell:
    """Where one run is.

    Raises:
        VGFError: a damaged file.
    """
    place, config = folder / RUNS / name, cell_config(folder, name)
    failed = folder / FAILED / f"{name}.txt"
    done = updates_done(place)
    if failed.is_file():
        why = " ".join(failed.read_text(encoding="utf-8", errors="replace").split())
        return Cell(name, FAILURE, done, config.updates, why)
    if _finished(place, config.updates):
        return Cell(name, FINISHED, done, config.updates)
    begun = (place / CONFIG).is_file()
    return Cell(name, STOPPED if begun else NOT_STARTED, done, config.updates)


def _finished(place: Path, updates: int) -> bool:
    """Whether a run has its last checkpoint, and nothing is due in it."""
    last = latest_step(place)
    if last is None or last < updates:
        return False
    try:
        extra = read_json(checkpoint_path(place, last) / SIDECAR, dict).get("extra")
    except VGFError:  # it is being replaced; or it is damaged, and the run goes on before it
        return False
    return isinstance(extra, dict) and not extra.get("evaluation_due")


def updates_done(place: Path) -> int:
    """The updates that a run has logged so far."""
    rows = place / f"{METRICS}.jsonl"
    try:
        last = read_log(rows)[-1:] if rows.is_file() else []
    except VGFError:  # a row is damaged; the run goes on before it
        last = []
    return max(int(last[0].get("step") or 0) if last else 0, latest_step(place) or 0)


def states(folder: Path) -> list[Cell]:
    """Where all runs of a sweep are.

    Raises:
        VGFError: not a sweep's folder.
    """
    names = cell_names(folder)
    if not names:
        raise VGFError(f"{folder} is not the folder of a sweep: it has no {CELLS}")
    return [state_of(folder, name) for name in names]


def summary(cells: Sequence[Cell]) -> str:
    """The states in one line: every cell counts once."""
    counts = Counter(cell.state for cell in cells)
    return f"{counted(len(cells), 'run')}: " + ", ".join(
        f"{counts[state]} {state}" for state in STATES if counts[state]
    )


def record(folder: Path, lines: Iterable[str]) -> None:
    """Add lines to the sweep's log, with the time."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(folder / LOG, "a", encoding="utf-8") as file:
        file.writelines(f"{stamp} {line}\n" for line in lines)


def forget_failures(folder: Path) -> list[str]:
    """Let failed runs be tried again; returns their names."""
    failed = sorted((folder / FAILED).glob("*.txt"))
    for path in failed:
        path.unlink()
    return [path.stem for path in failed]

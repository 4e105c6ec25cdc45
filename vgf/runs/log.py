"""What a run writes down while it goes, and its progress on the screen.

CSV and JSONL files are written always, a row at a time, so that a crash costs at most the row it
fell into. The JSONL file is the record; the CSV file says the same for a spreadsheet. TensorBoard
and Weights & Biases get the same numbers when asked.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

import numpy as np

from .config import RunConfig, to_dict
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import write_atomically

METRICS, EVALUATIONS, ONLINE = "metrics", "evaluations", "online"

# One row of evaluations for each episode. Units: `return` the rewards' own, `success` 0 or 1,
# `score` the task's headline (success, normalised score or return: environment.json says which),
# `length` in decisions, `displacement` and `w2` in units of the action; blank where unknown.
EVALUATION_COLUMNS = (
    "step",
    "budget",
    "episode",
    "seed",
    "return",
    "success",
    "score",
    "length",
    "displacement",
    "w2",
)

# One row of the online log for each episode that was collected to its end. `environment_steps` and
# `step` (updates) were done by then; the other units are those of evaluations.
ONLINE_COLUMNS = (
    "environment_steps",
    "step",
    "episode",
    "seed",
    "return",
    "success",
    "score",
    "length",
)

Scalar = float | int | str | None
Row = dict[str, Scalar]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


# --- rows on disk -------------------------------------------------------------------------------


class RowLog:
    """Rows of scalars in ``NAME.csv`` and ``NAME.jsonl``, appended one by one.

    Args:
        folder: the run folder.
        name: of the two files.
        columns: the first columns of the CSV file; others follow as rows bring them.
        last_step: keep only the rows up to this step, as a run that goes on from a checkpoint
            must; None keeps all. A row that a crash cut off goes in either case.
        counter: the column that `last_step` is of.

    Raises:
        VGFError: an existing file that is damaged in its middle.
    """

    def __init__(
        self,
        folder: Path | str,
        name: str,
        columns: Sequence[str] = ("step",),
        last_step: int | None = None,
        counter: str = "step",
    ) -> None:
        self.jsonl, self.csv = (Path(folder) / f"{name}{suffix}" for suffix in (".jsonl", ".csv"))
        self.columns = list(columns)
        rows = read_rows(self.jsonl) if self.jsonl.exists() else []
        if last_step is not None:
            rows = [row for row in rows if int(row.get(counter) or 0) <= last_step]
        self.last: Row = rows[-1] if rows else {}
        self._add_columns(rows)
        write_atomically(self.jsonl, "".join(map(_as_json, rows)))
        self._write_csv(rows)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, each a mapping of names to scalars, and hand them to the system.

        Raises:
            VGFError: a value that is no scalar.
        """
        fresh = [{name: _scalar(name, value) for name, value in row.items()} for row in rows]
        if not fresh:
            return
        self.last = fresh[-1]
        with open(self.jsonl, "a", encoding="utf-8") as file:
            file.write("".join(map(_as_json, fresh)))
        if self._add_columns(fresh):
            self._write_csv(read_rows(self.jsonl))
        else:
            with open(self.csv, "a", encoding="utf-8", newline="") as file:
                file.write(_as_csv(fresh, self.columns))

    def _add_columns(self, rows: Iterable[Row]) -> bool:
        names = dict.fromkeys(name for row in rows for name in row if name not in self.columns)
        self.columns += names
        return bool(names)

    def _write_csv(self, rows: Sequence[Row]) -> None:
        head: Row = {name: name for name in self.columns}
        write_atomically(self.csv, _as_csv([head, *rows], self.columns))


def read_rows(path: Path | str) -> list[Row]:
    """The rows of a JSONL file, without one that a crash cut off at its end.

    Raises:
        VGFError: as :func:`read_lines`.
    """
    return [
        {name: _NON_FINITE.get(x, x) if isinstance(x, str) else x for name, x in row.items()}
        for row in read_lines(path)
    ]


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The objects of a JSONL file, one a line, without one that a crash cut off at its end.

    Raises:
        VGFError: no such file, or a line that is not a row; the message names file and line.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    rows: list[dict[str, Any]] = []
    *lines, _cut_off = text.split("\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise VGFError(f"{path}: line {number} is damaged; delete that line") from error
        if not isinstance(row, dict):
            raise VGFError(f"{path}: line {number} is not a row; delete that line")
        rows.append(row)
    return rows


def _scalar(name: str, value: Any) -> Scalar:
    if value is None:
        return None
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "biuf":
        shown = f"shape {list(array.shape)}, dtype {array.dtype}"
        raise VGFError(f"cannot log {name}: it is no scalar but {shown}")
    return float(array) if array.dtype.kind == "f" else int(array)


def _as_json(row: Row) -> str:
    values = {
        name: next(text for text, other in _NON_FINITE.items() if str(other) == str(value))
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in row.items()
    }
    return json.dumps(values, allow_nan=False) + "\n"


def _as_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


# --- the logs of a run --------------------------------------------------------------------------


class RunLog:
    """Everything a run logs: metrics of training, and evaluations episode by episode.

    Args:
        folder: the run folder.
        config: of the run; its logging table says whether TensorBoard and Weights & Biases
            take part.
        last_step: the step of the checkpoint that the run goes on from; later rows are dropped,
            so that the log becomes that of a run that never stopped. None for a new run.
        evaluation_due: the evaluation of `last_step` is still to be made; rows of it are dropped.
        environment_steps: those of that checkpoint; episodes that ended later are dropped.

    Write evaluations of a step before its checkpoint: then whatever checkpoint a run goes on
    from, the rows up to it are whole.

    Raises:
        VGFError: a log that is damaged, or a package that is missing.
    """

    def __init__(
        self,
        folder: Path | str,
        config: RunConfig,
        last_step: int | None = None,
        evaluation_due: bool = False,
        environment_steps: int = 0,
    ) -> None:
        folder = Path(folder)
        self._writers: list[_Writer] = []
        if config.logging.tensorboard:
            self._writers.append(_TensorBoard(folder, last_step))
        if config.logging.wandb:
            self._writers.append(_Wandb(folder, config))
        self._metrics = RowLog(folder, METRICS, ("step", "seconds"), last_step)
        evaluated = last_step - 1 if last_step is not None and evaluation_due else last_step
        self._evaluations = RowLog(folder, EVALUATIONS, EVALUATION_COLUMNS, evaluated)
        if config.online.steps:
            self._online = RowLog(
                folder, ONLINE, ONLINE_COLUMNS, environment_steps, "environment_steps"
            )
        self._start = time.monotonic() - float(self._metrics.last.get("seconds") or 0)

    def metrics(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One row: the step, the seconds the run has taken so far, and scalars by name."""
        seconds = round(time.monotonic() - self._start, 3)
        self._metrics.append([{"step": step, "seconds": seconds, **scalars}])
        self._write(step, {f"train/{name}": value for name, value in scalars.items()})

    def evaluations(self, step: int, episodes: Sequence[Mapping[str, Any]]) -> None:
        """One row for each episode, with the names of :data:`EVALUATION_COLUMNS` but `step`."""
        blank = dict.fromkeys(EVALUATION_COLUMNS)
        self._evaluations.append({**blank, **row, "step": step} for row in episodes)
        for budget, rows in by_budget(episodes).items():
            means = {name: mean(rows, name) for name in EVALUATION_COLUMNS[4:]}
            self._write(step, {f"evaluation {budget}/{name}": x for name, x in means.items()})

    def episode(self, step: int, row: Mapping[str, Any]) -> None:
        """One row: an episode that was collected, with the names of :data:`ONLINE_COLUMNS`."""
        self._online.append([{**dict.fromkeys(ONLINE_COLUMNS), **row, "step": step}])
        names = ("environment_steps", "return", "success", "score", "length")
        self._write(step, {f"online/{name}": row[name] for name in names})

    def _write(self, step: int, scalars: Mapping[str, Any]) -> None:
        if self._writers:
            numbers = {name: _scalar(name, value) for name, value in scalars.items()}
            finite = {name: float(x) for name, x in numbers.items() if isinstance(x, float | int)}
            for writer in self._writers:
                writer.write(step, finite)

    def close(self) -> None:
        """Finish TensorBoard and Weights & Biases; the files need no finishing."""
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# Budgets with a name, one sample of a policy: in few letters, and spelled out.
POLICIES = {
    "bc": ("BC", "behaviour cloning"),
    "weighted_bc": ("weighted BC", "weighted behaviour cloning"),
    "fql": ("FQL", "FQL"),
}


def by_budget(rows: Iterable[Mapping[str, Any]]) -> dict[Scalar, list[Mapping[str, Any]]]:
    """Rows grouped by their test budget, in the order of the budgets: names first, then L_test."""
    groups: dict[Scalar, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_scalar("budget", row["budget"]), []).append(row)
    names = sorted(budget for budget in groups if isinstance(budget, str))
    numbers = sorted((b for b in groups if isinstance(b, int | float)), key=float)
    order: list[Scalar] = [*names, *numbers]
    return {budget: groups[budget] for budget in order}


def mean(rows: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """The mean of one column over the rows that have it, or None."""
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return float(np.mean(values)) if values else None


class _Writer(Protocol):
    def write(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, folder: Path, last_step: int | None) -> None:
        purge = None if last_step is None else last_step + 1
        self._writer = need("tensorboardX", "tensorboard").SummaryWriter(
            logdir=str(folder / "tensorboard"), purge_step=purge
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name.replace(" ", "_"), value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Offline, without an account, unless WANDB_MODE says otherwise. Every start is a run there."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        wandb = need("wandb", "wandb")
        self._run = wandb.init(
            project="vgf",
            name=folder.resolve().name,
            dir=str(folder),
            config=to_dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


# --- progress -----------------------------------------------------------------------------------


class Progress(Protocol):
    """A running count of something that takes a while; a context manager."""

    def update(self, n: int = 1) -> None:
        """`n` more are done."""

    def write(self, line: str) -> None:
        """Print a line on standard output without disturbing the count."""

    def close(self) -> None:
        """The end, whether or not all is done."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *error: object) -> None: ...


def progress(
    total: int, what: str, unit: str = "it", done: int = 0, stream: TextIO | None = None
) -> Progress:
    """Show how far something is.

    On a terminal, a bar with rate and time left. Elsewhere plain whole lines, without control
    characters: one for every 10 % or 30 s, never two within a second.

    Args:
        total: how many there are.
        what: is done, as in "training".
        unit: one of what is counted, as in "update".
        done: how many were done before, by a run that this one goes on from.
        stream: where to; None is standard error.

    Raises:
        VGFError: a terminal, and the package that draws bars is missing.
    """
    stream = sys.stderr if stream is None else stream
    kind: type[_Bar] | type[_Lines] = _Bar if stream.isatty() else _Lines
    return kind(total, what, unit, done, stream)


@contextmanager
def shown_progress(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows how far things are, each under its own label, until the block ends.

    It takes what is being done, how much of it is done, and how much there is; what is done in
    its first call was done before.

    Args:
        unit: one of what is counted, as in "episode".
    """
    shown: dict[str, tuple[Progress, int]] = {}

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
        size = shutil.get_terminal_size()  # never 0, as tqdm may take it to be
        self._bar = need("tqdm", "run").tqdm(
            total=total,
            desc=what,
            unit=f" {unit}",
            initial=done,
            file=stream,
            leave=None,
            ncols=size.columns - 1,
            nrows=size.lines,
        )

    def update(self, n: int = 1) -> None:
        self._bar.update(n)

    def write(self, line: str) -> None:
        with self._bar.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> Progress:
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
        print(line, flush=True)

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
        print(
            f"{self._what}: {share} % ({self._done}/{self._total}), "
            f"{rate:.3g} {self._unit}/s, {time_left}",
            file=self._stream,
            flush=True,
        )
        self._told, self._told_at, self._lines = self._done, now, self._lines + 1

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

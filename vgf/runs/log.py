"""What a run records as it goes.

CSV and JSONL files are always written (vgf/support/rows.py). TensorBoard, Weights & Biases and
Trackio get the same numbers if the run's settings ask for them.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..support.errors import VGFError
from ..support.extras import need
from ..support.rows import Row, RowLog, Scalar, read_rows, scalar
from ..support.settings_tree import to_dict
from .config import RunConfig
from .scores import by_budget, mean

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

# One row of the online log for each complete episode collected. `environment_steps` and `step`
# (updates) were done by then; the other units are those of evaluations.
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


def read_log(path: Path) -> list[Row]:
    """The rows of a run's log, checked: each can be counted, grouped and averaged.

    Raises:
        VGFError: as :func:`vgf.support.rows.read_rows`; or a value that its column cannot have.
    """
    rows = read_rows(path)
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            fault = _fault(name, value)
            if fault is not None:
                raise VGFError(f"{path}: line {number} is damaged: {name} is {value!r}; {fault}")
        wanted = ("step", "budget") if path.stem == EVALUATIONS else ("step",)
        missing = [name for name in wanted if row.get(name) is None]
        if missing:
            raise VGFError(f"{path}: line {number} is damaged: it has no {missing[0]}")
    return rows


_COUNTS = ("step", "environment_steps", "episode", "seed", "length")


def _fault(name: str, value: Scalar) -> str | None:
    """What is wrong with a value in a column, or None."""
    if value is None or (name == "budget" and isinstance(value, str)):
        return None
    if not isinstance(value, int | float):
        return "it must be a number" if name in (*EVALUATION_COLUMNS, *ONLINE_COLUMNS) else None
    if name in (*_COUNTS, "budget") and (value < 0 or not float(value).is_integer()):
        return "it must be a whole number"
    if name == "success" and not 0 <= value <= 1:
        return "it must be from 0 to 1"
    return None


class RunLog:
    """Everything a run logs: metrics of training, and evaluations episode by episode.

    Args:
        folder: the run folder.
        config: of the run; its logging table says whether TensorBoard, Weights & Biases and
            Trackio are used.
        last_step: the step of the checkpoint from which the run resumes; later rows are dropped, so
            that the log becomes that of a run that never stopped. None for a new run.
        evaluation_due: the evaluation of `last_step` is still to be made; rows of it are dropped.
        environment_steps: those of that checkpoint; episodes that ended later are dropped.

    Write evaluations of a step before its checkpoint: then whatever checkpoint a run resumes
    from, the rows up to it are complete.

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
        if config.logging.trackio:
            self._writers.append(_Trackio(folder, config))
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
        """One row: a collected episode, with the names of :data:`ONLINE_COLUMNS`."""
        self._online.append([{**dict.fromkeys(ONLINE_COLUMNS), **row, "step": step}])
        names = ("environment_steps", "return", "success", "score", "length")
        self._write(step, {f"online/{name}": row[name] for name in names})

    def _write(self, step: int, scalars: Mapping[str, Any]) -> None:
        if self._writers:
            numbers = {name: scalar(name, value) for name, value in scalars.items()}
            finite = {name: float(x) for name, x in numbers.items() if isinstance(x, float | int)}
            for writer in self._writers:
                writer.write(step, finite)

    def close(self) -> None:
        """Finish TensorBoard, Weights & Biases and Trackio; the files need no finishing."""
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


class _Trackio:
    """On this machine, in Trackio's own folder (TRACKIO_DIR); `trackio show` draws it."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        trackio = need("trackio", "trackio")
        # what it says of its dashboard is not of the run
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = trackio.init(
                project="vgf",
                name=folder.resolve().name,
                config=to_dict(config),
                resume="allow",
                embed=False,
            )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()

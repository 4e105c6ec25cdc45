"""Other people's results: tables of scores, and the logs of FQL's code and its descendants.

- CSV or JSONL with a row for each result: task, method, seed and score, and perhaps step and budget
  (the test budget). Other columns are ignored.
- .npz of per-seed results, an array ``TASK|METHOD`` of shape [evaluation, seed] for each; the steps
  of the evaluations are an array named ``steps``, or count from `every`.
- a folder with flags.json and eval.csv, as FQL's code writes it and the VGF authors' does.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.npz import load_arrays, names_in, readable
from ..support.checks import check_name
from ..support.errors import VGFError
from ..support.files import read_json
from ..support.rows import Scalar, read_lines
from ..support.statistics import NORMALISED, RETURN, SUCCESS
from .groups import Record
from .results import Results, Series, gather

_LARGEST = 1e100  # of a score; sums of larger ones overflow
_NEEDED = ("task", "method", "seed", "score")
FLAGS, EVAL = "flags.json", "eval.csv"
# What other tables call these columns.
_ALSO = {
    "env": "task",
    "env_name": "task",
    "environment": "task",
    "dataset": "task",
    "algorithm": "method",
    "algo": "method",
    "agent": "method",
    "steps": "step",
    "updates": "step",
    "value": "score",
    "success": "score",
    "return": "score",
    "normalized_score": "score",
    "normalised_score": "score",
    "l_test": "budget",
}


def read_table(path: Path | str, every: int | None = None, kind: str | None = None) -> Results:
    """Results from a file: .csv, .jsonl or .npz.

    Args:
        path: of the file.
        every: updates between the evaluations of an .npz file that does not name its steps; None
            counts evaluations.
        kind: what the scores are: "success", "normalised score" or "return"; None is success where
            all lie in [0, 1], and otherwise normalised score.

    Raises:
        VGFError: a file that cannot be read, or lacks something; the message names the line or key.
    """
    path = Path(path)
    if path.suffix == ".npz":
        series, notes = _read_npz(path, every)
    elif path.suffix in (".csv", ".jsonl"):
        series, notes = gather(_rows(path), str(path)), ()
    else:
        raise VGFError(f"{path}: not a table of results; give a .csv, .jsonl or .npz file")
    if not series:
        raise VGFError(f"{path} has no results")
    values = np.concatenate([one.scores.ravel() for one in series])
    guess = SUCCESS if np.nanmin(values) >= 0 and np.nanmax(values) <= 1 else NORMALISED
    return Results(series, kind or guess, notes=notes)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for place, row in _lines(path):
        named = {
            _ALSO.get(str(key).strip().lower(), str(key).strip().lower()): x
            for key, x in row.items()
        }
        for key in _NEEDED:
            if named.get(key) in (None, ""):
                raise VGFError(f"{place}: no {key}; a row needs {', '.join(_NEEDED)}")
        yield {
            "task": _name(place, named["task"]),
            "method": _name(place, named["method"]),
            "budget": _budget(named.get("budget")),
            "seed": _number(place, "seed", named["seed"], whole=True),
            "step": _number(place, "step", named.get("step") or 0, whole=True),
            "score": _number(place, "score", named["score"]),
        }


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".jsonl":
        yield from ((f"{path}: line {i}", row) for i, row in enumerate(read_lines(path), 1))
        return
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for i, row in enumerate(csv.DictReader(file), 2):
                yield f"{path}: line {i}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise VGFError(f"{path}: cannot be read: {reason}") from error


def _name(place: Path | str, given: Any) -> str:
    name = str(given)
    check_name(place, name)
    return name


def _number(place: str, name: str, value: Any, whole: bool = False) -> Any:
    try:
        number = float(value)
        if abs(number) > _LARGEST:
            raise ValueError
        if whole and not (number.is_integer() and abs(number) < 2**53):
            raise ValueError
    except (ValueError, OverflowError, TypeError):
        kind = "a whole number" if whole else f"a number of at most {_LARGEST:g}"
        raise VGFError(f"{place}: {name} is {value!r}; it must be {kind}") from None
    return int(number) if whole else number


def _budget(value: Any) -> Scalar:
    if value in (None, ""):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return int(number) if number.is_integer() else number


def _read_npz(path: Path, every: int | None) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    with readable(path):
        arrays = load_arrays(path, names_in(path))[0]
    given = arrays.pop("steps", None)
    longest = max((len(a) for a in arrays.values() if a.ndim == 2), default=0)
    steps = np.arange(1, longest + 1) * (every or 1) if given is None else np.asarray(given)
    series, short = [], {}
    for key, array in arrays.items():
        task, _, method = _name(path, key).rpartition("|")
        if not task or not method:
            raise VGFError(f"{path}: key {key!r}; it must be TASK|METHOD")
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise VGFError(
                f"{path}: {key} has shape {list(array.shape)} and dtype {array.dtype}; it must be "
                "numbers, [evaluation, seed]"
            )
        if (np.abs(array) > _LARGEST).any():
            raise VGFError(f"{path}: {key} has scores beyond {_LARGEST:g}")
        if len(array) > len(steps):
            raise VGFError(f"{path}: {key} has {len(array)} evaluations, and steps {len(steps)}")
        if len(array) < len(steps):
            short[method] = len(array)
        place = steps[len(steps) - len(array) :].astype(np.int64)
        seeds = tuple(range(array.shape[1]))
        series.append(Series(task, method, None, place, seeds, array.astype(np.float64)))
    notes = [
        f"{name} has {n} of {len(steps)} evaluations; they count as the last ones"
        for name, n in short.items()
    ]
    return tuple(series), tuple(notes)


# --- the logs of FQL's code and of those made from it ---------------------------------------------


def is_log(folder: Path) -> bool:
    """Whether a folder has such logs."""
    return (folder / FLAGS).is_file() and (folder / EVAL).is_file()


def read_log(folder: Path | str) -> Record:
    """One run of FQL's code, or of one made from it, such as the VGF authors'.

    Raises:
        VGFError: a file that is damaged, or lacks the score.
    """
    folder = Path(folder)
    flags = read_json(folder / FLAGS, dict)
    agent = flags.get("agent")
    agent = agent if isinstance(agent, dict) else {}
    try:
        env, method = (_name(folder / FLAGS, x) for x in (flags["env_name"], agent["agent_name"]))
        task, seed = env.partition(":")[2] or env, int(flags["seed"])
        offline, online = (int(flags.get(f"{part}_steps") or 0) for part in ("offline", "online"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VGFError(
            f"{folder / FLAGS}: lacks env_name, seed or agent_name, or damaged"
        ) from error
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _SCORES.values()}
    for place, row in _lines(folder / EVAL):
        for column, value in row.items():
            head, _, name = (column or "").partition("/")
            kind = _SCORES.get(name.removeprefix("episode."))
            if head.startswith("evaluation") and kind and value not in (None, ""):
                step = _number(place, "step", row.get("step"), whole=True)
                budget = _budget(head.removeprefix("evaluation").strip("_"))
                score = _number(place, str(column), value)
                found[kind].append({"step": step, "budget": budget, "score": score})
    kind = next((kind for kind, rows in found.items() if rows), None)
    if kind is None:
        raise VGFError(
            f"{folder / EVAL}: no column evaluation/success or evaluation/episode.return"
        )
    budgets = {row["budget"] for row in found[kind]}
    quiet = {"agent_name", "train_vgf_steps"}
    return Record(
        source=str(folder),
        task=task,
        method=method,
        seed=seed,
        settings={f"agent.{key}": x for key, x in agent.items() if key not in quiet},
        protocol={
            "updates": offline + online,
            "environment steps": online,
            "episodes": flags.get("eval_episodes"),
            "sparse rewards": bool(flags.get("sparse", False)),
        },
        kind=kind,
        rows=found[kind],
        training=agent.get("train_vgf_steps") if len(budgets) > 1 else None,
        end=offline + online,
        paired=False,
    )


# The headline of a log is the first of these that it has.
_SCORES = {"normalized_return": NORMALISED, "success": SUCCESS, "return": RETURN}

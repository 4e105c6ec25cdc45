"""Rows of scalars on disk, as JSONL and as CSV, appended one by one.

A row is written as a whole, so that a crash costs at most one row. The JSONL file is the record;
the CSV file has the same for a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import VGFError
from .files import append_durably, is_text, parse_json, write_atomically

Scalar = float | int | str | None
Row = dict[str, Scalar]

_INTEGERS = range(-(2**63), 2**64)  # what NumPy's integers hold
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RowLog:
    """Rows of scalars in ``NAME.csv`` and ``NAME.jsonl``, appended one by one.

    Args:
        folder: the run folder.
        name: of the two files.
        columns: the first columns of the CSV file; others follow as rows add them.
        last_step: keep only the rows up to this step, as a run resumed from a checkpoint must; None
            keeps all. A row that a crash cut off is removed in either case.
        counter: the column that `last_step` refers to.

    Raises:
        VGFError: an existing file that is damaged in the middle.
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
            rows = [row for row in rows if _count(row, counter, self.jsonl) <= last_step]
        self.last: Row = rows[-1] if rows else {}
        self._add_columns(rows)
        write_atomically(self.jsonl, "".join(map(_as_json, rows)))
        self._write_csv(rows)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, each a mapping of names to scalars, and pass them to the system.

        Raises:
            VGFError: a value that is not a scalar, or a file that cannot be written.
        """
        fresh = [{name: scalar(name, value) for name, value in row.items()} for row in rows]
        if not fresh:
            return
        self.last = fresh[-1]
        append_durably(self.jsonl, "".join(map(_as_json, fresh)), wait=False)
        if self._add_columns(fresh):
            self._write_csv(read_rows(self.jsonl))
        else:
            append_durably(self.csv, _as_csv(fresh, self.columns), wait=False)

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
        VGFError: as :func:`read_lines`; or a value that is not a scalar.
    """
    rows = []
    for number, row in enumerate(read_lines(path), 1):
        for name, value in row.items():
            whole = isinstance(value, int) and value in _INTEGERS
            text = isinstance(value, str) and is_text(value)
            if not is_text(name) or not (value is None or whole or text or type(value) is float):
                raise VGFError(f"{path}: line {number} is damaged: {name!r} is not a scalar")
        rows.append(
            {name: _NON_FINITE.get(x, x) if isinstance(x, str) else x for name, x in row.items()}
        )
    return rows


def _count(row: Row, counter: str, path: Path) -> int:
    """A row's number of steps; 0 if it has none."""
    value = row.get(counter) or 0
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise VGFError(f"{path} is damaged: {counter} is {value!r} in a row; delete that line")
    return int(value)


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The objects of a JSONL file, one a line, without one that a crash cut off at its end.

    Raises:
        VGFError: no such file, or a line that is not a row; the message names file and line.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    rows: list[dict[str, Any]] = []
    *lines, _cut_off = text.split("\n")
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise VGFError(f"{path}: line {number} is damaged; delete that line") from error
        if not isinstance(row, dict):
            raise VGFError(f"{path}: line {number} is not a row; delete that line")
        rows.append(row)
    return rows


def scalar(name: str, value: Any) -> Scalar:
    """A value as a row holds it.

    Raises:
        VGFError: it is not a scalar.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "biuf":
        shown = f"shape {list(array.shape)}, dtype {array.dtype}"
        raise VGFError(f"cannot log {name}: it is not a scalar; it has {shown}")
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

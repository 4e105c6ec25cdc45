"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for the terminal: the first row's names, a rule, and a line for each row.

    The first column is aligned left, the others right.
    """
    names = list(rows[0]) if rows else []
    cells = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = (
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def counted(number: int, thing: str) -> str:
    """A number of things: "1 run", "2 runs"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"

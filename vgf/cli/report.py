"""`vgf report`: tables and figures of a run folder."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from . import COMMANDS

if TYPE_CHECKING:
    from ..runs.report import Found


def main(words: list[str]) -> int:
    from ..runs.report import report, sound_runs
    from ..support.parser import Parser

    parser = Parser(prog="vgf report", description=COMMANDS["report"])
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder, or a folder of them")
    args = parser.parse_args(words)
    found = sound_runs(args.run)
    page = report(args.run, found)
    several = print_table(args.run, found)
    print(f"{'list' if several else 'figures and tables'}: {page}")
    return 0


def print_table(folder: Path, found: Found) -> bool:
    """Print the last and the best scores of a run folder; of unlike runs, a list.

    Args:
        folder: of a run, or of runs.
        found: what :func:`vgf.runs.report.sound_runs` found there.

    Returns:
        Whether it is a list.
    """
    from ..runs.report import (
        best_scores,
        headline,
        last_scores,
        reasons,
        run_table,
        score_table,
        unlike_runs,
    )
    from ..support.tables import format_table

    runs, without = found
    difference = unlike_runs(runs, without)
    if difference is not None:
        line = f"{len(runs) + len(without)} runs, {difference}:"
        print(textwrap.fill(line, 79) + "\n")
        rows = [
            {key: x for key, x in row.items() if key != "task"}
            for row in run_table(folder, runs, without)
        ]
        rest = format_table([{key: x for key, x in row.items() if key != "run"} for row in rows])
        width = 77 - max(map(len, rest.splitlines()))
        print(format_table([{**row, "run": _cut(row["run"], width)} for row in rows]))
        for line in reasons(without):
            print(textwrap.fill(line, 79, subsequent_indent="  "))
        print(f"\ncompare them with: vgf compare {folder}")
        return True
    last = last_scores(runs)
    if not last:
        print("\n" + textwrap.fill(headline(runs, last), 79))
        return False
    print("\nlast evaluation")
    print(format_table(score_table(last)))
    best = best_scores(runs)
    steps = {row.step for row in last}
    if any(row.step not in steps for row in best):
        print("\nbest evaluation, chosen with hindsight")
        print(format_table(score_table(best, with_step=True)))
    print("\n" + textwrap.fill(headline(runs, last), 79))
    return False


def _cut(name: str, width: int) -> str:
    """A long name without its middle."""
    half = max(4, (width - 3) // 2)
    return name if len(name) <= width else f"{name[:half]}...{name[-half:]}"

"""`vgf report`: tables and figures of a run folder."""

from __future__ import annotations

import textwrap
from pathlib import Path

from . import COMMANDS


def main(words: list[str]) -> int:
    from ..runs.flags import Parser
    from ..runs.report import report

    parser = Parser(prog="vgf report", description=COMMANDS["report"])
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder, or one of several seeds")
    args = parser.parse_args(words)
    page = report(args.run)
    print_table(args.run)
    print(f"figures and tables: {page}")
    return 0


def print_table(folder: Path) -> None:
    """Print the last and the best scores of a run folder."""
    from ..runs.report import best_scores, find_runs, headline, last_scores, score_table
    from ..support.tables import format_table

    runs = find_runs(folder)
    last = last_scores(runs)
    if not last:
        print("\n" + textwrap.fill(headline(runs, last), 79))
        return
    print("\nlast evaluation")
    print(format_table(score_table(last)))
    best = best_scores(runs)
    steps = {row.step for row in last}
    if any(row.step not in steps for row in best):
        print("\nbest evaluation, chosen with hindsight")
        print(format_table(score_table(best, with_step=True)))
    print("\n" + textwrap.fill(headline(runs, last), 79))

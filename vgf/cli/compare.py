"""`vgf compare`: methods over tasks and seeds."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from . import COMMANDS


def main(words: list[str]) -> int:
    from ..comparison import as_csv, as_json, compare, read_table, save_figures, tables
    from ..runs.compare import read_runs
    from ..support.files import check_writable, write_atomically
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf compare",
        usage="vgf compare FOLDER... [flags]\n       vgf compare --table FILE [flags]",
        description=COMMANDS["compare"]
        + ". Runs are grouped by task, method and settings; runs that were not measured alike are "
        "refused.",
        epilog="FOLDER: runs, sweeps, or logs of FQL's code (flags.json, eval.csv). FILE: .csv or "
        ".jsonl with task, method, seed, score, and perhaps step and budget; or .npz with an array "
        "TASK|METHOD of shape [evaluation, seed] for each.",
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path, help="folders of runs")
    parser.add_argument("--table", metavar="FILE", type=Path, help="a table of results instead")
    parser.add_argument(
        "--at",
        metavar="STEP",
        type=_at,
        default="last",
        help="which evaluation: last, best (with hindsight), or a number of updates [last]",
    )
    parser.add_argument(
        "--budget",
        metavar="L",
        nargs="+",
        default=["training"],
        help="test budgets: training, all, or numbers [training]",
    )
    parser.add_argument("--methods", metavar="NAME", nargs="+", help="these, in this order")
    parser.add_argument("--tasks", metavar="NAME", nargs="+", help="these only")
    parser.add_argument("--baseline", metavar="NAME", help="compare pairs with this method only")
    parser.add_argument(
        "--allow",
        metavar="WHAT",
        nargs="+",
        default=[],
        help="pass over a difference of protocol, such as episodes",
    )
    parser.add_argument(
        "--every", metavar="N", type=int, help="updates between the evaluations of an .npz table"
    )
    parser.add_argument(
        "--score", choices=("success", "normalised score", "return"), help="what a table's score is"
    )
    parser.add_argument(
        "--paired",
        action=argparse.BooleanOptionalAction,
        help="whether equal seeds belong together [of runs yes, of tables no]",
    )
    parser.add_argument(
        "--resamples", metavar="N", type=int, default=2000, help="of the bootstrap [2000]"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="write tables (md, tex, csv, json) and figures (png, svg, pdf) there",
    )
    args = parser.parse_args(words)
    if (args.table is None) == (not args.folders):
        raise VGFError("vgf compare: name folders of runs, or one table with --table FILE")
    if args.resamples < 1:
        raise VGFError(f"vgf compare: --resamples is {args.resamples}; it must be 1 or more")
    if args.every is not None and args.every < 1:
        raise VGFError(f"vgf compare: --every is {args.every}; it must be 1 or more")
    if args.out is not None:
        check_writable(args.out)
    if args.table is not None:
        results = read_table(args.table, args.every, args.score)
    else:
        allow = {word.replace("-", " ") for word in args.allow}
        results = read_runs(args.folders, args.at, allow)
    results = results.only(args.methods, args.tasks)
    found = compare(
        results,
        at=args.at,
        budget=_budgets(args.budget),
        baseline=args.baseline,
        resamples=args.resamples,
        paired=args.paired,
        figures=args.out is not None,
    )
    print(tables(found), end="")
    if args.out is not None:
        for form in ("md", "tex"):
            write_atomically(args.out / f"comparison.{form}", tables(found, form))
        write_atomically(args.out / "comparison.csv", as_csv(found))
        write_atomically(args.out / "comparison.json", as_json(found))
        drawn = save_figures(found, args.out)
        names = ", ".join(["comparison", *(stem.name for stem in drawn)])
        print("\n" + textwrap.fill(f"written to {args.out}: {names}", 79))
    return 0


def _at(word: str) -> str | int:
    if word in ("last", "best"):
        return word
    try:
        return int(word.replace(",", "").replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is not last, best or a number") from None


def _budgets(words: list[str]) -> Any:
    if len(words) == 1 and words[0] in ("training", "all"):
        return words[0]
    return [int(word) if word.isdigit() else word for word in words]

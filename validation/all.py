"""Every experiment, one after the other, and the report on all of them.

    python -m validation.all                  # about an hour on 2 cores
    python -m validation.all --quick          # a short version of each, about 10 minutes
    python -m validation.all --runs RUN ...   # test-time scaling of these run folders
    python -m validation.all --long           # hours: also the trainings and the mistakes

Runs the claims, the toy, test-time scaling (of the default run, trained first, if no run
folder is named), the parity table and the comparison with published numbers, then writes report.md
and report.html. What takes hours is shown as recorded, unless --long is given. An experiment that
cannot be run is named at the end, and the others continue. Exits with status 1 if a claim does
not hold or something could not be run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from vgf.support.errors import VGFError

from . import (
    budget,
    methods,
    mistakes,
    online,
    parity,
    precision,
    published,
    runs,
    scaling,
    sources,
)
from .claims import CLAIMS
from .experiment import QUICK_RESULTS, Experiment, command_line, exit_status, holds, run, say
from .record import RESULTS
from .report import write_report
from .toy import TOY

COPIED = (
    "run-*",
    "methods-*",
    "budget-*",
    "learning-*",
    "operators-*",
    "protocol-*",
    "authors.*",
    "online.*",
    "sources.*",
    "language*",
    "smollm2.*",
    "bench-*",
    "precision.*",
    "mistakes.md",
)
QUICK_PARITY = ("--examples", "5", "--updates", "10", "--dtype", "float64")


def tasks(out: Path, quick: bool, folders: list[str], long: bool) -> dict[str, Callable[[], bool]]:
    """Every part by name: a function that runs it and returns whether everything holds."""
    short = ["--quick"] * quick

    def one(experiment: Experiment, command: str) -> Callable[[], bool]:
        def act() -> bool:
            record = run(experiment, out, quick, command)
            say(record, out)
            return holds(record)

        return act

    def language() -> bool:
        from .language.benchmark import EXPERIMENT  # which needs an extra

        return one(EXPERIMENT, command_line("language", short))()

    slow = {
        **{m.name: one(m, command_line("methods", [m.name, *short])) for m in methods.EXPERIMENTS},
        **{b.name: one(b, command_line("budget", [b.name, *short])) for b in budget.EXPERIMENTS},
        "online": one(online.EXPERIMENT, command_line("online", short)),
        "sources": one(sources.EXPERIMENT, command_line("sources", short)),
        "precision": one(precision.EXPERIMENT, command_line("precision", short)),
        "language": language,
        "runs": lambda: runs.main(["demo", "--out", str(out)]) == 0,
        "mistakes": lambda: mistakes.main(["--out", str(out)]) == 0,
    }
    return {
        **{c.name: one(c, command_line("claims", [c.name, *short])) for c in CLAIMS},
        "toy": one(TOY, command_line("toy", short)),
        "scaling": one(scaling.experiment(folders), command_line("scaling", [*folders, *short])),
        "parity": lambda: parity.main([*(QUICK_PARITY * quick), "--out", str(out)]) == 0,
        **(slow if long else {}),
        "published": one(published.experiment(), command_line("published", short)),
    }


def run_all(out: Path, quick: bool, folders: list[str], long: bool, skip: list[str]) -> bool:
    """Run everything, write the report, and say what did not hold or could not be run."""
    failed, broken = [], {}
    if out != RESULTS:
        copy_runs(out)
    for name, act in tasks(out, quick, folders, long).items():
        if name in skip:
            continue
        try:
            if not act():
                failed.append(name)
        except VGFError as error:
            broken[name] = str(error)
            print(f"{name} could not be run: {error}", file=sys.stderr)
    place = write_report(out)
    print(f"report: {place}")
    if failed:
        print(f"does not hold: {', '.join(failed)}")
    if broken:
        print(f"could not be run: {', '.join(broken)}")
    return not failed and not broken


def copy_runs(out: Path) -> None:
    """Copy the recorded runs to another results folder, for parts that are not run again."""
    out.mkdir(parents=True, exist_ok=True)
    for pattern in COPIED:
        for path in sorted(RESULTS.glob(pattern)):
            if not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.all", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help=f"short, into {QUICK_RESULTS}")
    parser.add_argument("--runs", nargs="+", default=[], metavar="RUN", help="for scaling")
    parser.add_argument("--long", action="store_true", help="also what takes hours")
    names = [*(claim.name for claim in CLAIMS), "toy", "scaling", "parity", "published"]
    parser.add_argument(
        "--skip",
        nargs="+",
        default=[],
        choices=names,
        metavar="NAME",
        help=f"leave out, of {', '.join(names)}",
    )
    parser.add_argument("--out", type=Path, help=f"folder of the results (default {RESULTS.name}/)")
    args = parser.parse_args(argv)
    out = args.out or (QUICK_RESULTS if args.quick else RESULTS)
    return exit_status(lambda: run_all(out, args.quick, args.runs, args.long, args.skip))


if __name__ == "__main__":
    sys.exit(main())

"""Which cells of the tox matrix were run, where, and with what result.

    tox run -e CELL --result-json RECORD.json         # one of these for each cell
    python -m validation.matrix RECORD.json ...       # adds them to validation/results/matrix.md

A record says which cells ran, their commands, exit statuses and versions. A cell that is run again
takes the place of its older record.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from vgf.support.errors import VGFError
from vgf.support.files import read_json

from .experiment import exit_status
from .record import RESULTS, environment, markdown_table, write, write_json

SHOWN = ("numpy", "scipy", "jax", "torch", "hypothesis")


def cells(path: Path) -> dict[str, dict[str, Any]]:
    """The cells that one of tox's records is of.

    Raises:
        VGFError: a file that is not such a record.
    """
    record = read_json(path, dict)
    if "testenvs" not in record:
        raise VGFError(f"{path} is not a record of tox; make it with --result-json")
    place = environment()
    found = {}
    for name, cell in record["testenvs"].items():
        runs = cell.get("test", [])
        if name.startswith(".") or not runs:
            continue
        versions = dict(
            one.split("==", 1) for one in cell.get("installed_packages", []) if "==" in one
        )
        last = "\n".join(str(run.get("output", "")) for run in runs)
        counted = re.findall(r"^(?:=+ )?(\d+ (?:passed|failed)[^=\n]*?)(?: =+)?$", last, re.M)
        found[name] = {
            "python": str(cell.get("python", {}).get("version", "")).partition(" ")[0],
            "commands": [_spoken(run["command"]) for run in runs],
            "status": max(abs(int(run["retcode"])) for run in runs),
            "seconds": round(sum(float(run.get("elapsed", 0)) for run in runs), 1),
            "counted": counted[-1] if counted else "",
            "versions": {key: versions[key] for key in SHOWN if key in versions},
            "revision": place["revision"],
            "system": place["system"],
        }
    return found


def _spoken(command: list[str]) -> str:
    """A command as it is typed, without the folder of its environment."""
    return " ".join([Path(command[0]).name, *command[1:]])


def page(record: dict[str, dict[str, Any]]) -> str:
    """The page of all cells that were run."""
    rows = [
        [
            f"`{name}`",
            cell["python"],
            ", ".join(f"`{command}`" for command in cell["commands"]),
            "passed" if cell["status"] == 0 else "**FAILED**",
            cell["counted"],
            ", ".join(f"{key} {value}" for key, value in cell["versions"].items()),
            (cell["revision"] or "unknown")[:12],
        ]
        for name, cell in sorted(record.items())
    ]
    passed = sum(cell["status"] == 0 for cell in record.values())
    header = ("cell", "Python", "commands", "result", "tests", "with", "revision")
    return "\n".join(
        [
            "# The tox matrix, as it was run",
            "",
            f"{passed} of the {len(record)} cells below passed. A cell of `tox -l` that is not "
            "here was not run. Made by `python -m validation.matrix` from tox's own records.",
            "",
            markdown_table(header, rows),
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.matrix", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="of tox")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)

    def act() -> bool:
        place = args.out / "matrix.json"
        record = read_json(place, dict) if place.exists() else {}
        for path in args.records:
            record |= cells(path)
        write_json(place, record)
        write(args.out / "matrix.md", page(record))
        return all(cell["status"] == 0 for cell in record.values())

    return exit_status(act)


if __name__ == "__main__":
    sys.exit(main())

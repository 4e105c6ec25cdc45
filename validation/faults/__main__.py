"""What a run, and whatever reads a file, makes of faults: counted, and recorded on a page.

    python -m validation.faults                    all parts, to the counts wanted
    python -m validation.faults kills --count 500  one part; it goes on from what is recorded
    python -m validation.faults page               the page again, from the record

Parts: kills (kill -9 at random moments and at chosen writes), signals (SIGINT, SIGTERM, SIGHUP),
planted (mistakes that kills must catch), fuzz (mutated files), environments (20 kinds of
misbehaviour), resources (a full disk, few descriptors, little memory, two writers, memory over many
updates). The record is written after each
few trials, so that a part that is stopped goes on where it was. The exit status is 1 where anything
recorded is not as it must be. Files go to a temporary folder: with TMPDIR=/dev/shm, in memory, it
takes a third of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vgf.support.files import read_json

from ..pages import Block, Heading, Points, Table, Text, to_markdown
from ..record import RESULTS, environment, write, write_json
from . import environments, fuzzing, killing, resources
from .reading import Record, faults

WANTED = {"kills": 500, "signals": 100, "fuzz": 200_000}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m validation.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parts = [*PARTS, "page"]
    every = f"{', '.join(parts)}; default: all of them"
    parser.add_argument("part", nargs="?", choices=parts, metavar="part", help=every)
    parser.add_argument("--count", type=int, help="trials in all, with those that are recorded")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", default="numpy,torch,jax")
    parser.add_argument("--only", default="", help="scenarios or kinds whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    place = args.out / "faults.json"
    record: Record = read_json(place, dict) if place.exists() else {}
    until = time.monotonic() + args.seconds

    def keep() -> bool:
        """Write what is known; whether there is time for more."""
        where = environment()
        known = record.setdefault("where", {})
        known["revisions"] = sorted({*known.get("revisions", []), str(where["revision"])})
        record["where"] = {**where, "revisions": known["revisions"]}
        record["seed"] = args.seed
        write_json(place, record)
        return time.monotonic() < until

    with tempfile.TemporaryDirectory(prefix="vgf-faults-") as folder:
        for part in [args.part] if args.part else PARTS:
            if part != "page":
                PARTS[part](record.setdefault(part, {}), args, Path(folder), keep)
    keep()
    write(args.out / "faults.md", to_markdown(page(record)))
    wrong = faults(record)
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def _stops(record: Record, args: Any, folder: Path, keep: Callable[[], bool], hows: Any) -> None:
    """Trials of every scenario in turn, until there are as many as wanted."""
    wanted = args.count or WANTED["kills" if "write" in hows else "signals"]
    backends = tuple(args.backends.split(","))
    references: dict[str, killing.Reference] = {}
    chosen = [
        one
        for one in killing.scenarios(folder, backends)
        if args.only in f"{one.name} {one.backend}"
    ]
    while sum(row["stops"] for row in record.values()) < wanted:
        for scenario in chosen:
            name = f"{scenario.name}, {scenario.backend}".rstrip(", ")
            if name not in references:
                references[name] = killing.Reference(scenario)
            for how in hows:
                blank: Record = {"trials": 0, "stops": 0, "at": {}, "wrong": {}}
                row = record.setdefault(f"{name}: {how}", blank)
                number = row["trials"]
                found = killing.stopped(references[name], number, args.seed, how)
                row["trials"] += 1
                row["stops"] += found["stops"]
                row["checkpoints"] = row.get("checkpoints", 0) + found["checkpoints"]
                row["at"] = dict(Counter(row["at"]) + found["at"])
                if found["wrong"]:
                    row["wrong"][str(number)] = found["wrong"]
            if not keep():
                return


def _kills(record: Record, args: Any, folder: Path, keep: Callable[[], bool]) -> None:
    _stops(record, args, folder, keep, ("moment", "write"))


def _signals(record: Record, args: Any, folder: Path, keep: Callable[[], bool]) -> None:
    _stops(record, args, folder, keep, killing.SIGNALS)


def _planted(record: Record, args: Any, folder: Path, keep: Callable[[], bool]) -> None:
    for name in killing.PLANTED:
        if args.only in name and name not in record:
            record[name] = killing.planted(name, folder / name.replace(" ", "-"))
            if not keep():
                return


def _fuzz(record: Record, args: Any, folder: Path, keep: Callable[[], bool]) -> None:
    kinds = [kind for kind in fuzzing.KINDS if args.only in kind]
    each = -(-(args.count or WANTED["fuzz"]) // len(fuzzing.KINDS))
    blank = {"iterations": 0, "loaded": 0, "refused": 0, "found": {}, "peak": 0}
    more = True
    for kind in kinds:  # what was found is tried again: it may have been mended
        row = record.get(kind, blank)
        for i in list(map(int, row["found"])):
            again = fuzzing.fuzz(kind, i, i + 1, args.seed, folder / "fuzz")
            if not again["found"]:
                del row["found"][str(i)]
                row["loaded"] += again["loaded"]
                row["refused"] += again["refused"]
                more = keep()
    while more and any(record.get(kind, blank)["iterations"] < each for kind in kinds):
        for kind in kinds:
            row = record.setdefault(kind, {**blank, "found": {}})
            first = row["iterations"]
            stop = min(each, first + 4 * fuzzing.CHUNK)
            if first >= stop:
                continue
            found = fuzzing.fuzz(kind, first, stop, args.seed, folder / "fuzz")
            for key in ("iterations", "loaded", "refused"):
                row[key] += found[key]
            row["found"] |= found["found"]
            row["peak"] = max(row["peak"], found["peak"])
            more = keep()
            if not more:
                break


def _environments(record: Record, args: Any, folder: Path, keep: Callable[[], bool]) -> None:
    for name, trial in environments.trials(folder):
        if args.only in name and name not in record:
            record[name] = trial()
            if not keep():
                return


def _resources(record: Record, args: Any, folder: Path, keep: Callable[[], bool]) -> None:
    for name, trial in resources.trials(folder, tuple(args.backends.split(","))):
        if args.only in name and name not in record:
            found = trial()
            for place in (folder, sys.prefix):  # of this machine
                found = {key: text.replace(f"{place}/", "") for key, text in found.items()}
            record[name] = found
            if not keep():
                return


PARTS = {
    "kills": _kills,
    "signals": _signals,
    "planted": _planted,
    "fuzz": _fuzz,
    "environments": _environments,
    "resources": _resources,
}


def page(record: Record) -> list[Block]:
    """The page of a record."""
    blocks: list[Block] = [
        Heading("Faults", 1),
        Text(
            "What runs, and whatever reads a file, make of faults. "
            "[validation/faults](../faults/__main__.py) says how each is made; "
            "`python -m validation.faults` goes on from these counts."
        ),
    ]
    for part, title in (("kills", "Killed"), ("signals", "Told to stop")):
        rows = record.get(part, {})
        total = sum(row["stops"] for row in rows.values())
        wrong = sum(len(row["wrong"]) for row in rows.values())
        blocks += [
            Heading(title),
            Text(
                f"{total:,} of {WANTED[part]:,} wanted; in {wrong:,} trials something was not as "
                "in the run that nobody stopped: weights, optimiser, rows, episodes, transitions, "
                "bit for bit. In the latest trials the checkpoints that were there after a stop "
                "were read too, as many as the table says; one that did not load, or had gone, "
                "counts as unequal. Processes are forked from one that has "
                "imported everything; JAX takes its compiled programs from its cache."
            ),
            Table(
                "",
                ["scenario: how", "trials", "stops", "in the middle of", "read", "unequal"],
                [
                    [
                        name,
                        f"{row['trials']:,}",
                        f"{row['stops']:,}",
                        ", ".join(f"{at} {count:,}" for at, count in sorted(row["at"].items())),
                        f"{row.get('checkpoints', 0):,}",
                        str(len(row["wrong"])),
                    ]
                    for name, row in rows.items()
                ],
            ),
        ]
    blocks += [
        Heading("Planted mistakes"),
        Text("What kills make of the same run with a mistake in it: each must be caught."),
        Table(
            "",
            ["mistake", "caught", "not as it must be"],
            [[name, row["found"], row["wrong"]] for name, row in record.get("planted", {}).items()],
        ),
    ]
    rows = record.get("fuzz", {})
    total = sum(row["iterations"] for row in rows.values())
    wrong = sum(len(row["found"]) for row in rows.values())
    blocks += [
        Heading("Mutated files"),
        Text(
            f"{total:,} of {WANTED['fuzz']:,} wanted; {wrong:,} came to anything but a load or one "
            "line. Each process may take 1 GiB of address space beyond what it begins with, opens "
            "no file outside its folder for writing, or for reading (but those of Python and of "
            "the system), and starts no program."
        ),
        Table(
            "",
            ["file", "mutations", "loaded", "refused", "else", "most memory (MiB)"],
            [
                [
                    kind,
                    f"{row['iterations']:,}",
                    f"{row['loaded']:,}",
                    f"{row['refused']:,}",
                    str(len(row["found"])),
                    f"{row['peak'] / 2**20:.0f}",
                ]
                for kind, row in rows.items()
            ],
        ),
    ]
    nowhere = Path()
    wanted = {
        "environments": len(list(environments.trials(nowhere))),
        "resources": len(list(resources.trials(nowhere, ("numpy", "torch", "jax")))),
    }
    for part, title in (("environments", "Environments"), ("resources", "Resources")):
        rows = record.get(part, {})
        good = sum(not row["wrong"] for row in rows.values())
        blocks += [
            Heading(title),
            Text(f"{len(rows):,} of {wanted[part]:,} were made; {good:,} are as they must be."),
            Table(
                "",
                ["what", "came to", "not as it must be"],
                [[name, row["found"], row["wrong"]] for name, row in rows.items()],
            ),
        ]
    lines = faults(record)
    if lines:
        shown = Counter(line.partition(": ")[0] for line in lines)
        listed = ", ".join(f"{part} {count:,}" for part, count in shown.items())
        blocks += [Heading("Not as it must be"), Text(listed), Points(lines[:40])]
    where = record.get("where", {})
    versions = ", ".join(f"{name} {one}" for name, one in where.get("versions", {}).items())
    blocks += [
        Heading("Measured"),
        Text(
            f"On {where.get('processor')}, {where.get('cores')} cores; {versions}; seed "
            f"{record.get('seed')}; revisions {', '.join(where.get('revisions', []))}."
        ),
    ]
    return blocks


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

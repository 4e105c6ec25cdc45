"""One report on all that is recorded: report.md, and report.html with the figures inside.

    python -m validation.report
    python -m validation.report --out FOLDER   # from the records in another folder

Nothing is run: the report is made from the JSON files and the SVG figures beside them. What has no
record is listed as not run; a record of an experiment that is not listed here comes last.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgf.support.errors import VGFError
from vgf.support.files import write_atomically

from .budget import EXPERIMENTS as BUDGETS
from .claims import CLAIMS
from .experiment import Data, answer, blocks, exit_status, made_by, read_record
from .faults.reading import faults
from .learning import TASKS as LEARNING
from .methods import EXPERIMENTS as METHODS
from .pages import Block, Heading, Picture, Points, Table, Text, to_html, to_markdown
from .record import RESULTS

MARKDOWN, HTML = "report.md", "report.html"
TITLE = "Validation of vgf"
# What a report holds, in order: the name of the record and the command that makes it.
EXPERIMENTS = {
    **{claim.name: f"python -m validation.claims {claim.name}" for claim in CLAIMS},
    "toy": "python -m validation.toy",
    "scaling": "python -m validation.scaling RUN",
    **{one.name: f"python -m validation.methods {one.name}" for one in METHODS},
    **{one.name: f"python -m validation.budget {one.name}" for one in BUDGETS},
    "online": "python -m validation.online",
    "regimes": "python -m validation.regimes",
    "authors": "python -m validation.authors --checkout NAME=PATH",
    **{
        f"learning-{task}": f"python -m validation.learning {task} --checkout NAME=PATH"
        for task in LEARNING
    },
    "sources": "python -m validation.sources",
    "language": "python -m validation.language",
    "smollm2": "python -m validation.language.smollm2",
    "language-bridge": "python -m validation.language.bridge",
    "language-cost": "python -m validation.language.cost",
    "language-memory": "python -m validation.language.memory",
    "precision": "python -m validation.precision",
    "bench-cpu": "python -m validation.bench",
    "bench-gpu": "python -m validation.bench RECORD ...",
    "bench-avx512": "python -m validation.bench RECORD ...",
    "bench-amx": "python -m validation.bench RECORD ...",
    "published": "python -m validation.published",
}
# Claims are counted in groups: the paper's, this package's goals for its speed, and its own.
SPEED = ("bench-cpu", "bench-gpu", "bench-avx512", "bench-amx")
PAPER = (
    *(claim.name for claim in CLAIMS),
    "toy",
    "scaling",
    *(one.name for one in METHODS),
    *(one.name for one in BUDGETS),
    "online",
    "language",
    "smollm2",
    "published",
)
PARITY = "python -m validation.parity"
FAULTS = "python -m validation.faults"
# Records that are no experiment's, and pages that show them.
APART = ("check-others", "faults", "flow", "hopper-policy", "matrix", "revisions")
RUNS = "python -m validation.runs demo"


# What the parts of the faults claim, and what counts their trials.
FAULT_CLAIMS = {
    "kills": ("a run that is killed ends as one that nobody stopped, bit for bit", "stops"),
    "signals": ("so does a run that is told to stop", "stops"),
    "fuzz": ("a mutated file is read, or refused in one line", "iterations"),
    "environments": ("an environment that misbehaves is named, and nothing is lost", None),
    "resources": ("so is a resource that is missing", None),
}


def load(path: Path) -> Data | None:
    """A JSON file, or None where there is none.

    Raises:
        VGFError: a file that is not a JSON object.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VGFError(f"{path} cannot be read: {error}; delete it and run again") from error
    if not isinstance(value, dict):
        raise VGFError(f"{path} is not a record; delete it and run again")
    return value


def collect(folder: Path) -> dict[str, Data | None]:
    """The records of the experiments, in the order of the report.

    Raises:
        VGFError: a damaged record.
    """
    found = [path.stem for path in sorted(folder.glob("*.json")) if not _apart(path.stem)]
    paths = {name: folder / f"{name}.json" for name in dict.fromkeys([*EXPERIMENTS, *found])}
    return {name: read_record(path) if path.exists() else None for name, path in paths.items()}


def _apart(name: str) -> bool:
    return name in APART or name.startswith(("run-", "parity-"))


def overview(
    records: dict[str, Data | None], parities: dict[str, Data], faults: Data | None
) -> list[Block]:
    """Every claim and whether it holds, counted in groups; and what was not run."""
    groups = {
        "The paper's claims": [row for name in PAPER for row in verdict_rows(name, records)],
        "This package's own claims": [
            *(
                row
                for name in records
                if name not in (*PAPER, *SPEED)
                for row in verdict_rows(name, records)
            ),
            *parity_verdicts(parities),
            *fault_verdicts(faults),
        ],
        "This package's goals for its speed": [
            row for name in SPEED for row in verdict_rows(name, records)
        ],
    }
    notes: list[Block] = []
    if any(record and record["quick"] for record in records.values()):
        notes.append(Text("Some results are of a short version (`--quick`), for a look only."))
    header = ("experiment", "claim", "holds", "evidence")
    return [
        Points([f"{name}: {counted(rows)}" for name, rows in groups.items()]),
        *notes,
        *(Table(f"**{name}**", header, rows) for name, rows in groups.items()),
    ]


def counted(rows: Sequence[Sequence[str]]) -> str:
    """How many of some claims hold, in a sentence."""
    held, failed = (sum(row[2] == answer(holds) for row in rows) for holds in (True, False))
    missing = len(rows) - held - failed
    text = f"{held} of {held + failed} hold"
    were = "experiment was" if missing == 1 else "experiments were"
    return f"{text}; {missing} {were} not run." if missing else f"{text}."


def verdict_rows(name: str, records: dict[str, Data | None]) -> list[list[str]]:
    """A row for each claim of an experiment, or one that says that it was not run."""
    record = records.get(name)
    if record is None:
        return [[EXPERIMENTS[name], "", "not run", ""]]
    return [
        [record["title"], verdict["claim"], answer(verdict["holds"]), verdict["evidence"]]
        for verdict in record["verdicts"]
    ]


def parity_verdicts(parities: dict[str, Data]) -> list[list[str]]:
    """The same of the parity tables."""
    rows = []
    for name, parity in parities.items():
        agree = sum(row["agrees"] for row in parity["equations"])
        total = len(parity["equations"])
        claim = f"every backend computes the specification ({name})"
        rows.append(["Parity", claim, answer(agree == total), f"{agree} of {total} rows agree"])
    return rows or [[PARITY, "", "not run", ""]]


def fault_verdicts(record: Data | None) -> list[list[str]]:
    """The same of the faults: a row for each part that was tried."""
    if record is None:
        return [[FAULTS, "", "not run", ""]]
    wrong = [line.partition(": ")[0] for line in faults(record)]
    rows = []
    for part, (claim, counter) in FAULT_CLAIMS.items():
        tried = sum(row[counter] if counter else 1 for row in record.get(part, {}).values())
        evidence = f"{tried:,} tried, {wrong.count(part)} not so"
        if tried:
            rows.append(["Faults", claim, answer(part not in wrong), evidence])
    return rows


def pages_apart(folder: Path) -> list[Block]:
    """The pages that are not part of the report, by their titles."""
    found: list[str] = []
    for path in sorted(folder.glob("*.md")):
        if path.stem in APART or (path.name != MARKDOWN and not path.with_suffix(".json").exists()):
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            found.append(f"[{title}]({path.name})")
    return [Heading("Pages of their own"), Points(found)] if found else []


def parity_blocks(folder: Path, parities: dict[str, Data]) -> list[Block]:
    """The parity table in short: a row for each backend and dtype."""
    found: list[Block] = [Heading("Parity with the specification")]
    if not parities:
        return [*found, Text(f"Not run. `{PARITY}` makes it.")]
    for name, parity in parities.items():
        found += [
            Text(made_by({"quick": False, **parity})),
            Table(
                "Every equation against the specification; a ratio of 1 would be a failure "
                f"([every row]({name}.md))",
                ("backend", "dtype", "device", "equations", "agree", "worst ratio", "where"),
                [parity_row(group) for group in by_backend(parity["equations"]).values()],
            ),
        ]
        if parity["drift"]:
            header = ("backend", "dtype", "matmul", "updates", "worst relative error", "training")
            rows = [drift_row(group) for group in by_backend(parity["drift"]).values()]
            found.append(Table("Whole updates against the specification in float64", header, rows))
    return found


def by_backend(rows: Sequence[Data]) -> dict[tuple[str, ...], list[Data]]:
    """Rows grouped by what computed them."""
    groups: dict[tuple[str, ...], list[Data]] = {}
    for row in rows:
        key = (row["backend"], row["dtype"], row["device"], row["matmul_precision"])
        groups.setdefault(key, []).append(row)
    return groups


def parity_row(rows: Sequence[Data]) -> list[str]:
    """One backend's equations in short."""
    agree = [row for row in rows if row["agrees"]]
    worst = max(agree, key=lambda row: float(row["ratio"]), default=None)
    return [
        rows[0]["backend"],
        rows[0]["dtype"],
        rows[0]["device"],
        str(len(rows)),
        str(len(agree)),
        *([f"{worst['ratio']:.3f}", worst["equation"]] if worst else ["", ""]),
    ]


def drift_row(rows: Sequence[Data]) -> list[str]:
    """One backend's trainings in short."""
    worst = max(rows, key=lambda row: float(row["relative"]))
    return [
        worst["backend"],
        worst["dtype"],
        worst["matmul_precision"],
        str(worst["updates"]),
        f"{worst['relative']:.1e}",
        worst["training"],
    ]


def run_blocks(folder: Path) -> list[Block]:
    """The recorded runs."""
    found: list[Block] = [Heading("Whole runs")]
    paths = sorted(folder.glob("run-*.json"))
    if not paths:
        return [*found, Text(f"Not run. `{RUNS}` makes one.")]
    for path in paths:
        record: Any = load(path)
        used = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        found += [
            Heading(path.stem, 3),
            Text(
                f"`{record['command']}`, {len(record['seeds'])} seeds; the last evaluation. "
                f"{used}. Revision {record['revision'] or 'unknown'}. "
                f"[More]({path.stem}.md)."
            ),
            Table("", list(record["last"][0]), [list(row.values()) for row in record["last"]]),
        ]
        if path.with_suffix(".svg").exists():
            caption = "Score and distance moved against the test budget."
            found.append(Picture(path.stem, path.stem, caption))
    return found


def page(folder: Path) -> list[Block]:
    """The whole report.

    Raises:
        VGFError: a damaged record.
    """
    records = collect(folder)
    loaded = {path.stem: load(path) for path in sorted(folder.glob("parity-*.json"))}
    parities = {name: parity for name, parity in loaded.items() if parity is not None}
    found: list[Block] = [
        Heading(TITLE, 1),
        *overview(records, parities, load(folder / "faults.json")),
    ]
    found.append(
        Points(
            [
                "`python -m validation.all` reproduces all of it, and this page.",
                "Each verdict is computed from the numbers beside it; intervals are 95 %.",
            ]
        )
    )
    for name, record in records.items():
        if record is None:
            found += [Heading(name), Text(f"Not run. `{EXPERIMENTS[name]}` makes it.")]
        else:
            found += [block for block in blocks(record, 2) if drawn(block, folder)]
    return [*found, *parity_blocks(folder, parities), *run_blocks(folder), *pages_apart(folder)]


def drawn(block: Block, folder: Path) -> bool:
    """Whether a figure exists; any other block does."""
    return not isinstance(block, Picture) or (folder / f"{block.name}.svg").exists()


def write_report(folder: Path) -> Path:
    """Write report.md and report.html from the records of a folder.

    Raises:
        VGFError: a damaged record, or a folder that does not exist or cannot be written.
    """
    if not folder.is_dir():
        raise VGFError(f"{folder} is not a folder of results; run an experiment first")
    found = page(folder)
    write_atomically(folder / MARKDOWN, to_markdown(found))
    write_atomically(folder / HTML, to_html(found, folder, TITLE))
    return folder / HTML


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.report", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    args = parser.parse_args(argv)

    def act() -> bool:
        place = write_report(args.out)
        print(f"written to {place} and {place.with_suffix('.md')}")
        return True

    return exit_status(act)


if __name__ == "__main__":
    sys.exit(main())

"""An experiment: numbers are measured, verdicts are computed from them, and all is recorded.

The parts are separate so that each can be tested: a broken method can be measured, and its numbers
judged. The JSON record is enough to judge and draw again (``--redraw``), and is all that the report
reads.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf.support.errors import VGFError
from vgf.support.progress import progress
from vgf.support.statistics import interval

from .figures import SUFFIXES
from .pages import Block, Heading, Picture, Points, Table, Text, to_markdown
from .record import RESULTS, environment, write

QUICK_RESULTS = Path("runs") / "validation-quick"
Data = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held.

    Args:
        claim: one sentence, without any measured number.
        holds: computed from the data.
        evidence: the numbers it rests on.
    """

    claim: str
    holds: bool
    evidence: str


@dataclass(frozen=True)
class Experiment:
    """What an experiment consists of.

    Args:
        name: of its files.
        title: one line.
        about: what is measured, with which settings, and what would refute the claim.
        setup, quick: a dataclass of settings, and one for a short version.
        measure: setup -> the data, plain numbers that JSON can hold.
        judge: data -> verdicts.
        tables: data -> tables.
        draw: data and the stem of the figure's files; None for no figure.
        caption: of the figure.
        remarks: data -> sentences on what else was measured.
        where: data -> machine, versions and revision; None for those of this process.
    """

    name: str
    title: str
    about: str
    setup: Any
    quick: Any
    measure: Callable[[Any], Data]
    judge: Callable[[Data], list[Verdict]]
    tables: Callable[[Data], list[Table]]
    draw: Callable[[Data, Path], None] | None = None
    caption: str = ""
    remarks: Callable[[Data], list[str]] = lambda data: []
    where: Callable[[Data], Data] | None = None


def estimate(values: Any) -> dict[str, float]:
    """The mean of a number over the seeds, and its 95 % interval (Student's)."""
    values = np.asarray(values, float)
    low, high = interval([values], "return")
    mean = float(values.mean())
    return {
        "mean": mean,
        "low": mean if low is None else low,
        "high": mean if high is None else high,
    }


def show(found: Mapping[str, float], digits: int = 3) -> str:
    """An estimate as text: mean (low to high)."""
    mean, low, high = (f"{found[key]:.{digits}g}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """The median of what was measured several times, with the lowest and the highest."""
    found = (statistics.median(values), min(values), max(values))
    middle, low, high = (format(value, form) for value in found)
    return f"{middle} ({low} to {high})"


def counting(total: int, what: str, unit: str) -> Iterator[int]:
    """range(total), with its progress on standard error."""
    with progress(total, what, unit) as shown:
        for i in range(total):
            yield i
            shown.update()


def percent(found: Mapping[str, float]) -> str:
    """An estimated share as text."""
    mean, low, high = (f"{100 * min(max(found[key], 0), 1):.1f}" for key in ("mean", "low", "high"))
    return f"{mean} % ({low} to {high})"


def rounded(value: Any) -> Any:
    """Data as JSON holds it: plain lists and numbers, to six digits."""
    if isinstance(value, Mapping):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [rounded(entry) for entry in (value.tolist() if hasattr(value, "tolist") else value)]
    if isinstance(value, np.generic):
        return rounded(value.item())
    return float(f"{value:.6g}") if isinstance(value, float) else value


def run(experiment: Experiment, out: Path, quick: bool = False, command: str = "") -> Data:
    """Measure, judge, draw and write ``NAME.json``, ``.md``, ``.svg``, ``.pdf`` and ``.png``.

    Raises:
        VGFError: a package that is missing, or a folder that cannot be written.
    """
    where()
    start = time.perf_counter()
    setup = experiment.quick if quick else experiment.setup
    data = rounded(experiment.measure(setup))
    record = {
        "name": experiment.name,
        "quick": quick,
        "command": command,
        "environment": experiment.where(data) if experiment.where else where(),
        "seconds": round(time.perf_counter() - start, 1),
        "settings": rounded(dataclasses.asdict(setup)),
    }
    return finish(experiment, record, data, out)


def redraw(experiment: Experiment, out: Path) -> Data:
    """The verdicts, the text and the figure again, from the recorded numbers.

    Raises:
        VGFError: there is no record, or it is damaged.
    """
    record = read_record(out / f"{experiment.name}.json")
    return finish(experiment, record, record["data"], out)


@functools.cache
def where() -> Data:
    """Machine, versions and revision when the command began, before it wrote any result."""
    return environment()


def finish(experiment: Experiment, record: Data, data: Data, out: Path) -> Data:
    """Judge and draw the data, and write all files of a record."""
    record |= {
        "title": experiment.title,
        "about": experiment.about,
        "caption": experiment.caption,
        "verdicts": [dataclasses.asdict(verdict) for verdict in experiment.judge(data)],
        "remarks": experiment.remarks(data),
        "tables": [dataclasses.asdict(table) for table in experiment.tables(data)],
        "data": data,
    }
    if experiment.draw is not None:
        experiment.draw(data, out / experiment.name)
    write(out / f"{experiment.name}.json", as_json(record))
    write(out / f"{experiment.name}.md", to_markdown(blocks(record)))
    return record


def as_json(record: Data) -> str:
    """A record as JSON: one key per line for people to read, the data on one line."""
    text = json.dumps({**record, "data": None}, indent=1, allow_nan=False)
    data = json.dumps(record["data"], allow_nan=False, separators=(",", ":"))
    return text.replace('\n "data": null', f'\n "data": {data}') + "\n"


def read_record(path: Path) -> Data:
    """Read a record.

    Raises:
        VGFError: no such file, or one that is not a record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VGFError(
            f"{path} does not exist; run the experiment first, without --redraw"
        ) from error
    except (OSError, ValueError) as error:
        raise VGFError(f"{path} cannot be read: {error}; delete it and run again") from error
    if not isinstance(record, dict) or "data" not in record:
        raise VGFError(f"{path} is not the record of an experiment; delete it and run again")
    return record


def blocks(record: Data, level: int = 1) -> list[Block]:
    """A record as a page, or as a part of one, its title a heading of this level."""
    found: list[Block] = [
        Heading(record["title"], level),
        Text(made_by(record)),
        Text(record["about"]),
    ]
    if record["verdicts"]:
        rows = [[v["claim"], answer(v["holds"]), v["evidence"]] for v in record["verdicts"]]
        found.append(Table("", ("claim", "holds", "evidence"), rows))
    if record["remarks"]:
        found.append(Points(record["remarks"]))
    if record["caption"]:
        found.append(Picture(record["name"], record["title"], record["caption"]))
    return found + [Table(t["caption"], t["header"], t["rows"]) for t in record["tables"]]


def made_by(record: Data) -> str:
    """Where a record comes from, in a sentence or two."""
    place = record["environment"]
    used = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    short = "A short version, for a look only. " if record["quick"] else ""
    return (
        f"{short}Made by `{record['command']}` in {record['seconds']:.0f} s. "
        f"{place['processor']}, {place['cores']} cores, {place['system']}. {used}. "
        f"Revision {place['revision'] or 'unknown'}."
    )


def answer(holds: bool) -> str:
    """A verdict in a word."""
    return "yes" if holds else "**NO**"


def say(record: Data, out: Path) -> None:
    """Print the verdicts, in 80 columns."""
    print(f"{record['title']} ({record['seconds']:.0f} s)")
    for verdict in record["verdicts"]:
        mark = "yes" if verdict["holds"] else "NO "
        text = f"{verdict['claim']}: {verdict['evidence']}"
        print(textwrap.fill(text, 79, initial_indent=f"  {mark} ", subsequent_indent=" " * 6))
    for remark in record["remarks"]:
        print(textwrap.fill(remark, 79, initial_indent="   -  ", subsequent_indent=" " * 6))
    suffixes = ("md", "json", *(SUFFIXES if record["caption"] else ()))
    print(f"  written to {out / record['name']}.{', .'.join(suffixes)}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every experiment has."""
    parser.add_argument(
        "--quick", action="store_true", help=f"a short version, written to {QUICK_RESULTS}"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="judge and draw the recorded numbers again"
    )
    parser.add_argument("--out", type=Path, help=f"folder of the results (default {RESULTS.name}/)")


def folder(args: argparse.Namespace) -> Path:
    """Where results go."""
    chosen: Path | None = args.out
    return chosen or (QUICK_RESULTS if args.quick else RESULTS)


def command_line(module: str, words: Sequence[str]) -> str:
    """The command that reproduces a record."""
    return " ".join(["python -m", f"validation.{module}", *words])


def main(
    experiments: Sequence[Experiment], module: str, doc: str | None, argv: list[str] | None
) -> int:
    """The command of one module of experiments; exits with status 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(
        prog=f"python -m validation.{module}", description=(doc or "").partition("\n")[0]
    )
    names = [experiment.name for experiment in experiments]
    if len(experiments) > 1:
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all"
        )
    add_arguments(parser)
    args = parser.parse_args(argv)

    def act() -> bool:
        several = len(experiments) > 1
        picked = [choose(experiments, name) for name in getattr(args, "names", None) or names]
        records = []
        for one in picked:
            command = command_line(module, [one.name] * several + ["--quick"] * args.quick)
            records.append(run_one(one, command, args))
        return all(map(holds, records))

    return exit_status(act)


def holds(record: Data) -> bool:
    """Whether every claim of a record holds."""
    return all(verdict["holds"] for verdict in record["verdicts"])


def exit_status(act: Callable[[], bool]) -> int:
    """0 if all holds, 1 if not, 2 for a user's mistake, 130 for Ctrl-C."""
    try:
        return 0 if act() else 1
    except VGFError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def choose(experiments: Sequence[Experiment], name: str) -> Experiment:
    """The experiment with a name.

    Raises:
        VGFError: there is none.
    """
    import difflib

    by_name = {experiment.name: experiment for experiment in experiments}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(by_name)}"
        raise VGFError(f"{name} is not an experiment; {hint}")
    return by_name[name]


def run_one(experiment: Experiment, command: str, args: argparse.Namespace) -> Data:
    """Run one experiment as its flags say, and print the outcome."""
    out = folder(args)
    again = args.redraw
    record = redraw(experiment, out) if again else run(experiment, out, args.quick, command)
    say(record, out)
    return record

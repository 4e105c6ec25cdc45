"""Published numbers beside what was measured here, and why most cannot be compared.

    python -m validation.published

The paper's numbers are of its own training: 1M transitions of the benchmark, 1M updates, networks
of 4 x 512, A-VGF with its authors' settings for each task. Beside each is this
repository's recorded run by the same method on the same environment (`run-*.json` and
`methods-*.json` of `validation/results/`), at its last evaluation and its training budget, and
every difference in settings that is known to matter. Only a run without a difference is called
comparable. If no run is recorded, the table says "not run".

Numbers "read off" are from the authors' figures, to a few per cent.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgf.runs.config import RunConfig
from vgf.runs.flags import add_flags, config_from_flags
from vgf.support.errors import VGFError
from vgf.support.parser import Parser

from .experiment import (
    Data,
    Experiment,
    add_arguments,
    command_line,
    exit_status,
    holds,
    read_record,
    run_one,
)
from .pages import Table
from .record import RESULTS

TABLE, CURVE = "paper, table", "read off the authors' figures, 1M updates"
FULL_UPDATES, FULL_NETWORK = 1_000_000, (512, 512, 512, 512)
# What validation.methods calls the methods with published numbers.
BY_NAME = {"BC, flow": "bc", "FQL": "fql", "VGF": "vgf", "A-VGF": "avgf"}
METHODS = {"vgf": "VGF", "avgf": "A-VGF", "bc": "BC", "weighted_bc": "weighted BC", "fql": "FQL"}


@dataclass(frozen=True)
class Published:
    """A published number.

    Args:
        environment: as its benchmark names it: OGBench's without type and task, D4RL's without
            version.
        method: one of METHODS' values, or another.
        value: success in per cent, or D4RL's normalised score.
        source: where it is published.
        tasks: the number of tasks it is the mean of.
        benchmark: OGBench or D4RL.
    """

    environment: str
    method: str
    value: float
    source: str
    tasks: int = 1
    benchmark: str = "OGBench"


NUMBERS = (
    Published("mean", "VGF", 55, TABLE, 50),
    Published("mean", "FQL", 40, TABLE, 50),
    Published("mean", "BC", 2, TABLE, 50),
    Published("humanoidmaze-medium", "VGF", 72, TABLE, 5),
    Published("cube-double", "VGF", 70, TABLE, 5),
    Published("puzzle-3x3", "VGF", 75, TABLE, 5),
    Published("puzzle-4x4", "VGF", 45, TABLE, 5),
    Published("scene", "A-VGF", 99, CURVE),
    Published("cube-single", "A-VGF", 97, CURVE),
    Published("cube-double", "A-VGF", 78, CURVE),
    Published("puzzle-3x3", "A-VGF", 67, CURVE),
    Published("antsoccer", "A-VGF", 57, CURVE),
    Published("antmaze-large", "A-VGF", 85, CURVE),
    Published("humanoidmaze-medium", "A-VGF", 91, CURVE),
    Published("mean", "VGF", 89, TABLE, benchmark="D4RL"),
    Published("mean", "FQL", 73, TABLE, benchmark="D4RL"),
    Published("mean", "IQL", 72, TABLE, benchmark="D4RL"),
    Published("hopper-medium", "VGF", 97.9, TABLE, benchmark="D4RL"),
    Published("walker2d-medium-replay", "VGF", 97.8, TABLE, benchmark="D4RL"),
    Published("antmaze-umaze-diverse", "VGF", 94.3, TABLE, benchmark="D4RL"),
    Published("antmaze-medium-play", "VGF", 89.4, TABLE, benchmark="D4RL"),
    Published("antmaze-large-diverse", "VGF", 83.8, TABLE, benchmark="D4RL"),
)


@dataclass(frozen=True)
class Setup:
    """Which records.

    Args:
        folder: of the records of runs; none is validation/results.
    """

    folder: str | None = None


def configuration(command: str) -> RunConfig:
    """The configuration of a recorded run, from the command that made it.

    Raises:
        VGFError: a command that this version does not have.
    """
    words = shlex.split(command)[2:]
    parser = Parser(prog="vgf run")
    add_flags(parser)
    return config_from_flags(parser.parse_args(words))


def settings_of(config: RunConfig) -> Data:
    """What is known to matter in a run's configuration."""
    return {
        "env": config.task.env,
        "method": config.agent.method,
        "data_episodes": config.task.data_episodes,
        "updates": config.train.steps,
        "critic": list(config.agent.critic.hidden),
    }


def read_run(path: Path) -> Data:
    """A recorded run: its task, its score at its training budget, and its settings.

    Raises:
        VGFError: a record that is damaged or incomplete.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        agent, train = record["settings"]["agent"], record["settings"]["train"]
        scores = {row["budget"]: row for row in record["last"]}
        row = scores.get(f"L = {agent['budget']['steps']}") or record["last"][-1]
        return {
            **settings_of(configuration(record["command"])),
            "name": path.stem,
            "score": row["success"] if "success" in row else f"return {row['return']}",
            "interval": row["95 % interval"],
            "budget": row["budget"],
            "seeds": len(record["seeds"]),
            # the record's own, whatever the defaults are today
            "method": agent.get("method", "vgf"),
            "updates": train["steps"],
            "critic": list(agent["critic"]["hidden"]),
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise VGFError(f"{path}: not the record of a run ({error!r}); record it again") from error


def read_methods(path: Path) -> list[Data]:
    """The recorded runs of validation.methods; behaviour cloning's are VGF's without a budget.

    Raises:
        VGFError: a record that is damaged or incomplete.
    """
    try:
        return [
            {
                **settings_of(configuration(entry["command"])),
                "name": path.stem,
                "score": f"{100 * entry['mean']:.1f} %",
                "interval": f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}",
                "budget": name,
                "seeds": len(entry["seeds"]),
                "method": BY_NAME[name],
                "updates": entry["updates"],
            }
            for name, entry in read_record(path)["data"]["methods"].items()
            if name in BY_NAME
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise VGFError(f"{path}: not a record of methods ({error!r}); record it again") from error


def matches(published: Published, run: Data) -> bool:
    """Whether a run is of the published number's method, on its environment."""
    of_ogbench = "singletask" in run["env"]
    family = [published.method, published.method.removeprefix("A-")]
    return (
        of_ogbench == (published.benchmark == "OGBench")
        and run["env"].startswith(f"{published.environment}-")
        and METHODS.get(run["method"], "").removeprefix("A-") in family
    )


def differences(published: Published, run: Data) -> list[str]:
    """What a run did differently, among what is known to matter."""
    found = []
    if published.tasks > 1:
        found.append(f"1 of {published.tasks} tasks")
    if run["data_episodes"] is not None:
        found.append(f"other data: {run['data_episodes']:,} generated episodes")
    if "-noisy-" in run["env"]:
        found.append("the noisy set, not play")
    if run["updates"] < FULL_UPDATES:
        found.append(f"{run['updates']:,} updates, not {FULL_UPDATES:,}")
    if tuple(run["critic"]) != FULL_NETWORK:
        found.append(f"networks {' x '.join(map(str, run['critic']))}, not 4 x 512")
    if published.method.endswith("VGF") and run["method"] != "avgf":
        found.append(f"{METHODS[run['method']]}, not A-VGF")
    if run["seeds"] == 1:
        found.append("one seed")
    return found


def measure(setup: Setup) -> Data:
    """The recorded runs, and a row for each published number."""
    folder = Path(setup.folder) if setup.folder else RESULTS
    runs = [read_run(path) for path in sorted(folder.glob("run-*.json"))]
    for path in sorted(folder.glob("methods-*.json")):
        runs += read_methods(path)
    rows: list[dict[str, Any]] = []
    for number in NUMBERS:
        fitting = [run for run in runs if matches(number, run)]
        base = {
            "benchmark": number.benchmark,
            "environment": number.environment,
            "method": number.method,
            "value": number.value,
            "source": number.source,
            "tasks": number.tasks,
        }
        for run in fitting:
            rows.append({**base, "run": run, "differences": differences(number, run)})
        if not fitting:
            rows.append({**base, "run": None, "differences": []})
    return {"runs": runs, "rows": rows}


def remarks(data: Data) -> list[str]:
    """The runs for which nothing is published, and what may be concluded."""
    alone = [
        run
        for run in data["runs"]
        if METHODS[run["method"]].endswith("VGF") and all(row["run"] != run for row in data["rows"])
    ]
    comparable = [row for row in data["rows"] if row["run"] and not row["differences"]]
    count = len(comparable)
    return [
        f"{count} of {len(data['rows'])} published numbers can be compared with a run recorded "
        "here." + ("" if count else " None of them is confirmed or contradicted."),
        *(
            f"{run['name']} ({run['env']}, {METHODS[run['method']]}: {run['score']} at "
            f"{run['budget']}) is on a task for which the paper gives no number."
            for run in alone
        ),
    ]


def tables(data: Data) -> list[Table]:
    """Published numbers beside the runs."""
    cells = []
    for row in data["rows"]:
        where = "mean of all" if row["environment"] == "mean" else row["environment"]
        line = [row["benchmark"], where, row["method"], f"{row['value']:g}", row["source"]]
        run = row["run"]
        if run is None:
            cells.append([*line, "not run", ""])
            continue
        ours = f"{run['score']} ({run['interval']}), {run['budget']}, `{run['name']}`"
        why = row["differences"]
        cells.append([*line, ours, "no: " + "; ".join(why) if why else "yes"])
    header = (
        "benchmark",
        "environment",
        "method",
        "published",
        "source",
        "measured here",
        "comparable",
    )
    return [Table("Success in per cent, or D4RL's normalised score", header, cells)]


def experiment(folder: Path | None = None) -> Experiment:
    """The comparison, from the records in a folder."""
    setup = Setup(None if folder is None else str(folder))
    return Experiment(
        name="published",
        title="Published numbers",
        about=(__doc__ or "").partition("validation.published\n")[2].strip(),
        setup=setup,
        quick=setup,
        measure=measure,
        judge=lambda data: [],
        tables=tables,
        remarks=remarks,
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.published", description=(__doc__ or "").partition("\n")[0]
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    command = command_line("published", ["--quick"] * args.quick)
    return exit_status(lambda: holds(run_one(experiment(), command, args)))


if __name__ == "__main__":
    sys.exit(main())

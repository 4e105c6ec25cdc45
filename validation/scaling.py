"""Test-time scaling: score against L_test on trained checkpoints, and the distance moved.

    python -m validation.scaling RUN [RUN ...]   # run folders, each a panel
    python -m validation.scaling                 # trains the default run first

A run folder is read, not trained: its last evaluation, or the evaluation that `vgf eval RUN --steps
...` left in its `eval/` for the last checkpoint, whichever has more test budgets (the latest if
tied). A folder of several seeds is one panel, its interval over the seeds. All budgets share one
training.

The claim for every run is that the particles move further with each larger budget, in W2 and in
mean
displacement, until they come to rest: a budget at which they move less far than at the one before,
and more than 5 % less than the furthest of all, would refute it. Whether the score rises or falls
is
measured, not claimed: the paper finds both.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgf.cli import main as vgf_main
from vgf.runs.report import Run, budget_name, find_runs
from vgf.runs.scores import scores
from vgf.support.errors import VGFError
from vgf.support.rows import Row, read_rows

from .experiment import (
    Data,
    Experiment,
    Verdict,
    add_arguments,
    command_line,
    exit_status,
    holds,
    run_one,
)
from .figures import COLUMN, PAGE, figure, letter, line
from .pages import Table

BUDGETS = ("0", "1", "2", "3", "5", "8", "12")
REST = 0.05  # share of the furthest distance that a flow at rest may still move to and fro
DISTANCES = {"w2": "W2", "displacement": "mean displacement"}


@dataclass(frozen=True)
class Setup:
    """Which runs.

    Args:
        runs: run folders.
        seeds: of the default run, if none is named.
        updates: of the default run, if none is named.
        episodes: of its evaluation, for each test budget.
    """

    runs: tuple[str, ...] = ()
    seeds: int = 3
    updates: int = 20_000
    episodes: int = 50


def train(setup: Setup, folder: Path) -> None:
    """The default run, evaluated at more budgets than it is by default.

    Raises:
        VGFError: it failed, and has reported why.
    """
    words = [
        *("--seeds", str(setup.seeds), "--steps", str(setup.updates)),
        *("--episodes", str(setup.episodes), "--evaluation-steps", *BUDGETS),
        *("--evaluate-every", str(setup.updates), "--out", str(folder)),
    ]
    if vgf_main(["run", *words]):
        raise VGFError("vgf run failed; see above, or name a finished run folder")


def evaluation(run: Run) -> list[Row]:
    """The rows of a run's evaluation with the most test budgets, at its last update."""
    last = max((int(row["step"] or 0) for row in run.evaluations), default=0)
    folders = sorted((run.folder / "eval").glob("*/evaluations.jsonl"))
    found = [run.evaluations, *(read_rows(path) for path in folders)]
    rows = [[row for row in group if row["step"] == last] for group in found]
    # max takes the first if tied, and the latest is wanted
    return max(reversed(rows), key=lambda group: len({row["budget"] for row in group}))


def read_group(folder: Path) -> Data:
    """The scores of a run folder, one seed or several.

    Raises:
        VGFError: no run there, a damaged file, or a run without an evaluation at a number of steps.
    """
    runs = find_runs(folder)
    groups = [evaluation(run) for run in runs]
    empty = [run.folder for run, rows in zip(runs, groups, strict=True) if not rows]
    if empty:
        raise VGFError(f"{empty[0]} has no evaluation; make one by: vgf eval {empty[0]}")
    agent, found = runs[0].config["agent"], scores(groups)
    if not any(isinstance(score.budget, int | float) for score in found):
        raise VGFError(f"{folder} was evaluated at no number of flow steps: its method moves none")
    return {
        "task": runs[0].config["task"]["env"],
        "method": agent.get("method", "vgf"),
        "trained": agent["budget"]["steps"],
        "folder": folder.name,
        "settings": settings_of(runs[0]),
        "scores": [dataclasses.asdict(score) for score in found],
    }


def settings_of(run: Run) -> Data:
    """The settings a run was trained with, without the folders of its machine."""
    tables = {name: dict(run.config[name]) for name in ("task", "agent", "train")}
    tables["task"].pop("data_dir", None)
    return tables


def measure(setup: Setup) -> Data:
    """The scores of every named run folder, or of the default run."""
    if setup.runs:
        return {"groups": [read_group(Path(run)) for run in setup.runs]}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "default-run"
        train(setup, folder)
        return {"groups": [read_group(folder)]}


def counted(group: Data) -> list[Data]:
    """The scores by number of steps, in rising order."""
    return [score for score in group["scores"] if isinstance(score["budget"], int | float)]


def grows(moved: Sequence[float | None]) -> bool:
    """Whether distances grow from budget to budget, or have come to rest."""
    known = [value for value in moved if value is not None]
    if len(known) < max(len(moved), 2) or known[1] <= known[0]:
        return False
    resting = (1 - REST) * max(known)
    return all(more > less or more >= resting for less, more in itertools.pairwise(known))


def judge(data: Data) -> list[Verdict]:
    """The distances grow with the test budget."""
    verdicts = []
    for key, name in DISTANCES.items():
        moved = {group["task"]: [s[key] for s in counted(group)] for group in data["groups"]}
        shown = (
            ", ".join("-" if value is None else f"{value:.3g}" for value in values) + f" ({task})"
            for task, values in moved.items()
        )
        verdicts.append(
            Verdict(
                f"{name} grows with the test budget until the particles rest",
                all(grows([s[key] for s in counted(group)]) for group in data["groups"]),
                "; ".join(shown),
            )
        )
    return verdicts


def remarks(data: Data) -> list[str]:
    """Where more steps help, and where they hurt."""
    return [describe(group) for group in data["groups"]]


def describe(group: Data) -> str:
    """One sentence on a run."""
    rows = counted(group)
    top, first, last = max(rows, key=lambda score: float(score["value"])), rows[0], rows[-1]
    word = "apart" if beyond(top, first) else "within each other's interval"
    if all(score["value"] == top["value"] for score in rows):
        return f"{group['task']}: the score is {text(top)} at every budget."
    sentence = f"{group['task']}: the score is highest at {budget_name(top['budget'])}, {text(top)}"
    if top is not first:
        sentence += f", against {text(first)} at {budget_name(first['budget'])} ({word})"
    if last["value"] < top["value"]:
        sentence += f", and falls to {text(last)} at {budget_name(last['budget'])}"
    return sentence + f"; trained at L = {group['trained']}."


def beyond(one: Data, other: Data) -> bool:
    """Whether two intervals do not overlap."""
    if one["low"] is None or other["high"] is None:
        return False
    return bool(one["low"] > other["high"] or one["high"] < other["low"])


def text(score: Data) -> str:
    """A score as text."""
    factor, unit = (100, " %") if score["kind"] == "success" else (1, "")
    interval = ""
    if score["low"] is not None:
        interval = f" ({factor * score['low']:.4g} to {factor * score['high']:.4g})"
    return f"{factor * score['value']:.4g}{unit}{interval}"


def tables(data: Data) -> list[Table]:
    """Every run and budget."""
    rows = [
        [
            group["task"],
            group["method"],
            budget_name(score["budget"]),
            text(score),
            *("-" if score[key] is None else f"{score[key]:.3g}" for key in DISTANCES),
            str(score["episodes"]),
            str(score["runs"]),
            f"{score['step']:,}",
        ]
        for group in data["groups"]
        for score in group["scores"]
    ]
    header = (
        "task",
        "method",
        "budget",
        "score (95 %)",
        *DISTANCES.values(),
        "episodes",
        "seeds",
        "updates",
    )
    return [Table("Scores and distances", header, rows)]


def draw(data: Data, stem: Path) -> None:
    """Score and distances against L_test, a panel for each run."""
    groups = data["groups"]
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    with figure(stem, COLUMN if columns == 1 else PAGE, 0.5 + 2.3 * lines) as drawing:
        panels = drawing.subplots(lines, columns, squeeze=False).flatten()
        handles: dict[str, Any] = {}
        for i, (axes, group) in enumerate(zip(panels, groups, strict=False)):
            handles |= draw_group(axes, group)
            title = group["task"].replace("-singletask", "").removesuffix("-v0")
            letter(axes, "abcdefghijklmnopqrstuvwxyz"[i % 26], title) if len(groups) > 1 else (
                axes.set_title(title)
            )
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        drawing.legend(
            handles.values(), handles, loc="outside upper center", ncols=2 if columns == 1 else 4
        )


def draw_group(axes: Any, group: Data) -> dict[str, Any]:
    """One run's panel; the handles of the legend by their labels."""
    rows = counted(group)
    factor = 100 if rows[0]["kind"] == "success" else 1
    x = [score["budget"] for score in rows]
    y = [factor * score["value"] for score in rows]
    low = [
        v - factor * (v / factor if s["low"] is None else s["low"])
        for v, s in zip(y, rows, strict=True)
    ]
    high = [
        factor * (v / factor if s["high"] is None else s["high"]) - v
        for v, s in zip(y, rows, strict=True)
    ]
    ends = [[max(end, 0) for end in low], [max(end, 0) for end in high]]
    found = {"score, 95 % interval": axes.errorbar(x, y, ends, **line(0), capsize=2, zorder=3)}
    for score in group["scores"]:
        if not isinstance(score["budget"], int | float):
            level = axes.axhline(factor * score["value"], color="#777777", linestyle=":")
            found[budget_name(score["budget"])] = level
    axes.set_ylabel("success (%)" if factor == 100 else "return")
    if factor == 100:
        axes.set_ylim(-4, 104)
    axes.set_xlabel("flow steps at test time, L_test")
    axes.set_xticks(x)
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    other.grid(False)
    for i, (key, name) in enumerate(DISTANCES.items(), 1):
        moved = [(s["budget"], s[key]) for s in rows if s[key] is not None]
        if moved:
            (found[name],) = other.plot(*zip(*moved, strict=True), **line(i))
    furthest = max((s[key] or 0.0 for s in rows for key in DISTANCES), default=0.0) or 1.0
    other.set_ylim(-0.04 * furthest, 1.04 * furthest)  # level with 0 and 100 %
    other.set_ylabel("distance moved\n(units of the action)")
    return found


def experiment(runs: Sequence[str] = ()) -> Experiment:
    """Test-time scaling of these runs."""
    return Experiment(
        name="scaling",
        title="Test-time scaling",
        about=(__doc__ or "").partition("run first\n")[2].strip(),
        setup=Setup(tuple(runs)),
        quick=Setup(tuple(runs), seeds=1, updates=3_000, episodes=10),
        measure=measure,
        judge=judge,
        tables=tables,
        draw=draw,
        remarks=remarks,
        caption=(
            "The score against the test budget L_test, all from one training, with its 95 % "
            "interval (left axis), and how far the particles are moved (right axis). Dotted, "
            "behaviour cloning."
        ),
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.scaling", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder; default: train one")
    add_arguments(parser)
    args = parser.parse_args(argv)
    command = command_line("scaling", args.runs + ["--quick"] * args.quick)
    return exit_status(lambda: holds(run_one(experiment(args.runs), command, args)))


if __name__ == "__main__":
    sys.exit(main())

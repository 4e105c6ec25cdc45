"""VGF and its baselines side by side on data of three OGBench tasks, generated here.

    python -m validation.methods              # trains every method that has not been trained yet
    python -m validation.methods --redraw     # from the recorded numbers

Every run is a `vgf run` of its own, in the folder that --runs names: one that was finished before
is not trained again, one that was stopped goes on. Behaviour cloning by the flow reference,
best-of-N (L = 0) and VGF are one trained agent, acting at different budgets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vgf.checkpoint import CONFIG
from vgf.cli import main as vgf_main
from vgf.errors import VGFError
from vgf.report import find_runs, last_scores

from .experiment import Data, Experiment, Verdict, main
from .figures import COLOURS, MARKERS, PAGE, figure
from .pages import Table

RUNS = "VGF_VALIDATION_RUNS"  # the environment's name for the folder of runs
# What is read off each run: the name in the figure, and the label of its test budget ("L" is the
# training budget's).
METHODS: dict[str, dict[str, str]] = {
    "bc": {"BC, Gaussian": "bc"},
    "weighted_bc": {"weighted BC": "weighted_bc"},
    "fql": {"FQL": "fql"},
    "vgf": {"BC, flow": "bc", "best-of-N": "0", "VGF": "L"},
    "avgf": {"A-VGF": "L"},
}
_ACTING = ("BC, flow", "best-of-N")  # other budgets of the VGF agent
ORDER = ("BC, Gaussian", "BC, flow", "weighted BC", "FQL", "best-of-N", "VGF", "A-VGF")


@dataclass(frozen=True)
class TaskSetup:
    """One task: its flags, and those of each method on it."""

    env: str
    flags: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]


_SMALL = tuple(
    word
    for network in ("critic", "reference", "gradient-field", "policy")
    for word in (f"--{network}-hidden", "128", "128", "128")
)
# Ours throughout: small networks and few updates, for two cores; all chosen before any of the
# recorded numbers was seen. A-VGF's budgets on cube and scene are the authors' (L = 1, epsilon
# 0.05 and 0.1), FQL's weight there its own paper's (300). Of the scenes and puzzles, scene's first
# task is the easiest: two things to open, in 750 steps.
_MANIPULATION = (
    *("--discount", "0.98", "--polyak", "0.01", "--num-envs", "10", "--batch-size", "128"),
    *("--learning-rate", "1e-3", "--target-ensemble", "mean"),
    *_SMALL,
)
_BUDGETS = ("--evaluation-steps", "0", "1")  # best-of-N, and the training budget
TASKS: dict[str, TaskSetup] = {
    "pointmaze-medium": TaskSetup(
        "pointmaze-medium-navigate-singletask-task1-v0",
        (),
        {"bc": ("--reference-kind", "gaussian"), "weighted_bc": (), "fql": (), "vgf": _BUDGETS,
         "avgf": ("--evaluation-steps", "1")},
    ),
    "scene": TaskSetup(
        "scene-play-singletask-task1-v0",
        ("--data-episodes", "60", *_MANIPULATION),
        {
            "fql": ("--distillation", "300"),
            "vgf": ("--budget-steps", "1", "--step-size", "0.1", "--temperature", "0.5", *_BUDGETS),
            "avgf": ("--budget-steps", "1", "--step-size", "0.1", "--evaluation-steps", "1"),
        },
    ),
    "cube-single": TaskSetup(
        "cube-single-play-singletask-task2-v0",
        ("--data-episodes", "80", *_MANIPULATION),
        {
            "fql": ("--distillation", "300"),
            "vgf": ("--budget-steps", "1", "--step-size", "0.05", "--temperature", "0.5",
                    *_BUDGETS),
            "avgf": ("--budget-steps", "1", "--step-size", "0.05", "--evaluation-steps", "1"),
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        seeds: of each method on each task.
        updates: of each training, by task.
        episodes: of the last evaluation, for each test budget, by task.
        backend: of all runs.
    """

    seeds: int = 3
    updates: Mapping[str, int] = field(
        default_factory=lambda: {
            "pointmaze-medium": 4_000,
            "scene": 4_000,
            "cube-single": 5_000,
        }
    )
    episodes: Mapping[str, int] = field(
        default_factory=lambda: {"pointmaze-medium": 25, "scene": 10, "cube-single": 17}
    )
    backend: str = "jax"


def measure(setup: Setup) -> Data:
    """Train what is not trained, and read every run folder."""
    folder = Path(os.environ.get(RUNS, Path("runs") / "methods"))
    return {
        task: {
            name: entry
            for method in TASKS[task].methods
            for name, entry in measure_one(task, method, setup, folder).items()
        }
        for task in setup.updates
    }


def words_of(task: str, method: str, setup: Setup) -> list[str]:
    """The command that trains a method on a task, without its folder."""
    plan = TASKS[task]
    return [
        "run", "--env", plan.env, "--method", method, *plan.flags, *plan.methods[method],
        "--backend", setup.backend, "--seeds", str(setup.seeds), "--steps",
        str(setup.updates[task]), "--evaluate-every", str(setup.updates[task]),
        "--episodes", str(setup.episodes[task]),
    ]  # fmt: skip


def measure_one(task: str, method: str, setup: Setup, folder: Path) -> dict[str, Any]:
    """The results of one method on one task, by the names of the figure."""
    place = folder / f"{task}-{method}"
    words = words_of(task, method, setup)
    data = os.environ.get("VGF_VALIDATION_DATA")
    going_on = ["run", "--resume", str(place)]
    starting = [*words, *(["--data-dir", data] if data else []), "--out", str(place)]
    if vgf_main(going_on if (place / CONFIG).exists() else starting):
        raise VGFError(f"{place}: the run failed; see above")
    runs = find_runs(place)
    trained = runs[0].config["agent"]["budget"]["steps"]
    found = {}
    for name, label in METHODS[method].items():
        label = str(trained) if label == "L" else label
        per_seed = [next(s for s in last_scores([run]) if str(s.budget) == label) for run in runs]
        whole = next(s for s in last_scores(runs) if str(s.budget) == label)
        found[name] = {
            "seeds": [run.config["seed"] for run in runs],
            "values": [score.value for score in per_seed],
            "mean": whole.value, "low": whole.low, "high": whole.high,
            "displacement": whole.displacement, "updates": whole.step, "episodes": whole.episodes,
            "seconds": [run.metrics[-1]["seconds"] for run in runs],
            "command": f"vgf {' '.join(words)}", "label": label,
        }  # fmt: skip
    return found


def judge(data: Data) -> list[Verdict]:
    """VGF, in either form, against every baseline, seed by seed."""
    verdicts = []
    for task, methods in data.items():
        for form in ("VGF", "A-VGF"):
            for other in ("BC, flow", "weighted BC", "best-of-N", "FQL"):
                if other not in methods:
                    continue
                gaps = np.subtract(methods[form]["values"], methods[other]["values"])
                shown = ", ".join(f"{100 * gap:+.0f}" for gap in gaps)
                verdicts.append(
                    Verdict(
                        f"{task}: {form} above {other} for every seed",
                        bool(np.all(gaps > 0)),
                        f"difference in % of episodes, by seed: {shown}",
                    )
                )
    return verdicts


def present(methods: Mapping[str, Any]) -> list[str]:
    """The methods of a task, in the order of the figure."""
    return [name for name in ORDER if name in methods]


def tables(data: Data) -> list[Table]:
    """Success of every method, task by task, and the commands."""
    found = []
    for task, methods in data.items():
        rows = []
        for name in present(methods):
            entry = methods[name]
            rows.append([
                name, f"{100 * entry['mean']:.1f} %",
                f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}",
                " ".join(f"{100 * value:.0f}" for value in entry["values"]),
                f"{entry['displacement']:.3f}" if entry["displacement"] is not None else "",
                f"{entry['episodes']}",
            ])  # fmt: skip
        updates = methods["VGF"]["updates"]
        header = ("method", "success", "95 % interval", "by seed", "distance", "episodes")
        found.append(Table(f"{task}, after {updates:,} updates", header, rows))
    rows = [
        [task, name, f"`{entry['command']}`", f"{sum(entry['seconds']):.0f}"]
        for task, methods in data.items()
        for name, entry in methods.items()
        if name not in _ACTING
    ]
    columns = ("task", "method", "command", "seconds, all seeds")
    return [*found, Table("Commands; data are generated by the first", columns, rows)]


def remarks(data: Data) -> list[str]:
    """How long the trainings took, which were done before this page where that says less."""
    seconds = {
        task: sum(sum(entry["seconds"]) for name, entry in methods.items() if name not in _ACTING)
        for task, methods in data.items()
    }
    shown = ", ".join(f"{task} {time:,.0f} s" for task, time in seconds.items())
    return [
        f"The trainings took {sum(seconds.values()):,.0f} s in all ({shown}), with whatever share "
        "of the machine they had: no measure of speed."
    ]


def draw(data: Data, stem: Path) -> None:
    """Success with its interval, and every seed."""
    with figure(stem, PAGE, 2.6) as drawing:
        panels = drawing.subplots(1, len(data), sharey=True, squeeze=False)[0]
        for axes, (task, methods) in zip(panels, data.items(), strict=True):
            names = present(methods)
            for i, name in enumerate(names):
                entry = methods[name]
                mean, ours = 100 * entry["mean"], "VGF" in name
                span = [[mean - 100 * entry["low"]], [100 * entry["high"] - mean]]
                axes.errorbar(
                    i, mean, span, fmt=MARKERS[0 if ours else 1], capsize=3, markersize=5,
                    color=COLOURS[0 if ours else 1],
                )  # fmt: skip
                seeds = [100 * value for value in entry["values"]]
                axes.plot([i + 0.25] * len(seeds), seeds, "x", color="#777777", markersize=3)
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axes.set_title(task, loc="left")
            axes.set_ylim(-3, 103)
        panels[0].set_ylabel("success in %")


EXPERIMENT = Experiment(
    name="methods",
    title="VGF and its baselines side by side",
    about=(
        "Three OGBench tasks, their data generated by the benchmark's own oracles (pointmaze: the "
        "default run's; cube: 80 episodes; scene: 60, of the benchmark's 1,000), every method "
        "on the same code path with the same networks, batches and number of updates, far fewer "
        "than the paper's million. Behaviour cloning by the flow, best-of-N (L = 0) and VGF are "
        "one agent at three budgets. Nothing is chosen with hindsight: the last evaluation counts. "
        "A claim is refuted by one seed in which it does not hold."
    ),
    setup=Setup(),
    quick=Setup(seeds=1, updates={"pointmaze-medium": 200}, episodes={"pointmaze-medium": 5}),
    measure=measure,
    judge=judge,
    tables=tables,
    remarks=remarks,
    draw=draw,
    caption=(
        "Success in the last evaluation, mean and 95 % interval over all episodes and seeds; "
        "crosses are the seeds."
    ),
)


if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "methods", __doc__, None))

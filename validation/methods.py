"""VGF and its baselines side by side on data of three OGBench tasks, generated here.

    python -m validation.methods                  # trains what is not trained yet
    python -m validation.methods methods-scene    # one of the tasks
    python -m validation.methods --redraw         # from the recorded numbers

Every run is a separate `vgf run`, in the folder that VGF_VALIDATION_RUNS names (runs/methods): a
finished one is not trained again, a stopped one continues. VGF_VALIDATION_METHODS, such as "fql",
trains and evaluates these methods alone; the others' numbers are then those of the record, with the
revision that they were measured at. Behaviour cloning by the flow reference, best-of-N (L = 0) and
VGF are one trained agent, acting at different budgets.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgf.runs.report import find_runs, last_scores
from vgf.support.errors import VGFError

from .experiment import Data, Experiment, Verdict, main, read_record
from .figures import COLOURS, COLUMN, MARKERS, figure
from .pages import Table
from .record import RESULTS, RUNS
from .training import hidden, train

CHOSEN = "VGF_VALIDATION_METHODS"
# What is read from each run: the name in the figure, and the label of its test budget ("L" is the
# training budget's).
METHODS: dict[str, dict[str, str]] = {
    "bc": {"BC, Gaussian": "bc"},
    "weighted_bc": {"weighted BC": "weighted_bc"},
    "fql": {"FQL": "fql"},
    "vgf": {"BC, flow": "bc", "best-of-N": "0", "VGF": "L"},
    "avgf": {"A-VGF": "L"},
}
UNLEARNED = 0.1  # a success below which methods cannot be told apart
_ACTING = ("BC, flow", "best-of-N")  # other budgets of the VGF agent
ORDER = ("BC, Gaussian", "BC, flow", "weighted BC", "FQL", "best-of-N", "VGF", "A-VGF")


@dataclass(frozen=True)
class TaskFlags:
    """One task: its flags, and those of each method on it."""

    env: str
    flags: tuple[str, ...]
    methods: Mapping[str, tuple[str, ...]]


def _sizes(width: int) -> tuple[str, ...]:
    return (*hidden(width, width, width), "--policy-hidden", *[str(width)] * 3)


# Ours throughout: small networks and few updates, for two cores; they were
# chosen before any recorded number was seen. A-VGF's budgets on cube and scene are the authors' (L
# = 1, epsilon 0.05 and 0.1), FQL's weight there is its own paper's (300). Of the scenes and
# puzzles, scene's first task is the easiest: two things to open, in 750 steps.
_MANIPULATION = (
    *("--discount", "0.98", "--polyak", "0.01", "--num-envs", "10", "--batch-size", "128"),
    *("--learning-rate", "1e-3", "--target-ensemble", "mean"),
    *_sizes(128),
)
_BUDGETS = ("--evaluation-steps", "0", "1")  # best-of-N, and the training budget
TASKS: dict[str, TaskFlags] = {
    "pointmaze-medium": TaskFlags(
        "pointmaze-medium-navigate-singletask-task1-v0",
        (),
        {
            "bc": ("--reference-kind", "gaussian"),
            "weighted_bc": (),
            "fql": (*_sizes(64), "--discount", "0.98", "--polyak", "0.02"),  # the others' own
            "vgf": _BUDGETS,
            "avgf": ("--evaluation-steps", "1"),
        },
    ),
    "scene": TaskFlags(
        "scene-play-singletask-task1-v0",
        _MANIPULATION,
        {
            "fql": ("--distillation", "300"),
            "vgf": ("--budget-steps", "1", "--step-size", "0.1", "--temperature", "0.5", *_BUDGETS),
            "avgf": ("--budget-steps", "1", "--step-size", "0.1", "--evaluation-steps", "1"),
        },
    ),
    "cube-single": TaskFlags(
        "cube-single-noisy-singletask-task2-v0",
        (*_MANIPULATION, "--particles", "5"),
        {
            "fql": ("--distillation", "300"),
            "vgf": (
                "--budget-steps",
                "1",
                "--step-size",
                "0.05",
                "--temperature",
                "0.5",
                *_BUDGETS,
            ),
            "avgf": ("--budget-steps", "1", "--step-size", "0.05", "--evaluation-steps", "1"),
        },
    ),
}


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        task: of TASKS.
        updates: of each training.
        episodes: of the last evaluation, for each seed and test budget.
        data_episodes: of the data; none is the benchmark's number.
        seeds: of each method.
        backend: of all runs.
    """

    task: str
    updates: int
    episodes: int
    data_episodes: int | None = None
    seeds: int = 3
    backend: str = "jax"


def measure(setup: Setup) -> Data:
    """Train what is not trained, and read every run folder."""
    folder = Path(os.environ.get(RUNS, Path("runs") / "methods"))
    every = list(TASKS[setup.task].methods)
    chosen = os.environ.get(CHOSEN, " ".join(every)).split()
    methods: dict[str, Any] = {}
    if set(chosen) != set(every):
        record = read_record(RESULTS / f"methods-{setup.task}.json")
        if record["settings"] != json.loads(json.dumps(asdict(setup))):
            raise VGFError(f"methods-{setup.task}.json has other settings; run every method again")
        for name, entry in record["data"]["methods"].items():
            methods[name] = {"revision": record["environment"]["revision"], **entry}
    for method in chosen:
        methods |= measure_one(method, setup, folder)
    return {"task": setup.task, "methods": methods}


def words_of(method: str, setup: Setup) -> list[str]:
    """The command that trains a method on a task, without its folder."""
    plan, data = TASKS[setup.task], setup.data_episodes
    return [
        "run",
        "--env",
        plan.env,
        "--method",
        method,
        *(() if data is None else ("--data-episodes", str(data))),
        *plan.flags,
        *plan.methods[method],
        "--backend",
        setup.backend,
        "--seeds",
        str(setup.seeds),
        "--steps",
        str(setup.updates),
        "--evaluate-every",
        str(setup.updates),
        "--episodes",
        str(setup.episodes),
    ]


def measure_one(method: str, setup: Setup, folder: Path) -> dict[str, Any]:
    """The results of one method, by the names of the figure."""
    place = folder / f"{setup.task}-{method}"
    words = words_of(method, setup)
    train(place, words)
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
            "mean": whole.value,
            "low": whole.low,
            "high": whole.high,
            "displacement": whole.displacement,
            "updates": whole.step,
            "episodes": whole.episodes,
            "seconds": [run.metrics[-1]["seconds"] for run in runs],
            "command": f"vgf {' '.join(words)}",
            "label": label,
            "revision": runs[0].starts[-1]["git_revision"],
        }
    return found


def judge(data: Data) -> list[Verdict]:
    """VGF, in either form, against every baseline, seed by seed."""
    verdicts = []
    task, methods = data["task"], data["methods"]
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


def present(data: Data) -> dict[str, Any]:
    """The methods of a task, in the order of the figure."""
    return {name: data["methods"][name] for name in ORDER if name in data["methods"]}


def tables(data: Data) -> list[Table]:
    """Success of every method, and the commands."""
    methods = present(data)
    rows = [
        [
            name,
            f"{100 * entry['mean']:.1f} %",
            f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}",
            " ".join(f"{100 * value:.0f}" for value in entry["values"]),
            f"{entry['displacement']:.3f}" if entry["displacement"] is not None else "",
            f"{entry['episodes']}",
        ]
        for name, entry in methods.items()
    ]
    header = ("method", "success", "95 % interval", "by seed", "distance", "episodes")
    found = [Table(f"After {methods['VGF']['updates']:,} updates", header, rows)]
    rows = [
        [
            name,
            f"`{entry['command']}`",
            f"{sum(entry['seconds']):.0f}",
            str(entry.get("revision") or "the page's")[:10],
        ]
        for name, entry in methods.items()
        if name not in _ACTING
    ]
    columns = ("method", "command", "seconds of training, all seeds", "revision")
    return [*found, Table("Commands; data are generated by the first", columns, rows)]


def remarks(data: Data) -> list[str]:
    """How long the trainings took, which may have been done before the page was made; and whether
    anything was learned."""
    seconds = sum(
        sum(entry["seconds"]) for name, entry in data["methods"].items() if name not in _ACTING
    )
    best = max(data["methods"].values(), key=lambda entry: entry["mean"])
    unlearned = (
        f"The best of them succeeds in {100 * best['mean']:.0f} % of episodes: so short a training "
        "on so little data teaches none of them the task, and the comparison says nothing."
    )
    return [
        f"The trainings took {seconds:,.0f} s in all, with whatever share of the machine they had: "
        "this does not measure speed.",
        *([unlearned] if best["mean"] < UNLEARNED else []),
    ]


def draw(data: Data, stem: Path) -> None:
    """Success with its interval, and every seed."""
    methods = present(data)
    with figure(stem, COLUMN, 2.6) as drawing:
        axes = drawing.subplots()
        for i, (name, entry) in enumerate(methods.items()):
            mean, look = 100 * entry["mean"], 0 if "VGF" in name else 1
            span = [[mean - 100 * entry["low"]], [100 * entry["high"] - mean]]
            axes.errorbar(
                i, mean, span, fmt=MARKERS[look], capsize=3, markersize=5, color=COLOURS[look]
            )
            seeds = [100 * value for value in entry["values"]]
            axes.plot([i + 0.25] * len(seeds), seeds, "x", color="#777777", markersize=3)
        axes.set_xticks(range(len(methods)), list(methods), rotation=45, ha="right")
        axes.set_ylim(-3, 103)
        axes.set_ylabel("success in %")


def experiment(setup: Setup, data: str) -> Experiment:
    """The comparison on one task; `data` says what it is trained on."""
    return Experiment(
        name=f"methods-{setup.task}",
        title=f"VGF and its baselines on {setup.task}",
        about=(
            f"{data}, generated by the benchmark's own oracle; every method on the same code path "
            "with networks of the same sizes, the same batches and number of updates, far fewer "
            "than the paper's million; FQL's activation, LayerNorm, losses, target update and 10 "
            "sampling steps are those of its own code. Behaviour cloning by the flow, best-of-N "
            "(L = 0) and VGF are one agent at three budgets. Nothing is chosen with hindsight: "
            "settings were fixed before any of these numbers were seen, and the last evaluation "
            "counts; FQL was measured once more, when it had become its own code's, with the "
            "others' numbers known. A claim is refuted by one seed in which it does not hold."
        ),
        setup=setup,
        quick=replace(setup, updates=200, episodes=5, seeds=1, data_episodes=5),
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


EXPERIMENTS = (
    experiment(
        Setup("pointmaze-medium", 4_000, 25, 300),
        "The default run's task and agent, 300 of the benchmark's 1,000 episodes",
    ),
    experiment(
        Setup("scene", 6_000, 12, 150), "Task 1 of scene, 150 of the benchmark's 1,000 episodes"
    ),
    experiment(
        Setup("cube-single", 25_000, 25, 200),
        "Task 2 of cube-single, 200 of the 1,000 episodes of its noisy set (a first comparison, of "
        "5,000 updates on 80 episodes of the play set, taught no method the task; set and length "
        "were then chosen by one run of VGF with another seed and ten particles)",
    ),
)


if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS, "methods", __doc__, None))

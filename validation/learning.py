"""Learning: the authors' loop and ours on the same data, with the same settings, seed by seed.

    python -m validation.learning --checkout ryanxhr/vgf=PATH                # every task
    python -m validation.learning pointmaze --checkout ryanxhr/vgf=PATH      # one
    python -m validation.learning --redraw

Ours is a `vgf run` with the authors' departures on (--follow authors). Theirs is their main.py, run
from the checkout with their agent at the settings of our run folder, on the transitions that our
loader makes of the same file (validation.authors shows that theirs makes the same), and evaluated
by their own function in the same environment at L = 0, 1, 2, 3. Each side draws its own random
numbers. Their evaluation after the first update alone is left out.

Runs are in the folder that VGF_VALIDATION_RUNS names (runs/learning): what is finished is not run
again, and ours goes on where it was stopped. Data: VGF_VALIDATION_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from vgf.runs.config import RunConfig
from vgf.runs.folder import CONFIG
from vgf.runs.report import find_runs
from vgf.runs.resolve import load_config
from vgf.runs.scores import scores
from vgf.runs.task import load_task
from vgf.support.errors import VGFError
from vgf.support.files import read_json

from .authors import VGF, checkouts_of, config_of, fields_of, modules_of, revision, stand_ins
from .budget import evaluations
from .experiment import (
    Data,
    Experiment,
    Verdict,
    add_arguments,
    choose,
    command_line,
    estimate,
    exit_status,
    run_one,
    show,
)
from .experiment import holds as all_hold
from .figures import PAGE, figure, letter, line
from .pages import Table
from .record import RUNS, write
from .training import hidden, train

BUDGETS = (0, 1, 2, 3)  # what their main.py evaluates at
SIDES = ("theirs", "ours")


# Fixed before any recorded number was seen; networks, batch, rates and data are ours, for two
# cores. L, epsilon and alpha on cube are those of validation.methods, on the puzzle those of
# validation.budget.
_PUZZLE = (
    *("--env", "puzzle-3x3-play-singletask-task1-v0", "--particles", "5"),
    *("--sampling-steps", "10", "--discount", "0.99", "--polyak", "0.01"),
    *("--budget-steps", "5", "--step-size", "0.1", "--target-ensemble", "mean"),
    *hidden(128, 128, 128),
)
TASKS: dict[str, dict[str, tuple[str, ...]]] = {
    "pointmaze": {
        "": (
            *("--env", "pointmaze-medium-navigate-singletask-task1-v0", "--action-repeat", "8"),
            *("--discount", "0.98", "--polyak", "0.01", *hidden(64, 64)),
        ),
        "avgf": (),
        "vgf": (),
    },
    "cube-single": {
        "": (
            *("--env", "cube-single-noisy-singletask-task2-v0", "--particles", "5"),
            *("--discount", "0.98", "--polyak", "0.01", "--budget-steps", "1"),
            *("--step-size", "0.05", "--target-ensemble", "mean"),
            *hidden(128, 128, 128),
        ),
        "avgf": (),
        "vgf": ("--temperature", "0.5"),
    },
    "puzzle-3x3": {"": _PUZZLE, "avgf": ()},
    "puzzle-3x3-vgf": {"": _PUZZLE, "vgf": ("--temperature", "0.5")},
}


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        task: of TASKS.
        updates: of each training.
        evaluate_every: updates between evaluations.
        episodes: of an evaluation, for each seed and test budget.
        data_episodes: of the data, which the benchmark's own oracle records.
        seeds: of each side and method.
        methods: that are trained.
        judged_from: the first seed that the verdicts are about; those before it had been seen.
        note: what a reader must know of how it came to be.
    """

    task: str
    updates: int
    evaluate_every: int
    episodes: int
    data_episodes: int
    seeds: int = 3
    methods: tuple[str, ...] = ("avgf", "vgf")
    judged_from: int = 0
    note: str = ""


# --- running both -------------------------------------------------------------------------------


def words_of(method: str, setup: Setup) -> list[str]:
    """The command that trains ours, without its folders."""
    task = TASKS[setup.task]
    return [
        *("run", "--method", method, "--follow", "authors", *task[""], *task[method]),
        *("--no-standardise", "--learning-rate", "1e-3", "--batch-size", "128"),
        *("--data-episodes", str(setup.data_episodes)),
        *("--backend", "jax", "--seeds", str(setup.seeds), "--steps", str(setup.updates)),
        *("--evaluate-every", str(setup.evaluate_every), "--episodes", str(setup.episodes)),
        *("--evaluation-steps", *map(str, BUDGETS), "--workers", "0"),
    ]


def our_curves(place: Path, method: str, setup: Setup) -> list[dict[str, dict[str, float]]]:
    """Ours: for each seed, success by updates and test budget."""
    train(place, words_of(method, setup))
    found = []
    for run in find_runs(place):
        curve: dict[str, dict[str, float]] = {}
        for step, rows in sorted(evaluations(run).items()):
            counted = [score for score in scores([rows]) if str(score.budget).isdigit()]
            curve[str(step)] = {str(score.budget): score.value for score in counted}
        found.append(curve)
    return found


def their_curve(load: Any, config: RunConfig, setup: Setup, seed: int) -> dict[str, Any]:
    """Theirs, one seed: success by updates and test budget."""
    main, monitor = load("main"), load("envs.env_utils").EpisodeMonitor
    given = load({"vgf": "agents.vgf", "avgf": "agents.a_vgf"}[config.agent.method]).get_config()
    config = replace(config, seed=seed)
    task = load_task(config)
    assert task.dataset is not None
    assert task.make_env is not None
    made, acting = (monitor(task.make_env(seed + i)) for i in (0, 1))
    for env in (made, acting):
        env.reset(seed=seed)
    evaluate = main.evaluate_vgf_multiple
    curve: dict[str, dict[str, float]] = {}
    steps = iter([1, *range(setup.evaluate_every, setup.updates + 1, setup.evaluate_every)])

    def evaluated(*args: Any, **named: Any) -> Any:
        step = next(steps)
        if step == 1:
            return [{} for _ in named["eval_step_list"]], [], []
        found = evaluate(*args, **named)
        budgets = map(str, named["eval_step_list"])
        curve[str(step)] = {
            budget: float(stats["success"]) for budget, stats in zip(budgets, found[0], strict=True)
        }
        print(f"theirs, {config.agent.method}, seed {seed}: {step} {curve[str(step)]}", flush=True)
        return found

    flags = main.FLAGS
    flags.agent = config_of(config.agent, given)
    flags.agent.update(batch_size=config.train.batch_size)
    flags.seed, flags.offline_steps, flags.online_steps = seed, setup.updates, 0
    flags.eval_interval, flags.eval_episodes = setup.evaluate_every, setup.episodes
    flags.log_interval = flags.save_interval = 10**9
    flags.env_name = "ogbench:x-singletask"
    data = main.Dataset.create(**fields_of(task.dataset))
    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch.object(main, "setup_wandb"),
        mock.patch.object(main, "evaluate_vgf_multiple", evaluated),
        mock.patch.object(
            main, "make_env_and_datasets", return_value=(made, acting, data, None, 1.0)
        ),
        mock.patch.object(main.tqdm, "tqdm", lambda items, **_: items),
        mock.patch.object(load("utils.evaluation"), "trange", range),  # no progress bars
        contextlib.closing(made),
        contextlib.closing(acting),
    ):
        flags.save_dir = scratch
        main.main(None)
    return curve


def measure(setup: Setup, checkouts: Mapping[str, str]) -> Data:
    """Both sides of every method, what is not there yet."""
    folder = Path(os.environ.get(RUNS, Path("runs") / "learning"))
    root = checkouts[VGF]
    found: dict[str, Any] = {}
    with modules_of(root, stand_ins()) as load:
        load("main").FLAGS(["main.py", f"--agent={root}/agents/vgf.py"])
        for method in setup.methods:
            place = folder / f"{setup.task}-{method}"
            ours = our_curves(place, method, setup)
            config = load_config(place / CONFIG)
            theirs = []
            for seed in range(setup.seeds):
                path = folder / f"{setup.task}-{method}-theirs" / f"seed-{seed}.json"
                if not path.exists():
                    write(path, json.dumps(their_curve(load, config, setup, seed)))
                theirs.append(read_json(path, dict))
            if len(ours) != setup.seeds:
                raise VGFError(f"{place}: it has {len(ours)} of {setup.seeds} seeds; move it away")
            command = " ".join(["vgf", *words_of(method, setup)])
            found[method] = {"command": command, "ours": ours, "theirs": theirs}
    return {
        "task": setup.task,
        "revision": revision(root),
        "methods": found,
        "judged_from": setup.judged_from,
        "note": setup.note,
    }


# --- reading the numbers ------------------------------------------------------------------------


def success(curves: Sequence[Mapping[str, Mapping[str, float]]], step: str, budget: int) -> Any:
    """The success of every seed after some updates."""
    return np.array([curve[step][str(budget)] for curve in curves])


def steps_of(entry: Data) -> list[str]:
    """The numbers of updates at which all seeds of both sides were evaluated."""
    shared = set.intersection(*(set(curve) for side in SIDES for curve in entry[side]))
    if not shared:
        raise VGFError("no evaluation at the same number of updates on both sides")
    return sorted(shared, key=int)


def differences(entry: Data, step: str) -> Any:
    """Ours less theirs, the mean over the test budgets; ``[seeds]``."""
    sides = {
        side: np.mean([success(entry[side], step, budget) for budget in BUDGETS], axis=0)
        for side in SIDES
    }
    return sides["ours"] - sides["theirs"]


def judge(data: Data) -> list[Verdict]:
    """For each method whether both sides learn, and whether the difference can be 0."""
    verdicts = []
    for method, entry in data["methods"].items():
        step = steps_of(entry)[-1]
        first = data.get("judged_from", 0)
        gaps = differences(entry, step)[first:]
        found = estimate(gaps)
        best = {
            side: max(success(entry[side], step, budget)[first:].mean() for budget in BUDGETS)
            for side in SIDES
        }
        shown = ", ".join(f"{100 * gap:+.0f}" for gap in gaps)
        verdicts += [
            Verdict(
                f"{method}: both learn",
                bool(min(best.values()) > 0),
                "success at the best test budget after the last update: "
                + ", ".join(f"{side} {100 * value:.0f} %" for side, value in best.items()),
            ),
            Verdict(
                f"{method}: ours less theirs is 0 within its interval",
                len(gaps) > 1 and found["low"] <= 0 <= found["high"],
                f"mean over L = 0 to 3 after {int(step):,} updates, in %, by seed: {shown}; mean "
                f"{show({key: 100 * value for key, value in found.items()})}",
            ),
        ]
    return verdicts


def remarks(data: Data) -> list[str]:
    """Whose code it was, and how much a difference could hide."""
    found = [f"Theirs: {VGF} {data['revision']}.", *filter(None, [data.get("note", "")])]
    first = data.get("judged_from", 0)
    for method, entry in data["methods"].items():
        whole = 100 * differences(entry, steps_of(entry)[-1])
        span = estimate(whole[first:])
        found.append(
            f"{method}: the interval of the difference is {span['high'] - span['low']:.0f} "
            "points wide; a smaller one cannot be seen with these seeds and episodes."
        )
        if first:
            found.append(
                f"{method}: over the seeds before {first} it is {show(estimate(whole[:first]))}, "
                f"over all {show(estimate(whole))}."
            )
    return found


def tables(data: Data) -> list[Table]:
    """Success of both sides at every evaluation, and the commands."""
    rows = []
    for method, entry in data["methods"].items():
        for step in steps_of(entry):
            for budget in BUDGETS:
                cells = []
                for side in SIDES:
                    found = success(entry[side], step, budget)
                    seeds = " ".join(f"{100 * x:.0f}" for x in found)
                    cells.append(f"{100 * found.mean():.0f} % ({seeds})")
                gaps = success(entry["ours"], step, budget) - success(entry["theirs"], step, budget)
                more = show({key: round(100 * x, 9) for key, x in estimate(gaps).items()})
                rows.append([method, f"{int(step):,}", f"L = {budget}", *cells, more])
    commands = [[method, f"`{entry['command']}`"] for method, entry in data["methods"].items()]
    header = ("method", "updates", "budget", *SIDES, "ours less theirs, points, 95 % interval")
    return [
        Table("Success, mean (each seed)", header, rows),
        Table("Ours; theirs has the same settings", ("method", "command"), commands),
    ]


def draw(data: Data, stem: Path) -> None:
    """Success of the last evaluation against the test budget, both sides, and each seed's."""
    methods = data["methods"]
    with figure(stem, PAGE, 2.8) as drawing:
        panels = drawing.subplots(1, len(methods), sharey=True, squeeze=False).flatten()
        for i, (axes, (method, entry)) in enumerate(zip(panels, methods.items(), strict=True)):
            step = steps_of(entry)[-1]
            for j, side in enumerate(SIDES):
                each = [100 * success(entry[side], step, budget) for budget in BUDGETS]
                axes.plot(BUDGETS, [y.mean() for y in each], label=side, **line(j))
                style = {**line(j), "linestyle": "", "alpha": 0.4}
                for seed in zip(*each, strict=True):
                    axes.plot(BUDGETS, seed, **style)
            letter(axes, "ab"[i], method)
            axes.set_xlabel("test budget L")
            axes.set_xticks(BUDGETS)
        panels[0].set_ylabel("success in %")
        panels[0].legend()


ABOUT = (
    "Their main.py with their agent, and `vgf run --follow authors`, on the same transitions with "
    "the same settings; each side draws its own random numbers and start states. Theirs is "
    "evaluated by its own function in the same environment. Settings were fixed before any number "
    "that is judged was seen, and the last evaluation counts. What would refute that ours learns "
    "as theirs does: a difference of success, mean over L = 0 to 3 of the last evaluation, paired "
    "by seed, whose 95 % interval (Student's) leaves 0 out; and neither claim says anything where "
    "one side does not learn."
)


def experiment(setup: Setup, checkouts: Mapping[str, str] | None = None) -> Experiment:
    """The comparison on one task."""
    return Experiment(
        name=f"learning-{setup.task}",
        title=f"Learning beside the authors' code on {setup.task}",
        about=ABOUT,
        setup=setup,
        quick=replace(setup, updates=20, evaluate_every=10, episodes=1, seeds=2, data_episodes=2),
        measure=lambda setup: measure(setup, checkouts or {}),
        judge=judge,
        tables=tables,
        remarks=remarks,
        draw=draw,
        caption="Success of the last evaluation against the test budget: means; pale, each seed.",
    )


SETUPS = (
    Setup(
        *("pointmaze", 10_000, 10_000, 20, 1000),
        seeds=16,
        judged_from=8,
        note="2,000 updates had taught ours nothing in a pilot of one seed. Three seeds were run "
        "first, then eight, and over these ours was above theirs with both methods; so eight more "
        "were run to tell chance from a difference, and the claims are about these alone. The "
        "first eight were evaluated after 5,000 updates as well.",
    ),
    Setup("cube-single", 12_500, 12_500, 20, 200),
    Setup("puzzle-3x3", 20_000, 20_000, 20, 150, methods=("avgf",)),
    Setup("puzzle-3x3-vgf", 20_000, 20_000, 20, 150, methods=("vgf",)),
)


def beside_theirs(
    module: str,
    about: str,
    setups: Mapping[str, Any],
    experiment: Callable[[Any, Mapping[str, str]], Experiment],
    argv: Sequence[str] | None,
) -> int:
    """The command of a module whose experiments need the authors' checkout.

    Args:
        module: its name; a page's is ``MODULE-NAME``.
        about: its docstring.
        setups: by name.
        experiment: from a setup and the checkouts.
        argv: the words of the command.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m validation.{module}", description=about.partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(setups)}")
    parser.add_argument("--checkout", action="append", default=[], metavar="OWNER/NAME=PATH")
    add_arguments(parser)
    args = parser.parse_args(argv)
    checkouts = checkouts_of(parser, args.checkout)
    if VGF not in checkouts and not args.redraw:
        parser.error(f"name the checkout: --checkout {VGF}=PATH")
    words = [f"--checkout {name}=PATH" for name in checkouts] + ["--quick"] * args.quick

    def act() -> bool:
        experiments = [experiment(setup, checkouts) for setup in setups.values()]
        picked = [(name, choose(experiments, f"{module}-{name}")) for name in args.names or setups]
        records = [run_one(one, command_line(module, [name, *words]), args) for name, one in picked]
        return all(map(all_hold, records))

    return exit_status(act)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    setups = {setup.task: setup for setup in SETUPS}
    return beside_theirs("learning", __doc__ or "", setups, experiment, argv)


if __name__ == "__main__":
    sys.exit(main())

"""Three ways of training a critic, and every operator on each, at equal compute.

    python -m validation.operators                         # trains what is not trained yet
    python -m validation.operators operators-cube-single   # one of the tasks
    python -m validation.operators operators-all           # all of them, from their records
    python -m validation.operators --redraw                # from the recorded numbers

Each critic is trained by a `vgf run` of its own on the same data, in the folder that
VGF_VALIDATION_RUNS names (runs/operators): a finished one is not trained again, a stopped one
continues, and an evaluation that is there is not made again. Data: VGF_VALIDATION_DATA.

The critics: TD on particles that move in training too (VGF's own), TD on the reference's particles
(L = 0), and in-sample expectile (IQL). The reference is trained alike in all. Every operator acts
with each agent from the same start states and with the same noise, with as many particles as its
passes through a network pay for (an evaluation counts as 1, a gradient as 2).

Every choice of a setting counts: each operator has four tries, but for one sample and best-of-N,
which have nothing to choose. The best of them with each critic on the first seed's agent, which is
used for nothing else, is fixed, and then evaluated on the other seeds, which differ in the agent,
the start states and the noise. Other budgets of passes have the settings of the main one.

What would refute that moving beats picking on this task: with a critic, the operator that moves and
did best on the first seed, whose paired difference to best-of-N with the same critic and as many
passes has no 95 % interval above 0, over the final seeds' episodes together. So it speaks of these
agents; three of them say little of others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from vgf.cli import main as vgf_main
from vgf.runs.folder import CONFIG
from vgf.runs.operators import read_operator
from vgf.runs.report import find_runs
from vgf.runs.resolve import load_config
from vgf.spec.settings import Settings
from vgf.support.errors import VGFError
from vgf.support.rows import read_rows

from .experiment import Data, Experiment, Verdict, estimate, main, read_record, show
from .figures import PAGE, figure, letter, line
from .pages import Table
from .record import RESULTS, RUNS
from .regimes import expected_best, paid
from .training import hidden, train

CRITICS = {"vgf": "TD, moved particles", "td": "TD, L = 0", "iql": "in-sample expectile"}
SAMPLE, PICKED, FLOW = "one sample", "best of N", "VGF"
_STEPS = ((1, 0.1), (2, 0.1), (2, 0.3), (5, 0.1))
_WEIGHTS = (0.03, 0.1, 0.3, 1.0)


def _flows(words: str) -> tuple[str, ...]:
    return tuple(f"vgf:steps={n},step_size={size},{words}" for n, size in _STEPS)


# Written down before any of the recorded runs was made; the settings that an operator may choose.
TRIES: dict[str, tuple[str, ...]] = {
    SAMPLE: ("sample",),
    PICKED: ("best_of_n",),
    FLOW: _flows("temperature=none"),
    "VGF, entropy": _flows("temperature=1.0"),
    "VGF, no kernel": _flows("temperature=none,kernel=none"),
    "gradient steps": tuple(f"gradient:steps=2,step_size={size}" for size in _WEIGHTS),
    "their sign": tuple(f"gradient:steps={n},step_size={size},sign=true" for n, size in _STEPS),
    "Langevin": tuple(f"langevin:steps=2,step_size={c},temperature=0.1" for c in _WEIGHTS),
    "QFQL": tuple(f"qfql:weight={weight}" for weight in _WEIGHTS),
    "QGF": tuple(f"qgf:weight={weight}" for weight in _WEIGHTS),
    "QGF, Jacobian": tuple(f"qgf:weight={weight},jacobian=true" for weight in _WEIGHTS),
    "BPTT": tuple(f"bptt:weight={weight}" for weight in _WEIGHTS),
}
MOVING = [name for name in TRIES if name not in (SAMPLE, PICKED)]


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        env: the task.
        flags: of every run.
        updates: of each training.
        data_episodes: of the data, which the benchmark's own oracle records.
        episodes: for each seed and operator.
        seeds: of each critic; the first is for tuning.
        passes: the budget of a decision.
        budgets: others, with the same settings.
        note: what a reader must know of how it came to be.
    """

    env: str
    flags: tuple[str, ...]
    updates: int
    data_episodes: int
    episodes: int = 20
    seeds: int = 4
    passes: int = 96
    budgets: tuple[int, ...] = (32, 288)
    note: str = ""


def measure(setup: Setup) -> Data:
    """Train what is not trained, evaluate what is not evaluated, and read every folder."""
    folder = Path(os.environ.get(RUNS, Path("runs") / "operators"))
    tuning, rows = [], []
    for critic in CRITICS:
        place = folder / f"operators-{short(setup.env)}-{critic}"
        train(place, words_of(critic, setup))
        first, *others = [run.folder for run in find_runs(place)]
        agent = load_config(first / CONFIG).agent
        tries = [
            {"operator": name, "text": priced(text, setup.passes, agent)}
            for name, texts in TRIES.items()
            for text in texts
        ]
        tuning += [{**row, "critic": critic} for row in _evaluated(first, tries, setup)]
        chosen = choices(tuning, critic)
        final = [
            {
                "operator": name,
                "budget": passes,
                "text": priced(TRIES[name][chosen[name]], passes, agent),
            }
            for passes in (setup.passes, *setup.budgets)
            for name in TRIES
            if name != SAMPLE or passes == setup.passes
        ]
        for seed, run in enumerate(others, start=1):
            found = _evaluated(run, final, setup)
            rows += [{**row, "critic": critic, "seed": seed} for row in found]
    return {
        "env": setup.env,
        "updates": setup.updates,
        "passes": setup.passes,
        "tuning": tuning,
        "rows": rows,
    }


def short(env: str) -> str:
    """The task's name without its data set."""
    return env.partition("-singletask")[0].rpartition("-")[0]


def priced(text: str, passes: int, agent: Settings) -> str:
    """An operator, as it is written on the command line, with what a number of passes pays for."""
    if text == "sample":
        return text
    count = paid(read_operator(text, agent), passes, agent).particles
    return f"{text}{',' if ':' in text else ':'}particles={count}"


def choices(tuning: Sequence[dict[str, Any]], critic: str) -> dict[str, int]:
    """For each operator, which of its tries succeeds most often; the first of equal ones."""
    return {name: int(np.argmax(tried(tuning, critic, name).mean(1))) for name in TRIES}


def tried(tuning: Sequence[dict[str, Any]], critic: str, operator: str) -> Any:
    """The success of every episode of the tuning seed, ``[tries, episodes]``."""
    own = [r for r in tuning if (r["critic"], r["operator"]) == (critic, operator)]
    return np.array([row["success"] for row in own], float)


def words_of(critic: str, setup: Setup) -> list[str]:
    """The command that trains a critic, without its folders."""
    return [
        *("run", "--env", setup.env, "--method", critic, *setup.flags, "--backend", "jax"),
        *("--seeds", str(setup.seeds), "--steps", str(setup.updates)),
        *("--data-episodes", str(setup.data_episodes), "--workers", "0"),
        *("--evaluate-every", str(setup.updates), "--evaluation-steps", "0", "--episodes", "2"),
    ]


def _evaluated(run: Path, wanted: Sequence[dict[str, Any]], setup: Setup) -> list[dict[str, Any]]:
    """What was wanted of a run: each with its cost, and every episode's success."""
    found, texts = run / "eval" / "001", list(dict.fromkeys(row["text"] for row in wanted))
    if not found.exists():
        words = ["eval", str(run), "--episodes", str(setup.episodes), "--workers", "0"]
        if vgf_main([*words, "--evaluation-seed", "1", "--operator", *texts]):
            raise VGFError(f"{run}: the evaluation failed; see above")
    episodes = read_rows(found / "evaluations.jsonl")
    costs = json.loads((found / "environment.json").read_text())["operators"]
    by_text = {cost["operator"]: {**cost, "evaluated": cost["critic"]} for cost in costs}
    if sorted(by_text) != sorted(texts):
        raise VGFError(f"{found}: it is of other operators; move it away to evaluate again")
    rows = []
    for row in wanted:
        own = [episode for episode in episodes if episode["budget"] == row["text"]]
        own.sort(key=lambda episode: int(episode["episode"] or 0))
        own = own[: setup.episodes]  # one may have been made with more
        rows.append({**by_text[row["text"]], **row, "success": [e["success"] for e in own]})
    return rows


# --- reading the numbers -------------------------------------------------------------------------


def rows_of(
    data: Data, critic: str, operator: str, passes: int | None = None
) -> list[dict[str, Any]]:
    """The rows of the final seeds, at the main budget or another."""
    key = (critic, operator, passes or data["passes"])
    return [r for r in data["rows"] if (r["critic"], r["operator"], r["budget"]) == key]


def successes(data: Data, critic: str, operator: str, passes: int | None = None) -> Any:
    """The success of every episode of the final seeds, ``[seeds, episodes]``."""
    return np.array([row["success"] for row in rows_of(data, critic, operator, passes)], float)


def gain(data: Data, critic: str, operator: str, passes: int | None = None) -> dict[str, float]:
    """How much more often it succeeds than best-of-N, paired over seeds and episodes."""
    own, picked = (successes(data, critic, name, passes) for name in (operator, PICKED))
    return estimate((own - picked).ravel())


def between(data: Data, one: str, other: str, operator: str) -> dict[str, float]:
    """How much more often a critic succeeds than another, paired over seeds and episodes."""
    return estimate((successes(data, one, operator) - successes(data, other, operator)).ravel())


def dearer(data: Data, critic: str, passes: int | None = None) -> list[str]:
    """The operators of which one particle costs more than the budget."""
    most = passes or data["passes"]
    own = [(name, rows_of(data, critic, name, passes)) for name in MOVING]
    return [name for name, rows in own if rows and rows[0]["passes"] > most]


def best_mover(data: Data, critic: str) -> str:
    """What moves and did best on the first seed, so that the final ones judge one alone."""
    fair = [name for name in MOVING if name not in dearer(data, critic)]
    return max(fair, key=lambda name: tried(data["tuning"], critic, name).mean(1).max())


def judge(data: Data) -> list[Verdict]:
    """With each critic, whether what moves and was best on the first seed is above best-of-N."""
    verdicts = []
    for critic, title in CRITICS.items():
        mover = best_mover(data, critic)
        more, text = gain(data, critic, mover), rows_of(data, critic, mover)[0]["text"]
        rate = 100 * successes(data, critic, PICKED).mean()
        verdicts.append(
            Verdict(
                f"{title}: moving is above best-of-N at equal passes",
                more["low"] > 0,
                f"{mover} ({text}), the best on the first seed, has {show(more)} more successes an "
                f"episode than best-of-N, which succeeds in {rate:.0f} %",
            )
        )
    return verdicts


def remarks(data: Data) -> list[str]:
    """Critics against each other, and what differs from best-of-N."""
    found = []
    for operator in (PICKED, FLOW):
        own = [
            f"{CRITICS[one]} beside {CRITICS['vgf']} {show(between(data, one, 'vgf', operator))}"
            for one in ("td", "iql")
        ]
        found.append(f"With {operator}, more successes an episode: {'; '.join(own)}.")
    for passes in budgets_of(data):
        pairs = [
            (operator, critic, gain(data, critic, operator, passes))
            for critic in CRITICS
            for operator in MOVING
            if operator not in dearer(data, critic, passes)
        ]
        above, below = (
            ", ".join(
                f"{operator} with {CRITICS[critic]} {show(more, 2)}"
                for operator, critic, more in pairs
                if min(sign * more["low"], sign * more["high"]) > 0
            )
            for sign in (1, -1)
        )
        found.append(
            f"With {passes} passes, of {len(pairs)} comparisons with best-of-N, 0 outside their "
            f"intervals and not corrected for their number: above it {above or 'none'}; below it "
            f"{below or 'none'}."
        )
    found.append(
        "Intervals pool the episodes of the final seeds. An operator of which one particle costs "
        "more than the budget is in brackets in the tables, and no verdict or list is about it."
    )
    return found


def budgets_of(data: Data) -> list[int]:
    """The budgets of passes, from the smallest."""
    return sorted({row["budget"] for row in data["rows"]})


def tables(data: Data) -> list[Table]:
    """Success, the difference to best-of-N, other budgets, tuning, cost and distance."""
    rows, others, tuning, costs = [], [], [], []
    for operator in TRIES:
        cells, at_others, tries = [operator], [operator], [operator]
        for critic, title in CRITICS.items():
            whole = successes(data, critic, operator)
            seeds = " ".join(f"{100 * x:.0f}" for x in whole.mean(1))
            more = "" if operator == PICKED else f"; {show(gain(data, critic, operator), 2)}"
            cell = f"{100 * whole.mean():.0f} % ({seeds}){more}"
            cells.append(f"[{cell}]" if operator in dearer(data, critic) else cell)
            shown = []
            for n in budgets_of(data):
                rates, dear = successes(data, critic, operator, n), dearer(data, critic, n)
                text = f"{100 * rates.mean():.0f}" if rates.size else "-"
                shown.append(f"[{text}]" if operator in dear else text)
            at_others.append(" / ".join(shown))
            scores = tried(data["tuning"], critic, operator)
            best = [expected_best(scores, k) for k in range(1, len(scores) + 1)]
            tries.append(" / ".join(f"{100 * x:.0f}" for x in best))
            own = rows_of(data, critic, operator)
            costs.append(
                [
                    own[0]["text"],
                    title,
                    *(str(own[0][k]) for k in ("reference", "evaluated", "gradient")),
                    str(own[0]["reference_gradient"]),
                    str(own[0]["passes"]),
                    f"{np.median([row['milliseconds'] for row in own]):.2f}",
                    f"{np.mean([row['w2'] for row in own]):.2f}",
                ]
            )
        rows.append(cells)
        others.append(at_others)
        tuning.append(tries)
    header = ("operator", *CRITICS.values())
    at = " / ".join(map(str, budgets_of(data)))
    return [
        Table("Success (each seed); more than best-of-N, 95 % interval", header, rows),
        Table(f"Success in %, with {at} passes", header, others),
        Table("Expected best of 1, 2, ... tries, in %, on the first seed", header, tuning),
        Table(
            "A decision: evaluations, milliseconds, and W2 moved",
            (
                *("operator", "critic", "reference", "critic's", "gradient", "ref. gradient"),
                *("passes", "ms", "W2"),
            ),
            costs,
        ),
    ]


_MARKERS = "osD^vPX*<>hp"  # one for each operator


def draw(data: Data, stem: Path) -> None:
    """For each critic, success against the passes of a decision, and against the distance moved."""
    with figure(stem, PAGE, 4.6) as drawing:
        panels = drawing.subplots(2, len(CRITICS), sharey=True, sharex="row")
        for (critic, title), above, below in zip(CRITICS.items(), *panels, strict=True):
            for i, operator in enumerate(TRIES):
                own = [rows_of(data, critic, operator, n) for n in budgets_of(data)]
                there = [
                    (rows[0]["passes"], 100 * np.mean([row["success"] for row in rows]))
                    for rows in own
                    if rows
                ]
                look = line(i, marker=_MARKERS[i])
                if operator == PICKED:
                    look |= {"linewidth": 2.5, "zorder": 1}
                above.plot(*zip(*there, strict=True), label=operator, **look)
                moved = np.mean([row["w2"] for row in rows_of(data, critic, operator)])
                rate = 100 * successes(data, critic, operator).mean()
                below.plot([moved], [rate], **{**look, "linestyle": "none"})
            above.set_xscale("log", base=2)
            above.xaxis.set_major_formatter("{x:g}")
            above.set_xlabel("passes for a decision")
            below.set_xlabel("distance moved, W2")
            i = list(CRITICS).index(critic)
            letter(above, "abc"[i], title)
            letter(below, "def"[i], title)
        for row in panels:
            row[0].set_ylabel("success (%)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=4)


def experiment(setup: Setup) -> Experiment:
    """The comparison on one task."""
    name = short(setup.env)
    return Experiment(
        name=f"operators-{name}",
        title=f"Critics and operators on {name}",
        about=(__doc__ or "").partition("VGF_VALIDATION_DATA.\n")[2].strip(),
        setup=setup,
        quick=replace(
            setup, updates=50, episodes=2, seeds=2, data_episodes=20, budgets=setup.budgets[:1]
        ),
        measure=measure,
        judge=judge,
        tables=tables,
        draw=draw,
        remarks=lambda data: [*remarks(data), *filter(None, [setup.note])],
        caption=(
            "Success on the final seeds, with settings chosen on another. (a) to (c) Against the "
            "passes through a network that a decision costs. (d) to (f) Against the distance moved "
            "from the reference's particles, at the main budget, in units of the action."
        ),
    )


_COMMON = (
    *("--polyak", "0.01", "--batch-size", "128", "--learning-rate", "1e-3"),
    *("--target-ensemble", "mean", *hidden(128, 128, 128)),
)
_ONE_BUDGET = (
    "One budget, as on the cube, as an episode takes a core one or two seconds: each further "
    "budget would evaluate eleven more operators on every final seed. For the same reason the "
    "episodes of each operator were cut from 20 to {0}, before any success of this page was seen."
)
# Networks, batch and rates of pointmaze are the default's; of the others, as in validation.methods
# and validation.budget.
SETUPS = (
    Setup(
        "pointmaze-medium-navigate-singletask-task1-v0",
        ("--action-repeat", "8"),
        updates=3000,
        data_episodes=1000,
        passes=32,
        budgets=(16, 96),
        note="The main budget was 96 at first. It became 32 after a pilot, of the first seed with "
        "the critic of moved particles, in which best-of-N succeeded always with 96.",
    ),
    Setup(
        "cube-single-noisy-singletask-task2-v0",
        (*_COMMON, "--discount", "0.98", "--budget-steps", "1", "--step-size", "0.05"),
        updates=12_500,
        data_episodes=200,
        episodes=15,
        budgets=(),
    ),
    Setup(
        "puzzle-3x3-play-singletask-task1-v0",
        (*_COMMON, "--discount", "0.99", "--budget-steps", "5", "--step-size", "0.1"),
        updates=30_000,
        data_episodes=150,
        episodes=15,
        budgets=(),
        note=_ONE_BUDGET.format(15),
    ),
    Setup(
        "scene-play-singletask-task1-v0",
        (*_COMMON, "--discount", "0.99", "--budget-steps", "1", "--step-size", "0.1"),
        updates=30_000,
        data_episodes=150,
        episodes=10,
        budgets=(),
        note=_ONE_BUDGET.format(10),
    ),
)


# --- all tasks on one page -----------------------------------------------------------------------


@dataclass(frozen=True)
class Tasks:
    """The records that the page of all tasks is read from.

    Args:
        names: short ones, of the tasks.
    """

    names: tuple[str, ...] = tuple(short(setup.env) for setup in SETUPS)


def gather(setup: Tasks) -> Data:
    """What the recorded pages have in common: every task, critic and operator, at the main budget.

    Raises:
        VGFError: a task is not recorded.
    """
    found: Data = {}
    passes = {}
    for name in setup.names:
        data = read_record(RESULTS / f"operators-{name}.json")["data"]
        passes[name] = data["passes"]
        found[name] = {
            critic: {
                "mover": best_mover(data, critic),
                "dearer": dearer(data, critic),
                "success": {op: successes(data, critic, op) for op in TRIES},
                "w2": {op: np.mean([r["w2"] for r in rows_of(data, critic, op)]) for op in TRIES},
            }
            for critic in CRITICS
        }
    return {"tasks": found, "passes": passes}


def chosen_beside_picking(data: Data) -> list[tuple[str, str, str, Any, float]]:
    """Of every task and critic: what moved best in tuning, its successes less those of best-of-N,
    and the p-value of Student's test, times the number of these comparisons."""
    pairs = [
        (task, critic, own["mover"], _above_picking(own, own["mover"]))
        for task, critics in data["tasks"].items()
        for critic, own in critics.items()
    ]
    found = []
    for task, critic, mover, less in pairs:
        p = float(ttest_1samp(less, 0.0).pvalue) if less.std() > 0 else 1.0
        found.append((task, critic, mover, less, min(1.0, p * len(pairs))))
    return found


def _above_picking(own: Data, operator: str) -> Any:
    """The successes of an operator less those of best-of-N, of every final episode."""
    found, picked = (np.array(own["success"][name], float) for name in (operator, PICKED))
    return (found - picked).ravel()


def judge_all(data: Data) -> list[Verdict]:
    """Whether moving is above picking anywhere, and the flow itself."""
    found = chosen_beside_picking(data)
    above = [
        f"{task}, {CRITICS[critic]}: {mover} {show(estimate(less), 2)}, p {p:.2g}"
        for task, critic, mover, less, p in found
        if p < 0.05 and less.mean() > 0
    ]
    flows = [
        f"{task}, {CRITICS[critic]}: {show(estimate(_above_picking(own, FLOW)), 2)}"
        for task, critics in data["tasks"].items()
        for critic, own in critics.items()
        if FLOW not in own["dearer"] and estimate(_above_picking(own, FLOW))["low"] > 0
    ]
    return [
        Verdict(
            f"on a task and with a critic, what moved best in tuning is above best-of-N, corrected "
            f"for {len(found)} comparisons",
            bool(above),
            "; ".join(above) or "nowhere",
        ),
        Verdict(
            "on a task and with a critic, the flow itself is above best-of-N, not corrected",
            bool(flows),
            "; ".join(flows) or "nowhere",
        ),
    ]


def tables_all(data: Data) -> list[Table]:
    """What was chosen in tuning, and for each critic all operators on all tasks."""
    chosen = [
        [
            *(task, CRITICS[critic], mover),
            f"{100 * np.mean(data['tasks'][task][critic]['success'][PICKED]):.0f} %",
            *(show(estimate(less), 2), f"{p:.2g}"),
        ]
        for task, critic, mover, less, p in chosen_beside_picking(data)
    ]
    header = ("task", "critic", "chosen", "best of N", "more than it", f"p, times {len(chosen)}")
    every = [
        Table(
            f"{title}: success at the main budget, in %; more than best-of-N",
            ("operator", *data["tasks"]),
            [
                [op, *(_cell(critics[critic], op) for critics in data["tasks"].values())]
                for op in TRIES
            ],
        )
        for critic, title in CRITICS.items()
    ]
    return [Table("What moved best in tuning, on the final seeds", header, chosen), *every]


def _cell(own: Data, operator: str) -> str:
    rate = 100 * np.mean(own["success"][operator])
    text = f"{rate:.0f}"
    if operator != PICKED:
        more = estimate(_above_picking(own, operator))
        clear = "*" if more["low"] > 0 or more["high"] < 0 else ""
        text += f" ({100 * more['mean']:+.0f}{clear})"
    return f"[{text}]" if operator in own["dearer"] else text


def draw_all(data: Data, stem: Path) -> None:
    """For each task and critic, success against the distance moved."""
    with figure(stem, PAGE, 9.0) as drawing:
        panels = drawing.subplots(len(data["tasks"]), len(CRITICS), sharex=True, sharey="row")
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        for row, (task, critics) in zip(panels, data["tasks"].items(), strict=True):
            for panel, (critic, own) in zip(row, critics.items(), strict=True):
                for i, operator in enumerate(TRIES):
                    rate = 100 * np.mean(own["success"][operator])
                    look = {**line(i, marker=_MARKERS[i]), "linestyle": "none"}
                    panel.plot([own["w2"][operator]], [rate], label=operator, **look)
                    if operator == PICKED:
                        panel.axhline(rate, color=look["color"], linewidth=1, zorder=0)
                letter(panel, next(letters), CRITICS[critic])
            row[0].set_ylabel(f"{task}\nsuccess (%)")
        for panel in panels[-1]:
            panel.set_xlabel("distance moved, W2")
        handles, labels = panels[0][0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=4)


ALL_TASKS = Experiment(
    name="operators-all",
    title="Critics and operators on all tasks",
    about=(
        "What the pages of single tasks have in common, read from their records: at equal passes, "
        "the success of every operator with every critic, on the final seeds. Settings were chosen "
        "on another seed. An operator of which one particle costs more than the budget is in "
        "brackets."
    ),
    setup=Tasks(),
    quick=Tasks(),
    measure=gather,
    judge=judge_all,
    tables=tables_all,
    draw=draw_all,
    remarks=lambda data: [
        "A star: 0 is outside the 95 % interval of the paired difference, the episodes of the "
        "final seeds pooled, not corrected for the number of comparisons.",
        "Passes of a decision: "
        + ", ".join(f"{passes} on {task}" for task, passes in data["passes"].items())
        + ".",
    ],
    caption=(
        "Success against the distance moved from the reference's particles, at the main budget; "
        "each row is a task, each column a critic. The line is best-of-N's success."
    ),
)
EXPERIMENTS = [*map(experiment, SETUPS), ALL_TASKS]

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS, "operators", __doc__, None))

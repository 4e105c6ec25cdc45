"""Three ways of training a critic, and every operator on each, at equal compute.

    python -m validation.operators                # trains what is not trained yet
    python -m validation.operators --redraw       # from the recorded numbers

Each critic is trained by a `vgf run` of its own on the same data, in the folder that
VGF_VALIDATION_RUNS names (runs/methods): a finished one is not trained again, a stopped one
continues, and an evaluation that is there is not made again. The critics: TD on particles that move
in training too (VGF's own), TD on the reference's particles (L = 0), and in-sample expectile (IQL).
The reference is trained alike in all.

Every operator then acts with each agent from the same start states and with the same noise, with as
many particles as about 96 passes through a network pay for (a gradient counts as 2). Each operator
had one try: its settings were written down here before any of these runs was made, and none was
tuned; so a better setting may exist for each of them, and only large differences mean something.

What would refute that moving beats picking on this task: no operator and critic whose paired
difference to best-of-N with the same critic has a 95 % interval above 0, over the seeds and
episodes together.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf.cli import main as vgf_main
from vgf.runs.folder import CONFIG
from vgf.support.errors import VGFError
from vgf.support.rows import read_rows

from .experiment import Data, Experiment, Verdict, estimate, main, show
from .figures import PAGE, figure, letter, line
from .pages import Table
from .record import RUNS

CRITICS = {"vgf": "TD, moved particles", "td": "TD, L = 0", "iql": "in-sample expectile"}
PICKED = "best_of_n:particles=16"
# each about 96 passes, K = 5; one sample, for comparison, has 5
OPERATORS = (
    "sample",
    PICKED,
    "vgf:particles=9,steps=2,step_size=0.3,temperature=1.0",
    "vgf:particles=9,steps=2,step_size=0.3,temperature=none,kernel=none",
    "gradient:particles=9,steps=2,step_size=0.3,sign=true",
    "langevin:particles=9,steps=2,step_size=0.05,temperature=0.1",
    "qfql:particles=6,weight=0.1",
    "qgf:particles=6,weight=0.1",
    "qgf:particles=6,weight=1.0",
    "qgf:particles=3,weight=0.1,jacobian=true",
)


@dataclass(frozen=True)
class Setup:
    """How long, and how often.

    Args:
        env: the task.
        updates: of each training.
        episodes: for each seed and operator.
        seeds: of each critic.
        flags: of every run.
        data_episodes: of the data; none is the benchmark's number.
    """

    env: str = "pointmaze-medium-navigate-singletask-task1-v0"
    updates: int = 3000
    episodes: int = 20
    seeds: int = 3
    flags: tuple[str, ...] = ()
    data_episodes: int | None = None


def measure(setup: Setup) -> Data:
    """Train what is not trained, evaluate what is not evaluated, and read every folder."""
    folder = Path(os.environ.get(RUNS, Path("runs") / "methods"))
    rows = []
    for critic in CRITICS:
        place = folder / f"operators-{setup.env.split('-')[0]}-{critic}"
        _trained(place, critic, setup)
        seeds = [place] if setup.seeds == 1 else sorted(place.glob("seed-*"))
        for seed, run in enumerate(seeds):
            rows += [{**row, "critic": critic, "seed": seed} for row in _evaluated(run, setup)]
    return {"rows": rows, "env": setup.env, "updates": setup.updates}


def _trained(place: Path, critic: str, setup: Setup) -> None:
    few = [] if setup.data_episodes is None else ["--data-episodes", str(setup.data_episodes)]
    data = os.environ.get("VGF_VALIDATION_DATA")
    few += ["--data-dir", data] if data else []
    starting = [
        *("run", "--env", setup.env, "--method", critic, *setup.flags, "--backend", "jax"),
        *("--seeds", str(setup.seeds), "--steps", str(setup.updates), *few),
        *("--evaluate-every", str(setup.updates), "--evaluation-steps", "0", "--episodes", "2"),
        *("--workers", "0", "--out", str(place)),
    ]
    if setup.env.startswith("pointmaze"):
        starting += ["--action-repeat", "8"]
    going_on = ["run", "--resume", str(place)]
    if vgf_main(going_on if (place / CONFIG).exists() else starting):
        raise VGFError(f"{place}: the run failed; see above")


def _evaluated(run: Path, setup: Setup) -> list[dict[str, Any]]:
    """A row for each operator: its cost, and every episode's success."""
    found = run / "eval" / "001"
    if not found.exists():
        words = ["eval", str(run), "--episodes", str(setup.episodes), "--workers", "0"]
        if vgf_main([*words, "--evaluation-seed", "1", "--operator", *OPERATORS]):
            raise VGFError(f"{run}: the evaluation failed; see above")
    episodes = read_rows(found / "evaluations.jsonl")
    facts = json.loads((found / "environment.json").read_text())
    rows = []
    for cost in facts["operators"]:
        own = [row for row in episodes if row["budget"] == cost["operator"]]
        own.sort(key=lambda row: int(row["episode"] or 0))
        rows.append(
            {
                **cost,
                "critic_evaluations": cost["critic"],
                "success": [row["success"] for row in own],
            }
        )
    return rows


# --- reading the numbers -------------------------------------------------------------------------


def successes(data: Data, critic: str, operator: str) -> Any:
    """The success of every episode, ``[seeds, episodes]``."""
    rows = [r for r in data["rows"] if (r["critic"], r["operator"]) == (critic, operator)]
    return np.array([row["success"] for row in rows], float)


def gain(data: Data, critic: str, operator: str, other: str = PICKED) -> dict[str, float]:
    """How much more often it succeeds than another, paired over seeds and episodes."""
    pairs = successes(data, critic, operator) - successes(data, critic, other)
    return estimate(pairs.ravel())


def between(data: Data, one: str, other: str, operator: str) -> dict[str, float]:
    """How much more often a critic succeeds than another, paired over seeds and episodes."""
    return estimate((successes(data, one, operator) - successes(data, other, operator)).ravel())


def judge(data: Data) -> list[Verdict]:
    """Whether anything that moves is above best-of-N."""
    moving = [name for name in OPERATORS if name not in ("sample", PICKED)]
    gains = {(c, o): gain(data, c, o) for c in CRITICS for o in moving}
    wins = [key for key, found in gains.items() if found["low"] > 0]
    (critic, operator), most = max(gains.items(), key=lambda pair: pair[1]["mean"])
    return [
        Verdict(
            f"on {data['env'].split('-')[0]} some operator that moves is above best-of-N",
            bool(wins),
            f"{len(wins)} of {len(gains)} pairs of critic and operator have an interval above 0 "
            f"(not corrected for their number); the most is {show(most)} more successes an "
            f"episode, by {operator} with {CRITICS[critic]}",
        )
    ]


def remarks(data: Data) -> list[str]:
    """Critics against each other, and what is below best-of-N."""
    found = []
    for operator in (PICKED, OPERATORS[2]):
        own = [
            f"{CRITICS[one]} beside {CRITICS['vgf']} {show(between(data, one, 'vgf', operator))}"
            for one in ("td", "iql")
        ]
        found.append(f"With {operator}, more successes an episode: {'; '.join(own)}.")
    losses = [
        f"{operator} with {CRITICS[critic]}"
        for critic in CRITICS
        for operator in OPERATORS
        if operator not in ("sample", PICKED) and gain(data, critic, operator)["high"] < 0
    ]
    found.append(f"Below best-of-N, its interval below 0: {', '.join(losses) or 'none'}.")
    return found


def tables(data: Data) -> list[Table]:
    """Success, difference to best-of-N, cost and distance."""
    rows, costs = [], []
    for operator in OPERATORS:
        cells = [operator]
        for critic in CRITICS:
            whole = successes(data, critic, operator)
            seeds = " ".join(f"{100 * x:.0f}" for x in whole.mean(1))
            more = "" if operator == PICKED else f"; {show(gain(data, critic, operator), 2)}"
            cells.append(f"{100 * whole.mean():.0f} % ({seeds}){more}")
        rows.append(cells)
        own = [row for row in data["rows"] if row["operator"] == operator]
        costs.append(
            [
                operator,
                *(str(own[0][k]) for k in ("reference", "critic_evaluations", "gradient")),
                str(own[0]["reference_gradient"]),
                str(own[0]["passes"]),
                f"{np.median([row['milliseconds'] for row in own]):.2f}",
                *(
                    f"{np.mean([r['w2'] for r in own if r['critic'] == critic]):.2f}"
                    for critic in CRITICS
                ),
            ]
        )
    header = ("operator", *CRITICS.values())
    of_cost = ("reference", "critic", "gradient", "ref. gradient", "passes", "ms")
    return [
        Table("Success (each seed); more than best-of-N, 95 % interval", header, rows),
        Table(
            "A decision: evaluations, milliseconds, and W2 moved with each critic",
            ("operator", *of_cost, *CRITICS.values()),
            costs,
        ),
    ]


def draw(data: Data, stem: Path) -> None:
    """Success against the cost of a decision, and against the distance moved."""
    with figure(stem, PAGE, 3.4) as drawing:
        left, right = drawing.subplots(1, 2, sharey=True)
        for i, (critic, title) in enumerate(CRITICS.items()):
            own = [
                [r for r in data["rows"] if (r["critic"], r["operator"]) == (critic, o)]
                for o in OPERATORS
            ]
            y = [100 * successes(data, critic, operator).mean() for operator in OPERATORS]
            look = {**line(i), "linestyle": "none"}
            left.plot([rows[0]["milliseconds"] for rows in own], y, label=title, **look)
            right.plot([np.mean([r["w2"] for r in rows]) for rows in own], y, **look)
        left.set_xscale("log")
        left.set_xlabel("milliseconds for a decision")
        left.set_ylabel("success (%)")
        right.set_xlabel("distance moved, W2 (units of the action)")
        letter(left, "a", "cost")
        letter(right, "b", "distance")
        drawing.legend(loc="outside upper center", ncols=3)


POINTMAZE = Experiment(
    name="operators-pointmaze",
    title="Critics and operators on pointmaze",
    about=(__doc__ or "").partition("recorded numbers\n")[2].strip(),
    setup=Setup(),
    quick=Setup(updates=200, episodes=3, seeds=2, data_episodes=20),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    remarks=remarks,
    caption=(
        "Success of ten operators with each of three critics, three seeds. (a) Against the time of "
        "a decision on a CPU. (b) Against the distance moved from the reference's particles."
    ),
)

if __name__ == "__main__":
    sys.exit(main([POINTMAZE], "operators", __doc__, None))

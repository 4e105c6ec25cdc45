"""Where picking beats moving: rewards that fall beyond the edge of the data.

The bandit of validation.regimes with data that end at an edge, towards the best action: in every
coordinate they are a*(s) + u (-0.4 + 0.3 (1 - |xi|)), so that most lie just before the edge and
none beyond it, while the best action, as the critic extrapolates it, lies beyond. There the true
reward is R less a penalty, its slope times how far beyond the edge a coordinate is, in units of
0.3, mean over the coordinates. With a slope of 0 extrapolation is right, as in validation.regimes;
the steeper it is, the more wrong. No critic can know the slope, as no data are there: the agents
are the same for all slopes, and so are their actions at equal settings.

Networks, operators, the settings each may choose from and the passes of a decision are those of
validation.regimes. For every slope each operator's settings are chosen by the true reward on the
tuning seeds, four tries each but for best-of-N, and fixed before the final seeds: tuning protects
the operators that move, since it knows the slope.

What would refute that the flow loses to picking where values do not generalise: a paired difference
of VGF to best-of-N at the steepest slope whose 95 % interval is not below 0; the same of the best
operator on the tuning seeds refutes that everything that moves does. That moving wins where they
generalise: at slope 0, VGF's not above 0. A look at the tuning seeds, with slopes up to 3, came
before: there VGF lost at slope 3, and guidance in the sampler did not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vgf.spec.types import Array

from .experiment import Data, Experiment, Verdict, main, show
from .figures import PAGE, figure, line
from .pages import Table
from .regimes import (
    NOISE,
    PICKED,
    SPREAD,
    STATE_DIM,
    Bandit,
    Condition,
    Setup,
    Trained,
    agent_settings,
    best_mover,
    difference,
    grids,
    paid,
)

FLOW = "VGF"


class Edge(Bandit):
    """The bandit whose data end at an edge."""

    def batch(self) -> dict[str, Array]:
        """The data."""
        m, d = self.condition.data, self.condition.dimension
        s = self.rng.standard_normal((m, STATE_DIM))
        before = 1 - np.abs(self.rng.standard_normal((m, d)))
        a = self.best(s) + self.signs * (SPREAD * before - self.condition.shift)
        a = np.clip(a, -1, 1)
        r = self.reward(s, a) + NOISE * self.rng.standard_normal(m)
        return {
            "observations": s,
            "actions": a,
            "rewards": r,
            "masks": np.zeros(m),
            "next_observations": s,
        }

    def beyond(self, s: Array, a: Array) -> Array:
        """How far beyond the edge, in units of the spread, mean over coordinates, ``[*]``."""
        away = self.signs * (a - self.best(s)) + self.condition.shift
        return np.mean(np.maximum(away / SPREAD - 1, 0), axis=-1)


@dataclass(frozen=True)
class Edges:
    """The grid.

    Args:
        slopes: of the penalty, rising, 0 first.
        setup: seeds, updates, states and passes; the rest of it has no part here.
        condition: the bandit and its data.
    """

    slopes: tuple[float, ...] = (0.0, 0.3, 1.0, 3.0, 10.0)
    setup: Setup = field(default_factory=Setup)
    condition: Condition = field(default_factory=lambda: Condition("edge", dimension=4))


def measure(edges: Edges) -> Data:
    """Act once with every agent, operator and setting; then tune, fix and judge for each slope."""
    setup, condition = edges.setup, edges.condition
    settings, grid = agent_settings(), grids(condition.dimension)
    operators = {
        name: [paid(operator, setup.passes, settings) for operator in tries]
        for name, tries in grid.items()
    }
    found: dict[str, dict[str, list[list[list[float]]]]] = {name: {} for name in operators}
    for part, seeds in (("tuning", setup.tuning), ("final", setup.seeds)):
        for seed in seeds:
            agent = Trained(condition, seed, setup, Edge)
            bandit = agent.bandit
            assert isinstance(bandit, Edge)
            for name, tries in operators.items():
                pairs = []
                for operator in tries:
                    a = agent.acts(operator)
                    reward, beyond = bandit.reward(agent.s, a), bandit.beyond(agent.s, a)
                    pairs.append([float(reward.mean()), float(beyond.mean())])
                found[name].setdefault(part, []).append(pairs)
            print(f"seed {seed} done", file=sys.stderr, flush=True)
    rows = []
    for slope in edges.slopes:
        for name, parts in found.items():
            tried, final = (
                np.array(parts[part]) @ np.array([1, -slope]) for part in ("tuning", "final")
            )
            chosen = int(np.argmax(tried.mean(0)))
            rows.append(
                {
                    "slope": slope,
                    "operator": name,
                    "settings": str(operators[name][chosen]),
                    "particles": operators[name][chosen].particles,
                    "tried": tried.T,
                    "reward": final[:, chosen],
                    "beyond": np.array(parts["final"])[:, chosen, 1],
                }
            )
    return {"rows": rows, "slopes": edges.slopes, "passes": setup.passes}


def at(data: Data, slope: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of one slope: best-of-N's, and the others'."""
    rows = [row for row in data["rows"] if row["slope"] == slope]
    return rows[0], rows[1:]


def judge(data: Data) -> list[Verdict]:
    """The flow at slope 0 and at the steepest; and there, whatever did best in tuning."""
    (easy, flat), (hard, steep) = (at(data, data["slopes"][i]) for i in (0, -1))
    moved = next(row for row in flat if row["operator"] == FLOW)
    fallen = next(row for row in steep if row["operator"] == FLOW)
    best = best_mover(steep)

    def worth(row: dict[str, Any], picked: dict[str, Any]) -> str:
        return (
            f"slope {row['slope']:g}: {row['operator']} is worth {show(difference(row, picked))} "
            f"more than the best of {picked['particles']}"
        )

    return [
        Verdict(
            "where values generalise beyond the data, the flow beats picking",
            difference(moved, easy)["low"] > 0,
            worth(moved, easy),
        ),
        Verdict(
            "where they do not, picking beats the flow",
            difference(fallen, hard)["high"] < 0,
            worth(fallen, hard),
        ),
        Verdict(
            "where they do not, picking beats everything that moves",
            difference(best, hard)["high"] < 0,
            f"the best on the tuning seeds, {worth(best, hard)}",
        ),
    ]


def remarks(data: Data) -> list[str]:
    """What is above and below best-of-N at each slope."""
    found = []
    for slope in data["slopes"]:
        picked, rows = at(data, slope)
        wins = [row["operator"] for row in rows if difference(row, picked)["low"] > 0]
        losses = [row["operator"] for row in rows if difference(row, picked)["high"] < 0]
        found.append(
            f"Slope {slope:g}: above best-of-N are {', '.join(wins) or 'none'}; below it "
            f"{', '.join(losses) or 'none'}."
        )
    found.append("The intervals of these lists are not corrected for how many there are.")
    return found


def tables(data: Data) -> list[Table]:
    """Reward, difference to best-of-N and distance beyond the edge, for each operator and slope."""
    reward, beyond = [], []
    names = [row["operator"] for row in data["rows"] if row["slope"] == data["slopes"][0]]
    for name in names:
        cells, far = [name], [name]
        for slope in data["slopes"]:
            picked, rows = at(data, slope)
            row = next(row for row in (picked, *rows) if row["operator"] == name)
            more = "" if name == PICKED else f"; {show(difference(row, picked), 2)}"
            cells.append(f"{np.mean(row['reward']):.3f}{more}")
            far.append(f"{np.mean(row['beyond']):.2f}")
        reward.append(cells)
        beyond.append(far)
    header = ("operator", *(f"slope {slope:g}" for slope in data["slopes"]))
    return [
        Table("True reward; more than best-of-N, paired over seeds, 95 % interval", header, reward),
        Table("How far beyond the edge, in units of 0.3, mean over coordinates", header, beyond),
    ]


def draw(data: Data, stem: Path) -> None:
    """True reward against the slope."""
    with figure(stem, PAGE, 3.0) as drawing:
        axes = drawing.subplots()
        x = np.arange(len(data["slopes"]))
        names = [row["operator"] for row in data["rows"] if row["slope"] == data["slopes"][0]]
        for i, name in enumerate(names):
            rows = [row for row in data["rows"] if row["operator"] == name]
            look = line(i) if i else {**line(0), "linewidth": 2.5}
            axes.plot(x, [np.mean(row["reward"]) for row in rows], label=name, **look)
        axes.set_xticks(x, [f"{slope:g}" for slope in data["slopes"]])
        axes.set_xlabel("slope of the penalty beyond the edge of the data")
        axes.set_ylabel("true reward")
        drawing.legend(loc="outside upper center", ncols=4)


EXPERIMENT = Experiment(
    name="edge",
    title="Where picking beats moving",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Edges(),
    quick=Edges(
        (0.0, 3.0),
        Setup(tuning=(100,), seeds=(200, 201), updates=100, states=8),
        Condition("edge", dimension=2),
    ),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    remarks=remarks,
    caption="True reward of every operator, mean over the final seeds, against the slope.",
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "edge", __doc__, None))

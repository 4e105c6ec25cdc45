"""When moving beats picking: every operator on one reference and one critic, at equal compute.

A contextual bandit with actions in [-1, 1]^d. The best action a*(s) has its coordinates in
[-0.5, 0.5]; the data's actions are a*(s) - shift u + 0.3 xi, where u is a vector of signs, fixed
for the seed: the shift is how far the data are from the best, in every coordinate. The reward is
R = 1 - mean_j (a_j - a*_j)^2 / (shift^2 + 0.3^2), observed with noise of 0.1, so that one sample
of an exact reference is worth 0 and the best action 1, whatever the dimension.

A flow reference and two critics (2 x 64) are trained on the data; every operator then acts with the
same agent, the same states and the same noise, with as many particles as its budget of passes
through a network pays for (a gradient counts as 2), and what counts is the true R. Varied, one at a
time: the dimension, the number of data (the critic's error), the shift (their quality and
coverage), the budget.

Each operator has the same number of tries, four, but for best-of-N, which has nothing to choose;
the best by the mean over the tuning seeds is fixed for each condition, and then evaluated on the
final seeds, which differ in the bandit, the data, the agent and the noise. Other budgets have the
settings of the main one.

What would refute that moving beats picking in high dimension: an operator, the best on the tuning
seeds, whose paired difference to best-of-N, at equal passes, has no 95 % interval above 0 at the
largest d. What would refute that best-of-N fails exponentially: samples needed for R = 0.5 that do
not grow by a factor for each dimension that is added.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from vgf import Budget, Network, Settings, get_backend, method_settings
from vgf.spec.operators import BPTT, QFQL, QGF, BestOfN, Flow, Gradient, Langevin, Operator
from vgf.spec.types import Array

from .experiment import Data, Experiment, Verdict, estimate, main, show
from .figures import PAGE, figure, letter, line
from .pages import Table

STATE_DIM, SPREAD, NOISE, BEST = 2, 0.3, 0.1, 0.5
PICKED = "best of N"


@dataclass(frozen=True)
class Condition:
    """A bandit and its data.

    Args:
        name: of the group it belongs to, and what it varies.
        dimension: d.
        data: rows.
        shift: of the data from the best action, in every coordinate.
    """

    name: str
    dimension: int = 8
    data: int = 20_000
    shift: float = 0.4


@dataclass(frozen=True)
class Setup:
    """The grid.

    Args:
        dimensions: d, the rest as in :class:`Condition`.
        sizes, shifts: other data and other shifts, at d = 8.
        passes: the budget of a decision, for all conditions.
        budgets: other budgets, at d = 8.
        tuning, seeds: seeds to choose settings by, and to report.
        updates: of the agent, on batches of 256.
        states: that every operator acts in.
    """

    dimensions: tuple[int, ...] = (2, 4, 8, 16, 32)
    sizes: tuple[int, ...] = (500,)
    shifts: tuple[float, ...] = (0.0, 0.7)
    passes: int = 704
    budgets: tuple[int, ...] = (44, 176, 2816)
    tuning: tuple[int, ...] = (100, 101)
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    updates: int = 2000
    states: int = 64

    def conditions(self) -> list[Condition]:
        """All of them, the dimensions first."""
        found = [Condition("dimension", d) for d in self.dimensions]
        found += [Condition("data", data=n) for n in self.sizes]
        return found + [Condition("shift", shift=shift) for shift in self.shifts]


def grids(d: int) -> dict[str, list[Operator]]:
    """The settings that each operator may choose from, by its name here.

    Gradients of R fall as 1 / d, and so the steps along them grow with it.
    """
    scales = [scale * d / 4 for scale in (0.1, 0.3, 1.0, 3.0)]
    steps = [(3, 0.03), (3, 0.1), (10, 0.03), (10, 0.1)]

    def flows(**own: Any) -> list[Operator]:
        return [
            Flow(budget=Budget(steps=n, step_size=size, **{"temperature": None, **own}))
            for n, size in steps
        ]

    return {
        PICKED: [BestOfN()],
        "VGF": flows(),
        "VGF, entropy": flows(temperature=0.1),
        "VGF, no kernel": flows(kernel=None),
        "gradient steps": [Gradient(steps=3, step_size=scale / 3) for scale in scales],
        "their sign": [Gradient(steps=n, step_size=size, sign=True) for n, size in steps],
        "Langevin": [Langevin(steps=3, step_size=c / 3, temperature=0.01 / d) for c in scales],
        "QFQL": [QFQL(weight=scale) for scale in scales],
        "QGF": [QGF(weight=scale) for scale in scales],
        "QGF, Jacobian": [QGF(weight=scale, jacobian=True) for scale in scales],
        "BPTT": [BPTT(weight=scale) for scale in scales],
    }


class Bandit:
    """A bandit and data of it, all a function of the seed."""

    def __init__(self, condition: Condition, seed: int) -> None:
        self.condition, d = condition, condition.dimension
        self.rng = np.random.default_rng([seed, d, condition.data, round(100 * condition.shift)])
        self.slopes = self.rng.standard_normal((STATE_DIM, d))
        self.signs = self.rng.choice([-1.0, 1.0], d)

    def best(self, s: Array) -> Array:
        """a*, ``[*, d]``."""
        return BEST * np.sin(s @ self.slopes)

    def reward(self, s: Array, a: Array) -> Array:
        """R, ``[*]``."""
        scale = self.condition.shift**2 + SPREAD**2
        return 1 - np.mean((a - self.best(s)) ** 2, axis=-1) / scale

    def batch(self) -> dict[str, Array]:
        """The data."""
        m, d = self.condition.data, self.condition.dimension
        s = self.rng.standard_normal((m, STATE_DIM))
        a = self.best(s) - self.condition.shift * self.signs
        a = np.clip(a + SPREAD * self.rng.standard_normal((m, d)), -1, 1)
        r = self.reward(s, a) + NOISE * self.rng.standard_normal(m)
        return {
            "observations": s,
            "actions": a,
            "rewards": r,
            "masks": np.zeros(m),
            "next_observations": s,
        }


def agent_settings() -> Settings:
    """Of every agent: the target is the reward, so that nothing depends on the method."""
    small = Network((64, 64), "swish")
    return method_settings(
        "td",
        critic=replace(small, layer_norm="before"),
        reference=small,
        particles=1,
        learning_rate=1e-3,
        target_ensemble="mean",
    )


def paid(operator: Operator, passes: int, settings: Settings) -> Operator:
    """An operator with as many particles as a number of passes pays for."""
    one = replace(operator, particles=1).total(settings).passes
    n = max(passes // (one + 1), 1)  # and one pass of the critic to choose by
    return replace(operator, particles=n)


class Trained:
    """An agent, and the states and noise that every operator gets."""

    def __init__(
        self,
        condition: Condition,
        seed: int,
        setup: Setup,
        kind: Callable[[Condition, int], Bandit] = Bandit,
    ) -> None:
        self.bandit, self.setup, self.settings = kind(condition, seed), setup, agent_settings()
        training = get_backend("jax", device="cpu", dtype="float32")
        data = self.bandit.batch()
        short = replace(self.settings, sampling_steps=1)  # no target needs a sample here
        rows = self.bandit.rng.integers(0, condition.data, (setup.updates, 256))
        state = training.init_state(seed, STATE_DIM, condition.dimension, short)
        state, _ = training.updates(state, training.asarray(data), rows, short)
        self.backend = get_backend("torch", device="cpu", dtype="float32")
        self.state = self.backend.asarray(training.to_numpy(state))
        self.s = self.bandit.rng.standard_normal((setup.states, STATE_DIM))
        self.seed = seed

    def value(self, operator: Operator) -> float:
        """The true reward of an operator's actions, averaged over states."""
        return float(self.bandit.reward(self.s, self.acts(operator)).mean())

    def acts(self, operator: Operator) -> Array:
        """An operator's actions in every state, ``[states, d]``."""
        s = self.s
        shape = (len(s), operator.rows(self.settings), self.bandit.condition.dimension)
        rng = np.random.default_rng([self.seed, 1])
        noise = {"select": rng.random(len(s)), "particles": rng.standard_normal(shape)}
        given = self.backend.asarray({"s": s, **noise})
        a, _ = self.backend.operate(self.state, given.pop("s"), operator, self.settings, given)
        actions: Array = self.backend.to_numpy(a)
        return actions

    def critic_error(self) -> float:
        """1 - R^2 of the critic on the reference's own samples, against the true reward."""
        noise = np.random.default_rng(self.seed).standard_normal(
            (len(self.s), 16, self.bandit.condition.dimension)
        )
        b, given = self.backend, self.backend.asarray({"s": self.s, "x": noise})
        a = b.sample_reference(self.state["reference"], given["s"], given["x"], self.settings)
        q = b.critic_values(self.state["critic"], given["s"], a, "swish")
        q = b.to_numpy(b.aggregate(q, "mean"))
        r = self.bandit.reward(self.s[:, None], b.to_numpy(a))
        return float(np.mean((q - r) ** 2) / r.var())


def samples_needed(d: int, level: float = 0.5, shift: float = 0.4) -> float:
    """Exact samples of the data's distribution for an even chance that one is worth a level.

    d sums of squares of N(shift, 0.3^2): a noncentral chi-square distribution, the box left out.
    """
    radius = (1 - level) * d * (shift**2 + SPREAD**2) / SPREAD**2
    p = scipy.stats.ncx2.cdf(radius, d, d * shift**2 / SPREAD**2)
    return float(math.log(0.5) / math.log1p(-p))


def measure(setup: Setup) -> Data:
    """Tune, fix, and evaluate, condition by condition."""
    rows: list[dict[str, Any]] = []
    for condition in setup.conditions():
        grid = grids(condition.dimension)
        tuning = [Trained(condition, seed, setup) for seed in setup.tuning]
        settings = agent_settings()
        tried = {
            name: [
                [one.value(paid(operator, setup.passes, settings)) for one in tuning]
                for operator in operators
            ]
            for name, operators in grid.items()
        }
        chosen = {name: int(np.argmax(np.mean(found, axis=1))) for name, found in tried.items()}
        agents = [Trained(condition, seed, setup) for seed in setup.seeds]
        errors = [one.critic_error() for one in agents]
        main_one = condition == Condition("dimension")
        for passes in (setup.passes, *(setup.budgets if main_one else ())):
            for name, operators in grid.items():
                operator = paid(operators[chosen[name]], passes, settings)
                rows.append(
                    {
                        "varied": condition.name if passes == setup.passes else "budget",
                        "dimension": condition.dimension,
                        "data": condition.data,
                        "shift": condition.shift,
                        "passes": passes,
                        "operator": name,
                        "settings": str(operator),
                        "particles": operator.particles,
                        "used": operator.total(settings).passes,
                        "tried": tried[name] if passes == setup.passes else [],
                        "reward": [one.value(operator) for one in agents],
                        "critic_error": errors,
                    }
                )
        print(f"{condition} done", file=sys.stderr, flush=True)
    needed = [[d, samples_needed(d)] for d in setup.dimensions]
    return {"rows": rows, "passes": setup.passes, "samples_needed": needed}


# --- reading the numbers -------------------------------------------------------------------------


def groups(data: Data) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The rows of each condition and budget: best-of-N's, and the others'."""
    keys = ("varied", "dimension", "data", "shift", "passes")
    for key in dict.fromkeys(tuple(row[k] for k in keys) for row in data["rows"]):
        rows = [row for row in data["rows"] if tuple(row[k] for k in keys) == key]
        yield (
            next(row for row in rows if row["operator"] == PICKED),
            [row for row in rows if row["operator"] != PICKED],
        )


def difference(row: dict[str, Any], picked: dict[str, Any]) -> dict[str, float]:
    """How much more true reward than best-of-N, paired over seeds."""
    return estimate(np.subtract(row["reward"], picked["reward"]))


def best_mover(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The operator that did best on the tuning seeds, so that the final ones judge one alone."""
    return max(rows, key=lambda row: max(np.mean(found) for found in row["tried"]))


def judge(data: Data) -> list[Verdict]:
    """Moving at the largest d, and the samples that picking needs."""
    swept = [(p, rows) for p, rows in groups(data) if p["varied"] == "dimension"]
    picked, rows = swept[-1]
    mover = best_mover(rows)
    gain = difference(mover, picked)
    needed = np.array(data["samples_needed"])
    factor = np.exp(np.diff(np.log(needed[:, 1])) / np.diff(needed[:, 0]))
    return [
        Verdict(
            f"at d = {picked['dimension']} moving beats best-of-N at equal compute",
            gain["low"] > 0,
            f"{mover['operator']}, the best on the tuning seeds, is worth {show(gain)} more than "
            f"the best of {picked['particles']}, of {picked['passes']} passes each",
        ),
        Verdict(
            "the samples that picking needs grow exponentially with d",
            bool(np.all(factor > 1)),
            "for an even chance of R = 0.5: "
            + ", ".join(f"{n:.3g} at d = {d:.0f}" for d, n in needed)
            + f"; a factor of {factor.min():.2f} to {factor.max():.2f} for each dimension",
        ),
    ]


def expected_best(tried: Sequence[Sequence[float]], k: int) -> float:
    """The expected best of k tries, drawn from the grid with replacement: its exact bootstrap."""
    scores = np.sort(np.mean(tried, axis=1))
    share = np.arange(len(scores) + 1) / len(scores)
    return float(scores @ np.diff(share**k))


def remarks(data: Data) -> list[str]:
    """Where moving wins and where it does not, one sentence for each condition."""
    found = []
    for picked, rows in groups(data):
        wins = [row for row in rows if difference(row, picked)["low"] > 0]
        losses = [row for row in rows if difference(row, picked)["high"] < 0]
        names = [", ".join(row["operator"] for row in part) or "none" for part in (wins, losses)]
        error = np.mean(picked["critic_error"])
        found.append(
            f"{label(picked)} (critic's error {100 * error:.0f} % of the variance): above "
            f"best-of-N are {names[0]}; below it {names[1]}."
        )
    found.append(
        "The intervals of these lists are not corrected for how many there are; the verdict looks "
        "at one operator, chosen on other seeds."
    )
    return found


def label(row: dict[str, Any]) -> str:
    """A condition in a few words."""
    of_data = f"{row['data']:,} data, shift {row['shift']}"
    return f"d = {row['dimension']}, {of_data}, {row['passes']} passes"


def tables(data: Data) -> list[Table]:
    """The reward of every operator in every condition, the differences, and the tuning."""
    found = list(groups(data))
    names = [PICKED, *(row["operator"] for row in found[0][1])]
    reward, gain, tuning = [], [], []
    for name in names:
        cells, more, tries = [name], [name], [name]
        for picked, rows in found:
            row = picked if name == PICKED else next(r for r in rows if r["operator"] == name)
            cells.append(f"{np.mean(row['reward']):.3f}")
            more.append("" if name == PICKED else show(difference(row, picked)))
            if picked["varied"] == "dimension":
                k = range(1, len(row["tried"]) + 1)
                tries.append(" / ".join(f"{expected_best(row['tried'], i):.2f}" for i in k))
        reward.append(cells)
        gain.append(more)
        tuning.append(tries)
    header = ("operator", *(label(picked) for picked, _ in found))
    swept = [label(picked) for picked, _ in found if picked["varied"] == "dimension"]
    return [
        Table("True reward, mean over the final seeds", header, reward),
        Table("More than best-of-N, paired over seeds, 95 % intervals", header, gain),
        Table(
            "Expected best of 1, 2, ... tries of the grid, on the tuning seeds",
            ("operator", *swept),
            tuning,
        ),
    ]


def draw(data: Data, stem: Path) -> None:
    """Reward against d, and against the budget at d = 8."""
    rows = list(groups(data))
    names = [PICKED, *(row["operator"] for row in rows[0][1])]
    with figure(stem, PAGE, 3.4) as drawing:
        left, right = drawing.subplots(1, 2, sharey=True)
        main_one = [p for p, _ in rows if p["varied"] == "dimension" and p["dimension"] == 8]
        for axes, kind, key in (
            (left, ("dimension",), "dimension"),
            (right, ("budget",), "passes"),
        ):
            chosen = [
                (p, r) for p, r in rows if p["varied"] in kind or (axes is right and p in main_one)
            ]
            chosen.sort(key=lambda pair: pair[0][key])
            for i, name in enumerate(names):
                y = [
                    np.mean(next(x for x in (p, *r) if x["operator"] == name)["reward"])
                    for p, r in chosen
                ]
                look = line(i) if i else {**line(0), "linewidth": 2.5}
                axes.plot(
                    [p[key] for p, _ in chosen], y, label=name if axes is left else None, **look
                )
            axes.set_xscale("log", base=2)
        left.set_xlabel("dimension of the action, d")
        left.set_ylabel("true reward\n(0: one sample, 1: the best action)")
        right.set_xlabel("passes through a network for a decision")
        letter(left, "a", f"{data['passes']} passes")
        letter(right, "b", "d = 8")
        drawing.legend(loc="outside upper center", ncols=4)


EXPERIMENT = Experiment(
    name="regimes",
    title="When moving beats picking",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(
        dimensions=(2, 8),
        sizes=(),
        shifts=(),
        budgets=(),
        tuning=(100,),
        seeds=(200, 201),
        updates=300,
        states=32,
    ),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    remarks=remarks,
    caption=(
        "True reward of every operator with one reference and one critic, mean over the final "
        "seeds. (a) Against the dimension of the action, at equal compute. (b) Against the "
        "compute of a decision."
    ),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "regimes", __doc__, None))

"""At L = 0 the flow is best-of-N, bit by bit, on every installed backend.

Agents with random networks act at L = 0. Best-of-N is computed separately, without the flow: the
reference is sampled, the critics value the samples, NumPy takes the best one. Both get the same
noise; actions are compared by their bits, with the plain flow and with Adam, VGF and A-VGF, in
float32 and float64. One bit of one action would refute the claim. L = 1 shows that the comparison
can see a difference: most actions must not be best-of-N's (at the edge of the box some stay where
they are).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vgf import Budget, Network, Settings, get_backend
from vgf.backends import DTYPES, available_backends
from vgf.backends.base import Backend
from vgf.spec.types import Array

from ..experiment import Data, Experiment, Verdict
from ..figures import COLUMN, figure, line
from ..pages import Table

STATE_DIM, ACTION_DIM = 3, 2
OPTIMISERS = ("plain", "adam")
METHODS = {"vgf": "VGF", "avgf": "A-VGF"}


@dataclass(frozen=True)
class Setup:
    """What is compared.

    Args:
        seeds: agents, and the noise they act on.
        states: for each agent.
        particles: N.
        backends: names; none is all installed ones.
    """

    seeds: int = 10
    states: int = 64
    particles: tuple[int, ...] = (1, 16)
    backends: tuple[str, ...] | None = None


def settings(method: str) -> Settings:
    """A small agent of either form."""
    small = Network(hidden=(32, 32))
    normed = replace(small, layer_norm=True)
    networks: Any = {"critic": normed, "reference": small, "gradient_field": normed}
    return Settings(method=method, sampling_steps=4, **networks)


def best_of_n(backend: Backend, state: Any, s: Array, noise: Any, settings: Settings) -> Array:
    """Sample, value, take the best: no flow involved. ``[B, d]``"""
    observations = backend.asarray(s)
    samples = backend.sample_reference(state["reference"], observations, noise, settings)
    activation = settings.critic.activation
    values = backend.critic_values(state["critic"], observations, samples, activation)
    q = backend.to_numpy(backend.aggregate(values, settings.target_ensemble))
    a = backend.to_numpy(samples)
    return a[np.arange(len(a)), np.argmax(q, axis=1)]


def same(a: Array, b: Array) -> int:
    """How many actions agree in every bit."""
    assert a.dtype == b.dtype
    return sum(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def compare(backend: Backend, setup: Setup) -> list[dict[str, Any]]:
    """Rows of one backend: actions that agree at L = 0 and at L = 1."""
    rows = []
    for method, n in itertools.product(METHODS, setup.particles):
        agent = settings(method)
        agree = {(optimiser, steps): 0 for optimiser in OPTIMISERS for steps in (0, 1)}
        for seed in range(setup.seeds):
            rng = np.random.default_rng(seed)
            state = backend.init_state(seed, STATE_DIM, ACTION_DIM, agent)
            s = rng.standard_normal((setup.states, STATE_DIM))
            noise = backend.asarray(
                {
                    "particles": rng.standard_normal((setup.states, n, ACTION_DIM)),
                    "select": rng.random(setup.states),
                }
            )
            expected = best_of_n(backend, state, s, noise["particles"], agent)
            for optimiser, steps in agree:
                budget = Budget(steps=steps, optimiser=optimiser)
                actions, _ = backend.act(state, backend.asarray(s), budget, agent, n, noise)
                agree[optimiser, steps] += same(backend.to_numpy(actions), expected)
        rows += [
            {
                "backend": backend.name,
                "dtype": backend.dtype,
                "method": METHODS[method],
                "particles": n,
                "optimiser": optimiser,
                "actions": setup.seeds * setup.states,
                "same": agree[optimiser, 0],
                "same_one_step": agree[optimiser, 1],
            }
            for optimiser in OPTIMISERS
        ]
    return rows


def measure(setup: Setup) -> Data:
    """The rows of every backend and dtype."""
    names = setup.backends or available_backends()
    chosen = [get_backend(name, device="cpu", dtype=dtype) for name in names for dtype in DTYPES]
    return {"rows": [row for backend in chosen for row in compare(backend, setup)]}


def judge(data: Data) -> list[Verdict]:
    """All the same at L = 0; at L = 1 they need not be."""
    rows = data["rows"]
    total, agree = sum(row["actions"] for row in rows), sum(row["same"] for row in rows)
    moved = sum(row["same_one_step"] for row in rows)
    on = ", ".join(dict.fromkeys(row["backend"] for row in rows))
    return [
        Verdict(
            "at L = 0 the actions are best-of-N's, bit by bit",
            agree == total,
            f"{agree:,} of {total:,} actions on {on}",
        ),
        Verdict(
            "one step of the flow changes most actions, so the comparison can fail",
            moved < total / 2,
            f"at L = 1, {moved:,} of {total:,} actions are best-of-N's",
        ),
    ]


def tables(data: Data) -> list[Table]:
    """Every comparison, the optimisers and N together."""
    header = ("backend", "dtype", "method", "actions", "the same at L = 0", "at L = 1")
    keys = dict.fromkeys((r["backend"], r["dtype"], r["method"]) for r in data["rows"])
    cells = []
    for key in keys:
        rows = [r for r in data["rows"] if (r["backend"], r["dtype"], r["method"]) == key]
        sums = [sum(row[name] for row in rows) for name in ("actions", "same", "same_one_step")]
        cells.append([*key, *(f"{number:,}" for number in sums)])
    return [Table("Actions that agree with best-of-N in every bit", header, cells)]


def draw(data: Data, stem: Path) -> None:
    """The share of actions that are best-of-N's, at L = 0 and L = 1."""
    keys = list(dict.fromkeys((row["backend"], row["dtype"]) for row in data["rows"]))
    with figure(stem, COLUMN, 2.2) as drawing:
        axes = drawing.subplots()
        for i, (name, label) in enumerate((("same", "L = 0"), ("same_one_step", "L = 1"))):
            share = []
            for key in keys:
                rows = [r for r in data["rows"] if (r["backend"], r["dtype"]) == key]
                total = sum(row["actions"] for row in rows)
                share.append(100 * sum(row[name] for row in rows) / total)
            look = line(2 * i, linestyle="")
            axes.plot(share, range(len(keys)), label=label, **look)
        axes.set_yticks(range(len(keys)), [" ".join(key) for key in keys])
        axes.invert_yaxis()
        axes.set_xlim(-4, 104)
        axes.set_xlabel("actions equal to best-of-N's, bit by bit (%)")
        drawing.legend(loc="outside upper center", ncols=2)


BEST_OF_N = Experiment(
    name="best-of-n",
    title="L = 0 is best-of-N, bit by bit",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(seeds=2, states=16, particles=(8,)),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    caption=(
        "The share of actions that equal best-of-N's in every bit, at L = 0 and, for comparison, "
        "after one step of the flow, on every backend and in both precisions."
    ),
)

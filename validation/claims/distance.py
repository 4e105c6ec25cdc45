"""W2 and the displacement grow with the budget and stay under their bounds.

Particles start in a corner and climb a mixture's log-density, its gradient clipped to length c,
with a fixed bandwidth: by plain steps and by Adam, for a grid of L and epsilon. The bounds are
`displacement_bound` (plain) and `adam_displacement_bound`, which bounds each coordinate and so
sqrt(d) times itself the length. W2 is exact. What would refute the claims: a particle beyond its
bound, or a larger budget, in L or in epsilon, for which the distances do not grow in the mean over
the seeds (the 95 % interval of the paired differences is not above 0).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf import Budget, spec
from vgf.spec.types import Array

from ..experiment import Data, Experiment, Verdict, estimate, show
from ..figures import PAGE, band, figure, letter, line
from ..pages import Table
from ..problems import Mixture, clipped

ROUNDING = 1e-9
OPTIMISERS = ("plain", "adam")
DISTANCES = ("w2", "displacement")
TARGET = Mixture([[0.4, 0.7], [0.8, 0.2]], [0.5, 0.5], 0.3)
START, START_STD = (-0.7, -0.7), 0.15

Transport = Callable[..., Array]


@dataclass(frozen=True)
class Setup:
    """The grid.

    Args:
        seeds: sets of particles.
        particles: N.
        steps: L, 0 first.
        step_sizes: epsilon.
        temperature: alpha.
        bandwidth: sigma.
        score_bound: c.
    """

    seeds: int = 20
    particles: int = 32
    steps: tuple[int, ...] = (0, 1, 2, 3, 5, 10, 20)
    step_sizes: tuple[float, ...] = (0.0025, 0.01, 0.04)
    temperature: float = 0.5
    bandwidth: float = 0.5
    score_bound: float = 1.0


def bound(optimiser: str, steps: int, step_size: float, setup: Setup) -> float:
    """The bound on the length that a particle moves in the plane."""
    if optimiser == "adam":
        return math.sqrt(2) * spec.adam_displacement_bound(steps, step_size)
    c, alpha, sigma = setup.score_bound, setup.temperature, setup.bandwidth
    return spec.displacement_bound(steps, step_size, c, alpha, sigma)


def measure(setup: Setup, transport: Transport = spec.transport) -> Data:
    """For every budget and seed: W2, the mean displacement and the largest."""
    shape = (setup.seeds, setup.particles, 2)
    start = np.array(START) + START_STD * np.random.default_rng(0).standard_normal(shape)
    cases = []
    for optimiser in OPTIMISERS:
        for step_size in setup.step_sizes:
            budget = Budget(
                steps=max(setup.steps),
                step_size=step_size,
                temperature=setup.temperature,
                bandwidth=setup.bandwidth,
                optimiser=optimiser,
                low=None,
                high=None,
            )
            score = clipped(TARGET.score, setup.score_bound)
            path = transport(score, start, budget, trajectory=True)
            for steps in setup.steps:
                moved = np.linalg.norm(path[steps] - start, axis=-1)
                cases.append(
                    {
                        "optimiser": optimiser,
                        "step_size": step_size,
                        "steps": steps,
                        "bound": bound(optimiser, steps, step_size, setup),
                        "w2": [
                            spec.wasserstein2(x, y) for x, y in zip(start, path[steps], strict=True)
                        ],
                        "displacement": moved.mean(-1),
                        "furthest": moved.max(),
                    }
                )
    return {"cases": cases}


def closest(data: Data, optimiser: str) -> float:
    """The largest ratio of a particle's displacement to its bound."""
    return max(
        case["furthest"] / case["bound"]
        for case in data["cases"]
        if case["optimiser"] == optimiser and case["steps"]
    )


def differences(data: Data, key: str, other: str) -> list[dict[str, float]]:
    """For neighbouring budgets that differ in `key` alone: how much each distance grows."""
    found = []
    for optimiser in OPTIMISERS:
        cases = [case for case in data["cases"] if case["optimiser"] == optimiser]
        for value in dict.fromkeys(
            case[other] for case in cases if case["steps"] or key == "steps"
        ):
            row = sorted((c for c in cases if c[other] == value), key=lambda case: case[key])
            for less, more in itertools.pairwise(row):
                found += [estimate(np.subtract(more[d], less[d])) for d in DISTANCES]
    return found


def judge(data: Data) -> list[Verdict]:
    """Under the bounds, and growing."""
    steps, sizes = differences(data, "steps", "step_size"), differences(data, "step_size", "steps")
    over = 1 + ROUNDING + 1e-5  # rounding to the record's six digits
    return [
        *(
            Verdict(
                f"no particle passes its bound, {name} steps",
                closest(data, optimiser) <= over,
                f"furthest displacement / bound {closest(data, optimiser):.3f}",
            )
            for optimiser, name in (("plain", "plain"), ("adam", "Adam"))
        ),
        *(
            Verdict(
                f"W2 and the displacement grow with {name}",
                all(growth["low"] > 0 for growth in found),
                f"{sum(g['low'] > 0 for g in found)} of {len(found)} neighbouring budgets grow; "
                f"the least by {min(g['mean'] for g in found):.2g}",
            )
            for name, found in (("L", steps), ("epsilon", sizes))
        ),
    ]


def tables(data: Data) -> list[Table]:
    """Distances and bounds."""
    rows = [
        [
            c["optimiser"],
            f"{c['step_size']:g}",
            str(c["steps"]),
            show(estimate(c["w2"])),
            show(estimate(c["displacement"])),
            f"{c['furthest']:.3g}",
            f"{c['bound']:.3g}",
        ]
        for c in data["cases"]
        if c["steps"]
    ]
    header = ("steps", "epsilon", "L", "W2 (95 %)", "mean displacement (95 %)", "furthest", "bound")
    return [Table("Distances in units of the action, over the seeds", header, rows)]


def draw(data: Data, stem: Path) -> None:
    """W2 and its bound against L, for every epsilon; a panel for each optimiser."""
    with figure(stem, PAGE, 2.9) as drawing:
        panels = drawing.subplots(1, 2, sharey=True)
        for axes, optimiser, name in zip(panels, OPTIMISERS, "ab", strict=True):
            cases = [c for c in data["cases"] if c["optimiser"] == optimiser and c["steps"]]
            for i, size in enumerate(dict.fromkeys(case["step_size"] for case in cases)):
                curve = [case for case in cases if case["step_size"] == size]
                plot(axes, curve, i, rf"$\epsilon$ = {size:g}")
            axes.set_xscale("log")
            axes.set_yscale("log")
            ticks = [case["steps"] for case in curve]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel("flow steps L")
            letter(axes, name, "plain steps" if optimiser == "plain" else "Adam")
        panels[0].set_ylabel("distance (units of the action)")
        panels[0].plot([], [], color="#777777", linestyle=":", label="bounds, same order and shade")
        handles, labels = panels[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=4)


def plot(axes: Any, curve: list[dict[str, Any]], i: int, label: str) -> None:
    """One epsilon: W2 with its interval, and the bound."""
    steps = [case["steps"] for case in curve]
    found = [estimate(case["w2"]) for case in curve]
    look = line(i)
    axes.plot(steps, [f["mean"] for f in found], label=f"W2, {label}", **look)
    band(axes, steps, [f["low"] for f in found], [f["high"] for f in found], i)
    axes.plot(steps, [case["bound"] for case in curve], color=look["color"], linestyle=":")


DISTANCE = Experiment(
    name="distance",
    title="W2 and displacement grow with the budget, under their bounds",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(seeds=5, particles=12, steps=(0, 1, 3, 10), step_sizes=(0.01, 0.05)),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    caption=(
        "W2 between the reference and the transported particles against the number of steps, mean "
        "and 95 % interval over the seeds (narrower than the markers); dotted, the bound on the "
        "displacement, which bounds W2. (a) Plain steps, with a fixed bandwidth. (b) Adam, whose "
        "bound lies on the curves: every step is close to the longest it can be."
    ),
)

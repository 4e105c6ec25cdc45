"""MMD^2 between the reference and the transported particles stays under its bound; how tightly?

Plain steps, a fixed bandwidth and scores clipped to length c, as the bound requires, over a grid of
budgets (L, epsilon, alpha), on three landscapes: the gradient of a mixture's log-density, smooth
random waves, and a slope of constant length, which moves particles furthest. Every number of
particles has its own start for every seed. One transport over the bound, by more than rounding,
would refute the claim.

Beside the paper's bound there is the sharp one, `vgf.spec.mmd_squared_sharp_bound`: no flow of the
same displacement can reach further, and one particle on a slope does reach it.
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
from vgf.spec.types import Array, VectorField

from ..experiment import Data, Experiment, Verdict
from ..figures import COLOURS, MARKERS, PAGE, figure, letter, line
from ..pages import Table
from ..problems import clipped, ring, slope, waves

ROUNDING = 1e-9
# What (1 - exp(-u^2 / 2)) sqrt(e) / u, the sharp bound over the paper's, is at most.
TIGHTEST = 0.744

Transport = Callable[..., Array]


@dataclass(frozen=True)
class Setup:
    """The grid.

    Args:
        seeds: sets of particles at each point of the grid.
        steps: L.
        step_sizes: epsilon.
        temperatures: alpha, or None without the entropy term.
        bandwidths: sigma, in units of the action.
        particles: N.
        score_bound: c.
    """

    seeds: int = 20
    steps: tuple[int, ...] = (1, 2, 3, 5, 10, 20)
    step_sizes: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    temperatures: tuple[float | None, ...] = (0.1, 0.5, None)
    bandwidths: tuple[float, ...] = (0.25, 0.5)
    particles: tuple[int, ...] = (1, 10)
    score_bound: float = 1.0


LANDSCAPES = ("mixture", "waves", "slope")


def landscape(name: str, setup: Setup) -> VectorField:
    """A score of one of the three kinds, for ``[seeds, N, 2]``."""
    c = setup.score_bound
    if name == "mixture":
        return clipped(ring(3, 0.5, 0.25).score, c)
    if name == "waves":
        return waves(np.random.default_rng(1), setup.seeds, 2, c)
    return slope(c)


def measure(setup: Setup, transport: Transport = spec.transport) -> Data:
    """For every budget the bounds, and the mean and the largest MMD^2 over the seeds."""
    rows = []
    grid = itertools.product(
        LANDSCAPES, setup.particles, setup.bandwidths, setup.temperatures, setup.step_sizes
    )
    for name, n, sigma, alpha, step_size in grid:
        budget = Budget(
            steps=max(setup.steps),
            step_size=step_size,
            temperature=alpha,
            bandwidth=sigma,
            optimiser="plain",
            low=None,
            high=None,
        )
        start = 0.5 * np.random.default_rng(0).standard_normal((setup.seeds, n, 2))
        path = transport(landscape(name, setup), start, budget, trajectory=True)
        for steps in setup.steps:
            found = spec.mmd_squared(start, path[steps], np.full(setup.seeds, sigma**2))
            bounds = (steps, step_size, setup.score_bound, alpha, sigma)
            rows.append(
                {
                    "landscape": name,
                    "particles": n,
                    "sigma": sigma,
                    "temperature": alpha,
                    "step_size": step_size,
                    "steps": steps,
                    "reach": spec.displacement_bound(*bounds) / sigma,
                    "bound": spec.mmd_squared_bound(*bounds),
                    "sharp": spec.mmd_squared_sharp_bound(*bounds),
                    "mean": found.mean(),
                    "largest": found.max(),
                }
            )
    return {
        "columns": list(rows[0]),
        "rows": [list(row.values()) for row in rows],
        "transports": len(rows) * setup.seeds,
    }


def read(data: Data) -> list[dict[str, Any]]:
    """The rows by the names of their columns."""
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


def ratios(rows: list[dict[str, Any]], bound: str = "bound") -> Array:
    """The largest MMD^2 of each row over a bound."""
    return np.array([row["largest"] / row[bound] for row in rows])


def judge(data: Data) -> list[Verdict]:
    """Both bounds hold, and the paper's is not vacuous."""
    rows = read(data)
    paper, sharp = ratios(rows), ratios(rows, "sharp")
    count = f"of {data['transports']:,} transports over {len(rows)} budgets"
    return [
        Verdict(
            "MMD^2 stays under the paper's bound",
            bool(paper.max() <= 1 + ROUNDING),
            f"largest MMD^2 / bound {paper.max():.3f} {count}",
        ),
        Verdict(
            "MMD^2 stays under the sharp bound",
            bool(sharp.max() <= 1 + 1e-5),
            f"largest MMD^2 / sharp bound {sharp.max():.5f}",
        ),
        Verdict(
            "the paper's bound is tight to within a factor of two where particles move furthest",
            bool(0.5 <= paper.max() <= 1 + ROUNDING),
            f"{paper.max():.3f} on a slope; no flow can pass {TIGHTEST}",
        ),
    ]


def remarks(data: Data) -> list[str]:
    """How loose the bound is elsewhere."""
    rows = [row for row in read(data) if row["bound"] < 2]
    small = [row for row in rows if row["reach"] < 0.3]
    share = 100 * len(rows) / len(data["rows"])
    return [
        f"MMD^2 cannot exceed 2; the bound says more than that at {share:.0f} % of these budgets. "
        f"There the median of MMD^2 / bound is {np.median(ratios(rows)):.3f}.",
        "MMD^2 grows with the square of a small budget and the bound with the budget itself, so "
        "that the bound is loosest for small ones: where particles can move no further than "
        f"0.3 sigma the median ratio is {np.median(ratios(small)):.3f}.",
    ]


def tables(data: Data) -> list[Table]:
    """The ratio by landscape and number of steps."""
    rows = read(data)
    cells = []
    for name in LANDSCAPES:
        for steps in dict.fromkeys(row["steps"] for row in rows):
            here = [r for r in rows if r["landscape"] == name and r["steps"] == steps]
            share = ratios(here)
            cells.append(
                [
                    name,
                    str(steps),
                    str(len(here)),
                    f"{np.median(share):.4f}",
                    f"{share.max():.4f}",
                    f"{ratios(here, 'sharp').max():.4f}",
                ]
            )
    header = ("landscape", "L", "budgets", "median ratio", "largest ratio", "largest, sharp bound")
    return [Table("MMD^2 over its bound, the largest of the seeds", header, cells)]


def draw(data: Data, stem: Path) -> None:
    """MMD^2 and the ratio against the reach of the budget."""
    rows = read(data)
    reach = np.geomspace(min(r["reach"] for r in rows), max(r["reach"] for r in rows), 200)
    paper = 2 * reach / math.sqrt(math.e)
    sharp = 2 * -np.expm1(-(reach**2) / 2)
    with figure(stem, PAGE, 2.9) as drawing:
        left, right = drawing.subplots(1, 2)
        for axes, scale in ((left, np.ones_like(reach)), (right, paper)):
            axes.plot(reach, paper / scale, color=COLOURS[0], label="the paper's bound")
            axes.plot(reach, sharp / scale, **line(1, marker="", label="sharp bound"))
            axes.plot(
                reach,
                2 / scale,
                color="#777777",
                linestyle=":",
                label=r"2, the most MMD$^2$ can be",
            )
            for i, name in enumerate(LANDSCAPES, 2):
                points = [row for row in rows if row["landscape"] == name]
                y = np.array([row["largest"] for row in points])
                y = y / [row["bound"] for row in points] if axes is right else y
                axes.plot(
                    [row["reach"] for row in points],
                    y,
                    MARKERS[i],
                    color=COLOURS[i],
                    markersize=2.5,
                    markerfacecolor="none" if i % 2 else COLOURS[i],
                    markeredgewidth=0.6,
                    label=f"measured: {name}",
                    alpha=0.7,
                )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel(r"furthest a particle can move, in $\sigma$")
        left.set_ylabel(r"MMD$^2$")
        left.set_ylim(1e-5, 30)
        right.set_ylabel(r"MMD$^2$ / the paper's bound")
        right.set_ylim(1e-4, 3)
        letter(left, "a")
        letter(right, "b")
        handles, labels = left.get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=3)


MMD_BOUND = Experiment(
    name="mmd-bound",
    title="MMD^2 stays under its bound",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(seeds=5, steps=(1, 3, 10), step_sizes=(0.03, 0.3), particles=(1, 5)),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    remarks=remarks,
    caption=(
        "(a) MMD^2 between the reference and the transported particles, the largest of the seeds "
        "at each budget, against the furthest that the budget lets a particle move, "
        "epsilon L (c / alpha + 1 / (sigma sqrt(e))), in units of sigma. (b) The same over the "
        "paper's bound: at most 0.744, and falling with the budget."
    ),
)

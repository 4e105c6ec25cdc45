"""The flow leaves the reference's support; best-of-N and weighted behaviour cloning cannot.

The reference is uniform on a disc, the value -||a - peak||^2 has its peak outside. Best-of-N takes
the sample of the highest value; weighted behaviour cloning draws one with probability proportional
to exp(Q / alpha), which is the reference reweighted (a sample of it, for a large set of
candidates); the flow moves its particles, then takes the best. What is counted is the selected
actions outside the disc, and those outside by more than a margin. What would refute the claims: one
action of best-of-N or of weighted behaviour cloning that is not, bit by bit, one of the samples; or
a flow that leaves the disc by more than the margin in less than half of the draws at its largest
budget.

A parametric policy fitted by weighted regression may leave the support through the error of its
fit; that is not tested here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf import Budget, spec
from vgf.spec.types import Array

from ..experiment import Data, Experiment, Verdict, estimate, percent, show
from ..figures import COLOURS, PAGE, band, figure, letter, line
from ..pages import Table

CENTRE, RADIUS = np.array([-0.3, 0.0]), 0.4
PEAK = np.array([0.5, 0.3])
SHOWN = 30  # actions of each method in the figure
INSIDE = 1e-12  # rounding of the distance to the disc

Transport = Callable[..., Array]
Select = Callable[..., tuple[Array, Array]]


@dataclass(frozen=True)
class Setup:
    """The three methods' budgets.

    Args:
        seeds: repetitions.
        draws: actions drawn for each seed.
        candidates: N of best-of-N.
        temperatures: alpha of weighted behaviour cloning, among the largest N.
        steps: L of the flow.
        step_size: epsilon of the flow, by Adam.
        temperature: alpha of the flow.
        particles: N of the flow.
        margin: beyond the disc, in units of the action.
    """

    seeds: int = 20
    draws: int = 100
    candidates: tuple[int, ...] = (1, 4, 16, 64, 256)
    temperatures: tuple[float, ...] = (1.0, 0.1, 0.01)
    steps: tuple[int, ...] = (0, 1, 2, 3, 5, 10)
    step_size: float = 0.05
    temperature: float = 0.1
    particles: int = 16
    margin: float = 0.1


def value(a: Array) -> Array:
    """Q(a), ``[*, d]`` -> ``[*]``."""
    return -np.sum((a - PEAK) ** 2, axis=-1)


def outside(a: Array) -> Array:
    """The distance from the disc, ``[*, d]`` -> ``[*]``; 0 within it."""
    return np.maximum(np.linalg.norm(a - CENTRE, axis=-1) - RADIUS, 0.0)


def reference(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform on the disc, ``[*shape, 2]``."""
    radius, angle = RADIUS * np.sqrt(rng.random(shape)), 2 * np.pi * rng.random(shape)
    return CENTRE + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def summary(method: str, setting: Any, a: Array, samples: Array, margin: float) -> dict[str, Any]:
    """What became of the selected actions ``[S, draws, 2]``."""
    away = outside(a)
    return {
        "method": method,
        "setting": setting,
        "outside": (away > INSIDE).mean(-1),
        "far": (away > margin).mean(-1),
        "value": value(a).mean(-1),
        "samples": int(np.any(np.all(samples == a[..., None, :], axis=-1), axis=-1).sum()),
        "actions": a[..., 0].size,
    }


def measure(
    setup: Setup, transport: Transport = spec.transport, select: Select = spec.select
) -> Data:
    """For each method and setting, the share of actions outside, seed by seed."""
    rng = np.random.default_rng(0)
    shape = (setup.seeds, setup.draws)
    rows, shown = [], {}
    samples = reference(rng, (*shape, max(setup.candidates)))
    u = rng.random(shape)
    for n in setup.candidates:
        some = samples[..., :n, :]
        a, _ = select(some, value(some), u)
        rows.append(summary("best-of-N", n, a, some, setup.margin))
    shown["best-of-N"] = a[0]
    for alpha in setup.temperatures:
        a, _ = select(samples, value(samples), u, "softmax", alpha)
        rows.append(summary("weighted BC", alpha, a, samples, setup.margin))
        shown[f"weighted BC, alpha = {alpha:g}"] = a[0]
    start = samples[..., : setup.particles, :]
    for steps in setup.steps:
        budget = Budget(steps=steps, step_size=setup.step_size, temperature=setup.temperature)
        moved = transport(lambda a: 2 * (PEAK - a), start, budget)
        a, _ = select(moved, value(moved), u)
        rows.append(summary("flow", steps, a, start, setup.margin))
        shown[f"flow, L = {steps}"] = a[0]
    return {
        "rows": rows,
        "margin": setup.margin,
        "shown": {**shown, "reference": start[0, :20].reshape(-1, 2)},
    }


def judge(data: Data) -> list[Verdict]:
    """Within the support exactly, and outside it by a margin."""
    verdicts = []
    for method in ("best-of-N", "weighted BC"):
        rows = [row for row in data["rows"] if row["method"] == method]
        actions, among = sum(r["actions"] for r in rows), sum(r["samples"] for r in rows)
        out = max(max(row["outside"]) for row in rows)
        verdicts.append(
            Verdict(
                f"{method} stays in the reference's support",
                among == actions and out == 0,
                f"{among:,} of {actions:,} actions are samples of the reference, bit by bit; "
                f"{100 * out:g} % outside",
            )
        )
    flow = [row for row in data["rows"] if row["method"] == "flow"]
    last = estimate(flow[-1]["far"])
    return [
        *verdicts,
        Verdict(
            "the flow leaves the reference's support",
            last["low"] > 0.5 and max(flow[0]["outside"]) == 0,
            f"outside by more than {data['margin']:g}: {percent(last)} of the actions at L = "
            f"{flow[-1]['setting']}; none outside at L = {flow[0]['setting']}",
        ),
    ]


def tables(data: Data) -> list[Table]:
    """All methods and settings."""
    symbol = {"best-of-N": "N", "weighted BC": "alpha", "flow": "L"}
    rows = [
        [
            row["method"],
            f"{symbol[row['method']]} = {row['setting']:g}",
            *(percent(estimate(row[key])) for key in ("outside", "far")),
            show(estimate(row["value"])),
        ]
        for row in data["rows"]
    ]
    header = ("method", "setting", "share outside", f"outside by > {data['margin']:g}", "value")
    return [Table("Selected actions, mean and 95 % interval over the seeds", header, rows)]


def draw(data: Data, stem: Path) -> None:
    """Where the actions are, and the share outside against the budget."""
    with figure(stem, PAGE, 2.9) as drawing:
        left, right = drawing.subplots(1, 2)
        angle = np.linspace(0, 2 * np.pi, 200)
        disc = CENTRE + RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        left.fill(*disc.T, color="#e4e4e4", label="support of the reference")
        left.plot(*np.array(data["shown"]["reference"]).T, ".", color="#a0a0a0", markersize=2)
        last = [name for name in data["shown"] if name.startswith("flow")][-1]
        weighted = [name for name in data["shown"] if name.startswith("weighted")]
        for i, name in ((0, last), (2, weighted[len(weighted) // 2]), (1, "best-of-N")):
            points = np.array(data["shown"][name])[:SHOWN]
            label = name.replace("alpha", r"$\alpha$")
            left.plot(*points.T, label=label, **line(i, linestyle="", markersize=3.5))
        left.plot(*PEAK, "*", color=COLOURS[2], markersize=9, label="peak of the value")
        left.set_aspect("equal")
        left.set_xlabel("action, first coordinate")
        left.set_ylabel("second coordinate")
        letter(left, "a")
        flow = [row for row in data["rows"] if row["method"] == "flow"]
        steps = [row["setting"] for row in flow]
        names = {"outside": "flow, outside", "far": f"flow, by more than {data['margin']:g}"}
        for i, (key, name) in enumerate(names.items()):
            found = [estimate(row[key]) for row in flow]
            right.plot(steps, [100 * f["mean"] for f in found], label=name, **line(i))
            low, high = ([100 * f[end] for f in found] for end in ("low", "high"))
            band(right, steps, low, high, i)
        within = [r for r in data["rows"] if r["method"] != "flow"]
        worst = 100 * max(max(row["outside"]) for row in within)
        right.axhline(worst, color="#555555", linestyle=":", label="best-of-N, weighted BC")
        right.set_xlabel("flow steps L")
        right.set_ylabel("actions outside the support (%)")
        right.set_ylim(-4, 104)
        right.legend(loc="lower right", bbox_to_anchor=(1, 0.06))
        letter(right, "b")
        handles, labels = left.get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=3)


SUPPORT = Experiment(
    name="support",
    title="The flow leaves the reference's support",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(seeds=5, draws=20, candidates=(4, 64), temperatures=(0.1,), steps=(0, 3, 10)),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    caption=(
        "(a) Selected actions of one seed: those of best-of-N (the largest N) and of weighted "
        "behaviour cloning are samples of the reference (grey), those of the "
        "flow are not. (b) The share of actions outside the support, mean and 95 % interval over "
        "the seeds; dotted, the largest share at any setting of the other two."
    ),
)

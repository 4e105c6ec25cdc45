"""Several modes survive with repulsion and collapse without it.

The target is a ring of four equal Gaussians. Particles start as a narrow cloud, either beside one
mode or in the middle, and take the same number of plain steps along the same score, through the
kernel with the median bandwidth, once with the repulsion and once without. A mode is held when at
least half of its share of the particles lies within 2.5 standard deviations of it. The width of a
mode is the standard deviation of the particles nearest to it, over the target's.

What would refute the claims: with repulsion, less than 90 % of the modes held or modes less than
half as wide as the target's; without it, more than one mode held in the mean from beside one, or
modes wider than a quarter of the target's (95 % intervals over the seeds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf import Budget, spec
from vgf.spec.types import Array

from ..experiment import Data, Experiment, Verdict, estimate, show
from ..figures import COLOURS, PAGE, figure, letter
from ..pages import Table
from ..problems import Mixture, ring

MODES_IN_TARGET = 4
STARTS = {"beside one mode": (0.3, 0.3), "in the middle": (0.0, 0.0)}
WITH, WITHOUT = "with repulsion", "without repulsion"
NEAR = 2.5  # standard deviations

Transport = Callable[..., Array]


@dataclass(frozen=True)
class Setup:
    """The two flows.

    Args:
        seeds: clouds of particles.
        particles: N.
        steps: L.
        step_size: epsilon.
        temperature: alpha; the value is alpha times the target's log-density.
        radius, std: of the ring and of its Gaussians.
        start_std: of the cloud.
    """

    seeds: int = 20
    particles: int = 40
    steps: int = 200
    step_size: float = 0.05
    temperature: float = 0.5
    radius: float = 0.55
    std: float = 0.25
    start_std: float = 0.15


def held(a: Array, target: Mixture) -> tuple[Array, Array]:
    """Modes held, and the mean width of a mode: ``[S, N, 2]`` -> ``[S]``, ``[S]``."""
    away = np.linalg.norm(a[..., None, :] - np.asarray(target.means), axis=-1)
    nearest = np.argmin(away, axis=-1)
    is_of = nearest[..., None] == np.arange(len(target.means))  # [S, N, modes]
    count = is_of.sum(-2)
    near = is_of & (away < NEAR * target.std)
    enough = near.mean(-2) >= np.asarray(target.weights) / 2
    centre = np.einsum("snm,snd->smd", is_of, a) / np.maximum(count, 1)[..., None]
    spread = np.sum((a[..., None, :] - centre[:, None]) ** 2, axis=-1) * is_of
    variance = spread.sum(-2) / np.maximum(count, 1) / a.shape[-1]
    present = count > 0
    width = np.sum(np.sqrt(variance) * present, axis=-1) / present.sum(-1)
    return enough.sum(-1), width / target.std


def measure(setup: Setup, transport: Transport = spec.transport) -> Data:
    """Modes held and their width, for both starts, with and without repulsion."""
    target = ring(MODES_IN_TARGET, setup.radius, setup.std)
    alpha = setup.temperature
    noise = np.random.default_rng(0).standard_normal((setup.seeds, setup.particles, 2))
    rows = []
    for name, centre in STARTS.items():
        start = np.array(centre) + setup.start_std * noise
        for flow in (WITH, WITHOUT):
            # without the entropy term the flow does not divide by alpha: the pull is the same
            scale, temperature = (alpha, alpha) if flow == WITH else (1.0, None)
            budget = Budget(
                steps=setup.steps,
                step_size=setup.step_size,
                temperature=temperature,
                optimiser="plain",
                low=None,
                high=None,
            )
            path = transport(lambda a, c=scale: c * target.score(a), start, budget, trajectory=True)
            modes, width = held(path[-1], target)
            rows.append(
                {
                    "start": name,
                    "flow": flow,
                    "modes": modes,
                    "width": width,
                    "path": path[:: max(setup.steps // 20, 1), 0],
                    "end": path[-1, 0],
                }
            )
    return {"rows": rows, "radius": setup.radius, "std": setup.std}


def find(data: Data, flow: str, start: str, key: str) -> dict[str, float]:
    """The estimate of one number."""
    row = next(r for r in data["rows"] if r["flow"] == flow and r["start"] == start)
    return estimate(row[key])


def judge(data: Data) -> list[Verdict]:
    """Held with repulsion, collapsed without."""
    side, middle = STARTS
    kept = {start: find(data, WITH, start, "modes") for start in STARTS}
    wide = {start: find(data, WITH, start, "width") for start in STARTS}
    narrow = {start: find(data, WITHOUT, start, "width") for start in STARTS}
    lost = find(data, WITHOUT, side, "modes")
    return [
        Verdict(
            "with repulsion all modes are held",
            all(k["low"] >= 0.9 * MODES_IN_TARGET for k in kept.values()),
            f"of {MODES_IN_TARGET} modes {show(kept[side])} {side}, {show(kept[middle])} {middle}",
        ),
        Verdict(
            "and stay as wide as modes",
            all(w["low"] >= 0.5 for w in wide.values()),
            f"{show(wide[side])} of the target's width {side}, {show(wide[middle])} {middle}",
        ),
        Verdict(
            "without repulsion only the nearest mode is found from beside it",
            lost["high"] <= 1.0,
            f"{show(lost)} modes",
        ),
        Verdict(
            "and every mode collapses to a point",
            all(n["high"] <= 0.25 for n in narrow.values()),
            f"{show(narrow[side])} of the target's width {side}, {show(narrow[middle])} {middle}",
        ),
    ]


def remarks(data: Data) -> list[str]:
    """What the claim's sentence leaves out."""
    middle = list(STARTS)[1]
    found = find(data, WITHOUT, middle, "modes")
    return [
        "From the middle, where the reference already looks towards every mode, the flow without "
        f"repulsion still holds {show(found)} of {MODES_IN_TARGET}: there each mode becomes a "
        "point, but the modes are not lost."
    ]


def tables(data: Data) -> list[Table]:
    """Both numbers, for all four."""
    rows = [
        [row["start"], row["flow"], show(estimate(row["modes"])), show(estimate(row["width"]))]
        for row in data["rows"]
    ]
    header = ("start", "flow", f"modes held of {MODES_IN_TARGET}", "width / target's")
    return [Table("At the end of the flow, mean and 95 % interval over the seeds", header, rows)]


def draw(data: Data, stem: Path) -> None:
    """The trajectories of one seed over the target's density."""
    target = ring(MODES_IN_TARGET, data["radius"], data["std"])
    x = np.linspace(-1.15, 1.15, 41)
    density = target.density(np.stack(np.meshgrid(x, x), axis=-1))
    with figure(stem, PAGE, 2.35) as drawing:
        panels = drawing.subplots(1, 4, sharex=True, sharey=True)
        for axes, row, name in zip(panels, data["rows"], "abcd", strict=True):
            axes.contourf(x, x, density, 8, cmap="Greys", vmax=2.2 * density.max())
            draw_paths(axes, np.array(row["path"]), np.array(row["end"]))
            axes.set_aspect("equal")
            axes.grid(False)
            axes.set_xticks([-1, 0, 1])
            axes.set_yticks([-1, 0, 1])
            axes.set_xlabel("first coordinate")
            letter(axes, name, f"{row['start']},\n{row['flow']}")
        panels[0].set_ylabel("second coordinate")
        handles, labels = panels[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=3)


def draw_paths(axes: Any, path: Array, end: Array) -> None:
    """Trajectories ``[T, N, 2]`` as thin lines, from open to filled markers."""
    lines = axes.plot(path[..., 0], path[..., 1], color=COLOURS[1], linewidth=0.4)
    lines[0].set_label("trajectory")
    axes.plot(
        *path[0].T,
        "o",
        markersize=2,
        markerfacecolor="white",
        markeredgewidth=0.5,
        color=COLOURS[0],
        label="start",
    )
    axes.plot(*end.T, "o", markersize=2.6, color=COLOURS[2], label="end")


MODES = Experiment(
    name="modes",
    title="Modes survive with repulsion and collapse without",
    about=(__doc__ or "").partition("\n")[2].strip(),
    setup=Setup(),
    quick=Setup(seeds=5),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    remarks=remarks,
    caption=(
        "One seed of the flow over the target's density (grey), from a cloud beside one mode (a, "
        "b) and in the middle (c, d), with and without the repulsion."
    ),
)

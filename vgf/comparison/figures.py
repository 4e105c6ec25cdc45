"""Figures of a comparison, for print: PNG, SVG and PDF, legible in grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..support.figures import COLOURS, MARKERS, figure, line_look
from ..support.statistics import SUCCESS
from .comparing import Comparison
from .results import points
from .statistics import AGGREGATES, Estimate

KINDS = ("png", "svg", "pdf")


def save_figures(found: Comparison, folder: Path | str) -> list[Path]:
    """Write what there is to draw: intervals, profiles, improvement and curves.

    Returns:
        The paths of the files, without their suffixes.

    Raises:
        VGFError: matplotlib is missing, or the files cannot be written.
    """
    folder = Path(folder)
    parts = {
        "aggregates": (found.over_tasks, _aggregates),
        "profiles": (found.profiles, _profiles),
        "improvement": (found.improvements, _improvement),
        "curves": (any(len(steps) > 1 for steps, _ in found.curves.values()), _curves),
    }
    drawn = [(folder / name, draw) for name, (there, draw) in parts.items() if there]
    for stem, draw in drawn:
        draw(found, stem)
    return [stem for stem, _ in drawn]


def _aggregates(found: Comparison, stem: Path) -> None:
    names = found.methods
    factor = points(found.kind)
    with figure(stem, 9.0, 1.0 + 0.24 * len(names), KINDS) as drawing:
        panels = drawing.subplots(1, len(AGGREGATES), sharey=True)
        for panel, name in zip(panels, AGGREGATES, strict=True):
            for i, method in enumerate(names):
                one = found.over_tasks[method][name]
                if one.low is not None and one.high is not None:
                    panel.barh(
                        i,
                        factor * (one.high - one.low),
                        0.6,
                        factor * one.low,
                        color=COLOURS[i % len(COLOURS)],
                        alpha=0.35,
                    )
                panel.vlines(factor * one.value, i - 0.32, i + 0.32, color="black", linewidth=1.6)
            panel.set_title(name, fontsize=10)
            panel.grid(axis="y", visible=False)
            panel.locator_params(axis="x", nbins=4)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        drawing.supxlabel(_unit(found), fontsize=10)


def _profiles(found: Comparison, stem: Path) -> None:
    with figure(stem, 6.4, 4.2, KINDS) as drawing:
        axes = drawing.subplots()
        x = points(found.kind) * found.thresholds
        for i, (name, profile) in enumerate(found.profiles.items()):
            _banded(axes, x, profile, i, name, 1.0, every=10)
        axes.set_xlabel(f"{_unit(found)} \N{GREEK SMALL LETTER TAU}")
        axes.set_ylabel("share of runs above \N{GREEK SMALL LETTER TAU}")
        axes.set_ylim(-0.02, 1.02)
        _legend(drawing, len(found.profiles))


def _curves(found: Comparison, stem: Path) -> None:
    with figure(stem, 6.4, 4.2, KINDS) as drawing:
        axes = drawing.subplots()
        drawn = {name: curve for name, curve in found.curves.items() if curve[0]}
        for i, (name, (steps, curve)) in enumerate(drawn.items()):
            _banded(
                axes, np.array(steps), curve, i, name, points(found.kind), max(1, len(steps) // 8)
            )
        axes.set_xlabel("updates")
        axes.set_ylabel(f"IQM of {_unit(found)}")
        axes.xaxis.set_major_formatter(lambda value, _=None: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=6)
        _legend(drawing, len(drawn))


def _banded(
    axes: Any, x: Any, curve: Sequence[Estimate], i: int, name: str, factor: float, every: int
) -> None:
    # methods beyond the eighth repeat a colour, with another marker
    look = {**line_look(i), "marker": MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]}
    y = factor * np.array([one.value for one in curve])
    axes.plot(x, y, **look, label=name, markevery=(i % every, every), markersize=4, linewidth=1.3)
    if all(one.low is not None for one in curve):
        low, high = (factor * np.array([one[k] for one in curve]) for k in (1, 2))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _improvement(found: Comparison, stem: Path) -> None:
    pairs = list(found.improvements.items())
    with figure(stem, 6.4, 0.9 + 0.26 * len(pairs), KINDS) as drawing:
        axes = drawing.subplots()
        for i, (_, one) in enumerate(pairs):
            if one.low is not None and one.high is not None:
                axes.barh(i, one.high - one.low, 0.6, one.low, color=COLOURS[1], alpha=0.35)
            axes.vlines(one.value, i - 0.32, i + 0.32, color="black", linewidth=1.6)
        axes.axvline(0.5, color="#555555", linestyle="--", linewidth=1)
        axes.set_xlim(-0.02, 1.02)
        axes.set_yticks(range(len(pairs)), [f"{x}  over  {y}" for (x, y), _ in pairs])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("P(X > Y)")


def _legend(drawing: Any, n: int) -> None:
    drawing.legend(loc="outside upper center", ncols=min(n, 5), handlelength=3, fontsize=8)


def _unit(found: Comparison) -> str:
    return "success (%)" if found.kind == SUCCESS else found.kind

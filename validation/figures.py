"""Figures for a paper: a column or a page wide, legible in grey, as SVG, PDF and PNG.

Lines differ in shade, dashes and marker at once. The same numbers give the same files, byte for
byte.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vgf.support.figures import STYLE, line_look
from vgf.support.figures import figure as write_figure

COLUMN, PAGE = 3.4, 7.0  # inches
SUFFIXES = ("svg", "pdf", "png")

# From dark to light, so that they stay apart in grey.
COLOURS = ("#111111", "#0b5394", "#c2410c", "#2e9e6b", "#b07cc6", "#e0ab1a")
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1, 1)), (0, (8, 2)), (0, (2, 2)))

_STYLE = {
    **STYLE,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "mathtext.fontset": "dejavusans",
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.handlelength": 3.2,
    "pdf.fonttype": 42,
}


def figure(
    stem: Path | str, width: float = COLUMN, height: float = 2.6
) -> AbstractContextManager[Any]:
    """A new matplotlib figure, written to ``STEM.svg``, ``.pdf`` and ``.png`` at the end.

    Args:
        stem: the path without its suffix.
        width, height: in inches; text is 7 to 8 points at this size.

    Raises:
        VGFError: matplotlib is missing, or the files cannot be written.
    """
    return write_figure(stem, width, height, SUFFIXES, 300, _STYLE)


def line(i: int, **changes: Any) -> dict[str, Any]:
    """The look of the i-th line of a figure."""
    return {**line_look(i, COLOURS, MARKERS, DASHES), **changes}


def band(axes: Any, x: Any, low: Any, high: Any, i: int) -> None:
    """The interval around the i-th line."""
    axes.fill_between(x, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.15, linewidth=0)


def letter(axes: Any, name: str, title: str = "") -> None:
    """The panel's letter, and what it shows."""
    axes.set_title(f"({name}) {title}" if title else f"({name})", loc="left")

"""Figures for a paper: a column or a page wide, legible in grey, as SVG, PDF and PNG.

Lines differ in shade, dashes and marker at once. The same numbers give the same files, byte for
byte.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vgf.support.extras import need
from vgf.support.files import write_atomically

COLUMN, PAGE = 3.4, 7.0  # inches
SUFFIXES = ("svg", "pdf", "png")

# From dark to light, so that they stay apart in grey.
COLOURS = ("#111111", "#0b5394", "#c2410c", "#2e9e6b", "#b07cc6", "#e0ab1a")
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1, 1)), (0, (8, 2)), (0, (2, 2)))

_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "mathtext.fontset": "dejavusans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "vgf",
    "pdf.fonttype": 42,
}
_METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@contextmanager
def figure(stem: Path | str, width: float = COLUMN, height: float = 2.6) -> Iterator[Any]:
    """A new matplotlib figure, written to ``STEM.svg``, ``.pdf`` and ``.png`` at the end.

    Args:
        stem: the path without its suffix.
        width, height: in inches; text is 7 to 8 points at this size.

    Raises:
        VGFError: matplotlib is missing, or the files cannot be written.
    """
    matplotlib = need("matplotlib", "run")
    figures = need("matplotlib.figure", "run")
    stem = Path(stem)
    with matplotlib.rc_context(_STYLE):
        drawing = figures.Figure(figsize=(width, height))
        yield drawing
        for suffix in SUFFIXES:
            data = io.BytesIO()
            drawing.savefig(data, format=suffix, dpi=300, metadata=_METADATA[suffix])
            write_atomically(stem.with_name(f"{stem.name}.{suffix}"), data.getvalue())


def line(i: int, **changes: Any) -> dict[str, Any]:
    """The look of the i-th line of a figure."""
    colour = COLOURS[i % len(COLOURS)]
    look = {
        "color": colour,
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i % len(DASHES)],
        "markerfacecolor": "white" if i % 2 else colour,
    }
    return {**look, **changes}


def band(axes: Any, x: Any, low: Any, high: Any, i: int) -> None:
    """The interval around the i-th line."""
    axes.fill_between(x, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.15, linewidth=0)


def letter(axes: Any, name: str, title: str = "") -> None:
    """The panel's letter, and what it shows."""
    axes.set_title(f"({name}) {title}" if title else f"({name})", loc="left")

"""Figures: legible in grey, and the same files, byte for byte, from the same numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .extras import need
from .files import write_atomically

# Every line has its own marker and its own dashes, and the shades differ.
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
COLOURS = ("#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7a7a7a")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "vgf",
    "figure.constrained_layout.use": True,
}
_METADATA: Mapping[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


@contextmanager
def figure(
    stem: Path | str,
    width: float = 6.4,
    height: float = 4.0,
    kinds: Sequence[str] = ("png", "svg"),
    dpi: int = 160,
    style: Mapping[str, Any] = STYLE,
) -> Iterator[Any]:
    """A new matplotlib figure, written to ``STEM.png`` and ``STEM.svg`` at the end.

    Args:
        stem: the path without its suffix.
        width, height: in inches.
        kinds: suffixes of the files to write: "png", "svg", "pdf".
        dpi: dots per inch.
        style: of matplotlib.

    Raises:
        VGFError: matplotlib is missing, or the files cannot be written.
    """
    matplotlib = need("matplotlib", "run")
    figures = need("matplotlib.figure", "run")
    stem = Path(stem)
    with matplotlib.rc_context(style):
        drawing = figures.Figure(figsize=(width, height))
        yield drawing
        for kind in kinds:
            data = io.BytesIO()
            drawing.savefig(data, format=kind, dpi=dpi, metadata=_METADATA.get(kind, {}))
            drawing.set_layout_engine("none")  # what the first found serves all kinds
            write_atomically(stem.with_name(f"{stem.name}.{kind}"), data.getvalue())


def line_look(
    i: int,
    colours: Sequence[str] = COLOURS,
    markers: Sequence[str] = MARKERS,
    dashes: Sequence[Any] = DASHES,
) -> dict[str, Any]:
    """The look of the i-th line of a figure."""
    colour = colours[i % len(colours)]
    return {
        "color": colour,
        "marker": markers[i % len(markers)],
        "linestyle": dashes[i % len(dashes)],
        "markerfacecolor": "white" if i % 2 else colour,
    }

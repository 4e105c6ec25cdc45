"""A picture of a data set: returns, lengths, actions, and where the observations lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import eigh

from ..spec.types import Array
from ..support.extras import need
from .inspect import Inspection
from .raw import RawData

_POINTS = 5000
_BINS = 30
_DARK = "#1b1b1b"


def save_picture(raw: RawData, found: Inspection, path: Path, maze: bool = False) -> None:
    """Draw a source as far as possible, faults or not.

    Args:
        raw: the source.
        found: what :func:`~vgf.data.inspect.inspect` says about it.
        path: of the .png file.
        maze: whether the first two coordinates of observations are a position.

    Raises:
        VGFError: matplotlib is missing, or the file cannot be written.
    """
    from ..support.figures import figure

    arrays = {
        key: np.asarray(raw.arrays[key]) for key in ("observations", "actions") if key in raw.arrays
    }
    with figure(path.with_suffix(""), 8.0, 6.4, kinds=("png",)) as drawing:
        panels = drawing.subplots(2, 2)
        returns, lengths = found.per_trajectory
        _histogram(panels[0, 0], returns, "return of a trajectory")
        _histogram(panels[0, 1], lengths, "length of a trajectory (rows)")
        _actions(drawing, panels[1, 0], arrays.get("actions"))
        _observations(panels[1, 1], arrays.get("observations"), maze)
        drawing.suptitle(Path(found.source).name, fontsize=10)


def _usable(array: Array | None) -> Array:
    """The finite rows of a matrix of numbers; no rows for anything else."""
    if array is None or array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        return np.zeros((0, 1))
    finite = np.isfinite(array).all(axis=1)
    return array[finite].astype(np.float64)


def _nothing(axes: Any, what: str) -> None:
    axes.text(0.5, 0.5, f"no {what}", ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _histogram(axes: Any, values: Array, label: str) -> None:
    values = values[np.isfinite(values)]
    axes.set_title(label, fontsize=10)
    if not len(values):
        _nothing(axes, "trajectories")
        return
    low, high = float(values.min()), float(values.max())
    margin = 1.0 if high - low < 1e-9 * max(abs(low), abs(high), 1.0) else 0.0
    axes.hist(
        values,
        bins=min(_BINS, max(5, int(np.sqrt(len(values))))),
        range=(low - margin, high + margin),
        color="#9a9a9a",
        edgecolor=_DARK,
        linewidth=0.6,
    )
    axes.axvline(float(np.median(values)), color=_DARK, linestyle="--", label="median")
    axes.legend(fontsize=8)
    axes.set_ylabel("trajectories")
    locator = need("matplotlib.ticker", "run").MaxNLocator
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.xaxis.set_major_locator(locator(4))
    axes.yaxis.set_major_locator(locator(integer=True))


def _actions(drawing: Any, axes: Any, actions: Array | None) -> None:
    """How often each value of each coordinate occurs; dark is often."""
    rows = _usable(actions)
    axes.set_title("actions", fontsize=10)
    if not len(rows):
        _nothing(axes, "actions")
        return
    low, high = float(rows.min()), float(rows.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    shares = np.stack(
        [np.histogram(column, _BINS, (low, high))[0] / len(rows) for column in rows.T]
    )
    size = rows.shape[1]
    image = axes.imshow(
        shares,
        aspect="auto",
        cmap="Greys",
        origin="lower",
        vmin=0.0,
        extent=(low, high, -0.5, size - 0.5),
    )
    axes.grid(False)
    axes.set(xlabel="value", ylabel="coordinate")
    axes.set_yticks(np.unique(np.linspace(0, size - 1, min(size, 8)).astype(int)))
    drawing.colorbar(image, ax=axes, label="share of rows")


def _observations(axes: Any, observations: Array | None, maze: bool) -> None:
    rows = _usable(observations)
    axes.set_title("observations", fontsize=10)
    if not len(rows):
        _nothing(axes, "observations")
        return
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(int))
    if rows.shape[1] == 1:
        axes.plot(chosen, rows[chosen, 0], ".", color=_DARK, markersize=1.5, alpha=0.4)
        axes.set(xlabel="row", ylabel="coordinate 0")
        return
    if maze or rows.shape[1] == 2:
        points, labels = rows[chosen, :2], ["coordinate 0", "coordinate 1"]
    else:
        points, shares = _principal(rows, chosen)
        labels = [
            f"component {i + 1} ({100 * share:.0f} % of the variance)"
            for i, share in enumerate(shares)
        ]
    axes.plot(*points.T, ".", color=_DARK, markersize=1.5, alpha=0.4)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    if maze:
        axes.set_aspect("equal", adjustable="datalim")


def _principal(rows: Array, chosen: Array) -> tuple[Array, Array]:
    """Some rows along the first two principal components of standardised rows, and their shares."""
    centred = rows - rows.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled = centred / np.where(deviation > 0.0, deviation, 1.0)
    values, vectors = eigh(scaled.T @ scaled / len(rows))
    total = max(float(values.sum()), np.finfo(float).tiny)
    return scaled[chosen] @ vectors[:, [-1, -2]], values[[-1, -2]] / total

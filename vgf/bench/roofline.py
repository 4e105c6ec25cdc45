"""A picture of a record: what each side reached, under what the machine could do."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .training import Data

# From dark to light, and a marker each, so that they stay apart in grey.
_COLOURS = ("#111111", "#0b5394", "#c2410c", "#2e9e6b", "#b07cc6", "#e0ab1a")
_MARKERS = ("o", "s", "D", "^", "v", "P")


def save(record: Data, stem: Path) -> None:
    """Draw a record of `vgf bench` into ``STEM.svg`` and ``STEM.png``.

    Raises:
        VGFError: matplotlib is missing, or the files cannot be written.
    """
    from ..support.figures import figure

    with figure(stem) as drawing:
        draw(drawing.subplots(), record)


def draw(axes: Any, record: Data) -> None:
    """FLOP/s against FLOPs for each byte, every work and side a point, under the roofs.

    Args:
        axes: of matplotlib.
        record: of :func:`vgf.bench.training.measure`; a work without a known limit has no point.

    The FLOPs are those that an update cannot do without (vgf/bench/limits.py); the bytes, those of
    products that read their factors and write their result once.
    """
    roofs = record["roofs"]
    flats = {
        precision: max(p["rate"] for p in roofs["products"] if p["precision"] == precision)
        for precision in dict.fromkeys(row["matmul_precision"] for row in record["rows"])
    }
    flat = max(flats.values())
    rows = [row for row in record["rows"] if "no_limit" not in row]
    found = [row["intensity"] for row in rows]
    corners = [flat / bandwidth for bandwidth in roofs["bandwidth"].values()]
    low, high = min(found + corners) / 4, max(found + corners) * 4
    for i, (name, bandwidth) in enumerate(roofs["bandwidth"].items()):
        axes.plot(
            [low, corners[i]],
            [low * bandwidth, flat],
            color="#777777",
            linewidth=1,
            linestyle=("-", ":")[i % 2],
            label=f"copying, {name}",
        )
    for i, (precision, height) in enumerate(flats.items()):
        label = "bare matrix product" if len(flats) == 1 else f"bare product, {precision}"
        axes.plot(
            [min(corners), high],
            [height, height],
            color="#777777",
            linewidth=1,
            linestyle=("--", "-.", (0, (1, 3)))[i % 3],
            label=label,
        )
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, side in row["sides"].items():
            precision = row["matmul_precision" if side["ours"] else "peer_matmul_precision"]
            label = name if len(flats) == 1 else f"{name}, {precision}"
            point = row["intensity"], row["flops"] / statistics.median(side["seconds"])
            series.setdefault(label, []).append(point)
    for i, (name, points) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot(
            *zip(*points, strict=True),
            linestyle="none",
            marker=_MARKERS[i % len(_MARKERS)],
            color=colour,
            markerfacecolor="white" if i % 2 else colour,
            markersize=5,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_xlabel("FLOPs of an update for each byte of its products")
    axes.set_ylabel("FLOP/s reached")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))  # beside the picture

"""The picture that explains VGF, and an episode as an animation, from a run's ``flow.json``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..support.extras import need
from ..support.figures import figure
from ..support.files import write_atomically

_COLOURS = "cividis"  # from dark to light, in grey too
_MOVED, _WALL = "#d55e00", "#3a3a3a"
_MOST_FRAMES = 60
_MILLISECONDS, _PAUSE = 160, 2000  # a frame lasts, and the last one before it begins again


def save_flow(found: Mapping[str, Any], stem: Path | str) -> None:
    """The flow of particles over the critic's values, on the maze if there is one.

    Args:
        found: what :func:`vgf.runs.look.record_flow` wrote.
        stem: of the files, without suffix.
    """
    maze, places = found.get("maze"), found["places"]
    panels = len(places) + (maze is not None)
    with figure(stem, 3.7 * panels, 4.4) as drawing:
        axes = list(np.atleast_1d(drawing.subplots(1, panels)))
        if maze is not None:
            _draw_maze(axes[0], maze)
            _draw_path(axes[0], found)
            axes[0].set_title("the maze, coloured by value, and an episode", fontsize=10)
        for place, panel, name in zip(places, axes[-len(places) :], "AB", strict=False):
            _draw_place(panel, place, f"{name}: the actions at decision {place['decision'] + 1}")
        handles, labels = axes[-1].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=4)


def _draw_maze(axes: Any, maze: Mapping[str, Any]) -> None:
    """Walls, the value of what the agent does in every place, and the goal."""
    walls, unit = np.asarray(maze["walls"]), maze["unit"]
    rows, columns = walls.shape
    x, y = (corner - unit / 2 for corner in maze["origin"])
    extent = (x, x + unit * columns, y, y + unit * rows)
    values = np.asarray(maze["values"], float)
    axes.set_facecolor(_WALL)
    axes.imshow(values, cmap=_COLOURS, origin="lower", extent=extent, interpolation="nearest")
    axes.plot(*maze["goal"], "*", color="white", markeredgecolor="black", markersize=15, zorder=5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def _draw_path(axes: Any, found: Mapping[str, Any]) -> None:
    """The states of an episode, and the two that the other panels are of."""
    states = np.asarray(found["observations"])
    axes.plot(states[:, 0], states[:, 1], "-", color="white", linewidth=2.6)
    axes.plot(states[:, 0], states[:, 1], ".-", color=_MOVED, linewidth=1.2, markersize=5)
    for place, name in zip(found["places"], "AB", strict=False):
        where = states[place["decision"]]
        axes.annotate(
            name,
            where,
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
            zorder=6,
        )


def _draw_place(axes: Any, place: Mapping[str, Any], title: str) -> None:
    """Q over the box of actions, and the particles' way over it."""
    paths, values = np.asarray(place["paths"]), np.asarray(place["values"])
    side = np.linspace(-1, 1, len(values))
    axes.contourf(side, side, values, 14, cmap=_COLOURS)
    axes.contour(side, side, values, 14, colors="white", linewidths=0.3, alpha=0.6)
    axes.plot(paths[:, :, 0], paths[:, :, 1], "-", color="white", linewidth=1.1, zorder=3)
    ends = {"linestyle": "", "zorder": 4, "clip_on": False}
    axes.plot(
        *paths[0].T,
        **ends,
        marker="o",
        color="white",
        markeredgecolor="black",
        markersize=4,
        label="particles of the reference",
    )
    axes.plot(
        *paths[-1].T,
        **ends,
        marker="D",
        color=_MOVED,
        markeredgecolor="black",
        markersize=4.5,
        label=f"after {len(paths) - 1} steps of the flow",
    )
    axes.plot(
        *paths[-1, place["best"]],
        **{**ends, "zorder": 5},
        marker="*",
        color="white",
        markeredgecolor="black",
        markersize=14,
        label="the best: the action",
    )
    axes.set_title(title, fontsize=10)
    axes.set_aspect("equal")
    axes.set_xlim(-1, 1)
    axes.set_ylim(-1, 1)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.grid(False)


def caption(found: Mapping[str, Any]) -> str:
    """What the picture shows, in sentences."""
    end = _end(found)
    on_maze = (
        f"Left: the maze, lighter where the critic values what the agent does there more, and one "
        f"episode at L = {found['steps']}, {end}. "
        if "maze" in found
        else ""
    )
    return (
        f"What VGF does, drawn from this agent after {found['updates']:,} updates. {on_maze}"
        "A and B: the critic's value of every action (lighter is more) at two states of the "
        f"episode; {len(found['places'][0]['paths'][0])} particles start where the data's "
        "behaviour policy puts them, and the flow moves them up the value, a bounded distance."
    )


def episode_caption(found: Mapping[str, Any]) -> str:
    """What the animation shows, in a sentence."""
    return (
        f"The same episode, {_end(found)}. At each decision: the particles before the flow (white) "
        "and after it, as moves from where the agent stands; not to scale."
    )


def _end(found: Mapping[str, Any]) -> str:
    decisions = len(found["actions"])
    if found["success"] is None:
        return f"{decisions} decisions"
    return f"{decisions} decisions, {'' if found['success'] else 'not '}reaching the goal"


def save_episode(found: Mapping[str, Any], path: Path) -> None:
    """Write the episode of a maze, seen from above, as an animated GIF.

    Raises:
        VGFError: matplotlib is missing, or the file cannot be written.
    """
    maze = found["maze"]
    image = need("PIL.Image", "run")
    drawing = need("matplotlib.figure", "run").Figure(figsize=(4.2, 4.2), dpi=100)
    canvas = need("matplotlib.backends.backend_agg", "run").FigureCanvasAgg(drawing)
    axes = drawing.add_axes((0, 0, 1, 1))
    _draw_maze(axes, maze)
    axes.autoscale(False)
    canvas.draw()
    ground = canvas.copy_from_bbox(drawing.bbox)
    (trail,) = axes.plot([], [], "-", color="white", linewidth=2)
    (before,) = axes.plot([], [], "o", color="white", markeredgecolor="black", markersize=5)
    (after,) = axes.plot([], [], "D", color=_MOVED, markeredgecolor="black", markersize=5)
    (agent,) = axes.plot([], [], "o", color="black", markeredgecolor="white", markersize=9)
    states, start, moved = (np.asarray(found[key]) for key in ("observations", "start", "moved"))
    reach = 0.75 * maze["unit"]
    pictures = []
    for t in [*range(0, len(states) - 1, -(-len(states) // _MOST_FRAMES)), len(states) - 1]:
        trail.set_data(*states[: t + 1].T)
        agent.set_data(*states[t : t + 1].T)
        for marks, particles in ((before, start), (after, moved)):
            marks.set_data(*(states[t] + reach * particles[t]).T if t < len(moved) else ([], []))
        canvas.restore_region(ground)
        for marks in (trail, before, after, agent):
            axes.draw_artist(marks)
        pictures.append(image.fromarray(np.array(canvas.buffer_rgba())[..., :3]))
    data = io.BytesIO()
    pauses = [*[_MILLISECONDS] * (len(pictures) - 1), _PAUSE]
    pictures[0].save(
        data, "GIF", save_all=True, append_images=pictures[1:], duration=pauses, loop=0
    )
    write_atomically(path, data.getvalue())

"""The maze of an environment that has one, for pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..spec.types import Array


class Maze(NamedTuple):
    """One of OGBench's mazes, seen from above.

    Args:
        walls: ``[rows, columns]``, 1 where there is a wall; row i and column j lie at
            origin + unit (j, i).
        unit: the side of a cell, in the simulator's units of length.
        origin: x and y of the middle of cell (0, 0).
        goal: x and y of the goal of the episode under way.
    """

    walls: Array
    unit: float
    origin: tuple[float, float]
    goal: tuple[float, float]


def maze_of(env: Any) -> Maze | None:
    """The maze of an environment that was reset; None if it has none."""
    simulator = env.unwrapped
    walls = getattr(simulator, "maze_map", None)
    goal = getattr(simulator, "cur_goal_xy", None)
    if walls is None or goal is None:
        return None
    x, y = simulator.ij_to_xy((0, 0))
    unit = simulator.ij_to_xy((0, 1))[0] - x
    return Maze(walls == 1, float(unit), (float(x), float(y)), (float(goal[0]), float(goal[1])))

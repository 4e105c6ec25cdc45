"""What a trained agent's flow does, recorded for a picture: along one episode, and at two states.

For tasks with actions of two dimensions, so that the value of every action can be drawn. The agent
is run by the specification, in float64, where its method has one. What is recorded is
``flow.json`` in the run folder; vgf/runs/picture.py draws it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend, Tree
from ..benchmarks.tasks import Task
from ..data.scaling import Scaling
from ..environments.maze import maze_of
from ..environments.pool import closing
from ..spec.types import Array
from ..support.files import write_atomically
from .agent import load_agent, make_backend
from .config import RunConfig
from .evaluation import episode_seed
from .folder import open_run_folder

FLOW = "flow.json"
SHOWN = 24  # particles of a picture; an episode has the agent's own
GRID = 41  # actions along each side of the box
CELL = 5  # states along each side of a cell of a maze


def record_flow(folder: Path, task: Task) -> Path | None:
    """Write ``flow.json`` for the last checkpoint of a run of one seed.

    Args:
        folder: the run folder.
        task: of the run; its data are not needed.

    Returns:
        The path, or None where there is nothing to draw: no environment, actions of more or fewer
        than two dimensions, or a method without a critic.

    Raises:
        VGFError: as :func:`vgf.runs.agent.load_agent`.
    """
    config = open_run_folder(folder)
    if (
        task.make_env is None
        or task.action_dim != 2
        or "critic" not in config.agent.declared.trains
    ):
        return None
    backend = _backend(config)
    state, scaling, config, step = load_agent(folder, backend)
    agent = _Agent(backend, state, scaling, config)
    trained = config.agent.budget.steps
    found = {"updates": step, "steps": trained, **_episode(agent, task, config.seed)}
    write_atomically(folder / FLOW, json.dumps(found, separators=(",", ":"), allow_nan=False))
    return folder / FLOW


def _backend(config: RunConfig) -> Backend:
    """The specification, or the run's own backend for a method that NumPy does not have."""
    backend = get_backend("numpy")
    try:
        backend.check_method(config.agent)
    except ValueError:
        return make_backend(config.backend, training=False)
    return backend


@dataclasses.dataclass
class _Agent:
    """An agent out of a run folder, acting on observations as the environment returns them."""

    backend: Backend
    state: Tree
    scaling: Scaling
    config: RunConfig

    def act(self, observations: Array, noise: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Actions ``[B, 2]`` at the training budget, and what the backend's `act` says of them."""
        s, given = self._inputs(observations), self.backend.asarray(noise)
        agent = self.config.agent
        actions, info = self.backend.act(self.state, s, agent.budget, agent, noise=given)
        return np.asarray(actions), self.backend.to_numpy(info)

    def paths(self, observations: Array, noise: Array) -> Array:
        """Particles at every step of the flow at the largest test budget, ``[L + 1, B, N, 2]``."""
        s, given = self._inputs(observations), self.backend.asarray({"n": noise})["n"]
        agent = self.config.agent
        steps = max(self.config.evaluation.steps) if agent.transports else 0
        budget = dataclasses.replace(agent.budget, steps=steps)
        start = self.backend.propose(self.state, s, given, agent)
        path = (
            self.backend.move(self.state, s, start, budget, agent, True) if steps else start[None]
        )
        return np.asarray(self.backend.to_numpy({"a": path})["a"])

    def values(self, observations: Array, actions: Array) -> Array:
        """What the flow climbs: the critics' value of actions ``[B, N, 2]``, ``[B, N]``."""
        settings = self.config.agent
        a = self.backend.asarray({"a": actions})["a"]
        q = self.backend.critic_values(
            self.state["critic"], self._inputs(observations), a, settings.critic.activation
        )
        q = self.backend.aggregate(q, settings.value_ensemble)
        return np.asarray(self.backend.to_numpy({"q": q})["q"])

    def _inputs(self, observations: Array) -> Array:
        s = self.scaling(np.asarray(observations, np.float32))
        return self.backend.asarray({"s": s})["s"]


def _episode(agent: _Agent, task: Task, seed: int) -> dict[str, Any]:
    """The first episode of the run's evaluation, at its training budget, and what is drawn."""
    config = agent.config
    particles = config.evaluation.particles or config.agent.particles
    first = episode_seed(seed, 0)
    draws = np.random.default_rng([first, 1])
    seen: list[Array] = []
    start: list[Array] = []
    moved: list[Array] = []
    chosen: list[Array] = []
    success, over = None, False
    assert task.make_env is not None
    with closing(task.make_env(first)) as env:
        observation, _ = env.reset(seed=first)
        maze = maze_of(env)
        while not over:
            noise = {
                "particles": draws.standard_normal((1, particles, 2)),
                "select": draws.random(1),
            }
            actions, info = agent.act(observation[None], noise)
            seen.append(np.asarray(observation))
            start.append(info["start"][0])
            moved.append(info["moved"][0])
            chosen.append(np.clip(actions[0], -1, 1))
            observation, _, terminated, truncated, facts = env.step(chosen[-1].astype(np.float32))
            reached = task.success(facts)
            success = success if reached is None else max(success or 0.0, reached)
            over = terminated or truncated or len(seen) == 1000
    found: dict[str, Any] = {
        "success": success,
        "observations": _short(np.asarray([*seen, observation])),
        "start": _short(np.asarray(start)),
        "moved": _short(np.asarray(moved)),
        "actions": _short(np.asarray(chosen)),
        "places": _places(agent, seen),
    }
    if maze is not None and len(seen[0]) == 2:
        found["maze"] = {
            "walls": maze.walls.astype(int).tolist(),
            "unit": maze.unit,
            "origin": maze.origin,
            "goal": maze.goal,
            "values": _landscape(agent, maze),
        }
    return found


def _places(agent: _Agent, seen: list[Array]) -> list[dict[str, Any]]:
    """The flow at two states of an episode, its first and its middle one, over Q."""
    decisions = list(dict.fromkeys([0, len(seen) // 2]))
    states = np.asarray([seen[t] for t in decisions])
    noise = np.random.default_rng(0).standard_normal((len(states), SHOWN, 2))
    paths = agent.paths(states, noise)
    side = np.linspace(-1, 1, GRID)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    values = agent.values(states, np.broadcast_to(grid, (len(states), *grid.shape)))
    ends = agent.values(states, paths[-1])
    return [
        {
            "decision": t,
            "paths": _short(paths[:, i]),
            "values": _short(values[i].reshape(GRID, GRID)),
            "best": int(np.argmax(ends[i])),
        }
        for i, t in enumerate(decisions)
    ]


def _landscape(agent: _Agent, maze: Any) -> list[list[float | None]]:
    """The value of what the agent does at states all over a maze; None in its walls."""
    rows, columns = (CELL * n for n in maze.walls.shape)
    within = (np.arange(max(rows, columns)) + 0.5) / CELL - 0.5
    x, y = np.meshgrid(
        maze.origin[0] + maze.unit * within[:columns], maze.origin[1] + maze.unit * within[:rows]
    )
    free = ~np.repeat(np.repeat(maze.walls, CELL, 0), CELL, 1)
    states = np.stack([x, y], -1)[free]
    draws = np.random.default_rng(0)
    noise = {
        "particles": draws.standard_normal((len(states), agent.config.agent.particles, 2)),
        "select": draws.random(len(states)),
    }
    _, info = agent.act(states, noise)
    values = np.full((rows, columns), np.nan)
    values[free] = info["q"].max(-1)
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in values]


def _short(values: Array) -> Any:
    """Numbers for JSON, to four decimals."""
    return np.round(np.asarray(values, np.float64), 4).tolist()

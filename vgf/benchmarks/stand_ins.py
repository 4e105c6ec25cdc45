"""D4RL's environments on today's simulators: what stands in for each of them.

The layouts of the mazes, the numbers of their models, start states, goals, rewards, ends and time
limits are D4RL's (its modules gym_mujoco, locomotion, pointmaze and hand_manipulation_suite);
the simulator is gymnasium's and gymnasium-robotics', with a different MuJoCo than D4RL's. This
module imports gymnasium; import it inside the functions that use it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..environments.fitting import OwnGenerator, fit, gymnasium
from ..environments.making import made, register_robotics
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import installed_version, need
from .d4rl_infos import D4RLTask

# "R": the start, "G": the goal, "#": a wall. Rows are D4RL's first index; later
# rows are further along y in antmaze, and along x in maze2d.
_UMAZE = ("#####", "#R..#", "###.#", "#G..#", "#####")
_MEDIUM = (
    "########",
    "#R.##..#",
    "#..#...#",
    "##...###",
    "#..#...#",
    "#.#..#.#",
    "#...#.G#",
    "########",
)
_LARGE = (
    "############",
    "#R...#.....#",
    "#.##.#.#.#.#",
    "#......#...#",
    "#.####.###.#",
    "#..#.#.....#",
    "##.#.#.#.###",
    "#..#...#.G.#",
    "############",
)
_ANT_MAZES = {"umaze": _UMAZE, "medium": _MEDIUM, "large": _LARGE}
_POINT_MAZES = {
    "open": ("#######", "#.....#", "#..G..#", "#.....#", "#######"),
    "umaze": ("#####", "#G..#", "###.#", "#...#", "#####"),
    "medium": tuple(row.replace("R", ".") for row in _MEDIUM),
    "large": tuple(row.replace("R", ".") for row in _LARGE),
}
_LOCOMOTION = {
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
    "halfcheetah": "HalfCheetah-v4",
    "ant": "Ant-v4",
}
_HANDS = {
    "pen": "AdroitHandPen-v1",
    "door": "AdroitHandDoor-v1",
    "hammer": "AdroitHandHammer-v1",
    "relocate": "AdroitHandRelocate-v1",
}
_CONTACT_FORCES = 84
_CELL = 4.0  # metres, in antmaze
_GOAL_RADIUS = 0.5
_WHY_NOT = {
    "kitchen": "gymnasium-robotics' FrankaKitchen observes 59 numbers, D4RL's kitchen 60",
    "minigrid": "its actions are discrete",
    "bullet": "it needs PyBullet",
    "carla": "it needs CARLA",
    "flow": "it needs the Flow traffic simulator",
}


def stand_in(task: D4RLTask) -> str | None:
    """The name of the environment that stands in for a task's, or None if there is none."""
    if task.family in _LOCOMOTION:
        return _LOCOMOTION[task.family]
    if task.family in _HANDS:
        return _HANDS[task.family]
    size = _size(task)
    if task.family == "antmaze" and size in _ANT_MAZES:
        return f"AntMaze_{'UMaze' if size == 'umaze' else size.capitalize()}-v4"
    if task.family == "maze2d" and size in _POINT_MAZES:
        dense = "Dense" if "-dense-" in task.name else ""
        return f"PointMaze_{'UMaze' if size == 'umaze' else size.capitalize()}{dense}-v3"
    return None


def _size(task: D4RLTask) -> str:
    return task.name.split("-")[1]


def why_none(task: D4RLTask) -> str:
    """Why nothing stands in for a task's environment."""
    return _WHY_NOT.get(task.family, "gymnasium-robotics has no such maze")


def describe(task: D4RLTask, own: bool = False) -> str:
    """One line: in which environment a task is evaluated, and what it stands in for."""
    if own:
        return f"evaluated in D4RL's own {task.name}"
    package = "gymnasium" if task.family in _LOCOMOTION else "gymnasium-robotics"
    versions = ", ".join(
        f"{title} {installed_version(name)}"
        for name, title in {package: package, "mujoco": "MuJoCo"}.items()
    )
    return (
        f"evaluated in {stand_in(task)} ({versions}), which stands in for D4RL's {task.name} "
        "(mujoco-py, MuJoCo 2)"
    )


def why_not_own(task: D4RLTask) -> str | None:
    """Why D4RL's own environment of a task cannot be made here; None if it can."""
    try:
        make_own(task).close()
    except Exception as error:  # whatever the imports of d4rl and its dependencies raise here
        return " ".join(str(error).split()) or type(error).__name__
    return None


def make_own(task: D4RLTask, seed: int | None = None) -> Any:
    """D4RL's own environment of a task, in gymnasium's form; `import d4rl` must work."""
    importlib.import_module("d4rl")
    env = OldGym(importlib.import_module("gym").make(task.name))
    return fit(ReachedIsSuccess(env) if task.family == "antmaze" else env, seed)


class OldGym(gymnasium.Env):
    """An environment of the old gym (`reset` without seed, four results) in gymnasium's form."""

    def __init__(self, env: Any) -> None:
        self._env = env
        boxes = [
            gymnasium.spaces.Box(np.asarray(s.low, s.dtype), np.asarray(s.high, s.dtype), s.shape)
            for s in (env.observation_space, env.action_space)
        ]
        self.observation_space, self.action_space = boxes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._env.seed(seed)
        return self._env.reset(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ob, reward, done, info = self._env.step(action)
        truncated = bool(info.get("TimeLimit.truncated", False))
        return ob, float(reward), bool(done) and not truncated, truncated, dict(info)

    def close(self) -> None:
        self._env.close()


class ReachedIsSuccess(gymnasium.Wrapper):
    """Report a reward of 1 as success, where the environment does not."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ob, reward, terminated, truncated, info = self.env.step(action)
        return ob, reward, terminated, truncated, {**info, "success": float(reward > 0)}


def make_stand_in(task: D4RLTask, seed: int | None = None) -> Any:
    """The environment that stands in for a task's, with D4RL's observations and rewards.

    Args:
        task: of D4RL.
        seed: of the first `reset` without its own seed.

    Raises:
        VGFError: nothing stands in for it, or its package is missing.
    """
    name = stand_in(task)
    if name is None:
        raise VGFError(f"nothing stands in for D4RL's {task.name}: {why_none(task)}")
    if task.family not in _LOCOMOTION:
        register_robotics()
    need("mujoco", "d4rl")
    options: dict[str, Any] = {"max_episode_steps": task.max_episode_steps}
    wrap: Callable[[Any], Any] = lambda env: env
    if task.family == "ant":
        wrap = ContactForces
    elif task.family in _HANDS:
        wrap = _HAND_WRAPPERS[task.family]
    elif task.family == "antmaze":
        options["maze_map"] = _upside_down(_ANT_MAZES[_size(task)])
        wrap = lambda env: AntMaze(env, _ANT_MAZES[_size(task)])
    elif task.family == "maze2d":
        layout = _POINT_MAZES[_size(task)]
        options["maze_map"] = _upside_down(tuple("".join(row) for row in zip(*layout, strict=True)))
        wrap = lambda env: PointMaze(env, layout, dense="-dense-" in task.name)
    env = made(name, lambda: gymnasium.make(name, disable_env_checker=True, **options))
    return OwnGenerator(wrap(env), seed)


def _upside_down(layout: tuple[str, ...]) -> list[list[Any]]:
    """A layout as gymnasium-robotics takes it, where y decreases from row to row."""
    return [[1 if cell == "#" else 0 for cell in row] for row in reversed(layout)]


def _cells(layout: tuple[str, ...], kinds: str) -> list[tuple[int, int]]:
    return [(i, j) for i, row in enumerate(layout) for j, cell in enumerate(row) if cell in kinds]


class ContactForces(gymnasium.ObservationWrapper):
    """Append the ant's contact forces, all zero, as they are in D4RL's files.

    MuJoCo 2 under mujoco-py did not compute them, and D4RL's ant observes 111 numbers.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        size = env.observation_space.shape[0] + _CONTACT_FORCES
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,))

    def observation(self, observation: Array) -> Array:
        return np.append(observation, np.zeros(_CONTACT_FORCES))


# --- hands --------------------------------------------------------------------------------------


class _Hand(gymnasium.Wrapper):
    """Rewards and ends as in D4RL; gymnasium-robotics' differ from version to version."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ob, reward, terminated, truncated, info = self.env.step(action)
        reward, terminated = self.judge(ob, float(reward), terminated)
        return ob, reward, terminated, truncated, info

    def judge(self, ob: Array, reward: float, terminated: bool) -> tuple[float, bool]:
        raise NotImplementedError


class Pen(_Hand):
    """The episode ends where the pen is dropped, 7.5 cm above the ground or less."""

    def judge(self, ob: Array, reward: float, terminated: bool) -> tuple[float, bool]:
        return reward, bool(ob[26] < 0.075)


class Door(_Hand):
    """Reach the handle, open the door, slowly."""

    def judge(self, ob: Array, reward: float, terminated: bool) -> tuple[float, bool]:
        hinge, reach = ob[28], np.linalg.norm(ob[35:38])
        speeds = self.env.unwrapped.data.qvel
        cost = 0.1 * reach + 0.1 * (hinge - 1.57) ** 2 + 1e-5 * np.sum(speeds**2)
        bonus = 2 * (hinge > 0.2) + 8 * (hinge > 1.0) + 10 * (hinge > 1.35)
        return float(bonus - cost), terminated


class Hammer(_Hand):
    """Reach the hammer, lift it, drive the nail in, gently."""

    def judge(self, ob: Array, reward: float, terminated: bool) -> tuple[float, bool]:
        simulator = self.env.unwrapped
        places = simulator.data.site_xpos
        palm, hammer = ob[32:35], ob[35:38]
        head, goal = places[simulator.tool_site_id], places[simulator.goal_site_id]
        nail = places[simulator.target_obj_site_id]
        left = np.linalg.norm(nail - goal)
        cost = 0.1 * np.linalg.norm(palm - hammer) + np.linalg.norm(head - nail) + 10 * left
        cost += 1e-2 * np.linalg.norm(simulator.data.qvel)
        bonus = 2 * (hammer[2] > 0.04 and head[2] > 0.04) + 25 * (left < 0.02) + 75 * (left < 0.01)
        return float(bonus - cost), terminated


class Relocate(_Hand):
    """Reach the ball, lift it, carry it to its target."""

    def judge(self, ob: Array, reward: float, terminated: bool) -> tuple[float, bool]:
        simulator = self.env.unwrapped
        reach, carry, left = (np.linalg.norm(ob[i : i + 3]) for i in (30, 33, 36))
        height = simulator.data.xpos[simulator.obj_body_id][2]
        lifted = (height > 0.04) * (1.0 - 0.5 * carry - 0.5 * left)
        bonus = 10 * (left < 0.1) + 20 * (left < 0.05)
        return float(lifted + bonus - 0.1 * reach), terminated


_HAND_WRAPPERS = {"pen": Pen, "door": Door, "hammer": Hammer, "relocate": Relocate}


# --- mazes --------------------------------------------------------------------------------------


class AntMaze(gymnasium.Wrapper):
    """D4RL's antmaze on gymnasium-robotics' maze.

    The start cell is the origin. Observations are position and velocity, 29 numbers, without the
    goal; the reward is 1 within 0.5 of the goal, which ends the episode, and 0 elsewhere. The
    goal is drawn around its cell for every episode, as in D4RL's v2. The ant is D4RL's: weaker
    (gear 30), simulated at 0.02 s, with other contacts than gymnasium's.

    Args:
        env: gymnasium-robotics' maze of the layout, upside down.
        layout: as D4RL has it.
    """

    def __init__(self, env: Any, layout: tuple[str, ...]) -> None:
        super().__init__(env)
        maze = env.unwrapped
        model = maze.ant_env.model
        model.opt.timestep = 0.02
        model.actuator_gear[:, 0] = 30.0
        model.geom_solimp[:, :3] = (0.8, 0.8, 0.01)
        maze.ant_env._reset_noise_scale = 0.1
        maze.position_noise_range = 0.0
        rows = len(layout)
        (start,), (goal,) = (
            [(rows - 1 - i, j) for i, j in _cells(layout, kind)] for kind in ("R", "G")
        )
        self._cells = {"reset_cell": np.array(start), "goal_cell": np.array(goal)}
        self._origin = maze.maze.cell_rowcol_to_xy(np.array(start))
        self._goal = maze.maze.cell_rowcol_to_xy(np.array(goal)) - self._origin
        self.goal = self._goal
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (29,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        ob, _ = self.env.reset(seed=seed, options=dict(self._cells))
        draw = self.env.unwrapped.np_random.uniform
        shift = draw(0.0, _CELL / 4, 2) + draw(0.0, _CELL / 8, 2)
        self.goal = np.maximum(self._goal + shift, 0.0)
        self.env.unwrapped.goal = self.goal + self._origin
        return self._observe(ob), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ob, _, _, truncated, _ = self.env.step(action)
        seen = self._observe(ob)
        reached = bool(np.linalg.norm(seen[:2] - self.goal) <= _GOAL_RADIUS)
        return seen, float(reached), reached, truncated, {"success": float(reached)}

    def _observe(self, ob: dict[str, Array]) -> Array:
        return np.append(ob["achieved_goal"] - self._origin, ob["observation"])


class PointMaze(gymnasium.Wrapper):
    """D4RL's maze2d on gymnasium-robotics' maze.

    Observations are position, in cells of the layout, and velocity; the ball starts near any free
    cell; an episode never ends before its time limit. Rewards: 1 within 0.5 of the goal, or
    exp(-distance) if they are dense. D4RL's ball starts 0.2 beside the origin of its maze, so
    that the centre of cell (i, j) has the coordinates (i - 0.2, j - 0.2).

    Args:
        env: gymnasium-robotics' maze of the layout, transposed and upside down.
        layout: as D4RL has it.
        dense: which rewards.
    """

    def __init__(self, env: Any, layout: tuple[str, ...], dense: bool) -> None:
        super().__init__(env)
        self._dense = dense
        self._starts = np.array(_cells(layout, ".G"), float)
        (goal,) = _cells(layout, "G")
        self.goal = np.array(goal, float)
        corner = env.unwrapped.maze.cell_rowcol_to_xy(np.array([len(layout[0]) - 1, 0]))
        self._origin = corner + 0.2
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed)
        maze, generator = self.env.unwrapped, self.env.unwrapped.np_random
        start = self._starts[generator.integers(len(self._starts))]
        start = start + generator.uniform(-0.1, 0.1, 2)
        speed = 0.1 * generator.standard_normal(2)
        maze.goal = self.goal + self._origin
        maze.point_env.set_state(start + self._origin, speed)
        return np.append(start, speed), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ob, _, _, truncated, _ = self.env.step(action)
        seen = ob["observation"] - np.append(self._origin, np.zeros(2))
        distance = np.linalg.norm(seen[:2] - self.goal)
        reached = float(distance <= _GOAL_RADIUS)
        reward = float(np.exp(-distance)) if self._dense else reached
        return seen, reward, False, truncated, {"success": reached}

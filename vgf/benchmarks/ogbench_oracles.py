"""Record OGBench's datasets with the benchmark's own scripted oracles.

The procedure is the benchmark's; only the seeding differs. Every episode has its own seed,
made from the dataset's seed and the episode's number, so that the file does not depend on how
many processes recorded it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.parts import Episode, Parts, make_in_parts, seeded
from ..data.provenance import read_json, same_making, versions
from ..spec.types import Array
from ..support.callbacks import Progress, Say
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import write_atomically

TRAINING, VALIDATION = 0, 1
_DTYPES = {"terminals": np.bool_, "button_states": np.int64}
_MAXIMUM_ATTEMPTS = 100


@dataclass(frozen=True)
class Recipe:
    """How the benchmark records a dataset.

    Args:
        dataset: its name, such as "cube-single-play-v0".
        environment: such as "cube-single".
        kind: "navigate" (one random goal after another) or "stitch" (one goal four cells away)
            for pointmaze; "play" (plans followed with correlated noise) or "noisy" (a closed-loop
            oracle with noise) for manipulation.
        episodes: training episodes; a tenth as many are recorded for validation.
        steps: simulator steps of an episode. The last row is dropped on loading.
        noise: standard deviation of the action noise: of each action (pointmaze), of the plan
            (play), or the largest one, drawn for each episode (noisy).
        random_action: the probability of a uniform action instead of the oracle's.
    """

    dataset: str
    environment: str
    kind: str
    episodes: int
    steps: int
    noise: float
    random_action: float = 0.0


# Manipulation environments with more episodes than 1,000.
_LARGE = {"cube-triple": 3000, "puzzle-4x5": 3000, "cube-quadruple": 5000, "puzzle-4x6": 5000}


def recipe_for(dataset: str) -> Recipe | None:
    """The recipe of a dataset, or None if OGBench ships no oracle (ant and humanoid).

    Source:
        OGBench's commands that reproduce its datasets.
    """
    environment, _, kind = dataset.removesuffix("-v0").rpartition("-")
    family = environment.split("-")[0]
    if family == "pointmaze" and kind == "navigate":
        episodes, steps = (500, 2001) if environment.endswith("giant") else (1000, 1001)
        return Recipe(dataset, environment, kind, episodes, steps, noise=0.5)
    if family == "pointmaze" and kind == "stitch":
        return Recipe(dataset, environment, kind, 5000, 201, noise=0.5)
    if family in ("cube", "scene", "puzzle") and kind in ("play", "noisy"):
        episodes = _LARGE.get(environment, 1000)
        noisy = 0.2 if family == "puzzle" else 0.1
        random_action = noisy if kind == "noisy" else 0.0
        return Recipe(dataset, environment, kind, episodes, 1001, 0.1, random_action)
    return None


def generate_ogbench(
    dataset_name: str,
    path: str | Path,
    episodes: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    action_repeat: int = 1,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Path:
    """Record a dataset in OGBench's file format: `path`, its `-val.npz`, and a `.json` beside it.

    The rows are observations, actions, terminals, qpos, qvel and, if there are buttons,
    button_states, all from before the step. With `action_repeat`, the benchmark's procedure runs
    on the environment in which each decision is held for that many simulator steps
    (:class:`~vgf.benchmarks.ogbench_environment.ActionRepeat`): the oracle decides, and a row is
    recorded, once for each block, and a goal is reached when it is at the end of a block. Episodes
    keep their length in simulator steps: pointmaze's 1,000 make 125 decisions of 8.

    The files depend on the arguments `dataset_name`, `episodes`, `seed` and `action_repeat`
    alone, and on the versions in the `.json`; not on `workers`. A dataset of fewer episodes begins
    with the same episodes. The validation file is written first, so that an existing `path` has
    one. While they are made, finished episodes are kept beside them, and an interrupted recording
    continues from there (:mod:`vgf.data.parts`).

    Args:
        dataset_name: such as "pointmaze-medium-navigate-v0".
        path: of the training file, ending in ".npz".
        episodes: training episodes; None for the benchmark's number. Validation gets a tenth, at
            least one.
        seed: 0 or more.
        workers: processes; None for one on each core, 1 to record in this one.
        action_repeat: simulator steps for each decision; above 1 for pointmaze only.
        progress: called at the start, and then after each episode.
        say: takes a line for the person at the terminal: what is kept, or continued from.

    Returns:
        The path of the training file.

    Raises:
        VGFError: a dataset that no oracle can record, a wrong number, a missing extra, a worker
            that died, or a file that cannot be written.

    Source:
        OGBench's scripts that generate its datasets.
    """
    path = Path(path)
    recipe = recipe_for(dataset_name)
    if recipe is None:
        raise VGFError(
            f"{dataset_name} cannot be generated: OGBench ships oracles for pointmaze (navigate, "
            "stitch) and for cube, scene and puzzle (play, noisy) only"
        )
    if path.suffix != ".npz":
        raise VGFError(f"{path} must end in .npz")
    numbers = {"episodes": episodes, "workers": workers, "action_repeat": action_repeat}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise VGFError(f"{name} is {value}; it must be 1 or more")
    if seed < 0:
        raise VGFError(f"seed is {seed}; it must be 0 or more")
    if action_repeat > 1 and not recipe.environment.startswith("pointmaze"):
        raise VGFError(
            f"action_repeat {action_repeat} is for pointmaze: the oracle of {recipe.environment} "
            "plans single simulator steps; use action_repeat 1"
        )
    need("ogbench", "envs")

    training = recipe.episodes if episodes is None else episodes
    validation = validation_episodes(training)
    made_of = provenance(recipe, training, seed, action_repeat)

    def write(parts: Parts) -> None:
        path.unlink(missing_ok=True)  # so that a file never has another's .json beside it
        with parts.fresh(path.with_name(f"{path.stem}-val.npz")) as fresh:
            parts.write_npz(fresh, stop=validation)
        write_atomically(path.with_suffix(".json"), json.dumps(made_of, indent=2) + "\n")
        with parts.fresh(path) as fresh:
            parts.write_npz(fresh, first=validation)

    make_in_parts(
        path,
        made_of,
        validation + training,
        OGBenchRecorder(recipe, action_repeat, seed, validation),
        write,
        lambda: is_made(path, made_of),
        label=f"generating {dataset_name}",
        workers=workers,
        progress=progress,
        say=say,
    )
    return path


def validation_episodes(training: int) -> int:
    """How many validation episodes a dataset has: a tenth, and at least one."""
    return max(1, training // 10)


def provenance(recipe: Recipe, episodes: int, seed: int, action_repeat: int) -> dict[str, Any]:
    """All that a generated file depends on: the contents of the ``.json`` beside it."""
    return {
        "recipe": asdict(recipe),
        "episodes": episodes,
        "seed": seed,
        "action_repeat": action_repeat,
        "versions": versions("vgf", "ogbench", "mujoco", "gymnasium", "numpy"),
    }


def is_made(path: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether a generated file and its validation file exist, with this provenance."""
    files = (path, path.with_name(f"{path.stem}-val.npz"))
    there = all(file.exists() for file in files)
    return there and same_making(read_json(path.with_suffix(".json")), made_of)


@dataclass(frozen=True)
class OGBenchRecorder:
    """Records the episodes of a dataset, the first ones for validation.

    Args:
        recipe: of the dataset.
        action_repeat: simulator steps for each decision.
        seed: of the dataset.
        validation: episodes for validation.
    """

    recipe: Recipe
    action_repeat: int
    seed: int
    validation: int

    def start(self) -> Callable[[int], Episode]:
        """A function from an episode's number to its rows."""
        record = make_recorder(self.recipe, self.action_repeat)

        def episode(number: int) -> Episode:
            training = number >= self.validation
            split = TRAINING if training else VALIDATION
            with seeded([self.seed, split, number - self.validation * training]) as seed:
                return record(seed)

        return episode


# --- episodes -----------------------------------------------------------------------------------


def make_recorder(recipe: Recipe, action_repeat: int = 1) -> Callable[[int], Episode]:
    """A function from a seed to an episode; it draws from NumPy's global generator too."""
    from .ogbench_environment import make_ogbench_env

    maze = recipe.environment.startswith("pointmaze")
    options: dict[str, Any] = {} if maze else {"mode": "data_collection"}
    env = make_ogbench_env(
        recipe.dataset,
        action_repeat=action_repeat,
        terminate_at_goal=False,
        max_episode_steps=recipe.steps,
        **options,
    )
    if maze:
        return functools.partial(_maze_episode, env, recipe, _Maze(env.unwrapped))
    return functools.partial(_manipulation_episode, env, recipe, _oracles(env, recipe))


def _decisions_of(seed: int) -> np.random.Generator:
    """The generator for what the recorder draws itself; the environment gets only `seed`."""
    return np.random.default_rng([seed, 1])


class _Rows:
    """The rows of one episode."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Any]] = {}

    def add(self, ob: Array, action: Array, done: bool, info: dict[str, Any]) -> None:
        row = {
            "observations": ob,
            "actions": action,
            "terminals": done,
            "qpos": info["prev_qpos"],
            "qvel": info["prev_qvel"],
        }
        if "prev_button_states" in info:
            row["button_states"] = info["prev_button_states"]
        for key, value in row.items():
            self._rows.setdefault(key, []).append(value)

    def arrays(self) -> Episode:
        return {
            key: np.array(values, dtype=_DTYPES.get(key, np.float32))
            for key, values in self._rows.items()
        }


class _Maze:
    """The cells of a maze, and the oracle's path through them."""

    def __init__(self, env: Any) -> None:
        self._env = env
        grid = env.maze_map
        self.free = [(int(i), int(j)) for i, j in np.argwhere(grid == 0)]
        self.junctions = [cell for cell in self.free if not self._is_corridor(grid, cell)]
        self.way = functools.cache(self._way)

    @staticmethod
    def _is_corridor(grid: Array, cell: tuple[int, int]) -> bool:
        """Whether a free cell can only be left in two opposite directions."""
        i, j = cell
        vertical = (grid[i - 1, j] == 0, grid[i + 1, j] == 0)
        horizontal = (grid[i, j - 1] == 0, grid[i, j + 1] == 0)
        return (all(vertical) and not any(horizontal)) or (all(horizontal) and not any(vertical))

    def _way(self, cell: tuple[int, int], goal: tuple[int, int]) -> Array:
        """The centre of the next cell on the shortest path from a cell to a goal."""
        position, _ = self._env.get_oracle_subgoal(
            self._env.ij_to_xy(cell), self._env.ij_to_xy(goal)
        )
        return position

    def at_distance(self, cell: tuple[int, int], steps: int) -> list[tuple[int, int]]:
        """The cells that are `steps` cells away, along the shortest path."""
        centre = self._env.ij_to_xy(cell)
        _, distances = self._env.get_oracle_subgoal(centre, centre)
        return [(int(i), int(j)) for i, j in np.argwhere(distances == steps)]


def _maze_episode(env: Any, recipe: Recipe, maze: _Maze, seed: int) -> Episode:
    """The oracle walks towards the next cell on its way to the goal, with Gaussian noise."""
    rng = _decisions_of(seed)
    point = env.unwrapped
    start = maze.free[rng.integers(len(maze.free))]
    choices = maze.at_distance(start, 4) if recipe.kind == "stitch" else maze.junctions
    goal = choices[rng.integers(len(choices))] if choices else start
    ob, _ = env.reset(seed=seed, options={"task_info": {"init_ij": start, "goal_ij": goal}})

    rows, done = _Rows(), False
    while not done:
        position = point.get_xy()
        towards = maze.way(point.xy_to_ij(position), point.xy_to_ij(point.cur_goal_xy)) - position
        direction = towards / (np.linalg.norm(towards) + 1e-6)
        action = np.clip(direction + rng.normal(0.0, recipe.noise, direction.shape), -1.0, 1.0)
        next_ob, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        if info["success"] and recipe.kind == "navigate":
            goal = maze.junctions[rng.integers(len(maze.junctions))]
            point.set_goal(goal_xy=point.add_noise(point.ij_to_xy(goal)))
        rows.add(ob, action, done, info)
        ob = next_ob
    return rows.arrays()


def _oracles(env: Any, recipe: Recipe) -> dict[str, Any]:
    """The benchmark's oracle for each kind of target in an environment."""
    family = recipe.environment.split("-")[0]
    targets = {"cube": ["cube"], "puzzle": ["button"]}.get(
        family, ["cube", "button", "drawer", "window"]
    )
    style = "plan" if recipe.kind == "play" else "markov"
    oracles = {}
    for target in targets:
        module = need(f"ogbench.manipspace.oracles.{style}.{target}_{style}", "envs")
        oracle = getattr(module, f"{target.capitalize()}{style.capitalize()}Oracle")
        options: dict[str, Any] = {"env": env}
        if style == "plan":
            options |= {"noise": recipe.noise, "noise_smoothing": 0.5}
        else:
            options |= {"min_norm": 0.4}
            if (family, target) == ("scene", "cube"):
                options["max_step"] = 100
        if family == "puzzle":
            options["gripper_always_closed"] = True
        oracles[target] = oracle(**options)
    return oracles


# The range from which each episode draws the probability of stacking a cube on another.
_STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
}


def _manipulation_episode(env: Any, recipe: Recipe, oracles: dict[str, Any], seed: int) -> Episode:
    """The oracle goes from one random target to the next; scenes that lose the cube are retried."""
    rng = _decisions_of(seed)
    env.reset(seed=seed)
    for _ in range(_MAXIMUM_ATTEMPTS):
        episode = _manipulation_attempt(env, recipe, oracles, rng)
        if recipe.environment != "scene" or _cube_in_sight(episode["qpos"]):
            return episode
    raise VGFError(f"{recipe.dataset}: {_MAXIMUM_ATTEMPTS} episodes in a row lost the cube")


def _manipulation_attempt(
    env: Any, recipe: Recipe, oracles: dict[str, Any], rng: np.random.Generator
) -> Episode:
    ob, info = env.reset()
    stacking = rng.uniform(*_STACKING.get(recipe.environment, (0.5, 0.5)))
    noise = rng.uniform(0.0, recipe.noise) * np.array([1.0, 1.0, 1.0, 3.0, 10.0])
    oracle = oracles[info["privileged/target_task"]]
    oracle.reset(ob, info)

    rows, done = _Rows(), False
    while not done:
        if rng.random() < recipe.random_action:
            action = rng.uniform(-1.0, 1.0, size=5)
        else:
            action = np.array(oracle.select_action(ob, info))
            if recipe.kind == "noisy":
                action = action + rng.normal(0.0, noise)
        action = np.clip(action, -1.0, 1.0)
        next_ob, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        if oracle.done:
            target_ob, target_info = env.unwrapped.set_new_target(p_stack=stacking)
            oracle = oracles[target_info["privileged/target_task"]]
            oracle.reset(target_ob, target_info)
        rows.add(ob, action, done, info)
        ob = next_ob
    return rows.arrays()


def _cube_in_sight(qpos: Array) -> bool:
    """Whether a scene's cube stays visible, or is in the drawer."""
    _, y, z = qpos[:, 14:17].T
    too_far_right = y >= 0.29
    too_far_left = (y <= -0.3) & ((z < 0.06) | (z > 0.08))
    return not bool((too_far_right | too_far_left).any())

"""Record a data set from any gymnasium environment with Box spaces, with a given policy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.common import Progress, Say
from ..data.parts import Episode, make_in_parts, seeded, versions
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import is_installed, need
from ..support.suggestions import nearest
from .formats import Output
from .policies import Act, Policy


@dataclass(frozen=True)
class Collection:
    """What is to be recorded; the episodes depend on nothing else.

    Args:
        environment: a gymnasium id, "Hopper-v5" or "module:Hopper-v5".
        policy: that acts.
        noise: standard deviation of the Gaussian noise that is added to each action, in units of
            half the width of the action's box; the noisy action is clipped to the box.
        seed: 0 or more.
        max_episode_steps: after which an episode is cut; None for the environment's own limit.
    """

    environment: str
    policy: Policy
    noise: float = 0.0
    seed: int = 0
    max_episode_steps: int | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.noise) and self.noise >= 0.0):
            raise VGFError(f"noise is {self.noise}; it must be 0 or more")
        if self.seed < 0:
            raise VGFError(f"seed is {self.seed}; it must be 0 or more")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise VGFError(f"max_episode_steps is {self.max_episode_steps}; it must be 1 or more")

    def record(self, episodes: int) -> dict[str, Any]:
        """All that a data set of so many episodes depends on, as JSON holds it."""
        modules = ("gymnasium", "mujoco", "gymnasium_robotics", "ogbench")
        packages = [name.replace("_", "-") for name in modules if is_installed(name)]
        return {
            "environment": self.environment,
            "policy": self.policy.record(),
            "noise": self.noise,
            "episodes": episodes,
            "seed": self.seed,
            "max_episode_steps": self.max_episode_steps,
            "versions": versions("numpy", *packages),
        }

    def start(self) -> Callable[[int], Episode]:
        """A function from an episode's number to its rows."""
        env = make_box_env(self.environment, self.max_episode_steps)
        act = self.policy.start(env)

        def episode(number: int) -> Episode:
            with seeded([self.seed, number]) as seed:
                return _episode(env, act, self, seed)

        return episode


def collect(
    collection: Collection,
    output: Output,
    episodes: int,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> None:
    """Record a data set, or go on with one whose making was cut off (:mod:`vgf.data.parts`).

    The data depend on `collection` and `episodes`, and on the versions that are recorded with
    them; not on `workers`. A data set of fewer episodes begins with the same episodes.

    The rows are observations (dicts and tuples of boxes as one vector), actions (as they were
    carried out, in the environment's units), rewards, terminals (the task is done), timeouts (a
    time limit cut the episode) and next_observations.

    Args:
        collection: what to record.
        output: the data set to write.
        episodes: how many.
        workers: processes; None for one on each core, 1 to record in this one.
        progress: called first, and then after each episode.
        say: takes a line for the person at the terminal.

    Raises:
        VGFError: an environment that is unknown or whose spaces do not fit, a policy or an
            environment that fails, a wrong number, or a file that cannot be written.
    """
    for name, value in {"episodes": episodes, "workers": workers}.items():
        if value is not None and value < 1:
            raise VGFError(f"{name} is {value}; it must be 1 or more")
    with contextlib.closing(
        make_box_env(collection.environment, collection.max_episode_steps)
    ) as env:
        collection.policy.start(env)
    record = collection.record(episodes)
    make_in_parts(
        output.place,
        record,
        episodes,
        collection,
        lambda parts: output.write(parts, record),
        lambda: output.is_made(record),
        label=f"recording {collection.environment}",
        workers=workers,
        progress=progress,
        say=say,
    )


def make_box_env(name: str, max_episode_steps: int | None = None) -> Any:
    """Make a gymnasium environment whose actions are a bounded vector and that has a time limit.

    Args:
        name: a gymnasium id, "Hopper-v5" or "module:Hopper-v5".
        max_episode_steps: after which an episode is cut; None for the environment's own limit.

    Raises:
        VGFError: an unknown or broken environment, other spaces, or no time limit.
    """
    gymnasium = need("gymnasium", "envs")
    from ..benchmarks.environments import check_spaces, find_spec, quiet, registered

    options = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    if find_spec(name) is None:
        near = nearest(name.rpartition(":")[2], registered())
        hint = f"did you mean {near}?" if near else "MODULE:ID imports the module that has it"
        raise VGFError(f"gymnasium has no environment {name}; {hint}")
    try:
        with quiet():
            env = gymnasium.make(name, disable_env_checker=True, **options)
    except Exception as error:  # whatever a simulator raises where a part of it is missing
        text = " ".join(str(error).split()) or type(error).__name__
        raise VGFError(f"gymnasium cannot make {name}: {text}") from error
    try:
        check_spaces(env.observation_space, env.action_space, name)
        if env.spec is None or env.spec.max_episode_steps is None:
            raise VGFError(f"{name} has no time limit; give one with --max-episode-steps")
    except VGFError:
        env.close()
        raise
    return env


def _episode(env: Any, act: Act, collection: Collection, seed: int) -> Episode:
    """One episode, from a seeded reset to its end."""
    from ..benchmarks.environments import flatten

    rng = np.random.default_rng([seed, 1])
    box = env.action_space
    half = (box.high.astype(np.float64) - box.low) / 2.0
    env.action_space.seed(seed)
    seen = functools.partial(flatten, env.observation_space, batch=())
    observation = seen(env.reset(seed=seed)[0])
    rows: dict[str, list[Any]] = {
        key: []
        for key in (
            "observations",
            "actions",
            "rewards",
            "terminals",
            "timeouts",
            "next_observations",
        )
    }
    done = False
    while not done:
        action = act(np.array(observation), rng)
        if collection.noise > 0.0:
            action = action + collection.noise * half * rng.standard_normal(half.shape)
        action = np.clip(action, box.low, box.high).astype(box.dtype)
        reached, reward, terminated, truncated, _ = env.step(action)
        done, following = terminated or truncated, seen(reached)
        row = (observation, action, reward, terminated, truncated, following)
        for key, value in zip(rows, row, strict=True):
            rows[key].append(np.array(value))
        observation = following
    return _checked(rows, collection.environment)


def _checked(rows: dict[str, list[Any]], environment: str) -> Episode:
    """Rows as arrays, with their numbers checked."""
    episode: dict[str, Array] = {
        "observations": np.array(rows["observations"]),
        "actions": np.array(rows["actions"]),
        "rewards": np.array(rows["rewards"], np.float64),
        "terminals": np.array(rows["terminals"], bool),
        "timeouts": np.array(rows["timeouts"], bool),
        "next_observations": np.array(rows["next_observations"]),
    }
    for key, array in episode.items():
        if not np.isfinite(array).all():
            raise VGFError(f"{environment}: its {key} became NaN or infinite in an episode")
    return episode

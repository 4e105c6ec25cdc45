"""Record a data set from any gymnasium environment with Box spaces, with a given policy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.parts import Episode, make_in_parts, seeded
from ..data.provenance import versions
from ..spec.types import Array
from ..support.callbacks import Progress, Say
from ..support.errors import VGFError
from ..support.extras import is_installed
from .formats import Output
from .policies import Act, BehaviourPolicy

# Of an episode, in order.
KEYS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
# How long one step or reset of an environment may take, in seconds.
STEP_TIMEOUT = 300.0


@dataclass(frozen=True)
class Collection:
    """What to record; the episodes depend on nothing else, and not on `step_timeout`.

    Args:
        environment: a gymnasium id, "Hopper-v5" or "module:Hopper-v5".
        policy: the policy that acts.
        noise: standard deviation of the Gaussian noise that is added to each action, in units of
            half the width of the action's box; the noisy action is clipped to the box.
        seed: 0 or more.
        max_episode_steps: after which an episode is cut; None for the environment's own limit.
        step_timeout: seconds that one step or reset may take; None is no limit.
    """

    environment: str
    policy: BehaviourPolicy
    noise: float = 0.0
    seed: int = 0
    max_episode_steps: int | None = None
    step_timeout: float | None = STEP_TIMEOUT

    def __post_init__(self) -> None:
        if not (np.isfinite(self.noise) and self.noise >= 0.0):
            raise VGFError(f"noise is {self.noise}; it must be 0 or more")
        if self.seed < 0:
            raise VGFError(f"seed is {self.seed}; it must be 0 or more")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise VGFError(f"max_episode_steps is {self.max_episode_steps}; it must be 1 or more")
        if self.step_timeout is not None and not self.step_timeout > 0.0:
            raise VGFError(f"step_timeout is {self.step_timeout}; it must be above 0")

    def provenance(self, episodes: int) -> dict[str, Any]:
        """All that a data set of this many episodes depends on, in JSON's types."""
        modules = ("gymnasium", "mujoco", "gymnasium_robotics", "ogbench")
        packages = [name.replace("_", "-") for name in modules if is_installed(name)]
        return {
            "environment": self.environment,
            "policy": self.policy.provenance(),
            "noise": self.noise,
            "episodes": episodes,
            "seed": self.seed,
            "max_episode_steps": self.max_episode_steps,
            "versions": versions("numpy", *packages),
        }

    def start(self) -> Callable[[int], Episode]:
        """A function from an episode's number to its rows."""
        from ..environments.making import make_box_env

        env = make_box_env(self.environment, self.max_episode_steps)
        act = self.policy.start(env)

        def episode(number: int) -> Episode:
            with seeded([self.seed, number]) as seed:
                return _episode(env, act, self, number, seed)

        return episode


def collect(
    collection: Collection,
    output: Output,
    episodes: int,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> None:
    """Record a data set, or continue one that was cut off (:mod:`vgf.data.parts`).

    The data depend on `collection` and `episodes`, and on the versions that are recorded with
    them; not on `workers`. A data set of fewer episodes begins with the same episodes.

    The rows are observations (dicts and tuples of boxes as one vector), actions (as carried out, in
    the environment's units), rewards, terminals (the task is done), timeouts (a
    time limit cut the episode) and next_observations.

    Args:
        collection: what to record.
        output: the data set to write.
        episodes: how many.
        workers: processes; None for one on each core, 1 to record in this one.
        progress: called at the start, and then after each episode.
        say: takes a line for the person at the terminal.

    Raises:
        VGFError: an environment that is unknown or whose spaces do not fit, a policy or an
            environment that fails, a wrong number, or a file that cannot be written.
    """
    from ..environments.making import make_box_env
    from ..environments.pool import closing

    for name, value in {"episodes": episodes, "workers": workers}.items():
        if value is not None and value < 1:
            raise VGFError(f"{name} is {value}; it must be 1 or more")
    with closing(make_box_env(collection.environment, collection.max_episode_steps)) as env:
        collection.policy.start(env)
    provenance = collection.provenance(episodes)
    make_in_parts(
        output.place,
        provenance,
        episodes,
        collection,
        lambda parts: output.write(parts, provenance),
        lambda: output.is_made(provenance),
        label=f"recording {collection.environment}",
        workers=workers,
        progress=progress,
        say=say,
    )


@dataclass(frozen=True)
class CollectionMaking:
    """A data set recorded with a policy, as `vgf data make` makes it.

    Args:
        collection: what to record.
        output: the data set to write.
        episodes: how many.
        workers: processes; None for one on each core.
    """

    collection: Collection
    output: Output
    episodes: int
    workers: int | None = None

    @property
    def place(self) -> Path:
        """The file, or for Minari the folder."""
        return self.output.place

    @property
    def description(self) -> str:
        """The file or folder, in words."""
        return str(self.place)

    def exists(self) -> bool:
        """Whether something already exists there."""
        return self.output.exists()

    def is_made(self) -> bool:
        """Whether this same data set already exists."""
        return self.output.is_made(self.collection.provenance(self.episodes))

    def make(self, progress: Progress, say: Say) -> None:
        """Record it, or continue one that was cut off."""
        collect(self.collection, self.output, self.episodes, self.workers, progress, say)

    def summary(self) -> tuple[str, ...]:
        """Nothing more to say about it."""
        return ()

    def flags(self) -> list[str]:
        """The flags of `vgf run` that train on it."""
        return self.output.flags(self.collection.environment)


def _episode(env: Any, act: Act, collection: Collection, number: int, seed: int) -> Episode:
    """One episode, from a seeded reset to its end.

    Raises:
        VGFError: the environment raises, does not answer in time, or returns what it must not; the
            message names the episode and the step. Or a policy that fails.
    """
    from ..environments.fitting import flat_size, flatten
    from ..environments.pool import (
        Failure,
        Watch,
        checked_observation,
        checked_reset,
        checked_step,
        tried,
    )

    space, shape = env.observation_space, (flat_size(env.observation_space),)
    watch = Watch(collection.step_timeout)

    def seen(value: Any) -> Array:
        return checked_observation(flatten(space, value, ()), shape)

    def first() -> Array:
        return seen(checked_reset(env.reset(seed=seed)))

    def step(action: Array) -> tuple[Array, float, bool, bool]:
        reached, reward, terminated, truncated, _ = checked_step(env.step(action))
        return seen(reached), reward, terminated, truncated

    def asked(at: str, call: Callable[..., Any], *arguments: Any) -> Any:
        with watch:
            watch.begin(0)
            answer = tried(call, *arguments)
        if isinstance(answer, Failure):
            where = f"{collection.environment}: {at} of episode {number} (seed {seed})"
            raise VGFError(answer.reason if answer.whole else f"{where} {answer.reason}")
        return answer

    rng = np.random.default_rng([seed, 1])
    box = env.action_space
    half = (box.high.astype(np.float64) - box.low) / 2.0
    env.action_space.seed(seed)
    rows: list[tuple[Any, ...]] = []
    with contextlib.closing(watch):
        observation, done = asked("reset", first), False
        while not done:
            action = act(np.array(observation), rng)
            if collection.noise > 0.0:
                action = action + collection.noise * half * rng.standard_normal(half.shape)
            action = np.clip(action, box.low, box.high).astype(box.dtype)
            at = f"step {len(rows) + 1}"
            following, reward, terminated, truncated = asked(at, step, action)
            rows.append((observation, action, reward, terminated, truncated, following))
            observation, done = following, terminated or truncated
    columns = dict(zip(KEYS, zip(*rows, strict=True), strict=True))
    return {key: np.array(column) for key, column in columns.items()}

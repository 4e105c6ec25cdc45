"""Record a data set from any gymnasium environment with Box spaces, with a given policy."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import nearest
from ..errors import VGFError
from ..extras import is_installed, need
from ..spec.types import Array
from .common import Progress, Say
from .formats import Output
from .parts import Episode, make_in_parts, seeded, versions
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

    The rows are observations, actions (as they were carried out, in the environment's units),
    rewards, terminals (the task is done), timeouts (a time limit cut the episode) and
    next_observations.

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
    """Make a gymnasium environment with flat Box observations and a bounded Box of actions.

    Observations that are a dict or a tuple of boxes are flattened.

    Args:
        name: a gymnasium id, "Hopper-v5" or "module:Hopper-v5".
        max_episode_steps: after which an episode is cut; None for the environment's own limit.

    Raises:
        VGFError: an unknown or broken environment, other spaces, or no time limit.
    """
    gymnasium = need("gymnasium", "envs")
    options = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _register(gymnasium, name)
            env = gymnasium.make(name, disable_env_checker=True, **options)
    except gymnasium.error.UnregisteredEnv as error:
        near = nearest(name, list(gymnasium.registry))
        hint = f"did you mean {near}?" if near else "MODULE:ID imports the module that has it"
        raise VGFError(f"gymnasium has no environment {name}; {hint}") from error
    except (gymnasium.error.Error, ImportError, AttributeError, TypeError) as error:
        text = " ".join(str(error).split())
        raise VGFError(f"gymnasium cannot make {name}: {text}") from error
    try:
        return _with_boxes(gymnasium, env, name)
    except VGFError:
        env.close()
        raise


def _register(gymnasium: Any, name: str) -> None:
    """Let the packages here that bring environments register them, where `name` needs one."""
    for module in ("gymnasium_robotics", "ogbench"):
        if ":" not in name and name not in gymnasium.registry and is_installed(module):
            gymnasium.register_envs(need(module, "envs"))


def _with_boxes(gymnasium: Any, env: Any, name: str) -> Any:
    """Flatten observations, and check the spaces and the time limit."""
    spaces = gymnasium.spaces
    seen, actions = env.observation_space, env.action_space
    if isinstance(seen, spaces.Dict | spaces.Tuple) and all(map(_is_box, _leaves(seen))):
        env = gymnasium.wrappers.FlattenObservation(env)
        seen = env.observation_space
    if not (_is_box(seen) and len(seen.shape) == 1):
        raise VGFError(
            f"{name}: its observations are {seen}; only vectors can be recorded, "
            "Box spaces of one axis"
        )
    if not (_is_box(actions) and len(actions.shape) == 1):
        raise VGFError(f"{name}: its actions are {actions}; only a Box of one axis can be recorded")
    if not actions.is_bounded():
        raise VGFError(f"{name}: its actions have no bounds: {actions}; wrap it in RescaleAction")
    if env.spec is None or env.spec.max_episode_steps is None:
        raise VGFError(f"{name} has no time limit; give one with --max-episode-steps")
    return env


def _is_box(space: Any) -> bool:
    return type(space).__name__ == "Box"


def _leaves(space: Any) -> Iterator[Any]:
    """The spaces that a dict or tuple of spaces is made of."""
    inner = getattr(space, "spaces", None)
    if inner is None:
        yield space
        return
    for part in inner.values() if hasattr(inner, "values") else inner:
        yield from _leaves(part)


def _episode(env: Any, act: Act, collection: Collection, seed: int) -> Episode:
    """One episode, from a seeded reset to its end."""
    rng = np.random.default_rng([seed, 1])
    box = env.action_space
    half = (box.high.astype(np.float64) - box.low) / 2.0
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    rows: dict[str, list[Any]] = {
        key: [] for key in ("observations", "actions", "rewards", "terminals", "timeouts",
                            "next_observations")
    }  # fmt: skip
    done = False
    while not done:
        action = act(np.array(observation), rng)
        if collection.noise > 0.0:
            action = action + collection.noise * half * rng.standard_normal(half.shape)
        action = np.clip(action, box.low, box.high).astype(box.dtype)
        following, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
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

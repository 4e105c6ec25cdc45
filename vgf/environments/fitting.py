"""One form for every environment: vectors in, actions in [-1, 1] out, reproducible from a seed.

This module imports gymnasium; import it inside the functions that use it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import need

# The simulators' windows warn about a missing display (nothing here renders), and gymnasium about
# the float32 bounds of action boxes and about superseded versions.
warnings.filterwarnings("ignore", module="glfw")
warnings.filterwarnings("ignore", message=".*is out of date. You should consider upgrading")
warnings.filterwarnings("ignore", message=".*precision lowered by casting to float32")

gymnasium = need("gymnasium", "envs")


class OwnGenerator(gymnasium.Wrapper):  # type: ignore[name-defined]
    """Give an environment its own NumPy global generator.

    Some of OGBench's environments draw from NumPy's global generator (pointmaze its start states,
    the teleport mazes their exits), which no seed of `reset` reaches, and from an action space
    that nothing seeds. Here `reset(seed=...)` seeds all of them, and what one environment
    draws changes nothing for another or for the caller. (Exchanging the generator takes longer than
    a step of pointmaze, so steps do it only in the teleport mazes, the only ones that draw there.)

    Args:
        env: the environment.
        seed: of the first `reset` that has no seed of its own.
    """

    def __init__(self, env: Any, seed: int | None = None) -> None:
        super().__init__(env)
        self._first_seed = seed
        self._state = np.random.RandomState(seed).get_state()
        self._draws_in_steps = getattr(env.unwrapped, "_teleport_info", None) is not None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is None:
            seed, self._first_seed = self._first_seed, None
        if seed is not None:
            self._state = np.random.RandomState(seed).get_state()
            self.env.unwrapped.action_space.seed(seed)
        with self._own_generator():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self._draws_in_steps:
            return self.env.step(action)
        with self._own_generator():
            return self.env.step(action)

    @contextmanager
    def _own_generator(self) -> Iterator[None]:
        outside = np.random.get_state()
        np.random.set_state(self._state)
        try:
            yield
        finally:
            self._state = np.random.get_state()
            np.random.set_state(outside)


def fit(env: Any, seed: int | None = None) -> Any:
    """An environment in the form that training and evaluation need.

    Observations that are dicts or arrays of boxes become one vector, as :func:`flatten` makes it;
    actions are rescaled from the environment's box to [-1, 1]; `reset(seed=...)` seeds everything.

    Args:
        env: a gymnasium environment.
        seed: of the first `reset` without its own seed.

    Raises:
        VGFError: observations or actions that are not vectors of numbers.
    """
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    check_spaces(env.observation_space, env.action_space, name)
    space = env.observation_space
    if getattr(space, "shape", None) is None or len(space.shape) != 1:
        size = flat_size(space)
        box = gymnasium.spaces.Box(-np.inf, np.inf, (size,))
        flat = lambda ob: flatten(space, ob, ())
        env = gymnasium.wrappers.TransformObservation(env, flat, box)
    low, high = env.action_space.low, env.action_space.high
    if not (np.all(low == -1.0) and np.all(high == 1.0)):
        env = gymnasium.wrappers.RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    return OwnGenerator(env, seed)


def check_spaces(observations: Any, actions: Any, name: str) -> None:
    """Check that observations are numbers, and actions a vector with bounds.

    Raises:
        VGFError: pixels, discrete actions, or something else; the message names the environment.
    """
    spaces = gymnasium.spaces
    for leaf in leaves(observations):
        if not isinstance(leaf, spaces.Box):
            raise VGFError(
                f"{name}: observations are {observations}; only boxes and dicts of boxes can be "
                "used"
            )
        if len(leaf.shape) > 1 and np.issubdtype(leaf.dtype, np.unsignedinteger):
            raise VGFError(f"{name} is seen in pixels, {list(leaf.shape)}; only states can be used")
    if not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
        raise VGFError(f"{name}: actions are {actions}; only vectors of numbers can be used")
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise VGFError(f"{name}: actions are {actions}; they must have bounds")


def leaves(space: Any) -> list[Any]:
    """The spaces in a space, in gymnasium's order: those in a dict or tuple, recursively."""
    if isinstance(space, gymnasium.spaces.Dict):
        return [leaf for part in space.spaces.values() for leaf in leaves(part)]
    if isinstance(space, gymnasium.spaces.Tuple):
        return [leaf for part in space.spaces for leaf in leaves(part)]
    return [space]


def flat_size(space: Any) -> int:
    """The size of a flattened observation."""
    return int(sum(np.prod(leaf.shape, dtype=int) for leaf in leaves(space)))


def flatten(space: Any, value: Any, batch: tuple[int, ...]) -> Array:
    """Observations of a space as vectors ``[*batch, o]``, parts in gymnasium's order.

    Args:
        space: of one observation.
        value: an array, or dicts and tuples of arrays, each with the leading axes `batch`.
        batch: these axes; () for one observation.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        parts = [flatten(part, value[key], batch) for key, part in space.spaces.items()]
        return np.concatenate(parts, axis=-1)
    if isinstance(space, gymnasium.spaces.Tuple):
        parts = [flatten(p, v, batch) for p, v in zip(space.spaces, value, strict=True)]
        return np.concatenate(parts, axis=-1)
    return np.asarray(value).reshape(*batch, -1)

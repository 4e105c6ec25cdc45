"""Environments in one form: vectors in, actions in [-1, 1] out, and reproducible from a seed.

OGBench's have optional action repeat; gymnasium's, Minari's and D4RL's own are fitted by
:func:`fit`. This module imports gymnasium; import it inside the functions that use it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import is_installed, need

# The simulators' windows warn about a missing display (nothing here renders), and gymnasium about
# the float32 bounds of OGBench's action boxes and about versions that were superseded.
warnings.filterwarnings("ignore", module="glfw")
warnings.filterwarnings("ignore", message=".*is out of date. You should consider upgrading")
warnings.filterwarnings("ignore", message=".*precision lowered by casting to float32")

gymnasium = need("gymnasium", "envs")


class OwnGenerator(gymnasium.Wrapper):  # type: ignore[name-defined]
    """Give an environment a NumPy global generator of its own.

    Some of OGBench's environments draw from NumPy's global generator (pointmaze its start states,
    the teleport mazes their exits), which no seed of `reset` reaches, and from an action space
    that nothing seeds. Here `reset(seed=...)` seeds all of them, and what one environment draws
    changes nothing for another, nor for the caller. (Exchanging the generator takes longer than a
    step of pointmaze, so steps do it in the teleport mazes only, the only ones that draw there.)

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


class ActionRepeat(gymnasium.Wrapper):  # type: ignore[name-defined]
    """Hold each decision for several simulator steps.

    Only the states in which a decision is taken count: reward, success and the end of the episode
    come from one simulator step of the block, and a goal that is crossed in the middle of a block
    is not reached. Where the environment tests s (OGBench's single tasks) that is the first step
    of the block, so a decision taken at the goal ends the episode without being carried out;
    where it tests s' it is the last. The simulator's time limit may cut the last block short.

    Args:
        env: the environment; it says which state it tests in its attribute `_success_timing`.
        repeat: simulator steps for each decision.
    """

    def __init__(self, env: Any, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat
        self._tests_first = env.unwrapped._success_timing == "pre"

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ob, reward, terminated, truncated, info = self.env.step(action)
        first = (reward, terminated, info)
        rest = 0 if terminated and self._tests_first else self._repeat - 1
        for _ in range(rest):
            if truncated:
                break
            ob, reward, terminated, truncated, info = self.env.step(action)
        # What was recorded before the step is what was recorded before the block.
        before = {key: value for key, value in first[2].items() if key.startswith("prev_")}
        info = info | before
        if self._tests_first:
            reward, terminated = first[:2]
            info["success"] = first[2]["success"]
        return ob, reward, terminated, truncated, info


def make_ogbench_env(
    name: str, seed: int | None = None, action_repeat: int = 1, **options: Any
) -> Any:
    """Make one of OGBench's environments.

    Args:
        name: of a dataset or of a single task, as OGBench spells it.
        seed: of the first `reset` that has no seed of its own.
        action_repeat: simulator steps for each decision; :class:`ActionRepeat`.
        options: of OGBench's environment.
    """
    ogbench = need("ogbench", "envs")
    with _closed_temporary_files():
        env = ogbench.make_env_and_datasets(
            name, env_only=True, disable_env_checker=True, **options
        )
    env = OwnGenerator(env, seed)
    return ActionRepeat(env, action_repeat) if action_repeat > 1 else env


@contextmanager
def _closed_temporary_files() -> Iterator[None]:
    """Close and remove the temporary XML files that are made meanwhile.

    OGBench's mazes write their model to one and leave it open: a few hundred environments in one
    process would use up its file descriptors.
    """
    made: list[tuple[int, str]] = []
    original = tempfile.mkstemp

    def mkstemp(*args: Any, **kwargs: Any) -> tuple[int, str]:
        file = original(*args, **kwargs)
        if kwargs.get("suffix") == ".xml":
            made.append(file)
        return file

    try:
        with mock.patch.object(tempfile, "mkstemp", mkstemp):
            yield
    finally:
        for descriptor, path in made:
            os.close(descriptor)
            os.unlink(path)


# --- other sources ------------------------------------------------------------------------------


def registered() -> Mapping[str, Any]:
    """gymnasium's environments by name, and gymnasium-robotics' where that is installed."""
    if is_installed("gymnasium_robotics"):
        register_robotics()
    return dict(gymnasium.envs.registration.registry)


def find_spec(name: str) -> Any:
    """What gymnasium has registered under a name, or None where it has no such environment.

    Args:
        name: such as "Hopper-v5"; of "module:Name-v0" the module is imported first, from the
            working folder too.

    Raises:
        VGFError: the module cannot be imported.
    """
    module, colon, bare = name.rpartition(":")
    if colon:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise VGFError(
                f"{name}: the module {module or repr(module)} cannot be imported ({reason})"
            ) from error
    return registered().get(bare)


def register_robotics() -> None:
    """Make gymnasium-robotics' environments known to gymnasium.

    Raises:
        VGFError: it is not installed.
    """
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # it prints news
        gymnasium.register_envs(need("gymnasium_robotics", "d4rl"))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks that making an old environment draws.

    gymnasium's, on versions, come through a logger of its own; MuJoCo's, on its model files, would
    go to the terminal and into a file MUJOCO_LOG.TXT in the current folder.
    """
    logger = gymnasium.logger
    level, logger.min_level = logger.min_level, logger.ERROR
    mujoco = need("mujoco", "d4rl") if is_installed("mujoco") else None
    heard = mujoco.get_mju_user_warning() if mujoco else None
    if mujoco:
        mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        logger.min_level = level
        if mujoco:
            mujoco.set_mju_user_warning(heard)


def make_gymnasium_env(name: str, seed: int | None = None, **options: Any) -> Any:
    """Make one of gymnasium's environments, fitted.

    Args:
        name: as gymnasium spells it, such as "Hopper-v5" or "module:Name-v0".
        seed: of the first `reset` that has no seed of its own.
        options: of `gymnasium.make`.

    Raises:
        VGFError: gymnasium cannot make it, or it does not fit; see :func:`fit`.
    """
    find_spec(name)
    return fit(made(name, lambda: gymnasium.make(name, disable_env_checker=True, **options)), seed)


def made(name: str, make: Callable[[], Any]) -> Any:
    """What `make` makes, the environment `name`.

    Raises:
        VGFError: it cannot be made; the message has the reason.
    """
    try:
        with quiet():
            return make()
    except VGFError:
        raise
    except Exception as error:  # whatever a simulator raises where a part of it is missing
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VGFError(
            f"the environment {name} cannot be made here ({reason}); mend that, or train without "
            "evaluation: --env none --data FILE"
        ) from error


def fit(env: Any, seed: int | None = None) -> Any:
    """An environment in the form that training and evaluation want.

    Observations that are dicts or arrays of boxes become one vector, as :func:`flatten` makes it;
    actions are rescaled from the environment's box to [-1, 1]; `reset(seed=...)` seeds everything.

    Args:
        env: a gymnasium environment.
        seed: of the first `reset` that has no seed of its own.

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
    """The spaces in a space, in gymnasium's order: those of a dict or tuple, and of theirs."""
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
        value: an array, or dicts and tuples of arrays, each with the axes `batch` in front.
        batch: these axes; () for one observation.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        parts = [flatten(part, value[key], batch) for key, part in space.spaces.items()]
        return np.concatenate(parts, axis=-1)
    if isinstance(space, gymnasium.spaces.Tuple):
        parts = [flatten(p, v, batch) for p, v in zip(space.spaces, value, strict=True)]
        return np.concatenate(parts, axis=-1)
    return np.asarray(value).reshape(*batch, -1)

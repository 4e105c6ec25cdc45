"""gymnasium's environments by name: find one, and make it.

This module imports gymnasium; import it inside the functions that use it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..support.errors import VGFError
from ..support.extras import installed_version, is_installed, need
from ..support.suggestions import did_you_mean, nearest
from .fitting import check_spaces, fit, gymnasium


def registered() -> Mapping[str, Any]:
    """gymnasium's environments by name, and gymnasium-robotics' if installed."""
    if is_installed("gymnasium_robotics"):
        register_robotics()
    return dict(gymnasium.envs.registration.registry)


def find_spec(name: str) -> Any:
    """What gymnasium has registered under a name, or None if it has no such environment.

    Args:
        name: such as "Hopper-v5"; for "module:Name-v0" the module is imported first, from the
            working folder too.

    Raises:
        VGFError: the module cannot be imported.
    """
    module, colon, bare = name.rpartition(":")
    if colon:
        working_folder_too()
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise VGFError(
                f"{name}: the module {module or repr(module)} cannot be imported ({reason})"
            ) from error
    return registered().get(bare)


def working_folder_too() -> None:
    """Let modules be imported from the working folder too."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def register_robotics() -> None:
    """Make gymnasium-robotics' environments known to gymnasium.

    Raises:
        VGFError: it is not installed.
    """
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # it prints news
        gymnasium.register_envs(need("gymnasium_robotics", "d4rl"))


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the remarks that making an old environment causes.

    gymnasium's, on versions, come through its own logger; MuJoCo's, on its model files, would go to
    the terminal and into a file MUJOCO_LOG.TXT in the current folder.
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
        seed: of the first `reset` without its own seed.
        options: of `gymnasium.make`.

    Raises:
        VGFError: gymnasium cannot make it, or it does not fit; see :func:`fit`.
    """
    find_spec(name)
    return fit(made(name, lambda: gymnasium.make(name, disable_env_checker=True, **options)), seed)


def make_registered(name: str, options: Mapping[str, Any], whose: str, way_out: str) -> Any:
    """An environment that somebody else's data name, as an installed package registered it.

    Unlike :func:`find_spec`, this imports no module for a name.

    Args:
        name: gymnasium's id.
        options: of `gymnasium.make`.
        whose: whose word it is, for the message: "FILE is for".
        way_out: for the message.

    Raises:
        VGFError: no package that is imported here has registered it, or it cannot be made.
    """
    known = registered().get(name)
    if known is None:
        near = did_you_mean(nearest(name, registered()), "no installed package registers it")
        raise VGFError(f"{whose} {name}, which gymnasium does not know here; {near}{way_out}")
    return made(name, lambda: gymnasium.make(known, disable_env_checker=True, **options))


def made(name: str, make: Callable[[], Any]) -> Any:
    """The environment `name`, made by `make`.

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
            f"the environment {name} cannot be made here ({reason}); fix that, or train without "
            "evaluation: --env none --data FILE"
        ) from error


def make_box_env(name: str, max_episode_steps: int | None = None) -> Any:
    """Make a gymnasium environment whose actions are a bounded vector and that has a time limit.

    It is gymnasium's own, not fitted: data are recorded in its own units.

    Args:
        name: a gymnasium id, "Hopper-v5" or "module:Hopper-v5".
        max_episode_steps: after which an episode is cut; None for the environment's own limit.

    Raises:
        VGFError: an unknown or broken environment, other spaces, or no time limit.
    """
    options = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    if find_spec(name) is None:
        near = nearest(name.rpartition(":")[2], registered())
        hint = did_you_mean(near, "MODULE:ID imports the module that has it")
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


def simulator_versions(name: str) -> str:
    """The versions of what one of gymnasium's environments runs on here, in words."""
    known = registered().get(name.rpartition(":")[2])
    entry = str(known.entry_point) if known is not None else ""
    packages = [("gymnasium", "gymnasium")]
    if "robotics" in entry:
        packages.append(("gymnasium-robotics", "gymnasium-robotics"))
    if "robotics" in entry or "mujoco" in entry:
        packages.append(("mujoco", "MuJoCo"))
    return ", ".join(f"{title} {installed_version(package)}" for package, title in packages)

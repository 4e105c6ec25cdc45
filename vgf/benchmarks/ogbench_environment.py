"""OGBench's environments, and one in which each decision is held for several simulator steps.

This module imports gymnasium; import it inside the functions that use it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from ..environments.fitting import OwnGenerator, gymnasium
from ..support.extras import need


class ActionRepeat(gymnasium.Wrapper):
    """Hold each decision for several simulator steps.

    Only the states in which a decision is taken count: reward, success and the end of the episode
    come from one simulator step of the block, and a goal that is only
    crossed in the middle of a block is not reached. Where the environment tests s (OGBench's single
    tasks) that is the first step of the block, so a decision taken at the goal ends the episode
    without being carried out; where it tests s' it is the last. The simulator's time limit may cut
    the last block short.

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
        seed: of the first `reset` without its own seed.
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
    """Close and remove temporary XML files made meanwhile.

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

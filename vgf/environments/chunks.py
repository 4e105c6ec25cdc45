"""Environments that are given several actions at once.

This module imports gymnasium; import it inside the functions that use it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..support.extras import need

gymnasium = need("gymnasium", "envs")


class ActionChunks(gymnasium.Wrapper):  # type: ignore[name-defined]
    """One decision is H actions, taken one after the other without looking.

    The reward of a decision is the sum of its steps' rewards, and its success their largest; it
    ends early where the episode does.

    Args:
        env: in the form of :func:`vgf.environments.fitting.fit`: actions ``[d]`` in [-1, 1].
        size: H; actions are then ``[H d]``, the first step first.
    """

    def __init__(self, env: Any, size: int) -> None:
        super().__init__(env)
        self.size = size
        box = env.action_space
        self.action_space = gymnasium.spaces.Box(
            np.tile(box.low, size), np.tile(box.high, size), dtype=box.dtype
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total, reached = 0.0, []
        for one in np.split(np.asarray(action), self.size):
            observation, reward, terminated, truncated, info = self.env.step(one)
            total += float(reward)
            reached += [info["success"]] if "success" in info else []
            if terminated or truncated:
                break
        if reached:
            info = {**info, "success": max(reached)}
        return observation, total, terminated, truncated, info


def make_chunked(make_env: Any, size: int, seed: int | None) -> ActionChunks:
    """An environment of `make_env`, given chunks; picklable with functools.partial."""
    return ActionChunks(make_env(seed), size)

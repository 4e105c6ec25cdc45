"""Environments that are given several actions at once."""

import functools
import pickle

import numpy as np
import pytest
from needs import need

need("gymnasium")
import gymnasium

from vgf.environments.chunks import ActionChunks, make_chunked


class Walk(gymnasium.Env):
    """The action is added; success is to stand above 1; it ends above 2 or after 7 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        self.at, self.steps = 0.0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.at, self.steps = self.at + float(action[0]), self.steps + 1
        info = {"success": float(1 < self.at < 1.5)}
        return np.array([self.at], np.float32), -1.0, self.at > 2, self.steps == 7, info


def make_walk(seed):
    return Walk()


def test_actions_are_taken_in_turn():
    env = ActionChunks(Walk(), 3)
    env.reset()
    assert env.action_space.shape == (6,)
    observation, reward, terminated, truncated, info = env.step([0.1, 9, 0.2, 9, 0.3, 9])
    assert observation == pytest.approx(0.6)
    assert (reward, terminated, truncated, info["success"]) == (-3.0, False, False, 0.0)
    # success on the way counts, and what follows the end is not taken
    observation, reward, terminated, _, info = env.step([0.6, 0, 0.9, 0, 0.9, 0])
    assert observation == pytest.approx(2.1)
    assert (reward, terminated, info["success"]) == (-2.0, True, 1.0)


def test_it_ends_with_the_episode():
    env = pickle.loads(pickle.dumps(functools.partial(make_chunked, make_walk, 4)))(None)
    env.reset()
    found = [env.step(np.zeros(8))[1:4] for _ in range(2)]
    assert found == [(-4.0, False, False), (-3.0, False, True)]

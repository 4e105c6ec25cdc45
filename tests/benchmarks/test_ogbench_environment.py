"""Action repeat and generators, on a counter whose every step is known, and on OGBench."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from needs import need

need("ogbench")

import gymnasium

from vgf.benchmarks.ogbench_environment import ActionRepeat, make_ogbench_env
from vgf.benchmarks.tasks import make_task


class Counter(gymnasium.Env):
    """Its state counts simulator steps; success is to be at `goal`, tested before or after."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, timing: str, goal: tuple[int, ...], limit: int = 100) -> None:
        self._success_timing = timing
        self._goal, self._limit = goal, limit
        self.count = 0

    def step(self, action: Any) -> Any:
        before, self.count = self.count, self.count + 1
        success = (before if self._success_timing == "pre" else self.count) in self._goal
        info = {"success": float(success), "prev_qpos": before, "qpos": self.count}
        return self.count, success - 1.0, success, self.count >= self._limit, info


def decide(env: Any, action: Any = 0.0) -> SimpleNamespace:
    ob, reward, terminated, truncated, info = env.step(action)
    return SimpleNamespace(
        ob=ob, reward=reward, terminated=terminated, truncated=truncated, info=info
    )


def test_a_block_is_one_decision() -> None:
    step = decide(ActionRepeat(Counter("pre", goal=()), 8))
    assert (step.ob, step.reward, step.terminated) == (8, -1.0, False)
    assert step.info == {"success": 0.0, "prev_qpos": 0, "qpos": 8}


def test_a_goal_within_a_block_is_not_reached() -> None:
    env = ActionRepeat(Counter("pre", goal=(3, 7)), 8)
    step = decide(env)
    assert (step.ob, step.reward, step.terminated, step.info["success"]) == (8, -1.0, False, 0.0)


def test_a_decision_at_the_goal_ends_the_episode() -> None:
    env = ActionRepeat(Counter("pre", goal=(8,)), 8)
    assert not decide(env).terminated  # It arrives; s is tested, not s'.
    step = decide(env)
    assert (step.ob, step.reward, step.terminated, step.info["success"]) == (9, 0.0, True, 1.0)


def test_where_the_next_state_is_tested_it_is_the_last_of_the_block() -> None:
    env = ActionRepeat(Counter("post", goal=(3, 16)), 8)
    assert decide(env).info["success"] == 0.0
    step = decide(env)
    assert (step.info["success"], step.terminated, step.info["prev_qpos"]) == (1.0, True, 8)


def test_the_time_limit_cuts_a_block() -> None:
    env = ActionRepeat(Counter("pre", goal=(), limit=11), 8)
    assert not decide(env).truncated
    step = decide(env)
    assert (step.truncated, step.ob) == (True, 11)


@pytest.mark.parametrize(
    "name",
    [
        "pointmaze-medium-navigate-singletask-task1-v0",
        "pointmaze-teleport-navigate-singletask-task1-v0",
        "antmaze-medium-navigate-singletask-task1-v0",
        "cube-single-play-singletask-task1-v0",
    ],
)
def test_a_seed_makes_the_episode(name: str) -> None:
    def episode(env: Any, seed: int) -> np.ndarray:
        actions = np.random.default_rng(0).uniform(-1, 1, (20, *env.action_space.shape))
        start = env.reset(seed=seed)[0]
        return np.array([start, *(env.step(action.astype(np.float32))[0] for action in actions)])

    first, second = make_ogbench_env(name), make_ogbench_env(name)
    outside = np.random.get_state()[1].tolist()
    once = episode(first, 1)
    assert np.random.get_state()[1].tolist() == outside
    np.random.random(5)
    np.testing.assert_array_equal(episode(second, 1), once)
    np.testing.assert_array_equal(episode(first, 1), once)  # And again in a used environment.
    assert not np.array_equal(episode(first, 2)[0], once[0])
    seeded = make_ogbench_env(name, seed=1)
    np.testing.assert_array_equal(seeded.reset()[0], once[0])
    assert not np.array_equal(seeded.reset()[0], once[0])


def test_teleports_of_one_environment_leave_another_alone() -> None:
    name = "pointmaze-teleport-navigate-singletask-task1-v0"

    def walk(envs: list[Any]) -> np.ndarray:
        """Enter a teleport of the first environment again and again, stepping the others too."""
        positions = []
        for env in envs:
            env.reset(seed=1)
        for _ in range(20):
            for env in reversed(envs):
                env.unwrapped.set_xy(np.array(env.unwrapped._teleport_info["teleport_in_xys"][0]))
                env.step(np.zeros(2, np.float32))
            positions.append(envs[0].unwrapped.get_xy())
        return np.array(positions)

    alone = walk([make_ogbench_env(name)])
    assert len(np.unique(alone.round(), axis=0)) > 1  # The exits are random.
    np.testing.assert_array_equal(walk([make_ogbench_env(name) for _ in range(3)]), alone)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors through /proc")
def test_mazes_leave_no_open_files() -> None:
    name = "pointmaze-medium-navigate-singletask-task1-v0"
    make_ogbench_env(name).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        make_ogbench_env(name).close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.full
@pytest.mark.parametrize("timing", [None, "pre", "post"])
def test_when_success_is_tested(timing: str | None) -> None:
    """The step that reaches the goal succeeds at once, or the one after it does."""
    task = make_task(
        "pointmaze-medium-navigate-singletask-task1-v0", with_dataset=False, success_timing=timing
    )
    assert task.make_env is not None
    env = task.make_env(0)
    env.reset(seed=0)
    point = env.unwrapped
    point.set_xy(point.cur_goal_xy - np.array([point._goal_tol + 0.1, 0.0]))
    steps = [decide(env, np.array([1.0, 0.0])) for _ in range(2)]
    reached = [bool(step.info["success"]) for step in steps]
    assert reached == ([True, True] if timing == "post" else [False, True])
    assert [step.reward for step in steps] == [float(r) - 1.0 for r in reached]
    assert [step.terminated for step in steps] == reached
    assert any("success is tested" in note for note in task.notes) == (timing is not None)


def test_success_is_timed_in_ogbench_alone() -> None:
    task = make_task("Pendulum-v1", with_dataset=False, success_timing="post")
    assert "success_timing is of OGBench's environments and has no part here" in task.notes

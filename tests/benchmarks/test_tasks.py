"""Tasks, from their names."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import SECONDS, need

from vgf.benchmarks.tasks import make_task
from vgf.support.errors import VGFError

need("ogbench")

MAZE = "pointmaze-medium-navigate-singletask-task1-v0"


def test_a_task_with_action_repeat(tmp_path: Path) -> None:
    calls = []
    task = make_task(
        MAZE, 8, tmp_path, episodes=3, workers=1, progress=lambda *call: calls.append(call)
    )
    assert (task.name, task.action_repeat) == (MAZE, 8)
    assert (task.observation_dim, task.action_dim, task.max_episode_steps) == (2, 2, 125)
    assert calls[-1] == ("generating pointmaze-medium-navigate-v0", 4, 4)
    assert task.dataset is not None
    assert len(task.dataset) == 3 * 125
    assert np.flatnonzero(task.dataset.terminals).tolist() == [124, 249, 374]
    # A decision moves the point 8 times as far as a simulator step, unless a wall stops it.
    distance = np.linalg.norm(task.dataset.next_observations - task.dataset.observations, axis=1)
    assert 0.5 < np.median(distance) < 8 * 0.2 * np.sqrt(2)


def test_its_environment_agrees_with_its_data(tmp_path: Path) -> None:
    """A recorded action in a recorded state gives the recorded transition; the goal ends it."""
    task = make_task(MAZE, 8, tmp_path, episodes=1, workers=1)
    assert task.dataset is not None
    env = pickle.loads(pickle.dumps(task.make_env))(0)
    env.reset()
    assert set(task.dataset.masks) == {0.0, 1.0}
    for row in range(len(task.dataset)):
        env.reset(seed=0)
        env.unwrapped.set_xy(task.dataset.observations[row])
        ob, reward, terminated, _, info = env.step(task.dataset.actions[row])
        if not terminated:
            np.testing.assert_allclose(ob, task.dataset.next_observations[row], atol=1e-3)
        assert reward == task.dataset.rewards[row]
        assert terminated == (task.dataset.masks[row] == 0)
        assert task.success(info) == float(terminated)


def test_the_goal_ends_an_episode_where_the_data_have_mask_0() -> None:
    task = make_task(MAZE, 8, with_dataset=False)
    assert task.dataset is None
    env = task.make_env(0)
    env.reset()
    goal = np.array(env.unwrapped.cur_goal_xy)
    # Half a block before the goal: crossing it counts for nothing.
    env.unwrapped.set_xy(goal - [0.0, 1.1])
    _, reward, terminated, _, info = env.step(np.array([0.0, 0.01], np.float32))
    assert (reward, terminated, task.success(info)) == (-1.0, False, 0.0)
    _, reward, terminated, _, info = env.step(np.array([0.0, 0.5], np.float32))
    assert (reward, terminated, task.success(info)) == (-1.0, False, 0.0)
    _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, task.success(info)) == (0.0, True, 1.0)


def test_wrong_requests() -> None:
    with pytest.raises(VGFError, match="task 'hopper' is unknown"):
        make_task("hopper")
    with pytest.raises(VGFError, match="action_repeat is 0"):
        make_task(MAZE, 0)
    with pytest.raises(VGFError, match="is for pointmaze"):
        make_task("cube-single-play-singletask-v0", 2)


def test_importing_needs_no_simulator_and_a_missing_one_is_named() -> None:
    code = (
        "import sys\n"
        "for name in ('gymnasium', 'ogbench', 'mujoco'): sys.modules[name] = None\n"
        "import vgf, vgf.data, vgf.benchmarks.tasks, vgf.runs.evaluation\n"
        f"try: vgf.benchmarks.tasks.make_task({MAZE!r})\n"
        "except vgf.VGFError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert done.stdout.strip().endswith("install the extra: pip install 'vgf[envs]'")

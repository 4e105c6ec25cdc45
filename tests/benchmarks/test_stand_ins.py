"""What stands in for D4RL's environments: sizes, starts, goals, rewards, ends; and D4RL's own."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need

from vgf.benchmarks.d4rl_infos import d4rl_table
from vgf.support.errors import VGFError

need("gymnasium_robotics", "mujoco")

import gymnasium

from vgf.benchmarks.stand_ins import (
    describe,
    make_own,
    make_stand_in,
    stand_in,
    why_none,
    why_not_own,
)

# Task: sizes of observation and action in D4RL, and its time limit.
SIZES = {
    "hopper-medium-v2": (11, 3, 1000),
    "walker2d-medium-replay-v2": (17, 6, 1000),
    "halfcheetah-expert-v2": (17, 6, 1000),
    "ant-medium-v2": (111, 8, 1000),
    "pen-human-v1": (45, 24, 100),
    "hammer-cloned-v1": (46, 26, 200),
    "door-expert-v1": (39, 28, 200),
    "relocate-human-v0": (39, 30, 200),
    "maze2d-open-dense-v0": (4, 2, 150),
    "maze2d-large-v1": (4, 2, 800),
    "antmaze-umaze-v2": (29, 8, 700),
    "antmaze-large-diverse-v2": (29, 8, 1000),
}


def make(name: str) -> Any:
    return make_stand_in(d4rl_table().tasks[name])


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_seeds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make(name)

    def episode(seed: int) -> list[Any]:
        actions = np.random.default_rng(0).uniform(-1, 1, (5, SIZES[name][1])).astype(np.float32)
        rows = [env.reset(seed=seed)[0]]
        for action in actions:
            ob, reward, *_ = env.step(action)
            rows += [ob, [reward]]
        return [np.asarray(row, float) for row in rows]

    once, again, other = episode(1), episode(1), episode(2)
    assert once[0].shape == env.observation_space.shape == (SIZES[name][0],)
    assert env.action_space.shape == (SIZES[name][1],)
    assert env.spec.max_episode_steps == SIZES[name][2]
    for got, expected in zip(again, once, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(other[0], once[0])
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []  # MuJoCo would write its log here


def test_every_task_has_a_stand_in_or_a_reason() -> None:
    without = set()
    for task in d4rl_table().tasks.values():
        name = stand_in(task)
        if name is None:
            without.add(task.family)
            assert why_none(task)
            with pytest.raises(VGFError, match=f"nothing stands in for D4RL's {task.name}"):
                make_stand_in(task)
        else:
            assert f"evaluated in {name} (gymnasium" in describe(task)
            assert task.name in describe(task)
    assert without == {"maze2d", "kitchen", "minigrid", "bullet", "carla", "flow"}


def test_the_ant_has_no_contact_forces() -> None:
    ob, _ = make("ant-medium-v2").reset(seed=0)
    assert not ob[27:].any()
    assert ob[:27].any()


# D4RL's returns of random actions (its REF_MIN_SCORE), which rewards of another sign would miss.
@pytest.mark.parametrize(
    ("name", "slack"),
    [("hammer-human-v1", 15.0), ("door-human-v1", 3.0), ("relocate-human-v1", 12.0)],
)
def test_random_hands_score_as_d4rls(name: str, slack: float) -> None:
    env, returns = make(name), []
    env.action_space.seed(0)
    for seed in range(2):
        env.reset(seed=seed)
        total = 0.0
        for _ in range(200):
            total += env.step(env.action_space.sample())[1]
        returns.append(total)
    assert abs(np.mean(returns) - d4rl_table().tasks[name].ref_min) < slack


def test_a_dropped_pen_ends_the_episode() -> None:
    env = make("pen-human-v1")
    env.action_space.seed(0)
    env.reset(seed=1)
    terminated = False
    for _ in range(100):
        ob, _, terminated, truncated, _ = env.step(env.action_space.sample())
        assert terminated == (ob[26] < 0.075)
        if terminated or truncated:
            break
    assert terminated


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("antmaze-umaze-v2", (0, 8)),
        ("antmaze-medium-play-v2", (20, 20)),
        ("antmaze-large-play-v2", (32, 24)),
    ],
)
def test_antmaze(name: str, goal: tuple[float, float]) -> None:
    env = make(name)
    goals = []
    for seed in range(3):
        ob, _ = env.reset(seed=seed)
        assert np.abs(ob[:2]).max() <= 0.1  # the start is the origin
        assert 0.5 < ob[2] < 1.0
        goals.append(env.get_wrapper_attr("goal"))
    # In the goal's cell of 4 m, from its centre on.
    assert (np.array(goals) >= goal).all()
    assert (np.array(goals) <= np.array(goal) + 1.5).all()
    assert len(np.unique(goals)) > 3
    ant = env.unwrapped.ant_env
    assert ant.model.opt.timestep * ant.frame_skip == 0.1
    _, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
    assert (reward, terminated, info["success"]) == (0.0, False, 0.0)
    place = ant.data.qpos.copy()
    place[:2] += np.array(env.get_wrapper_attr("goal"))
    ant.set_state(place, ant.data.qvel * 0)
    ob, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
    np.testing.assert_allclose(ob[:2], env.get_wrapper_attr("goal"), atol=0.45)
    assert (reward, terminated, info["success"]) == (1.0, True, 1.0)


def free(env: Any, place: tuple[float, float]) -> bool:
    """Whether a place, in the task's coordinates, is in no wall."""
    maze = env.unwrapped.maze
    i, j = maze.cell_xy_to_rowcol(np.array(place) + env.get_wrapper_attr("_origin"))
    return maze.maze_map[i][j] != 1


def test_walls_are_where_d4rl_has_them() -> None:
    """In umaze, both mazes are a U that opens towards the start's left."""
    ant = make("antmaze-umaze-v2")
    for cell in [(0, 0), (4, 0), (8, 0), (8, 4), (8, 8), (4, 8), (0, 8)]:
        assert free(ant, cell)
    for cell in [(0, 4), (4, 4), (12, 0), (0, -4), (-4, 0)]:
        assert not free(ant, cell)
    point = make("maze2d-umaze-v1")
    for cell in [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]:
        assert free(point, cell)
    for cell in [(2, 1), (2, 2), (0, 1), (1, 4), (4, 3)]:
        assert not free(point, cell)
    large = make("antmaze-large-play-v2")
    assert free(large, (32, 24))
    assert not free(large, (24, 24))
    wide = make("maze2d-large-v1")
    assert free(wide, (7, 9))  # the goal
    assert not free(wide, (6, 9))


def test_maze2d() -> None:
    env, dense = make("maze2d-umaze-v1"), make("maze2d-umaze-dense-v1")
    starts = []
    for seed in range(20):
        ob, _ = env.reset(seed=seed)
        starts.append(np.round(ob[:2]))
        assert np.abs(ob[:2] - starts[-1]).max() <= 0.1
        assert free(env, tuple(ob[:2]))
    assert len(np.unique(starts, axis=0)) >= 5
    np.testing.assert_array_equal(env.get_wrapper_attr("goal"), [1, 1])
    for seed, start in enumerate(starts):
        env.reset(seed=seed)
        dense.reset(seed=seed)
        seen, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
        _, other, _, _, _ = dense.step(np.zeros(2, np.float32))
        distance = np.linalg.norm(seen[:2] - 1.0)
        assert (reward, info["success"]) == ((distance <= 0.5), (distance <= 0.5))
        assert other == pytest.approx(np.exp(-distance))
        assert not terminated
        assert reward == (tuple(start) == (1, 1))


def test_a_push_moves_along_the_right_axis() -> None:
    env = make("maze2d-open-v0")
    ob, _ = env.reset(seed=0)
    for _ in range(5):
        moved, *_ = env.step(np.array([1.0, 0.0], np.float32))
    assert moved[0] > ob[0] + 0.02
    assert abs(moved[1] - ob[1]) < 0.05
    for _ in range(140):
        moved, *_ = env.step(np.array([-1.0, 0.0], np.float32))
    # The wall's face is at 1.5 and the ball's centre 0.1 before it, in a maze whose ball counts
    # from 1.2.
    assert moved[0] == pytest.approx(1.5 + 0.1 - 1.2, abs=0.05)


# --- D4RL's own ----------------------------------------------------------------------------------


class OldEnv:
    """An environment as the old gym has them: four results, and a seed of its own."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (29,))
    action_space = gymnasium.spaces.Box(-1, 1, (8,))
    closed = False

    def seed(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def reset(self) -> Any:
        self.steps = 0
        return self.generator.standard_normal(29) + np.random.rand()

    def step(self, action: Any) -> Any:
        self.steps += 1
        cut = self.steps == 3
        info = {"TimeLimit.truncated": True} if cut else {}
        return np.zeros(29), float(action[0] > 0.5), cut or action[0] > 0.5, info

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake_d4rl(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    gym = types.ModuleType("gym")
    gym.make = lambda name: made.append(name) or OldEnv()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gym", gym)
    monkeypatch.setitem(sys.modules, "d4rl", types.ModuleType("d4rl"))
    return made


def test_where_d4rl_works_its_own_environments_are_used(fake_d4rl: list[str]) -> None:
    from vgf.benchmarks.tasks import make_task

    task = d4rl_table().tasks["antmaze-umaze-v2"]
    assert why_not_own(task) is None
    env = make_own(task)
    first, _ = env.reset(seed=1)
    np.random.rand()
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    push = np.zeros(8, np.float32)
    assert env.step(push)[1:] == (0.0, False, False, {"success": 0.0})
    assert env.step(push + 1)[1:] == (1.0, True, False, {"success": 1.0})
    *_, terminated, truncated, _ = env.step(push)
    assert (terminated, truncated) == (False, True)
    made = make_task("antmaze-umaze-v2", with_dataset=False)
    assert made.notes[0] == "evaluated in D4RL's own antmaze-umaze-v2"
    assert set(fake_d4rl) == {"antmaze-umaze-v2"}


def test_where_its_import_fails_there_is_a_stand_in_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vgf.benchmarks.tasks import make_task

    package = tmp_path / "d4rl"
    package.mkdir()
    (package / "__init__.py").write_text("raise Exception('You appear to be missing MuJoCo 2.1')")
    (package / "infos.py").write_text(
        "DATASET_URLS = {'hopper-medium-v2': 'http://h/hopper_medium-v2.hdf5'}\n"
        "REF_MIN_SCORE = {'hopper-medium-v2': 0}\nREF_MAX_SCORE = {'hopper-medium-v2': 50}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    task = make_task("hopper-medium-v2", with_dataset=False)
    notes = " ".join(task.notes)
    assert "evaluated in Hopper-v4 (gymnasium" in notes
    assert "stands in for D4RL's hopper-medium-v2" in notes
    assert "cannot be made here: You appear to be missing MuJoCo 2.1" in notes
    assert "0 is the return 0 and 100 is 50" in notes
    assert str(package / "infos.py") in notes
    assert task.score(25.0, None) == 50.0

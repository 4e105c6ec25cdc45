"""What a name means, whichever benchmark it is of, and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import SECONDS, need

from vgf.benchmarks import find_task, minari, read_raw
from vgf.benchmarks.ogbench import load_ogbench
from vgf.benchmarks.tasks import make_task
from vgf.data import to_dataset
from vgf.support.download import RECORD
from vgf.support.errors import VGFError

need("ogbench", "gymnasium_robotics", "mujoco")

CUBE = "cube-single-play-singletask-task2-v0"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but the test's own."""
    monkeypatch.delenv(minari.STORE_VARIABLE, raising=False)
    monkeypatch.setattr(minari, "DEFAULT_STORE", tmp_path / "home")


def plain_file(path: Path, observation_dim: int = 3, action_dim: int = 1, **change: Any) -> Path:
    rng = np.random.default_rng(0)
    fields = {
        "observations": rng.standard_normal((20, observation_dim)),
        "actions": rng.uniform(-1, 1, (20, action_dim)),
        "rewards": rng.standard_normal(20),
        "terminals": np.arange(20) % 5 == 4,
    } | change
    np.savez(path, **fields)
    return path


@pytest.mark.parametrize(
    ("env", "kind", "name"),
    [
        (CUBE, "ogbench", CUBE),
        ("antmaze-large-navigate-singletask-v0", "ogbench", "antmaze-large-navigate-singletask-v0"),
        ("antmaze-large-play-v2", "d4rl", "antmaze-large-play-v2"),
        ("hopper-medium-v2", "d4rl", "hopper-medium-v2"),
        ("D4RL/door/human-v2", "minari", "D4RL/door/human-v2"),
        ("Hopper-v5", "gymnasium", "Hopper-v5"),
        ("PointMaze_UMaze-v3", "gymnasium", "PointMaze_UMaze-v3"),
        ("d4rl:hopper-medium-v2", "d4rl", "hopper-medium-v2"),
        ("minari:door-human-v0", "minari", "door-human-v0"),
        ("gymnasium:Hopper-v5", "gymnasium", "Hopper-v5"),
        (f"ogbench:{CUBE}", "ogbench", CUBE),
        (None, "none", "none"),
    ],
)
def test_names(env: str | None, kind: str, name: str) -> None:
    found = find_task(env)
    assert (found.kind, found.name) == (kind, name)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("hoper-medium-v2", "did you mean hopper-medium-v2"),
        ("hopper-v5", "did you mean Hopper-v5"),
        ("cube-singl-play-singletask-task2-v0", "did you mean cube-single-play-singletask-task2"),
        ("cube-single-play-v0", "is a goal-conditioned dataset"),
        ("zzz", r"names are OGBench's .*D4RL's .*Minari's .*gymnasium's .*--env none"),
        ("d4rl:Hopper-v5", "D4RL has no task 'Hopper-v5'"),
        ("gymnasium:hopper-medium-v2", "gymnasium has no 'hopper-medium-v2'"),
        ("gymnasium:no_module:X-v0", "the module no_module cannot be imported .*No module named"),
        ("d4r:hopper-medium-v2", "the module d4r cannot be .*prefix may be .* d4rl:NAME"),
        ("ogbench:hopper-medium-v2", "OGBench's names are"),
    ],
)
def test_unknown_names(env: str, words: str) -> None:
    with pytest.raises(VGFError, match=words):
        find_task(env)


def test_a_file_alone(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "mine.npz")
    task = make_task(None, data=path)
    assert (task.name, task.make_env, task.score_name) == ("mine.npz", None, "return")
    assert (task.observation_dim, task.action_dim, task.max_episode_steps) == (3, 1, None)
    assert task.dataset is not None
    assert len(task.dataset) == 20
    assert "no evaluation" in task.described()


def test_a_gymnasium_environment_with_a_file(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "a.npz", actions=np.linspace(-2, 2, 20)[:, None])
    task = make_task("Pendulum-v1", data=path)
    assert task.dataset is not None
    np.testing.assert_allclose(task.dataset.actions, np.linspace(-1, 1, 20)[:, None], atol=1e-6)
    assert (task.max_episode_steps, task.score_name) == (200, "return")
    assert task.make_env is not None
    env = task.make_env(0)
    assert (env.action_space.low, env.action_space.high) == (-1, 1)
    env.reset(seed=1)
    at_edge = env.step(np.ones(1, np.float32))[1]
    env.unwrapped.reset(seed=1)
    assert env.unwrapped.step(np.array([2.0]))[1] == pytest.approx(at_edge, rel=1e-6)
    wide = plain_file(tmp_path / "b.npz", actions=np.full((20, 1), 3.0))
    with pytest.raises(VGFError, match=r"leave the box \[-2, 2\] .*: \[3\]; rescale .*--env"):
        make_task("Pendulum-v1", data=wide)


@pytest.mark.parametrize("env", [None, "hopper-medium-v2", CUBE])
@pytest.mark.parametrize("folder", [False, True])
def test_a_given_file_is_what_was_downloaded(env: str | None, folder: bool, tmp_path: Path) -> None:
    path = plain_file(tmp_path / "a.npz", 11, 3)
    (tmp_path / RECORD).write_text(json.dumps({path.name: {"size": 3, "sha256": ""}}))
    given = tmp_path if folder else path
    words = (
        rf"a.npz has .* bytes, and 3 when it was downloaded; delete it.* its entry in .*{RECORD}"
    )
    for read in (read_raw, lambda env, data: make_task(env, data=data)):
        with pytest.raises(VGFError, match=words):
            read(env, given)
    if env == CUBE:
        with pytest.raises(VGFError, match=words):
            load_ogbench(CUBE, data=given)


def test_a_d4rl_task_with_another_file(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "a.npz", 11, 3, actions=np.full((20, 3), 1.0))
    task = make_task("hopper-medium-v2", data=path, normalise_rewards=True)
    assert task.dataset is not None
    assert task.dataset.actions.max() == np.float32(1 - 1e-5)
    assert task.dataset.reward_scale != 1.0
    assert task.reference == (-20.272305, 3234.3)
    wide = plain_file(tmp_path / "b.npz", 11, 3, actions=np.full((20, 3), 1.5))
    assert "20 of 20 actions leave [-1, 1] and are clipped" in make_task(
        "hopper-medium-v2", data=wide
    ).described().replace("\n  ", " ")
    with pytest.raises(VGFError, match=r"have 3 numbers, and those of hopper-medium-v2's .* 11"):
        make_task("hopper-medium-v2", data=plain_file(tmp_path / "c.npz", 3, 3))
    with pytest.raises(VGFError, match=r"actions have 1 numbers, .* 3; is it the file of another"):
        make_task("hopper-medium-v2", data=plain_file(tmp_path / "d.npz", 11, 1))


def test_scores_of_d4rls_tasks() -> None:
    maze = make_task("antmaze-umaze-v2", with_dataset=False)
    assert (maze.score_name, maze.score(3.0, 1.0)) == ("success", 1.0)
    bare = make_task("ant-random-expert-v0", with_dataset=False)
    assert (bare.score_name, bare.score(7.0, None)) == ("return", 7.0)
    assert "no reference score for ant-random-expert-v0" in " ".join(bare.notes)
    kitchen = make_task("kitchen-mixed-v0", with_dataset=False)
    assert kitchen.make_env is None
    assert "no evaluation: nothing stands in for D4RL's kitchen-mixed-v0" in " ".join(kitchen.notes)


def test_an_ogbench_task_with_a_file(tmp_path: Path) -> None:
    maze = "pointmaze-medium-navigate-singletask-task1-v0"
    own = plain_file(tmp_path / "own.npz", 2, 2, masks=np.ones(20))
    dataset = to_dataset(read_raw(maze, own))  # it has rewards, and keeps them
    np.testing.assert_array_equal(dataset.rewards[:4], np.load(own)["rewards"][:4].astype("f4"))
    with np.load(own) as file:
        rows = {key: file[key] for key in ("observations", "actions", "terminals")}
    rows |= {"qpos": rows["observations"], "qvel": rows["observations"]}
    np.savez(tmp_path / "theirs.npz", **rows)
    dataset = to_dataset(read_raw(maze, tmp_path / "theirs.npz"))
    assert set(dataset.rewards) == {-1.0}  # relabelled: nowhere near the goal


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        (None, {}, "no task and no data; name a file with --data"),
        ("Hopper-v5", {}, "have no data of their own; name a file with --data"),
        ("hopper-medium-v2", {"action_repeat": 2}, "action_repeat is 2; with hopper-medium-v2 it"),
        ("hopper-medium-v2", {"episodes": 3}, "data_episodes is 3, .* drop it"),
        (None, {"data": "no.npz"}, "no.npz: no such file"),
        ("CartPole-v1", {"data": "no.npz"}, r"CartPole-v1: actions are Discrete\(2\)"),
    ],
)
def test_requests_that_are_refused(env: str | None, options: dict[str, Any], words: str) -> None:
    with pytest.raises(VGFError, match=words):
        make_task(env, **{"action_repeat": 1, **options})


@pytest.mark.full
def test_training_on_a_file_needs_no_gymnasium(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "a.npz")
    words = [
        "run",
        "--env",
        "none",
        "--data",
        path.name,
        "--backend",
        "numpy",
        "--steps",
        "4",
        "--batch-size",
        "4",
        "--critic-hidden",
        "4",
        "--reference-hidden",
        "4",
        "--out",
        "run",
        "--gradient-field-hidden",
        "4",
    ]
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        absent = ('gymnasium', 'ogbench', 'mujoco', 'h5py', 'minari')\n"
        "        if name.partition('.')[0] in absent:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from vgf.cli import main\n"
        f"sys.exit(main({words!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "no evaluation: a file of data, without an environment" in done.stdout
    assert "Not evaluated" in done.stdout
    config = (tmp_path / "run/config.toml").read_text()
    assert f'data = "{path}"' in config
    assert 'env = "none"' in config
    assert (tmp_path / "run/losses.png").exists()
    assert (tmp_path / "run/evaluations.jsonl").read_text() == ""

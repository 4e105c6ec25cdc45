"""Recording: OGBench's format, reproducible, whatever the number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from needs import need

from vgf.benchmarks.ogbench_oracles import generate_ogbench, recipe_for
from vgf.support.errors import VGFError

need("ogbench")

MAZE = "pointmaze-medium-stitch-v0"


def contents(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


@pytest.mark.full
def test_the_files_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    outside = np.random.get_state()[1].tolist()
    calls: list[tuple[str, int, int]] = []
    one = generate_ogbench(
        MAZE, tmp_path / "one.npz", 5, seed=3, workers=1, progress=lambda *call: calls.append(call)
    )
    assert np.random.get_state()[1].tolist() == outside  # The caller's generator is untouched.
    assert calls == [(f"generating {MAZE}", done, 6) for done in range(7)]
    two = generate_ogbench(MAZE, tmp_path / "two.npz", 5, seed=3, workers=2)
    for ending in (".npz", "-val.npz"):
        first, second = (tmp_path / f"{name}{ending}" for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
    assert contents(one)["observations"].shape == (5 * 201, 2)
    assert contents(tmp_path / "one-val.npz")["observations"].shape == (201, 2)
    assert two == tmp_path / "two.npz"
    assert json.loads((tmp_path / "one.json").read_text())["seed"] == 3
    assert len(list(tmp_path.iterdir())) == 6  # Nothing half-written stays.

    fewer = generate_ogbench(MAZE, tmp_path / "fewer.npz", 2, seed=3, workers=1)
    for key, array in contents(fewer).items():
        np.testing.assert_array_equal(array, contents(one)[key][: 2 * 201])
    other = generate_ogbench(MAZE, tmp_path / "other.npz", 2, seed=4, workers=1)
    assert not np.array_equal(contents(other)["actions"], contents(fewer)["actions"])


def test_the_format_of_a_maze(tmp_path: Path) -> None:
    rows = contents(generate_ogbench(MAZE, tmp_path / "x.npz", 2, workers=1))
    dtypes = {key: array.dtype.name for key, array in rows.items()}
    assert dtypes == {
        "observations": "float32",
        "actions": "float32",
        "terminals": "bool",
        "qpos": "float32",
        "qvel": "float32",
    }
    assert np.flatnonzero(rows["terminals"]).tolist() == [200, 401]
    np.testing.assert_array_equal(rows["qpos"], rows["observations"])  # From before the step.
    moved = rows["observations"][1:201] - rows["observations"][:200]
    np.testing.assert_allclose(moved, 0.2 * rows["actions"][:200], atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["puzzle-3x3-play-v0", "scene-noisy-v0"])
def test_the_format_of_manipulation(name: str, tmp_path: Path) -> None:
    rows = contents(generate_ogbench(name, tmp_path / "x.npz", 1, workers=1))
    assert rows["button_states"].dtype == np.int64
    assert rows["terminals"].dtype == np.bool_
    assert len(rows["terminals"]) == 1001
    assert rows["terminals"].sum() == 1
    assert np.abs(rows["actions"]).max() <= 1.0
    assert len(np.unique(rows["button_states"], axis=0)) > 1  # The oracle presses buttons.


@pytest.mark.slow
def test_a_play_dataset_moves_the_cube(tmp_path: Path) -> None:
    rows = contents(generate_ogbench("cube-single-play-v0", tmp_path / "x.npz", 1, workers=1))
    assert np.ptp(rows["qpos"][:, 14:17], axis=0).min() > 0.05
    assert "button_states" not in rows


def test_decisions_are_held(tmp_path: Path) -> None:
    """Each row is 8 simulator steps of the recorded action."""
    from vgf.benchmarks.ogbench_environment import make_ogbench_env

    name = "pointmaze-medium-navigate-v0"
    rows = contents(generate_ogbench(name, tmp_path / "x.npz", 1, workers=1, action_repeat=8))
    assert len(rows["terminals"]) == 126  # 125 decisions, and the row that is dropped on loading.
    env = make_ogbench_env(name, terminate_at_goal=False).unwrapped
    env.reset(seed=0)
    for row in range(20):
        env.set_xy(rows["qpos"][row])
        for _ in range(8):
            position, *_ = env.step(rows["actions"][row])
        np.testing.assert_allclose(position, rows["observations"][row + 1], atol=1e-4)


@pytest.mark.parametrize(
    ("dataset", "episodes", "steps", "random_action"),
    [
        ("pointmaze-medium-navigate-v0", 1000, 1001, 0.0),
        ("pointmaze-giant-navigate-v0", 500, 2001, 0.0),
        ("pointmaze-giant-stitch-v0", 5000, 201, 0.0),
        ("cube-single-play-v0", 1000, 1001, 0.0),
        ("cube-triple-noisy-v0", 3000, 1001, 0.1),
        ("scene-noisy-v0", 1000, 1001, 0.1),
        ("puzzle-4x4-noisy-v0", 1000, 1001, 0.2),
        ("puzzle-4x6-play-v0", 5000, 1001, 0.0),
    ],
)
def test_the_benchmarks_numbers(
    dataset: str, episodes: int, steps: int, random_action: float
) -> None:
    recipe = recipe_for(dataset)
    assert recipe is not None
    assert (recipe.episodes, recipe.steps) == (episodes, steps)
    assert recipe.random_action == random_action


def test_wrong_requests(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert recipe_for("antmaze-large-navigate-v0") is None
    for call, words in [
        (lambda: generate_ogbench("antmaze-large-navigate-v0", path), "cannot be generated"),
        (lambda: generate_ogbench(MAZE, tmp_path / "x.hdf5"), "must end in .npz"),
        (lambda: generate_ogbench(MAZE, path, 0), "episodes is 0"),
        (lambda: generate_ogbench(MAZE, path, 1, workers=-1), "workers is -1"),
        (lambda: generate_ogbench(MAZE, path, 1, seed=-1), "seed is -1"),
        (lambda: generate_ogbench("scene-play-v0", path, action_repeat=2), "is for pointmaze"),
    ]:
        with pytest.raises(VGFError, match=words):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_an_interruption_is_gone_on_from(tmp_path: Path) -> None:
    straight = generate_ogbench(MAZE, tmp_path / "straight" / "x.npz", 4, seed=3, workers=1)

    def interrupt(label: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    path, said = tmp_path / "x.npz", []
    with pytest.raises(KeyboardInterrupt):
        generate_ogbench(MAZE, path, 4, 3, 1, progress=interrupt, say=said.append)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == []
    assert "3 of 5 episodes are kept" in said[-1]
    calls: list[int] = []
    generate_ogbench(
        MAZE, path, 4, 3, 2, progress=lambda _, done, __: calls.append(done), say=said.append
    )
    assert calls == [3, 4, 5]
    assert "continuing: 3 of 5" in said[-1]
    for name in ("x.npz", "x-val.npz", "x.json"):
        assert (tmp_path / name).read_bytes() == straight.with_name(name).read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "straight",
        "x.npz",
        "x-val.npz",
        "x.json",
    }


def test_ogbench_itself_takes_the_files(tmp_path: Path) -> None:
    """Training and validation data, relabelled, without a download."""
    import ogbench

    generate_ogbench(MAZE, tmp_path / f"{MAZE}.npz", 2, workers=1)
    env, training, validation = ogbench.make_env_and_datasets(
        MAZE.replace("-v0", "-singletask-task1-v0"), dataset_dir=str(tmp_path)
    )
    env.close()
    assert len(training["masks"]) == 2 * 200
    assert len(validation["masks"]) == 200
    assert training["terminals"].sum() == 2
    np.testing.assert_array_equal(
        training["next_observations"][:199], training["observations"][1:200]
    )

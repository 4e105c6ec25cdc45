"""OGBench by name: names, files, relabelling, and the ways out when there are no data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need

from vgf.benchmarks import ogbench as module
from vgf.benchmarks.ogbench import dataset_path, load_ogbench, ogbench_tasks, parse_task
from vgf.benchmarks.tasks import make_task
from vgf.support.errors import VGFError

need("ogbench")

MAZE = "pointmaze-medium-navigate-singletask-task1-v0"
CUBE = "cube-single-play-singletask-task1-v0"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but the test's own."""
    monkeypatch.setattr(module, "DEFAULT_FOLDER", tmp_path / "home")


def maze_file(folder: Path, **change: Any) -> Path:
    """Two trajectories of three transitions; the first passes the goal, (20, 20), and goes on."""
    positions = np.array(
        [[0, 0], [19.5, 20.5], [10, 10], [20, 20], [4, 4], [8, 8], [20, 19], [20, 20]], np.float32
    )
    fields = {
        "observations": positions,
        "actions": np.linspace(-1, 1, 16).reshape(8, 2).astype(np.float32),
        "terminals": np.array([0, 0, 0, 1, 0, 0, 0, 1], bool),
        "qpos": positions,
        "qvel": np.zeros((8, 2), np.float32),
    } | change
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pointmaze-medium-navigate-v0.npz"
    np.savez(path, **{key: value for key, value in fields.items() if value is not None})
    return path


def test_masks_and_terminals_are_kept_apart(tmp_path: Path) -> None:
    path = maze_file(tmp_path)
    dataset = load_ogbench(MAZE, tmp_path)
    assert dataset.source == str(path)
    # Each trajectory loses its last row. Success is that of s: the second row of the first
    # trajectory, which goes on, and the last of the second; not the state that follows.
    assert dataset.masks.tolist() == [1, 0, 1, 1, 1, 0]
    assert dataset.rewards.tolist() == [-1, 0, -1, -1, -1, 0]
    assert dataset.terminals.tolist() == [0, 0, 1, 0, 0, 1]
    assert dataset.observations[:, 0].tolist() == [0, 19.5, 10, 4, 8, 20]
    assert dataset.next_observations[:, 0].tolist() == [19.5, 10, 20, 8, 20, 20]
    np.testing.assert_array_equal(dataset.actions[3], np.float32([0.0666666667, 0.2]))


@pytest.mark.parametrize("rows", [module._RELABELLED, 1])
def test_masks_of_a_cube(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vgf.benchmarks.ogbench_environment import make_ogbench_env

    env = make_ogbench_env(CUBE)
    env.reset(seed=0)
    goal = env.unwrapped.cur_task_info["goal_xyzs"][0]
    qpos = np.zeros((4, env.unwrapped.model.nq), np.float32)
    qpos[1, 14:17] = goal + np.array([0.03, 0, 0])  # Within 4 cm of the goal, in the middle.
    qpos[2, 14:17] = goal + np.array([0.05, 0, 0])  # Not within, at the end.
    np.savez(
        tmp_path / "cube-single-play-v0.npz",
        observations=np.zeros((4, *env.observation_space.shape), np.float32),
        actions=np.zeros((4, 5), np.float32),
        terminals=np.array([0, 0, 0, 1], bool),
        qpos=qpos,
        qvel=qpos,
    )
    monkeypatch.setattr(module, "_RELABELLED", rows)
    dataset = load_ogbench(CUBE, tmp_path)
    assert dataset.masks.tolist() == [1, 0, 1]
    assert dataset.rewards.tolist() == [-1, 0, -1]
    assert dataset.terminals.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"qpos": None, "terminals": None}, "lacks terminals, qpos; it has observations"),
        (
            {"observations": np.zeros((8, 3), "f4")},
            r"observations has shape .*, 2\]; is it the file",
        ),
        ({"actions": np.zeros((7, 2), "f4")}, "is not a complete .npz file: its arrays differ in"),
        ({"actions": np.full((8, 2), 3, "f4")}, r"leave the box \[-1, 1\].*; rescale .*--env"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = maze_file(tmp_path, **change)
    with pytest.raises(VGFError, match=words) as error:
        load_ogbench(MAZE, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a zip file", None])
def test_a_damaged_file(tmp_path: Path, content: bytes | None) -> None:
    path = maze_file(tmp_path)
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(VGFError, match=r"not a complete .npz file: .*; delete it, and make or"):
        load_ogbench(MAZE, tmp_path)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match=r"is a folder, not of .npz files; name a file in it$"):
        load_ogbench(MAZE, data=tmp_path)
    with pytest.raises(VGFError, match=r"no.npz: no such file; name a file of data with --data$"):
        load_ogbench(MAZE, data=tmp_path / "no.npz")


@pytest.mark.parametrize("rewards", [None, np.zeros(8)])
def test_actions_are_clipped_as_asked(rewards: Any, tmp_path: Path) -> None:
    """OGBench's own data, which are relabelled, and a file with its own rewards."""
    path = maze_file(tmp_path, rewards=rewards)
    note = "data: actions are clipped to +-(1 - 5e-01)"
    task, plain = (make_task(MAZE, data=path, action_clip_eps=eps) for eps in (0.5, None))
    assert task.dataset is not None
    assert plain.dataset is not None
    wanted = np.clip(plain.dataset.actions, -0.5, 0.5)
    assert np.abs(plain.dataset.actions).max() == 1.0
    np.testing.assert_array_equal(task.dataset.actions, wanted)
    assert note in task.notes
    assert not any("clipped" in line for line in plain.notes)


def test_the_default_folder_is_searched_too(tmp_path: Path) -> None:
    path = maze_file(tmp_path / "home")
    assert load_ogbench(MAZE, tmp_path / "elsewhere").source == str(path)
    assert load_ogbench(MAZE).source == str(path)


def test_a_smaller_dataset_is_never_the_benchmarks(tmp_path: Path) -> None:
    maze_file(tmp_path)
    dataset = load_ogbench(MAZE, tmp_path, episodes=1, workers=1)
    name = "pointmaze-medium-navigate-v0-episodes1-seed0.npz"
    assert dataset.source == str(tmp_path / "generated" / name)
    assert len(dataset) == 1000
    assert dataset.terminals.sum() == 1
    assert dataset_path(parse_task(MAZE), Path(), 8, 3, 1).name == (
        "pointmaze-medium-navigate-v0-repeat8-episodes3-seed1.npz"
    )
    # It is found, not made again, and only under the same numbers.
    again = load_ogbench(MAZE, tmp_path, episodes=1, allow_generate=False)
    np.testing.assert_array_equal(again.observations, dataset.observations)
    with pytest.raises(VGFError, match=r"no data .*allow generation"):
        load_ogbench(MAZE, tmp_path, episodes=1, seed=1, allow_generate=False)


def test_without_data_the_ways_out_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIRRORS", ("http://127.0.0.1:9/{file}",))
    name = "antmaze-large-navigate-singletask-task1-v0"
    with pytest.raises(VGFError) as error:
        load_ogbench(name, tmp_path)
    message = str(error.value)
    for words in (
        name,
        "http://127.0.0.1:9/antmaze-large-navigate-v0.npz",
        "refused",
        f"put antmaze-large-navigate-v0.npz into {tmp_path}",
        "--data-dir",
        "try again with a network",
    ):
        assert words in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VGFError, match="allow the download"):
        load_ogbench(name, tmp_path, allow_download=False)
    monkeypatch.setenv("VGF_OFFLINE", "1")
    with pytest.raises(VGFError, match="allow the download"):
        load_ogbench(name, tmp_path)


def test_a_download_is_used_and_known_again(tmp_path: Path) -> None:
    there = maze_file(tmp_path / "there").parent.as_uri()
    here = tmp_path / "here"
    assert len(load_ogbench(MAZE, here, allow_generate=False, mirror=there)) == 6
    path = here / "pointmaze-medium-navigate-v0.npz"
    assert json.loads((here / "checksums.json").read_text())[path.name]["url"].startswith(there)
    maze_file(here, actions=np.zeros((8, 2), np.float32))
    with pytest.raises(VGFError, match="delete it, and it is fetched again"):
        load_ogbench(MAZE, here)


@pytest.mark.parametrize("memory", ["memory", "mapped"])
def test_a_folder_of_slices_is_one_data_set(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGF_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "pointmaze-medium-navigate-100m-v0"
    monkeypatch.setattr(module, "_RELABELLED", 5)
    parts = [2, 10, 1]
    for number in parts:
        path = maze_file(folder, actions=np.full((8, 2), number / 10, np.float32))
        path.rename(folder / f"part-{number}.npz")
    (folder / "part-1-val.npz").write_bytes(b"of no interest")
    task = make_task(MAZE, data=folder, data_memory=memory)
    assert task.dataset is not None
    assert task.dataset.actions[::6, 0].tolist() == np.float32([0.1, 0.2, 1.0]).tolist()
    assert task.dataset.masks.tolist() == [1, 0, 1, 1, 1, 0] * 3
    mapped = isinstance(task.dataset.states.base, np.memmap)
    assert mapped == (memory == "mapped")
    np.savez(folder / "part-3.npz", observations=np.zeros((1, 2)))
    with pytest.raises(VGFError, match=r"part-3.npz has observations, and the other files of its"):
        make_task(MAZE, data=folder, data_memory=memory)
    (folder / "part-3.npz").write_bytes(b"cut")
    cut = r"part-3.npz is not a complete .npz file: .*was cut off; make or fetch that file again$"
    with pytest.raises(VGFError, match=cut):
        make_task(MAZE, data=folder, data_memory=memory)


def test_every_name_is_an_environment_of_ogbench() -> None:
    import gymnasium
    import ogbench  # noqa: F401

    names = ogbench_tasks()
    assert len(names) == len(set(names)) == 5 * (8 + 11 + 6 + 4 + 8 + 2 + 8)
    for name in names:
        task = parse_task(name)
        assert f"{task.environment}-singletask-task{task.number}-v0" in gymnasium.registry
        assert task.dataset == f"{task.environment}-{task.kind}-v0"
    assert parse_task("cube-double-play-singletask-v0").number is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pointmaze-medium-navigate-v0", "pointmaze-medium-navigate-singletask-task1-v0"),
        ("visual-cube-single-play-singletask-v0", "seen in pixels.*'cube-single-play"),
        ("cube-single-play-singletask-task6-v0", "numbered 1 to 5"),
        ("cube-single-navigate-singletask-task1-v0", "did you mean"),
        ("cube-singel-play-singletask-task1-v0", "did you mean .*cube-single-play"),
        ("hopper", "OGBench's names are"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(name: str, words: str) -> None:
    with pytest.raises(VGFError, match=words) as error:
        parse_task(name)
    assert repr(name) in str(error.value)

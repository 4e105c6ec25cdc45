"""Minari's datasets, made here: read, evaluated, and refused where they are damaged."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from needs import need

from vgf.benchmarks import find_task, minari
from vgf.benchmarks.files import read_file
from vgf.benchmarks.tasks import make_task
from vgf.data import to_dataset
from vgf.runs.config import TaskSettings
from vgf.support.errors import VGFError

need("minari", "gymnasium_robotics")

import gymnasium
from minari import DataCollector

from vgf.environments.making import registered


def record(store: Path, env: Any, name: str, lengths: list[int], **options: Any) -> Path:
    """Collect a dataset of random actions with Minari's own collector."""
    before = os.environ.get(minari.STORE_VARIABLE)
    os.environ[minari.STORE_VARIABLE] = str(store)
    about = {
        "algorithm_name": "random",
        "author": "test",
        "author_email": "test@example.org",
        "code_permalink": "https://example.org",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            collector = DataCollector(env)
            collector.action_space.seed(0)
            for seed, length in enumerate(lengths):
                collector.reset(seed=seed)
                for _ in range(length):
                    collector.step(collector.action_space.sample())
            collector.create_dataset(dataset_id=name, **about, **options)
    finally:
        if before is None:
            del os.environ[minari.STORE_VARIABLE]
        else:
            os.environ[minari.STORE_VARIABLE] = before
    return store / name


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three datasets; not to be changed."""
    folder = tmp_path_factory.mktemp("store")
    registered()
    pendulum = gymnasium.make("Pendulum-v1", max_episode_steps=5)
    record(folder, pendulum, "test/pendulum-v0", [5, 3], ref_min_score=-50.0, ref_max_score=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maze = gymnasium.make("PointMaze_UMaze-v3", max_episode_steps=4)
    record(folder, maze, "test/maze-v0", [4])
    cart = gymnasium.make("CartPole-v1")
    record(folder, cart, "test/cart-v0", [3])
    return folder


@pytest.fixture(autouse=True)
def own_store(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data but the test's own."""
    monkeypatch.setenv(minari.STORE_VARIABLE, str(store))
    monkeypatch.setattr(minari, "DEFAULT_STORE", tmp_path / "home")


def test_episodes_become_trajectories(store: Path) -> None:
    raw = minari.read_minari(store / "test/pendulum-v0")
    dataset = to_dataset(raw)
    assert len(dataset) == 8
    # One episode was cut by its limit, the other by its recorder.
    assert dataset.terminals.tolist() == [0, 0, 0, 0, 1, 0, 0, 1]
    assert dataset.masks.tolist() == 8 * [1]
    np.testing.assert_array_equal(dataset.next_observations[:4], dataset.observations[1:5])
    assert not np.array_equal(dataset.next_observations[4], dataset.observations[5])
    # Pendulum's actions are in [-2, 2].
    np.testing.assert_allclose(dataset.actions, raw.arrays["actions"] / 2.0, atol=1e-6)
    assert np.abs(raw.arrays["actions"]).max() > 1.0


def test_an_episode_that_ends_without_a_flag_was_cut(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def episodes(_: Any) -> Any:
        for rows, done in ((2, False), (3, True), (0, False), (2, False)):
            flags = np.arange(rows) == rows - 1
            yield SimpleNamespace(
                observations=np.ones((rows + 1, 3)),
                actions=np.zeros((rows, 1)),
                rewards=np.zeros(rows),
                terminations=flags & done,
                truncations=flags & False,
            )

    monkeypatch.setattr("minari.MinariDataset.iterate_episodes", episodes)
    dataset = to_dataset(minari.read_minari(store / "test/pendulum-v0"))
    assert dataset.terminals.tolist() == [0, 1, 0, 0, 1, 0, 1]
    assert dataset.masks.tolist() == [1, 1, 1, 1, 0, 1, 1]


def test_its_environment_agrees_with_its_data() -> None:
    task = make_task("test/pendulum-v0")
    assert task.dataset is not None
    assert (task.observation_dim, task.action_dim, task.max_episode_steps) == (3, 1, 5)
    assert (task.score_name, task.reference) == ("normalised score", (-50.0, 0.0))
    assert task.score(-25.0, None) == 50.0
    assert "evaluated in Pendulum-v1" in task.notes[0]
    env = pickle.loads(pickle.dumps(task.make_env))(None)
    seen, _ = env.reset(seed=0)
    for row in range(5):
        np.testing.assert_allclose(seen, task.dataset.observations[row], atol=1e-5)
        seen, reward, _, truncated, _ = env.step(task.dataset.actions[row])
        assert reward == pytest.approx(task.dataset.rewards[row], abs=1e-4)
    assert truncated


def test_dicts_are_flattened_alike_in_data_and_environment() -> None:
    task = make_task("test/maze-v0")
    assert task.dataset is not None
    assert (task.dataset.observation_dim, task.observation_dim) == (8, 8)
    assert task.score_name == "return"
    assert "no normalised score: test/maze-v0 has no reference scores" in " ".join(task.notes)
    assert task.make_env is not None
    env = task.make_env(None)
    seen, _ = env.reset(seed=0)
    for row in range(4):
        np.testing.assert_allclose(seen, task.dataset.observations[row], atol=1e-5)
        seen, *_ = env.step(task.dataset.actions[row])


def test_names_and_stores(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert minari.local_names() == ["test/cart-v0", "test/maze-v0", "test/pendulum-v0"]
    assert find_task("test/maze-v0").kind == "minari"
    monkeypatch.setenv(minari.STORE_VARIABLE, str(tmp_path / "empty"))
    assert minari.local_path("test/maze-v0") is None
    assert minari.local_path("test/maze-v0", store) == store / "test/maze-v0"
    with pytest.raises(VGFError, match="'x' is not a name of a Minari dataset"):
        minari.find_minari("x")
    with pytest.raises(VGFError, match=r"did you mean test/maze-v0\? .*--data-dir"):
        minari.find_minari("test/mase-v0", store, allow_download=False)


def test_a_download_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari as library

    def refuse(name: str) -> None:
        assert os.environ[minari.STORE_VARIABLE] == str(tmp_path / "mine")
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(library, "download_dataset", refuse)
    before = os.environ[minari.STORE_VARIABLE]
    with pytest.raises(VGFError, match=r"the download failed: no route to host\); on a machine"):
        minari.find_minari("D4RL/door/human-v2", tmp_path / "mine")
    assert os.environ[minari.STORE_VARIABLE] == before


def test_a_download_is_used(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import minari as library

    def fetch(name: str) -> None:
        print("noise")
        shutil.copytree(store / name, Path(os.environ[minari.STORE_VARIABLE]) / name)

    monkeypatch.setattr(library, "download_dataset", fetch)
    monkeypatch.setenv(minari.STORE_VARIABLE, str(tmp_path / "other"))
    assert find_task("test/maze-v0").kind == "minari"
    path = minari.find_minari("test/maze-v0", tmp_path / "mine")
    assert path == tmp_path / "mine/test/maze-v0"


def test_a_folder_is_data_too(store: Path) -> None:
    assert len(to_dataset(read_file(store / "test/maze-v0"))) == 4
    with pytest.raises(VGFError, match="is part of a Minari dataset; name the dataset's folder"):
        read_file(store / "test/maze-v0/data/main_data.hdf5")


def test_what_cannot_be_used(store: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(VGFError, match=r"CartPole-v1: actions are Discrete\(2\); only vectors"):
        make_task("test/cart-v0")
    with pytest.raises(VGFError, match="names its own data; drop --data"):
        make_task("test/maze-v0", data="x.npz")
    damaged = tmp_path / "test/maze-v0"
    shutil.copytree(store / "test/maze-v0", damaged)
    (damaged / "data/main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(VGFError, match="is not a complete Minari dataset"):
        minari.read_minari(damaged)
    (damaged / "data/metadata.json").write_text("{")
    with pytest.raises(VGFError, match="is not a complete Minari dataset"):
        make_task("test/maze-v0", data_dir=tmp_path)


# --- data are never code ----------------------------------------------------------------------


def changed(store: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the pendulum's dataset with other metadata; None drops one."""
    shutil.copytree(store / "test/pendulum-v0", folder / "test/evil-v0")
    place = folder / "test/evil-v0/data/metadata.json"
    metadata = json.loads(place.read_text())
    spec = json.loads(metadata["env_spec"]) | changes.pop("spec", {})
    metadata |= {"env_spec": json.dumps(spec), "dataset_id": "test/evil-v0"} | changes
    place.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))
    return folder / "test/evil-v0"


def touching(mark: Path) -> dict[str, Any]:
    return {"entry_point": "subprocess:call", "kwargs": {"args": ["touch", str(mark)]}}


CODE = {
    "entry point": lambda mark: {"spec": {"id": "Evil-v0", **touching(mark)}},
    "entry point of a registered name": lambda mark: {"spec": touching(mark)},
    "no arguments": lambda mark: {"spec": {"entry_point": "evil_module:call"}},
    "evaluation": lambda mark: {
        "eval_env_spec": json.dumps({"id": "Evil-v0", "additional_wrappers": [], **touching(mark)})
    },
    "module": lambda mark: {"spec": {"id": "evil_module:Pendulum-v1"}},
    "wrapper": lambda mark: {"spec": {"additional_wrappers": [{"name": "W", **touching(mark)}]}},
    "spaces": lambda mark: {"spec": touching(mark), "observation_space": None},
    "path": lambda mark: {"spec": {"kwargs": {"xml_file": "/etc/passwd"}}},
}


@pytest.mark.parametrize("kind", CODE)
def test_a_dataset_runs_no_code(
    store: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vgf.cli import main

    mark = tmp_path / "mark"
    path = changed(store, tmp_path / "mine", **CODE[kind](mark))
    module = tmp_path / "evil_module.py"
    module.write_text(f"open({str(mark)!r}, 'w')\ndef call(*a, **k): raise ValueError\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    places = ["--data-dir", str(tmp_path / "mine")]
    inspected = main(["data", "inspect", "test/evil-v0", *places, "--no-picture"])
    assert inspected == (2 if kind == "spaces" else 0)
    assert not mark.exists()
    if kind == "no arguments":  # the pendulum of the installed package, not the file's
        assert minari.make_minari_env(path).unwrapped.__class__.__name__ == "PendulumEnv"
    else:
        with pytest.raises(VGFError, match=r"trust-data-code|only the code that it names could"):
            minari.make_minari_env(path)
    run = ["run", "--env", "test/evil-v0", *places, "--steps", "1", "--backend", "numpy"]
    if kind != "no arguments":
        assert main([*run, "--out", str(tmp_path / "run")]) == 2
    assert not mark.exists()


def test_the_users_word_lets_a_dataset_call_its_code(store: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = changed(store, tmp_path, spec=touching(mark))
    with pytest.raises(VGFError):
        minari.make_minari_env(path, trusted=True)  # it is called, and is no environment
    assert mark.exists()
    assert not TaskSettings().trust_data_code


OWN = """import gymnasium, numpy as np

class Own(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}

gymnasium.register("OwnInFolder-v0", "own_in_folder:Own", max_episode_steps=3)
"""


def test_an_environment_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded from, and found again by the user's word, not by the data's, as `module:Env` is."""
    from vgf.cli import main

    (tmp_path / "own_in_folder.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    make = ["data", "make", "gymnasium:own_in_folder:OwnInFolder-v0", "--policy", "random"]
    where = ["--out", "minari:own/set-v0", "--data-dir", "store", "--workers", "1"]
    assert main([*make, *where, "--episodes", "2"]) == 0
    assert "--data-dir store --trust-data-code" in capsys.readouterr().out
    path = tmp_path / "store/own/set-v0"
    monkeypatch.delitem(sys.modules, "own_in_folder")  # as in a new process, which has not seen it
    monkeypatch.delitem(gymnasium.registry, "OwnInFolder-v0")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    with pytest.raises(VGFError, match=r"trust-data-code .* or name .* --env MODULE:ID --data"):
        minari.make_minari_env(path)
    assert "own_in_folder" not in sys.modules
    assert minari.make_minari_env(path, trusted=True).unwrapped.__class__.__name__ == "Own"
    task = make_task("own_in_folder:OwnInFolder-v0", data=path)
    assert task.dataset is not None
    assert (len(task.dataset), task.max_episode_steps) == (6, 3)

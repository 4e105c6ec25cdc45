"""`vgf run` on other data than OGBench's: what it says, what it leaves, what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from needs import need

from vgf import cli
from vgf.benchmarks import d4rl, minari
from vgf.runs.report import find_runs, last_scores
from vgf.support.rows import read_rows

need("gymnasium_robotics", "mujoco", "h5py")

TINY = [
    "--backend",
    "numpy",
    "--steps",
    "6",
    "--batch-size",
    "8",
    "--log-every",
    "3",
    "--evaluate-every",
    "3",
    "--checkpoint-every",
    "3",
    "--episodes",
    "2",
    "--evaluation-steps",
    "0",
    "1",
    "--critic-hidden",
    "8",
    "--reference-hidden",
    "8",
    "--gradient-field-hidden",
    "8",
]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but the test's own."""
    monkeypatch.delenv(d4rl.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(d4rl, "DEFAULT_FOLDER", tmp_path / "home/d4rl")
    monkeypatch.setattr(minari, "DEFAULT_STORE", tmp_path / "home/minari")


@pytest.fixture
def hopper(tmp_path: Path) -> Path:
    """Random actions in gymnasium's hopper, in D4RL's layout."""
    import h5py

    from vgf.environments.making import make_gymnasium_env

    env = make_gymnasium_env("Hopper-v4")
    env.action_space.seed(0)
    seen, rows = env.reset(seed=0)[0], []
    for _ in range(120):
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        rows.append((seen, action, reward, terminated, truncated))
        seen = env.reset()[0] if terminated or truncated else after
    path = tmp_path / "data/hopper_medium-v2.hdf5"
    path.parent.mkdir()
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    with h5py.File(path, "w") as file:
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            file[name] = np.array(column)
    return path


@pytest.mark.full
@pytest.mark.parametrize("by", ["--data", "--data-dir"])
def test_d4rl(
    hopper: Path,
    by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    where = hopper if by == "--data" else hopper.parent
    words = ["run", "--env", "hopper-medium-v2", by, os.path.relpath(where), *TINY]
    assert cli.main([*words, "--normalise-rewards", "--out", "run"]) == 0
    printed, noise = capfd.readouterr()
    assert "stands in for D4RL's hopper-medium-v2" in " ".join(printed.split())
    assert "evaluated in Hopper-v4 (gymnasium" in printed
    assert "3 updates  normalised score  BC" in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if "run/" not in line)
    assert all(line.startswith(("training", "evaluating")) for line in noise.splitlines())
    rows = read_rows(tmp_path / "run/evaluations.jsonl")
    assert {row["success"] for row in rows} == {None}
    for row in rows:
        expected = 100 * (float(row["return"] or 0) + 20.272305) / (3234.3 + 20.272305)
        assert row["score"] == pytest.approx(expected)
    start = json.loads((tmp_path / "run/environment.json").read_text())[0]
    assert start["score"] == "normalised score"
    assert start["data"] == str(hopper)
    assert any("stands in" in note for note in start["notes"])
    assert {score.kind for score in last_scores(find_runs(tmp_path / "run"))} == {
        "normalised score"
    }
    assert "norm. score" in (tmp_path / "run/report.html").read_text()
    # the same numbers again, from the checkpoint, in the environments that the folder names
    capfd.readouterr()
    assert cli.main(["eval", "run", "--steps", "0", "1"]) == 0
    again = read_rows(tmp_path / "run/eval/001/evaluations.jsonl")
    assert again == [row for row in rows if row["step"] == 6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "run"]


@pytest.mark.full
def test_a_file_alone_stops_and_goes_on(
    hopper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    straight, split = tmp_path / "straight", tmp_path / "split"
    words = ["run", "--env", "none", "--data", str(hopper), *TINY]
    assert cli.main([*words, "--out", str(straight)]) == 0
    shutil.copytree(straight, split)
    shutil.rmtree(split / "checkpoints/step-000000006")
    assert cli.main(["run", "--resume", str(split)]) == 0
    state = "checkpoints/step-000000006/state.safetensors"
    assert (split / state).read_bytes() == (straight / state).read_bytes()
    capsys.readouterr()
    assert cli.main(["eval", str(split)]) == 2
    assert "hopper_medium-v2.hdf5 has no environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--env hopper-medium-v2 --data no.hdf5", "no.hdf5: no such file"),
        ("--env walker2d-medium-v2 --data DATA", "is it the file of another environment?"),
        ("--env hopper-medum-v2", "did you mean hopper-medium-v2"),
        ("--env none", "no task and no data"),
        ("--env Hopper-v5", "name a file with --data"),
        ("--env antmaze-umaze-v2 --data DATA --normalise-rewards", "--no-normalise-rewards"),
        ("--env hopper-medium-v2 --data DATA --action-repeat 2", "it must be 1"),
    ],
)
def test_refusals_leave_no_folder(
    hopper: Path, words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words.replace("DATA", str(hopper)).split()
    assert cli.main(["run", *given, *TINY, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()

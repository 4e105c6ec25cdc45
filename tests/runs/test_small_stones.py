"""What a person types, and what the answer names."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from needs import need

from vgf.cli import COMMANDS, main
from vgf.runs.config import LoggingSettings, RunConfig, save_config
from vgf.runs.folder import create_run_folder
from vgf.runs.log import RunLog
from vgf.runs.report import report
from vgf.runs.resolve import resolve
from vgf.spec.settings import method_settings
from vgf.support.errors import VGFError
from vgf.support.statistics import RETURN, SUCCESS, interval
from vgf.support.suggestions import meant


def test_a_method_brings_its_own_defaults(tmp_path: Path) -> None:
    """In place of what a file says for another one; what is said explicitly still contradicts."""
    path = tmp_path / "config.toml"
    save_config(RunConfig(), path)
    for method in ("fql", "bc", "weighted_bc", "avgf"):
        config = resolve({"agent": {"method": method}}, path)
        authors = method_settings(method)
        assert config.agent.method == method
        assert config.agent.transports == authors.transports
        assert config.agent.critic.activation == authors.critic.activation
    with pytest.raises(VGFError, match=r"moves no particles; budget\.steps must be 0"):
        resolve({"agent": {"method": "fql", "budget": {"steps": 2}}}, path)
    assert resolve({"agent": {"method": "VGF"}}).agent.method == "vgf"
    assert resolve({"agent": {"method": "FQL"}}, path).agent.method == "fql"
    kept = resolve({"agent": {"method": "vgf", "discount": 0.5}}, path)
    assert kept.agent == resolve({"agent": {"discount": 0.5}}, path).agent


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run", "--lr", "1"], "did you mean --learning-rate?"),
        (["run", "--enviroment", "x"], "did you mean --env?"),
        (["run", "--preset", "hoper"], "did you mean hopper?"),
        (["run", "--resume", "R", "--steps", "5"], "--from R"),
        (["train"], "did you mean run?"),
        (["sweeps"], "did you mean sweep?"),
    ],
)
def test_suggestions(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert answer in capsys.readouterr().err


def test_what_is_meant_exists() -> None:
    """A word of other programs leads to a flag only where that flag exists."""
    assert meant("--lr", ["--steps", "--learning-rate"]) == "--learning-rate"
    assert meant("--lr", ["--steps"]) is None


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_equal_returns_have_no_interval() -> None:
    """They say nothing of their spread; equal successes do, by Wilson's interval."""
    assert interval([np.full(3, 7.0)], RETURN) == (None, None)
    assert interval([np.full(3, 7.0), np.full(3, 7.0)], RETURN) == (None, None)
    assert interval([np.array([7.0, 8.0])], RETURN)[0] is not None
    low, high = interval([np.ones(3)], SUCCESS)
    assert low is not None
    assert low < 0.5
    assert high == 1.0


@pytest.mark.full
def test_a_report_has_no_table_twice(tmp_path: Path) -> None:
    config = RunConfig()
    for seed in (0, 1):
        folder = create_run_folder(tmp_path / f"seed-{seed}", RunConfig(seed=seed))
        with RunLog(folder, config) as log:
            log.metrics(20_000, {"critic_loss": 1.0})
            row = {"budget": 0, "episode": 0, "return": 1.0, "success": 1}
            log.evaluations(20_000, [row])
    page = report(tmp_path).read_text()
    tables = [part.partition("</table>")[0] for part in page.split("<table>")[1:]]
    assert len(tables) == len(set(tables)) == 2
    assert "<pre class=command>" in page
    assert "pre-wrap" in page


@pytest.mark.slow
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers, on this machine alone."""
    need("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = RunConfig(logging=LoggingSettings(trackio=True))
    folder = create_run_folder(tmp_path / "run", config)
    with RunLog(folder, config) as log:
        log.metrics(10, {"critic_loss": 0.125})
    import sqlite3

    (place,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(place) as database:
        rows = str(database.execute("select * from metrics").fetchall())
    assert "train/critic_loss" in rows
    assert "0.125" in rows


def test_an_environment_of_ones_own_is_scored_by_its_success(tmp_path: Path) -> None:
    """Where it says so in its info and the run asks for it; else by its return."""
    gymnasium = pytest.importorskip("gymnasium")
    from vgf.runs.config import TaskSettings
    from vgf.runs.task import load_task

    class Reach(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), -1.0, False, False, {"success": True}

    gymnasium.register("OwnReach-v0", Reach, max_episode_steps=3)
    data = tmp_path / "data.npz"
    np.savez(
        data,
        observations=np.zeros((9, 1)),
        actions=np.zeros((9, 1)),
        rewards=np.zeros(9),
        terminals=np.arange(9) % 3 == 2,
    )
    for score, found in (("auto", -3.0), ("success", 1.0), ("return", -3.0)):
        task_settings = TaskSettings("OwnReach-v0", str(data), action_repeat=1, score=score)
        task = load_task(RunConfig(task=task_settings))
        assert task.score(-3.0, 1.0) == found
    with pytest.raises(ValueError, match="score is 'sucess'; did you mean 'success'"):
        TaskSettings(score="sucess")

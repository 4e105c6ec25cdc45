"""What a person types, and what the answer names."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from needs import need

from vgf.benchmarks.tasks import success
from vgf.cli import COMMANDS, main
from vgf.cli.bench import KINDS
from vgf.cli.data import SUBCOMMANDS
from vgf.environments.pool import EnvironmentPool
from vgf.runs.config import LoggingSettings, RunConfig, TaskSettings, all_settings, save_config
from vgf.runs.flags import add_flags, flag_names, given, in_flags, reworded
from vgf.runs.folder import create_run_folder
from vgf.runs.log import RunLog
from vgf.runs.report import report
from vgf.runs.resolve import resolve
from vgf.runs.start import configuration
from vgf.spec.settings import method_settings, settings_of_methods
from vgf.support.errors import VGFError
from vgf.support.parser import Parser
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
    mine = Path(__file__).parents[1] / "own" / "mine.py"  # settings that nobody else has
    save_config(resolve({"agent": {"method": f"{mine}:MyMethod", "beta": 2.0}}), path)
    assert "beta = 2.0" in path.read_text()
    assert resolve({"agent": {"method": "fql"}}, path).agent.method == "fql"
    save_config(RunConfig(), path)
    kept = resolve({"agent": {"method": "vgf", "discount": 0.5}}, path)
    assert kept.agent == resolve({"agent": {"discount": 0.5}}, path).agent


def refused(*words: str) -> str:
    """What `vgf run` says to some flags that it must refuse."""
    parser = Parser(prog="vgf run")
    flags = add_flags(parser)
    args = parser.parse_args(words)
    with pytest.raises(VGFError) as caught, in_flags(flags):
        configuration(given(args), args.config)
    return str(caught.value)


def test_a_flag_is_refused_in_its_own_words() -> None:
    """Every setting that can be out of its range: the message begins with the flag, has no key."""
    flags = flag_names()
    words = [re.escape(key) for key in flags if "." in key] + [
        r"[a-z]+_[a-z_]+ (?:is|must)",
        "method_settings",
    ]
    tried = 0
    for setting in all_settings():
        kinds = {*get_args(setting.hint), setting.hint}
        bad = "-7" if kinds & {int, float, tuple[int, ...]} else "foo"
        free = ("task.env", "task.data", "task.data_dir", "task.mirror", "start.run", "preset")
        if bool in kinds or setting.key in (*free, "out", "agent.budget.low", "agent.budget.high"):
            continue
        if setting.key.partition(".")[2] in {own.name for own in settings_of_methods()}:
            continue  # ignored, or refused by the method's name
        if setting.key.startswith(tuple(f"agent.{own.name}." for own in settings_of_methods())):
            continue
        said = refused(flags[setting.key], bad)
        assert said.startswith(f"{flags[setting.key]} "), said
        assert not re.search("|".join(words), said), said
        tried += 1
    assert tried > 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--method fql --budget-steps 2",
            "--method 'fql' moves no particles; --budget-steps must be 0, which is the method's "
            "default",
        ),
        (
            "--n-step 2 --action-chunk 3",
            "--n-step 2 contradicts --action-chunk 3, whose transitions span a chunk; drop "
            "--n-step",
        ),
        (
            "--mixing scratch --online-steps 4",
            "--mixing 'scratch' has no offline data for --steps 20000; set --steps to 0, or use "
            "'wsrl'",
        ),
        (
            "--bandwidth 0.1 --bandwidth-gradient",
            "--bandwidth-gradient needs the median bandwidth; drop --bandwidth, or use "
            "--no-bandwidth-gradient",
        ),
        ("--checkpoint 4", "name it with --from"),
        ("--warmup 9 --online-steps 3", "lower --warmup, or take more steps"),
    ],
)
def test_flags_that_contradict_one_another(words: str, message: str) -> None:
    assert message in refused(*words.split())


def test_what_is_not_about_settings_is_left_alone() -> None:
    flags = flag_names()
    for words in (
        "runs/r holds seeds 0 to 7, not 9; choose among them with --seed and --seeds",
        "r/config.toml: seed is 3, and the checkpoint of step 4 was made with 2",
        "data.npz: actions leave the box [-1, 1], first in row 0; name the environment by --env",
        "training diverged: reference_loss not finite; lower --learning-rate or --step-size",
    ):
        assert reworded(words, flags) == words
    said = reworded("action_repeat 3 is for pointmaze; use action_repeat 1", flags)
    assert said == "--action-repeat 3 is for pointmaze; use --action-repeat 1"


def test_a_file_is_refused_in_keys(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[agent]\nmethod = 'fql'\nbudget = { steps = 2 }\n")
    assert f"{path}: [agent] method 'fql'" in refused("--config", str(path))
    assert "budget.steps must be 0" in refused("--config", str(path))


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


PAGES = [
    [],
    *([name] for name in COMMANDS),
    *(["bench", kind] for kind in KINDS),
    *(["data", name] for name in SUBCOMMANDS),
]


@pytest.mark.parametrize("command", PAGES, ids=" ".join)
def test_help_fits_a_terminal(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every command and part of a command, and the page of all flags where there is one."""
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        main([*command, "--help"])
    shown = capsys.readouterr().out
    if "--help-all" in shown:
        with contextlib.suppress(SystemExit):
            main([*command, "--help-all"])
        shown += capsys.readouterr().out
    assert shown.count("\n") > 3
    assert max(map(len, shown.splitlines())) <= 80


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


class Warns:
    """Makes an environment whose registration gymnasium warns of, as a user's module may."""

    def __call__(self, seed: int | None = None) -> object:
        gymnasium = pytest.importorskip("gymnasium")
        for _ in range(2):
            gymnasium.register("Twice-v0", "gymnasium.envs.classic_control:PendulumEnv")
        return gymnasium.make("Twice-v0")


@pytest.mark.slow
def test_a_registration_warning_is_printed_once(capfd: pytest.CaptureFixture[str]) -> None:
    """By the process that evaluates; the workers that it starts say nothing more."""
    with pytest.warns(UserWarning, match="Overriding environment Twice-v0"):
        Warns()()
    with EnvironmentPool(Warns(), success, size=2, workers=2) as pool:
        assert len(pool.reset({0: 0, 1: 1})) == 2
    assert "Overriding" not in capfd.readouterr().err


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


def test_stacked_frames_of_ones_own_are_flattened(tmp_path: Path) -> None:
    """And dicts, as DeepMind's control suite has them: a registered wrapper is all it takes."""
    gymnasium = pytest.importorskip("gymnasium")
    from vgf.runs.task import load_task

    class Plane(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(
            {"place": gymnasium.spaces.Box(-9, 9, (2,)), "speed": gymnasium.spaces.Box(-9, 9, (1,))}
        )
        action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def at(self, value):
            spaces = self.observation_space.spaces.items()
            return {name: np.full(space.shape, value, np.float32) for name, space in spaces}

        def reset(self, *, seed=None, options=None):
            return self.at(0.0), {}

        def step(self, action):
            return self.at(1.0), 0.0, False, False, {}

    def make() -> Any:
        env = gymnasium.wrappers.FlattenObservation(Plane())
        return gymnasium.wrappers.FrameStackObservation(env, 2)

    gymnasium.register("OwnStack-v0", make, max_episode_steps=3)
    gymnasium.register("OwnDict-v0", Plane, max_episode_steps=3)
    for name, seen in (("OwnStack-v0", [0, 0, 0, 1, 1, 1]), ("OwnDict-v0", [1, 1, 1])):
        config = RunConfig(task=TaskSettings(name, action_repeat=1))
        task = load_task(config, with_dataset=False)
        assert task.observation_dim == len(seen)
        assert task.make_env is not None
        with EnvironmentPool(task.make_env, success, size=1, workers=0) as pool:
            pool.reset({0: 0})
            step = pool.step({0: np.zeros(1)})[0]
        np.testing.assert_array_equal(step.observation, seen)


def test_an_environment_of_ones_own_is_scored_by_its_success(tmp_path: Path) -> None:
    """Where it says so in its info and the run asks for it; else by its return."""
    gymnasium = pytest.importorskip("gymnasium")
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

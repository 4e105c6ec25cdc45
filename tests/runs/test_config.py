"""The tree of settings: TOML, flags, precedence, and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from needs import SECONDS

from vgf import spec
from vgf.methods import method_names
from vgf.runs.config import (
    DEMO_ENV,
    RunConfig,
    all_settings,
    default_config,
    dump_config,
    save_config,
    settings_hash,
)
from vgf.runs.flags import SHOWN, add_flags, config_from_flags, flag_names, given, spell
from vgf.runs.resolve import load_config, resolve
from vgf.spec.settings import ACTIVATIONS, CRITIC_LOSSES, SELECTION_RULES, Budget, Network
from vgf.support.errors import VGFError
from vgf.support.parser import Parser
from vgf.support.settings_tree import override, to_dict

# What a text setting may be; every other text setting takes any text.
CHOICES: dict[str, tuple[str, ...]] = {
    "activation": ACTIVATIONS,
    "critic_loss": CRITIC_LOSSES,
    "kernel": ("rbf",),
    "sampler": ("euler",),
    "target": ("td",),
    "selection": SELECTION_RULES,
    "optimiser": ("plain", "adam"),
    "clip_scope": ("state", "batch"),
    "reference_kind": ("flow", "gaussian"),
    "target_update": ("after", "before"),
    "target_ensemble": ("min", "mean"),
    "target_particles": ("mean", "max"),
    "value_ensemble": ("mean", "min"),
    "name": ("numpy", "torch", "jax"),
    "device": ("auto", "cpu", "gpu", "gpu:1", "cuda:0"),
    "dtype": ("float32", "float64"),
    "matmul_precision": ("float32", "tf32", "bf16"),
    "preset": ("hopper-medium-vgf", "cube-single-task2-vgf-online"),
}


def values_for(key: str, hint: Any) -> st.SearchStrategy[Any]:
    name = key.rpartition(".")[2]
    if typing.get_origin(hint) is tuple:
        elements = st.integers(1, 10_000)
        return st.lists(elements, min_size=1, max_size=4, unique=True).map(tuple)
    if type(None) in typing.get_args(hint):
        kind = next(part for part in typing.get_args(hint) if part is not type(None))
        return st.none() | values_for(key, kind)
    if hint is bool:
        return st.booleans()
    if name in CHOICES:
        return st.sampled_from(CHOICES[name])
    if hint is str:
        text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
        return text.filter(lambda text: text.lower() != "none")
    if hint is int:
        return st.integers(1, 2**30)
    if name in ("low", "high"):
        return st.floats(-10, 10, allow_nan=False)
    return st.floats(0.0, 1.0, exclude_min=True, exclude_max=True, allow_nan=False)


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """A valid tree with a few settings changed, None among them; contradictions are dropped."""
    config = RunConfig()
    keys = {setting.key: setting.hint for setting in all_settings()}
    for key in draw(st.lists(st.sampled_from(sorted(keys)), max_size=12, unique=True)):
        *tables, last = key.split(".")
        values: dict[str, Any] = {last: draw(values_for(key, keys[key]))}
        for table in reversed(tables):
            values = {table: values}
        try:
            config = override(config, values, "drawn")
        except VGFError:
            continue
    return config


@pytest.mark.full
@for_all(configs())
@hypothesis_settings(max_examples=150, deadline=None)
def test_toml_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, config: Any) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    save_config(config, path)
    assert load_config(path) == config
    assert settings_hash(load_config(path).agent) == settings_hash(config.agent)


@for_all(configs())
@hypothesis_settings(max_examples=50, deadline=None)
@pytest.mark.full
def test_flags_say_everything(config: Any) -> None:
    """Every setting can be said by flags alone, and comes back exactly."""
    words = []
    for setting in all_settings(config):
        flag = flag_names()[setting.key]
        if setting.hint is bool:
            words.append(flag if setting.default else f"--no-{flag[2:]}")
        elif isinstance(setting.default, tuple):
            words += [flag, *spell(setting.default).split()]
        else:
            words.append(f"{flag}={spell(setting.default)}")
    assert config_from_flags(run_parser().parse_args(words)) == config


def run_parser() -> Parser:
    parser = Parser(prog="vgf run")
    add_flags(parser)
    return parser


def refusal(source: str | dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    if isinstance(source, dict):
        with pytest.raises(VGFError) as caught:
            override(RunConfig(), source, "run.toml")
    else:
        path.write_text(source)
        with pytest.raises(VGFError) as caught:
            load_config(path)
    message = str(caught.value)
    assert "run.toml" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nstepz = 3", ["unknown key train.stepz", "train.steps"]),
        ("[train]\nstep_size = 3", ["unknown key train.step_size", "agent.budget.step_size"]),
        ("[budget]\nsteps = 3", ["unknown key budget", "agent.budget"]),
        ("[evaluation]\nevery = 3", ["mean train.evaluate_every?"]),
        ("[agent]\nlr = 1e-3", ["mean agent.learning_rate?"]),
        ("[agent.critic]\nhiden = [3]", ["agent.critic.hiden", "agent.critic.hidden"]),
        ("qwertyuiop = 1", ["unknown key qwertyuiop", "tables"]),
        ("agent = 3", ["agent is 3", "[agent]"]),
        ("seed = 'x'", ["seed is 'x'", "whole number"]),
        ("seed = true", ["seed is True", "whole number"]),
        ("seed = 1.5", ["seed is 1.5", "whole number"]),
        ("seed = 3000000000", ["seed 3000000000", "2^31"]),
        ("[task]\nstandardise = 1", ["task.standardise is 1", "true or false"]),
        ("[task]\nenv = 3", ["task.env is 3", "text"]),
        ("[agent]\ndiscount = nan", ["agent.discount", "finite"]),
        ("[agent.budget]\nlow = inf", ["agent.budget.low", "finite", "none"]),
        ("[agent]\ndiscount = 2", ["[agent]", "discount", "[0.0, 1.0]"]),
        ("[agent.critic]\nhidden = 64", ["agent.critic.hidden", "list"]),
        ("[agent.critic]\nhidden = [64, 'a']", ["agent.critic.hidden", "whole number"]),
        ("[agent]\nreference_tanh = true", ["[agent]", "reference_tanh", "gaussian"]),
        ("[agent.budget]\nlow = 2.0", ["[agent.budget]", "low", "high"]),
        ("[evaluation]\nsteps = [1, 1]", ["[evaluation]", "twice"]),
        ("[evaluation]\nsteps = []", ["[evaluation]", "empty"]),
        ("[evaluation]\nworkers = 60", ["workers 60", "50 environments"]),
        ("[train]\nbatch_size = 0", ["[train]", "batch_size is 0"]),
        ("[backend]\nname = 'tensorflow'", ["[backend]", "tensorflow", "numpy, torch, jax"]),
        ("[backend]\ndevice = 'tpu'", ["[backend]", "tpu"]),
        ("[backend]\ndtype = 'float64'\nmatmul_precision = 'bf16'", ["contradicts", "float64"]),
        ("[train\nsteps = 3", ["not valid TOML", "line 1"]),
    ],
)
def test_bad_toml_is_refused_in_one_line(text: str, words: list[str], tmp_path: Path) -> None:
    message = refusal(text, tmp_path)
    for word in words:
        assert word in message


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match=r"absent\.toml: no such file"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VGFError, match=r"binary\.toml: not valid TOML"):
        load_config(tmp_path / "binary.toml")


def test_precedence(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("seed = 3\n[train]\nsteps = 7\nbatch_size = 8\n")
    words = ["--config", str(path), "--steps", "9", "--critic-hidden", "5", "6"]
    config = config_from_flags(run_parser().parse_args(words))
    assert (config.seed, config.train.steps, config.train.batch_size) == (3, 9, 8)
    assert config.agent.critic == Network(hidden=(5, 6), layer_norm=True)
    assert config.evaluation == RunConfig().evaluation


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ([], "before"),
        (["--critic-layer-norm", "after"], "after"),
        (["--critic-layer-norm", "none"], None),
        # as up to version 0.1
        (["--critic-layer-norm"], "before"),
        (["--no-critic-layer-norm"], None),
    ],
)
def test_where_layer_norm_stands(words: list[str], where: str | None) -> None:
    config = config_from_flags(run_parser().parse_args(words))
    assert config.agent.critic.layer_norm == where


def test_layer_norm_that_stands_nowhere_is_refused() -> None:
    with pytest.raises(VGFError, match=r"network\.layer_norm is 'middle'; choose one of before"):
        config_from_flags(run_parser().parse_args(["--critic-layer-norm", "middle"]))


def test_fql_is_that_of_its_authors_unless_a_file_says_otherwise(tmp_path: Path) -> None:
    agent = config_from_flags(run_parser().parse_args(["--method", "fql"])).agent
    large = (512, 512, 512, 512)  # the other methods have the default run's small ones
    assert agent.critic == Network(large, "gelu_tanh", "after")
    assert agent.reference == agent.policy == Network(large, "gelu_tanh", None)
    assert (agent.target_update, agent.critic_loss) == ("before", "mean_squared")
    assert (agent.sampling_steps, agent.discount, agent.polyak) == (10, 0.99, 0.005)
    small = (64, 64, 64)
    # what a run of version 0.1 recorded
    path = tmp_path / "config.toml"
    networks = "".join(
        f'[agent.{name}]\nhidden = [64, 64, 64]\nactivation = "relu"\nlayer_norm = {norm}\n'
        for name, norm in (("critic", "true"), ("reference", "false"), ("policy", "false"))
    )
    path.write_text(
        '[agent]\nmethod = "fql"\ntarget_update = "after"\ncritic_loss = "squared"\n'
        f'target_ensemble = "mean"\nparticles = 1\n{networks}'
    )
    old = load_config(path).agent
    assert old.critic == Network(small, "relu", "before")
    assert old.reference == old.policy == Network(small, "relu", None)
    assert (old.target_update, old.critic_loss) == ("after", "squared")
    state = spec.init_state(0, 3, 2, old)  # with the names that its checkpoint has
    assert set(state["critic"]["hidden_0"]) == {"kernel", "bias", "norm_scale", "norm_offset"}


def test_defaults_follow_the_task(tmp_path: Path) -> None:
    assert default_config() == RunConfig()
    assert RunConfig().task.env == DEMO_ENV
    assert RunConfig().task.action_repeat == 8
    other = "cube-single-play-singletask-task2-v0"
    assert resolve({"task": {"env": other}}).task.action_repeat == 1
    assert resolve({"task": {"env": other, "action_repeat": 4}}).task.action_repeat == 4
    for nothing in (None, "none"):  # as a flag has it, and as a file
        assert resolve({"task": {"env": nothing, "data": "x.npz"}}).task.action_repeat == 1
    path = tmp_path / "run.toml"
    path.write_text(f"[task]\nenv = '{other}'\n")
    assert load_config(path).task.action_repeat == 1
    assert resolve({"task": {"env": DEMO_ENV}}, path) == RunConfig()


def test_spelling_of_none(tmp_path: Path) -> None:
    parsed = run_parser().parse_args(["--temperature", "None", "--low", "none"])
    config = config_from_flags(parsed)
    assert config.agent.budget.temperature is None
    assert config.agent.budget.low is None
    with pytest.raises(VGFError, match="stands for"):
        to_dict(dataclasses.replace(config, out="None"))


def test_numbers_as_people_write_them() -> None:
    parsed = run_parser().parse_args(["--steps", "1e4", "--batch-size", "1_000", "--discount=1"])
    config = config_from_flags(parsed)
    assert (config.train.steps, config.train.batch_size) == (10_000, 1_000)
    assert type(config.train.steps) is int
    assert type(config.agent.discount) is float


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--stepsize", "3"], ["--stepsize is unknown", "--step-size"]),
        (["--step", "3"], ["--step is unknown", "--steps"]),  # no abbreviations
        (["--see=3"], ["--see is unknown", "--seed"]),
        (["word"], ["word is unknown", "--help"]),
        (["--steps"], ["--steps", "expected one argument"]),
        (["--steps", "many"], ["--steps", "'many' is not a whole number"]),
        (["--discount", "nan"], ["--discount", "finite"]),
        (["--step-size", "none"], ["--step-size", "finite"]),
    ],
)
def test_bad_flags_are_refused_in_one_line(words: list[str], expected: list[str]) -> None:
    with pytest.raises(VGFError) as caught:
        run_parser().parse_args(words)
    message = str(caught.value)
    assert "\n" not in message
    for word in expected:
        assert word in message


def test_unknown_flag_of_a_subcommand() -> None:
    parser = Parser(prog="vgf")
    commands = parser.add_subparsers(dest="command")
    add_flags(commands.add_parser("run"))
    assert given(parser.parse_args(["run", "--seed", "4"])) == {"seed": 4}
    with pytest.raises(VGFError, match="--sead is unknown; did you mean --seed"):
        parser.parse_args(["run", "--sead", "4"])


def test_one_flag_for_one_setting() -> None:
    flags = flag_names()
    assert list(flags) == [setting.key for setting in all_settings()]
    assert len(set(flags.values())) == len(flags)
    assert set(SHOWN) <= set(flags)


def test_every_setting_is_documented() -> None:
    assert [setting.key for setting in all_settings() if not setting.help] == []


def test_flags_of_another_command() -> None:
    parser = Parser(prog="vgf eval")
    names = {"evaluation.steps": "--steps", "evaluation.particles": "--particles"}
    add_flags(parser, tables=("evaluation", "backend"), names=names)
    values = given(parser.parse_args(["--steps", "0", "5", "--particles", "32"]))
    assert values == {"evaluation": {"steps": [0, 5], "particles": 32}}
    with pytest.raises(VGFError, match="--discount is unknown"):
        parser.parse_args(["--discount", "0.5"])


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        run_parser().parse_args(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert not any("--polyak" in line for line in lines)
    with pytest.raises(SystemExit) as stop:
        run_parser().parse_args(["--help-all"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for setting in all_settings():
        assert f"{flag_names()[setting.key]}" in text
        assert f"[{setting.key};" in text.replace("- ", "-")


def test_hash_depends_on_every_agent_setting() -> None:
    agent = RunConfig().agent
    assert settings_hash(agent) == settings_hash(RunConfig().agent)
    other = dataclasses.replace(agent, budget=dataclasses.replace(agent.budget, steps=2))
    assert settings_hash(other) != settings_hash(agent)
    assert settings_hash(dataclasses.replace(agent, discount=0.9)) != settings_hash(agent)


def test_the_demo() -> None:
    agent = RunConfig().agent
    assert (agent.particles, agent.sampling_steps, agent.discount) == (5, 5, 0.98)
    assert agent.budget == Budget(steps=1, step_size=0.3, temperature=1.0)
    assert agent.critic == Network(hidden=(64, 64, 64), layer_norm=True)
    assert agent.reference == Network(hidden=(64, 64, 64))
    assert (agent.learning_rate, agent.polyak) == (3e-4, 0.02)


def test_dump_names_every_setting() -> None:
    for method in method_names():
        config = default_config(method=method)
        text = dump_config(config)
        for setting in all_settings(config):
            assert f"{setting.key.rpartition('.')[2]} = " in text


def test_missing_toml_writer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(VGFError, match=r"pip install 'vgf\[run\]'"):
        dump_config(RunConfig())


def test_importing_brings_in_no_framework() -> None:
    code = """
import sys
import vgf.runs.config, vgf.runs.flags, vgf.runs.checkpoint, vgf.runs.log, vgf.runs.report
import vgf.text.settings
heavy = {"torch", "jax", "matplotlib", "tqdm", "safetensors", "tensorboardX", "wandb",
         "gymnasium", "scipy.stats", "tomli_w", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)


def test_namespace_holds_only_what_was_given() -> None:
    parsed = run_parser().parse_args([])
    assert isinstance(parsed, argparse.Namespace)
    assert given(parsed) == {}
    assert config_from_flags(parsed) == RunConfig()


def test_no_task_has_no_held_actions(tmp_path: Path) -> None:
    """--env none is a file of data alone, not the default task."""
    for config in (
        resolve({"task": {"env": None, "data": "a.npz"}}),
        override(default_config(None), {"task": {"data": "a.npz"}}, "flags"),
    ):
        assert (config.task.env, config.task.action_repeat) == (None, 1)
        save_config(config, tmp_path / "config.toml")
        assert load_config(tmp_path / "config.toml") == config
    assert resolve(
        {"task": {"env": "hopper-medium-v2"}}, tmp_path / "config.toml"
    ).task == dataclasses.replace(config.task, env="hopper-medium-v2")
    with pytest.raises(VGFError, match="env is empty; name a task"):
        resolve({"task": {"env": " "}})
    with pytest.raises(VGFError, match="data is empty; name a file"):
        resolve({"task": {"data": ""}})

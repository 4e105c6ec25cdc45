"""The paper's tasks as presets: what they set, where it is from, and what gives way to what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgf import cli
from vgf.runs import presets as package
from vgf.runs.config import DEMO_ENV, RunConfig, all_settings
from vgf.runs.presets import FAMILIES, Preset, departures, dump_preset, find_preset, presets
from vgf.runs.resolve import load_config, resolve
from vgf.spec.settings import Budget, Network, Settings, method_settings, settings_of_methods
from vgf.support.errors import VGFError
from vgf.support.toml import read_toml

ALL = tuple(presets().values())
D4RL = [
    *(
        f"{robot}-{data}-v2"
        for data in ("medium", "medium-replay", "medium-expert")
        for robot in ("hopper", "halfcheetah", "walker2d")
    ),
    *(
        f"antmaze-{maze}-v2"
        for maze in (
            "umaze",
            "umaze-diverse",
            "medium-play",
            "medium-diverse",
            "large-play",
            "large-diverse",
        )
    ),
    *(f"pen-{data}-v1" for data in ("human", "cloned", "expert")),
]
ANTMAZE = [env for env in D4RL if env.startswith("antmaze")]
# Environment, its default task, and A-VGF's discount, L_train, epsilon and agg_e.
OGBENCH: list[tuple[str, int, float, int, float, str]] = [
    ("antmaze-large-navigate", 1, 0.995, 5, 0.1, "min"),
    ("antmaze-giant-navigate", 1, 0.995, 5, 0.1, "min"),
    ("humanoidmaze-medium-navigate", 1, 0.995, 1, 0.05, "mean"),
    ("humanoidmaze-large-navigate", 1, 0.995, 1, 0.05, "mean"),
    ("antsoccer-arena-navigate", 4, 0.995, 2, 0.05, "mean"),
    ("cube-single-play", 2, 0.99, 1, 0.05, "mean"),
    ("cube-double-play", 2, 0.99, 1, 0.05, "mean"),
    ("scene-play", 2, 0.99, 1, 0.1, "mean"),
    ("puzzle-3x3-play", 4, 0.99, 5, 0.1, "mean"),
    ("puzzle-4x4-play", 4, 0.99, 5, 0.1, "mean"),
]
WIDE = (512, 512, 512, 512)
# Settings that a preset need not have: of other methods, losses and references.
_OTHERS = {
    *(
        f"agent.{name}"
        for name in ("reference_tanh", "expectile", "sparse_alpha", "selection_temperature")
    )
}


def of_another_method(key: str, method: str) -> bool:
    """Whether a setting is one that other methods have, and this one has not."""
    own = {entry.name for entry in dataclasses.fields(method_settings(method))}
    others = {setting.name for setting in settings_of_methods()} - own
    return key.startswith("agent.") and key.split(".")[1] in others


UNUSED = {
    "vgf": {
        *_OTHERS,
        "agent.budget.clip_scope",  # without a norm to clip to
    },
    "avgf": {*_OTHERS, "agent.budget.bandwidth_gradient", "agent.budget.kernel_guard"},
}
NO_PART_OF_A_RESULT = {
    setting.key
    for setting in all_settings()
    if "." not in setting.key or setting.key.startswith(("backend.", "logging.", "start."))
} | {
    "task.data",
    "task.data_dir",
    "task.data_episodes",
    "task.data_memory",
    "task.trust_data_code",
    "task.mirror",
    "task.offline",
    "evaluation.num_envs",
    "evaluation.workers",
    "evaluation.step_timeout",
    "evaluation.retries",
}


def of(benchmark: str, method: str, online: bool = False) -> list[Preset]:
    wanted = (benchmark, method, online)
    return [p for p in ALL if (p.benchmark, p.method, p.online) == wanted]


def short(environment: str) -> str:
    return environment.rpartition("-")[0]


def leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def value_of(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


# --- what there is ------------------------------------------------------------------------------


@pytest.mark.parametrize("online", [False, True])
def test_every_task_of_the_paper_is_there(online: bool) -> None:
    tasks = [f"{env}-singletask-task{task}-v0" for env, *_ in OGBENCH for task in range(1, 6)]
    assert (len(D4RL), len(tasks)) == (18, 50)
    assert sorted(p.env for p in of("D4RL", "vgf", online)) == sorted(D4RL)
    assert sorted(p.env for p in of("D4RL", "avgf", online)) == sorted(ANTMAZE)
    for method in ("vgf", "avgf"):
        assert [p.env for p in of("OGBench", method, online)] == tasks


def test_names() -> None:
    assert len(ALL) == 2 * (18 + 6 + 50 + 50)
    for preset in ALL:
        assert preset.name.endswith(f"-{preset.method}" + ("-online" if preset.online else ""))
        assert presets()[preset.name] is preset
        assert find_preset(preset.name) is preset


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("cube-single-task2", "cube-single-task2-avgf"),
        ("cube-single-task2-online", "cube-single-task2-avgf-online"),
        ("cube-single-play-singletask-task3-v0", "cube-single-task3-avgf"),
        ("cube-single-play-singletask-v0", "cube-single-task2-avgf"),
        ("puzzle-4x4-play-singletask-v0-online", "puzzle-4x4-task4-avgf-online"),
        ("hopper-medium-v2", "hopper-medium-vgf"),
        ("antmaze-large-play-v2", "antmaze-large-play-vgf"),
        ("antmaze-large-play-online", "antmaze-large-play-vgf-online"),
    ],
)
def test_a_task_alone_means_its_first_preset(typed: str, name: str) -> None:
    assert find_preset(typed).name == name
    assert resolve({"preset": typed}).preset == name


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("cube-singel-task2", "did you mean cube-single-task2-avgf"),
        ("hopper-medium-v3", "did you mean hopper-medium-vgf"),
        ("Hopper-Medium-v2", "did you mean hopper-medium-vgf"),
        ("scene-task2-fql", "did you mean scene-task2-"),
        ("scene-task6", "did you mean scene-task"),
        ("cube-single", "part of several names; vgf presets cube-single lists them"),
        ("qwertyuiop", "vgf presets lists them"),
        ("", "vgf presets lists them"),
    ],
)
def test_an_unknown_name_is_refused(typed: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(VGFError, match=r"^--preset: .*'") as caught:
        resolve({"preset": typed})
    assert words in str(caught.value)
    path = tmp_path / "mine.toml"
    path.write_text(f'preset = "{typed}"\n')
    with pytest.raises(VGFError, match=r"mine\.toml: preset: ") as caught:
        load_config(path)
    assert words in str(caught.value)


# --- what they set ------------------------------------------------------------------------------


def test_every_preset_is_a_run_that_has_all_its_settings() -> None:
    for preset in ALL:
        config = resolve({"preset": preset.name})
        assert (config.preset, config.task.env) == (preset.name, preset.env)
        assert (config.online.steps > 0) == preset.online
        for key, value in leaves(dict(preset.settings)):
            got = value_of(config, key)
            assert (list(got) if isinstance(got, tuple) else got) == (
                None if value == "none" else value
            ), (preset.name, key)
        assert config == dataclasses.replace(
            resolve({"preset": preset.name, "follow": "authors"}), follow=None
        )


def test_every_setting_has_a_source() -> None:
    keys = {setting.key for setting in all_settings()}
    for preset in ALL:
        assert set(preset.sources) == {key for key, _ in leaves(dict(preset.settings))}
        assert set(preset.sources) <= keys
        assert {source.mark for source in preset.sources.values()} == set(preset.marks)
        assert all(source.text for source in preset.sources.values())
        missing = keys - set(preset.sources) - UNUSED[preset.method] - NO_PART_OF_A_RESULT
        missing = {key for key in missing if not of_another_method(key, preset.method)}
        assert {key for key in missing if preset.online or "online." not in key} == set()


def test_files_have_no_name_that_nothing_reads() -> None:
    folder = Path(package.__file__).parent
    files = {path.stem: read_toml(path) for path in folder.glob("*.toml")}
    assert set(files) == {"common", *FAMILIES}
    common = files["common"]
    top = {"repository", "revision", "sources", "reasons", "settings", "vgf", "avgf", "online"}
    assert set(common) == top | {"departures"}
    said = {departure for preset in ALL for departure in preset.departures}
    said |= set(departures("vgf", "ogbench", online=True, scratch=True))
    assert len(common["departures"]) == len(said)
    used = {(s.mark, key, s.text) for p in ALL for key, s in p.sources.items()}
    for name, file in files.items():
        marks = {*common["sources"], *file.get("sources", {}), "script", "carried"}
        for mark, reasons in file["reasons"].items():
            for key, reason in reasons.items():
                assert (mark, key, reason) in used, (name, mark, key)
        if name == "common":
            continue
        assert set(file["scripts"]) <= {"offline", "online", "runs_offline", "runs_online", "lists"}
        assert set(file) <= {
            "scripts",
            "benchmark",
            "method",
            "sources",
            "reasons",
            "settings",
            "online",
            "tasks",
        }
        for task, table in file["tasks"].items():
            assert set(table) <= marks | {"env", "default", "online", "published"}, (name, task)
            assert set(table.get("published", {})) <= set(package._PUBLISHED), (name, task)


@pytest.mark.parametrize("row", OGBENCH, ids=lambda row: row[0])
@pytest.mark.parametrize("last", ["", "-online"])
def test_avgf_on_ogbench(row: tuple[str, int, float, int, float, str], last: str) -> None:
    environment, default, discount, steps, step_size, aggregate = row
    for task in range(1, 6):
        name = f"{short(environment)}-task{task}-avgf{last}"
        config = resolve({"preset": name})
        agent = config.agent
        assert (agent.method, agent.particles, agent.sampling_steps) == ("avgf", 5, 10)
        assert (agent.discount, agent.target_ensemble) == (discount, aggregate)
        assert agent.budget == Budget(
            steps=steps, step_size=step_size, temperature=None, clip_norm=1.0, clip_scope="batch"
        )
        assert (agent.clip_norm, agent.normalise_gradients) == (1.0, False)
        assert agent.gradient_field == Network(WIDE, "relu", "before")
        assert not config.task.normalise_rewards  # theirs has no effect on OGBench
        assert (config.train.steps, config.train.evaluate_every) == (1_000_000, 100_000)
        marks = {
            presets()[name].sources[f"agent.{key}"].mark
            for key in ("budget.steps", "budget.step_size", "discount", "target_ensemble")
        }
        assert marks == {("off2on" if last else "script") if task == default else "carried"}


@pytest.mark.parametrize("row", OGBENCH, ids=lambda row: row[0])
def test_vgf_on_ogbench(row: tuple[str, int, float, int, float, str]) -> None:
    environment, _, discount, _, _, aggregate = row
    giant = short(environment) == "antmaze-giant"
    updates = {"antmaze-large": 2_000_000, "antmaze-giant": 3_000_000}
    for task in range(1, 6):
        name = f"{short(environment)}-task{task}-vgf"
        config = resolve({"preset": name})
        agent, budget = config.agent, config.agent.budget
        assert (agent.method, agent.particles, agent.sampling_steps) == ("vgf", 10, 10)
        assert agent.discount == (0.99 if giant else discount)
        assert agent.target_ensemble == aggregate
        assert (budget.steps, budget.clip_norm, budget.optimiser) == (3, None, "adam")
        assert 0.01 <= budget.step_size <= 0.05
        assert budget.temperature is not None
        assert 0.2 <= budget.temperature <= 0.5
        sources = presets()[name].sources
        runs = name == "puzzle-4x4-task4-vgf"
        mark = "script" if runs else "listed" if task == 4 else "carried"
        assert sources["agent.budget.steps"].mark == mark
        assert ("script" in presets()[name].marks) == runs
        for key in ("step_size", "temperature"):
            assert sources[f"agent.budget.{key}"].mark == "ours"
            assert "two values" in sources[f"agent.budget.{key}"].text
        assert config.train.steps == updates.get(short(environment), 1_000_000)
        assert not config.task.normalise_rewards
        online = resolve({"preset": f"{name}-online"})
        budget = online.agent.budget
        assert (budget.steps, budget.step_size, budget.temperature) == (5, 0.1, 1.0)
        sources = presets()[f"{name}-online"].sources
        runs, listed = name == "puzzle-3x3-task4-vgf", task == 4
        mark = "off2on" if runs else "listed" if listed else "carried"
        assert sources["agent.budget.step_size"].mark == mark
        # of the rest, the script's comments name online steps for puzzle-4x4 alone
        said = listed and environment.startswith("puzzle")
        assert sources["online.steps"].mark == (mark if said else "carried")


@pytest.mark.parametrize("env", D4RL)
def test_d4rl(env: str) -> None:
    name = f"{env.rpartition('-')[0]}-vgf"
    config = resolve({"preset": name})
    agent = config.agent
    assert (agent.method, agent.particles, agent.sampling_steps) == ("vgf", 10, 10)
    assert (agent.discount, agent.target_ensemble) == (0.99, "min")
    assert agent.budget == Budget(
        steps=5, step_size=0.1, temperature=0.1, bandwidth_gradient=True, kernel_guard=1e-6
    )
    assert presets()[name].sources["agent.budget.temperature"].mark == "ours"
    # antmaze's rewards are shifted instead; a task that does both is refused
    assert config.task.normalise_rewards == ("antmaze" not in env)
    assert (config.train.steps, config.train.evaluate_every) == (1_000_000, 50_000)
    online = resolve({"preset": f"{name}-online"})
    assert (online.train.steps, online.online.steps) == (500_000, 1_000_000)
    runs = env in ("antmaze-large-play-v2", "antmaze-large-diverse-v2")
    for key in ("agent.budget.temperature", "online.steps", "agent.discount"):
        mark = presets()[f"{name}-online"].sources[key].mark
        assert mark == ("off2on" if runs else "listed")
    assert presets()[name].sources["agent.discount"].mark == ("script" if runs else "listed")
    if env in ANTMAZE:
        agent = resolve({"preset": name.replace("-vgf", "-avgf")}).agent
        assert (agent.particles, agent.target_ensemble, agent.discount) == (5, "min", 0.99)
        assert agent.budget == Budget(
            steps=5, step_size=0.1, temperature=None, clip_norm=1.0, clip_scope="batch"
        )
        runs = env in ("antmaze-medium-play-v2", "antmaze-large-diverse-v2")
        source = presets()[name.replace("-vgf", "-avgf")].sources["agent.budget.steps"]
        assert source.mark == ("script" if runs else "listed")


def test_what_all_have() -> None:
    for preset in ALL:
        config = resolve({"preset": preset.name})
        agent, task, evaluation = config.agent, config.task, config.evaluation
        assert (agent.critic, agent.reference) == (Network(WIDE, "relu", "before"), Network(WIDE))
        assert (agent.ensemble, agent.polyak, agent.learning_rate) == (2, 0.005, 3e-4)
        assert (agent.critic_loss, agent.value_ensemble) == ("squared", "mean")
        assert (agent.target_particles, agent.selection) == ("mean", "best")
        assert (agent.target_update, agent.reference_kind) == ("before", "flow")
        assert agent.actor_learning_rate == agent.learning_rate
        assert agent.budget.bandwidth_gradient == (preset.method == "vgf")
        assert agent.budget.kernel_guard == (1e-6 if preset.method == "vgf" else 0.0)
        assert agent.budget.clip_scope == ("batch" if preset.method == "avgf" else "state")
        assert (task.action_repeat, task.standardise, task.action_clip_eps) == (1, False, 1e-5)
        ogbench = preset.benchmark == "OGBench"
        assert task.success_timing == ("post" if ogbench else None)
        assert task.qlearning_dataset == (not ogbench)
        assert (evaluation.steps, evaluation.episodes) == ((0, 1, 2, 3), 50)
        assert (config.train.batch_size, config.backend) == (256, RunConfig().backend)
        assert (config.seed, config.out) == (0, None)
        if preset.online:
            online = config.online
            assert (online.steps, online.mixing, online.warmup) == (1_000_000, "iql", 4_997)
            assert (online.updates_per_step, online.collect_steps) == (1, 0)
            assert online.buffer_size == 2_000_000
        else:
            assert config.online == RunConfig().online


def test_published_scores() -> None:
    def scores(name: str) -> list[float]:
        return [score for score, _ in presets()[name].published]

    assert scores("hopper-medium-vgf") == [97.9]
    assert scores("antmaze-medium-diverse-vgf") == [70, 90, 95, 90]
    assert scores("cube-double-task2-avgf") == [70, 78]  # its environment's mean, its own
    assert scores("cube-double-task3-avgf") == [70]
    assert scores("cube-double-task2-avgf-online") == [97]
    assert scores("cube-double-task3-avgf-online") == scores("cube-double-task2-vgf") == []


# --- the equations instead ----------------------------------------------------------------------


def test_the_equations_instead() -> None:
    """Nothing but the departures changes, and then no departure is left."""
    for preset in ALL:
        authors = resolve({"preset": preset.name})
        equations = resolve({"preset": preset.name, "follow": "equations"})
        changed = {d.setting for d in preset.departures if d.authors != d.equations}
        assert changed
        for setting in all_settings(authors):
            want, got = setting.default, value_of(equations, setting.key)
            if setting.key in changed:
                equation = next(d.equations for d in preset.departures if d.setting == setting.key)
                assert got == (None if equation == "none" else equation)
            elif setting.key != "follow":
                assert got == want, (preset.name, setting.key)
        plain = Settings()
        assert equations.agent.target_update == plain.target_update
        for name in ("bandwidth_gradient", "kernel_guard", "clip_scope"):
            assert getattr(equations.agent.budget, name) == getattr(plain.budget, name)


def test_what_is_set_one_by_one_wins_over_what_is_followed(tmp_path: Path) -> None:
    flags = {"preset": "scene-task2-vgf", "follow": "equations"}
    config = resolve({**flags, "agent": {"budget": {"kernel_guard": 0.5}}})
    assert (config.agent.budget.kernel_guard, config.agent.target_update) == (0.5, "after")
    path = tmp_path / "mine.toml"
    path.write_text(
        'preset = "scene-task2-vgf"\nfollow = "equations"\n[agent]\ntarget_update = "before"\n'
    )
    config = load_config(path)
    assert (config.follow, config.agent.target_update) == ("equations", "before")
    assert config.agent.budget.kernel_guard == 0
    # a flag asks for more than the file
    assert resolve({"follow": "authors"}, path).agent.budget.kernel_guard == 1e-6
    assert resolve({"follow": "equations"}, path).agent.target_update == "after"


def test_following_the_authors_without_a_preset() -> None:
    plain, authors = resolve({}), resolve({"follow": "authors"})
    assert authors.agent.budget == dataclasses.replace(
        plain.agent.budget, bandwidth_gradient=True, kernel_guard=1e-6
    )
    assert authors.agent == dataclasses.replace(
        plain.agent, target_update="before", budget=authors.agent.budget
    )
    assert resolve({"follow": "equations"}) == dataclasses.replace(plain, follow="equations")
    with pytest.raises(VGFError, match="follow is 'paper'; choose one of authors, equations"):
        resolve({"follow": "paper"})


@pytest.mark.parametrize("mixing", ["iql", "rlpd", "wsrl", "scratch"])
def test_following_the_authors_online(mixing: str) -> None:
    """Their first update and their collecting too, whichever layer asks for the online phase."""

    def online(steps: int = 20_000, **flags: Any) -> tuple[Any, ...]:
        settings = {"train": {"steps": 0}, "online": {"steps": steps, "mixing": mixing}, **flags}
        found = resolve(settings).online
        return found.warmup, found.collect_steps, found.buffer_size, found.warmup_actions

    equations = (None, None, 3_000_000, None)
    assert online() == online(follow="equations") == online(0, follow="authors") == equations
    scratch = mixing == "scratch"
    first, actions = (4_998, "random") if scratch else (4_997, None)
    assert online(follow="authors") == (first, 0, 2_000_000, actions)
    with pytest.raises(VGFError, match=f"warmup {first} leaves no update .*following the authors"):
        online(2_000, follow="authors")
    preset = resolve({"preset": "cube-single-task2-avgf-online", "follow": "equations"}).online
    assert (preset.warmup, preset.collect_steps, preset.buffer_size) == equations[:3]


# --- what gives way to what ---------------------------------------------------------------------


def test_precedence(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[agent]\ndiscount = 0.9\npolyak = 0.1\n[train]\nsteps = 7\n")
    flags = {"preset": "scene-task2", "train": {"steps": 9}, "agent": {"polyak": 0.2}}
    config = resolve(flags, path)
    plain = resolve({"preset": "scene-task2"})
    agent = dataclasses.replace(plain.agent, discount=0.9, polyak=0.2)
    assert config == dataclasses.replace(
        plain, agent=agent, train=dataclasses.replace(plain.train, steps=9)
    )


def test_a_file_may_name_its_preset_and_a_flag_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "scene-task2-vgf"\n[agent.budget]\nsteps = 4\n')
    config = load_config(path)
    assert (config.preset, config.agent.budget.steps) == ("scene-task2-vgf", 4)
    assert config.agent.particles == 10
    other = resolve({"preset": "hopper-medium-vgf"}, path)
    assert (other.preset, other.task.env) == ("hopper-medium-vgf", "hopper-medium-v2")
    assert other.agent.budget.steps == 4
    without = resolve({"preset": None}, path)
    assert (without.preset, without.task.env) == (None, DEMO_ENV)
    assert without.agent.particles == RunConfig().agent.particles


def test_another_task_keeps_the_preset() -> None:
    env = "cube-triple-play-singletask-task1-v0"
    config = resolve({"preset": "cube-double-task2", "task": {"env": env}})
    assert (config.task.env, config.task.action_repeat) == (env, 1)
    assert config.agent == resolve({"preset": "cube-double-task2"}).agent


def test_another_method_of_the_same_task_is_its_preset() -> None:
    for name, method, other in (
        ("scene-task2-avgf", "vgf", "scene-task2-vgf"),
        ("antmaze-large-play-vgf-online", "avgf", "antmaze-large-play-avgf-online"),
    ):
        assert resolve({"preset": name, "agent": {"method": method}}) == resolve({"preset": other})


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(("pen-human-vgf", method) for method in ("bc", "weighted_bc", "fql", "avgf")),
        *(("scene-task2-avgf", method) for method in ("bc", "weighted_bc", "fql")),
    ],
)
def test_a_method_without_preset_brings_its_own_particles_and_budget(
    name: str, method: str
) -> None:
    preset = resolve({"preset": name})
    config = resolve({"preset": name, "agent": {"method": method}})
    authors = method_settings(method)
    assert config.preset == name
    assert (config.task, config.train) == (preset.task, preset.train)
    assert config.agent.budget == authors.budget
    assert config.agent.particles == authors.particles
    assert config.agent.clip_norm == authors.clip_norm
    if method == "fql":  # its networks and losses too
        for name in ("critic", "reference", "policy", "critic_loss"):
            assert getattr(config.agent, name) == getattr(authors, name)
    else:
        assert config.agent.critic == preset.agent.critic
    assert config.agent.target_update == preset.agent.target_update
    expected = "mean" if method == "fql" else preset.agent.target_ensemble
    assert config.agent.target_ensemble == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"agent": {"method": "bc", "budget": {"steps": 5}}}, ["flags", "budget.steps", "'bc'"]),
        ({"agent": {"value_ensemble": "min"}}, ["flags", "value_ensemble", "'avgf'"]),
        ({"agent": {"method": "sac"}}, ["flags", "'sac'", "vgf, avgf, bc"]),
        ({"agent": {"stepsize": 3}}, ["flags", "agent.stepsize", "did you mean"]),
        ({"train": {"batch_size": 0}}, ["flags", "batch_size is 0"]),
    ],
)
def test_contradictions_and_unknown_settings_are_refused(
    settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(VGFError) as caught:
        resolve({"preset": "scene-task2", **settings})
    assert all(word in str(caught.value) for word in words)


def test_a_preset_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("preset = 3\n")
    with pytest.raises(VGFError, match=r"mine\.toml: preset is 3; it must be text"):
        load_config(path)


# --- the command --------------------------------------------------------------------------------


def vgf(*words: Any) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.full
def test_the_text_of_a_preset_is_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    for preset in ALL:
        path.write_text(dump_preset(preset))
        assert dict(leaves(read_toml(path))) == {
            "preset": preset.name,
            **dict(leaves(dict(preset.settings))),
        }
        assert load_config(path) == resolve({"preset": preset.name})


def test_showing_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert vgf("presets", "scene-task3-avgf") == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "step_size = 0.1  # carried" in lines
    assert "particles = 5  # carried" in lines
    assert 'clip_scope = "batch"  # code' in lines
    assert '# clip_scope: "batch" -> "state"; f is clipped over the batch, so states meet' in lines
    assert "ryanxhr/vgf at 3ec8f9b" in text
    assert "# ours: left open by the sources" in lines
    for key in presets()["scene-task3-avgf"].sources:
        assert any(line.startswith(f"{key.rpartition('.')[2]} = ") for line in lines)
    assert vgf("presets", "hopper-medium-vgf") == 0
    assert "# published: 97.9, normalised score, the paper's table" in capsys.readouterr().out


def test_the_list_has_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert vgf("presets") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    listed = [line.split()[0] for line in lines if line.split()[0:1] and line[0].isalpha()]
    assert set(presets()) <= set(listed)
    assert any(
        line.split() == ["scene-task2-avgf", "A-VGF", "1", "0.1", "none", "1M"] for line in lines
    )
    assert any(
        line.split() == ["scene-task3-avgf", "A-VGF", "1+", "0.1+", "none", "1M"] for line in lines
    )
    assert any(
        line.split() == ["scene-task3-vgf", "VGF", "3+", "0.05*", "0.5*", "1M"] for line in lines
    )


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["antmaze"], 2 * (6 + 6 + 10 + 10)),
        (["d4rl"], 48),
        (["--online"], 124),
        (["--offline", "--method", "avgf"], 56),
        (["cube", "task2", "--method", "avgf"], 4),
        (["scene-task2"], 4),
        (["hopper-medium-v2"], 2),
    ],
)
def test_filters(words: list[str], number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert vgf("presets", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{number} presets; ")
    assert sum(line.split(" ")[0] in presets() for line in lines) == number


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["presets", "qwertyuiop"], "no preset 'qwertyuiop'; vgf presets lists them"),
        (["presets", "cube-singel-task2"], "did you mean cube-single-task2-avgf"),
        (["presets", "cube", "hopper"], "no preset matches cube hopper"),
        (["presets", "--method", "sac"], "invalid choice: 'sac'"),
        (["presets", "--onlin"], "--onlin is unknown; did you mean --online"),
        (["run", "--preset", "cube-singel-task2"], "did you mean cube-single-task2-avgf"),
        (
            ["run", "--preset", "scene-task2", "--method", "bc", "--budget-steps", "5"],
            "--method 'bc' moves no particles; --budget-steps must be 0",
        ),
    ],
)
def test_mistakes_in_the_command(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vgf(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.full
def test_a_run_of_a_preset_records_it_and_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        observations=rng.normal(size=(40, 3)),
        actions=rng.uniform(-1, 1, size=(40, 2)),
        rewards=rng.normal(size=40),
        terminals=np.arange(40) % 10 == 9,
    )
    words = ["--env", "none", "--data", "data.npz", "--backend", "numpy", "--steps", "2"]
    words += ["--critic-hidden", "8", "--reference-hidden", "8", "--gradient-field-hidden", "8"]
    assert vgf("run", "--preset", "scene-task2", *words, "--out", "first") == 0
    config = load_config(tmp_path / "first/config.toml")
    assert (config.preset, config.train.steps) == ("scene-task2-avgf", 2)
    assert (config.agent.method, config.agent.particles) == ("avgf", 5)
    assert config.agent.critic == Network((8,), "relu", "before")
    assert vgf("run", "--config", "first/config.toml", "--out", "second") == 0
    again = load_config(tmp_path / "second/config.toml")
    assert dataclasses.replace(again, out=config.out) == config

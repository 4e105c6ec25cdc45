"""Recordings of gymnasium environments: reproducible, in three formats, with any policy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need

need("gymnasium")

import gymnasium

from vgf import cli
from vgf.benchmarks.gymnasium import recorded_environment
from vgf.benchmarks.tasks import make_task
from vgf.data import read_npz
from vgf.environments.making import make_box_env
from vgf.recording.collect import Collection, collect
from vgf.recording.formats import parse_output
from vgf.recording.policies import parse_policy
from vgf.support.errors import VGFError

POLICIES = """
import random
import numpy as np

def towards(observation): return -2.0 * observation[1:2]
def drawn(observation, rng): return rng.uniform(-2, 2, 1)
def global_draws(observation): return [np.random.uniform(-1, 1) + random.random()]
def fails(observation):
    return 1 / 0
def wide(observation): return [1.0, 2.0]
def lost(observation): return [float("nan")]
def none(): return [0.0]
number = 3
"""


class Walk(gymnasium.Env):
    """A position that the action moves; done beyond 3, and without a time limit of its own."""

    observation_space = gymnasium.spaces.Dict(
        {"b": gymnasium.spaces.Box(-9, 9, (1,)), "a": gymnasium.spaces.Box(-9, 9, (2,))}
    )
    action_space = gymnasium.spaces.Box(-2.0, 4.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform(-0.5, 0.5))
        return self._seen(), {}

    def _seen(self) -> dict[str, Any]:
        here = np.float32(self.position)
        return {"b": np.array([-here]), "a": np.array([here, 10 * here])}

    def step(self, action: Any) -> Any:
        self.position += float(action[0])
        return self._seen(), self.position, abs(self.position) > 3, False, {}


gymnasium.register("VgfWalk-v0", Walk)
WALK = f"{__name__}:VgfWalk-v0"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    path = tmp_path / "policies.py"
    path.write_text(POLICIES)
    return path


def record(
    policy: str,
    out: Path,
    name: str = "Pendulum-v1",
    episodes: int = 2,
    workers: int = 1,
    **options: Any,
) -> dict[str, np.ndarray]:
    """The arrays of a recording."""
    collect(
        Collection(name, parse_policy(policy), **options), parse_output(str(out)), episodes, workers
    )
    return dict(read_npz(out).arrays)


def test_a_recording_is_what_happened(tmp_path: Path) -> None:
    """Played back from its start, the environment says the same."""
    rows = record("random", tmp_path / "x.npz", WALK, 5, max_episode_steps=8)
    assert set(rows) == {
        "observations",
        "actions",
        "rewards",
        "terminals",
        "timeouts",
        "next_observations",
    }
    assert {array.dtype.name for array in rows.values()} == {"float32", "bool"}
    ends = np.flatnonzero(rows["terminals"] | rows["timeouts"])
    assert len(ends) == 5
    assert ends[-1] == len(rows["rewards"]) - 1
    assert rows["terminals"].any()
    assert rows["actions"].min() < -1.0
    assert rows["actions"].max() > 1.0  # In the environment's own units.
    here, then = rows["observations"][:, 0], rows["next_observations"][:, 0]
    np.testing.assert_allclose(then, here + rows["actions"][:, 0], atol=1e-5)
    np.testing.assert_allclose(rows["rewards"], then, atol=1e-5)
    # the dict as one vector, in gymnasium's order
    np.testing.assert_allclose(rows["observations"], here[:, None] * [1, 10, -1], atol=1e-5)
    assert (rows["terminals"] == (np.abs(then) > 3)).all()
    inner = np.delete(np.arange(len(here) - 1), ends[:-1])
    np.testing.assert_array_equal(then[inner], here[inner + 1])
    steps = np.diff(np.append(-1, ends))
    assert (rows["timeouts"][ends] <= (steps == 8)).all()


@pytest.mark.parametrize("policy", ["random", "drawn", "global_draws"])
def test_the_seed_decides(tmp_path: Path, policies: Path, policy: str) -> None:
    name = policy if policy == "random" else f"{policies}:{policy}"
    one = record(name, tmp_path / "one.npz", seed=1, noise=0.1)
    record(name, tmp_path / "again.npz", seed=1, noise=0.1)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    other = record(name, tmp_path / "other.npz", seed=2, noise=0.1)
    assert not np.array_equal(other["actions"], one["actions"])
    assert not np.array_equal(other["observations"][0], one["observations"][0])
    more = record(name, tmp_path / "more.npz", episodes=3, seed=1, noise=0.1)
    for key, array in one.items():
        np.testing.assert_array_equal(more[key][: len(array)], array)


@pytest.mark.full
def test_processes_change_nothing(tmp_path: Path, policies: Path) -> None:
    name = f"{policies}:global_draws"
    record(name, tmp_path / "one.npz", episodes=3)
    record(name, tmp_path / "two.npz", episodes=3, workers=2)
    for ending in (".npz", ".json"):
        one, two = (tmp_path / f"{stem}{ending}" for stem in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_function_acts_and_noise_is_in_units_of_half_the_box(
    tmp_path: Path, policies: Path
) -> None:
    plain = record(f"{policies}:towards", tmp_path / "x.npz", episodes=1)
    wanted = np.clip(-2.0 * plain["observations"][:, 1:2], -2.0, 2.0)
    np.testing.assert_allclose(plain["actions"], wanted, atol=1e-6)
    zero = tmp_path / "zero.py"
    zero.write_text("def act(observation): return [0.0]")
    noisy = record(f"{zero}:act", tmp_path / "y.npz", episodes=10, noise=0.25)
    assert abs(noisy["actions"].std() / (0.25 * 2.0) - 1.0) < 0.1
    assert np.abs(record(f"{zero}:act", tmp_path / "z.npz", noise=9.0)["actions"]).max() == 2.0


def test_all_formats_hold_the_same(tmp_path: Path) -> None:
    h5py, minari = pytest.importorskip("h5py"), pytest.importorskip("minari")
    from vgf.benchmarks.minari import read_minari
    from vgf.data import read_hdf5

    collection = Collection("Pendulum-v1", parse_policy("random"), seed=4)
    rows = record("random", tmp_path / "x.npz", seed=4)
    collect(collection, parse_output(str(tmp_path / "x.hdf5")), 2, 1)
    collect(collection, parse_output("minari:my/pendulum-v0", tmp_path / "store"), 2, 1)
    read = read_minari(tmp_path / "store/my/pendulum-v0")
    for key, array in rows.items():
        found = read_hdf5(tmp_path / "x.hdf5").arrays[key]
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(np.asarray(read.arrays[key], array.dtype), array)
    with h5py.File(tmp_path / "x.hdf5") as file:
        assert file.attrs["environment"] == "Pendulum-v1"
        assert file.attrs["seed"] == 4
        assert json.loads(file.attrs["policy"]) == {"kind": "random"}
    beside = json.loads((tmp_path / "x.json").read_text())
    assert beside["versions"]["gymnasium"] == gymnasium.__version__
    for name in ("x.npz", "x.hdf5"):
        assert recorded_environment(tmp_path / name) == "Pendulum-v1"
    dataset = minari.MinariDataset(tmp_path / "store/my/pendulum-v0/data")
    assert (dataset.total_episodes, dataset.env_spec.id) == (2, "Pendulum-v1")


def test_names_of_minari_data_sets(tmp_path: Path) -> None:
    pytest.importorskip("minari")
    assert parse_output("minari:my/p-v0", tmp_path).place == tmp_path / "my/p-v0"
    with pytest.raises(VGFError, match=r"lacks a version; did you mean minari:my/p-v0\?"):
        parse_output("minari:my/p")
    with pytest.raises(VGFError, match="minari:my p: "):
        parse_output("minari:my p")


def test_an_interrupted_recording_goes_on(tmp_path: Path) -> None:
    def interrupt(label: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    collection = Collection("Pendulum-v1", parse_policy("random"))
    output = parse_output(str(tmp_path / "x.npz"))
    with pytest.raises(KeyboardInterrupt):
        collect(collection, output, 4, 1, interrupt)
    calls: list[int] = []
    collect(collection, output, 4, 1, lambda _, done, __: calls.append(done))
    assert calls == [2, 3, 4]
    record("random", tmp_path / "y.npz", episodes=4)
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_another_text_of_the_policy_is_another_policy(policies: Path) -> None:
    before = parse_policy(f"{policies}:drawn").provenance()
    policies.write_text(POLICIES + "\n# changed")
    after = parse_policy(f"{policies}:drawn").provenance()
    assert {key for key in before if before[key] != after[key]} == {"sha256"}


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fails", r"fails failed: ZeroDivisionError: .*\(policies.py, line 9\)"),
        ("wide", r"returned an action of shape \[2\], expected \[1\]"),
        ("lost", r"returned NaN or infinity: \[nan\]"),
        ("none", r"takes \(\); it must take an observation"),
        ("number", "number is a int, not a function"),
        ("toward", "did you mean towards?"),
    ],
)
def test_a_policy_that_fails(tmp_path: Path, policies: Path, function: str, words: str) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(VGFError, match=words):
        record(f"{policies}:{function}", tmp_path / "x.npz")
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("nowhere.py:act", "nowhere.py: No such file"),
        ("no_such_module:act", "no module 'no_such_module' here or on the path"),
        ("policies.py", "name a function in it, policies.py:FUNCTION"),
        ("runs/nowhere", 'neither "random", nor a function .*nor an existing run folder'),
    ],
)
def test_no_policy(policy: str, words: str) -> None:
    with pytest.raises(VGFError, match=words):
        parse_policy(policy)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Pendulm-v1", "did you mean Pendulum-v1?"),
        ("CartPole-v1", r"actions are Discrete\(2\)"),
        (WALK, "has no time limit; give one with --max-episode-steps"),
        (f"{__name__}:VgfWlk-v0", "gymnasium has no environment .*:VgfWlk-v0; .* VgfWalk-v0?"),
        ("no_such_module:X-v0", "No module named 'no_such_module'"),
    ],
)
def test_no_environment(name: str, words: str) -> None:
    with pytest.raises(VGFError, match=words):
        make_box_env(name)


def test_wrong_numbers_and_places(tmp_path: Path) -> None:
    policy = parse_policy("random")
    for call, words in [
        (lambda: Collection("Pendulum-v1", policy, noise=-1.0), "noise is -1.0"),
        (lambda: Collection("Pendulum-v1", policy, seed=-1), "seed is -1"),
        (lambda: record("random", tmp_path / "x.npz", episodes=0), "episodes is 0"),
        (lambda: record("random", tmp_path / "x.npz", workers=0), "workers is 0"),
        (lambda: parse_output(str(tmp_path / "x")), "must end in .npz or .hdf5"),
        (lambda: parse_output(str(tmp_path)), "is a folder; name a file in it"),
        (lambda: parse_output(str(tmp_path / "x.npz"), tmp_path), "--data-dir is for"),
    ]:
        with pytest.raises(VGFError, match=words):
            call()
    assert list(tmp_path.iterdir()) == []


# --- the command ---------------------------------------------------------------------------------


def vgf(*words: str | Path) -> int:
    return cli.main(["data", *map(str, words)])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.npz"
    words = (
        "make",
        "Pendulum-v1",
        "--policy",
        "random",
        "--episodes",
        "2",
        "--workers",
        "1",
        "--out",
        out,
    )
    assert vgf(*words) == 0
    said = capsys.readouterr().out
    assert f"made {out}" in said
    assert f"vgf run --env gymnasium:Pendulum-v1 --data {out}" in said
    before = out.stat().st_mtime_ns
    assert vgf(*words) == 0
    assert "exists already, made with the same settings" in capsys.readouterr().out
    assert vgf(*words, "--seed", "1") == 2
    assert "was made differently; --force replaces it" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before
    assert vgf(*words, "--seed", "1", "--force") == 0
    assert json.loads(out.with_suffix(".json").read_text())["seed"] == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("mkae",), "did you mean make?"),
        (("make", "cube-singel-play-v0"), "did you mean cube-single-play-v0?"),
        (("make", "antmaze-large-navigate-v0"), "cannot be made"),
        (("make", "hopper-medium-v2"), "is D4RL's"),
        (("make", "cube-single-play-v0", "--policy", "random"), "--policy is for gymnasium:ID"),
        (("make", "Pendulum-v1", "--out", "x.npz"), "--policy is missing: random"),
        (("make", "Pendulum-v1", "--policy", "random"), "--out is missing: FILE.npz"),
        (("make", "Pendulum-v1", "--polcy", "random"), "did you mean --policy?"),
        (("make", "Pendulum-v1", "--policy", "random", "--steps", "2"), "--out is missing"),
        (
            ("make", "Pendulum-v1", "--policy", "random", "--out", "x.npz", "--steps", "2"),
            "--steps is for a run folder",
        ),
        (("make", "Pendulum-v1", "--episodes", "two"), "'two' is not a whole number"),
        (("make", "minari:my/pendulum-v0"), "minari:my/pendulum-v0 is unknown"),
        (("make", "d4rl:hopper-medium-v2"), "is D4RL's, recorded with policies"),
    ],
)
def test_what_the_command_refuses(
    words: tuple[str, ...],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vgf(*words) == 2
    said = capsys.readouterr().err
    assert error in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "gymnasium:"])
def test_an_environment_of_a_module_is_trained_on_too(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module of the working folder, which registers its environment when it is imported."""
    number = len(prefix)
    module, name = f"vgf_walks_{number}", f"VgfHere{number}-v0"
    (tmp_path / f"{module}.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import PendulumEnv\n"
        f"gymnasium.register('{name}', PendulumEnv, max_episode_steps=4)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    env = f"{prefix}{module}:{name}"
    assert (
        vgf(
            "make", env, "--policy", "random", "--episodes", "1", "--workers", "1", "--out", "x.npz"
        )
        == 0
    )
    assert f"vgf run --env gymnasium:{module}:{name} --data x.npz" in capsys.readouterr().out
    task = make_task(env, data="x.npz")
    assert (task.name, task.max_episode_steps) == (f"{module}:{name}", 4)
    assert f"evaluated in {module}:{name} (gymnasium " in task.described()
    assert task.make_env is not None
    assert task.make_env(0).reset(seed=0)[0].shape == (3,)
    assert vgf("inspect", "x.npz", "--no-picture") == 0
    assert f"are those of gymnasium:{module}:{name}" in capsys.readouterr().out


@pytest.mark.full
def test_an_agent_acts(tmp_path: Path) -> None:
    """A run's agent, at a test budget, in the environment's own units."""
    pytest.importorskip("safetensors")
    data = tmp_path / "x.npz"
    record("random", data, episodes=1)
    run = tmp_path / "run"
    assert (
        cli.main(
            [
                "run",
                "--env",
                "gymnasium:Pendulum-v1",
                "--data",
                str(data),
                "--out",
                str(run),
                "--backend",
                "numpy",
                "--steps",
                "2",
                "--batch-size",
                "4",
                "--evaluate-every",
                "2",
                "--checkpoint-every",
                "2",
                "--log-every",
                "2",
                "--episodes",
                "1",
                "--evaluation-steps",
                "0",
                "--critic-hidden",
                "4",
                "--reference-hidden",
                "4",
                "--gradient-field-hidden",
                "4",
            ]
        )
        == 0
    )
    made = {}
    for steps in (0, 3):
        out = tmp_path / f"{steps}.npz"
        assert (
            vgf(
                "make",
                "Pendulum-v1",
                "--policy",
                run,
                "--steps",
                str(steps),
                "--episodes",
                "1",
                "--workers",
                "1",
                "--out",
                out,
            )
            == 0
        )
        made[steps] = read_npz(out).arrays
        beside = json.loads(out.with_suffix(".json").read_text())["policy"]
        assert (beside["kind"], beside["steps"], beside["checkpoint"]) == ("run", steps, 2)
    assert np.abs(made[0]["actions"]).max() > 1.0  # The box of the torque is [-2, 2].
    np.testing.assert_array_equal(made[0]["observations"][0], made[3]["observations"][0])
    assert not np.array_equal(made[0]["actions"], made[3]["actions"])
    with pytest.raises(VGFError, match=r"trained on 3 observations and 1 actions; .* has 2 and 1"):
        record(str(run), tmp_path / "y.npz", "MountainCarContinuous-v0")
    with pytest.raises(VGFError, match="no checkpoint of step 7; it has 2"):
        parse_policy(str(run), checkpoint=7)

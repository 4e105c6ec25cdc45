"""Offline to online: what is collected, what is learned from it, and that nothing is lost.

The test environment, in a plane: an action turns a step of fixed length; the goal is the right
half beyond 0.6; an episode is cut after 7 steps. It is made of NumPy alone.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import SECONDS, need

from vgf import cli
from vgf.backends import get_backend
from vgf.benchmarks.tasks import Task, success
from vgf.data.dataset import Dataset, batch_at, check_dataset
from vgf.data.replay import read_transitions
from vgf.runs import loop as train
from vgf.runs import online
from vgf.runs.checkpoint import list_steps, load_checkpoint
from vgf.runs.config import (
    BackendSettings,
    EvaluationSettings,
    OnlineSettings,
    RunConfig,
    TaskSettings,
    TrainSettings,
)
from vgf.runs.resolve import load_config
from vgf.spec.settings import Budget, Network, Settings
from vgf.support.errors import VGFError
from vgf.support.interrupts import Interrupted, StopRunError
from vgf.support.rows import read_rows

LIMIT = 7
SMALL = Network(hidden=(6,))
AGENT = Settings(
    critic=SMALL,
    reference=SMALL,
    gradient_field=SMALL,
    policy=SMALL,
    sampling_steps=1,
    particles=2,
    budget=Budget(steps=1, step_size=0.3, temperature=1.0),
    learning_rate=1e-2,
)


class Plane:
    """The test environment, with gymnasium's interface; its observation is one array, reused."""

    def __init__(self) -> None:
        self.place = np.zeros(2, np.float32)

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.place[:] = np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
        self.steps = 0
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        angle = np.pi * float(action[0])
        self.place += 0.3 * np.array([np.cos(angle), np.sin(angle)], np.float32)
        self.steps += 1
        done = bool(self.place[0] > np.float32(0.6))
        info = {"success": float(done)}
        return self.place, float(done) - 1.0, done, self.steps >= LIMIT, info

    def close(self) -> None:
        pass


class Forgetful(Plane):
    """Its start states follow one another, whatever the seed."""

    resets = 0

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        Forgetful.resets += 1
        return super().reset(seed=Forgetful.resets)


def make_plane(seed: int | None = None) -> Plane:
    return Plane()


def make_forgetful(seed: int | None = None) -> Plane:
    return Forgetful()


def offline_data(count: int = 40) -> Dataset:
    """Observations about (3, -2); rewards as D4RL's antmaze has them."""
    rng = np.random.default_rng(0)
    s = rng.normal([3.0, -2.0], [2.0, 0.5], (count, 2))
    data = check_dataset(
        {
            "observations": s,
            "actions": rng.uniform(-1, 1, (count, 1)),
            "rewards": 2.0 * (rng.integers(0, 2, count) - 1.0),
            "masks": np.ones(count),
            "terminals": np.arange(count) % 5 == 4,
            "next_observations": s + 0.1,
        },
        "test data",
    )
    return dataclasses.replace(data, reward_shift=-1.0, reward_scale=2.0)


PLANE = Task("plane", 1, 2, 1, LIMIT, make_plane, offline_data(), "success", success)
CONFIG = RunConfig(
    task=TaskSettings(env="plane", action_repeat=1),
    agent=AGENT,
    train=TrainSettings(6, 8, log_every=3, evaluate_every=15, checkpoint_every=10),
    online=OnlineSettings(steps=40, warmup=8),
    evaluation=EvaluationSettings(steps=(0, 1), episodes=1),
    backend=BackendSettings("numpy"),
)


def with_online(config: RunConfig = CONFIG, **changes: Any) -> RunConfig:
    return dataclasses.replace(config, online=dataclasses.replace(config.online, **changes))


def run(
    folder: Path, config: RunConfig = CONFIG, task: Task = PLANE, resume: bool = False
) -> list[str]:
    """Train in a folder; what was said."""
    said: list[str] = []
    backend = get_backend(config.backend.name, dtype=config.backend.dtype)
    train.train(config, folder, resume, said.append, (config, backend, task))
    return said


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found = [dict(row) for row in read_rows(folder / f"{name}.jsonl")]
    for row in found:
        row.pop("seconds", None)
    return found


def assert_equal_runs(got: Path, expected: Path) -> None:
    assert (got / "transitions.bin").read_bytes() == (expected / "transitions.bin").read_bytes()
    last = list_steps(expected)[-1]
    assert list_steps(got)[-1] == last
    arrays = f"checkpoints/step-{last:09d}/state.safetensors"
    assert (got / arrays).read_bytes() == (expected / arrays).read_bytes()
    assert load_checkpoint(got)[1] == load_checkpoint(expected)[1]
    for name in ("metrics", "evaluations", "online"):
        assert rows(got, name) == rows(expected, name)
    assert (got / "online.csv").read_bytes() == (expected / "online.csv").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run(folder)
    return folder


@pytest.fixture
def plane_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the command's task the test environment's."""

    def make(*_: Any, with_dataset: bool = True, **__: Any) -> Task:
        return PLANE if with_dataset else dataclasses.replace(PLANE, dataset=None)

    monkeypatch.setattr("vgf.runs.task.make_task", make)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than everything else here."""
    monkeypatch.setattr("vgf.runs.report.report", lambda folder, found: folder)


# --- what a run does -----------------------------------------------------------------------------


def test_the_counts_of_a_run(straight: Path) -> None:
    """6 updates offline; then 40 steps, the first 8 of them without an update."""
    assert (CONFIG.offline_end, CONFIG.updates) == (6, 38)
    metrics = rows(straight, "metrics")
    assert [(row["step"], row["environment_steps"]) for row in metrics] == [
        (3, 0),
        (6, 0),
        (7, 9),
        (10, 12),
        (13, 15),
        (16, 18),
        (19, 21),
        (22, 24),
        (25, 27),
        (28, 30),
        (31, 33),
        (34, 36),
        (37, 39),
        (38, 40),
    ]
    evaluated = [(row["step"], row["environment_steps"]) for row in rows(straight, "evaluations")]
    assert Counter(evaluated) == {(6, 0): 3, (13, 15): 3, (28, 30): 3, (38, 40): 3}
    assert list_steps(straight) == [6, 8, 18, 28, 38]
    extra = load_checkpoint(straight)[1].extra
    assert (extra["environment_steps"], extra["transitions"]) == (40, 40)


def test_several_updates_per_step_and_no_warm_up(tmp_path: Path) -> None:
    run(tmp_path / "run", with_online(steps=4, warmup=0, updates_per_step=3))
    steps = [(row["step"], row["environment_steps"]) for row in rows(tmp_path / "run", "metrics")]
    assert steps == [(3, 0), (6, 0), (15, 3), (18, 4)]


def test_what_is_on_record(straight: Path) -> None:
    """The trajectories hang together; only a goal has mask 0; a cut has terminal 1 and mask 1."""
    found = read_transitions(straight / "transitions.bin")
    assert len(found["masks"]) == 40
    inside = found["terminals"][:-1] == 0
    np.testing.assert_array_equal(
        found["next_observations"][:-1][inside], found["observations"][1:][inside]
    )
    at_goal = found["next_observations"][:, 0] > np.float32(0.6)
    np.testing.assert_array_equal(found["masks"], ~at_goal)
    np.testing.assert_array_equal(found["success"], at_goal)
    np.testing.assert_array_equal(found["rewards"], at_goal - 1.0)
    lengths = np.diff(np.flatnonzero(np.append(1, found["terminals"])))
    cut = found["masks"][found["terminals"] == 1] == 1
    assert cut.any()
    assert not cut.all()
    assert (lengths[cut] == LIMIT).all()
    assert (lengths <= LIMIT).all()
    assert np.abs(found["actions"]).max() <= 1
    moved = found["next_observations"] - found["observations"]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 0.3, rtol=1e-5)


def test_the_log_of_collected_episodes(straight: Path) -> None:
    found = read_transitions(straight / "transitions.bin")
    ends = np.flatnonzero(found["terminals"]) + 1
    logged = rows(straight, "online")
    assert [row["environment_steps"] for row in logged] == ends.tolist()
    assert [row["episode"] for row in logged] == list(range(len(ends)))
    starts = np.append(0, ends)
    evaluated = {row["seed"] for row in rows(straight, "evaluations")}
    for i, row in enumerate(logged):
        part = slice(starts[i], starts[i + 1])
        assert row["return"] == found["rewards"][part].sum()
        assert row["success"] == row["score"] == found["success"][part].max()
        assert row["length"] == ends[i] - starts[i]
        assert row["step"] == 6 + max(0, row["environment_steps"] - 1 - 8)
        np.testing.assert_array_equal(
            found["observations"][starts[i]],
            np.random.default_rng(row["seed"]).uniform(-0.5, 0.5, 2).astype(np.float32),
        )
    seeds = [row["seed"] for row in logged]
    assert len(set(seeds)) == len(seeds)
    assert not evaluated & set(seeds)


@pytest.mark.parametrize("mixing", ["iql", "rlpd", "wsrl"])
def test_where_batches_come_from(
    mixing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline rows are known by their place: standardised, all about 0; the plane is far off."""
    batches: list[dict[str, np.ndarray]] = []
    real = online.Collector.batch

    def batch(self: online.Collector, step: int, size: int) -> dict[str, np.ndarray]:
        batches.append(real(self, step, size))
        return batches[-1]

    monkeypatch.setattr(online.Collector, "batch", batch)
    folder = tmp_path / "run"
    train_settings = dataclasses.replace(CONFIG.train, batch_size=9)
    run(folder, dataclasses.replace(with_online(mixing=mixing), train=train_settings))
    assert len(batches) == 32
    assert {len(batch["rewards"]) for batch in batches} == {9}
    data = PLANE.dataset
    assert data is not None
    found = read_transitions(folder / "transitions.bin")
    collected = (found["observations"] - data.observation_mean) / data.observation_std
    offline = (data.observations - data.observation_mean) / data.observation_std
    counts = []
    for number, batch in enumerate(batches):
        seen = collected[: 9 + number]
        picked = [np.flatnonzero((seen == s).all(1)) for s in batch["observations"]]
        ours = np.array([len(rows) == 1 for rows in picked])
        counts.append(int(ours.sum()))
        for s in batch["observations"][~ours]:
            assert (np.abs(offline - s).max(1) == 0).any()
        for row, reward, mask, following in zip(
            picked, batch["rewards"], batch["masks"], batch["next_observations"], strict=True
        ):
            if len(row):  # what the environment said, as the networks see it
                assert reward == (found["rewards"][row[0]] - 1.0) * 2.0
                assert mask == found["masks"][row[0]]
                expected = found["next_observations"][row[0]] - data.observation_mean
                np.testing.assert_array_equal(following, expected / data.observation_std)
    if mixing == "rlpd":
        assert set(counts) == {5}
        scaled = dataclasses.replace(data, mean=data.observation_mean, std=data.observation_std)
        old = batch_at(scaled, 0, 6, 4)
        np.testing.assert_array_equal(batches[0]["observations"][:4], old["observations"])
    elif mixing == "wsrl":
        assert set(counts) == {9}
    else:
        share = sum(counts) / (9 * 32)
        expected_share = float(np.mean([n / (n + 40) for n in range(9, 41)]))
        assert abs(share - expected_share) < 0.1


def test_a_small_buffer_forgets_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[online.Collector] = []
    real = online.Collector.close
    monkeypatch.setattr(online.Collector, "close", lambda self: (seen.append(self), real(self))[1])
    run(tmp_path / "run", with_online(mixing="rlpd", buffer_size=9))
    found = read_transitions(tmp_path / "run/transitions.bin")
    assert len(found["actions"]) == 40  # the file forgets nothing
    kept = np.sort(seen[0]._buffer.rows["actions"][:, 0])
    np.testing.assert_array_equal(kept, np.sort(found["actions"][-9:, 0]))


@pytest.mark.parametrize("size", [12, 40, 41, 50])
def test_the_data_leave_a_full_buffer_first(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[online.Collector] = []
    real = online.Collector.close
    monkeypatch.setattr(online.Collector, "close", lambda self: (seen.append(self), real(self))[1])
    said = run(tmp_path / "run", with_online(buffer_size=size))
    found = read_transitions(tmp_path / "run/transitions.bin")
    assert PLANE.dataset is not None
    given = np.concatenate([PLANE.dataset.actions, found["actions"]])[:, 0]
    capacity = max(size, 41)  # data that fill it have one more place
    kept = seen[0]._buffer.rows["actions"][:, 0]
    latest = given[-capacity:]
    np.testing.assert_array_equal(np.roll(kept, -(len(given) % capacity)), latest)
    told = f"of 80 transitions the replay buffer holds the latest {capacity}"
    assert any(told in line for line in said)


SCRATCH = dataclasses.replace(
    CONFIG,
    train=dataclasses.replace(CONFIG.train, steps=0),
    online=OnlineSettings(40, "scratch", 8),
)
ALONE = dataclasses.replace(PLANE, dataset=None)


def test_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(tmp_path / "run", SCRATCH, ALONE)
    assert any("no offline data" in line for line in said)
    assert any("8 of warm-up with random actions" in line for line in said)
    found = read_transitions(tmp_path / "run/transitions.bin")
    assert len(found["actions"]) == 40
    assert list_steps(tmp_path / "run")[-1] == 32
    # random until the first update, which follows the ninth step; then it is the agent's choice
    other = dataclasses.replace(AGENT, particles=3)
    run(tmp_path / "other", dataclasses.replace(SCRATCH, agent=other), ALONE)
    again = read_transitions(tmp_path / "other/transitions.bin")
    np.testing.assert_array_equal(again["actions"][:9], found["actions"][:9])
    assert (again["actions"][9:] != found["actions"][9:]).any()
    # what the networks see is what the environment said
    seen: list[dict[str, np.ndarray]] = []
    real = online.Collector.batch
    monkeypatch.setattr(
        online.Collector, "batch", lambda *args: (seen.append(real(*args)), seen[-1])[1]
    )
    run(tmp_path / "seen", SCRATCH, ALONE)
    assert len(seen) == 32
    for number, batch in enumerate(seen):
        for s, r in zip(batch["observations"], batch["rewards"], strict=True):
            rows = np.flatnonzero((found["observations"][: 9 + number] == s).all(1))
            assert r in found["rewards"][rows]


def test_random_actions_fill_the_box(tmp_path: Path) -> None:
    config = dataclasses.replace(SCRATCH, online=OnlineSettings(400, "scratch", 398))
    run(tmp_path / "run", config, ALONE)
    actions = read_transitions(tmp_path / "run/transitions.bin")["actions"][:399, 0]
    counts, _ = np.histogram(actions, 4, (-1, 1))
    assert counts.min() > 70  # of 100 each
    run(tmp_path / "agent", with_online(warmup_actions="random"))
    mixed = read_transitions(tmp_path / "agent/transitions.bin")["actions"][:, 0]
    np.testing.assert_array_equal(mixed[:9], actions[:9])
    assert mixed[9] != actions[9]


def test_from_scratch_is_resumed(tmp_path: Path) -> None:
    run(tmp_path / "straight", SCRATCH, ALONE)
    for stop in (5, 17):
        stopped = 0

        def interrupt(after: int = stop) -> None:
            nonlocal stopped
            stopped += 1
            if stopped == after:
                raise StopRunError

        folder = tmp_path / f"split-{stop}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "deferred_interrupt", lambda: nullcontext(interrupt))
            with pytest.raises(Interrupted):
                run(folder, SCRATCH, ALONE)
        run(folder, SCRATCH, ALONE, resume=True)
        assert_equal_runs(folder, tmp_path / "straight")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": CONFIG.train}, "mixing 'scratch' has no offline data for steps 6"),
        (
            {"task": TaskSettings(env="plane", action_repeat=1, normalise_rewards=True)},
            "no data whose returns rewards could be normalised by",
        ),
        (
            {"task": TaskSettings(env="plane", action_repeat=1, data="mine.npz")},
            "reads no data, and data is mine.npz; drop data, or use 'iql'",
        ),
    ],
)
def test_what_needs_data_from_scratch(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SCRATCH, **changes)


def test_the_policy_is_asked_once_per_step_at_the_collecting_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = get_backend("numpy")
    asked: list[tuple[int, int]] = []
    drawn: list[bytes] = []
    real = type(backend).act

    def act(self: Any, state: Any, s: Any, budget: Budget, *rest: Any, noise: Any) -> Any:
        asked.append((len(s), budget.steps))
        drawn.append(noise["particles"].tobytes())
        return real(self, state, s, budget, *rest, noise=noise)

    monkeypatch.setattr(type(backend), "act", act)
    evaluation = EvaluationSettings(steps=(4,), episodes=2)
    config = dataclasses.replace(with_online(collect_steps=3), evaluation=evaluation)
    run(tmp_path / "run", config)
    assert asked.count((1, 3)) == 40
    assert len({d for d, (_, steps) in zip(drawn, asked, strict=True) if steps == 3}) == 40
    asked.clear()
    run(tmp_path / "trained", with_online(config, collect_steps=None))
    assert asked.count((1, 1)) == 40


@pytest.mark.parametrize("method", ["avgf", "bc", "weighted_bc", "fql"])
@pytest.mark.full
def test_every_method_goes_online(method: str, tmp_path: Path) -> None:
    budget = AGENT.budget if method == "avgf" else Budget(steps=0)
    agent = dataclasses.replace(AGENT, method=method, budget=budget)
    config = dataclasses.replace(with_online(steps=20), agent=agent)
    folder, whole = tmp_path / "split", tmp_path / "whole"
    run(whole, config)
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints/step-000000018")
    run(folder, config, resume=True)
    assert_equal_runs(folder, whole)


# --- stopping and going on -----------------------------------------------------------------------


@pytest.mark.parametrize("mixing", ["iql", "rlpd", "wsrl"])
@pytest.mark.full
def test_ctrl_c_anywhere_loses_nothing(
    mixing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the warm-up, in the middle of episodes, in evaluations, at checkpoints, at the end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, whole = tmp_path / "stopped", tmp_path / "straight"
    config = with_online(mixing=mixing)
    run(whole, config)
    real, calls = Plane.step, 0

    def step(self: Plane, action: np.ndarray) -> Any:
        nonlocal calls
        calls += 1
        if calls in (4, 30, 44, 50, 60, 85, 92, 130, 138, 146):
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, action)

    monkeypatch.setattr(Plane, "step", step)
    stops: list[str] = []
    try:
        while True:
            try:
                run(folder, config, resume=bool(stops))
                break
            except Interrupted as stop:
                stops.append(str(stop))
    finally:
        signal.signal(signal.SIGINT, before)
    words = r"stopped after (\d+) updates and (\d+) environment steps; continue with: vgf run --res"
    at = [re.match(words, stop).groups() for stop in stops]  # type: ignore[union-attr]
    taken = {int(steps) for _, steps in at}
    assert ("6", "0") in at, at  # in the evaluation between the parts
    assert taken & set(range(1, 8)), at
    assert len(taken & set(range(9, 40))) >= 3, at
    assert_equal_runs(folder, whole)


KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
from pathlib import Path
from test_online import CONFIG, Plane, run, with_online
from vgf.runs import loop as train
from vgf.data import replay

folder, config = Path({folder!r}), with_online(mixing={mixing!r})
moments = {moments!r}
for number, (what, count) in enumerate(moments):
    child = os.fork()
    if not child:
        calls = 0

        def dying(real, after=False):
            def function(*words, **options):
                global calls
                calls += 1
                if calls == count and after:
                    real(*words, **options)
                if calls == count and what == "torn":  # the kernel took a part of the row
                    with open(folder / "transitions.bin", "ab") as file:
                        file.write(b"torn")
                if calls == count:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*words, **options)
            return function

        if what == "step":
            Plane.step = dying(Plane.step)
        elif what in ("row", "torn"):
            replay.TransitionFile.append = dying(replay.TransitionFile.append, what == "row")
        else:
            train.save_checkpoint = dying(train.save_checkpoint, what == "saved")
        run(folder, config, resume=folder.exists())
        os._exit(1)  # it should have been killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (what, count, status)
    print("size", (folder / "transitions.bin").stat().st_size, flush=True)  # or children say it too
run(folder, config, resume=True)
"""
# Environment steps, of evaluation and of repeated episodes too; appended rows; checkpoints.
MOMENTS = [
    ("step", 4),
    ("step", 20),
    ("row", 1),
    ("row", 5),
    ("torn", 3),
    ("save", 1),
    ("row", 9),
    ("saved", 1),
    ("torn", 7),
    ("row", 4),
]


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("mixing", ["iql", pytest.param("wsrl", marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_lost(mixing: str, tmp_path: Path) -> None:
    whole, folder = tmp_path / "straight", tmp_path / "killed"
    run(whole, with_online(mixing=mixing))
    script = KILLED.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]],
        folder=str(folder),
        mixing=mixing,
        moments=MOMENTS,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    sizes = [int(line[1]) for line in lines if line[0] == "size"]
    assert len(sizes) == len(MOMENTS)
    assert sizes == sorted(sizes)
    assert_equal_runs(folder, whole)


def test_transitions_after_the_last_checkpoint_are_kept(straight: Path, tmp_path: Path) -> None:
    """Even where the simulator, or the arithmetic, would not give them again."""
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    shutil.rmtree(folder / "checkpoints/step-000000038")
    shutil.rmtree(folder / "checkpoints/step-000000028")  # on from step 20 of 40
    task = dataclasses.replace(PLANE, make_env=make_forgetful)
    said = run(folder, task=task, resume=True)
    assert "20 transitions collected after that checkpoint are kept" in said
    assert (folder / "transitions.bin").read_bytes() == (straight / "transitions.bin").read_bytes()


def test_a_simulator_that_does_not_repeat_itself(straight: Path, tmp_path: Path) -> None:
    """The episode is cut where the record ends, with mask 1, and that is said."""
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    for step in (38, 28):
        shutil.rmtree(folder / f"checkpoints/step-{step:09d}")
    before = read_transitions(folder / "transitions.bin")
    size = (folder / "transitions.bin").stat().st_size
    left = (
        next(
            row
            for row in range(24, 40)
            if not before["terminals"][row] and not before["terminals"][row - 1]
        )
        + 1
    )
    path = folder / "transitions.bin"
    path.write_bytes(path.read_bytes()[: 64 + left * ((size - 64) // 40)])
    said = run(folder, task=dataclasses.replace(PLANE, make_env=make_forgetful), resume=True)
    assert any("does not repeat episode" in line for line in said)
    after = read_transitions(path)
    assert len(after["masks"]) == 40
    assert (after["terminals"][left - 1], after["masks"][left - 1]) == (1.0, 1.0)
    for name in before:
        kept = slice(left - 1) if name == "terminals" else slice(left)
        np.testing.assert_array_equal(after[name][kept], before[name][kept])
    assert left in [row["environment_steps"] for row in rows(folder, "online")]


def test_a_lost_or_foreign_file_of_transitions(straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    shutil.rmtree(folder / "checkpoints/step-000000038")
    path = folder / "transitions.bin"
    data = path.read_bytes()
    path.write_bytes(data[:500])
    with pytest.raises(
        VGFError, match=r"holds \d+ complete transitions; .* after 30; put the file"
    ):
        run(folder, resume=True)
    path.unlink()
    with pytest.raises(VGFError, match="holds 0 complete transitions"):
        run(folder, resume=True)
    path.write_bytes(data)
    run(folder, resume=True)
    assert_equal_runs(folder, straight)


def test_a_plan_that_was_changed(straight: Path, tmp_path: Path) -> None:
    """Longer is well; another schedule is not what the checkpoint was made by."""
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    with pytest.raises(
        VGFError,
        match=r"after 40 environment steps it plans 70 updates, and the "
        r"last checkpoint has 38; undo",
    ):
        run(folder, with_online(steps=50, updates_per_step=2), resume=True)
    run(folder, with_online(steps=50), resume=True)
    run(tmp_path / "longer", with_online(steps=50))
    found = [(path / "transitions.bin").read_bytes() for path in (folder, tmp_path / "longer")]
    assert found[0] == found[1]


@pytest.mark.full
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_split_run_of_another_backend(backend: str, tmp_path: Path) -> None:
    need(backend)
    config = dataclasses.replace(
        with_online(steps=12, warmup=2, mixing="rlpd"),
        backend=BackendSettings(backend),
        evaluation=EvaluationSettings(steps=(1,), episodes=1),
        train=dataclasses.replace(CONFIG.train, checkpoint_every=6),
    )
    whole, folder = tmp_path / "straight", tmp_path / "split"
    run(whole, config)
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints/step-000000016")
    path = folder / "transitions.bin"
    path.write_bytes(path.read_bytes()[:-100])
    run(folder, config, resume=True)
    assert_equal_runs(folder, whole)


# --- from a checkpoint ---------------------------------------------------------------------------

WORDS = ["--online-steps", "12", "--warmup", "2", "--checkpoint-every", "6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished offline run; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    run(folder, with_online(steps=0, warmup=None))
    return folder


def vgf(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.full
@pytest.mark.usefixtures("plane_tasks", "without_figures")
@pytest.mark.parametrize("backend", ["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_from_a_checkpoint_on_any_backend(
    backend: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need(backend)
    folder, again = tmp_path / "new", tmp_path / "again"
    words = [*WORDS, "--backend", backend, "--dtype", "float64"]
    words += ["--eager"] if backend == "torch" else []
    assert vgf("run", "--from", trained, *words, "--out", folder) == 0
    assert f"starting from {trained} after 6 updates" in capsys.readouterr().out
    config = load_config(folder / "config.toml")
    assert (config.start.run, config.start.checkpoint) == (str(trained), 6)
    assert config.backend.name == backend
    assert (config.agent, config.task) == (AGENT, CONFIG.task)
    assert (config.train.steps, config.seed) == (0, 0)
    # the agent as it was, with its optimiser; then ten updates more
    before, _ = load_checkpoint(trained)
    first, meta = load_checkpoint(folder, 6)
    assert_equal_trees(first, before)
    last, meta = load_checkpoint(folder)
    assert (meta.step, meta.extra["environment_steps"]) == (16, 12)
    assert int(last["optimiser"]["critic"]["count"]) == 16
    assert {row["step"] for row in rows(folder, "evaluations")} == {6, 16}
    if backend != "numpy":
        return
    # goes on from its own checkpoint, and from the start where it has none
    shutil.copytree(folder, again)
    shutil.rmtree(again / "checkpoints/step-000000016")
    assert vgf("run", "--resume", again) == 0
    assert_equal_runs(again, folder)
    shutil.rmtree(again / "checkpoints")
    assert vgf("run", "--resume", again) == 0
    assert_equal_runs(again, folder)


def assert_equal_trees(got: Any, expected: Any) -> None:
    assert set(got) == set(expected)
    for name in got:
        if isinstance(got[name], dict):
            assert_equal_trees(got[name], expected[name])
        else:
            np.testing.assert_array_equal(got[name], expected[name], strict=True)


@pytest.mark.usefixtures("plane_tasks", "without_figures")
def test_from_a_checkpoint_equals_never_having_stopped(straight: Path, tmp_path: Path) -> None:
    """The straight run's offline part, by two runs, and its online part, by a third."""
    offline = with_online(steps=0, warmup=None)
    short = dataclasses.replace(offline, train=dataclasses.replace(offline.train, steps=4))
    run(tmp_path / "4", short)
    assert vgf("run", "--from", tmp_path / "4", "--steps", "2", "--out", tmp_path / "6") == 0
    words = ["--online-steps", "40", "--warmup", "8", "--out", tmp_path / "online"]
    assert vgf("run", "--from", tmp_path / "6", *words) == 0
    got, expected = (tmp_path / "online"), straight
    assert (got / "transitions.bin").read_bytes() == (expected / "transitions.bin").read_bytes()
    assert_equal_trees(load_checkpoint(got)[0], load_checkpoint(expected)[0])
    assert rows(got, "online") == rows(expected, "online")
    # an earlier checkpoint of an online run, onto which no transition is carried
    words = ["--checkpoint", "18", *WORDS, "--out", tmp_path / "again"]
    assert vgf("run", "--from", straight, *words) == 0
    assert list_steps(tmp_path / "again") == [18, 22, 28]
    assert len(read_transitions(tmp_path / "again/transitions.bin")["masks"]) == 12


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.usefixtures("plane_tasks")
def test_from_is_made_again_by_its_config(trained: Path, tmp_path: Path) -> None:
    assert vgf("run", "--from", trained, *WORDS, "--out", tmp_path / "first") == 0
    config = tmp_path / "first/config.toml"
    assert vgf("run", "--config", config, "--out", tmp_path / "second") == 0
    assert_equal_runs(tmp_path / "second", tmp_path / "first")
    page = (tmp_path / "first/report.html").read_text()
    assert "after 16 updates and 12 environment steps" in page
    words = ["--steps", "0", "3", "--episodes", "1"]
    assert vgf("eval", tmp_path / "first", *words) == 0
    found = read_rows(tmp_path / "first/eval/001/evaluations.jsonl")
    assert [(row["step"], row["budget"]) for row in found] == [(16, "bc"), (16, 0), (16, 3)]


@pytest.mark.usefixtures("plane_tasks", "without_figures")
def test_wsrl_needs_no_data(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint brings the scaling of observations and of rewards."""
    words = [*WORDS, "--mixing", "wsrl"]
    assert vgf("run", "--from", trained, *words, "--out", tmp_path / "with") == 0

    def make(*_: Any, with_dataset: bool = True, **__: Any) -> Task:
        assert not with_dataset
        return dataclasses.replace(PLANE, dataset=None)

    monkeypatch.setattr("vgf.runs.task.make_task", make)
    assert vgf("run", "--from", trained, *words, "--out", tmp_path / "without") == 0
    assert_equal_runs(tmp_path / "without", tmp_path / "with")
    assert load_checkpoint(tmp_path / "with")[1].extra["scaling"]["reward_scale"] == 2.0


@pytest.mark.usefixtures("plane_tasks", "without_figures")
def test_several_seeds_from_one_run_and_from_several(trained: Path, tmp_path: Path) -> None:
    fan, each = tmp_path / "fan", tmp_path / "each"
    assert vgf("run", "--from", trained, *WORDS, "--seeds", "2", "--out", fan) == 0
    agents = [load_checkpoint(fan / f"seed-{seed}")[0] for seed in (0, 1)]
    assert not np.array_equal(
        agents[0]["reference"]["output"]["kernel"], agents[1]["reference"]["output"]["kernel"]
    )
    first = load_checkpoint(fan / "seed-1", 6)[0]
    assert_equal_trees(first | {"seed": first["seed"] * 0}, load_checkpoint(trained)[0])
    assert vgf("run", "--from", fan, *WORDS, "--out", each) == 0
    for seed in (0, 1):
        start = load_config(each / f"seed-{seed}/config.toml").start
        assert (start.run, start.checkpoint) == (str(fan / f"seed-{seed}"), 16)
    # one that was begun, and one that was not
    expected = (each / "seed-1/checkpoints/step-000000026/state.safetensors").read_bytes()
    shutil.rmtree(each / "seed-0/checkpoints/step-000000026")
    shutil.rmtree(each / "seed-1")
    assert vgf("run", "--resume", each) == 0
    found = (each / "seed-1/checkpoints/step-000000026/state.safetensors").read_bytes()
    assert found == expected


# --- what is refused -----------------------------------------------------------------------------


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Any]:
    """Run a command that must fail with status 2 and one line; returns the line."""

    def check(*words: str | Path) -> str:
        capsys.readouterr()
        assert vgf("run", *words, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert not (tmp_path / "out").exists()
        return error

    return check


@pytest.mark.usefixtures("plane_tasks", "without_figures")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "nothing to do: ask for more updates with --steps, or environment steps with "
            "--online-steps",
        ),
        (["--online-steps", "0"], "nothing to do"),
        (["--online-steps", "-5"], "--online-steps is -5; it must be 0 or more"),
        (["--online-steps", "9", "--warmup", "9"], "--warmup 9 leaves no update in 9 environment"),
        (["--online-steps", "9", "--mixing", "rpld"], "--mixing is 'rpld'; did you mean 'rlpd'?"),
        (["--online-steps", "9", "--updates-per-step", "0"], "--updates-per-step is 0; it must"),
        (["--online-steps", "9", "--mixing", "scratch"], "to go on from another run's use 'wsrl'"),
        (["--online-steps", "9", "--warmup-actions", "agnt"], "did you mean 'agent'?"),
        (["--online-steps", "9", "--env", "other"], "--env is 'other', and the agent of "),
        (["--online-steps", "9", "--no-standardise"], "--standardise is False"),
        (["--online-steps", "9", "--method", "avgf"], "--method is 'avgf', and the agent of"),
        (["--online-steps", "9", "--critic-hidden", "8"], "--critic-hidden is [8], and the"),
        (["--online-steps", "9", "--ensemble", "3"], "--ensemble is 3"),
        (["--online-steps", "9", "--checkpoint", "7"], "no checkpoint of step 7; it has 6"),
        (["--online-stps", "9"], "--online-stps is unknown; did you mean --online-steps?"),
        (["--online-steps", "9", "--collect-steps", "-1"], "--collect-steps is -1; it must be 0"),
        (
            ["--steps", "4", "--mixing", "rlpd"],
            "--mixing belongs to the online phase, which has no",
        ),
        (
            ["--steps", "4", "--online-steps", "0", "--warmup", "2"],
            "--warmup belongs to the online",
        ),
    ],
)
def test_contradictions(words: list[str], message: str, trained: Path, refused: Any) -> None:
    assert message in refused("--from", trained, *words)


@pytest.mark.usefixtures("plane_tasks", "without_figures")
def test_what_may_change(trained: Path, tmp_path: Path) -> None:
    words = [
        "--learning-rate",
        "1e-4",
        "--budget-steps",
        "2",
        "--particles",
        "3",
        "--batch-size",
        "4",
        "--seed",
        "7",
    ]
    assert vgf("run", "--from", trained, *WORDS, *words, "--out", tmp_path / "run") == 0
    config = load_config(tmp_path / "run/config.toml")
    assert (config.agent.learning_rate, config.agent.budget.steps) == (1e-4, 2)
    assert int(load_checkpoint(tmp_path / "run")[0]["seed"]) == 7


@pytest.mark.usefixtures("plane_tasks", "without_figures")
def test_starts_that_are_not_there(tmp_path: Path, refused: Any, trained: Path) -> None:
    assert "no such run folder" in refused("--from", tmp_path / "absent", *WORDS)
    assert "is not a run folder" in refused("--from", tmp_path, *WORDS)
    assert "checkpoint belongs to the run that this one starts from" in refused("--checkpoint", "6")
    assert "nothing to do: ask for updates with --steps" in refused("--steps", "0")
    assert "--resume continues with the run's own settings" in refused(
        "--resume", trained, "--online-steps", "9"
    )
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare)
    shutil.rmtree(bare / "checkpoints")
    assert "has no checkpoint; the run ended before its first one" in refused(
        "--from", bare, *WORDS
    )


def test_a_task_without_an_environment() -> None:
    task = dataclasses.replace(PLANE, make_env=None)
    with pytest.raises(VGFError, match="has no environment to take 40 steps in; drop --online-"):
        online.check_online(CONFIG.online, task)
    online.check_online(OnlineSettings(), task)


def test_methods_without_transport_collect_without_it() -> None:
    agent = dataclasses.replace(AGENT, method="fql", budget=Budget(steps=0))
    with pytest.raises(ValueError, match="moves no particles; collect_steps must be 0 or none"):
        dataclasses.replace(with_online(collect_steps=2), agent=agent)


def test_the_warm_up_of_short_runs() -> None:
    assert [OnlineSettings(steps=n).warmup_steps for n in (1, 1000, 10**6)] == [0, 100, 5000]

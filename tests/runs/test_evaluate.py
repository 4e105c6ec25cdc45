"""Evaluation: the protocol, on an environment whose every step is known, and on OGBench.

The test environment: start at a seeded point in [0, 1]; an action is added; success is to stand
at 2 or more before the action; each step costs 1.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from needs import need

from vgf.benchmarks.tasks import Task, make_task, success
from vgf.environments.pool import default_workers
from vgf.runs.evaluation import Evaluation, episode_seed, evaluate, make_pool, summarise
from vgf.spec import wasserstein2
from vgf.support.errors import VGFError


class Line:
    """The test environment, with gymnasium's interface; it fails where it stands below -50."""

    limit = 12

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.position = np.random.default_rng(seed).random(1)
        self.steps = 0
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float32
        assert np.abs(action).max() <= 1.0
        done = bool(self.position[0] >= 2.0)
        self.position = self.position + action
        self.steps += 1
        if self.position[0] < -3.0:
            raise ValueError("fell off the line")
        info = {"success": float(done)}
        return self.position.copy(), float(done) - 1.0, done, self.steps >= self.limit, info

    def close(self) -> None:
        pass


def make_line(seed: int | None = None) -> Line:
    return Line()


LINE = Task("line", 1, 1, 1, Line.limit, make_line, None, "success", success)
SILENT = Task("line", 1, 1, 1, Line.limit, make_line, None, "return", lambda info: None)


def push(
    observations: np.ndarray, budget: float, noise: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Particles are small noise, moved by the budget; the first is chosen, row by row."""
    assert observations.dtype == np.float32
    start = 0.05 * np.asarray(noise["particles"])
    moved = start + budget
    return moved[:, 0], {"start": start, "moved": moved}


def on_line(**options: Any) -> Evaluation:
    arguments: dict[str, Any] = {"particles": 3, "episodes": 9} | options
    return evaluate(push, LINE, {"still": 0.0, "slow": 0.2, "fast": 0.5}, **arguments)


def test_episodes_and_their_sums() -> None:
    found = on_line()
    assert [r["episode"] for r in found.records] == 3 * list(range(9))
    assert [s.budget for s in found.summaries] == ["still", "slow", "fast"]
    for record in found.records:
        assert record["seed"] == episode_seed(0, record["episode"])
        # Success is tested before the action: the last step of a success costs nothing.
        assert record["return"] == record["success"] - record["length"]
    still, slow, fast = found.summaries
    assert (still.success_rate, still.length, still.returns) == (0.0, 12.0, -12.0)
    assert fast.success_rate == 1.0
    assert fast.length < slow.length
    # the names up to version 0.1
    assert (fast.score, fast.mean_return, fast.mean_length) == (
        fast.value,
        fast.returns,
        fast.length,
    )
    assert still.displacement == still.w2 == 0.0
    assert fast.displacement == pytest.approx(0.5)
    assert fast.w2 == pytest.approx(0.5)


def test_the_interval_is_wilsons() -> None:
    records = on_line().records
    for wins, episodes in [(0, 9), (9, 9), (4, 9)]:
        given = [
            {**record, "score": float(i < wins)} for i, record in enumerate(records[:episodes])
        ]
        (summary,) = summarise(given)  # type: ignore[arg-type]
        z, p, n = 1.959963984540054, wins / episodes, episodes
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        assert summary.low == pytest.approx(max(0.0, centre - half), abs=1e-12)
        assert summary.high == pytest.approx(min(1.0, centre + half), abs=1e-12)
        assert summary.value == wins / episodes


def test_other_scores() -> None:
    """Returns, and returns between two references; success where the environment says none."""
    plain = evaluate(push, SILENT, {"slow": 0.2}, particles=3, episodes=9)
    between = dataclasses.replace(SILENT, score_name="normalised score", reference=(-12.0, -2.0))
    scaled = evaluate(push, between, {"slow": 0.2}, particles=3, episodes=9)
    returns = np.array([record["return"] for record in plain.records])
    assert [record["score"] for record in plain.records] == returns.tolist()
    assert {record["success"] for record in plain.records} == {None}
    np.testing.assert_allclose([r["score"] for r in scaled.records], 10 * (returns + 12))
    (summary,), (other,) = plain.summaries, scaled.summaries
    assert (summary.success_rate, summary.value) == (None, returns.mean())
    half = 2.306004 * returns.std(ddof=1) / 3  # Student's t(0.975, 8)
    np.testing.assert_allclose(
        (summary.low, summary.high), returns.mean() + np.array([-half, half])
    )
    assert other.value == pytest.approx(10 * (summary.value + 12))
    odd = dataclasses.replace(SILENT, score_name="success")
    with pytest.raises(VGFError, match="info has no 'success' to score by"):
        evaluate(push, odd, {"slow": 0.2}, particles=3, episodes=1)


def test_a_task_without_environments_has_nothing_to_evaluate_in() -> None:
    bare = dataclasses.replace(LINE, make_env=None)
    with pytest.raises(VGFError, match="line has no environment"):
        evaluate(push, bare, {"slow": 0.2}, particles=3)


@pytest.mark.full
def test_results_do_not_depend_on_what_runs_beside() -> None:
    whole = on_line()
    assert on_line() == whole
    for options in [
        {"num_envs": 1},
        {"num_envs": 4},
        {"workers": 2},
        {"workers": 3, "num_envs": 5},
    ]:
        assert on_line(**options) == whole, options
    fewer = on_line(episodes=4)
    assert fewer.records == [r for r in whole.records if r["episode"] < 4]
    assert on_line(seed=1) != whole
    with make_pool(LINE, 2, workers=1) as pool:  # Used environments give the same again.
        assert on_line(pool=pool) == whole
        assert on_line(pool=pool) == whole


def test_budgets_share_start_states_and_noise() -> None:
    seen: dict[float, list[Any]] = {0.0: [], 0.5: []}

    def watch(observations: Any, budget: float, noise: Any) -> Any:
        seen[budget].append((observations.copy(), noise["particles"], noise["select"]))
        return push(observations, budget, noise)

    evaluate(watch, LINE, {"a": 0.0, "b": 0.5}, particles=3, episodes=4)
    np.testing.assert_array_equal(seen[0.0][0][0], seen[0.5][0][0])
    for step in range(3):  # While all four episodes of both are under way.
        np.testing.assert_array_equal(seen[0.0][step][1], seen[0.5][step][1])
        np.testing.assert_array_equal(seen[0.0][step][2], seen[0.5][step][2])
    noise = np.concatenate([step[1] for step in seen[0.0]])
    assert noise.shape == (4 * 12, 3, 1)
    assert len(np.unique(noise)) == noise.size  # No draw is used twice.
    assert not np.array_equal(seen[0.0][0][2], seen[0.0][1][2])
    starts = seen[0.0][0][0]
    assert len(np.unique(starts)) == 4


def test_the_policy_is_called_once_for_each_step_with_a_fixed_shape() -> None:
    shapes = []

    def watch(observations: Any, budget: float, noise: Any) -> Any:
        shapes.append((observations.shape, noise["particles"].shape, noise["select"].shape))
        return push(observations, budget, noise)

    found = evaluate(watch, LINE, {"a": 0.5}, particles=3, episodes=7, num_envs=7)
    assert set(shapes) == {((7, 1), (7, 3, 1), (7,))}
    assert len(shapes) == max(record["length"] for record in found.records)


def test_w2_is_the_specifications() -> None:
    """Particles that exchange places move, and their set does not."""

    def swap(observations: Any, budget: float, noise: Any) -> Any:
        start = np.tile([[0.0], [0.4], [0.9]], (len(observations), 1, 1))
        return start[:, 0], {"start": start, "moved": start[:, ::-1] + budget}

    def measured(budget: float) -> tuple[float | None, float | None]:
        (summary,) = evaluate(swap, LINE, {"a": budget}, particles=3, episodes=2).summaries
        return summary.displacement, summary.w2

    assert measured(0.0) == pytest.approx((0.6, 0.0))
    sets = np.array([[0.0], [0.4], [0.9]]), np.array([[0.9], [0.4], [0.0]]) + 0.1
    assert measured(0.1) == pytest.approx((1.9 / 3, wasserstein2(*sets)))


def test_a_policy_without_particles_has_no_distance() -> None:
    def act(observations: Any, budget: float, noise: Any) -> Any:
        return np.ones((len(observations), 1)), {}

    (summary,) = evaluate(act, LINE, {"a": 0.0}, particles=1, episodes=2).summaries
    assert summary.displacement is None
    assert summary.w2 is None


def test_actions_are_clipped_to_the_box() -> None:
    def act(observations: Any, budget: float, noise: Any) -> Any:
        return np.full((len(observations), 1), 7.0), {}

    assert evaluate(act, LINE, {"a": 0.0}, particles=1).summaries[0].success_rate == 1.0


def test_progress_is_told() -> None:
    calls: list[tuple[str, int, int]] = []
    on_line(episodes=2, num_envs=1, progress=lambda *call: calls.append(call))
    labels = 2 * ["still"] + 2 * ["slow"] + 2 * ["fast"]
    assert calls == [(f"evaluating {label}", i + 1, 6) for i, label in enumerate(labels)]


def test_bad_policies_and_requests() -> None:
    def of(actions: Any) -> Any:
        return lambda observations, budget, noise: (actions, {})

    for policy, words in [
        (of(np.zeros((9, 2))), r"shape \[9, 2\], expected \[9, 1\]"),
        (of(np.zeros(9)), r"shape \[9\]"),
        (of(np.full((9, 1), np.nan)), "NaN or infinity at budget 'a'.*diverged"),
    ]:
        with pytest.raises(VGFError, match=words):
            evaluate(policy, LINE, {"a": 0.0}, particles=1, episodes=9)
    for options, words in [
        ({"episodes": 0}, "episodes is 0"),
        ({"particles": 0}, "particles is 0"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"seed": -1}, "seed is -1"),
    ]:
        with pytest.raises(VGFError, match=words):
            on_line(**options)
    with pytest.raises(VGFError, match="no test budget"):
        evaluate(push, LINE, {}, particles=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_environment_is_not_passed_over(workers: int) -> None:
    def back(observations: Any, budget: float, noise: Any) -> Any:
        return np.full((len(observations), 1), -1.0), {}

    with pytest.raises(VGFError, match=r"step \d+ of episode 0 .* raised ValueError: fell off the"):
        evaluate(back, LINE, {"a": 0.0}, particles=1, episodes=2, workers=workers)


def test_a_process_that_dies_is_named() -> None:
    with make_pool(LINE, 1, workers=1) as pool:
        pool.reset({0: 1})
        process = pool._workers[0]._process
        process.kill()
        process.join()
        with pytest.raises(VGFError, match=r"slot 0 ended its process by SIGKILL"):
            pool.step({0: np.zeros(1, np.float32)})
        assert pool.reset({0: 1})[0].shape == (1,)  # in a fresh one


@pytest.mark.full
def test_on_ogbench() -> None:
    need("ogbench")
    task = make_task("pointmaze-medium-navigate-singletask-task1-v0", 8, with_dataset=False)

    def walk(observations: Any, budget: float, noise: Any) -> Any:
        return np.clip(noise["particles"][:, 0] + budget, -1, 1), {}

    here = evaluate(walk, task, {"a": 0.0, "b": 0.2}, particles=1, episodes=3)
    assert {record["length"] for record in here.records} == {125}
    np.random.random(3)
    there = evaluate(walk, task, {"a": 0.0, "b": 0.2}, particles=1, episodes=3, workers=2)
    assert here == there


@pytest.mark.full
def test_two_groups_take_turns() -> None:
    """Many environments: budgets mixed in a group, and processes at work while the policy is."""
    shapes = set()

    def watch(observations: Any, budget: float, noise: Any) -> Any:
        shapes.add(observations.shape)
        return push(observations, budget, noise)

    budgets = {"still": 0.0, "slow": 0.2, "fast": 0.5}
    one = evaluate(push, LINE, budgets, particles=3, episodes=41, num_envs=1)
    for options in [{}, {"workers": 2}, {"num_envs": 64, "workers": 3}]:
        shapes.clear()
        found = evaluate(watch, LINE, budgets, particles=3, episodes=41, **options)  # type: ignore[arg-type]
        assert found == one, options
        assert shapes == {(32 if "num_envs" in options else 21, 1)}


def test_an_evaluation_that_broke_off_leaves_its_environments_usable() -> None:
    whole = on_line()
    calls = 0

    def stop(observations: Any, budget: float, noise: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return push(observations, budget, noise)

    for workers in (0, 2):
        with make_pool(LINE, 40, workers=workers) as pool:
            calls = 0
            with pytest.raises(KeyboardInterrupt):
                evaluate(stop, LINE, {"slow": 0.2}, particles=3, episodes=40, pool=pool)
            assert on_line(pool=pool) == whole


def test_how_many_environments_and_processes() -> None:
    assert make_pool(LINE, 200).size == LINE.environments_together == 50
    assert make_pool(LINE, 7).size == 7
    assert make_pool(LINE, 7, 30).size == 30
    need("ogbench")
    arm = make_task("cube-single-play-singletask-task1-v0", with_dataset=False)
    assert make_pool(arm, 50).size == 20


def test_a_process_on_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, size, expected in [(1, 50, 0), (2, 50, 2), (8, 3, 0), (8, 7, 3), (64, 50, 16)]:
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False
        )
        assert default_workers(size) == expected

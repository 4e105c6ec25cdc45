"""What a sweep will take, from a short measurement on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..benchmarks.tasks import Task
from ..runs.agent import make_backend
from ..runs.checkpoint import flatten
from ..runs.config import RunConfig
from ..runs.task import load_task
from ..support.settings_tree import short_hash, to_dict

SECONDS = 1.0  # of measurement, for updates, for actions and for environment steps each
_ROW = 300  # bytes of a row in CSV and JSONL together, about
_FIXED = 2_000_000  # bytes of a run's figures and report, about


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Args:
        training, evaluation: seconds on one core.
        disk, memory: bytes.
    """

    training: float
    evaluation: float
    disk: float
    memory: float

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.training + self.evaluation


def estimate(cells: Mapping[str, RunConfig]) -> dict[str, Cost]:
    """The cost of every run. One of each task, method and settings is measured, and no seed twice.

    Raises:
        VGFError: a task that does not exist, or a package that is missing.
    """
    measured: dict[str, Cost] = {}
    found = {}
    for name, config in cells.items():
        tree = to_dict(config)
        key = short_hash({**tree, "seed": 0})
        if key not in measured:
            measured[key] = measure(config)
        found[name] = measured[key]
    return found


def measure(config: RunConfig) -> Cost:
    """The cost of one run, by a second of updates, of actions and of environment steps each."""
    task = load_task(config, with_dataset=config.task.env is None)
    backend = make_backend(config.backend)
    settings, rng = config.agent, np.random.default_rng(0)
    sizes = task.observation_dim, task.action_dim
    state = backend.init_state(0, *sizes, settings)
    size = config.train.batch_size
    chunk = _chunk(config)
    rows = {
        "observations": rng.standard_normal((size, sizes[0])),
        "actions": rng.uniform(-1, 1, (size, sizes[1] * chunk)),
        "rewards": rng.standard_normal(size),
        "masks": np.ones(size),
        "next_observations": rng.standard_normal((size, sizes[0])),
    }
    batch = backend.asarray({name: np.asarray(x, np.float32) for name, x in rows.items()})
    update = _seconds(lambda: backend.to_numpy(backend.update(state, batch, settings)[1]))
    arrays = flatten(backend.to_numpy(state))
    checkpoint = sum(array.nbytes for array in arrays.values())
    updates = config.updates - (config.start.checkpoint or 0)
    train, tests = config.train, config.evaluation
    steps = train.steps + config.online.steps
    evaluations = -(-steps // train.evaluate_every)
    disk = checkpoint * -(-steps // train.checkpoint_every) + _FIXED
    evaluation = 0.0
    if task.make_env is not None:
        together = min(tests.num_envs or task.environments_together, tests.episodes)
        decisions = task.max_episode_steps or 1_000
        act = _acting(backend, state, task, config, together) if settings is not None else 0.0
        step = _stepping(task)
        episodes = tests.episodes * len(tests.steps)
        evaluation = evaluations * episodes * decisions * (step + act / together)
        disk += evaluations * episodes * _ROW
    data = (
        0
        if task.dataset is None
        else sum(x.nbytes for x in vars(task.dataset).values() if isinstance(x, np.ndarray))
    )
    return Cost(updates * update, evaluation, disk, 1.2e9 + 4 * checkpoint + data)


def _chunk(config: RunConfig) -> int:
    return int(getattr(config.task, "action_chunk", 1) or 1)


def _acting(backend: Any, state: Any, task: Task, config: RunConfig, together: int) -> float:
    seen = np.zeros((together, task.observation_dim), np.float32)
    budget = config.agent.budget
    return _seconds(
        lambda: backend.to_numpy(
            {"a": backend.act(state, backend.asarray({"o": seen})["o"], budget, config.agent)[0]}
        )
    )


def _stepping(task: Task) -> float:
    assert task.make_env is not None
    env = task.make_env(0)
    try:
        env.reset(seed=0)
        action = np.zeros(env.action_space.shape, env.action_space.dtype)

        def step() -> None:
            _, _, over, cut, _ = env.step(action)
            if over or cut:
                env.reset()

        return _seconds(step)
    finally:
        env.close()


def _seconds(work: Any) -> float:
    """Of one call, the first (which may compile) not counted; the median of a second's."""
    work()
    times: list[float] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < SECONDS:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return float(np.median(times))

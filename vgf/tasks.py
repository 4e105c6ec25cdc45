"""Tasks: from a name to data, environments and a score."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .data.common import Progress, Say
from .data.dataset import Dataset
from .data.ogbench import load_ogbench, parse_task
from .data.pool import MakeEnv, Score
from .errors import VGFError


@dataclass(frozen=True)
class OGBenchMaker:
    """Makes the environment of one of OGBench's single tasks; picklable.

    Call it with a seed for the first `reset` that has none of its own, or with None.
    """

    name: str
    action_repeat: int = 1

    def __call__(self, seed: int | None = None) -> Any:
        from .data.environments import make_ogbench_env

        return make_ogbench_env(self.name, seed, self.action_repeat)


def success(info: Mapping[str, Any]) -> float:
    """The score of a step: 1 where the goal is reached, 0 elsewhere."""
    return float(info["success"])


@dataclass(frozen=True, eq=False)
class Task:
    """What there is to train and evaluate on.

    Args:
        name: as the benchmark spells it.
        action_repeat: simulator steps for each decision.
        observation_dim: o.
        action_dim: d; actions lie in [-1, 1].
        max_episode_steps: decisions after which an episode is cut.
        make_env: makes a gymnasium environment from a seed, or None; picklable. Its observations
            are the simulator's, not standardised.
        dataset: the training data, or None where they were not asked for.
        score_name: what the score is: "success".
        score: from the info of a step to its score; an episode has the largest of its steps.
    """

    name: str
    action_repeat: int
    observation_dim: int
    action_dim: int
    max_episode_steps: int
    make_env: MakeEnv
    dataset: Dataset | None = None
    score_name: str = "success"
    score: Score = success


def make_task(
    env_name: str,
    action_repeat: int = 1,
    data_dir: str | Path | None = None,
    episodes: int | None = None,
    seed: int = 0,
    *,
    with_dataset: bool = True,
    allow_generate: bool = True,
    allow_download: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Task:
    """Make a task from its name.

    With `action_repeat` above 1, each decision is held for that many simulator steps, in the
    recorded data (:func:`~vgf.data.record.generate_ogbench`) and in the environment
    (:class:`~vgf.data.environments.ActionRepeat`) alike: rewards, masks and success look at the
    states in which decisions are taken and at no state between them, and the benchmark's time
    limit, in simulator steps, makes correspondingly fewer decisions.

    Args:
        env_name: one of OGBench's state-based single tasks,
            ``<environment>-<kind>-singletask[-task<1-5>]-v0``.
        action_repeat: simulator steps for each decision.
        data_dir: where data are looked for first, generated and downloaded.
        episodes: of a generated dataset; None for the benchmark's number.
        seed: of a generated dataset.
        with_dataset: load the data too; otherwise they need not exist.
        allow_generate, allow_download: whether data that are not there may be made or fetched.
        workers: processes that generate; None for one on each core.
        progress: called while data are generated.
        say: takes a line for the person at the terminal, while data are generated.

    Raises:
        VGFError: as :func:`~vgf.data.ogbench.load_ogbench`, or a wrong action_repeat.
    """
    parse_task(env_name)
    if action_repeat < 1:
        raise VGFError(f"action_repeat is {action_repeat}; it must be 1 or more")
    make_env = OGBenchMaker(env_name, action_repeat)
    with contextlib.closing(make_env(None)) as env:
        observation_dim = int(env.observation_space.shape[0])
        action_dim = int(env.action_space.shape[0])
        simulator_steps = int(env.spec.max_episode_steps)
    dataset = None
    if with_dataset:
        dataset = load_ogbench(
            env_name,
            data_dir,
            action_repeat=action_repeat,
            episodes=episodes,
            seed=seed,
            allow_generate=allow_generate,
            allow_download=allow_download,
            workers=workers,
            progress=progress,
            say=say,
        )
    return Task(
        name=env_name,
        action_repeat=action_repeat,
        observation_dim=observation_dim,
        action_dim=action_dim,
        max_episode_steps=math.ceil(simulator_steps / action_repeat),
        make_env=make_env,
        dataset=dataset,
    )

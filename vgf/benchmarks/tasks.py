"""Tasks: from a name to data, environments and a score."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..data.npz import MEMORY
from ..data.raw import to_dataset
from ..environments.pool import MakeEnv, Success, closing
from ..spec.types import Array
from ..support.callbacks import Progress, Say
from ..support.errors import VGFError
from ..support.statistics import NORMALISED, RETURN, SUCCESS, normalised
from . import find_task
from .base import Benchmark, DataRequest, check_given


def success(info: Mapping[str, Any]) -> float | None:
    """Whether a step is a success, 1 or 0; None if the environment does not say."""
    value = info.get("success")
    return None if value is None else float(value)


@dataclass(frozen=True, eq=False)
class Task:
    """What there is to train and evaluate on.

    Args:
        name: as its benchmark spells it; the file's, for a file of data alone.
        action_repeat: simulator steps for each decision.
        observation_dim: o.
        action_dim: d; actions lie in [-1, 1].
        max_episode_steps: decisions after which an episode is cut; None without a limit.
        make_env: makes a gymnasium environment from a seed, or None; picklable. Its observations
            are the simulator's, not standardised. None if there is nothing to evaluate in.
        dataset: the training data, or None if they were not loaded.
        score_name: what an episode's score is: "success", "normalised score" or "return".
        success: from the info of a step to whether it is a success; an episode's is the largest.
        reference: the returns of normalised score 0 and 100.
        notes: what a reader of the results should know about data and environments; one line each.
        environments_together: the most that an evaluation makes at once by default.
    """

    name: str
    action_repeat: int
    observation_dim: int
    action_dim: int
    max_episode_steps: int | None
    make_env: MakeEnv | None
    dataset: Dataset | None = None
    score_name: str = SUCCESS
    success: Success = success
    reference: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    environments_together: int = 50

    def described(self) -> str:
        """The notes as lines for a terminal; "" if there are none."""
        return "\n".join(
            textwrap.fill(note, 79, subsequent_indent="  ", break_on_hyphens=False)
            for note in self.notes
        )

    def score(self, total: float, reached: float | None) -> float:
        """The score of an episode.

        Args:
            total: its return, the sum of the environment's rewards.
            reached: its success, or None if the environment reports none.

        Raises:
            VGFError: the score is success, and the environment reports none.
        """
        if self.score_name == RETURN:
            return total
        if self.score_name == NORMALISED and self.reference is not None:
            return normalised(total, *self.reference)
        if reached is None:
            raise VGFError(
                f"{self.name}: the environment's info has no 'success' to score by; drop --score"
            )
        return reached


def make_task(
    env_name: str | None,
    action_repeat: int = 1,
    data_dir: str | Path | None = None,
    episodes: int | None = None,
    seed: int = 0,
    *,
    data: str | Path | None = None,
    normalise_rewards: bool = False,
    with_dataset: bool = True,
    allow_generate: bool = True,
    allow_download: bool = True,
    workers: int | None = None,
    data_memory: str = MEMORY,
    trust_data_code: bool = False,
    qlearning_dataset: bool = False,
    action_clip_eps: float | None = None,
    success_timing: str | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Task:
    """Make a task from its name.

    With `action_repeat` above 1, each decision is held for that many simulator steps, in the
    recorded data (:func:`~vgf.benchmarks.ogbench_oracles.generate_ogbench`) and in the environment
    (:class:`~vgf.benchmarks.ogbench_environment.ActionRepeat`) alike: rewards, masks and success
    depend on the states in which decisions are taken and on no state between them, and the
    benchmark's time limit, in simulator steps, makes correspondingly fewer decisions.

    Args:
        env_name: a task's name, see :func:`vgf.benchmarks.find_task`; None for a file of data
            alone.
        action_repeat: simulator steps for each decision; above 1 only where data are generated.
        data_dir: where data are looked for first, generated and downloaded.
        episodes: of a generated dataset; None for the benchmark's number.
        seed: of a generated dataset.
        data: a file of data to use instead of the task's own.
        normalise_rewards: scale rewards by the range of the data's returns.
        with_dataset: load the data too; otherwise they need not exist.
        allow_generate, allow_download: whether missing data may be made or fetched.
        workers: processes that generate; None for one on each core.
        data_memory: where data are held, one of :data:`vgf.data.npz.DATA_MEMORY`.
        trust_data_code: whether the environment may be made by code that the data themselves name.
        qlearning_dataset, action_clip_eps, success_timing, mirror: see
            :class:`~vgf.benchmarks.base.DataRequest`.
        progress: called while data are generated or downloaded.
        say: takes a line for the person at the terminal, while data are generated.

    Raises:
        VGFError: as :func:`vgf.benchmarks.read_raw` and :func:`vgf.data.to_dataset`; an
            environment that cannot be made; or data that do not belong to this environment.
    """
    if action_repeat < 1:
        raise VGFError(f"action_repeat is {action_repeat}; it must be 1 or more")
    found = find_task(env_name, data_dir)
    request = DataRequest(
        found.name,
        data,
        data_dir,
        action_repeat,
        episodes,
        seed,
        normalise_rewards,
        data_memory,
        allow_generate,
        allow_download,
        workers,
        trust_data_code,
        progress=progress,
        say=say,
        qlearning_dataset=qlearning_dataset,
        action_clip_eps=action_clip_eps,
        success_timing=success_timing,
        mirror=mirror,
    )
    return load(found.benchmark, request, with_dataset)


def load(benchmark: Benchmark, request: DataRequest, with_dataset: bool = True) -> Task:
    """The task of a request: its environment measured, and its data loaded.

    Args:
        benchmark: whose task it is.
        request: for its data.
        with_dataset: load the data too; otherwise they need not exist.

    Raises:
        VGFError: as :func:`make_task`.
    """
    if with_dataset:
        benchmark.check_request(request)
        check_given(request)
    task, box = measure(benchmark, request)
    if not with_dataset:
        return task
    raw = benchmark.read(dataclasses.replace(request, action_box=box))
    if request.action_clip_eps is not None:
        raw = dataclasses.replace(raw, action_clip=1.0 - request.action_clip_eps)
    dataset = to_dataset(raw)
    check_sizes(task, dataset)
    return dataclasses.replace(
        task,
        observation_dim=dataset.observation_dim,
        action_dim=dataset.action_dim,
        dataset=dataset,
        notes=(*task.notes, *(f"data: {line}" for line in benchmark.data_notes(raw))),
    )


def measure(benchmark: Benchmark, request: DataRequest) -> tuple[Task, tuple[Array, Array] | None]:
    """A task without data, its sizes taken from its environment, and the box of its actions.

    Args:
        benchmark: whose task it is.
        request: for its data, which may name the environment.

    Returns:
        The task, and the smallest and the largest actions of its environment ``[d]``, in its own
        units; None if it has none.

    Raises:
        VGFError: an environment that cannot be made, or missing data that would name it.
    """
    scoring = benchmark.scoring(request)
    task = Task(
        name=benchmark.task_name(request),
        action_repeat=request.action_repeat,
        observation_dim=0,
        action_dim=0,
        max_episode_steps=None,
        make_env=scoring.make_env,
        score_name=scoring.score_name,
        reference=scoring.reference,
        notes=(*scoring.notes, *_unused(benchmark, request)),
        environments_together=scoring.environments_together,
    )
    if scoring.make_env is None:
        return task, None
    with closing(scoring.make_env(None)) as env:
        limit = None if env.spec is None else env.spec.max_episode_steps
        box = env.unwrapped.action_space
        measured = dataclasses.replace(
            task,
            observation_dim=int(env.observation_space.shape[0]),
            action_dim=int(env.action_space.shape[0]),
            max_episode_steps=None if limit is None else math.ceil(limit / request.action_repeat),
        )
        return measured, (box.low, box.high)


def _unused(benchmark: Benchmark, request: DataRequest) -> Iterator[str]:
    """A line for each setting that means nothing to a benchmark, such as those of a preset."""
    if request.success_timing is not None and not benchmark.times_success:
        yield "success_timing is of OGBench's environments and has no part here"
    if request.qlearning_dataset and not benchmark.has_qlearning_dataset:
        yield "qlearning_dataset is of D4RL's data and has no part here"


def check_sizes(task: Task, dataset: Dataset) -> None:
    """Check that data and environment have the same sizes.

    Raises:
        VGFError: they do not.
    """
    if task.make_env is None:
        return
    for what, got, wanted in (
        ("observations", dataset.observation_dim, task.observation_dim),
        ("actions", dataset.action_dim, task.action_dim),
    ):
        if got != wanted:
            raise VGFError(
                f"{dataset.source}: {what} have {got} numbers, and those of {task.name}'s "
                f"environment {wanted}; is it the file of another environment?"
            )

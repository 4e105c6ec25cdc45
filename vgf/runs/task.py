"""The task named in a run's configuration."""

from __future__ import annotations

import dataclasses
import functools

from ..benchmarks.tasks import Task, make_task
from ..data.horizon import over_horizon
from ..support.progress import say_line, shown_progress
from .config import RunConfig


def load_task(config: RunConfig, with_dataset: bool = True) -> Task:
    """The task of a run, its data generated or downloaded if missing, over the run's horizon.

    Raises:
        VGFError: as :func:`vgf.benchmarks.tasks.make_task`, or trajectories shorter than a chunk.
    """
    with shown_progress("episode") as show:
        task = make_task(
            config.task.env,
            config.task.action_repeat,
            config.task.data_dir,
            config.task.data_episodes,
            data=config.task.data,
            normalise_rewards=config.task.normalise_rewards,
            data_memory=config.task.data_memory,
            trust_data_code=config.task.trust_data_code,
            qlearning_dataset=config.task.qlearning_dataset,
            action_clip_eps=config.task.action_clip_eps,
            success_timing=config.task.success_timing,
            mirror=config.task.mirror,
            allow_download=not config.task.offline,
            with_dataset=with_dataset,
            progress=show,
            say=say_line,
        )
    if config.task.score != "auto" and task.make_env is not None:
        task = dataclasses.replace(task, score_name=config.task.score)
    chunk, discount = config.task.action_chunk, config.agent.discount
    if task.dataset is not None:
        steps = max(config.task.n_step, chunk)
        dataset = over_horizon(task.dataset, steps, discount, chunks=chunk > 1)
        task = dataclasses.replace(task, dataset=dataset)
    return in_chunks(task, chunk) if chunk > 1 else task


def in_chunks(task: Task, size: int) -> Task:
    """A task whose decisions are several actions; its data are in chunks already."""
    make_env, limit = task.make_env, task.max_episode_steps
    if make_env is not None:
        from ..environments.chunks import make_chunked

        make_env = functools.partial(make_chunked, make_env, size)
    return dataclasses.replace(
        task,
        action_dim=task.action_dim * size,
        make_env=make_env,
        max_episode_steps=None if limit is None else -(-limit // size),
    )

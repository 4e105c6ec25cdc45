"""The task named in a run's configuration."""

from __future__ import annotations

from ..benchmarks.tasks import Task, make_task
from ..support.progress import say_line, shown_progress
from .config import RunConfig


def load_task(config: RunConfig, with_dataset: bool = True) -> Task:
    """The task of a run, its data generated or downloaded if missing.

    Raises:
        VGFError: as :func:`vgf.benchmarks.tasks.make_task`.
    """
    with shown_progress("episode") as show:
        return make_task(
            config.task.env,
            config.task.action_repeat,
            config.task.data_dir,
            config.task.data_episodes,
            data=config.task.data,
            normalise_rewards=config.task.normalise_rewards,
            data_memory=config.task.data_memory,
            trust_data_code=config.task.trust_data_code,
            with_dataset=with_dataset,
            progress=show,
            say=say_line,
        )

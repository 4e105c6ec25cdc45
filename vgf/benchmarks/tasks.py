"""Tasks: from a name to data, environments and a score."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.common import Progress, Say
from ..data.dataset import Dataset
from ..data.npz import MEMORY
from ..data.pool import MakeEnv, Success
from ..data.raw import outside_the_box, to_dataset
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.extras import installed_version
from ..support.statistics import NORMALISED, RETURN, SUCCESS, normalised
from . import d4rl, minari
from .ogbench import is_manipulation
from .source import (
    D4RL,
    GYMNASIUM,
    MINARI,
    NONE,
    OGBENCH,
    Source,
    check_request,
    find_source,
    read_raw,
)

# Environments of OGBench's robot arm made at once: each takes about 140 MB and a second to make.
_ROBOT_ARMS = 20


@dataclass(frozen=True)
class OGBenchMaker:
    """Makes the environment of one of OGBench's single tasks; picklable.

    Call it with a seed for the first `reset` that has none of its own, or with None. So for the
    other makers.
    """

    name: str
    action_repeat: int = 1

    def __call__(self, seed: int | None = None) -> Any:
        from .environments import make_ogbench_env

        return make_ogbench_env(self.name, seed, self.action_repeat)


@dataclass(frozen=True)
class D4RLMaker:
    """Makes D4RL's own environment of a task, or the one that stands in for it; picklable."""

    task: d4rl.D4RLTask
    own: bool

    def __call__(self, seed: int | None = None) -> Any:
        from .stand_ins import make_own, make_stand_in

        return (make_own if self.own else make_stand_in)(self.task, seed)


@dataclass(frozen=True)
class MinariMaker:
    """Makes the environment that a Minari dataset is to be evaluated in; picklable."""

    path: Path

    def __call__(self, seed: int | None = None) -> Any:
        from .minari import make_minari_env

        return make_minari_env(self.path, seed)


@dataclass(frozen=True)
class GymnasiumMaker:
    """Makes one of gymnasium's environments; picklable."""

    name: str

    def __call__(self, seed: int | None = None) -> Any:
        from .environments import make_gymnasium_env

        return make_gymnasium_env(self.name, seed)


def success(info: Mapping[str, Any]) -> float | None:
    """Whether a step is a success, 1 or 0; None where the environment does not say."""
    value = info.get("success")
    return None if value is None else float(value)


@dataclass(frozen=True, eq=False)
class Task:
    """What there is to train and evaluate on.

    Args:
        name: as its source spells it; the file's, for a file of data alone.
        action_repeat: simulator steps for each decision.
        observation_dim: o.
        action_dim: d; actions lie in [-1, 1].
        max_episode_steps: decisions after which an episode is cut; None without a limit.
        make_env: makes a gymnasium environment from a seed, or None; picklable. Its observations
            are the simulator's, not standardised. None where there is nothing to evaluate in.
        dataset: the training data, or None where they were not asked for.
        score_name: what an episode's score is: "success", "normalised score" or "return".
        success: from the info of a step to whether it is one; an episode has the largest.
        reference: the returns of normalised score 0 and 100.
        notes: what a reader of the results should know of data and environments; a line each.
        environments_together: as many are made for an evaluation at most, unless it says more.
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
        """The notes as lines for a terminal; "" where there are none."""
        return "\n".join(
            textwrap.fill(note, 79, subsequent_indent="  ", break_on_hyphens=False)
            for note in self.notes
        )

    def score(self, total: float, reached: float | None) -> float:
        """The score of an episode.

        Args:
            total: its return, the sum of the environment's rewards.
            reached: its success, or None where the environment says none.

        Raises:
            VGFError: the score is success, and the environment says none.
        """
        if self.score_name == RETURN:
            return total
        if self.score_name == NORMALISED and self.reference is not None:
            return normalised(total, *self.reference)
        if reached is None:
            raise VGFError(f"{self.name}: the environment's info has no 'success' to score by")
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
    progress: Progress | None = None,
    say: Say | None = None,
) -> Task:
    """Make a task from its name.

    With `action_repeat` above 1, each decision is held for that many simulator steps, in the
    recorded data (:func:`~vgf.recording.record.generate_ogbench`) and in the environment
    (:class:`~vgf.benchmarks.environments.ActionRepeat`) alike: rewards, masks and success look at
    the states in which decisions are taken and at no state between them, and the benchmark's time
    limit, in simulator steps, makes correspondingly fewer decisions.

    Args:
        env_name: a task of OGBench, D4RL, Minari or gymnasium, see
            :func:`~vgf.benchmarks.source.find_source`; None for a file of data alone.
        action_repeat: simulator steps for each decision; above 1 in OGBench only.
        data_dir: where data are looked for first, generated and downloaded.
        episodes: of a generated dataset; None for the benchmark's number.
        seed: of a generated dataset.
        data: a file of data to use instead of the task's own.
        normalise_rewards: scale rewards by the range of the data's returns.
        with_dataset: load the data too; otherwise they need not exist.
        allow_generate, allow_download: whether data that are not there may be made or fetched.
        workers: processes that generate; None for one on each core.
        data_memory: where data are held, one of :data:`vgf.data.npz.DATA_MEMORY`.
        progress: called while data are generated or downloaded.
        say: takes a line for the person at the terminal, while data are generated.

    Raises:
        VGFError: as :func:`~vgf.benchmarks.source.read_raw` and :func:`~vgf.data.to_dataset`; an
            environment that cannot be made; or data that are not this environment's.
    """
    if action_repeat < 1:
        raise VGFError(f"action_repeat is {action_repeat}; it must be 1 or more")
    source = find_source(env_name, data_dir)
    if with_dataset:
        check_request(source, data, action_repeat, episodes)
    found = _FINDERS[source.kind](source.name, action_repeat, data_dir, allow_download)
    name = Path(data).name if source.kind == NONE and data is not None else source.name
    task, box = _measured(name, action_repeat, found)
    if not with_dataset:
        return task
    raw = read_raw(
        env_name,
        data,
        data_dir,
        normalise_rewards=normalise_rewards,
        action_box=box,
        action_repeat=action_repeat,
        episodes=episodes,
        seed=seed,
        allow_generate=allow_generate,
        allow_download=allow_download,
        workers=workers,
        memory=data_memory,
        progress=progress,
        say=say,
    )
    dataset = to_dataset(raw)
    check_sizes(task, dataset)
    about_data = () if source.kind == OGBENCH else (*raw.conventions(), *outside_the_box(raw))
    return dataclasses.replace(
        task,
        observation_dim=dataset.observation_dim,
        action_dim=dataset.action_dim,
        dataset=dataset,
        notes=(*task.notes, *(f"data: {line}" for line in about_data)),
    )


def measure(
    source: Source,
    action_repeat: int = 1,
    data_dir: str | Path | None = None,
    *,
    allow_download: bool = True,
) -> tuple[Task, tuple[Array, Array] | None]:
    """A task without data, its sizes taken from its environment, and the box of its actions.

    Args:
        source: what its name means.
        action_repeat: simulator steps for each decision.
        data_dir: where Minari's data are looked for, which name their environment.
        allow_download: whether they may be fetched.

    Raises:
        VGFError: an environment that cannot be made, or no data of Minari's.
    """
    found = _FINDERS[source.kind](source.name, action_repeat, data_dir, allow_download)
    return _measured(source.name, action_repeat, found)


# --- environments and scores of each source -----------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What a source says of evaluation; as :class:`Task` has it."""

    make_env: MakeEnv | None
    score_name: str
    reference: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    environments_together: int = 50


def _ogbench(name: str, action_repeat: int, _folder: Any, _download: bool) -> _Found:
    together = _ROBOT_ARMS if is_manipulation(name) else _Found.environments_together
    return _Found(OGBenchMaker(name, action_repeat), SUCCESS, environments_together=together)


def _d4rl(name: str, _repeat: int, _folder: Any, _download: bool) -> _Found:
    from .stand_ins import describe, stand_in, why_none, why_not_own

    table = d4rl.d4rl_table()
    task = table.tasks[name]
    reason = why_not_own(task)
    if reason is not None and stand_in(task) is None:
        note = f"no evaluation: nothing stands in for D4RL's {name}: {why_none(task)}"
        return _Found(None, RETURN, notes=(note,))
    own = reason is None
    make_env = D4RLMaker(task, own)
    notes = [describe(task, own)]
    if d4rl.is_installed_here() and not own:
        notes.append(f"D4RL's own environment cannot be made here: {reason}")
    if task.family == "antmaze":
        return _Found(make_env, SUCCESS, notes=(*notes, "normalised score = 100 x success"))
    if task.ref_min is None or task.ref_max is None:
        notes.append(
            f"no normalised score: D4RL's table has no reference score for {name}; the return is "
            "reported"
        )
        return _Found(make_env, RETURN, notes=tuple(notes))
    notes.append(_reference_note(task.ref_min, task.ref_max, table.source))
    return _Found(make_env, NORMALISED, (task.ref_min, task.ref_max), tuple(notes))


def _reference_note(low: float, high: float, source: str) -> str:
    return f"normalised score: 0 is the return {low:g} and 100 is {high:g}, from {source}"


def _minari(name: str, _repeat: int, folder: Any, download: bool) -> _Found:
    path = minari.find_minari(name, folder, allow_download=download)
    found = minari.open_minari(path)
    if found.env_name is None:
        note = f"no evaluation: {name} does not say which environment it is of"
        return _Found(None, RETURN, notes=(note,))
    notes = [
        f"evaluated in {found.env_name} ({simulator_versions(found.env_name)}), as {name} says"
    ]
    low, high = found.ref_min, found.ref_max
    if low is None or high is None or low == high:
        notes.append(f"no normalised score: {name} has no reference scores; the return is reported")
        return _Found(MinariMaker(path), RETURN, notes=tuple(notes))
    notes.append(_reference_note(low, high, "the dataset"))
    return _Found(MinariMaker(path), NORMALISED, (low, high), tuple(notes))


def _gymnasium(name: str, _repeat: int, _folder: Any, _download: bool) -> _Found:
    note = f"evaluated in {name} ({simulator_versions(name)})"
    return _Found(GymnasiumMaker(name), RETURN, notes=(note,))


def _none(_name: str, _repeat: int, _folder: Any, _download: bool) -> _Found:
    return _Found(None, RETURN, notes=("no evaluation: a file of data, without an environment",))


_FINDERS = {OGBENCH: _ogbench, D4RL: _d4rl, MINARI: _minari, GYMNASIUM: _gymnasium, NONE: _none}


def simulator_versions(name: str) -> str:
    """The versions of what one of gymnasium's environments runs on here, for people."""
    from .environments import find_spec

    known = find_spec(name)
    entry = str(known.entry_point) if known is not None else ""
    packages = {"gymnasium": ""}
    if "robotics" in entry:
        packages["gymnasium-robotics"] = ""
    if "robotics" in entry or "mujoco" in entry:
        packages["mujoco"] = "MuJoCo"
    return ", ".join(
        f"{title or package} {installed_version(package)}" for package, title in packages.items()
    )


def _measured(name: str, action_repeat: int, found: _Found) -> tuple[Task, Any]:
    task = Task(
        name=name,
        action_repeat=action_repeat,
        observation_dim=0,
        action_dim=0,
        max_episode_steps=None,
        make_env=found.make_env,
        score_name=found.score_name,
        reference=found.reference,
        notes=found.notes,
        environments_together=found.environments_together,
    )
    if found.make_env is None:
        return task, None
    with contextlib.closing(found.make_env(None)) as env:
        limit = None if env.spec is None else env.spec.max_episode_steps
        box = env.unwrapped.action_space
        measured = dataclasses.replace(
            task,
            observation_dim=int(env.observation_space.shape[0]),
            action_dim=int(env.action_space.shape[0]),
            max_episode_steps=None if limit is None else math.ceil(limit / action_repeat),
        )
        return measured, (box.low, box.high)


def check_sizes(task: Task, dataset: Dataset) -> None:
    """Check that data and environment have the same sizes.

    Raises:
        VGFError: they have not.
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

"""The training loop: the same for every backend, resumable at any update.

Everything random is a pure function of (seed, step): the batch's indices (vgf/data/dataset.py),
the update's noise in the backend, an episode's noise in the evaluation. So the state of a run is
the agent's state alone, and a run that is stopped and resumed equals one that never stopped. Online
(vgf/runs/online.py) the file of collected transitions is part of that state.

Ctrl-C, SIGTERM and SIGHUP take effect between updates, and between the steps of an evaluation, so
that they leave the state of a complete update with all of its logs; where that takes too long
(vgf/support/interrupts.py), the last complete one. A second Ctrl-C stops at once; the run is then
resumed from its last checkpoint. An evaluation that fails costs nothing either: the agent is saved
before it, with the evaluation still due. What is not finite is never saved.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.base import Backend, Tree
from ..benchmarks.tasks import Task
from ..data.dataset import Dataset, batch_at
from ..data.scaling import Scaling
from ..environments.pool import EnvironmentFault, EnvironmentPool
from ..support.callbacks import Say
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import remove_left_behind
from ..support.interrupts import (
    Interrupted,
    StopRunError,
    completing,
    deferred_interrupt,
    last_resort,
    repeatable,
)
from ..support.locks import only_writer
from ..support.progress import progress, say_line
from .agent import check_agent_checkpoint, evaluate_agent, make_backend
from .checkpoint import (
    CHECKPOINTS,
    CheckpointMeta,
    check_checkpoint,
    check_settings,
    flatten,
    latest_step,
    list_steps,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from .config import RunConfig, deciding
from .evaluation import make_pool
from .folder import CONFIG, create_run_folder, record_environment
from .log import METRICS, RunLog
from .online import Collector, buffer_sizes, check_online
from .scores import policy_titles
from .start import check_start, starting_point
from .task import load_task
from .updates import Reply, Request, Training, drive

# Squares of rewards beyond this, in a loss of float32, leave no room for what training adds.
LARGE_REWARD = 1e6


def prepare(config: RunConfig) -> tuple[RunConfig, Backend, Task]:
    """What runs of `config` share, whatever their seeds; writes only data.

    Returns:
        The configuration with the backend's name and dtype as found here, so that the run is
        resumed or repeated on the same ones; the backend; the task with its data.

    Raises:
        VGFError: what is wrong with the request, or not installed.
    """
    for package in ("tomli_w", "safetensors.numpy", "matplotlib", "filelock"):
        need(package, "run")
    if sys.stderr.isatty():
        need("tqdm", "run")
    if config.logging.tensorboard:
        need("tensorboardX", "tensorboard")
    if config.logging.wandb:
        need("wandb", "wandb")
    if config.logging.trackio:
        need("trackio", "trackio")
    backend = make_backend(config.backend)
    try:
        backend.check_method(config.agent)
    except ValueError as error:
        raise VGFError(str(error)) from error
    found = dataclasses.replace(config.backend, name=backend.name, dtype=backend.dtype)
    task = load_task(config, with_dataset=_needs_data(config))
    check_online(config.online, task)
    return dataclasses.replace(config, backend=found), backend, task


def _needs_data(config: RunConfig) -> bool:
    """Whether there are updates on offline data, or observations to scale by them."""
    if config.online.scratch:
        return False
    started = config.start.run is not None and not config.train.steps
    return not (started and config.online.mixing == "wsrl")


def train(
    config: RunConfig,
    folder: Path,
    resume: bool = False,
    say: Say = say_line,
    prepared: tuple[RunConfig, Backend, Task] | None = None,
) -> Path:
    """Train one agent and leave a run folder.

    Args:
        config: with one seed.
        folder: to make, or to continue.
        resume: continue from the folder's last checkpoint, or from the start if it has none.
        say: takes a line for the person at the terminal.
        prepared: what :func:`prepare` returned for this configuration, apart from seed and folder.

    Returns:
        The run folder.

    Raises:
        as :func:`train_together`.
    """
    train_together({folder: config}, {folder} if resume else set(), say, prepared)
    return folder


def train_together(
    runs: Mapping[Path, RunConfig],
    resume: Container[Path] = (),
    say: Say = say_line,
    prepared: tuple[RunConfig, Backend, Task] | None = None,
    over: Container[Path] = (),
) -> None:
    """Train agents that differ only in their seeds, their offline updates side by side.

    Args:
        runs: for each run, the folder to make or continue, and the configuration with one seed.
            All that began together are given again to continue some of them, in the same order.
        resume: the folders to continue: from the last checkpoint, or from the start.
        say: takes a line for the person at the terminal.
        prepared: what :func:`prepare` returned for this configuration, apart from seed and folder.
        over: the folders of those that are finished, which are left alone.

    Raises:
        VGFError: what is wrong with the request, before anything is written; or training that
            diverged.
        Interrupted: Ctrl-C, after a checkpoint was written.
        KeyboardInterrupt: Ctrl-C twice, or before the first update.
        FailedRuns: several runs, some of which failed; the others went on to their ends.

    A new run that fails before its first row or checkpoint leaves no folder.
    """
    first = next(iter(runs.values()))
    prepared = prepared or prepare(first)
    _, backend, task = prepared
    evaluation = first.evaluation
    with (
        deferred_interrupt() as check_interrupt,
        nullcontext()
        if task.make_env is None
        else make_pool(
            task,
            evaluation.episodes,
            evaluation.num_envs,
            evaluation.workers,
            evaluation.step_timeout,
        ) as pool,
    ):
        drive(
            backend,
            [
                None
                if folder in over
                else _training(
                    config,
                    folder,
                    folder in resume,
                    say,
                    prepared,
                    pool,
                    check_interrupt,
                    f"{number} of {len(runs)}",
                )
                for number, (folder, config) in enumerate(runs.items(), 1)
            ],
        )


def _training(
    config: RunConfig,
    folder: Path,
    resume: bool,
    say: Say,
    prepared: tuple[RunConfig, Backend, Task],
    pool: EnvironmentPool | None,
    check_interrupt: Callable[[], None],
    place: str,
) -> Training:
    """The training of one run, from start to end; see :mod:`vgf.runs.updates`.

    `place` is which it is of those computed side by side, such as "1 of 4".
    """
    settled, backend, task = prepared
    config = dataclasses.replace(config, backend=settled.backend)
    with ExitStack() as stack:
        if resume:
            stack.enter_context(only_writer(folder))
            remove_left_behind(folder)
            remove_left_behind(folder / CHECKPOINTS, alone=True)  # the writer of the run is
        else:
            check_start(config)
            config = dataclasses.replace(config, start=starting_point(config, config.seed))
        going_on = resume and latest_step(folder) is not None
        point, scaling = (
            _continue(config, folder, backend, task, say, place)
            if going_on
            else _begin(config, backend, task)
        )
        data = None if task.dataset is None else task.dataset.source
        score = None if task.make_env is None else task.score_name
        facts = {
            "backend": backend.name,
            "device": backend.device,
            "dtype": backend.dtype,
            "data": data,
            "score": score,
            "notes": list(task.notes),
        }
        if resume:
            record_environment(folder, config, facts)
        else:
            create_run_folder(folder, config, facts)
            stack.enter_context(only_writer(folder))
        say(f"run folder: {folder}")
        for line in _introduced(config, backend, task):
            say(line)
        if resume:
            say(f"continuing after {_done(config, point, of=True)}")
        try:
            with RunLog(
                folder, config, point.step if resume else None, point.due, point.environment_steps
            ) as log:
                yield from _Loop(
                    config, folder, backend, task, scaling, log, say, pool, check_interrupt, place
                ).run(point)
        except BaseException:
            if not resume and latest_step(folder) is None and not _has_rows(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _introduced(config: RunConfig, backend: Backend, task: Task) -> Iterator[str]:
    """What a run is about to do, one line each."""
    if task.dataset is None:
        yield f"task: {task.name}, no offline data"
    else:
        yield f"task: {task.name}, {len(task.dataset):,} transitions"
        yield _ends(task.dataset)
    if task.notes:
        yield task.described()
    rough = backend.matmul_precision
    products = "" if rough == "float32" else f", products in {rough},"
    yield (
        f"backend: {backend.name} {backend.dtype}{products} on {backend.device}; seed {config.seed}"
    )
    if config.start.run is not None:
        yield f"starting from {config.start.run} after {config.start.checkpoint:,} updates"
    online = config.online
    if online.steps:
        acting = " with random actions" if online.acts_randomly else ""
        yield (
            f"online: {online.steps:,} environment steps after {config.train.steps:,} updates, "
            f"mixing {online.mixing}, {online.warmup_steps:,} of warm-up{acting}"
        )
        capacity, added = buffer_sizes(online, task.dataset)
        if capacity < added:
            yield (
                f"of {added:,} transitions the replay buffer holds the latest {capacity:,} "
                "(--buffer-size)"
            )


def _ends(dataset: Dataset) -> str:
    """How the trajectories of a data set end, in words."""
    ends, done = dataset.terminals != 0, dataset.masks == 0
    return (
        f"{int(ends.sum()):,} trajectories: {int(done.sum()):,} terminals (done, mask 0), "
        f"{int((ends & ~done).sum()):,} timeouts (cut)"
    )


def _has_rows(folder: Path) -> bool:
    path = folder / f"{METRICS}.jsonl"
    return path.exists() and path.stat().st_size > 0


@dataclasses.dataclass
class _Point:
    """Where a run is.

    Args:
        state: of the agent.
        step: updates done, including those of the checkpoint that the run started from.
        environment_steps: taken online.
        due: the evaluation of this point is still to be made.
    """

    state: Tree
    step: int = 0
    environment_steps: int = 0
    due: bool = False


def _done(config: RunConfig, point: _Point, of: bool = False) -> str:
    """What was done, in words; with `of`, out of what total."""
    whole = f" of {config.updates:,}" if of else ""
    text = f"{point.step:,}{whole} updates"
    if not config.online.steps:
        return text
    whole = f" of {config.online.steps:,}" if of else ""
    return f"{text} and {point.environment_steps:,}{whole} environment steps"


def _begin(config: RunConfig, backend: Backend, task: Task) -> tuple[_Point, Scaling]:
    """A new agent, or that of the run to start from; and its scaling."""
    due = not config.train.steps  # a run that goes online at once is evaluated first
    if config.start.run is None:
        sizes = task.observation_dim, task.action_dim
        state = backend.init_state(config.seed, *sizes, config.agent)
        if config.online.scratch:
            return _Point(state, due=due), Scaling(None, None)
        if task.dataset is None:
            raise VGFError(f"{task.name} has no data")
        return _Point(state, due=due), Scaling.of(task.dataset, config.task.standardise)
    start = Path(config.start.run)
    tree, meta = _load(config, start, config.start.checkpoint, backend, task)
    tree["seed"] = np.asarray(config.seed, np.int32)
    point = _Point(backend.asarray(tree), meta.step, due=due)
    return point, Scaling.from_json(meta.extra["scaling"])


def _continue(
    config: RunConfig, folder: Path, backend: Backend, task: Task, say: Say, place: str
) -> tuple[_Point, Scaling]:
    """The last checkpoint of a run that is not damaged, and its agent's scaling."""
    tree, meta = _load(config, folder, None, backend, task, say)
    now: dict[str, Any] = {"transitions": 0 if task.dataset is None else len(task.dataset)}
    if task.dataset is not None and config.start.run is None:
        now["scaling"] = Scaling.of(task.dataset, config.task.standardise).to_json()
        if "data" in meta.extra:  # not in checkpoints of version 0.1
            now["data"] = task.dataset.fingerprint
    if {key: meta.extra.get(key) for key in now} != now:
        source = task.name if task.dataset is None else task.dataset.source
        raise VGFError(
            f"{source} is not the data that {folder} was trained on; "
            "put them back, or start a new run with --config"
        )
    taken = meta.extra["environment_steps"]
    planned = config.offline_end + config.online.updates_after(taken)
    if meta.step != planned and (taken or meta.step > planned):
        raise VGFError(
            f"{folder / CONFIG}: after {taken:,} environment steps it plans {planned:,} updates, "
            f"and the last checkpoint has {meta.step:,}; undo the change of [train] or [online], "
            "or start a new run with --from"
        )
    check_settings(folder, config, meta)
    before = meta.extra.get("side_by_side", place)  # not in checkpoints of version 0.1
    if backend.rounds_by_place and before != place:
        say(
            f"warning: {folder} was {before} side by side, and goes on as {place}: {backend.name} "
            "rounds otherwise then, so its last bits will not be those of a run that went on as it "
            "began"
        )
    point = _Point(backend.asarray(tree), meta.step, taken, meta.extra["evaluation_due"])
    return point, Scaling.from_json(meta.extra["scaling"])


def _load(
    config: RunConfig,
    folder: Path,
    step: int | None,
    backend: Backend,
    task: Task,
    say: Say | None = None,
) -> tuple[dict[str, Any], CheckpointMeta]:
    """A checkpoint that fits a task and settings; see :func:`load_checkpoint`."""
    tree, meta = load_checkpoint(folder, step, say)
    sizes = task.observation_dim, task.action_dim
    fresh = backend.init_state(config.seed, *sizes, config.agent)
    check_checkpoint(meta, tree, backend.to_numpy(fresh), config.task.env)
    check_agent_checkpoint(folder, meta)
    return tree, meta


def finished(config: RunConfig, folder: Path) -> bool:
    """Whether the run in a folder has nothing left to do.

    Raises:
        VGFError: a last checkpoint that is damaged.
    """
    if (latest_step(folder) or 0) < config.updates:
        return False
    _, meta = load_checkpoint(folder)
    return meta.step >= config.updates and not meta.extra.get("evaluation_due")


class _Loop:
    """The updates and environment steps of one run, and what happens between them."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        backend: Backend,
        task: Task,
        scaling: Scaling,
        log: RunLog,
        say: Say,
        pool: EnvironmentPool | None,
        check_interrupt: Callable[[], None],
        place: str,
    ) -> None:
        self.place = place
        self.config, self.folder, self.backend, self.task = config, folder, backend, task
        self.scaling, self.log, self.say = scaling, log, say
        self.pool, self.check_interrupt = pool, check_interrupt
        self.dataset = None if task.dataset is None else scaling.dataset(task.dataset)

    def run(self, point: _Point) -> Training:
        """From a point to the end."""
        settings, online = self.config.train, self.config.online
        done = (
            point.environment_steps + min(point.step - self.config.offline_end, 0) + settings.steps
        )
        if self.backend.compiles_first and point.step < self.config.offline_end:
            self.say(self._about_compiling(point))
        with (
            self._collector(point) as collector,
            last_resort(lambda: self._save(self.complete, collector)),
            progress(
                settings.steps + online.steps,
                "training",
                "step" if online.steps else "update",
                done,
            ) as bar,
        ):
            self.complete = dataclasses.replace(point)
            try:
                while point.due or point.step < self.config.updates:
                    keep = point.due  # it was due in the checkpoint, which must be saved again
                    if not point.due:
                        if point.step < self.config.offline_end:
                            before = point.step
                            metrics = yield from self._update_offline(point)
                            bar.update(point.step - before)
                        else:
                            with repeatable():
                                metrics = self._update_online(point, collector)
                            bar.update()
                        if self._now(point, settings.log_every):
                            self._log(metrics, point)
                        point.due = self._now(point, settings.evaluate_every)
                        self.complete = dataclasses.replace(point)
                    keep = keep or self._now(point, settings.checkpoint_every)
                    if point.due and self.pool is not None:
                        self._save(point, collector)
                        self._evaluate(point, self.pool, bar.write)
                        if not keep:
                            remove_checkpoint(self.folder, point.step)
                    point.due = False
                    self.complete = dataclasses.replace(point)
                    if keep:
                        self._save(point, collector)
                    self.check_interrupt()
            except EnvironmentFault:
                self._save(self.complete, collector)  # the next start repeats what failed
                raise
            except StopRunError:
                self._save(self.complete, collector)
                raise Interrupted(
                    f"stopped after {_done(self.config, self.complete)}; continue with: "
                    f"vgf run --resume {self.folder}"
                ) from None

    def _about_compiling(self, point: _Point) -> str:
        """What the first update waits for, and what there would be without."""
        assert self.dataset is not None  # as in _update_offline
        eager = make_backend(dataclasses.replace(self.config.backend, eager=True))
        size, settings = self.config.train.batch_size, self.config.agent
        batch = eager.asarray(batch_at(self.dataset, self.config.seed, point.step, size))
        eager.synchronise(eager.update(point.state, batch, settings))  # to warm up
        start = time.perf_counter()
        eager.synchronise(eager.update(point.state, batch, settings))
        rate = 1 / (time.perf_counter() - start)
        return (
            "compiling the update, half a minute or more the first time and a few seconds later; "
            f"--eager starts at once, with about {rate:.3g} updates a second"
        )

    def _collector(self, point: _Point) -> AbstractContextManager[Collector | None]:
        if not self.config.online.steps:
            return nullcontext()
        return Collector(
            self.config,
            self.folder,
            self.backend,
            self.task,
            self.dataset,
            self.scaling,
            self.log,
            point.environment_steps,
            self.say,
        )

    def _update_offline(self, point: _Point) -> Generator[Request, Reply, Tree]:
        """Updates in one call, up to where anything else is due.

        Returns:
            The metrics of the last.
        """
        settings = self.config.train
        stops = (settings.log_every, settings.evaluate_every, settings.checkpoint_every)
        limit = min(
            self.config.offline_end - point.step, *(every - point.step % every for every in stops)
        )
        assert self.dataset is not None  # otherwise _begin and _continue would have raised
        reply = yield Request(
            point.state,
            self.config.agent,
            self.dataset,
            self.config.seed,
            point.step,
            limit,
            settings.batch_size,
        )
        point.state = reply.state
        point.step += reply.count
        return reply.metrics

    def _update_online(self, point: _Point, collector: Collector | None) -> Tree:
        """One environment step and its updates.

        Returns:
            The metrics of the last update, if there was one.
        """
        metrics: Tree = {}
        if collector is not None:
            collector.step(point.state, point.step)
            point.environment_steps = collector.taken
            for _ in range(self._updates(point)):
                batch = collector.batch(point.step, self.config.train.batch_size)
                metrics = self._update(point, batch)
        return metrics

    def _updates(self, point: _Point) -> int:
        """The updates of the environment step that was just taken."""
        online = self.config.online
        return online.updates_per_step if point.environment_steps > online.warmup_steps else 0

    def _update(self, point: _Point, batch: Mapping[str, np.ndarray]) -> Tree:
        point.state, metrics = self.backend.update(
            point.state, self.backend.asarray(batch), self.config.agent
        )
        point.step += 1
        return metrics

    def _now(self, point: _Point, every: int) -> bool:
        """Whether something done at intervals and at the end of each phase is due.

        Intervals are counted in updates offline, in environment steps online; online, nothing is
        done while the agent does not change.
        """
        taken = point.environment_steps
        if taken:
            over = taken == self.config.online.steps
            return self._updates(point) > 0 and (taken % every == 0 or over)
        return point.step % every == 0 or point.step == self.config.offline_end

    def _log(self, metrics: Tree, point: _Point) -> None:
        values = {name: float(x) for name, x in self.backend.to_numpy(metrics).items()}
        self.log.metrics(point.step, self._counted(point) | values)
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise self._diverged(wrong, point)

    def _diverged(self, wrong: Sequence[str], point: _Point) -> VGFError:
        """What to say of numbers that became NaN or infinite."""
        kept = [step for step in list_steps(self.folder) if step < point.step]
        good = f"the checkpoint of step {kept[-1]} is good" if kept else "no checkpoint was kept"
        rewards = 0.0 if self.dataset is None else float(np.abs(self.dataset.rewards).max())
        if rewards > LARGE_REWARD:
            way_out = f"rewards of up to {rewards:.3g} are the likely cause: scale them down"
        else:
            way_out = "lower --learning-rate or --step-size"
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return VGFError(
            f"training diverged: {', '.join(wrong[:3])}{more} not finite after {point.step} "
            f"updates; {way_out} ({self.folder} keeps the logs; {good})"
        )

    def _counted(self, point: _Point) -> dict[str, Any]:
        """What counts the rows of a run with an online phase, besides updates."""
        online = self.config.online.steps
        return {"environment_steps": point.environment_steps} if online else {}

    def _evaluate(self, point: _Point, pool: EnvironmentPool, write: Say) -> None:
        with repeatable():
            found = evaluate_agent(
                self.backend,
                point.state,
                self.config.agent,
                self.task,
                self.scaling,
                self.config.evaluation,
                self.config.seed,
                pool,
                self.check_interrupt,
            )
        counted = self._counted(point)
        self.log.evaluations(point.step, [{**record, **counted} for record in found.records])
        scores = "  ".join(
            f"{f'L={label}' if label.isdigit() else policy_titles(label)[0]} {score.value:.2f}"
            for score in found.summaries
            for label in (str(score.budget),)
        )
        taken = f"  {point.environment_steps:,} steps" if point.environment_steps else ""
        write(f"{point.step:>9,} updates{taken}  {self.task.score_name}  {scores}")

    def _save(self, point: _Point, collector: Collector | None) -> None:
        """Save a point.

        Raises:
            VGFError: something in it is not finite, or it cannot be written.
        """
        tree = self.backend.to_numpy(point.state)
        arrays = flatten(tree)
        wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if wrong:
            raise self._diverged(wrong, point)
        with completing():
            if collector is not None:
                collector.sync()
            save_checkpoint(
                self.folder,
                point.step,
                tree,
                {
                    "evaluation_due": point.due,
                    "scaling": self.scaling.to_json(),
                    "transitions": 0 if self.dataset is None else len(self.dataset),
                    "data": "" if self.task.dataset is None else self.task.dataset.fingerprint,
                    "environment_steps": point.environment_steps,
                    "observation_dim": self.task.observation_dim,
                    "action_dim": self.task.action_dim,
                    "config": deciding(self.config),
                    "side_by_side": self.place,
                },
                task=self.config.task.env or self.task.name,
                settings=self.config.agent,
            )

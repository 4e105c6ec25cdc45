"""The training loop: the same for every backend, resumable at any update.

Everything random is a pure function of (seed, step): the batch's indices (vgf/data/dataset.py),
the update's noise in the backend, an episode's noise in the evaluation. So the state of a run is
the agent's state and nothing else, and a run that stops and goes on equals one that never stopped.
Online (vgf/runs/online.py) that holds with the file of what was collected beside it.

Ctrl-C is heard between updates, and between the steps of an evaluation, so that what it leaves is
the state of a whole update with all of its logs. A second Ctrl-C stops at once; the run then goes
on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from .acting import agent_policy
from ..backends import default_backend, get_backend
from ..backends.base import Backend, Tree
from .checkpoint import CONFIG, CheckpointMeta, check_checkpoint, checkpoint_path, create_run_folder, latest_step, load_checkpoint, open_run_folder, record_environment, save_checkpoint
from .config import BackendSettings, EvaluationSettings, RunConfig, settings_hash
from ..environments.pool import EnvironmentPool
from ..support.processes import usable_cores
from ..data.scaling import Scaling
from ..support.errors import VGFError
from .evaluation import Evaluation, evaluate, make_pool
from ..support.extras import need
from .log import METRICS, POLICIES, RunLog, progress, shown_progress
from .online import Collector, check_online
from ..spec.settings import Budget, Settings
from .start import check_start, starting_point
from ..benchmarks.tasks import Task, make_task
from .updates import Interrupted, Reply, Request, Run, StopRunError, drive

BEHAVIOUR_CLONING = "bc"
# What a checkpoint of an agent has beside it.
_EXTRA = (
    "scaling",
    "transitions",
    "environment_steps",
    "evaluation_due",
    "observation_dim",
    "action_dim",
)

Say = Callable[[str], None]


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back; yields a function that raises where it was pressed before.

    A second Ctrl-C interrupts at once. In another thread than the main one, or where Ctrl-C is
    ignored or handled otherwise already, this changes nothing.
    """
    asked = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    def check() -> None:
        if asked:
            raise StopRunError

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, hold)
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def say_line(line: str) -> None:
    """Print a line, at once even into a file."""
    print(line, flush=True)


def make_backend(settings: BackendSettings, training: bool = True) -> Backend:
    """The backend that a run asks for; in training, compiled unless `eager`.

    Raises:
        BackendError: as :func:`vgf.backends.get_backend`.
    """
    name = settings.name or default_backend()
    options: dict[str, Any] = {}
    if name == "torch":
        options["compile"] = training and not settings.eager
    elif name == "jax":
        options["jit"] = not settings.eager
        options["cores"] = usable_cores() if training else 1
    return get_backend(
        settings.name,
        device=settings.device,
        dtype=settings.dtype,
        matmul_precision=settings.matmul_precision,
        **options,
    )


def test_budgets(agent: Settings, steps: tuple[int, ...]) -> dict[str, Budget]:
    """The budgets that an agent is evaluated at, by their labels.

    One sample of behaviour cloning ("bc") comes first, then each L_test with the training
    budget's other settings; L_test = 0 is best-of-N. A method that moves no particles has one
    sample of its policy alone, under the method's name.
    """
    if not agent.transports:
        return {agent.method: agent.budget}
    budgets = {BEHAVIOUR_CLONING: dataclasses.replace(agent.budget, steps=0)}
    return budgets | {str(n): dataclasses.replace(agent.budget, steps=n) for n in steps}


def evaluate_agent(
    backend: Backend,
    state: Tree,
    agent: Settings,
    task: Task,
    scaling: Scaling,
    settings: EvaluationSettings,
    seed: int,
    pool: EnvironmentPool,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate an agent at its test budgets: the same start states and noise for each.

    Args:
        backend, state: the agent.
        agent: its settings.
        task: whose environments `pool` holds.
        scaling: of its observations.
        settings: budgets, episodes and particles.
        seed: of the episodes.
        pool: of environments of the task.
        check: called before every step; what it raises ends the evaluation.
    """
    particles = settings.particles or agent.particles
    budgets = test_budgets(agent, settings.steps)
    several = agent_policy(backend, state, agent, scaling, particles)
    single = agent_policy(backend, state, agent, scaling, 1)

    def policy(
        observations: np.ndarray, budget: str, noise: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, Mapping[str, Any]]:
        check()
        return (several if budget.isdigit() else single)(observations, budgets[budget], noise)

    shown = 0
    with progress(settings.episodes * len(budgets), "evaluating", "episode") as bar:

        def advance(_: str, done: int, __: int) -> None:
            nonlocal shown
            bar.update(done - shown)
            shown = done

        found = evaluate(
            policy,
            task,
            {label: label for label in budgets},
            particles=particles,
            episodes=settings.episodes,
            seed=seed,
            pool=pool,
            progress=advance,
        )
    for record in found.records:
        if record["budget"].isdigit():
            record["budget"] = int(record["budget"])  # type: ignore[typeddict-item]
    return found


def load_task(config: RunConfig, with_dataset: bool = True) -> Task:
    """The task of a run, its data generated or downloaded where they are not there.

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
            with_dataset=with_dataset,
            progress=show,
            say=say_line,
        )


def prepare(config: RunConfig) -> tuple[RunConfig, Backend, Task]:
    """What runs of `config` share whatever their seeds; writes nothing but data.

    Returns:
        The configuration with the backend's name and dtype as they were found here, so that a run
        goes on, or is made again, on the same; the backend; the task with its data.

    Raises:
        VGFError: what is wrong with the request, or not installed.
    """
    for package in ("tomli_w", "safetensors.numpy", "matplotlib"):
        need(package, "run")
    if sys.stderr.isatty():
        need("tqdm", "run")
    if config.logging.tensorboard:
        need("tensorboardX", "tensorboard")
    if config.logging.wandb:
        need("wandb", "wandb")
    backend = make_backend(config.backend)
    found = dataclasses.replace(config.backend, name=backend.name, dtype=backend.dtype)
    task = load_task(config, with_dataset=_needs_data(config))
    check_online(config.online, task)
    return dataclasses.replace(config, backend=found), backend, task


def _needs_data(config: RunConfig) -> bool:
    """Whether there are updates on offline data, or observations to be scaled by them."""
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
        folder: to make, or to go on with.
        resume: go on from the folder's last checkpoint, or from the start if it has none.
        say: takes a line for the person at the terminal.
        prepared: what :func:`prepare` made of this configuration, its seed and folder aside.

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
) -> None:
    """Train agents that differ in their seeds alone, their offline updates side by side.

    Args:
        runs: the folder to make or to go on with, and the configuration with one seed, of each.
        resume: the folders to go on with: from the last checkpoint, or from the start.
        say: takes a line for the person at the terminal.
        prepared: what :func:`prepare` made of this configuration, its seed and folder aside.

    Raises:
        VGFError: what is wrong with the request, before anything is written; or training that
            diverged.
        Interrupted: Ctrl-C, after a checkpoint was written.
        KeyboardInterrupt: Ctrl-C twice, or before the first update.

    A new run that fails before it has anything to show leaves no folder.
    """
    first = next(iter(runs.values()))
    prepared = prepared or prepare(first)
    _, backend, task = prepared
    plans = first.evaluation
    with (
        deferred_interrupt() as check,
        nullcontext()
        if task.make_env is None
        else make_pool(task, plans.episodes, plans.num_envs, plans.workers) as pool,
    ):
        drive(
            backend,
            [
                _training(config, folder, folder in resume, say, prepared, pool, check)
                for folder, config in runs.items()
            ],
        )


def _training(
    config: RunConfig,
    folder: Path,
    resume: bool,
    say: Say,
    prepared: tuple[RunConfig, Backend, Task],
    pool: EnvironmentPool | None,
    check: Callable[[], None],
) -> Run:
    """One run from its start to its end; see :mod:`vgf.runs.updates`."""
    settled, backend, task = prepared
    config = dataclasses.replace(config, backend=settled.backend)
    if not resume:
        check_start(config)
        config = dataclasses.replace(config, start=starting_point(config, config.seed))
    going_on = resume and latest_step(folder) is not None
    point, scaling = (
        _continue(config, folder, backend, task) if going_on else _begin(config, backend, task)
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
    say(f"run folder: {folder}")
    for line in _introduced(config, backend, task):
        say(line)
    if resume:
        say(f"going on after {_done(config, point, of=True)}")
    try:
        with RunLog(
            folder, config, point.step if resume else None, point.due, point.environment_steps
        ) as log:
            yield from _Loop(config, folder, backend, task, scaling, log, say, pool, check).run(
                point
            )
    except BaseException:
        if not resume and latest_step(folder) is None and not _has_rows(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _introduced(config: RunConfig, backend: Backend, task: Task) -> Iterator[str]:
    """What a run is about to do, a line each."""
    data = "no offline data" if task.dataset is None else f"{len(task.dataset):,} transitions"
    yield f"task: {task.name}, {data}"
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
        yield (
            f"online: {online.steps:,} environment steps after {config.train.steps:,} updates, "
            f"mixing {online.mixing}, {online.warmup_steps:,} of warm-up"
        )


def _has_rows(folder: Path) -> bool:
    path = folder / f"{METRICS}.jsonl"
    return path.exists() and path.stat().st_size > 0


@dataclasses.dataclass
class _Point:
    """Where a run is.

    Args:
        state: of the agent.
        step: updates done, those of the checkpoint that the run started from included.
        environment_steps: taken online.
        due: the evaluation of this point is still to be made.
    """

    state: Tree
    step: int = 0
    environment_steps: int = 0
    due: bool = False


def _done(config: RunConfig, point: _Point, of: bool = False) -> str:
    """What was done, in words; `of` how much."""
    whole = f" of {config.updates:,}" if of else ""
    text = f"{point.step:,}{whole} updates"
    if not config.online.steps:
        return text
    whole = f" of {config.online.steps:,}" if of else ""
    return f"{text} and {point.environment_steps:,}{whole} environment steps"


def _begin(config: RunConfig, backend: Backend, task: Task) -> tuple[_Point, Scaling]:
    """A new agent, or the one of the run to start from; and its scaling."""
    due = not config.train.steps  # what goes online at once is evaluated first
    if config.start.run is None:
        if task.dataset is None:
            raise VGFError(f"{task.name} has no data")
        sizes = task.observation_dim, task.action_dim
        state = backend.init_state(config.seed, *sizes, config.agent)
        return _Point(state, due=due), Scaling.of(task.dataset, config.task.standardise)
    tree, meta = _load(config, Path(config.start.run), config.start.checkpoint, backend, task)
    tree["seed"] = np.asarray(config.seed, np.int32)
    point = _Point(backend.asarray(tree), meta.step, due=due)
    return point, Scaling.from_json(meta.extra["scaling"])


def _continue(
    config: RunConfig, folder: Path, backend: Backend, task: Task
) -> tuple[_Point, Scaling]:
    """The last checkpoint of a run, and its agent's scaling."""
    tree, meta = _load(config, folder, None, backend, task)
    if meta.settings_hash != settings_hash(config.agent):
        raise VGFError(
            f"{folder / CONFIG}: its [agent] is not what the checkpoint of step {meta.step} was "
            "trained with; undo the change, or start a new run by --config"
        )
    now: dict[str, Any] = {"transitions": 0 if task.dataset is None else len(task.dataset)}
    if config.start.run is None and task.dataset is not None:
        now["scaling"] = Scaling.of(task.dataset, config.task.standardise).to_json()
    if {key: meta.extra.get(key) for key in now} != now:
        source = task.name if task.dataset is None else task.dataset.source
        raise VGFError(
            f"{source} is not the data that {folder} was trained on; "
            "put them back, or start a new run by --config"
        )
    taken = meta.extra["environment_steps"]
    planned = config.offline_end + config.online.updates_after(taken)
    if meta.step != planned and (taken or meta.step > planned):
        raise VGFError(
            f"{folder / CONFIG}: after {taken:,} environment steps it plans {planned:,} updates, "
            f"and the last checkpoint has {meta.step:,}; undo the change of [train] or [online], "
            "or start a new run by --from"
        )
    point = _Point(backend.asarray(tree), meta.step, taken, meta.extra["evaluation_due"])
    return point, Scaling.from_json(meta.extra["scaling"])


def _load(
    config: RunConfig, folder: Path, step: int | None, backend: Backend, task: Task
) -> tuple[dict[str, Any], CheckpointMeta]:
    """A checkpoint that fits a task and settings."""
    tree, meta = load_checkpoint(folder, step)
    sizes = task.observation_dim, task.action_dim
    fresh = backend.init_state(config.seed, *sizes, config.agent)
    check_checkpoint(meta, tree, backend.to_numpy(fresh), config.task.env)
    _check_extra(folder, meta)
    return tree, meta


def _check_extra(folder: Path, meta: CheckpointMeta) -> None:
    """Check that a checkpoint is one of a run's agent."""
    missing = [key for key in _EXTRA if key not in meta.extra]
    if missing:
        raise VGFError(
            f"{checkpoint_path(folder, meta.step)} lacks {', '.join(missing)}; it is no agent's"
        )


def finished(config: RunConfig, folder: Path) -> bool:
    """Whether the run in a folder has nothing left to do.

    Raises:
        VGFError: a last checkpoint that is damaged.
    """
    if (latest_step(folder) or 0) < config.updates:
        return False
    _, meta = load_checkpoint(folder)
    return not meta.extra.get("evaluation_due")


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
        check: Callable[[], None],
    ) -> None:
        self.config, self.folder, self.backend, self.task = config, folder, backend, task
        self.scaling, self.log, self.say = scaling, log, say
        self.pool, self.check = pool, check
        self.dataset = None if task.dataset is None else scaling.dataset(task.dataset)

    def run(self, point: _Point) -> Run:
        """From a point to the end."""
        plan, online = self.config.train, self.config.online
        done = point.environment_steps + min(point.step - self.config.offline_end, 0) + plan.steps
        with (
            self._collector(point) as collector,
            progress(
                plan.steps + online.steps, "training", "step" if online.steps else "update", done
            ) as bar,
        ):
            try:
                while point.due or point.step < self.config.updates:
                    keep = point.due  # it was due in a checkpoint, to say no longer that it is
                    if not point.due:
                        if point.step < self.config.offline_end:
                            before = point.step
                            metrics = yield from self._update_offline(point)
                            bar.update(point.step - before)
                        else:
                            metrics = self._update_online(point, collector)
                            bar.update()
                        if self._now(point, plan.log_every):
                            self._log(metrics, point)
                        point.due = self._now(point, plan.evaluate_every)
                    if point.due and self.pool is not None:
                        self._evaluate(point, self.pool, bar.write)
                    point.due = False
                    if keep or self._now(point, plan.checkpoint_every):
                        self._save(point, collector)
                    self.check()
            except StopRunError:
                self._save(point, collector)
                raise Interrupted(
                    f"stopped after {_done(self.config, point)}; go on with: "
                    f"vgf run --resume {self.folder}"
                ) from None

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
        """As many updates as can be made in one call, up to where anything else is due.

        Returns:
            The metrics of the last.
        """
        plan = self.config.train
        stops = (plan.log_every, plan.evaluate_every, plan.checkpoint_every)
        limit = min(
            self.config.offline_end - point.step, *(every - point.step % every for every in stops)
        )
        assert self.dataset is not None  # or _begin and _continue would have said so
        reply = yield Request(
            point.state,
            self.config.agent,
            self.dataset,
            self.config.seed,
            point.step,
            limit,
            plan.batch_size,
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
        """Whether it is time for what is done every so often, and at the end of each phase.

        Offline that is counted in updates. Online it is counted in environment steps, and nothing
        is done while the agent is as it was.
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
            raise VGFError(
                f"training diverged: {', '.join(wrong)} not finite after {point.step} updates; "
                f"lower --learning-rate or --step-size ({self.folder} keeps the logs)"
            )

    def _counted(self, point: _Point) -> dict[str, Any]:
        """What tells the rows of a run that goes online apart, besides their updates."""
        online = self.config.online.steps
        return {"environment_steps": point.environment_steps} if online else {}

    def _evaluate(self, point: _Point, pool: EnvironmentPool, write: Say) -> None:
        found = evaluate_agent(
            self.backend,
            point.state,
            self.config.agent,
            self.task,
            self.scaling,
            self.config.evaluation,
            self.config.seed,
            pool,
            self.check,
        )
        counted = self._counted(point)
        self.log.evaluations(point.step, [{**record, **counted} for record in found.records])
        scores = "  ".join(
            f"{POLICIES.get(s.budget, (f'L={s.budget}',))[0]} {s.score:.2f}"
            for s in found.summaries
        )
        taken = f"  {point.environment_steps:,} steps" if point.environment_steps else ""
        write(f"{point.step:>9,} updates{taken}  {self.task.score_name}  {scores}")

    def _save(self, point: _Point, collector: Collector | None) -> None:
        if collector is not None:
            collector.sync()
        save_checkpoint(
            self.folder,
            point.step,
            self.backend.to_numpy(point.state),
            {
                "evaluation_due": point.due,
                "scaling": self.scaling.to_json(),
                "transitions": 0 if self.dataset is None else len(self.dataset),
                "environment_steps": point.environment_steps,
                "observation_dim": self.task.observation_dim,
                "action_dim": self.task.action_dim,
            },
            task=self.config.task.env or self.task.name,
            settings=self.config.agent,
        )


def load_agent(
    folder: Path, backend: Backend, step: int | None = None
) -> tuple[Tree, Scaling, RunConfig, int]:
    """An agent out of a run folder, on any backend.

    Returns:
        Its state, the scaling of its observations, the run's configuration, and its updates.

    Raises:
        VGFError: as :func:`vgf.runs.checkpoint.load_checkpoint`, or a checkpoint that does not fit
            the folder's configuration.
    """
    config = open_run_folder(folder)
    tree, meta = load_checkpoint(folder, step)
    _check_extra(folder, meta)
    sizes = meta.extra["observation_dim"], meta.extra["action_dim"]
    expected = backend.to_numpy(backend.init_state(0, *sizes, config.agent))
    check_checkpoint(meta, tree, expected, config.task.env)
    return backend.asarray(tree), Scaling.from_json(meta.extra["scaling"]), config, meta.step

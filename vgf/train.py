"""The training loop: the same for every backend, resumable at any update.

Everything random is a pure function of (seed, step): the batch's indices here, the update's noise
in the backend, an episode's noise in the evaluation. So the state of a run is the agent's state
and nothing else, and a run that stops and goes on equals one that never stopped.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from .backends import default_backend, get_backend
from .backends.base import Backend, Tree
from .checkpoint import (
    CONFIG,
    check_checkpoint,
    checkpoint_path,
    create_run_folder,
    latest_step,
    load_checkpoint,
    open_run_folder,
    record_environment,
    save_checkpoint,
)
from .config import BackendSettings, EvaluationSettings, RunConfig, settings_hash
from .data.dataset import Dataset, standardise
from .data.pool import EnvironmentPool
from .errors import VGFError
from .evaluate import Evaluation, environments_together, evaluate, make_pool
from .extras import need
from .metrics import METRICS, POLICIES, RunLog, progress, shown_progress
from .spec.settings import Budget, Settings
from .tasks import Task, make_task

# Separates the random numbers that pick batches from those of the update (vgf/spec/update.py).
BATCHES = 3
BEHAVIOUR_CLONING = "bc"

Say = Callable[[str], None]


class Interrupted(VGFError):  # noqa: N818  (it is what happened, not what went wrong)
    """The run was stopped from the keyboard."""


class _StopError(Exception):
    """Ctrl-C was heard where the run can stop."""


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
            raise _StopError

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
    return get_backend(
        settings.name,
        device=settings.device,
        dtype=settings.dtype,
        matmul_precision=settings.matmul_precision,
        **options,
    )


class Scaling:
    """Observations as the networks see them: shifted and scaled by the data's statistics, or not.

    Args:
        mean, std: ``[o]``, or None to leave observations alone.
    """

    def __init__(self, mean: np.ndarray | None, std: np.ndarray | None) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def of(cls, dataset: Dataset, config: RunConfig) -> Scaling:
        """The scaling of a run's data."""
        if not config.task.standardise:
            return cls(None, None)
        return cls(dataset.observation_mean, dataset.observation_std)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        if self.mean is None or self.std is None:
            return observations
        return standardise(observations, self.mean, self.std)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint, so that it acts without its data."""
        if self.mean is None or self.std is None:
            return {}
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scaling:
        """As :meth:`to_json` wrote it."""
        if not value:
            return cls(None, None)
        return cls(np.asarray(value["mean"], np.float32), np.asarray(value["std"], np.float32))


def batch_at(dataset: Dataset, seed: int, step: int, size: int) -> dict[str, np.ndarray]:
    """The batch of one update, with replacement: a pure function of seed and step.

    Args:
        dataset: of M transitions.
        seed, step: of the run and of the update.
        size: B.
    """
    rows = np.random.default_rng([seed, BATCHES, step]).integers(0, len(dataset), size)
    return {
        "observations": dataset.observations[rows],
        "actions": dataset.actions[rows],
        "rewards": dataset.rewards[rows],
        "masks": dataset.masks[rows],
        "next_observations": dataset.next_observations[rows],
    }


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

    def policy(
        observations: np.ndarray, budget: str, noise: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, Mapping[str, Any]]:
        check()
        count = particles if budget.isdigit() else 1
        chosen = {"particles": noise["particles"][:, :count], "select": noise["select"]}
        actions, info = backend.act(
            state,
            backend.asarray(scaling(observations)),
            budgets[budget],
            agent,
            noise=backend.asarray(chosen),
        )
        moved = {key: backend.to_numpy(info[key]) for key in ("start", "moved")}
        return np.asarray(backend.to_numpy(actions)), moved

    shown = 0
    with progress(settings.episodes * len(budgets), "evaluating", "episode") as bar:

        def advance(_: str, done: int, __: int) -> None:
            nonlocal shown
            bar.update(done - shown)
            shown = done

        found = evaluate(
            policy, task, {label: label for label in budgets}, particles=particles,
            episodes=settings.episodes, seed=seed, pool=pool, progress=advance,
        )  # fmt: skip
    for record in found.records:
        if record["budget"].isdigit():
            record["budget"] = int(record["budget"])  # type: ignore[typeddict-item]
    return found


def load_task(config: RunConfig, with_dataset: bool = True) -> Task:
    """The task of a run, its data generated or downloaded where they are not there.

    Raises:
        VGFError: as :func:`vgf.tasks.make_task`.
    """
    with shown_progress("episode") as show:
        return make_task(
            config.task.env,
            config.task.action_repeat,
            config.task.data_dir,
            config.task.data_episodes,
            data=config.task.data,
            normalise_rewards=config.task.normalise_rewards,
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
    return dataclasses.replace(config, backend=found), backend, load_task(config)


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
        VGFError: what is wrong with the request, before anything is written; or training that
            diverged.
        Interrupted: Ctrl-C, after a checkpoint was written.
        KeyboardInterrupt: Ctrl-C twice, or before the first update.

    A new run that fails before it has anything to show leaves no folder.
    """
    settled, backend, task = prepared or prepare(config)
    config = dataclasses.replace(config, backend=settled.backend)
    dataset = task.dataset
    if dataset is None:
        raise VGFError(f"{task.name} has no data")
    scaling = Scaling.of(dataset, config)
    dataset = dataclasses.replace(
        dataset,
        observations=scaling(dataset.observations),
        next_observations=scaling(dataset.next_observations),
    )
    state = backend.init_state(config.seed, task.observation_dim, task.action_dim, config.agent)
    score = None if task.make_env is None else task.score_name
    facts = {"backend": backend.name, "device": backend.device, "dtype": backend.dtype,
             "data": dataset.source, "score": score, "notes": list(task.notes)}  # fmt: skip
    step, due = 0, False
    if resume:
        step, state, due = _continue(config, folder, backend, state, dataset, scaling)
        record_environment(folder, config, facts)
    else:
        create_run_folder(folder, config, facts)
    say(f"run folder: {folder}")
    say(f"task: {task.name}, {len(dataset):,} transitions")
    if task.notes:
        say(task.described())
    say(f"backend: {backend.name} {backend.dtype} on {backend.device}; seed {config.seed}")
    if resume:
        say(f"going on after {step:,} of {config.train.steps:,} updates")
    try:
        last = step if resume else None
        with RunLog(folder, config, last_step=last, evaluation_due=due) as log:
            loop = _Loop(config, folder, backend, task, dataset, scaling, log)
            loop.run(state, step, due)
    except BaseException:
        if not resume and latest_step(folder) is None and not _has_rows(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _has_rows(folder: Path) -> bool:
    path = folder / f"{METRICS}.jsonl"
    return path.exists() and path.stat().st_size > 0


def _continue(
    config: RunConfig,
    folder: Path,
    backend: Backend,
    fresh: Tree,
    dataset: Dataset,
    scaling: Scaling,
) -> tuple[int, Tree, bool]:
    """Step and state to go on from, and whether an evaluation of that step was cut off."""
    if latest_step(folder) is None:
        return 0, fresh, False
    tree, meta = load_checkpoint(folder)
    check_checkpoint(meta, tree, backend.to_numpy(fresh), config.task.env)
    if meta.settings_hash != settings_hash(config.agent):
        raise VGFError(
            f"{folder / CONFIG}: its [agent] is not what the checkpoint of step {meta.step} was "
            "trained with; undo the change, or start a new run by --config"
        )
    now = {"scaling": scaling.to_json(), "transitions": len(dataset)}
    if {key: meta.extra.get(key) for key in now} != now:
        raise VGFError(
            f"{dataset.source} is not the data that {folder} was trained on; "
            "put them back, or start a new run by --config"
        )
    return meta.step, backend.asarray(tree), bool(meta.extra.get("evaluation_due"))


def finished(config: RunConfig, folder: Path) -> bool:
    """Whether the run in a folder has nothing left to do.

    Raises:
        VGFError: a last checkpoint that is damaged.
    """
    if (latest_step(folder) or 0) < config.train.steps:
        return False
    _, meta = load_checkpoint(folder)
    return not meta.extra.get("evaluation_due")


class _Loop:
    """The updates of one run, and what happens between them."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        backend: Backend,
        task: Task,
        dataset: Dataset,
        scaling: Scaling,
        log: RunLog,
    ) -> None:
        self.config, self.folder, self.backend, self.task = config, folder, backend, task
        self.dataset, self.scaling, self.log = dataset, scaling, log

    def run(self, state: Tree, step: int, due: bool) -> None:
        """From `step` to the end; `due` if the evaluation of `step` is still to be made."""
        plan = self.config.train
        environments = self.config.evaluation
        together = environments_together(environments.episodes, environments.num_envs)
        with (
            deferred_interrupt() as check,
            nullcontext()
            if self.task.make_env is None
            else make_pool(self.task, together, environments.workers) as pool,
            progress(plan.steps, "training", "update", done=step) as bar,
        ):
            try:
                while due or step < plan.steps:
                    keep = due  # it was due in a checkpoint, which is to say no longer that it is
                    if not due:
                        batch = batch_at(self.dataset, self.config.seed, step, plan.batch_size)
                        state, metrics = self.backend.update(
                            state, self.backend.asarray(batch), self.config.agent
                        )
                        step += 1
                        bar.update()
                        if step % plan.log_every == 0 or step == plan.steps:
                            self._log(metrics, step)
                        due = step % plan.evaluate_every == 0 or step == plan.steps
                    if due and pool is not None:
                        self._evaluate(state, step, pool, bar.write, check)
                    due = False
                    if keep or step % plan.checkpoint_every == 0 or step == plan.steps:
                        self._save(state, step)
                    check()
            except _StopError:
                self._save(state, step, due)
                raise Interrupted(
                    f"stopped after {step:,} updates; go on with: vgf run --resume {self.folder}"
                ) from None

    def _log(self, metrics: Tree, step: int) -> None:
        values = {name: float(x) for name, x in self.backend.to_numpy(metrics).items()}
        self.log.metrics(step, values)
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise VGFError(
                f"training diverged: {', '.join(wrong)} not finite after {step} updates; lower "
                f"--learning-rate or --step-size ({self.folder} keeps the logs)"
            )

    def _evaluate(
        self, state: Tree, step: int, pool: EnvironmentPool, write: Say, check: Callable[[], None]
    ) -> None:
        found = evaluate_agent(
            self.backend, state, self.config.agent, self.task, self.scaling,
            self.config.evaluation, self.config.seed, pool, check,
        )  # fmt: skip
        self.log.evaluations(step, found.records)
        scores = "  ".join(
            f"{POLICIES.get(s.budget, (f'L={s.budget}',))[0]} {s.score:.2f}"
            for s in found.summaries
        )
        write(f"{step:>9,} updates  {self.task.score_name}  {scores}")

    def _save(self, state: Tree, step: int, due: bool = False) -> None:
        save_checkpoint(
            self.folder,
            step,
            self.backend.to_numpy(state),
            {"evaluation_due": due, "scaling": self.scaling.to_json(),
             "transitions": len(self.dataset),
             "observation_dim": self.task.observation_dim, "action_dim": self.task.action_dim},
            task=self.config.task.env,
            settings=self.config.agent,
        )  # fmt: skip


def load_agent(
    folder: Path, backend: Backend, step: int | None = None
) -> tuple[Tree, Scaling, RunConfig, int]:
    """An agent out of a run folder, on any backend.

    Returns:
        Its state, the scaling of its observations, the run's configuration, and its updates.

    Raises:
        VGFError: as :func:`vgf.checkpoint.load_checkpoint`, or a checkpoint that does not fit
            the folder's configuration.
    """
    config = open_run_folder(folder)
    tree, meta = load_checkpoint(folder, step)
    missing = [key for key in ("observation_dim", "action_dim", "scaling") if key not in meta.extra]
    if missing:
        raise VGFError(
            f"{checkpoint_path(folder, meta.step)} lacks {', '.join(missing)}; it is no agent's"
        )
    sizes = meta.extra["observation_dim"], meta.extra["action_dim"]
    expected = backend.to_numpy(backend.init_state(0, *sizes, config.agent))
    check_checkpoint(meta, tree, expected, config.task.env)
    return backend.asarray(tree), Scaling.from_json(meta.extra["scaling"]), config, meta.step

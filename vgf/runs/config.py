"""Every setting of a run, in one tree of frozen dataclasses.

The command's flags (vgf/runs/flags.py), the TOML files and the run folder's record are all made
from this tree: a setting has one name from the command line to the equation.
vgf/support/settings_tree.py walks it, and vgf/runs/resolve.py says where its values come from.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..backends import BACKENDS, parse_device
from ..backends.base import DTYPES, MATMUL_PRECISIONS
from ..benchmarks.base import SUCCESS_TIMINGS
from ..data.npz import DATA_MEMORY
from ..methods import method_names
from ..spec.settings import Budget, Network, Settings, method_settings
from ..support.checks import check, check_choice, check_whole
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import write_atomically
from ..support.settings_tree import Setting, settings_of, short_hash, to_dict
from ..support.statistics import RETURN, SUCCESS

DEMO_ENV = "pointmaze-medium-navigate-singletask-task1-v0"
DEMO_METHOD = "vgf"
SCORES = ("auto", SUCCESS, RETURN)
FOLLOW = ("authors", "equations")  # where they differ, see vgf/runs/presets


@dataclass(frozen=True)
class TaskSettings:
    """The task and its data.

    Args:
        env: the task's name, as OGBench, D4RL, Minari or gymnasium spells it; none trains on a
            file of data alone, without a simulator and without evaluation.
        data: a file of data, .npz or .hdf5; none finds the data by the task's name.
        action_repeat: simulator steps for which every decision is held, in the data and in
            evaluation alike; above 1 in OGBench's pointmaze only.
        normalise_rewards: multiply rewards by 1000 / (max return - min return) over the data's
            trajectories, as is usual for D4RL; not where their returns are all equal.
        standardise: shift and scale observations by the data's mean and standard deviation.
        qlearning_dataset: load a D4RL file as ``d4rl.qlearning_dataset`` does, and the authors'
            code after it: rows at timeouts and the file's last row are dropped, s' is the next
            row's s, and the range of returns counts these rows, split at terminals and after 1,000
            rows but not at timeouts. Off: rows at timeouts count, and are kept where the file has
            their next_observations.
        action_clip_eps: clip the data's actions to +-(1 - this); none is 1e-5 for D4RL, as usual,
            and no clipping elsewhere. The authors' code clips OGBench's by 1e-5 too.
        success_timing: when OGBench tests success, which gives the reward and ends the episode:
            "pre", in the state before the step, as in its data and its environments since 1.2;
            "post", in the state after it, as in its environments up to 1.1, which the authors used;
            none is the installed package's. The data's rewards are the same with both.
        data_dir: the folder of data sets; none is the benchmark's own.
        mirror: an address to download data from before all others: of a folder, or with {file} for
            the file's name. VGF_DATA_MIRRORS in the environment names more.
        offline: never download data; VGF_OFFLINE=1 in the environment does the same.
        data_episodes: episodes of data to generate; none is the benchmark's number.
        data_memory: "memory", or "mapped" to leave the states of a .npz file on disk and read what
            is used (actions, rewards and ends stay in memory); auto maps what would take more than
            half of the free memory.
        trust_data_code: make the environment by the code that a Minari data set itself names (its
            entry point, wrappers and arguments), which can do anything; without it, only what an
            installed package has registered under the data set's name for it.
        score: what an episode's score is: "success", as the environment's info says it, or
            "return"; auto is the benchmark's own.
        n_step: steps that a transition of the data spans: rewards are summed with the agent's
            discount, up to the end of the task or of the trajectory.
        action_chunk: steps for which one decision gives an action each, taken one after the other
            without looking, in the data and in evaluation alike; the critic and the policy are of
            chunks, and transitions span one.

    Raises:
        ValueError: a setting out of its range, named.
    """

    env: str | None = DEMO_ENV
    data: str | None = None
    action_repeat: int = 8
    normalise_rewards: bool = False
    standardise: bool = True
    qlearning_dataset: bool = False
    action_clip_eps: float | None = None
    success_timing: str | None = None
    data_dir: str | None = None
    mirror: str | None = None
    offline: bool = False
    data_episodes: int | None = None
    data_memory: str = "auto"
    trust_data_code: bool = False
    score: str = "auto"
    n_step: int = 1
    action_chunk: int = 1

    def __post_init__(self) -> None:
        check(self.env is None or bool(self.env.strip()), "env is empty; name a task")
        check(self.data is None or bool(self.data.strip()), "data is empty; name a file")
        for name in ("action_repeat", "n_step", "action_chunk"):
            check_whole(name, getattr(self, name), 1)
        check(
            self.action_chunk == 1 or self.n_step in (1, self.action_chunk),
            f"n_step {self.n_step} contradicts action_chunk {self.action_chunk}, whose transitions "
            "span a chunk; drop n_step",
        )
        if self.data_episodes is not None:
            check_whole("data_episodes", self.data_episodes, 1)
        check_choice("data_memory", self.data_memory, DATA_MEMORY)
        check_choice("score", self.score, SCORES)
        eps = self.action_clip_eps
        check(eps is None or 0 <= eps < 1, f"action_clip_eps is {eps}; it must be in [0, 1)")
        check_choice("success_timing", self.success_timing, SUCCESS_TIMINGS)


@dataclass(frozen=True)
class TrainSettings:
    """The training loop, counted in updates.

    Args:
        steps: updates on the offline data; 0 skips them, in a run that starts from another run's
            checkpoint or goes online.
        batch_size: transitions in one update.
        log_every: updates between two rows of metrics; online, environment steps.
        evaluate_every: updates between two evaluations; the last update is always evaluated.
            Online, environment steps, from the first update on.
        checkpoint_every: updates between two checkpoints; the last update is always kept. Online,
            environment steps.

    Raises:
        ValueError: a setting out of its range, named.
    """

    steps: int = 20_000
    batch_size: int = 256
    log_every: int = 500
    evaluate_every: int = 5_000
    checkpoint_every: int = 5_000

    def __post_init__(self) -> None:
        for entry in fields(self):
            check_whole(entry.name, getattr(self, entry.name), 0 if entry.name == "steps" else 1)


SCRATCH = "scratch"
MIXINGS = ("iql", "rlpd", "wsrl", SCRATCH)
WARMUP_ACTIONS = ("agent", "random")
_WARMUP = 5_000


@dataclass(frozen=True)
class OnlineSettings:
    """Training that continues in the environment, after the updates on the offline data.

    Args:
        steps: environment steps (decisions) to take; 0 trains offline only.
        mixing: where the batches come from. "iql": a replay buffer that starts with the offline
            data. "rlpd": half the offline data, half the replay buffer. "wsrl": the replay buffer,
            of collected transitions only. "scratch": the same with a new agent, without any offline
            data: no offline updates, and observations and rewards as they are.
        warmup: environment steps before the first update; the step after them is the first to be
            followed by one. none is 5000, or a tenth of the steps if that is less.
        warmup_actions: what acts until the first of these updates: "agent", as offline training
            left it, or "random", uniform in the box of actions; none is "random" for mixing
            "scratch", and "agent" otherwise.
        updates_per_step: updates after each environment step.
        buffer_size: transitions in the replay buffer, including the offline data of "iql"; once it
            is full, the newest replace the oldest, the data first. Data that fill it have one more
            place.
        collect_steps: L_test while collecting; none is L_train. The authors' code collects at 0.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    steps: int = 0
    mixing: str = "iql"
    warmup: int | None = None
    warmup_actions: str | None = None
    updates_per_step: int = 1
    buffer_size: int = 3_000_000
    collect_steps: int | None = None

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 0)
        check_choice("mixing", self.mixing, MIXINGS)
        check_choice("warmup_actions", self.warmup_actions, WARMUP_ACTIONS)
        for name in ("updates_per_step", "buffer_size"):
            check_whole(name, getattr(self, name), 1)
        for name in ("warmup", "collect_steps"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0)
        check(
            not self.steps or self.warmup_steps < self.steps,
            f"warmup {self.warmup} leaves no update in {self.steps} environment steps; lower "
            "warmup, or take more steps; following the authors sets theirs",
        )

    @property
    def warmup_steps(self) -> int:
        """The environment steps before the first update."""
        return min(_WARMUP, self.steps // 10) if self.warmup is None else self.warmup

    @property
    def acts_randomly(self) -> bool:
        """Whether actions are random until the first update."""
        return (self.warmup_actions or ("random" if self.scratch else "agent")) == "random"

    @property
    def scratch(self) -> bool:
        """Whether there are no offline data."""
        return self.steps > 0 and self.mixing == SCRATCH

    @property
    def updates(self) -> int:
        """The updates of all environment steps."""
        return self.updates_after(self.steps)

    def updates_after(self, steps: int) -> int:
        """The updates of the first `steps` environment steps."""
        return max(0, steps - self.warmup_steps) * self.updates_per_step


@dataclass(frozen=True)
class StartSettings:
    """The checkpoint of another run that a run starts from.

    Args:
        run: the run folder whose checkpoint to start from, of any backend; none is a new agent.
        checkpoint: which of its checkpoints, by its updates; none is the last one.

    Raises:
        ValueError: a checkpoint without a run, or a negative one.
    """

    run: str | None = None
    checkpoint: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            check_whole("checkpoint", self.checkpoint, 0)
        check(
            self.checkpoint is None or self.run is not None,
            "checkpoint belongs to the run that this one starts from; name it with start.run",
        )


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluation of one agent at several test budgets, from the same start states.

    Args:
        steps: test budgets: numbers of flow steps L_test; 0 is best-of-N.
        episodes: episodes for each test budget.
        particles: N at test time; none is the training N.
        num_envs: environments stepped together; none is one for each episode, at most 50, or at
            most 20 with OGBench's robot arm, which needs much memory.
        workers: processes the environments are spread over; none is one on each core, with at
            least two environments each; 0 steps them in this process.
        step_timeout: seconds that one step or reset of an environment may take, online too; none
            is no limit. A process whose environment takes longer is ended.
        retries: how often an episode is tried again, in a fresh process, after its environment took
            too long or ended the process.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    steps: tuple[int, ...] = (0, 1, 2, 3)
    episodes: int = 50
    particles: int | None = None
    num_envs: int | None = None
    workers: int | None = None
    step_timeout: float | None = 300.0
    retries: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        check(bool(self.steps), "steps is empty; give at least one test budget")
        for steps in self.steps:
            check_whole("steps", steps, 0)
        check(
            len(set(self.steps)) == len(self.steps),
            f"steps {list(self.steps)} names a test budget twice; drop one",
        )
        check_whole("episodes", self.episodes, 1)
        for name in ("particles", "num_envs"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        if self.workers is not None:
            check_whole("workers", self.workers, 0)
        if self.step_timeout is not None:
            check(
                self.step_timeout > 0.0, f"step_timeout is {self.step_timeout}; it must be above 0"
            )
        check_whole("retries", self.retries, 0)
        together = self.episodes if self.num_envs is None else self.num_envs
        check(
            (self.workers or 0) <= together,
            f"workers {self.workers} is more than the {together} environments stepped together; "
            "lower workers",
        )


@dataclass(frozen=True)
class BackendSettings:
    """Which backend computes, and how precisely.

    Args:
        name: the backend: "numpy", "torch" or "jax"; none is VGF_BACKEND, or the fastest here.
        device: auto, cpu, gpu or gpu:<index>.
        dtype: "float32" or "float64"; none is float32, and float64 for numpy.
        matmul_precision: of matrix products: "float32", "tf32" or "bf16".
        eager: run operation by operation, without compiling.

    Raises:
        ValueError: a setting out of its choices, or a contradiction, named.
    """

    name: str | None = None
    device: str = "auto"
    dtype: str | None = None
    matmul_precision: str = "float32"
    eager: bool = False

    def __post_init__(self) -> None:
        check_choice("name", self.name, BACKENDS)
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        parse_device(self.device)
        check(
            self.matmul_precision == "float32" or self.dtype != "float64",
            f"matmul_precision {self.matmul_precision!r} contradicts dtype 'float64'; change one",
        )


@dataclass(frozen=True)
class LoggingSettings:
    """Logs besides the CSV and JSONL files, which are always written.

    Args:
        tensorboard: write TensorBoard event files into the run folder.
        wandb: log to Weights & Biases, offline unless WANDB_MODE says otherwise.
        trackio: log to Trackio, on this machine, without an account.
    """

    tensorboard: bool = False
    wandb: bool = False
    trackio: bool = False


def demo_agent(method: str = DEMO_METHOD) -> Settings:
    """The agent of the default run: small networks, for two cores and a few minutes.

    `method` brings the settings of its authors' form, as
    :func:`vgf.spec.settings.method_settings` has it; what they chose task by task, such as
    L_train and epsilon, stays as in the default run. The baselines move no particles. FQL, which
    is there to be compared with, is its authors' as a whole, sizes of its networks included.
    """
    authors = method_settings(method)
    if authors.declared.own_sizes:
        return authors
    plain: Any = {entry.name: getattr(Settings(), entry.name) for entry in fields(Settings)}
    changed: dict[str, Any] = {}
    for entry in fields(authors):
        value = getattr(authors, entry.name)
        if isinstance(value, Network):
            changed[entry.name] = replace(value, hidden=(64, 64, 64))
        elif entry.name not in _DEMO or value != plain[entry.name]:
            changed[entry.name] = value
    changed["budget"] = Budget(
        steps=1 if authors.transports else 0,
        step_size=0.3,
        temperature=1.0 if authors.budget.temperature else None,
        clip_norm=authors.budget.clip_norm,
    )
    if ":" in authors.method:  # what your own method says of itself is all there is to go by
        changed |= {name: getattr(authors, name) for name in authors.declared.defaults}
    agent: Settings = Settings(**{**_DEMO, **changed})
    return agent


# The default run's own settings of an agent, unless a method says otherwise.
_DEMO: dict[str, Any] = {"sampling_steps": 5, "particles": 5, "discount": 0.98, "polyak": 0.02}


@dataclass(frozen=True)
class RunConfig:
    """A run. The defaults are those of ``vgf run`` without a flag.

    Args:
        preset: a task of the paper, whose settings the run starts from; none is the default run.
        quick: a first look: a tenth of the updates and environment steps that the run would have,
            evaluated once, at their end, over 20 episodes; files and flags that say otherwise win.
        follow: "authors" or "equations", in the settings in which the authors' code departs from
            the equations; none is the authors with a preset, and the equations without one.
        task: the task and its data.
        agent: the method's settings.
        train: the training loop.
        online: environment steps after it.
        start: the checkpoint to start from.
        evaluation: the test budgets.
        backend: which backend computes.
        logging: logs besides CSV and JSONL.
        seed: the first seed; it fixes every random number of a run.
        seeds: number of runs, with seeds seed, seed + 1, ...
        together: train the seeds side by side, in JAX in one compiled program (on a CPU shared out
            between its cores), instead of one after another; needs the memory of all of them.
        out: the run folder, which must not exist yet; none is a new one under runs/.

    Raises:
        ValueError: a setting out of its range, named.
    """

    preset: str | None = None
    quick: bool = False
    follow: str | None = None
    task: TaskSettings = field(default_factory=TaskSettings)
    agent: Settings = field(default_factory=demo_agent)
    train: TrainSettings = field(default_factory=TrainSettings)
    online: OnlineSettings = field(default_factory=OnlineSettings)
    start: StartSettings = field(default_factory=StartSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    backend: BackendSettings = field(default_factory=BackendSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    seed: int = 0
    seeds: int = 1
    together: bool = False
    out: str | None = None

    def __post_init__(self) -> None:
        check_choice("follow", self.follow, FOLLOW)
        check_whole("seed", self.seed, 0)
        check_whole("seeds", self.seeds, 1)
        check(
            self.seed + self.seeds <= 2**31,
            f"seed {self.seed} is too large: of {self.seeds} in a row, the last must be below 2^31",
        )
        check(
            not self.online.collect_steps or self.agent.transports,
            f"method {self.agent.method!r} moves no particles; collect_steps must be 0 or none",
        )
        if self.online.scratch:
            check(
                self.start.run is None,
                "mixing 'scratch' is of a new agent; to go on from another run's use 'wsrl'",
            )
            check(
                self.train.steps == 0,
                f"mixing 'scratch' has no offline data for steps {self.train.steps}; set steps to "
                "0, or use 'wsrl'",
            )
            check(
                self.task.data is None,
                f"mixing 'scratch' reads no data, and data is {self.task.data}; drop data, or use "
                "'iql'",
            )
            check(
                not self.task.normalise_rewards,
                "mixing 'scratch' has no data whose returns rewards could be normalised by; drop "
                "normalise_rewards",
            )

        for name in ("n_step", "action_chunk"):
            check(
                not self.online.steps or getattr(self.task, name) == 1,
                f"{name} {getattr(self.task, name)} is of offline data; online, transitions are of "
                f"one step, so {name} must be 1",
            )

    @property
    def offline_end(self) -> int:
        """The updates done when the offline part ends, including the checkpoint's."""
        return (self.start.checkpoint or 0) + self.train.steps

    @property
    def updates(self) -> int:
        """The updates done when the run ends, including the checkpoint's."""
        return self.offline_end + self.online.updates


def default_config(env: str | None = DEMO_ENV, method: str = DEMO_METHOD) -> RunConfig:
    """What a run of `env` by `method` starts from, before its preset, TOML file and flags.

    Only the default task holds its actions for several simulator steps; every other task is
    the benchmark's own, with action_repeat 1. The agent is :func:`demo_agent`'s.
    """
    task = TaskSettings() if env == DEMO_ENV else TaskSettings(env=env, action_repeat=1)
    return RunConfig(task=task, agent=demo_agent(method))


def shortened(config: RunConfig) -> RunConfig:
    """The same run at a tenth of its length, for a first look; see :class:`RunConfig`, quick."""
    train, online = config.train, config.online
    steps = max(1, train.steps // 10)
    return replace(
        config,
        train=replace(
            train,
            steps=steps,
            log_every=max(1, train.log_every // 10),
            evaluate_every=steps,
            checkpoint_every=steps,
        ),
        online=replace(online, steps=online.steps // 10),
        evaluation=replace(config.evaluation, episodes=min(20, config.evaluation.episodes)),
    )


# What may change while a run is continued: where things are, how much of the same is done, and what
# changes no number.
_FREE = (
    "preset",
    "quick",
    "out",
    "seeds",
    "together",
    "task.data",
    "task.data_dir",
    "task.data_memory",
    "task.trust_data_code",
    "train.steps",
    "train.checkpoint_every",
    "online.steps",
    "start.run",
    "evaluation.num_envs",
    "evaluation.workers",
    "evaluation.step_timeout",
    "evaluation.retries",
    "backend.device",
    "backend.eager",
)


def deciding(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's numbers, by their keys, in JSON's types.

    Those of the agent, which has a hash of its own, and those that may change are left out.
    """
    return {
        setting.key: list(setting.default)
        if isinstance(setting.default, tuple)
        else setting.default
        for setting in settings_of(config)
        if setting.key not in _FREE and not setting.key.startswith(("agent.", "logging."))
    }


def check_unchanged(config: RunConfig, before: Any, path: Path, step: int) -> None:
    """Check that a run is continued with the settings that it was begun with.

    Args:
        config: of the run, from `path`.
        before: what :func:`deciding` gave when the checkpoint of `step` was saved; None in those of
            version 0.1. Settings that are only in one of the two are not compared.

    Raises:
        VGFError: a setting that decides results has changed.
    """
    now = deciding(config)
    for key, value in before.items() if isinstance(before, dict) else ():
        if key in now and now[key] != value:
            raise VGFError(
                f"{path}: {key} is {now[key]!r}, and the checkpoint of step {step} was made with "
                f"{value!r}; undo the change, or start a new run with --config or --from"
            )


def all_settings(config: Any = None) -> Iterator[Setting]:
    """Every setting of a tree, in order, with its values as defaults.

    Args:
        config: the tree; None is the default run's, together with the additional settings of every
            known method.
    """
    return iter(_of_methods(tuple(method_names()))) if config is None else settings_of(config)


@functools.cache
def _of_methods(names: tuple[str, ...]) -> tuple[Setting, ...]:
    """The settings of the default run of each of some methods, those of a table together."""
    tables = [entry.name for entry in fields(RunConfig)]
    found: dict[str, Setting] = {}
    for name in (DEMO_METHOD, *names):
        for setting in settings_of(default_config(method=name)):
            found.setdefault(setting.key, setting)
    return tuple(sorted(found.values(), key=lambda s: tables.index(s.key.partition(".")[0])))


def dump_config(config: RunConfig) -> str:
    """The whole configuration as TOML; :func:`vgf.runs.resolve.load_config` gives it back exactly.

    Raises:
        VGFError: the package that writes TOML is missing.
    """
    return str(need("tomli_w", "run").dumps(to_dict(config)))


def save_config(config: RunConfig, path: Path | str) -> None:
    """Write :func:`dump_config` to `path`, atomically."""
    write_atomically(path, dump_config(config))


def settings_hash(settings: Settings) -> str:
    """A short name for the agent's settings: the same for equal settings, on every machine."""
    return short_hash(to_dict(settings))

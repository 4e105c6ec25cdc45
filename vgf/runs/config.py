"""Every setting of a run, in one tree of frozen dataclasses.

The command's flags (vgf/runs/flags.py), the TOML files and the run folder's record are all made from
this tree: a setting has one name from the command line to the equation. Defaults give way to the
preset (vgf/presets/), the preset to the TOML file, and the file to the flags. Help texts are the
docstrings' own ``Args:``.

In TOML and in flags, where there is no null, ``None`` is spelled "none".
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from ..backends import BACKENDS, parse_device
from ..backends.base import DTYPES, MATMUL_PRECISIONS
from ..data.npz import DATA_MEMORY
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import write_atomically
from ..methods import method_names
from ..spec.settings import Budget, Network, Settings, method_settings

DEMO_ENV = "pointmaze-medium-navigate-singletask-task1-v0"
NONE = "none"

T = TypeVar("T")


def check(condition: bool, message: str) -> None:
    """Raise ValueError with the message if a condition does not hold."""
    if not condition:
        raise ValueError(message)


def check_whole(name: str, value: int, low: int) -> None:
    """Raise ValueError if a setting is below its least value."""
    check(value >= low, f"{name} is {value}; it must be {low} or more")


def check_choice(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Raise ValueError if a setting is none of its choices, naming the nearest of them."""
    if value is not None and value not in choices:
        near = nearest(value, choices)
        hint = f"did you mean {near!r}?" if near else f"choose one of {', '.join(choices)}"
        raise ValueError(f"{name} is {value!r}; {hint}")


@dataclass(frozen=True)
class TaskSettings:
    """The task and its data.

    Args:
        env: the task's name, as OGBench, D4RL, Minari or gymnasium spells it; none trains on a
            file of data alone, without a simulator and without evaluation.
        data: a file of data, .npz or .hdf5; none finds the data by the task's name.
        action_repeat: simulator steps that every decision is held for, in the data and in
            evaluation alike; above 1 in OGBench's pointmaze only.
        normalise_rewards: multiply rewards by 1000 / (max return - min return) over the data's
            trajectories, as is done for D4RL.
        standardise: shift and scale observations by the data's mean and standard deviation.
        data_dir: the folder of data sets; none is the benchmark's own.
        data_episodes: episodes of data to generate; none is the benchmark's number.
        data_memory: "memory", or "mapped" to leave a .npz file's data on the disk and read what
            is used; auto maps what would take more than half of the free memory.

    Raises:
        ValueError: a setting out of its range, named.
    """

    env: str | None = DEMO_ENV
    data: str | None = None
    action_repeat: int = 8
    normalise_rewards: bool = False
    standardise: bool = True
    data_dir: str | None = None
    data_episodes: int | None = None
    data_memory: str = "auto"

    def __post_init__(self) -> None:
        check(self.env is None or bool(self.env.strip()), "env is empty; name a task")
        check(self.data is None or bool(self.data.strip()), "data is empty; name a file")
        check_whole("action_repeat", self.action_repeat, 1)
        if self.data_episodes is not None:
            check_whole("data_episodes", self.data_episodes, 1)
        check_choice("data_memory", self.data_memory, DATA_MEMORY)


@dataclass(frozen=True)
class TrainSettings:
    """The training loop, counted in updates.

    Args:
        steps: updates on the offline data; 0 leaves them out, where the run starts from another
            one's checkpoint or goes online.
        batch_size: transitions in one update.
        log_every: updates between two rows of metrics; online, environment steps.
        evaluate_every: updates between two evaluations; the last update is always evaluated.
            Online, environment steps, once updates are made.
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


MIXINGS = ("iql", "rlpd", "wsrl")
_WARMUP = 5_000


@dataclass(frozen=True)
class OnlineSettings:
    """Training goes on in the environment, after the updates on the offline data.

    Args:
        steps: environment steps (decisions) to take; 0 is offline training alone.
        mixing: where the batches come from. "iql": a replay buffer that starts with the offline
            data. "rlpd": half the offline data, half the replay buffer. "wsrl": the replay buffer,
            of collected transitions alone.
        warmup: environment steps before the first update, taken by the agent as it came from
            offline training; none is 5000, or a tenth of the steps where that is less.
        updates_per_step: updates after each environment step.
        buffer_size: transitions in the replay buffer, the offline data of "iql" among them.
        collect_steps: L_test while collecting; none is L_train. The authors' code collects at 0.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    steps: int = 0
    mixing: str = "iql"
    warmup: int | None = None
    updates_per_step: int = 1
    buffer_size: int = 2_000_000
    collect_steps: int | None = None

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 0)
        check_choice("mixing", self.mixing, MIXINGS)
        for name in ("updates_per_step", "buffer_size"):
            check_whole(name, getattr(self, name), 1)
        for name in ("warmup", "collect_steps"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0)
        check(
            not self.steps or self.warmup_steps < self.steps,
            f"warmup {self.warmup} leaves no update in {self.steps} environment steps; lower "
            "warmup, or take more steps",
        )

    @property
    def warmup_steps(self) -> int:
        """The environment steps before the first update."""
        return min(_WARMUP, self.steps // 10) if self.warmup is None else self.warmup

    @property
    def updates(self) -> int:
        """The updates of all environment steps."""
        return self.updates_after(self.steps)

    def updates_after(self, steps: int) -> int:
        """The updates of the first `steps` environment steps."""
        return max(0, steps - self.warmup_steps) * self.updates_per_step


@dataclass(frozen=True)
class StartSettings:
    """The checkpoint of another run that a run starts from; none of it for a new agent.

    Args:
        run: a run folder whose checkpoint to start from, of any backend; none is a new agent.
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
            "checkpoint is of the run that this one starts from, which is not given",
        )


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluation of one agent at several test budgets, from the same start states.

    Args:
        steps: test budgets: numbers of flow steps L_test; 0 is best-of-N.
        episodes: episodes for each test budget.
        particles: N at test time; none is the training N.
        num_envs: environments stepped together; none is one for each episode, 50 at most, and of
            OGBench's robot arm, which takes much memory, 20 at most.
        workers: processes the environments are spread over; none is one on each core, for two
            environments or more each; 0 is this process.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    steps: tuple[int, ...] = (0, 1, 2, 3)
    episodes: int = 50
    particles: int | None = None
    num_envs: int | None = None
    workers: int | None = None

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
        together = self.episodes if self.num_envs is None else self.num_envs
        check(
            (self.workers or 0) <= together,
            f"workers {self.workers} is more than the {together} environments stepped together; "
            "lower workers",
        )


@dataclass(frozen=True)
class BackendSettings:
    """What computes, and how precisely.

    Args:
        name: the backend: "numpy", "torch" or "jax"; none is VGF_BACKEND, or the fastest here.
        device: auto, cpu, gpu or gpu:<index>.
        dtype: "float32" or "float64"; none is float32, and float64 for numpy.
        matmul_precision: of matrix products: "float32", "tf32" or "bf16".
        eager: run operation by operation, without torch.compile or jax.jit.

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
    """

    tensorboard: bool = False
    wandb: bool = False


def demo_agent() -> Settings:
    """The agent of the default run: small networks, for two cores and a few minutes."""
    small = Network(hidden=(64, 64, 64))
    small_normed = replace(small, layer_norm=True)
    return Settings(
        critic=small_normed,
        reference=small,
        gradient_field=small_normed,
        policy=small,
        sampling_steps=5,
        particles=5,
        budget=Budget(steps=1, step_size=0.3, temperature=1.0),
        discount=0.98,
        polyak=0.02,
    )


@dataclass(frozen=True)
class RunConfig:
    """A run. The defaults are those of ``vgf run`` without a flag.

    Args:
        preset: a task of the paper, whose settings the run starts from; none is the default run.
        task: the task and its data.
        agent: the method's settings.
        train: the training loop.
        online: environment steps after it.
        start: the checkpoint to start from.
        evaluation: the test budgets.
        backend: what computes.
        logging: logs besides CSV and JSONL.
        seed: the first seed; it fixes every random number of a run.
        seeds: number of runs, with seeds seed, seed + 1, ...
        together: train the seeds side by side, in JAX in one compiled program, and not one after
            another; takes the memory of all of them.
        out: the run folder, which must not exist; none is a new one under runs/.

    Raises:
        ValueError: a setting out of its range, named.
    """

    preset: str | None = None
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
        check_whole("seed", self.seed, 0)
        check_whole("seeds", self.seeds, 1)
        check(
            self.seed + self.seeds <= 2**31,
            f"seed {self.seed} is too large; the last of {self.seeds} seeds must be below 2^31",
        )
        check(
            not self.online.collect_steps or self.agent.transports,
            f"method {self.agent.method!r} moves no particles; collect_steps must be 0 or none",
        )

    @property
    def offline_end(self) -> int:
        """The updates done when the offline part ends, those of the checkpoint included."""
        return (self.start.checkpoint or 0) + self.train.steps

    @property
    def updates(self) -> int:
        """The updates done when the run ends, those of the checkpoint included."""
        return self.offline_end + self.online.updates


def default_config(env: str | None = DEMO_ENV, method: str = "vgf") -> RunConfig:
    """What a run of `env` starts from, before its TOML file and flags.

    Only the default task holds its actions for several simulator steps; every other task is
    the benchmark's own, with action_repeat 1.

    `method` brings what makes it its authors' form, as
    :func:`vgf.spec.settings.method_settings` has it; what they chose task by task, such as
    L_train and epsilon, stays. The baselines move no particles.
    """
    config = RunConfig()
    authors, plain = method_settings(method), Settings()
    changed = {
        entry.name: getattr(authors, entry.name)
        for entry in fields(Settings)
        if entry.name != "budget" and getattr(authors, entry.name) != getattr(plain, entry.name)
    }
    budget = replace(
        config.agent.budget,
        temperature=config.agent.budget.temperature if authors.budget.temperature else None,
        clip_norm=authors.budget.clip_norm,
        steps=config.agent.budget.steps if authors.transports else 0,
    )
    config = replace(config, agent=replace(config.agent, **changed, budget=budget))
    if env == config.task.env:
        return config
    return replace(config, task=replace(config.task, env=env, action_repeat=1))


# --- the tree, walked ---------------------------------------------------------------------------


class Setting(NamedTuple):
    """One leaf of the tree: its dotted key, type, default and help."""

    key: str
    hint: Any
    default: Any
    help: str


def documented(cls: type) -> dict[str, str]:
    """What the ``Args:`` of a dataclass's docstring say of each field."""
    texts: dict[str, str] = {}
    names: list[str] = []
    section = (cls.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    for line in section.splitlines():
        text = line.strip()
        if len(line) - len(line.lstrip()) <= 8:
            head, _, text = text.partition(":")
            names = [name.strip() for name in head.split(",")]
        for name in names:
            texts[name] = f"{texts.get(name, '')} {text.strip()}".strip()
    return texts


def all_settings(config: Any = None, prefix: str = "") -> Iterator[Setting]:
    """Every setting of the tree, in order; the defaults are those of `config`."""
    config = RunConfig() if config is None else config
    texts = documented(type(config))
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if is_dataclass(value):
            yield from all_settings(value, f"{prefix}{name}.")
        else:
            yield Setting(f"{prefix}{name}", hint, value, texts.get(name, ""))


def nearest(word: str, candidates: Any) -> str | None:
    """The candidate a mistyped word most likely meant: the same last part, or similar letters."""
    candidates = list(candidates)
    last = word.rpartition(".")[2]
    same = [name for name in candidates if name.rpartition(".")[2] == last]
    if len(same) == 1:
        return str(same[0])
    matches = difflib.get_close_matches(word, same or candidates, n=1, cutoff=0.6)
    if matches or same:
        return str((matches or same)[0])
    by_last = {name.rpartition(".")[2]: name for name in reversed(candidates)}
    matches = difflib.get_close_matches(last, by_last, n=1, cutoff=0.7)
    return str(by_last[matches[0]]) if matches else None


def _unknown(key: str, source: str, root: Any) -> VGFError:
    keys = [setting.key for setting in all_settings(root)]
    tables = {key.rpartition(".")[0] for key in keys if "." in key}
    near = nearest(key, [*keys, *sorted(tables)])
    there = f"{'tables' if tables else 'settings'} are {', '.join(sorted(tables) or keys)}"
    hint = f"did you mean {near}?" if near else f"the {there}"
    return VGFError(f"{source}: unknown key {key}; {hint}")


def describe(hint: Any) -> str:
    """A type in words, as in "it must be ..."."""
    if get_origin(hint) is tuple:
        return f"a list, each {describe(get_args(hint)[0])}"
    if NoneType in get_args(hint):
        return f'{describe(_without_none(hint))}, or "{NONE}"'
    return {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}[
        hint
    ]


def _without_none(hint: Any) -> Any:
    return next(part for part in get_args(hint) if part is not NoneType)


def convert(value: Any, hint: Any) -> Any:
    """A value from TOML, a flag or Python, as the type `hint`.

    Raises:
        ValueError: it is of another type; :func:`describe` says which one is meant.
    """
    if get_origin(hint) is tuple:
        check(isinstance(value, list | tuple), "not a list")
        return tuple(convert(part, get_args(hint)[0]) for part in value)
    if NoneType in get_args(hint):
        if value is None or (isinstance(value, str) and value.lower() == NONE):
            return None
        return convert(value, _without_none(hint))
    if hint in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        check(number and math.isfinite(value), "not a finite number")
        check(hint is float or value == int(value), "not whole")
    else:
        check(isinstance(value, hint), "of another type")
        if hint is str:
            value.encode()  # a UnicodeEncodeError is a ValueError: text that no file can hold
    return hint(value)


def override(config: T, values: Mapping[str, Any], source: str, prefix: str = "") -> T:
    """A copy of `config` with some settings changed.

    Args:
        config: a :class:`RunConfig`, one of its tables, or another tree of settings.
        values: nested as the tree is; what it does not name stays.
        source: where the values come from, for the messages.
        prefix: the dotted key of `config`, with its dot, for the messages.

    Raises:
        VGFError: an unknown key, a wrong type, or settings that are out of range or contradict.
    """
    hints, changes = get_type_hints(type(config)), {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise _unknown(key, source, None if prefix else config)
        if is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise VGFError(f"{source}: {key} is {value!r}; it must be a table, [{key}]")
            changes[name] = override(getattr(config, name), value, source, f"{key}.")
            continue
        try:
            changes[name] = convert(value, hints[name])
        except (ValueError, OverflowError) as error:
            message = f"{source}: {key} is {value!r}; it must be {describe(hints[name])}"
            raise VGFError(message) from error
    try:
        return replace(config, **changes)  # type: ignore[type-var]
    except (ValueError, VGFError) as error:
        table = f"[{prefix[:-1]}] " if prefix else ""
        raise VGFError(f"{source}: {table}{error}") from error


# --- TOML ---------------------------------------------------------------------------------------


def to_dict(config: Any) -> dict[str, Any]:
    """A tree of settings as nested dicts that TOML and JSON can hold.

    Raises:
        VGFError: a text that reads as "none", which would come back as None.
    """
    values: dict[str, Any] = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, str) and value.lower() == NONE:
            raise VGFError(f'{entry.name} is {value!r}, which stands for "not set"; use another')
        if is_dataclass(value):
            values[entry.name] = to_dict(value)
        else:
            as_list = list(value) if isinstance(value, tuple) else value
            values[entry.name] = NONE if value is None else as_list
    return values


def dump_config(config: RunConfig) -> str:
    """The whole configuration as TOML; :func:`load_config` gives it back exactly.

    Raises:
        VGFError: the package that writes TOML is missing.
    """
    return str(need("tomli_w", "run").dumps(to_dict(config)))


def save_config(config: RunConfig, path: Path | str) -> None:
    """Write :func:`dump_config` to `path`, atomically."""
    write_atomically(path, dump_config(config))


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        VGFError: a file that is missing, unreadable or not TOML; the message says where.
    """
    toml = need("tomllib", "run") if sys.version_info >= (3, 11) else need("tomli", "run")
    try:
        values: dict[str, Any] = toml.loads(Path(path).read_bytes().decode())
    except FileNotFoundError as error:
        raise VGFError(f"{path}: no such file; give a TOML file of settings") from error
    except OSError as error:
        raise VGFError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise VGFError(f"{path}: not valid TOML: not UTF-8 text") from error
    except toml.TOMLDecodeError as error:
        raise VGFError(f"{path}: not valid TOML: {error}") from error
    return values


def load_config(path: Path | str) -> RunConfig:
    """Read a configuration; what the file does not name is as :func:`default_config` says.

    Raises:
        VGFError: as :func:`read_toml` and :func:`override`; the message names file and key.
    """
    return resolve({}, path)


def resolve(flags: Mapping[str, Any], path: Path | str | None = None) -> RunConfig:
    """Defaults, then the preset, then the TOML file `path`, then `flags` (nested as the tree is).

    The preset is the one that the flags name, or else the file. The defaults are those of the task
    and of the method that are asked for in the end; see :func:`default_config`. With a preset, the
    agent's defaults are the method's own, not the default run's. Where another method than the
    preset's is asked for, the same task's preset of that method is meant; a method that has none
    gets what :meth:`vgf.runs.presets.Preset.settings_for` says.

    Raises:
        VGFError: as :func:`read_toml`, :func:`vgf.runs.presets.find_preset` and :func:`override`.
    """
    file = read_toml(path) if path is not None else {}
    preset = _preset_asked_for(file, flags, str(path))
    layers = (preset.settings if preset else {}, file, flags)
    env = asked_for("task.env", layers, DEMO_ENV)
    method = asked_for("agent.method", layers, "vgf", method_names())
    config = default_config(env, method)
    if preset is not None:
        preset = preset.of_method(method)
        config = replace(config, agent=method_settings(method))
        config = override(config, preset.settings_for(method), f"preset {preset.name}")
    config = override(override(config, file, str(path)), flags, "flags")
    return replace(config, preset=preset.name if preset else None)


def _preset_asked_for(file: Mapping[str, Any], flags: Mapping[str, Any], source: str) -> Any:
    """The :class:`vgf.runs.presets.Preset` that the flags name, or else the file, or None."""
    from .presets import find_preset

    name = (flags if "preset" in flags else file).get("preset")
    where = "--preset" if "preset" in flags else f"{source}: preset"
    if not isinstance(name, str) or name.lower() == NONE:
        return None
    return find_preset(name, where)


def asked_for(
    key: str, layers: Sequence[Mapping[str, Any]], default: str | None, choices: Sequence[str] = ()
) -> Any:
    """What the last of some nested layers of settings says of a key that decides the defaults.

    It is a text, or None where that is what they say. A value that cannot be (no text, none of the
    choices) counts as absent here; :func:`override` is what complains of it.
    """
    *tables, last = key.split(".")
    found = default
    for layer in layers:
        table: Any = layer
        for name in tables:
            table = table.get(name) if isinstance(table, Mapping) else None
        if not isinstance(table, Mapping) or last not in table:
            continue
        value = table[last]
        if choices:
            found = value if value in choices else found
        elif value is None or (isinstance(value, str) and value.strip()):
            found = None if value is None or value.lower() == NONE else value
    return found


def settings_hash(settings: Settings) -> str:
    """A short name for the agent's settings: the same for equal settings, on every machine."""
    return short_hash(to_dict(settings))


def short_hash(values: Any) -> str:
    """A short name for what JSON can hold."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

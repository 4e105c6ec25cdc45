"""OGBench's state-based single tasks by name: find or make the data, and load them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.npz import check_npz, load_arrays, names_in, readable, slices
from ..data.raw import RAW_KEYS, RawData, outside_the_box, to_dataset
from ..spec.types import Array
from ..support.callbacks import Progress, Say
from ..support.download import DownloadError, check_known, download
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import expanded
from ..support.statistics import SUCCESS
from ..support.suggestions import closest, did_you_mean
from .base import (
    SUCCESS_TIMINGS,
    Benchmark,
    DataRequest,
    Making,
    NoDataError,
    Scoring,
    addresses,
    check_given,
)
from .files import read_file
from .ogbench_oracles import Recipe, generate_ogbench, is_made, provenance, recipe_for

DEFAULT_FOLDER = Path("~/.ogbench/data")
GENERATED = "generated"
# Where OGBench's files are, `{file}` standing for a file's name: its own server, and the data set
# that its maintainers named when that was down. More come from --mirror and VGF_DATA_MIRRORS.
MIRRORS = (
    "https://rail.eecs.berkeley.edu/datasets/ogbench/{file}",
    "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main/{file}",
)
# Rows that are relabelled together, so that no temporary array is as large as a mapped file.
_RELABELLED = 1 << 20
# The most robot-arm environments made at once: each takes about 140 MB and a second to make.
_ROBOT_ARMS = 20
_TIMINGS = dict(zip(SUCCESS_TIMINGS, ("before", "after"), strict=True))

# The kinds of data of each environment.
_ALL_MAZES = ("medium", "large", "giant", "teleport")
_KINDS: dict[str, tuple[str, ...]] = {
    **{f"pointmaze-{size}": ("navigate", "stitch") for size in _ALL_MAZES},
    **{f"antmaze-{size}": ("navigate", "stitch", "explore") for size in _ALL_MAZES},
    "antmaze-giant": ("navigate", "stitch"),
    **{f"humanoidmaze-{size}": ("navigate", "stitch") for size in ("medium", "large", "giant")},
    **{f"antsoccer-{field}": ("navigate", "stitch") for field in ("arena", "medium")},
    **{f"cube-{count}": ("play", "noisy") for count in ("single", "double", "triple", "quadruple")},
    "scene": ("play", "noisy"),
    **{f"puzzle-{size}": ("play", "noisy") for size in ("3x3", "4x4", "4x5", "4x6")},
}


@dataclass(frozen=True)
class OGBenchTask:
    """The parts of a task's name.

    Args:
        name: the whole name, such as "cube-single-play-singletask-task2-v0".
        environment: such as "cube-single".
        kind: of data, such as "play".
        number: 1 to 5, or None for the environment's default task.
    """

    name: str
    environment: str
    kind: str
    number: int | None

    @property
    def dataset(self) -> str:
        """The name of the dataset, which the tasks of an environment share."""
        return f"{self.environment}-{self.kind}-v0"


def ogbench_datasets() -> dict[str, tuple[str, str]]:
    """The names of all state-based data sets, each with its environment and its kind."""
    return {f"{env}-{kind}-v0": (env, kind) for env, kinds in _KINDS.items() for kind in kinds}


def first_task(dataset: str) -> str:
    """The first of the five single tasks that share a data set."""
    return f"{dataset.removesuffix('-v0')}-singletask-task1-v0"


def ogbench_tasks() -> list[str]:
    """The names of all state-based single tasks, with their numbers."""
    return [
        f"{environment}-{kind}-singletask-task{number}-v0"
        for environment, kinds in _KINDS.items()
        for kind in kinds
        for number in range(1, 6)
    ]


def parse_task(name: str) -> OGBenchTask:
    """Parse a task's name: ``<environment>-<kind>-singletask[-task<1-5>]-v0``.

    Raises:
        VGFError: an unknown name; the message suggests what is meant.
    """
    if name.startswith("visual-"):
        raise VGFError(
            f"task {name!r} is seen in pixels, and the networks here are for vectors; the "
            f"state-based one is {name[7:]!r}"
        )
    datasets = ogbench_datasets()
    if name in datasets:
        raise VGFError(
            f"task {name!r} is a goal-conditioned dataset; name one of its five single tasks, "
            f"such as {first_task(name)!r}"
        )
    match = re.fullmatch(r"(.+)-singletask(?:-task(\d+))?-v0", name)
    if match and f"{match[1]}-v0" in datasets:
        number = int(match[2]) if match[2] else None
        if number is not None and not 1 <= number <= 5:
            raise VGFError(f"task {name!r}: tasks are numbered 1 to 5")
        return OGBenchTask(name, *datasets[f"{match[1]}-v0"], number)
    hint = did_you_mean(
        closest(name, ogbench_tasks()),
        "OGBench's names are <environment>-<kind>-singletask[-task<1-5>]-v0, such as "
        "pointmaze-medium-navigate-singletask-task1-v0",
    )
    raise VGFError(f"task {name!r} is unknown; {hint}")


def is_ogbench(name: str) -> bool:
    """Whether a name looks like one of OGBench's, spelled correctly or not."""
    return "-singletask" in name or name.startswith("visual-") or name in ogbench_datasets()


def is_manipulation(name: str) -> bool:
    """Whether an OGBench task has the robot arm: the cubes, the scene, the puzzles."""
    return name.startswith(("cube-", "scene-", "puzzle-"))


def dataset_path(
    task: OGBenchTask,
    folder: Path,
    action_repeat: int = 1,
    episodes: int | None = None,
    seed: int = 0,
) -> Path:
    """Where a generated dataset is kept: its name says everything it depends on.

    `folder`/generated/cube-single-play-v0-episodes1000-seed0.npz, for example, so that it cannot be
    mistaken for the benchmark's own file.
    """
    if episodes is None:
        recipe = recipe_for(task.dataset)
        episodes = recipe.episodes if recipe else 0
    repeat = f"-repeat{action_repeat}" if action_repeat > 1 else ""
    return folder / GENERATED / f"{task.dataset}{repeat}-episodes{episodes}-seed{seed}.npz"


def load_ogbench(name: str, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """The training data of a single task, with OGBench's own rewards and masks.

    They are the first of these that exists: the benchmark's file ``<dataset>.npz`` in `data_dir` or
    in ~/.ogbench/data; one generated before, in the folder ``generated`` of either; one generated
    now, if OGBench ships an oracle; the benchmark's file, downloaded. With `episodes`, or
    `action_repeat` above 1, which the benchmark's file does not have, only generated ones are
    used.

    OGBench relabels: success is tested on s, the state before the action. Rewards are 0 or -1
    (manipulation: minus the number of parts not in place), masks 0 where s is a success, and
    terminals 1 at the last row of an episode.

    Args:
        name: ``<environment>-<kind>-singletask[-task<1-5>]-v0``.
        data_dir: where data are looked for first, generated and downloaded.
        options: the other fields of :class:`~vgf.benchmarks.base.DataRequest`.

    Raises:
        VGFError: an unknown name, a missing extra, no data (with the ways to get them), or a file
        that is damaged or does not fit.
    """
    return to_dataset(read_ogbench(name, data_dir, **options))


def read_ogbench(name: str, data_dir: str | Path | None = None, **options: Any) -> RawData:
    """The same data, relabelled by OGBench, not yet checked; see :func:`load_ogbench`."""
    request = DataRequest(parse_task(name).name, data_dir=data_dir, **options)
    check_given(request)
    return _read(request)


def _read(request: DataRequest) -> RawData:
    """The data of a task from files in OGBench's format, as :func:`load_ogbench` finds them."""
    task = parse_task(request.name)
    if request.data is not None:
        return _load(task, expanded(request.data), request.memory)
    folders = [expanded(DEFAULT_FOLDER)]
    if request.data_dir is not None:
        folders.insert(0, expanded(request.data_dir))
    repeat, episodes, seed = request.action_repeat, request.episodes, request.seed
    as_benchmark = repeat == 1 and episodes is None
    own = [dataset_path(task, folder, repeat, episodes, seed) for folder in folders]
    candidates = [folder / f"{task.dataset}.npz" for folder in folders] if as_benchmark else []
    path = next((path for path in candidates + own if path.exists()), None)
    tried = []
    if path is None and request.allow_generate and (recipe_for(task.dataset) or not as_benchmark):
        path = generate_ogbench(
            task.dataset,
            own[0],
            episodes,
            seed,
            request.workers,
            repeat,
            request.progress,
            request.say,
        )
    if path is None and request.may_download and as_benchmark:
        try:
            path = download(
                addresses(f"{task.dataset}.npz", request.mirror, MIRRORS),
                folders[0] / f"{task.dataset}.npz",
                b"PK",
                check_npz,
                request.progress,
            )
        except DownloadError as error:
            tried.append(str(error))
    if path is None:
        raise NoDataError(_ways_out(task, folders, as_benchmark, tried))
    check_known(path)
    return _load(task, path, request.memory)


def _ways_out(task: OGBenchTask, folders: list[Path], as_benchmark: bool, tried: list[str]) -> str:
    """One line that says how to get a dataset."""
    ways = [f"put {task.dataset}.npz into {folders[0]}", "name its folder with --data-dir"]
    if not as_benchmark:
        ways = ["allow generation"]
    elif recipe_for(task.dataset):
        ways.append("allow generation")
    if as_benchmark and not tried:
        ways.append("allow the download")
    elif as_benchmark:
        ways.append("try again with a network")
    because = "".join(f" ({reason})" for reason in tried)
    return f"no data for {task.name}{because}; {', or '.join(ways)}"


def _load(task: OGBenchTask, path: Path, memory: str) -> RawData:
    """Read a file in OGBench's format, and let OGBench relabel it for a task.

    The rows of such a file are the states; the last of each trajectory (terminal 1) is not a
    transition but the state that the one before it leads to. So no state is held twice, unlike in
    `ogbench.load_dataset`.
    """
    from .ogbench_environment import make_ogbench_env

    damaged = "" if slices(path) else "; delete it, and make or fetch it again"
    with contextlib.closing(make_ogbench_env(task.name)) as env:
        env.reset(seed=0)
        sizes = _sizes(env)
        with readable(path, damaged):
            present = names_in(path)
        missing = [key for key in ("terminals", *sizes) if key not in present]
        if missing:
            raise VGFError(f"{path} lacks {', '.join(missing)}; it has {', '.join(present)}")
        with readable(path, damaged):
            arrays, _, folder = load_arrays(path, ("terminals", *sizes), memory)
            ends = arrays["terminals"].astype(bool)
            if {len(array) for array in arrays.values()} != {len(ends)}:
                raise ValueError("its arrays differ in length")
            if not ends[-1]:
                raise ValueError("its last row does not end a trajectory")
        for key, size in sizes.items():
            if arrays[key].shape[1:] != (size,):
                raise VGFError(
                    f"{path}: {key} has shape {list(arrays[key].shape)}, expected "
                    f"[{len(arrays[key])}, {size}]; is it the file of another environment?"
                )
        arrays |= _relabelled(task, env, arrays)
    arrays["terminals"] = ends | np.append(ends[1:], True)
    used = {key: arrays[key] for key in RAW_KEYS if key in arrays}
    transitions = np.flatnonzero(~ends).astype(np.int32)
    return RawData(used, str(path), present, transitions=transitions, folder=folder)


def _relabelled(task: OGBenchTask, env: Any, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The rewards and masks of a task ``[S]``, some rows after the others: its goal stands still.

    Args:
        task: of which `env` is an environment.
        env: which is reset.
        arrays: of the file ``[S, *]``.
    """
    relabel = need("ogbench.relabel_utils", "envs")
    made = {key: np.empty(len(arrays["qpos"]), np.float32) for key in ("rewards", "masks")}
    for i in range(0, len(arrays["qpos"]), _RELABELLED):
        part = {key: array[i : i + _RELABELLED] for key, array in arrays.items()}
        relabel.relabel_dataset(task.environment, env, part)
        for key, array in made.items():
            array[i : i + _RELABELLED] = part[key]
    return made


def _is_own(path: Path) -> bool:
    """Whether .npz files are OGBench's, which have no rewards; seen without reading them."""
    if not (slices(path) or (path.suffix == ".npz" and path.is_file())):
        return False
    with readable(path):
        return "rewards" not in names_in(path)


def _sizes(env: Any) -> dict[str, int]:
    """The sizes of what a file holds for an environment."""
    simulator = env.unwrapped
    sizes = {
        "observations": env.observation_space.shape[0],
        "actions": env.action_space.shape[0],
        "qpos": simulator.model.nq,
    }
    if hasattr(simulator, "_cur_button_states"):
        sizes["button_states"] = len(simulator._cur_button_states)
    return sizes


# --- the benchmark ------------------------------------------------------------------------------


@dataclass(frozen=True)
class OGBenchMaker:
    """Makes the environment of a single task; picklable."""

    name: str
    action_repeat: int = 1
    success_timing: str | None = None

    def __call__(self, seed: int | None = None) -> Any:
        from .ogbench_environment import make_ogbench_env

        timing = {} if self.success_timing is None else {"success_timing": self.success_timing}
        return make_ogbench_env(self.name, seed, self.action_repeat, **timing)


class OGBench(Benchmark):
    """OGBench's state-based single tasks; those with an oracle can be made here."""

    kind, title, example = "ogbench", "OGBench", "cube-single-play-singletask-task2-v0"
    generates = True
    times_success = True

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        return ogbench_tasks()

    def has(self, name: str, data_dir: str | Path | None = None) -> bool:
        return is_ogbench(name)

    def spelled(self, name: str, data_dir: str | Path | None = None) -> str:
        return parse_task(name).name

    def positions_first(self, name: str) -> bool:
        return super().positions_first(name) or "antsoccer" in name.lower()

    def read(self, request: DataRequest) -> RawData:
        # a file with rewards is used as it is; OGBench's have none and are relabelled
        given = None if request.data is None else expanded(request.data)
        raw = _read(request) if given is None or _is_own(given) else None
        if raw is None:
            raw = read_file(str(given), request.memory)
            if "rewards" not in raw.arrays:
                raw = None  # so that it is not held in memory meanwhile
                raw = _read(request)
        return dataclasses.replace(raw, normalise_rewards=request.normalise_rewards)

    def data_notes(self, raw: RawData) -> tuple[str, ...]:
        return (*raw.clipping(), *outside_the_box(raw))  # the others are the benchmark's own

    def scoring(self, request: DataRequest) -> Scoring:
        timing = request.success_timing
        make_env = OGBenchMaker(request.name, request.action_repeat, timing)
        together = _ROBOT_ARMS if is_manipulation(request.name) else Scoring.environments_together
        notes = () if timing is None else (f"success is tested {_TIMINGS[timing]} each step",)
        return Scoring(make_env, SUCCESS, notes=notes, environments_together=together)

    def protocol(
        self, task: Mapping[str, Any], versions: Mapping[str, str]
    ) -> Mapping[str, str | None]:
        """When success is tested: at s since OGBench 1.2, at s' before."""
        if "-singletask" not in task["env"] or "ogbench" not in versions:
            return {}
        old = tuple(map(int, versions["ogbench"].split(".")[:2])) < (1, 2)
        return {"success timing": "post" if old else "pre"}

    def task_of_data(self, name: str) -> tuple[str, str] | None:
        if name not in ogbench_datasets():
            return None
        task = first_task(name)
        return task, f"rewards and masks are those of {task}; use --env for another task"

    def task_of_file(self, path: Path) -> tuple[str, str] | None:
        """For a file with an OGBench name and without its own rewards."""
        names = [name for name in ogbench_datasets() if path.name.startswith(name)]
        if not names or path.suffix != ".npz":
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                if "rewards.npy" in archive.namelist():
                    return None
        except (OSError, zipfile.BadZipFile):
            return None
        return self.task_of_data(max(names, key=len))

    def way_on(self, request: DataRequest) -> str | None:
        dataset, folder = parse_task(request.name).dataset, request.data_dir
        flag = "" if folder is None else f" --data-dir {folder}"
        made = f"vgf data make {dataset}{flag} makes them, or " if recipe_for(dataset) else ""
        return (
            f"no data for {request.name}; {made}put {dataset}.npz into "
            f"{folder or '~/.ogbench/data'}; for a smaller set, name the file"
        )

    def makeable(self) -> Sequence[str]:
        return [name for name in ogbench_datasets() if recipe_for(name)]

    def making(self, request: DataRequest, out: Path | None = None) -> Making | None:
        name = request.name
        if name in ogbench_datasets():
            task = parse_task(first_task(name))
        elif is_ogbench(name):
            task = parse_task(name)
        else:
            return None
        recipe = recipe_for(task.dataset)
        if recipe is None:
            raise VGFError(
                f"{task.dataset} cannot be made: its ants and humanoids were moved by a trained "
                "policy that OGBench does not ship; the sets of pointmaze, cube, scene and puzzle "
                "can be"
            )
        folder = expanded(request.data_dir or DEFAULT_FOLDER)
        place = out or dataset_path(
            task, folder, request.action_repeat, request.episodes, request.seed
        )
        return OracleMaking(place, task, recipe, request)


@dataclass(frozen=True)
class OracleMaking:
    """One of OGBench's data sets, made by its oracle.

    Args:
        place: the file of its training episodes.
        task: one that shares it.
        recipe: of the benchmark.
        request: how to make it.
    """

    place: Path
    task: OGBenchTask
    recipe: Recipe
    request: DataRequest

    @property
    def description(self) -> str:
        """The file, and the one for validation."""
        return f"{self.place}, and {self.place.stem}-val.npz for validation"

    @property
    def episodes(self) -> int:
        """How many training episodes it has."""
        wanted = self.request.episodes
        return self.recipe.episodes if wanted is None else wanted

    def exists(self) -> bool:
        """Whether something already exists there."""
        return self.place.exists()

    def is_made(self) -> bool:
        """Whether this same data set already exists."""
        request = self.request
        expected = provenance(self.recipe, self.episodes, request.seed, request.action_repeat)
        return is_made(self.place, expected)

    def make(self, progress: Progress, say: Say) -> None:
        """Make it, or continue one that was cut off."""
        request = self.request
        generate_ogbench(
            self.recipe.dataset,
            self.place,
            request.episodes,
            request.seed,
            request.workers,
            request.action_repeat,
            progress,
            say,
        )

    def summary(self) -> tuple[str, ...]:
        """Its rows and episodes."""
        with readable(self.place):
            rows = len(load_arrays(self.place, ["terminals"])[0]["terminals"])
        held = f"{rows:,} rows in {self.episodes:,} episodes"
        return (f"{held}; the last row of each is not a transition",)

    def flags(self) -> list[str]:
        """The flags of `vgf run` that train on it."""
        repeat = self.request.action_repeat
        held = ["--action-repeat", str(repeat)] if repeat > 1 else []
        return ["--env", self.task.name, *held, "--data", str(self.place)]

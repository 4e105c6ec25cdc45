"""OGBench's state-based single tasks by name: find the data, or make them, and load them."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import socket
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.common import Progress, Say
from ..data.dataset import Dataset
from ..data.npz import MEMORY, load_arrays
from ..data.raw import RAW_KEYS, RawData, to_dataset
from ..recording.record import generate_ogbench, recipe_for
from ..support.errors import VGFError
from ..support.extras import need

DEFAULT_FOLDER = Path("~/.ogbench/data")
GENERATED = "generated"
_DOWNLOAD_TIMEOUT = 30.0

# What each environment's data may be.
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
        name: the whole, such as "cube-single-play-singletask-task2-v0".
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


def ogbench_tasks() -> list[str]:
    """The names of all state-based single tasks, with their numbers."""
    return [
        f"{environment}-{kind}-singletask-task{number}-v0"
        for environment, kinds in _KINDS.items()
        for kind in kinds
        for number in range(1, 6)
    ]


def parse_task(name: str) -> OGBenchTask:
    """Take a task's name apart: ``<environment>-<kind>-singletask[-task<1-5>]-v0``.

    Raises:
        VGFError: an unknown name; the message says what is meant instead.
    """
    if name.startswith("visual-"):
        raise VGFError(f"task {name!r} is seen in pixels; the state-based one is {name[7:]!r}")
    datasets = {f"{env}-{kind}-v0": (env, kind) for env, kinds in _KINDS.items() for kind in kinds}
    if name in datasets:
        single = name.removesuffix("-v0") + "-singletask-task1-v0"
        raise VGFError(
            f"task {name!r} is a goal-conditioned dataset; name one of its five single tasks, "
            f"such as {single!r}"
        )
    match = re.fullmatch(r"(.+)-singletask(?:-task(\d+))?-v0", name)
    if match and f"{match[1]}-v0" in datasets:
        number = int(match[2]) if match[2] else None
        if number is not None and not 1 <= number <= 5:
            raise VGFError(f"task {name!r}: tasks are numbered 1 to 5")
        return OGBenchTask(name, *datasets[f"{match[1]}-v0"], number)
    close = difflib.get_close_matches(name, ogbench_tasks(), n=3, cutoff=0.6)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else (
            "OGBench's names are <environment>-<kind>-singletask[-task<1-5>]-v0, such as "
            "pointmaze-medium-navigate-singletask-task1-v0"
        )
    )
    raise VGFError(f"task {name!r} is unknown; {hint}")


def is_ogbench(name: str) -> bool:
    """Whether a name looks like one of OGBench's, rightly spelled or not."""
    datasets = {f"{env}-{kind}-v0" for env, kinds in _KINDS.items() for kind in kinds}
    return "-singletask" in name or name.startswith("visual-") or name in datasets


def is_manipulation(name: str) -> bool:
    """Whether one of OGBench's tasks has its robot arm: the cubes, the scene, the puzzles."""
    return name.startswith(("cube-", "scene-", "puzzle-"))


def dataset_path(
    task: OGBenchTask,
    folder: Path,
    action_repeat: int = 1,
    episodes: int | None = None,
    seed: int = 0,
) -> Path:
    """Where a generated dataset is kept: its name says all that it depends on.

    `folder`/generated/cube-single-play-v0-episodes1000-seed0.npz, for example, so that it cannot
    be taken for the benchmark's own file.
    """
    if episodes is None:
        recipe = recipe_for(task.dataset)
        episodes = recipe.episodes if recipe else 0
    repeat = f"-repeat{action_repeat}" if action_repeat > 1 else ""
    return folder / GENERATED / f"{task.dataset}{repeat}-episodes{episodes}-seed{seed}.npz"


def load_ogbench(
    name: str,
    data_dir: str | Path | None = None,
    *,
    action_repeat: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    allow_generate: bool = True,
    allow_download: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Dataset:
    """The training data of a single task, with OGBench's own rewards and masks.

    As :func:`read_ogbench`, in the internal form.
    """
    return to_dataset(
        read_ogbench(
            name,
            data_dir,
            action_repeat=action_repeat,
            episodes=episodes,
            seed=seed,
            allow_generate=allow_generate,
            allow_download=allow_download,
            workers=workers,
            progress=progress,
            say=say,
        )
    )


def read_ogbench(
    name: str,
    data_dir: str | Path | None = None,
    *,
    data: str | Path | None = None,
    action_repeat: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    allow_generate: bool = True,
    allow_download: bool = True,
    workers: int | None = None,
    memory: str = MEMORY,
    progress: Progress | None = None,
    say: Say | None = None,
) -> RawData:
    """The training data of a single task, relabelled by OGBench, not yet checked.

    The data are the first of these that there is: the benchmark's file ``<dataset>.npz`` in
    `data_dir` or in ~/.ogbench/data; one generated before, in the folder ``generated`` of either;
    one generated now, where OGBench ships an oracle; the benchmark's file, downloaded. With
    `episodes` or `action_repeat` above 1, which the benchmark's file does not have, only generated
    ones count.

    OGBench relabels: success is tested on s, the state before the action. Rewards are 0 or -1
    (manipulation: minus the number of parts not in place), masks 0 where s is a success, and
    terminals 1 at the last row of an episode.

    Args:
        name: ``<environment>-<kind>-singletask[-task<1-5>]-v0``.
        data_dir: where data are looked for first, generated and downloaded.
        data: a file in OGBench's format to use instead.
        action_repeat: simulator steps for each decision; see
            :func:`~vgf.recording.record.generate_ogbench`.
        episodes: of a generated dataset; None for the benchmark's number.
        seed: of a generated dataset.
        allow_generate, allow_download: whether data that are not there may be made or fetched.
        workers: processes that generate; None for one on each core.
        memory: one of :data:`vgf.data.npz.DATA_MEMORY`.
        progress: called while data are generated.
        say: takes a line for the person at the terminal, while data are generated.

    Raises:
        VGFError: an unknown name, a missing extra, no data (with the ways to them), or a file that
            is damaged or does not fit.
    """
    task = parse_task(name)
    if data is not None:
        return _load(task, Path(data), memory)
    folders = [DEFAULT_FOLDER.expanduser()]
    if data_dir is not None:
        folders.insert(0, Path(data_dir).expanduser())
    as_benchmark = action_repeat == 1 and episodes is None
    own = [dataset_path(task, folder, action_repeat, episodes, seed) for folder in folders]
    candidates = [folder / f"{task.dataset}.npz" for folder in folders] if as_benchmark else []
    path = next((path for path in candidates + own if path.exists()), None)
    tried = []
    if path is None and allow_generate and (recipe_for(task.dataset) or not as_benchmark):
        path = generate_ogbench(
            task.dataset, own[0], episodes, seed, workers, action_repeat, progress, say
        )
    if path is None and allow_download and as_benchmark:
        path, failure = _download(task.dataset, folders[0])
        tried.append(failure)
    if path is None:
        raise VGFError(_ways_out(task, folders, as_benchmark, tried))
    return _load(task, path, memory)


def _ways_out(task: OGBenchTask, folders: list[Path], as_benchmark: bool, tried: list[str]) -> str:
    """One line that says how to come by a dataset."""
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


def _download(dataset: str, folder: Path) -> tuple[Path | None, str]:
    """Let OGBench download a dataset: its path, or None and the reason."""
    ogbench = need("ogbench", "envs")
    timeout = socket.getdefaulttimeout()
    # OGBench prints, with a bar; a log that is not a terminal is spared both.
    quiet = io.StringIO() if not sys.stderr.isatty() else sys.stderr
    try:
        socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            ogbench.download_datasets([dataset], str(folder))
    except OSError as error:
        return None, f"the download failed: {error}"
    finally:
        socket.setdefaulttimeout(timeout)
        for part in folder.glob(f"{dataset}*.npz.tmp"):
            part.unlink()
    return folder / f"{dataset}.npz", ""


def _load(task: OGBenchTask, path: Path, memory: str) -> RawData:
    """Read a file in OGBench's format, and let OGBench relabel it for a task.

    The rows of such a file are the states; the last of each trajectory (terminal 1) is no
    transition but what the one before it leads to. So no state is held twice, as
    `ogbench.load_dataset` would.
    """
    relabel = need("ogbench.relabel_utils", "envs")
    from .environments import make_ogbench_env

    with contextlib.closing(make_ogbench_env(task.name)) as env:
        env.reset(seed=0)
        sizes = _sizes(env)
        with _readable(path), np.load(path) as file:
            present = tuple(file.files)
        missing = [key for key in ("terminals", *sizes) if key not in present]
        if missing:
            raise VGFError(f"{path} lacks {', '.join(missing)}; it has {', '.join(present)}")
        with _readable(path):
            arrays, _, folder = load_arrays(path, ("terminals", *sizes), memory)
            ends = arrays["terminals"].astype(bool)
            if {len(array) for array in arrays.values()} != {len(ends)}:
                raise ValueError("its arrays differ in length")
            if not ends[-1]:
                raise ValueError("its last row ends no trajectory")
        for key, size in sizes.items():
            if arrays[key].shape[1:] != (size,):
                raise VGFError(
                    f"{path}: {key} has shape {list(arrays[key].shape)}, expected "
                    f"[{len(arrays[key])}, {size}]; is it the file of another environment?"
                )
        relabel.relabel_dataset(task.environment, env, arrays)
    arrays["terminals"] = ends | np.append(ends[1:], True)
    used = {key: arrays[key] for key in RAW_KEYS if key in arrays}
    transitions = np.flatnonzero(~ends)
    return RawData(used, str(path), present, transitions=transitions, folder=folder)


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


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a VGFError."""
    try:
        yield
    except (OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise VGFError(
            f"{path} is not a whole dataset ({error}); delete it, and it is made or fetched anew"
        ) from error

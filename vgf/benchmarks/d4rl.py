"""D4RL without its package: names, files, reference scores, and the conventions of its data.

`import d4rl` needs MuJoCo 2.1 and an old gym, and fails on most machines. Its HDF5 files need
neither, and its table of addresses and reference scores, ``d4rl/infos.py``, imports nothing: where
the package is installed that file is read, and elsewhere the copy beside this module, which
`python -m vgf.benchmarks.d4rl d4rl/infos.py REVISION` makes again.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import runpy
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.raw import RawData
from ..support.callbacks import Progress
from ..support.errors import VGFError
from ..support.files import atomic_file, write_atomically
from ..support.statistics import NORMALISED, RETURN, SUCCESS, normalised
from ..support.suggestions import nearest
from .base import Benchmark, DataRequest, Making, Scoring, reference_note
from .files import read_file

DEFAULT_FOLDER = Path("~/.d4rl/datasets")
FOLDER_VARIABLE = "D4RL_DATASET_DIR"
TABLE = Path(__file__).with_name("d4rl_infos.json")
ACTION_CLIP = 1.0 - 1e-5
_TABLE_URL = "https://github.com/Farama-Foundation/D4RL/blob/{}/d4rl/infos.py"
_DOWNLOAD_TIMEOUT = 30.0
_DOWNLOAD_PIECE = 1 << 20
# Steps after which D4RL's environments cut an episode, by the beginnings of their names.
_LIMITS = {
    "antmaze-umaze": 700,
    "antmaze-eval-umaze": 700,
    "pen": 100,
    "hammer": 200,
    "door": 200,
    "relocate": 200,
    "kitchen": 280,
    "maze2d-open": 150,
    "maze2d-umaze": 300,
    "maze2d-medium": 600,
    "maze2d-large": 800,
    "maze2d-eval-umaze": 300,
    "maze2d-eval-medium": 600,
    "maze2d-eval-large": 800,
}
_LIMIT = 1000


@dataclass(frozen=True)
class D4RLTask:
    """What D4RL's table says of a task.

    Args:
        name: such as "hopper-medium-v2".
        url: where its file is.
        ref_min, ref_max: the returns of score 0 and score 100; None where the table has none.
    """

    name: str
    url: str
    ref_min: float | None
    ref_max: float | None

    @property
    def family(self) -> str:
        """The first part of the name, such as "hopper" or "antmaze"."""
        return self.name.partition("-")[0]

    @property
    def files(self) -> tuple[str, ...]:
        """What its file may be called: as D4RL saves it, or as the task."""
        return tuple(dict.fromkeys((self.url.rpartition("/")[2], f"{self.name}.hdf5")))

    @property
    def max_episode_steps(self) -> int:
        """Steps after which D4RL's environment cuts an episode."""
        return next((n for start, n in _LIMITS.items() if self.name.startswith(start)), _LIMIT)

    def normalised_score(self, value: float) -> float:
        """100 (return - min) / (max - min): 0 for random actions, 100 for an expert.

        Raises:
            VGFError: the table has no reference score for this task.
        """
        if self.ref_min is None or self.ref_max is None:
            raise VGFError(
                f"D4RL's table has no reference score for {self.name}, so there is no normalised "
                "score; use the return"
            )
        return normalised(value, self.ref_min, self.ref_max)


@dataclass(frozen=True)
class D4RLTable:
    """D4RL's table: its tasks by name, and where the table comes from, for people."""

    tasks: Mapping[str, D4RLTask]
    source: str


def d4rl_table() -> D4RLTable:
    """The table of the installed d4rl package, or the copy of it here.

    Raises:
        VGFError: the package's table cannot be read.
    """
    installed = _installed_infos()
    return _read_copy() if installed is None else table_of(installed, f"{installed}, as installed")


def is_installed_here() -> bool:
    """Whether the package d4rl is there, working or not."""
    return "d4rl" in sys.modules or _installed_infos() is not None


def _installed_infos() -> Path | None:
    """The path of the installed package's table, without importing the package."""
    try:
        found = importlib.util.find_spec("d4rl")
    except (ImportError, ValueError):  # a module that was put in place by hand
        return None
    places = [] if found is None else found.submodule_search_locations or []
    return next((p for place in places if (p := Path(place) / "infos.py").is_file()), None)


@functools.cache
def _read_copy() -> D4RLTable:
    content = json.loads(TABLE.read_text(encoding="utf-8"))
    tasks = {
        name: D4RLTask(name, row["url"], row["ref_min"], row["ref_max"])
        for name, row in content["tasks"].items()
    }
    return D4RLTable(tasks, f"a copy of {_TABLE_URL.format(content['revision'][:7])}")


def table_of(infos: Path, source: str) -> D4RLTable:
    """The table in a file ``infos.py`` of D4RL's, which is run by itself, outside its package.

    Raises:
        VGFError: it cannot be run, or lacks one of its three tables.
    """
    try:
        found = runpy.run_path(str(infos))
        urls, low, high = (found[n] for n in ("DATASET_URLS", "REF_MIN_SCORE", "REF_MAX_SCORE"))
        tasks = {
            name: D4RLTask(name, url, _number(low.get(name)), _number(high.get(name)))
            for name, url in urls.items()
        }
    except Exception as error:
        raise VGFError(
            f"{infos} is not D4RL's table of scores ({type(error).__name__}: {error}); reinstall "
            "d4rl, or uninstall it and the copy in vgf is used"
        ) from error
    return D4RLTable(tasks, source)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def normalised_score(name: str, value: float) -> float:
    """The normalised score of a return in one of D4RL's tasks.

    Raises:
        VGFError: an unknown task, or one without reference scores.
    """
    tasks = d4rl_table().tasks
    if name not in tasks:
        near = nearest(name, tasks)
        hint = f"; did you mean {near}?" if near else ""
        raise VGFError(f"D4RL has no task {name!r}{hint}")
    return tasks[name].normalised_score(value)


# --- files --------------------------------------------------------------------------------------


def folders(data_dir: str | Path | None) -> list[Path]:
    """Where D4RL's files are looked for: `data_dir`, then the package's own folder."""
    own = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    places = ([] if data_dir is None else [Path(data_dir)]) + [own]
    return [place.expanduser() for place in places]


def find_d4rl(
    task: D4RLTask,
    data_dir: str | Path | None = None,
    *,
    allow_download: bool = True,
    progress: Progress | None = None,
) -> Path:
    """The path of a task's file, downloaded where it is nowhere.

    Raises:
        VGFError: no file, and no download; the message says the ways out.
    """
    places = folders(data_dir)
    candidates = [place / name for place in places for name in task.files]
    path = next((path for path in candidates if path.exists()), None)
    if path is not None:
        return path
    because = ""
    if allow_download:
        try:
            return _download(task.url, places[0] / task.files[0], progress)
        except (OSError, ValueError) as error:
            because = f" (the download of {task.url} failed: {getattr(error, 'reason', error)})"
    names = " or ".join(task.files)
    raise VGFError(
        f"no data for {task.name}{because}; put {names} into {places[0]}, name its folder with "
        f"--data-dir, or the file with --data{'' if because else ', or allow the download'}"
    )


def _download(url: str, path: Path, progress: Progress | None) -> Path:
    """Fetch a file; it appears under its name only when it is whole."""
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT) as reply, atomic_file(path) as file:
        total, done = int(reply.headers.get("Content-Length") or 0), 0
        while piece := reply.read(_DOWNLOAD_PIECE):
            file.write(piece)
            done += len(piece)
            if progress is not None:
                megabytes = -(-done // _DOWNLOAD_PIECE), -(-max(total, done) // _DOWNLOAD_PIECE)
                progress(f"downloading {path.name} (MB)", *megabytes)
        if done < total:
            raise OSError(f"it ended after {done:,} of {total:,} bytes")
    return path


def with_conventions(raw: RawData, task: D4RLTask, normalise_rewards: bool = False) -> RawData:
    """The data of a task, with D4RL's conventions as the field uses them.

    Actions are clipped to +-(1 - 1e-5). antmaze's rewards, 1 at the goal and 0 elsewhere, become
    0 and -1; others may be scaled by the range of returns. Files without timeouts have their
    trajectories cut where the environment's time limit cut them.

    Raises:
        VGFError: normalised rewards in antmaze.
    """
    maze = task.family == "antmaze"
    if maze and normalise_rewards:
        raise VGFError(
            f"{task.name}: the rewards of D4RL's antmaze are shifted by -1 and not scaled; use "
            "--no-normalise-rewards"
        )
    return dataclasses.replace(
        raw,
        action_clip=ACTION_CLIP,
        reward_shift=-1.0 if maze else 0.0,
        normalise_rewards=normalise_rewards,
        max_episode_steps=task.max_episode_steps,
    )


# --- the benchmark ------------------------------------------------------------------------------


@dataclass(frozen=True)
class D4RLMaker:
    """Makes D4RL's own environment of a task, or the one that stands in for it; picklable."""

    task: D4RLTask
    own: bool

    def __call__(self, seed: int | None = None) -> Any:
        from .stand_ins import make_own, make_stand_in

        return (make_own if self.own else make_stand_in)(self.task, seed)


class D4RL(Benchmark):
    """D4RL's tasks, in its own environments or in those that stand in for them."""

    kind, title, example = "d4rl", "D4RL", "hopper-medium-v2"

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        return list(d4rl_table().tasks)

    def read(self, request: DataRequest) -> RawData:
        task = d4rl_table().tasks[request.name]
        path = request.data or find_d4rl(
            task, request.data_dir, allow_download=request.allow_download, progress=request.progress
        )
        raw = read_file(path, request.memory)
        return with_conventions(raw, task, request.normalise_rewards)

    def scoring(self, request: DataRequest) -> Scoring:
        from .stand_ins import describe, stand_in, why_none, why_not_own

        table, name = d4rl_table(), request.name
        task = table.tasks[name]
        reason = why_not_own(task)
        if reason is not None and stand_in(task) is None:
            note = f"no evaluation: nothing stands in for D4RL's {name}: {why_none(task)}"
            return Scoring(None, notes=(note,))
        own = reason is None
        make_env = D4RLMaker(task, own)
        notes = [describe(task, own)]
        if is_installed_here() and not own:
            notes.append(f"D4RL's own environment cannot be made here: {reason}")
        if task.family == "antmaze":
            return Scoring(make_env, SUCCESS, notes=(*notes, "normalised score = 100 x success"))
        if task.ref_min is None or task.ref_max is None:
            notes.append(
                f"no normalised score: D4RL's table has no reference score for {name}; the return "
                "is reported"
            )
            return Scoring(make_env, RETURN, notes=tuple(notes))
        reference = task.ref_min, task.ref_max
        notes.append(reference_note(*reference, table.source))
        return Scoring(make_env, NORMALISED, reference, tuple(notes))

    def making(self, request: DataRequest, out: Path | None = None) -> Making | None:
        if request.name not in d4rl_table().tasks:
            return None
        raise VGFError(
            f"{request.name} is D4RL's, recorded with policies that it does not ship: it can be "
            "fetched and not made; gymnasium:ID records an environment with a policy of yours"
        )


def main(words: list[str]) -> int:
    """Make the copy of D4RL's table again: the path of an infos.py, and the revision it is of."""
    if len(words) != 2:
        print("usage: python -m vgf.benchmarks.d4rl d4rl/infos.py REVISION", file=sys.stderr)
        return 2
    infos, revision = words
    tasks = {
        name: {"url": task.url, "ref_min": task.ref_min, "ref_max": task.ref_max}
        for name, task in table_of(Path(infos), infos).tasks.items()
    }
    content = {"source": _TABLE_URL.format(revision), "revision": revision, "tasks": tasks}
    write_atomically(TABLE, json.dumps(content, indent=1) + "\n")
    print(f"{TABLE}: {len(tasks)} tasks")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

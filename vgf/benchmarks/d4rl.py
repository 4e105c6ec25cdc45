"""D4RL without its package: names, files, reference scores, and the conventions of its data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.hdf5 import check_hdf5
from ..data.raw import RawData
from ..spec.types import Array
from ..support.callbacks import Progress
from ..support.download import DownloadError, check_known, download
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import expanded
from ..support.statistics import NORMALISED, RETURN, SUCCESS
from .base import Benchmark, DataRequest, Making, NoDataError, Scoring, addresses, reference_note
from .d4rl_infos import D4RLTask, d4rl_table, is_installed_here
from .files import read_file

DEFAULT_FOLDER = Path("~/.d4rl/datasets")
FOLDER_VARIABLE = "D4RL_DATASET_DIR"
ACTION_CLIP = 1.0 - 1e-5
_HDF5 = b"\x89HDF"  # how such a file begins
_SAME_STATE = 1e-6  # the distance up to which the authors' code takes two states for one

# --- files --------------------------------------------------------------------------------------


def folders(data_dir: str | Path | None) -> list[Path]:
    """Where D4RL's files are looked for: `data_dir`, then the package's own folder."""
    own = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    places = ([] if data_dir is None else [Path(data_dir)]) + [own]
    return [expanded(place) for place in places]


def find_d4rl(
    task: D4RLTask,
    data_dir: str | Path | None = None,
    *,
    allow_download: bool = True,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """The path of a task's file, downloaded if it is nowhere.

    Raises:
        VGFError: no file, and no download; the message names the ways out. Or a missing extra.
    """
    places = folders(data_dir)
    candidates = [place / name for place in places for name in task.files]
    path = next((path for path in candidates if path.exists()), None)
    if path is not None:
        check_known(path)
        return path
    because = ""
    if allow_download:
        need("h5py", "d4rl")  # by which the file is checked
        urls = addresses(task.files[0], mirror, [task.url])
        try:
            return download(urls, places[0] / task.files[0], _HDF5, check_hdf5, progress)
        except DownloadError as error:
            because = f" ({error})"
    names = " or ".join(task.files)
    raise NoDataError(
        f"no data for {task.name}{because}; put {names} into {places[0]}, name its folder with "
        f"--data-dir, or the file with --data{'' if because else ', or allow the download'}"
    )


def with_conventions(raw: RawData, task: D4RLTask, normalise_rewards: bool = False) -> RawData:
    """The data of a task, with D4RL's conventions as commonly used.

    Actions are clipped to +-(1 - 1e-5). antmaze's rewards, 1 at the goal and 0 elsewhere, become
    0 and -1; others may be scaled by the range of returns. In files without timeouts,
    trajectories are cut where the environment's time limit cut them.

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


def qlearning_dataset(raw: RawData, task: D4RLTask) -> RawData:
    """The transitions that ``d4rl.qlearning_dataset`` makes of a file, as the authors use them.

    A row at a timeout and the file's last row are none; s' is the next row's s, also where the task
    is done. Without timeouts in the file, the environment's time limit says where they are. A
    trajectory ends where the next transition does not start at s', and, but for antmaze, where the
    task is done. Trajectories of the range of returns end where the task is done, not at timeouts.

    Raises:
        VGFError: a file with masks, of fewer than two rows, or with a timeout in all but the last.

    Source:
        D4RL's ``qlearning_dataset``; the authors' ``envs/d4rl_utils.py``, `get_dataset`.
    """
    arrays = {key: np.asarray(array) for key, array in raw.arrays.items()}
    if "masks" in arrays or "terminals" not in arrays or len(arrays["terminals"]) < 2:
        raise VGFError(
            f"{raw.source} cannot be loaded as d4rl.qlearning_dataset does: that needs terminals, "
            "no masks, and two rows; use --no-qlearning-dataset"
        )
    done = arrays["terminals"] != 0
    cut = arrays["timeouts"] != 0 if "timeouts" in arrays else _cut(done, raw.max_episode_steps)
    rows = np.flatnonzero(~cut[:-1])
    if not len(rows):
        raise VGFError(
            f"{raw.source} has no transitions as d4rl.qlearning_dataset loads it, which drops "
            "every row at a timeout, and the last; use --no-qlearning-dataset"
        )
    ends = np.zeros(len(done), bool)
    states = arrays["observations"]
    gaps = rows[:-1][np.diff(rows) > 1]  # the next transition starts later than at s'
    following = rows[np.searchsorted(rows, gaps, side="right")]
    apart = states[following].astype(np.float32) - states[gaps + 1].astype(np.float32)
    ends[gaps] = np.linalg.norm(apart, axis=-1) > _SAME_STATE
    if task.family != "antmaze":
        ends |= done
    kept = {key: arrays[key] for key in ("observations", "actions", "rewards")}
    return dataclasses.replace(
        raw,
        arrays={**kept, "masks": ~done, "terminals": ends},
        transitions=rows,
        returns_end_at_timeouts=False,
    )


def _cut(done: Array, limit: int | None) -> Array:
    """Where D4RL takes it that the time limit cut an episode, in a file without timeouts.

    After a row at which the task is done, it counts from 1 and not from 0.
    """
    cut, step = np.zeros(len(done), bool), 0
    for i, over in enumerate(done.tolist()):
        cut[i] = limit is not None and step == limit - 1
        step = 0 if cut[i] else 1 if over else step + 1
    return cut


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
    has_qlearning_dataset = True

    def names(self, data_dir: str | Path | None = None) -> Sequence[str]:
        return list(d4rl_table().tasks)

    def read(self, request: DataRequest) -> RawData:
        task = d4rl_table().tasks[request.name]
        path = request.data or find_d4rl(
            task,
            request.data_dir,
            allow_download=request.may_download,
            mirror=request.mirror,
            progress=request.progress,
        )
        raw = with_conventions(read_file(path, request.memory), task, request.normalise_rewards)
        return qlearning_dataset(raw, task) if request.qlearning_dataset else raw

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
            "fetched but not made; gymnasium:ID records an environment with your own policy"
        )

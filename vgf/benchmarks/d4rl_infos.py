"""D4RL's table of tasks: their files' addresses, their reference scores, their time limits.

`import d4rl` needs MuJoCo 2.1 and an old gym, and fails on most machines. Its HDF5 files need
neither, and its table of addresses and reference scores, ``d4rl/infos.py``, imports nothing: if the
package is installed that file is read, otherwise the copy beside this module, which
`python -m vgf.benchmarks.copy_d4rl_infos d4rl/infos.py REVISION` updates.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.statistics import normalised
from ..support.suggestions import nearest

TABLE = Path(__file__).with_name("d4rl_infos.json")
TABLE_URL = "https://github.com/Farama-Foundation/D4RL/blob/{}/d4rl/infos.py"
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
    """What D4RL's table says about a task.

    Args:
        name: such as "hopper-medium-v2".
        url: where its file is.
        ref_min, ref_max: the returns of score 0 and score 100; None if the table has none.
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
        """The possible names of its file: D4RL's, or the task's."""
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
    """D4RL's table: its tasks by name, and where the table comes from, in words."""

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
    """Whether the package d4rl is installed, working or not."""
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
    return D4RLTable(tasks, f"a copy of {TABLE_URL.format(content['revision'][:7])}")


def table_of(infos: Path, source: str) -> D4RLTable:
    """The table in D4RL's file ``infos.py``, which is run by itself, outside its package.

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

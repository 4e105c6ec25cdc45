"""Run folders, read back."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.files import read_json
from ..support.rows import Row
from ..support.toml import read_toml
from .checkpoint import check_settings, last_meta
from .config import RunConfig
from .folder import CONFIG, ENVIRONMENT
from .log import EVALUATIONS, METRICS, read_log
from .resolve import load_config
from .scores import step_of


@dataclass(frozen=True)
class Run:
    """What one run folder holds.

    Args:
        folder: where it is.
        config: the contents of its config.toml, nested; config_text is the file itself.
        starts: from environment.json, one for each time the run was started.
        metrics, evaluations: the rows of its logs.
    """

    folder: Path
    config: dict[str, Any]
    config_text: str
    starts: list[dict[str, Any]]
    metrics: list[Row]
    evaluations: list[Row]

    @property
    def updates(self) -> int:
        """The updates made, as its logs tell."""
        return max((step_of(row) for row in [*self.metrics, *self.evaluations]), default=0)

    @functools.cached_property
    def resolved(self) -> RunConfig:
        """Its configuration as settings.

        Raises:
            VGFError: a setting that is unknown or out of its range.
        """
        return load_config(self.folder / CONFIG)


def find_runs(folder: Path | str) -> list[Run]:
    """The run in a folder, or all runs anywhere below it.

    Raises:
        VGFError: no run there, or a damaged file in it.
    """
    return [read_run(path) for path in find_places(folder)]


def find_places(folder: Path | str, empty: bool = False) -> list[Path]:
    """The folder of the run in a folder, or those of all runs anywhere below it.

    Args:
        folder: to look in.
        empty: whether there may be none.

    Raises:
        VGFError: no run there.
    """
    folder = Path(folder)
    if not folder.exists():
        raise VGFError(f"{folder}: no such folder; name a run folder, such as those in runs/")
    places = sorted(_places(folder), key=_in_order)
    if not places and not empty:
        raise VGFError(
            f"{folder} is not a run folder: neither it nor a folder below has {METRICS}.jsonl"
        )
    return places


def _places(folder: Path) -> Iterator[Path]:
    """The run folders in a folder; none lies within another."""
    for place, below, files in os.walk(folder):
        if f"{METRICS}.jsonl" in files:
            below.clear()
            yield Path(place)
        below[:] = [name for name in below if not name.startswith(".")]


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Folder by folder, and seed-2 before seed-10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for name in path.parts
        for part in re.split(r"(\d+)", name)
    ]


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        VGFError: a file that is missing or damaged.
    """
    evaluations = folder / f"{EVALUATIONS}.jsonl"
    _check_config(folder)
    return Run(
        folder,
        read_toml(folder / CONFIG),
        (folder / CONFIG).read_text(encoding="utf-8"),
        _read_starts(folder / ENVIRONMENT),
        read_log(folder / f"{METRICS}.jsonl"),
        read_log(evaluations) if evaluations.exists() else [],
    )


def _check_config(folder: Path) -> None:
    """Check that config.toml says what the run was made with, where its checkpoints tell.

    Raises:
        VGFError: a setting that decides results was changed since.
    """
    meta = last_meta(folder)
    if meta is None:
        return
    try:
        config = load_config(folder / CONFIG)
    except VGFError:  # such as of a method whose file is not here; what it says is shown as text
        return
    check_settings(folder, config, meta)


def _read_starts(path: Path) -> list[dict[str, Any]]:
    """The starts in an environment.json.

    Raises:
        VGFError: it is damaged.
    """
    starts: list[dict[str, Any]] = read_json(path, list)
    for number, start in enumerate(starts, 1):
        if not isinstance(start, dict):
            raise VGFError(f"{path} is damaged: start {number} is {start!r}")
        kinds = {"command": list, "versions": dict, "notes": list, "score": str | None}
        for key, kind in kinds.items():
            value = start.get(key)
            sound = key not in start or isinstance(value, kind)
            if sound and key == "notes":
                sound = all(isinstance(note, str) for note in value or ())
            if not sound:
                raise VGFError(f"{path} is damaged: {key} of start {number} is {value!r}")
    return starts

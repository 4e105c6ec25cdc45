"""Checkpoints of a run, in its folder.

    RUN/checkpoints/step-000010000/
        state.safetensors  the agent's arrays, under names such as critic/hidden_0/kernel
        state.json         step, task, shapes, checksum, and what else the run needs to continue

A checkpoint folder is written next to its final place under a hidden name and renamed when
complete, and renamed before it is removed: whatever has a checkpoint's name is a checkpoint, at any
moment. Nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.settings import Settings
from ..spec.types import Array, Params
from ..support.callbacks import Say
from ..support.errors import VGFError
from ..support.extras import need
from ..support.files import check_fetched, read_json, scratch_folder, sync_folder, write_durably
from .config import RunConfig, check_unchanged, settings_hash
from .folder import CONFIG, written_hash

CHECKPOINTS = "checkpoints"
ARRAYS, SIDECAR = "state.safetensors", "state.json"
# Version 1, of vgf 0.1, has no digest of the sidecar.
FORMAT, VERSION = "vgf checkpoint", 2


class DamagedError(VGFError):
    """A checkpoint that is not what was saved."""


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint stores besides the arrays.

    Args:
        step: updates done.
        task: the task's name.
        settings_hash: of the agent's settings, as :func:`vgf.runs.config.settings_hash`.
        shapes: of every array, by its flattened name.
        extra: what else the run needs to continue, in JSON's types.
    """

    step: int
    task: str
    settings_hash: str
    shapes: dict[str, list[int]]
    extra: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: Path | str,
    step: int,
    tree: Params,
    extra: Mapping[str, Any] | None = None,
    *,
    task: str,
    settings: Settings,
) -> Path:
    """Write a checkpoint, complete or not at all; one of the same step is replaced.

    Args:
        folder: the run folder.
        step: updates done.
        tree: nested dicts of NumPy arrays; dtypes are kept.
        extra: what JSON can hold, such as the state of a random generator.
        task: the task's name.
        settings: the agent's.

    Returns:
        The checkpoint's folder.

    Raises:
        VGFError: a tree that cannot be stored, or a folder that cannot be written.
    """
    arrays = flatten(tree)
    data = need("safetensors.numpy", "run").save(arrays)
    meta = CheckpointMeta(step, task, settings_hash(settings), _shapes(arrays), dict(extra or {}))
    head = {"format": FORMAT, "version": VERSION, "sha256": hashlib.sha256(data).hexdigest()}
    about = {**head, **asdict(meta)}
    sidecar = json.dumps({**about, "digest": _digest(about)}, indent=2) + "\n"
    place = checkpoint_path(folder, step)
    try:
        place.parent.mkdir(exist_ok=True)
        for stale in place.parent.glob(".writing-*"):  # left by a run that was killed
            shutil.rmtree(stale)
        with scratch_folder(place.parent) as scratch:
            fresh = scratch / "fresh"
            fresh.mkdir()
            write_durably(fresh / SIDECAR, sidecar)
            if _holds(place / ARRAYS, data):  # what else is stored may have changed
                os.replace(fresh / SIDECAR, place / SIDECAR)
                sync_folder(place)
                return place
            write_durably(fresh / ARRAYS, data)
            sync_folder(fresh)
            if place.exists():
                os.replace(place, scratch / "old")
            os.replace(fresh, place)
        sync_folder(place.parent)
    except OSError as error:
        raise VGFError(f"{place}: cannot be written: {error.strerror or error}") from error
    return place


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def remove_checkpoint(folder: Path | str, step: int) -> None:
    """Remove a checkpoint, completely or, if the process is killed meanwhile, not at all.

    Raises:
        VGFError: it cannot be removed.
    """
    place = checkpoint_path(folder, step)
    try:
        with scratch_folder(place.parent) as scratch:
            os.replace(place, scratch / "old")
    except OSError as error:
        raise VGFError(f"{place}: cannot be removed: {error.strerror or error}") from error


def load_checkpoint(
    folder: Path | str, step: int | None = None, say: Say | None = None
) -> tuple[dict[str, Any], CheckpointMeta]:
    """Read a checkpoint of a run folder.

    Args:
        folder: the run folder.
        step: which one; None is the last one that is not damaged.
        say: takes a line on those that are.

    Returns:
        The tree of NumPy arrays, its names in the order they were saved in, and what is
        stored besides them.

    Raises:
        VGFError: no checkpoint, or one that is damaged or foreign; the message names the file.
    """
    steps = list_steps(folder)
    if not steps:
        raise VGFError(f"{folder} has no checkpoint; the run ended before its first one")
    if step is not None and step not in steps:
        raise VGFError(
            f"{folder} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}"
        )
    if step is not None:
        return _load(checkpoint_path(folder, step), steps)
    for one in reversed(steps):
        try:
            return _load(checkpoint_path(folder, one), steps)
        except DamagedError as error:
            if one == steps[0]:
                raise
            if say is not None:
                say(f"{str(error).partition(';')[0]}; trying the checkpoint before it")
    raise AssertionError


def last_meta(folder: Path | str) -> CheckpointMeta | None:
    """What the last checkpoint whose sidecar is not damaged stores besides the arrays, or None."""
    for step in reversed(list_steps(folder)):
        with contextlib.suppress(VGFError):
            return _read_sidecar(checkpoint_path(folder, step), "")[1]
    return None


def _load(place: Path, steps: list[int]) -> tuple[dict[str, Any], CheckpointMeta]:
    """The checkpoint in a folder, one of those of `steps`."""
    step = int(place.name.removeprefix("step-"))
    earlier = [f"step {other}" for other in steps if other < step]
    way_out = f"delete {place} to resume from {(earlier or ['the beginning'])[-1]}"
    head, meta = _read_sidecar(place, way_out)
    try:
        data = (place / ARRAYS).read_bytes()
    except OSError as error:
        raise DamagedError(f"{place / ARRAYS}: {error.strerror}; {way_out}") from error
    if hashlib.sha256(data).hexdigest() != head.get("sha256") or meta.step != step:
        raise DamagedError(
            f"{place / ARRAYS} is damaged or belongs to another checkpoint; {way_out}"
        )
    try:
        arrays: dict[str, Array] = need("safetensors.numpy", "run").load(data)
        if {name: list(array.shape) for name, array in arrays.items()} != meta.shapes:
            raise ValueError("its shapes are not those of the sidecar")
        # In the order in which they were saved, which the file does not keep: sums depend on it.
        return unflatten({name: arrays[name] for name in meta.shapes}), meta
    except Exception as error:  # whatever its format makes of it
        raise DamagedError(f"{place / ARRAYS} is damaged: {error}; {way_out}") from error


def _read_sidecar(place: Path, way_out: str) -> tuple[dict[str, Any], CheckpointMeta]:
    try:
        for name in (SIDECAR, ARRAYS):
            check_fetched(place / name)
        head = read_json(place / SIDECAR, dict)
    except VGFError as error:
        raise DamagedError(f"{error}; {way_out}") from error
    if head.get("format") != FORMAT or head.get("version") not in (1, VERSION):
        newer = isinstance(head.get("version"), int) and head["version"] > VERSION
        kind = VGFError if newer and head.get("format") == FORMAT else DamagedError
        raise kind(f"{place / SIDECAR}: not a {FORMAT} of version {VERSION}; {way_out}")
    try:
        if head["version"] == VERSION or "digest" in head:
            digest = head.pop("digest")
            if digest != _digest(head):
                raise ValueError("its digest is another one")
        return head, _read_meta(head)
    except KeyError as error:
        raise DamagedError(f"{place / SIDECAR} is damaged: it lacks {error}; {way_out}") from error
    except (TypeError, ValueError) as error:
        raise DamagedError(f"{place / SIDECAR} is damaged: {error}; {way_out}") from error


def _read_meta(head: Mapping[str, Any]) -> CheckpointMeta:
    """What a sidecar says.

    Raises:
        KeyError, ValueError: something is missing, or of another type.
    """
    meta = CheckpointMeta(
        head["step"], head["task"], head["settings_hash"], head["shapes"], head["extra"]
    )
    kinds = {"step": int, "task": str, "settings_hash": str, "shapes": dict, "extra": dict}
    for name, kind in kinds.items():
        if type(getattr(meta, name)) is not kind:
            raise ValueError(f"its {name} is {getattr(meta, name)!r}")
    for name, shape in meta.shapes.items():
        if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"the shape of {name} is {shape!r}")
    return meta


def _digest(sidecar: Mapping[str, Any]) -> str:
    """A checksum of what a sidecar says, its own digest left out; the order of shapes counts."""
    return hashlib.sha256(json.dumps(sidecar).encode()).hexdigest()


def check_checkpoint(
    meta: CheckpointMeta, tree: Params, expected: Params, task: str | None = None
) -> None:
    """Check that a checkpoint fits the run that loads it.

    Args:
        meta, tree: as :func:`load_checkpoint` returns them.
        expected: a tree with the required shapes, such as a new agent's state.
        task: the task's name; None takes any.

    Raises:
        VGFError: another task, or other names or shapes; the message names the first.
    """
    if task is not None and meta.task != task:
        raise VGFError(f"the checkpoint is of task {meta.task}, not {task}; use --env {meta.task}")
    got, wanted = _shapes(flatten(tree)), _shapes(flatten(expected))
    for name in [*wanted, *got]:
        if got.get(name) != wanted.get(name):
            have, want = (shapes.get(name, "absent") for shapes in (got, wanted))
            raise VGFError(
                f"checkpoint of step {meta.step}: {name} is {have}, but these settings need "
                f"{want}; use the networks and the task that it was trained with"
            )


def check_settings(folder: Path, config: RunConfig, meta: CheckpointMeta) -> None:
    """Check that a run folder's config.toml is what a checkpoint of it was made with.

    Raises:
        VGFError: a setting that decides results has changed.
    """
    if meta.settings_hash not in (settings_hash(config.agent), written_hash(folder)):
        raise VGFError(
            f"{folder / CONFIG}: its [agent] is not what the checkpoint of step {meta.step} was "
            "trained with; undo the change, or start a new run with --config"
        )
    check_unchanged(config, meta.extra.get("config"), folder / CONFIG, meta.step)


def list_steps(folder: Path | str) -> list[int]:
    """The steps of a run folder's checkpoints, ascending."""
    names = (entry.name for entry in (Path(folder) / CHECKPOINTS).glob("step-*"))
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d+", name))


def latest_step(folder: Path | str) -> int | None:
    """The step of the last checkpoint, or None."""
    return max(list_steps(folder), default=None)


def checkpoint_path(folder: Path | str, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return Path(folder) / CHECKPOINTS / f"step-{step:09d}"


# --- helpers ------------------------------------------------------------------------------------


def flatten(tree: Params, prefix: str = "") -> dict[str, Array]:
    """Nested dicts of arrays as one dict, its names joined by "/".

    Raises:
        VGFError: an empty dict, a name with "/", or something that is not an array of numbers.
    """
    flat: dict[str, Array] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str) or "/" in key or not key:
            raise VGFError(f"cannot store {name}: a name must be text without '/'")
        if isinstance(value, Mapping):
            if not value:
                raise VGFError(f"cannot store {name}: it is empty")
            flat |= flatten(dict(value), f"{name}/")
            continue
        # C order, and this machine's byte order; 0-d stays 0-d.
        array = np.asarray(value, order="C")
        if array.dtype.kind not in "biuf":
            raise VGFError(f"cannot store {name}: its dtype is {array.dtype}")
        flat[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return flat


def unflatten(flat: Mapping[str, Array]) -> dict[str, Any]:
    """The nested dicts that :func:`flatten` flattened."""
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree


def _shapes(arrays: Mapping[str, Array]) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in arrays.items()}

"""From what a file holds to the internal form: the second half of reading any source.

A reader (npz.py, hdf5.py, or a benchmark's own) makes a :class:`RawData`: the arrays as they are in
the file, unchecked, and the conventions that apply to them. :func:`to_dataset` checks them and
applies the conventions. Files mark where trajectories end in one of two ways:

    with masks       `masks` are 0 where the task is done, `terminals` (and `timeouts`) 1 where a
                     trajectory ends.
    without masks    `terminals` are 1 where the task is done, which also ends the trajectory, and
                     `timeouts` 1 where a time limit cut it.

Gymnasium's and other names of these flags are taken too (:data:`SYNONYMS`). `dones` (done or cut)
are taken where another flag says which of the two: beside `timeouts`, `terminals` or `masks`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from .dataset import (
    BOX_TOLERANCE,
    CHUNK,
    COLUMNS,
    INTO_THE_BOX,
    Dataset,
    assemble,
    check_arrays,
    linked,
)

# Every field that a source may have.
RAW_KEYS = (
    "observations",
    "actions",
    "rewards",
    "masks",
    "terminals",
    "timeouts",
    "next_observations",
)
# Other names of flags.
SYNONYMS = {
    "terminals": ("terminal", "terminated", "termination", "terminations"),
    "timeouts": ("timeout", "truncated", "truncation", "truncations"),
    "dones": ("done",),
}
# Every name that a reader looks for.
NAMES = (*RAW_KEYS, "dones", *(name for names in SYNONYMS.values() for name in names))
RETURN_RANGE = 1000.0
RETURN_STEPS = 1000
_NAMES = 12  # the most names of a file's contents in a message


@dataclass(frozen=True, eq=False)
class RawData:
    """What a source holds, not yet checked, and the conventions that apply to it.

    Args:
        arrays: those of :data:`NAMES` that the source has. Here they get the names of
            :data:`RAW_KEYS`, and columns ``[M, 1]`` of rewards and flags become ``[M]``.
        source: where they come from, in words.
        found: the names of everything in the file, for messages.
        action_low, action_high: the box of the actions ``[d]``; they are rescaled from it to
            [-1, 1]. None if the box is [-1, 1].
        action_clip: actions are clipped to +- this, or not at all.
        reward_shift: added to every reward.
        normalise_rewards: multiply rewards by 1000 / (max return - min return) over the
            trajectories; see :func:`return_range`.
        returns_end_at_timeouts: whether a time limit ends a trajectory in the range of returns, or
            only a task that is done.
        max_episode_steps: rows after which a trajectory was cut, for a source without timeouts.
        transitions: the rows that are transitions ``[M]``, where each state is a row: s' is the
            next row's s. None if all are.
        folder: where the arrays are in files, mapped into memory; None if they are in memory.
        renamed: what the file calls a flag that has another name here; set here.

    Raises:
        VGFError: flags that contradict one another, or `dones` that do not say what they mean.
    """

    arrays: Mapping[str, Any]
    source: str
    found: tuple[str, ...] = ()
    action_low: Array | None = None
    action_high: Array | None = None
    action_clip: float | None = None
    reward_shift: float = 0.0
    normalise_rewards: bool = False
    returns_end_at_timeouts: bool = True
    max_episode_steps: int | None = None
    transitions: Array | None = None
    folder: Path | None = None
    renamed: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        arrays, renamed = _named(self.arrays, self.source)
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "renamed", (*self.renamed, *renamed))

    def spread(self) -> RawData:
        """The same data with s' beside s, for inspection."""
        if self.transitions is None:
            return self
        rows = self.transitions
        arrays = {key: self.arrays[key][rows] for key in self.arrays}
        arrays["next_observations"] = self.arrays["observations"][rows + 1]
        return dataclasses.replace(self, arrays=arrays, transitions=None)

    def clipping(self) -> tuple[str, ...]:
        """A line that says to what actions are clipped, if they are."""
        if self.action_clip is None:
            return ()
        return (f"actions are clipped to +-(1 - {1 - self.action_clip:.0e})",)

    def conventions(self) -> tuple[str, ...]:
        """What :func:`to_dataset` does to the arrays, in words; one line each."""
        lines = [f"{key} are the file's {name}" for key, name in self.renamed]
        if "masks" in self.arrays:
            lines.append("masks are the file's; terminals end a trajectory")
        else:
            lines.append("mask 0 at terminals alone; a timeout ends a trajectory with mask 1")
        if "masks" not in self.arrays and "timeouts" not in self.arrays and self.max_episode_steps:
            lines.append(
                f"no timeouts in the file: trajectories are cut at {self.max_episode_steps:,} steps"
            )
        if self.transitions is not None:
            lines.append(
                f"{len(self.transitions):,} of {len(self.arrays['rewards']):,} rows are "
                "transitions; s' is the next row's s"
            )
        elif "next_observations" not in self.arrays:
            lines.append("s' is the next row's s; the last row of a cut trajectory is dropped")
        if self.action_low is not None:
            lines.append("actions are rescaled from the environment's box to [-1, 1]")
        lines += self.clipping()
        if self.reward_shift:
            lines.append(f"rewards are shifted by {self.reward_shift:+g}")
        if self.normalise_rewards:
            ending = "" if self.returns_end_at_timeouts else ", returns not ended by timeouts"
            lines.append(f"rewards are scaled by 1000 / (max return - min return){ending}")
        return tuple(lines)


def with_box(raw: RawData, low: Any, high: Any) -> RawData:
    """The same data, with actions in a box ``[d]``, ``[d]``."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    plain = bool(np.all(low == -1.0) and np.all(high == 1.0))
    box = (
        {"action_low": None, "action_high": None}
        if plain
        else {"action_low": low, "action_high": high}
    )
    return dataclasses.replace(raw, **box)


def outside_the_box(raw: RawData) -> tuple[str, ...]:
    """A line that says how many actions are clipped by more than rounding, if any are.

    Args:
        raw: data that :func:`to_dataset` accepts.
    """
    if raw.action_clip is None:
        return ()
    outside = outside_box(raw, np.asarray(raw.arrays["actions"]))
    if outside is None or not outside.any():
        return ()
    return (f"{outside.sum():,} of {len(outside):,} actions leave [-1, 1] and are clipped",)


def to_dataset(raw: RawData) -> Dataset:
    """Check what a source holds and put it into the internal form.

    Where there are no next_observations, s' is the observation of the next row of the trajectory.
    The last row of a trajectory that was cut, or of the file, has none and is dropped; the last
    row of a finished one needs none (mask 0) and is kept.

    Raises:
        VGFError: a missing field, a wrong shape or type, lengths that differ, no rows, NaN or
            infinity, a flag that is neither 0 nor 1, or actions outside their box.
    """
    fields = _checked(raw)
    observations, actions = fields.pop("observations"), fields.pop("actions")
    if raw.transitions is not None:
        if not len(raw.transitions):
            raise VGFError(f"{raw.source} has no transitions")
        fields = {key: array[raw.transitions] for key, array in fields.items()}
    done, ends = ends_of(raw, fields)
    # in float32, as is usual, so that they are those of other loaders to the bit
    rewards = fields["rewards"].astype(np.float32) + np.float32(raw.reward_shift)
    scale = reward_scale(*_scaled_by(raw, fields)) if raw.normalise_rewards else 1.0
    ends[-1] = True  # the end of the file
    keep = np.ones(len(ends), bool)
    if raw.transitions is not None:
        states, here = observations, raw.transitions.astype(np.int32)
        there = here + 1
    elif "next_observations" in fields:
        states, here, there = linked(observations, fields["next_observations"], raw.folder)
    else:
        keep = done | ~ends
        # in 32 bits, as they stay: of a mapped file, these are the most of what is in memory
        states, here = observations, np.flatnonzero(keep).astype(np.int32)
        there = here + ~ends[here]
    columns = {
        "rewards": rewards * np.float32(scale),
        "masks": np.float32(1.0) - done,
        # where the last row is dropped, the one before it becomes the last
        "terminals": ends | ~np.append(keep[1:], True),
    }
    if not keep.any():
        raise VGFError(
            f"{raw.source} has no transitions: without next_observations, each of its trajectories "
            "needs two rows"
        )
    if not keep.all():
        for key in columns:  # one after the other, for the memory
            columns[key] = columns[key][keep]
    columns["actions"] = _actions(raw, actions, keep)
    dataset = assemble(states, here, there, columns, raw.source)
    return dataclasses.replace(dataset, reward_shift=raw.reward_shift, reward_scale=scale)


def _checked(raw: RawData) -> dict[str, Array]:
    """The fields of a source, each checked by itself and against the others."""
    present = [key for key in RAW_KEYS if key in raw.arrays]
    missing = [key for key in ("observations", "actions", "rewards") if key not in present]
    if "terminals" not in present and not {"masks", "timeouts"} <= set(present):
        missing.append("terminals")
    if missing:
        names = sorted(raw.found or raw.arrays)
        listed = ", ".join(names[:_NAMES]) or "nothing"
        listed += f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        hint = (
            "; terminals are 1 where the task is done (with masks: where a trajectory ends)"
            if "terminals" in missing
            else ""
        )
        raise VGFError(f"{raw.source} lacks {', '.join(missing)}; it has {listed}{hint}")
    return check_arrays({key: raw.arrays[key] for key in present}, raw.source)


def _named(
    arrays: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """A source's arrays under the names used here; and what it calls those it names otherwise.

    Raises:
        VGFError: as :class:`RawData`.
    """
    fields: dict[str, Any] = {}
    for key, array in arrays.items():
        of = next((name for name, others in SYNONYMS.items() if key in others), key)
        column = of in COLUMNS or of == "dones"
        if column and np.ndim(array) == 2 and np.shape(array)[1] == 1:
            array = np.asarray(array)[:, 0]
        fields[key] = array
    renamed = []
    for key, others in SYNONYMS.items():
        names = [name for name in (key, *others) if name in fields]
        for name in names[1:]:
            one, other = (_numbers(fields, of, source) for of in (names[0], name))
            del fields[name]
            if one.shape != other.shape or (one != other).any():
                raise VGFError(
                    f"{source} has {names[0]} and {name}, which mean the same and differ; keep one"
                )
        if names and names[0] != key:
            fields[key] = fields.pop(names[0])
            renamed.append((key, names[0]))
    if "dones" in fields:
        said = dict(renamed).get("dones", "dones")
        renamed = [pair for pair in renamed if pair[0] != "dones"]
        renamed += _told_apart(fields, said, source)
    return fields, tuple(renamed)


def _told_apart(fields: dict[str, Any], said: str, source: str) -> list[tuple[str, str]]:
    """Replace `dones`, done or cut, by what another flag makes of them; returns what was renamed.

    Raises:
        VGFError: nothing says which of the two, or a flag contradicts it.
    """
    dones = _numbers(fields, "dones", source)
    del fields["dones"]
    other = next((key for key in ("terminals", "timeouts", "masks") if key in fields), None)
    if other is None:
        raise VGFError(
            f"{source} has {said} alone, which do not say whether the task was done or a time "
            "limit cut the trajectory; name them terminals (done) or add timeouts (cut)"
        )
    if other == "masks":
        fields["terminals"] = dones
        return [("terminals", said)]
    flag = _numbers(fields, other, source)
    if flag.shape != dones.shape or (other == "terminals" and ((flag != 0) & (dones == 0)).any()):
        raise VGFError(f"{source}: {other} and {said} contradict each other; keep one")
    missing = "timeouts" if other == "terminals" else "terminals"
    if missing in fields:
        return []
    fields[missing] = np.where(flag != 0, 0, dones)
    return [(missing, f"{said} without {other}")]


def _numbers(fields: Mapping[str, Any], name: str, source: str) -> Array:
    """A flag that is to be compared with another.

    Raises:
        VGFError: it is not of numbers.
    """
    array = np.asarray(fields[name])
    if array.dtype.kind not in "biuf":
        raise VGFError(f"{source}: {name} has dtype {array.dtype}; it must be numbers")
    return array


def no_ends(raw: RawData) -> tuple[str, ...]:
    """A line that says that a long source has no end of a trajectory, if so."""
    flags = [np.asarray(raw.arrays[key]) for key in ("terminals", "timeouts") if key in raw.arrays]
    rewards = np.asarray(raw.arrays.get("rewards", ()))
    rows = len(rewards) if rewards.ndim else 0
    if rows <= RETURN_STEPS or any(flag.any() for flag in flags) or raw.max_episode_steps:
        return ()
    return (
        f"no row of {rows:,} ends a trajectory, so they are taken as one; flags of other names "
        f"than {', '.join(NAMES[3:6])} and their synonyms are not read",
    )


def ends_of(raw: RawData, fields: Mapping[str, Array]) -> tuple[Array, Array]:
    """Where the task is done and where a trajectory ends, ``[M]`` bool each.

    Args:
        raw: for its conventions.
        fields: its arrays, of which only rewards and flags are used.
    """
    rows = len(next(iter(fields.values())))
    flags = {
        key: fields[key] != 0 if key in fields else np.zeros(rows, bool)
        for key in ("terminals", "timeouts")
    }
    ends = flags["terminals"] | flags["timeouts"]
    done = fields["masks"] == 0 if "masks" in fields else flags["terminals"]
    if "masks" not in fields and "timeouts" not in fields and raw.max_episode_steps:
        ends = ends | _every(raw.max_episode_steps, ends)
    return done, ends


def _every(steps: int, ends: Array) -> Array:
    """Every `steps`-th row of every trajectory, counted from its first; ``[M]`` bool."""
    row = np.arange(len(ends))
    starts = np.append(0, np.flatnonzero(ends) + 1)
    first = starts[np.searchsorted(starts, row, side="right") - 1]
    return (row - first) % steps == steps - 1


def return_range(rewards: Array, ends: Array, steps: int = RETURN_STEPS) -> tuple[float, float]:
    """The smallest and the largest return of a source's trajectories.

    A trajectory ends where it is done or was cut, and after 1,000 steps at the latest. An
    incomplete trajectory at the end of the file does not count, unless it is the only one.

    Args:
        rewards: ``[M]``.
        ends: 1 where a trajectory ends ``[M]``; the last row need not be an end.
        steps: the longest a trajectory may be.

    Source:
        IQL's code, in general use since; the authors' ``envs/d4rl_utils.py``.
    """
    ends = ends.astype(bool)
    last = np.flatnonzero(ends | _every(steps, ends))
    starts = np.append(0, last[:-1] + 1) if len(last) else np.zeros(1, int)
    stop = int(last[-1]) + 1 if len(last) else len(rewards)
    # summed one after the other, as other loaders do
    parts = np.split(rewards[:stop].astype(np.float64), starts[1:])
    returns = [np.add.accumulate(part)[-1] for part in parts]
    return float(min(returns)), float(max(returns))


def reward_scale(low: float, high: float) -> float:
    """1000 / (max return - min return), see :func:`return_range`; 1 where the two are equal.

    They are equal within the rounding of their sums, 1e-12 of their size. Data that never reach the
    goal, or one trajectory alone, have no range to scale by.
    """
    return 1.0 if math.isclose(low, high, rel_tol=1e-12) else RETURN_RANGE / (high - low)


def _scaled_by(raw: RawData, fields: Mapping[str, Array]) -> tuple[float, float]:
    """The range of returns that rewards are scaled by."""
    done, ends = ends_of(raw, fields)
    rewards = fields["rewards"].astype(np.float32) + np.float32(raw.reward_shift)
    return return_range(rewards, ends if raw.returns_end_at_timeouts else done)


def equal_returns(raw: RawData) -> tuple[str, ...]:
    """A line that says that rewards were to be scaled and have no range to scale by, if so.

    Args:
        raw: data that :func:`to_dataset` accepts.
    """
    if not raw.normalise_rewards:
        return ()
    rows = slice(None) if raw.transitions is None else raw.transitions
    fields = {key: np.asarray(raw.arrays[key])[rows] for key in COLUMNS & raw.arrays.keys()}
    low, high = _scaled_by(raw, fields)
    if not math.isclose(low, high, rel_tol=1e-12):
        return ()
    return (f"all complete trajectories have the return {low:g}, so rewards are not scaled",)


def _actions(raw: RawData, actions: Array, keep: Array) -> Array:
    """Actions in [-1, 1] ``[K, d]``, without another copy of them.

    Args:
        raw: whose actions they are.
        actions: ``[S, d]``, as the source has them.
        keep: which of the transitions are kept ``[M]``, K of them.
    """
    if raw.action_low is not None and actions.shape[1:] != raw.action_low.shape:
        raise VGFError(
            f"{raw.source}: actions have shape {list(actions.shape)}, expected "
            f"[{len(actions)}, {len(raw.action_low)}]; are they from another environment?"
        )
    for fault in () if raw.action_clip is not None else box_fault(raw, actions):
        raise VGFError(f"{raw.source}: {fault}")
    made, done = np.empty((int(keep.sum()), actions.shape[1]), np.float32), 0
    for part, rows in _pieces(raw, actions):
        scaled = _scaled(raw, rows[keep[part]])
        if raw.action_clip is not None:
            scaled = np.clip(scaled, -raw.action_clip, raw.action_clip)
        made[done : done + len(scaled)] = scaled
        done += len(scaled)
    return made


def _pieces(raw: RawData, array: Array) -> Iterator[tuple[slice, Array]]:
    """The transitions' rows of an array ``[S, *]``, some at a time: which they are, and they."""
    rows = raw.transitions
    for i in range(0, len(array if rows is None else rows), CHUNK):
        part = slice(i, i + CHUNK)
        yield part, array[part] if rows is None else array[rows[part]]


def _scaled(raw: RawData, actions: Array) -> Array:
    """Actions from the source's box to [-1, 1]."""
    low, high = raw.action_low, raw.action_high
    return actions if low is None or high is None else 2.0 * (actions - low) / (high - low) - 1.0


def outside_box(raw: RawData, actions: Array) -> Array | None:
    """Transitions with an action outside the box, by more than rounding; ``[M]`` bool.

    None if the box does not fit.
    """
    if raw.action_low is not None and actions.shape[1:] != raw.action_low.shape:
        return None
    outside = np.zeros(len(actions if raw.transitions is None else raw.transitions), bool)
    for part, rows in _pieces(raw, actions):
        scaled = _scaled(raw, rows.astype(np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            beyond = np.abs(scaled.astype(np.float32)) > 1.0 + BOX_TOLERANCE
        outside[part] = (beyond & np.isfinite(scaled)).any(axis=1)
    return outside


def box_fault(raw: RawData, actions: Array) -> tuple[str, ...]:
    """A line that says which actions leave their box by more than rounding, if any do.

    Args:
        raw: whose box it is.
        actions: finite, ``[S, d]``, in the source's units.
    """
    outside = outside_box(raw, actions)
    if outside is None or not outside.any():
        return ()
    row = np.argmax(outside)
    worst = _short(actions[row if raw.transitions is None else raw.transitions[row]])
    return (f"actions leave the box {box_of(raw)} in {in_rows(outside)}: {worst}; {INTO_THE_BOX}",)


def box_of(raw: RawData) -> str:
    """The box of the actions, in words."""
    low, high = raw.action_low, raw.action_high
    if low is None or high is None:
        return "[-1, 1]"
    if np.all(low == low[0]) and np.all(high == high[0]):
        return f"[{low[0]:g}, {high[0]:g}]"
    return f"from {_short(low)} to {_short(high)}"


def in_rows(wrong: Array) -> str:
    """Which rows, and how many: "row 3", or "2 rows, first in row 3"."""
    count = int(wrong.sum())
    first = int(np.argmax(wrong))
    return f"row {first}" if count == 1 else f"{count:,} rows, first in row {first}"


def _short(values: Array) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:6])
    return f"[{shown}{', ...' if len(values) > 6 else ''}]"

"""The one internal form of offline data.

Two fields are easily taken for each other:

    masks      0 only where the task is done: the TD target does not bootstrap there.
    terminals  1 where a trajectory ends, for whatever reason: the next row starts another one.

A trajectory that was cut by a time limit ends (terminal 1) and still bootstraps (mask 1); a
recording that carries on after the goal has mask 0 and terminal 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from ..errors import VGFError
from ..spec.types import Array

KEYS = ("observations", "actions", "rewards", "masks", "terminals", "next_observations")
_FLAGS = {"masks", "terminals", "timeouts"}
_COLUMNS = {"rewards", *_FLAGS}
# Separates the random numbers that pick batches from those of the update (vgf/spec/update.py).
BATCHES = 3
# Rounding that actions may carry them past the box [-1, 1].
BOX_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Dataset:
    """M transitions, in the order in which they were recorded; float32 throughout.

    Made and checked by :func:`check_dataset`.

    Args:
        observations: s ``[M, o]``.
        actions: a ``[M, d]``, in [-1, 1].
        rewards: r ``[M]``.
        masks: ``[M]``, 0 only where the task is done.
        terminals: ``[M]``, 1 where a trajectory ends.
        next_observations: s' ``[M, o]``.
        source: where the data come from, for people.
        reward_shift, reward_scale: rewards are (r + shift) * scale, where r is the environment's.
    """

    observations: Array
    actions: Array
    rewards: Array
    masks: Array
    terminals: Array
    next_observations: Array
    source: str
    reward_shift: float = 0.0
    reward_scale: float = 1.0

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def observation_dim(self) -> int:
        """The size o of an observation."""
        return int(self.observations.shape[1])

    @property
    def action_dim(self) -> int:
        """The size d of an action."""
        return int(self.actions.shape[1])

    @cached_property
    def observation_mean(self) -> Array:
        """The mean of the observations s, ``[o]`` float32 (summed in float64)."""
        return np.asarray(np.mean(self.observations, axis=0, dtype=np.float64), np.float32)

    @cached_property
    def observation_std(self) -> Array:
        """Their standard deviation, ``[o]`` float32; 1 where they are constant."""
        deviation = np.std(self.observations, axis=0, dtype=np.float64)
        return np.where(deviation < 1e-6, 1.0, deviation).astype(np.float32)


def standardise(observations: Array, mean: Array, std: Array) -> Array:
    """(observations - mean) / std. ``[*, o]``, ``[o]``, ``[o]`` -> ``[*, o]`` float32."""
    return ((observations - mean) / std).astype(np.float32)


def batch_at(dataset: Dataset, seed: int, step: int, size: int) -> dict[str, np.ndarray]:
    """The batch of one update, with replacement: a pure function of seed and step.

    Args:
        dataset: of M transitions.
        seed, step: of the run and of the update.
        size: B.
    """
    rows = np.random.default_rng([seed, BATCHES, step]).integers(0, len(dataset), size)
    return {
        "observations": dataset.observations[rows],
        "actions": dataset.actions[rows],
        "rewards": dataset.rewards[rows],
        "masks": dataset.masks[rows],
        "next_observations": dataset.next_observations[rows],
    }


def check_dataset(arrays: Mapping[str, Any], source: str) -> Dataset:
    """Check arrays and put them into the internal form.

    Args:
        arrays: the fields of :class:`Dataset` by name; others are ignored.
        source: where they come from; errors name it.

    Raises:
        VGFError: a missing field, a wrong shape, lengths that differ, no rows, NaN or infinity,
            an action outside [-1, 1], or a mask or terminal that is neither 0 nor 1.
    """
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise VGFError(f"{source} lacks {', '.join(missing)}; a dataset has {', '.join(KEYS)}")
    checked = check_arrays({key: arrays[key] for key in KEYS}, source)
    fields = {key: np.ascontiguousarray(array, np.float32) for key, array in checked.items()}
    outside = np.abs(fields["actions"]) > 1.0 + BOX_TOLERANCE
    if outside.any():
        row = _first(outside)
        raise VGFError(
            f"{source}: actions leave the box [-1, 1], first in row {row}: "
            f"{fields['actions'][row].tolist()}; rescale them"
        )
    return Dataset(**cast(Any, fields), source=source)


def check_arrays(arrays: Mapping[str, Any], source: str) -> dict[str, Array]:
    """Check the fields of a source as far as they do not depend on what they are used for.

    Args:
        arrays: fields of :class:`Dataset` by name, and `timeouts`; `observations` are among them.
        source: where they come from; errors name it.

    Returns:
        The fields as arrays, of whatever type they have.

    Raises:
        VGFError: a wrong type or shape, lengths that differ, no rows, numbers that float32 does
            not have (NaN, infinity, or too large), or a flag that is neither 0 nor 1.
    """
    fields = {key: np.asarray(array) for key, array in arrays.items()}
    for key, array in fields.items():
        if array.dtype.kind not in "fiub":
            raise VGFError(f"{source}: {key} has dtype {array.dtype}; it must be numbers")
        expected = 1 if key in _COLUMNS else 2
        if array.ndim != expected:
            raise VGFError(
                f"{source}: {key} has shape {list(array.shape)}; it must have {expected} "
                f"{'axis' if expected == 1 else 'axes'}"
            )
        if expected == 2 and array.shape[1] == 0:
            raise VGFError(f"{source}: {key} has shape {list(array.shape)}; its rows are empty")
    lengths = {key: len(array) for key, array in fields.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise VGFError(f"{source}: lengths differ: {listed}")
    if lengths["observations"] == 0:
        raise VGFError(f"{source} has no transitions")
    following = fields.get("next_observations", fields["observations"])
    if fields["observations"].shape != following.shape:
        raise VGFError(
            f"{source}: observations have shape {list(fields['observations'].shape)} and "
            f"next_observations {list(following.shape)}; they must agree"
        )
    for key, array in fields.items():
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32, copy=False))
        if not finite.all():
            raise VGFError(f"{source}: {key} has NaN or infinity, first in row {_first(~finite)}")
    for key in _FLAGS & fields.keys():
        odd = (fields[key] != 0) & (fields[key] != 1)
        if odd.any():
            row = _first(odd)
            raise VGFError(
                f"{source}: {key} is {float(fields[key][row])} in row {row}; it must be 0 or 1"
            )
    return fields


def _first(wrong: Array) -> int:
    """The first row in which anything is wrong."""
    return int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))

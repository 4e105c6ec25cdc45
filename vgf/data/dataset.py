"""The one internal form of offline data.

Two fields are easily confused:

    masks      0 only where the task is done: the TD target does not bootstrap there.
    terminals  1 where a trajectory ends, for whatever reason: the next row starts another one.

A trajectory that was cut by a time limit ends (terminal 1) and still bootstraps (mask 1); a
recording that carries on after the goal has mask 0 and terminal 0 there.

Every state is held once: s' is the next row's s wherever the data allow it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from ..support.files import atomic_file

KEYS = ("observations", "actions", "rewards", "masks", "terminals", "next_observations")
_FLAGS = {"masks", "terminals", "timeouts"}
COLUMNS = {"rewards", *_FLAGS}
# Separates the random numbers that pick batches from those of the update (vgf/spec/update.py).
BATCHES = 3
# What can be done about actions outside [-1, 1].
INTO_THE_BOX = "rescale them, or name the environment whose box they are in by --env"
# Rounding may carry actions this far past the box [-1, 1].
BOX_TOLERANCE = 1e-5


# Rows that are checked together, so that no temporary array is as large as the data.
CHUNK = 65_536


@dataclass(frozen=True, eq=False)
class Dataset:
    """M transitions, in the order in which they were recorded; float32 throughout.

    Made and checked by :func:`check_dataset`. The arrays must not be changed; they may
    be in files that are mapped into memory, and larger than it.

    Args:
        states: every state once ``[S, o]``, as in the source.
        here, there: the rows of s and of s' in `states` ``[M]`` int32.
        actions: a ``[M, d]``, in [-1, 1].
        rewards: r ``[M]``.
        masks: ``[M]``, 0 only where the task is done.
        terminals: ``[M]``, 1 where a trajectory ends.
        source: where the data come from, in words.
        reward_shift, reward_scale: rewards are (r + shift) * scale, where r is the environment's.
        mean, std: ``[o]``, by which observations are standardised on use; or None.
    """

    states: Array
    here: Array
    there: Array
    actions: Array
    rewards: Array
    masks: Array
    terminals: Array
    source: str
    reward_shift: float = 0.0
    reward_scale: float = 1.0
    mean: Array | None = None
    std: Array | None = None

    def __len__(self) -> int:
        return len(self.here)

    @property
    def observation_dim(self) -> int:
        """The size o of an observation."""
        return int(self.states.shape[1])

    @property
    def action_dim(self) -> int:
        """The size d of an action."""
        return int(self.actions.shape[1])

    @property
    def observations(self) -> Array:
        """s ``[M, o]``, standardised if mean and std are set; a copy."""
        return self._observed(self.here)

    @property
    def next_observations(self) -> Array:
        """s' ``[M, o]``, standardised if mean and std are set; a copy."""
        return self._observed(self.there)

    def _observed(self, rows: Array) -> Array:
        states = self.states[rows]
        if self.mean is None or self.std is None:
            return states
        return standardise(states, self.mean, self.std)

    @cached_property
    def observation_mean(self) -> Array:
        """The mean of the source's observations s, ``[o]`` float32 (summed in float64)."""
        return (self._sum(lambda s: s) / len(self)).astype(np.float32)

    @cached_property
    def observation_std(self) -> Array:
        """Their standard deviation, ``[o]`` float32; 1 where they are constant."""
        mean = self._sum(lambda s: s) / len(self)
        deviation = np.sqrt(self._sum(lambda s: np.square(s - mean)) / len(self))
        return np.where(deviation < 1e-6, 1.0, deviation).astype(np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all transitions as the source has them, before any scaling of observations."""
        digest = hashlib.sha256(repr((self.reward_shift, self.reward_scale)).encode())
        for name in ("states", "here", "there", "actions", "rewards", "masks", "terminals"):
            array = getattr(self, name)
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            for i in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[i : i + CHUNK]).data)
        return digest.hexdigest()[:32]

    def _sum(self, of: Callable[[Array], Array]) -> Array:
        """The sum of a function over all s, ``[o]`` float64."""
        parts = [
            of(self.states[self.here[i : i + CHUNK]].astype(np.float64)).sum(axis=0)
            for i in range(0, len(self), CHUNK)
        ]
        return np.asarray(np.sum(parts, axis=0))

    def arrays(self) -> dict[str, Array]:
        """What :func:`gather` takes batches from, without a copy.

        Returns:
            states ``[S, o]``, here and there ``[M]`` int32, actions ``[M, d]``, rewards and masks
            ``[M]``, and, if observations are standardised, mean and std ``[o]``; all but here and
            there are float32, and each is contiguous.
        """
        names = ("states", "here", "there", "actions", "rewards", "masks", "mean", "std")
        found = {name: getattr(self, name) for name in names}
        return {name: array for name, array in found.items() if array is not None}


def gather(arrays: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    """The batch of some transitions, on any device and in any framework.

    Args:
        arrays: those of :meth:`Dataset.arrays`, or the same as arrays of torch or JAX.
        rows: their numbers ``[B]``, an array of the same framework.
    """
    batch = {
        "observations": arrays["states"][arrays["here"][rows]],
        "actions": arrays["actions"][rows],
        "rewards": arrays["rewards"][rows],
        "masks": arrays["masks"][rows],
        "next_observations": arrays["states"][arrays["there"][rows]],
    }
    if "mean" in arrays:
        for key in ("observations", "next_observations"):
            batch[key] = (batch[key] - arrays["mean"]) / arrays["std"]
    return batch


def standardise(observations: Array, mean: Array, std: Array) -> Array:
    """(observations - mean) / std. ``[*, o]``, ``[o]``, ``[o]`` -> ``[*, o]`` float32."""
    return ((observations - mean) / std).astype(np.float32)


def batch_rows(seed: int, step: int, transitions: int, size: int) -> Array:
    """The rows of the batch of one update ``[B]``, with replacement: a pure function of these.

    Args:
        seed, step: of the run and of the update.
        transitions: M, the number to pick from.
        size: B.
    """
    return np.random.default_rng([seed, BATCHES, step]).integers(0, transitions, size)


def batch_at(dataset: Dataset, seed: int, step: int, size: int) -> dict[str, np.ndarray]:
    """The batch of one update, see :func:`batch_rows`, gathered from memory or from disk."""
    return gather(dataset.arrays(), batch_rows(seed, step, len(dataset), size))


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
    states, here, there = linked(checked["observations"], checked["next_observations"])
    columns = {key: checked[key] for key in ("actions", "rewards", "masks", "terminals")}
    return assemble(states, here, there, columns, source)


def linked(
    observations: Array, following: Array, folder: Path | None = None
) -> tuple[Array, Array, Array]:
    """States held once, from s and s' side by side.

    Args:
        observations, following: s and s' ``[M, o]``.
        folder: where to keep the states, mapped into memory; None keeps them in memory.

    Returns:
        The states ``[S, o]`` float32, and the rows of s and of s' among them ``[M]``.

    Raises:
        VGFError: the folder cannot be written.
    """
    rows, size = observations.shape
    apart = np.ones(rows, bool)  # where s' is not the next row's s
    for i in range(0, rows - 1, CHUNK):
        end = min(i + CHUNK, rows - 1)
        then = observations[i + 1 : end + 1].astype(np.float32, copy=False)
        apart[i:end] = (following[i:end].astype(np.float32, copy=False) != then).any(axis=1)
    here = np.arange(rows, dtype=np.int32)
    here[1:] += np.cumsum(apart[:-1], dtype=np.int32)

    def fill(states: Array) -> None:
        for i in range(0, rows, CHUNK):
            part = slice(i, i + CHUNK)
            states[here[part]] = observations[part]
            states[here[part][apart[part]] + 1] = following[part][apart[part]]

    shape = (rows + int(apart.sum()), size)
    if folder is None:
        states = np.empty(shape, np.float32)
        fill(states)
    else:
        states = mapped_array(folder / "states.npy", shape, fill)
    return states, here, here + 1


def mapped_array(path: Path, shape: tuple[int, int], fill: Callable[[Array], None]) -> Array:
    """A float32 array in a .npy file, filled by `fill` unless the file exists and is sound.

    Raises:
        VGFError: it cannot be written.
    """
    with contextlib.suppress(OSError, ValueError, EOFError):  # missing, or damaged
        there = np.asarray(np.load(path, mmap_mode="r"))
        if there.shape == shape and there.dtype == np.float32:
            return there
    with atomic_file(path) as file:
        states = np.lib.format.open_memmap(file.name, "w+", np.float32, shape)
        fill(states)
        states.flush()
    return np.asarray(np.load(path, mmap_mode="r"))


def assemble(
    states: Array, here: Array, there: Array, columns: Mapping[str, Array], source: str
) -> Dataset:
    """Put checked states and the other fields into the internal form.

    Args:
        states, here, there: as :class:`Dataset` has them, of any type.
        columns: actions, rewards, masks and terminals ``[M]``.
        source: where they come from; errors name it.

    Raises:
        VGFError: numbers that float32 cannot hold, or an action outside [-1, 1].
    """
    check_finite(columns, source)
    fields = {key: np.ascontiguousarray(array, np.float32) for key, array in columns.items()}
    for i in range(0, len(fields["actions"]), CHUNK):
        outside = np.abs(fields["actions"][i : i + CHUNK]) > 1.0 + BOX_TOLERANCE
        if outside.any():
            row = i + _first(outside)
            raise VGFError(
                f"{source}: actions leave the box [-1, 1], first in row {row}: "
                f"{fields['actions'][row].tolist()}; {INTO_THE_BOX}"
            )
    return Dataset(
        np.ascontiguousarray(states, np.float32),
        here.astype(np.int32, copy=False),
        there.astype(np.int32, copy=False),
        source=source,
        **cast(Any, fields),
    )


def check_arrays(arrays: Mapping[str, Any], source: str) -> dict[str, Array]:
    """Check the fields of a source, as far as that does not depend on their use.

    Args:
        arrays: fields of :class:`Dataset` by name, and `timeouts`; `observations` must be among
            them.
        source: where they come from; errors name it.

    Returns:
        The fields as arrays, with their own types.

    Raises:
        VGFError: a wrong type or shape, lengths that differ, no rows, numbers that float32
        cannot hold (NaN, infinity, or too large), or a flag that is neither 0 nor 1.
    """
    fields = {key: np.asarray(array) for key, array in arrays.items()}
    for key, array in fields.items():
        fault = form_fault(key, array)
        if fault is not None:
            raise VGFError(f"{source}: {key} {fault}")
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
    check_finite(fields, source)
    for key in _FLAGS & fields.keys():
        odd = (fields[key] != 0) & (fields[key] != 1)
        if odd.any():
            row = _first(odd)
            raise VGFError(
                f"{source}: {key} is {float(fields[key][row])} in row {row}; it must be 0 or 1"
            )
    return fields


def form_fault(key: str, array: Array) -> str | None:
    """What is wrong with the type or the shape of a field, to follow its name; or None."""
    if array.dtype.kind not in "fiub":
        return f"has dtype {array.dtype}; it must be numbers"
    shape, rows = list(array.shape), len(array) if array.ndim else "M"
    if key == "actions" and array.dtype.kind in "iub":
        return (
            f"has dtype {array.dtype}, as discrete actions have, which cannot be used; if they are "
            "vectors of continuous numbers, store them as float32"
        )
    expected = 1 if key in COLUMNS else 2
    if array.ndim == 1 and expected == 2:
        return f"has shape {shape}; it must be [{rows}, d]: one number a row is [{rows}, 1]"
    if array.ndim != expected:
        axes = "1 axis" if expected == 1 else "2 axes"
        return f"has shape {shape}; it must have {axes}"
    if expected == 2 and array.shape[1] == 0:
        return f"has shape {shape}; its rows are empty"
    return None


def check_finite(fields: Mapping[str, Array], source: str) -> None:
    """Check that float32 can hold all numbers.

    Raises:
        VGFError: it cannot; the message names the field and the row.
    """
    for key, array in fields.items():
        for i in range(0, len(array), CHUNK):
            with np.errstate(over="ignore"):
                finite = np.isfinite(array[i : i + CHUNK].astype(np.float32, copy=False))
            if not finite.all():
                row = i + _first(~finite)
                raise VGFError(f"{source}: {key} has NaN or infinity, first in row {row}")


def _first(wrong: Array) -> int:
    """The first row in which anything is wrong."""
    return int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))

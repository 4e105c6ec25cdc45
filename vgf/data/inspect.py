"""What a source of data holds, counted, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..spec.types import Array
from ..support.errors import VGFError
from .dataset import Dataset, form_fault
from .raw import (
    RAW_KEYS,
    RawData,
    box_fault,
    box_of,
    ends_of,
    equal_returns,
    in_rows,
    no_ends,
    outside_box,
    to_dataset,
)

FLAGS = ("terminals", "timeouts", "masks")
_ROW = ("observations", "actions", "rewards", "next_observations")


@dataclass(frozen=True)
class Spread:
    """The minimum, median, mean and maximum of some numbers."""

    min: float
    median: float
    mean: float
    max: float

    @classmethod
    def of(cls, values: Array) -> Spread | None:
        """The spread of the finite ones, or None if there are none."""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return None
        low, middle, mean, high = (f(finite) for f in (np.min, np.median, np.mean, np.max))
        return cls(float(low), float(middle), float(mean), float(high))


@dataclass(frozen=True)
class Field:
    """One array of a source.

    Args:
        shape, dtype: as they are.
        min, mean, max: over its finite numbers; None if there are none.
        nan, infinite: rows with such a number; infinite in float32, which training uses.
    """

    shape: tuple[int, ...]
    dtype: str
    min: float | None
    mean: float | None
    max: float | None
    nan: int
    infinite: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a source holds.

    Args:
        source: where it comes from, in words.
        found: the names of everything in the file.
        conventions: what reading does to the arrays, in words.
        fields: each array that is used, by name.
        rows: in the file; None if its arrays differ in length or have no rows.
        terminals, timeouts: rows where the file has 1; None if it has no such array.
        masks: rows where the file's masks are 0, the task is done; None likewise.
        terminals_and_timeouts: rows where both are 1; None likewise.
        transitions, trajectories, done: what training would have: rows, ends of trajectories, and
            rows without a bootstrap (mask 0); None if it would refuse the source.
        returns: of the trajectories, with the rewards as in the file; None if unknown.
        lengths: of the trajectories, in rows; None if unknown.
        duplicates: rows equal to an earlier one in s, a, r, and s' if the file has it; None if the
            arrays do not match in length.
        outside: rows with an action outside the box by more than rounding; None if unknown.
        box: of the actions, in words.
        constant: coordinates of the observations that never change.
        renamed: flags that the file calls by other names, by these names.
        faults: everything for which training would refuse the source, one line each.
        remarks: what is worth knowing but no fault, one line each.
        per_trajectory: returns and lengths of every trajectory, for the picture.
    """

    source: str
    found: tuple[str, ...]
    conventions: tuple[str, ...]
    fields: dict[str, Field]
    rows: int | None
    terminals: int | None
    timeouts: int | None
    masks: int | None
    terminals_and_timeouts: int | None
    transitions: int | None
    trajectories: int | None
    done: int | None
    returns: Spread | None
    lengths: Spread | None
    duplicates: int | None
    outside: int | None
    box: str
    constant: tuple[int, ...]
    renamed: tuple[str, ...]
    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    per_trajectory: tuple[Array, Array]


def inspect(raw: RawData) -> Inspection:
    """Inspect a source, whatever is wrong with it; :func:`vgf.data.to_dataset` accepts it exactly
    if there are no faults.
    """
    raw = raw.spread()
    fields = {key: np.asarray(raw.arrays[key]) for key in RAW_KEYS if key in raw.arrays}
    sound = {key: array for key, array in fields.items() if form_fault(key, array) is None}
    lengths = {len(array) for array in sound.values()}
    whole = len(sound) == len(fields) and len(lengths) == 1 and 0 not in lengths
    rows = lengths.pop() if whole else None
    dataset, refusal = _attempt(raw)
    found = _faults(raw, fields, sound)
    faults = [] if refusal is None else found or [refusal]
    counts = {key: _flag_count(key, sound) for key in FLAGS}
    both = None
    if whole and {"terminals", "timeouts"} <= sound.keys():
        both = int(((sound["terminals"] == 1) & (sound["timeouts"] == 1)).sum())
    returns, steps = _trajectories(raw, sound) if whole else (np.zeros(0), np.zeros(0))
    outside = outside_box(raw, sound["actions"]) if "actions" in sound else None
    constant = _constant(sound["observations"]) if "observations" in sound else ()
    duplicates = duplicated([sound[key] for key in _ROW if key in sound]) if whole else None
    return Inspection(
        source=raw.source,
        found=raw.found,
        conventions=raw.conventions(),
        fields={key: _field(array) for key, array in fields.items()},
        rows=rows,
        terminals=counts["terminals"],
        timeouts=counts["timeouts"],
        masks=counts["masks"],
        terminals_and_timeouts=both,
        transitions=None if dataset is None else len(dataset),
        trajectories=None if dataset is None else int(dataset.terminals.sum()),
        done=None if dataset is None else int((dataset.masks == 0).sum()),
        returns=Spread.of(returns),
        lengths=Spread.of(steps),
        duplicates=duplicates,
        outside=None if outside is None else int(outside.sum()),
        box=box_of(raw),
        constant=constant,
        renamed=tuple(word for _, name in raw.renamed for word in name.split()),
        faults=tuple(faults),
        remarks=(
            *(() if dataset is None else equal_returns(raw)),
            *_remarks(raw, duplicates, outside, constant, both),
        ),
        per_trajectory=(returns, steps),
    )


def _attempt(raw: RawData) -> tuple[Dataset | None, str | None]:
    """What training would get from a source, or the message with which it refuses it."""
    try:
        return to_dataset(raw), None
    except VGFError as error:
        return None, str(error).removeprefix(f"{raw.source}: ")


# --- faults -------------------------------------------------------------------------------------


def _faults(raw: RawData, fields: Mapping[str, Array], sound: Mapping[str, Array]) -> list[str]:
    """Everything that is wrong, one line each."""
    faults = [*_missing(raw, fields)]
    for key, array in fields.items():
        if key not in sound:
            faults.append(f"{key} {form_fault(key, array)}")
    lengths = {key: len(array) for key, array in sound.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length:,}" for key, length in lengths.items())
        faults.append(f"lengths differ: {listed}")
    elif 0 in lengths.values():
        faults.append("there are no rows")
    faults += _sizes(raw, sound)
    for key, array in sound.items():
        faults += _numbers(key, array)
    if "actions" in sound and raw.action_clip is None:
        faults += box_fault(raw, sound["actions"])
    return faults


def _missing(raw: RawData, fields: Mapping[str, Array]) -> list[str]:
    """Keys without which nothing can be trained."""
    missing = [key for key in ("observations", "actions", "rewards") if key not in fields]
    if "terminals" not in fields and not {"masks", "timeouts"} <= fields.keys():
        missing.append("terminals")
    listed = ", ".join(sorted(raw.found or fields)) or "nothing"
    return [f"{key} is missing; the file has {listed}" for key in missing]


def _sizes(raw: RawData, sound: Mapping[str, Array]) -> list[str]:
    """Fields whose rows have different sizes, and actions that do not fit their box."""
    faults = []
    if {"observations", "next_observations"} <= sound.keys():
        sizes = [sound[key].shape[1] for key in ("observations", "next_observations")]
        if sizes[0] != sizes[1]:
            faults.append(
                f"observations have {sizes[0]} numbers and next_observations {sizes[1]}; they "
                "must agree"
            )
    if "actions" in sound and raw.action_low is not None:
        size = sound["actions"].shape[1]
        if size != len(raw.action_low):
            faults.append(
                f"actions have {size} numbers and the environment's {len(raw.action_low)}; are "
                "they from another environment?"
            )
    return faults


def _numbers(key: str, array: Array) -> list[str]:
    """Rows with numbers that cannot be trained on."""
    faults = []
    nan, infinite = _not_finite(array)
    if nan.any():
        faults.append(f"{key} has NaN in {in_rows(nan)}")
    if infinite.any():
        faults.append(f"{key} has infinity, or what float32 cannot hold, in {in_rows(infinite)}")
    if key in FLAGS:
        odd = (array != 0) & (array != 1) & ~nan & ~infinite
        if odd.any():
            worst = array[np.argmax(odd)]
            faults.append(f"{key} is neither 0 nor 1 in {in_rows(odd)}: {float(worst):g}")
    return faults


def _not_finite(array: Array) -> tuple[Array, Array]:
    """Rows with NaN, and rows with numbers that are infinite in float32."""
    if array.dtype.kind != "f" or not array.size:
        return np.zeros(len(array), bool), np.zeros(len(array), bool)
    flat = array.reshape(len(array), -1)
    with np.errstate(over="ignore"):
        infinite = np.isinf(flat.astype(np.float32, copy=False))
    return np.asarray(np.isnan(flat).any(axis=1)), np.asarray(infinite.any(axis=1))


# --- counts -------------------------------------------------------------------------------------


def _field(array: Array) -> Field:
    low = mean = high = None
    nan = infinite = np.zeros(0, bool)
    if array.dtype.kind in "fiub" and array.ndim > 0:
        nan, infinite = _not_finite(array)
        finite = array if not (nan.any() or infinite.any()) else array[np.isfinite(array)]
        if finite.size:
            low, high = float(finite.min()), float(finite.max())
            mean = float(finite.mean(dtype=np.float64))
    shape = tuple(map(int, array.shape))
    return Field(shape, str(array.dtype), low, mean, high, int(nan.sum()), int(infinite.sum()))


def _flag_count(key: str, sound: Mapping[str, Array]) -> int | None:
    """Rows where a flag marks an end: masks 0, the others 1."""
    if key not in sound:
        return None
    return int((sound[key] == (0 if key == "masks" else 1)).sum())


def _trajectories(raw: RawData, sound: Mapping[str, Array]) -> tuple[Array, Array]:
    """The return and the length of each trajectory, as far as the file has them."""
    if "observations" not in sound or not {"terminals", "timeouts"} & sound.keys():
        return np.zeros(0), np.zeros(0)
    _, ends = ends_of(raw, sound)
    ends[-1] = True  # the end of the file
    starts = np.append(0, np.flatnonzero(ends)[:-1] + 1)
    lengths = np.diff(np.append(starts, len(ends)))
    if "rewards" not in sound:
        return np.zeros(0), lengths
    return np.add.reduceat(sound["rewards"].astype(np.float64), starts), lengths


def _constant(observations: Array) -> tuple[int, ...]:
    """Coordinates that never change."""
    if len(observations) < 2:
        return ()
    same = (observations == observations[0]).all(axis=0)
    return tuple(int(i) for i in np.flatnonzero(same))


def duplicated(arrays: list[Array]) -> int:
    """How many rows equal an earlier one, bit by bit, in all of some arrays ``[M, *]``.

    Rows are compared by a 64-bit hash first, then in full where hashes are equal.
    """
    columns = [
        column
        for array in arrays
        for column in (array.reshape(len(array), -1).T if array.size else ())
    ]
    hashes = np.zeros(len(arrays[0]) if arrays else 0, np.uint64)
    prime, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
    for column in columns:
        hashes = (hashes ^ _bits(column)) * prime
        hashes ^= hashes >> shift
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(counts[inverse] > 1)
    if not len(shared):
        return 0
    rows = np.stack([_bits(column[shared]) for column in columns], axis=1)
    return len(shared) - len(np.unique(rows, axis=0))


def _bits(column: Array) -> Array:
    """The bits of numbers in float64, with -0.0 as 0.0."""
    return np.ascontiguousarray(column.astype(np.float64) + 0.0).view(np.uint64)


def _remarks(
    raw: RawData,
    duplicates: int | None,
    outside: Array | None,
    constant: tuple[int, ...],
    both: int | None,
) -> list[str]:
    """What is worth knowing but no fault."""
    remarks = [*no_ends(raw)]
    if raw.action_clip is not None and outside is not None and outside.any():
        remarks.append(f"actions leave [-1, 1] in {in_rows(outside)}, and are clipped")
    if duplicates:
        remarks.append(f"duplicates: {duplicates:,} rows equal an earlier one")
    if constant:
        remarks.append(f"observations never change in coordinates {', '.join(map(str, constant))}")
    if both:
        what = "mask 0" if "masks" not in raw.arrays else "the mask decides"
        remarks.append(f"terminals and timeouts are both 1 in {both:,} rows: {what}")
    return remarks

"""Deciding whether two results are the same, in units that follow the dtype and the problem.

One rule serves every function and dtype. An implementation in a dtype of machine epsilon u passes
if each entry of its result is off by no more than

    FACTOR * ( u * (size + floor) + sensitivity + tiny )

`size` is the largest entry of the expected result within the same set (its last two axes; a
vector's entries stand alone), `floor` the absolute size below which a function does not promise
digits (1 for most, 0 where the specification keeps relative accuracy), `tiny` the smallest normal
number (numbers below it lose digits, or are flushed to zero), and `sensitivity` how far
the specification's own result moves when each distinct number of its input is changed by the
relative amount u. That is the textbook demand on a stable algorithm: nearly the right answer to
nearly the right question (Higham 2002, Section 1.5). It needs no tolerance per function, and a
result that the input determines well must be right to the last few digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..spec.optimiser import tree_map

# The one tolerance, in units of rounding. See README: "Tolerances".
FACTOR = 64.0
MACHINE_EPSILON = {dtype: float(np.finfo(dtype).eps) for dtype in ("float32", "float64")}
SMALLEST_NORMAL = {dtype: float(np.finfo(dtype).tiny) for dtype in ("float32", "float64")}
# How often the input is perturbed to estimate the sensitivity.
PERTURBATIONS = 4


@dataclass(frozen=True)
class Difference:
    """The entry of a result that lies furthest from the expected one, relative to the tolerance.

    Attributes:
        leaf: which array of the result, "" when there is one only.
        index: which entry of it.
        got, expected: the entry's two values.
        absolute: the largest |got - expected| of any entry.
        relative: the largest |got - expected| / size, where the size is not 0.
        ratio: error over tolerance, at the worst entry; the results agree if it is at most 1.
        fault: what is wrong other than a number (a missing array, a shape, a dtype), or "".
        leaves: every array that disagrees.
    """

    leaf: str = ""
    index: tuple[int, ...] = ()
    got: float = 0.0
    expected: float = 0.0
    absolute: float = 0.0
    relative: float = 0.0
    ratio: float = 0.0
    fault: str = ""
    leaves: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.fault and self.ratio <= 1.0

    def __str__(self) -> str:
        where = self.leaf or "the result"
        if self.fault:
            return f"{where}: {self.fault}"
        at = f" at {list(self.index)}" if self.index else ""
        return (
            f"{where}{at}: got {self.got!r}, expected {self.expected!r}; the error is "
            f"{self.ratio:.3g} times the tolerance (largest absolute error {self.absolute:.3g}, "
            f"relative {self.relative:.3g})"
        )


def tolerance_in_words() -> str:
    """The tolerance, as a passing check states it."""
    u = MACHINE_EPSILON
    return (
        f"{FACTOR:g} units of rounding ({u['float64']:.1e} in float64, {u['float32']:.1e} in "
        "float32), plus what the specification's own result moves when the input is rounded"
    )


def named_leaves(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    """The arrays of nested dicts, lists and tuples, each with its path.

    None (the state of plain ascent) counts as no array.
    """
    if tree is None:
        return []
    if isinstance(tree, dict):
        items = [(str(key), tree[key]) for key in sorted(tree)]
    elif isinstance(tree, (tuple, list)):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return [(name, tree)]
    return [
        leaf
        for key, value in items
        for leaf in named_leaves(value, f"{name}.{key}" if name else key)
    ]


def largest_in_set(x: np.ndarray) -> np.ndarray:
    """The largest finite magnitude within each set: over the last two axes, or of each entry."""
    x = np.where(np.isfinite(x), np.abs(x), 0.0)
    if x.ndim < 2:
        return x
    return np.broadcast_to(np.max(x, axis=(-2, -1), keepdims=True, initial=0.0), x.shape)


def difference(
    got: Any,
    expected: Any,
    dtype: str,
    sensitivity: Any = None,
    floor: float = 1.0,
    u: float | None = None,
) -> Difference:
    """Compare two results, array by array.

    Args:
        got: arrays in nested dicts and tuples; converted with numpy.asarray.
        expected: the same, from the specification in float64.
        dtype: "float32" or "float64", the precision that `got` was computed in.
        sensitivity: the same as `expected`: how far each entry moves under perturbation.
        floor: see the head of this file.
        u: the unit of rounding; None is that of the dtype.

    Returns:
        The worst :class:`Difference`; the results agree if its `agrees` is true.
    """
    got_leaves, expected_leaves = dict(named_leaves(got)), dict(named_leaves(expected))
    moves = dict(named_leaves(sensitivity)) if sensitivity is not None else {}
    if got_leaves.keys() != expected_leaves.keys():
        missing = ", ".join(expected_leaves.keys() - got_leaves.keys()) or "nothing"
        extra = ", ".join(got_leaves.keys() - expected_leaves.keys()) or "nothing"
        return Difference(fault=f"missing {missing}; unexpected {extra}", ratio=np.inf)
    worst = Difference()
    for name, want in expected_leaves.items():
        found = _leaf_difference(
            name, np.asarray(got_leaves[name]), np.asarray(want), dtype, moves.get(name), floor, u
        )
        if found.fault:
            return replace(found, leaves=(name,))
        worst = Difference(
            *_key(max(worst, found, key=lambda d: d.ratio)),
            absolute=max(worst.absolute, found.absolute),
            relative=max(worst.relative, found.relative),
            ratio=max(worst.ratio, found.ratio),
            leaves=worst.leaves if found.agrees else (*worst.leaves, name),
        )
    return worst


def _key(d: Difference) -> tuple[str, tuple[int, ...], float, float]:
    return d.leaf, d.index, d.got, d.expected


def _leaf_difference(
    name: str,
    got: np.ndarray,
    want: np.ndarray,
    dtype: str,
    move: Any,
    floor: float,
    u: float | None = None,
) -> Difference:
    if got.shape != want.shape:
        fault = f"got shape {got.shape}, expected {want.shape}"
        return Difference(name, fault=fault, ratio=np.inf)
    if want.dtype.kind in "iub":
        if got.dtype.kind != want.dtype.kind:
            fault = f"got dtype {got.dtype}, expected {want.dtype}"
            return Difference(name, fault=fault, ratio=np.inf)
        # an index may differ only where the smallest perturbation changes it too
        want, got = want.astype(float), got.astype(float)
    elif got.dtype != dtype:
        fault = f"got dtype {got.dtype}, expected {dtype}"
        return Difference(name, fault=fault, ratio=np.inf)
    if want.size == 0:
        return Difference(name)
    u = MACHINE_EPSILON[dtype] if u is None else u
    size = largest_in_set(want)
    moved = largest_in_set(np.asarray(move)) if move is not None else 0.0
    tolerance = FACTOR * (u * (size + floor) + moved + SMALLEST_NORMAL[dtype])
    with np.errstate(invalid="ignore"):  # inf - inf
        error = np.abs(got.astype(np.float64) - want)
    same = (np.isnan(got) & np.isnan(want)) | (got == want)
    error = np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0, error / tolerance, 0.0)
        relative = np.where((error > 0) & (size > 0), error / size, 0.0)
    worst = np.unravel_index(np.argmax(ratio), ratio.shape)
    return Difference(
        name,
        tuple(int(i) for i in worst),
        float(got[worst]),
        float(want[worst]),
        float(np.max(error)),
        float(np.max(relative)),
        float(ratio[worst]),
    )


def perturb(tree: Any, relative: float, seed: int, unit: float = 0.0) -> Any:
    """Change each distinct number of a tree by a relative amount, up or down at random.

    Equal numbers of one array stay equal and zero stays zero, so that identical particles, ties
    and masks are still what they were.

    Args:
        unit: transport takes 1, as the particles it moves are rounded at the scale of the box
            wherever they start, and ties between them do not outlast a step: numbers smaller than
            the unit are changed by what it would be changed by, and equal rows stay equal rather
            than equal numbers.
    """
    rng = np.random.default_rng([seed])

    def change(x: Any) -> Any:
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            return x
        rows = x.reshape(-1, x.shape[-1]) if unit and x.ndim else x.ravel()
        values, place = np.unique(rows, axis=0, return_inverse=True)
        signs = rng.choice([-1.0, 1.0], size=values.shape)
        changed = values + relative * signs * np.maximum(np.abs(values), unit)
        return changed[place.ravel()].reshape(x.shape)

    if isinstance(tree, (tuple, list)):
        return tuple(perturb(item, relative, seed + i, unit) for i, item in enumerate(tree))
    return tree_map(change, tree)


def expected_and_sensitivity(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    dtype: str,
    unit: float = 0.0,
    shaken: Callable[..., Any] | None = None,
    u: float | None = None,
) -> tuple[Any, Any]:
    """The specification's result in float64, and how far it moves under perturbation.

    Args:
        function: of the specification.
        arguments: float64 arrays that hold numbers of the given dtype exactly.
        dtype: the precision under test.
        unit: as in :func:`perturb`.
        shaken: the function with rounding inside, called with a seed before the perturbed
            arguments; None is the function itself.
        u: the unit of rounding; None is that of the dtype.
    """
    expected = function(*arguments)
    base = [np.asarray(leaf, np.float64) for _, leaf in named_leaves(expected)]
    moves = [np.zeros_like(leaf) for leaf in base]
    for seed in range(PERTURBATIONS):
        moved = perturb(arguments, u or MACHINE_EPSILON[dtype], seed, unit)
        shifted = function(*moved) if shaken is None else shaken(seed, *moved)
        for i, (_, leaf) in enumerate(named_leaves(shifted)):
            with np.errstate(invalid="ignore"):
                moves[i] = np.fmax(moves[i], np.abs(np.asarray(leaf, np.float64) - base[i]))
    names = [name for name, _ in named_leaves(expected)]
    return expected, dict(zip(names, moves, strict=True))


def assert_matches(
    got: Any, expected: Any, dtype: str = "float64", sensitivity: Any = None, floor: float = 1.0
) -> None:
    """Raise AssertionError unless two results agree; the message names the entry and both values.

    Arguments as :func:`difference`.
    """
    found = difference(got, expected, dtype, sensitivity, floor)
    if not found.agrees:
        raise AssertionError(str(found))

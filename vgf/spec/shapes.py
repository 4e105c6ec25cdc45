"""Shape checks shared by the specification and the backends.

NumPy, torch and JAX all broadcast silently, and in reinforcement learning the classic result is a
``[B, 1]`` reward meeting a ``[B]`` value and training on a ``[B, B]`` target. Every function of the
specification therefore states its shapes once, in code, before it computes.
"""

from __future__ import annotations

from typing import Any


def check_shapes(function: str, **arrays: tuple[Any, str]) -> dict[str, int]:
    """Check that arrays have the shapes a function expects, and agree with each other.

    Shapes:
        Each keyword is ``name=(array, pattern)``. A pattern is axis names separated by spaces, such
        as ``"* N d"``: a number stands for itself, a name for one size that must be the same
        wherever it appears, and a leading ``*`` for any number of leading axes, the same
        for every array. ``""`` is a scalar.

    Equation:
        None.

    Raises:
        ValueError: naming the function, the argument, its shape, and the shape expected.

    Source:
        The field's habit of checking rank and type first (rlax, chex).
    """
    sizes: dict[str, int] = {}
    lead: tuple[int, ...] | None = None
    for name, (array, pattern) in arrays.items():
        shape = tuple(array.shape)
        axes = pattern.split()
        starred = axes[:1] == ["*"]
        axes = axes[1:] if starred else axes
        split = len(shape) - len(axes)
        fits = split >= 0 if starred else split == 0
        if fits and starred:
            lead = shape[:split] if lead is None else lead
            fits = shape[:split] == lead
        if fits:
            for axis, size in zip(axes, shape[split:], strict=True):
                want = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
                fits = fits and size == want
        if not fits:
            known = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
            known = f" with {known}" if known else ""
            stars = f" and * = {lead}" if starred and lead is not None else ""
            wanted = ", ".join(pattern.split()) or "a scalar"
            raise ValueError(
                f"{function}: {name} has shape {shape}, expected [{wanted}]{known}{stars}"
            )
    return sizes


def check_states(function: str, s: Any, a: Any) -> None:
    """Check that there is one state for each action, or for each set of actions.

    Shapes:
        s: ``[*, o]``; a: ``[*, d]``, or ``[*, N, d]`` for N particles per state.

    Equation:
        None.

    Raises:
        ValueError: naming both shapes.

    Source:
        The notation of the paper: one set of particles a_1 .. a_N per state s.
    """
    lead, target = tuple(s.shape[:-1]), tuple(a.shape[:-1])
    if target != lead and target[:-1] != lead:
        raise ValueError(
            f"{function}: states of shape {tuple(s.shape)} do not match actions of shape "
            f"{tuple(a.shape)}; expected [*, o] with [*, d], or with [*, N, d]"
        )

"""Picking one action out of a state's particles."""

from __future__ import annotations

import numpy as np

from .parts import SelectionRule, equations
from .registry import find
from .settings import SELECTION_RULES
from .shapes import check_shapes
from .types import Array


def selection_probabilities(q: Array, rule: str = "best", temperature: float = 1.0) -> Array:
    """The probability with which each particle is picked.

    Shapes:
        q: values ``[*, N]``; temperature: of the softmax, in units of Q. Returns ``[*, N]``.

    Equation:
        best:     1 for the first particle of the highest value, 0 for the others
        softmax:  exp(q_i / temperature) / sum_j exp(q_j / temperature)
        uniform:  1 / N

    Raises:
        ValueError: an unknown rule.

    Source:
        Paper, best of N; authors' code, `sample_actions`.
    """
    n = q.shape[-1]
    if rule == "best":
        best = np.argmax(q, axis=-1)[..., None]
        return (np.arange(n) == best).astype(q.dtype)
    if rule == "softmax":
        weight = np.exp((q - np.max(q, axis=-1, keepdims=True)) / temperature)
        return weight / np.sum(weight, axis=-1, keepdims=True)
    if rule == "uniform":
        return np.full_like(q, 1 / n)
    raise ValueError(f"selection is {rule!r}; choose one of {', '.join(SELECTION_RULES)}")


def select(
    a: Array, q: Array, u: Array, rule: str = "best", temperature: float = 1.0
) -> tuple[Array, Array]:
    """Pick one particle of each state.

    Shapes:
        a: ``[*, N, d]``; q: their values ``[*, N]``; u: uniform on [0, 1), ``[*]``, one number per
        state whatever the rule. Returns the actions ``[*, d]`` and their indices ``[*]``.

    Equation:
        best:     i = argmax q, the first of equals
        softmax:  i = the first particle with p_1 + ... + p_i > u
        uniform:  i = floor(u N) + 1
        so that particle i is picked with probability p_i of selection_probabilities;
        or your own SelectionRule, by its name

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Paper, best of N; authors' code, `sample_actions`. The inverse of the distribution
        function stands in for the authors' categorical draw.
    """
    n = check_shapes("select", a=(a, "* N d"), q=(q, "* N"), u=(u, "*"))["N"]
    if ":" in rule:
        index = find(SelectionRule, rule, "selection").pick(equations(), q, u, temperature)
        return np.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :], index
    p = selection_probabilities(q, rule, temperature)
    if rule == "best":
        index = np.argmax(p, axis=-1)
    elif rule == "softmax":
        index = np.sum(np.cumsum(p, axis=-1) <= u[..., None], axis=-1)
    else:
        index = np.floor(u * n).astype(int)
    index = np.minimum(index, n - 1)  # rounding can bring the sum, or u N, a little too far
    return np.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :], index

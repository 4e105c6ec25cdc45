"""Adam, the clipping that goes before it, and the averaging of target networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from .types import Array, Params


def tree_map(function: Any, tree: Any, *others: Any) -> Any:
    """Apply a function to the arrays of nested dicts, leaf by leaf.

    Shapes:
        All trees have the same keys; the leaves are anything the function takes.

    Equation:
        None.

    Raises:
        ValueError: the keys differ.

    Source:
        The tree utilities of JAX, for the one container that parameters use here.
    """
    if not isinstance(tree, dict):
        return function(tree, *others)
    for other in others:
        if not isinstance(other, dict) or other.keys() != tree.keys():
            keys = sorted(other) if isinstance(other, dict) else type(other).__name__
            raise ValueError(f"trees differ: {sorted(tree)} against {keys}")
    return {key: tree_map(function, tree[key], *(o[key] for o in others)) for key in tree}


def adam_init(params: Any) -> Params:
    """Adam's state before its first step.

    Shapes:
        params: an array or a tree; ``count`` is a scalar, ``m`` and ``v`` have the shapes
        of params.

    Equation:
        t = 0, m = 0, v = 0

    Source:
        Kingma and Ba 2015, Algorithm 1.
    """
    zeros = tree_map(np.zeros_like, params)
    return {"count": np.zeros((), np.int32), "m": zeros, "v": tree_map(np.copy, zeros)}


def adam_step(
    params: Any,
    gradient: Any,
    state: Params,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
) -> tuple[Any, Params]:
    """One descent step of Adam, with bias correction and epsilon outside the root.

    In float32 a gradient above 1.8e19 has an infinite square: v is infinite from then on, and that
    entry no longer moves. In torch, whose Adam multiplies in another order, the limit is 5.8e20.

    Shapes:
        params, gradient: the same array shape or tree; state: as :func:`adam_init` makes it.
        Returns new params and the new state.

    Equation:
        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   t <- t + 1
        theta <- theta - lr * ( m / (1 - b1^t) ) / ( sqrt(v / (1 - b2^t)) + epsilon )

    Raises:
        ValueError: trees with different keys.

    Source:
        Kingma and Ba 2015, Algorithm 1; constants of optax.adam, as the authors' code uses it.
    """
    t = int(state["count"]) + 1
    m = tree_map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], gradient)
    v = tree_map(lambda v, g: b2 * v + (1 - b2) * g**2, state["v"], gradient)
    params = tree_map(
        lambda p, m, v: (
            p - learning_rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        ),
        params,
        m,
        v,
    )
    return params, {"count": np.asarray(t, np.int32), "m": m, "v": v}


def global_norm(tree: Any) -> Array:
    """The Euclidean norm of a whole tree, as one long vector.

    In float32 it is infinite where an entry is above 1.8e19, or the sum of squares above 3.4e38.

    Shapes:
        tree: an array or a tree; returns a scalar.

    Equation:
        ||g|| = sqrt( sum over leaves and entries of g^2 )

    Source:
        Pascanu et al. 2013; optax.global_norm.
    """
    if not isinstance(tree, dict):
        return np.sqrt(np.sum(tree**2))
    squares = [global_norm(leaf) ** 2 for leaf in tree.values()]
    return np.sqrt(np.sum(np.stack(squares)))


def clip_by_global_norm(gradient: Any, max_norm: float) -> Any:
    """Scale a gradient down to a norm, if it is longer; to 0, if :func:`global_norm` is infinite.

    Shapes:
        gradient: an array or a tree; returns the same.

    Equation:
        g <- g * min(1, c / ||g||)

    Source:
        Pascanu et al. 2013; optax.clip_by_global_norm; the authors' A-VGF uses c = 1.
    """
    norm = global_norm(gradient)
    scale = max_norm / np.maximum(norm, max_norm)
    return tree_map(lambda g: g * scale.astype(g.dtype), gradient)


def polyak(online: Any, target: Any, tau: float) -> Any:
    """Move a target network a little towards the online network.

    Shapes:
        online, target: trees with the same keys and shapes; returns the new target.

    Equation:
        theta' <- tau theta + (1 - tau) theta'

    Raises:
        ValueError: trees with different keys.

    Source:
        Paper, Algorithm 1 (Lillicrap et al. 2016).
    """
    return tree_map(lambda p, q: tau * p + (1 - tau) * q, online, target)

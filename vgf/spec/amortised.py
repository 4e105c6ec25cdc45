"""Amortised VGF (A-VGF): a network f(s, a) learns the critic's gradient; the flow follows it."""

from __future__ import annotations

import numpy as np

from .flow import follow
from .networks import mlp, mlp_vjp
from .reference import repeat_states
from .settings import Budget
from .shapes import check_shapes
from .types import Array, Params


def gradient_field(params: Params, s: Array, a: Array, activation: str = "relu") -> Array:
    """The amortised gradient f(s, a).

    Shapes:
        params: a network; s: ``[*, o]``; a: ``[*, d]`` or ``[*, N, d]``. Returns the shape of a.

    Equation:
        f(s, a) = mlp( [s, a] )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, amortised VGF; authors' code, `ValueGrad`.
    """
    x = np.concatenate([repeat_states(s, a), a], axis=-1)
    return mlp(params, x.reshape(-1, x.shape[-1]), activation).reshape(a.shape)


def normalise_rows(g: Array) -> Array:
    """Gradients scaled to unit length.

    Shapes:
        g: ``[*, d]``; returns the same.

    Equation:
        g <- g / ( ||g|| + 1e-8 )

    Source:
        Authors' A-VGF, `q_grad_norm`.
    """
    return g / (np.sqrt(np.sum(g**2, axis=-1, keepdims=True)) + 1e-8)


def gradient_field_loss(
    params: Params, s: Array, a: Array, g: Array, normalise: bool = False, activation: str = "relu"
) -> Array:
    """The regression of f on the critic's action gradient at the data.

    Shapes:
        s: ``[B, o]``; a, g: ``[B, d]``, g = grad_a mean_e Q_e(s, a). Returns a scalar.

    Equation:
        loss = mean over batch and dimensions of ( f(s, a) - g )^2, g optionally normalise_rows(g)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, amortised VGF; authors' A-VGF, `q_grad_loss_fn`.
    """
    return gradient_field_gradient(params, s, a, g, normalise, activation)[0]


def gradient_field_gradient(
    params: Params, s: Array, a: Array, g: Array, normalise: bool = False, activation: str = "relu"
) -> tuple[Array, Params]:
    """The regression loss of f and its gradient; g is a constant.

    Shapes:
        As :func:`gradient_field_loss`; returns the loss and a tree like params.

    Equation:
        d loss / d f = 2 ( f - g ) / (B d), pulled back by mlp_vjp

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`gradient_field_loss`.
    """
    check_shapes("gradient_field", s=(s, "B o"), a=(a, "B d"), g=(g, "B d"))
    target = normalise_rows(g) if normalise else g
    x = np.concatenate([s, a], axis=-1)
    error = mlp(params, x, activation) - target
    gradient, _ = mlp_vjp(params, x, 2 * error / error.size, activation)
    return np.mean(error**2), gradient


def amortised_transport(
    params: Params,
    s: Array,
    a: Array,
    budget: Budget,
    activation: str = "relu",
    trajectory: bool = False,
) -> Array:
    """Transport particles along f alone: no kernel, no repulsion, no temperature.

    Shapes:
        params: the network f; s: ``[*, o]``; a: ``[*, N, d]``. Returns ``[*, N, d]``, or
        ``[L + 1, *, N, d]`` with `trajectory`.

    Equation:
        a^(l+1) = flow_step( a^(l), f(s, a^(l)) ),  l = 0 .. L - 1

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, amortised VGF; authors' A-VGF, `SVGD_VGF.step`.
    """
    return follow(lambda a: gradient_field(params, s, a, activation), a, budget, trajectory)

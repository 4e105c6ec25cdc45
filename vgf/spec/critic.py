"""The critic Q: its values, its action gradient, the TD target and the losses."""

from __future__ import annotations

import numpy as np

from .flow import transport
from .networks import ensemble, ensemble_vjp
from .parts import TARGETS, CriticLoss, Target, equations
from .reference import repeat_states
from .registry import find
from .settings import CRITIC_LOSSES, Budget
from .shapes import check_shapes
from .types import Array, Params


def _inputs(s: Array, a: Array) -> Array:
    """(s, a) side by side, one row for each action."""
    x = np.concatenate([repeat_states(s, a), a], axis=-1)
    return x.reshape(-1, x.shape[-1])


def critic_values(params: Params, s: Array, a: Array, activation: str = "relu") -> Array:
    """The values of an ensemble of critics.

    Shapes:
        params: an ensemble of E networks; s: ``[*, o]``; a: ``[*, d]`` or ``[*, N, d]``. Returns
        ``[E, *]`` or ``[E, *, N]``.

    Equation:
        Q_e(s, a) = mlp( theta_e, [s, a] )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1; authors' code, `Value`.
    """
    q = ensemble(params, _inputs(s, a), activation)
    return q.reshape(q.shape[0], *a.shape[:-1])


def aggregate(q: Array, how: str) -> Array:
    """One value out of an ensemble's.

    Shapes:
        q: ``[E, *]``; how: "mean" or "min"; returns ``[*]``.

    Equation:
        agg_e Q_e

    Raises:
        ValueError: an unknown rule.

    Source:
        Authors' code, `train_q_agg` and `vgf_q_agg`.
    """
    if how == "mean":
        return np.mean(q, axis=0)
    if how == "min":
        return np.min(q, axis=0)
    raise ValueError(f"ensemble aggregation is {how!r}; choose mean or min")


def action_gradient(
    params: Params, s: Array, a: Array, how: str = "mean", activation: str = "relu"
) -> Array:
    """The score that the flow climbs: the critic's gradient with respect to the action.

    Shapes:
        As :func:`critic_values`; how: "mean" or "min" over the critics, the value that is climbed.
        Returns the shape of a, in units of Q per unit of action.

    Equation:
        g = grad_a agg_e Q_e(s, a);  for "min", critics that tie for the minimum share it evenly

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Paper, the discretised flow and Algorithm 1. Derived by hand from :func:`critic_values`.
    """
    x = _inputs(s, a)
    q = ensemble(params, x, activation)
    if how == "mean":
        share = np.full_like(q, 1 / len(q))
    else:
        lowest = (q == aggregate(q, how)).astype(q.dtype)
        share = lowest / np.sum(lowest, axis=0)
    _, dx = ensemble_vjp(params, x, share, activation)
    return dx[:, s.shape[-1] :].reshape(a.shape)


def critic_transport(
    params: Params,
    s: Array,
    a: Array,
    budget: Budget,
    how: str = "mean",
    activation: str = "relu",
    trajectory: bool = False,
) -> Array:
    """Transport particles along the critic's gradient.

    Shapes:
        params: an ensemble; s: ``[*, o]``; a: ``[*, N, d]``; how: "mean" or "min" over the critics,
        the value that is climbed. Returns ``[*, N, d]``, or ``[L + 1, *, N, d]`` with `trajectory`.

    Equation:
        transport(g, a) with g(a) = grad_a agg_e Q_e(s, a)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1; authors' code, `SVGD_VGF`.
    """
    return transport(
        lambda a: action_gradient(params, s, a, how, activation), a, budget, trajectory
    )


def td_target(
    q: Array,
    r: Array,
    mask: Array,
    discount: float,
    how: str = "min",
    particles: str = "mean",
    target: str = "td",
) -> Array:
    """The temporal-difference target from the target critics' values of the moved particles.

    Shapes:
        q: ``[E, B, N]``, Qtarget_e(s', a_i); r: ``[B]``; mask: ``[B]``, 0 where the task is done
        and nothing follows, 1 elsewhere (at a timeout too); how: "min" or "mean" over the critics;
        particles: "mean" or "max" over the particles; target: "td", or the name of your own target.
        Returns ``[B]``.

    Equation:
        y = r + discount * mask * agg_i( agg_e Qtarget_e(s', a_i) ),  agg_i mean or max

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Paper, Algorithm 1; authors' code, `critic_loss_fn`.
    """
    check_shapes("td_target", q=(q, "E B N"), r=(r, "B"), mask=(mask, "B"))
    if target != "td":
        own = find(Target, target, "target", TARGETS)
        return own.value(equations(), q, r, mask, discount, how, particles)
    value = aggregate(q, how)
    if particles not in ("mean", "max"):
        raise ValueError(f"particle aggregation is {particles!r}; choose mean or max")
    value = np.mean(value, axis=-1) if particles == "mean" else np.max(value, axis=-1)
    r, mask = r.astype(value.dtype), mask.astype(value.dtype)  # whole numbers and bools too
    return r + discount * mask * value


def critic_loss(
    q: Array,
    y: Array,
    loss: str = "squared",
    expectile: float = 0.9,
    sparse_alpha: float | None = None,
) -> Array:
    """The losses of the critic, summed over the ensemble, or averaged over it.

    Shapes:
        q: ``[E, B]``, Q_e(s, a) on the data; y: targets ``[B]``; expectile: tau_e, in (0, 1);
        sparse_alpha: alpha_S, SQL's alpha, any positive number, or None for the expectile's.
        Returns a scalar.

    Equation:
        loss = mean over the batch of sum_e l(y - Q_e), with
        squared:       l(x) = x^2
        expectile:     l(x) = (tau_e if x >= 0 else 1 - tau_e) x^2
        sparse:        l(x) = alpha_S [w > 0] w^2 - x,  w = x / (2 alpha_S) + 1
        mean_squared:  loss = mean over the batch and the ensemble of (y - Q_e)^2

    Raises:
        ValueError: shapes that do not match, or an unknown loss.

    Source:
        Paper, Algorithm 1; Kostrikov et al. 2022 (expectile); Xu et al. 2023 (sparse, IVR);
        authors' code, `iql_loss` and `sql_loss`; FQL's code, `critic_loss` (mean_squared).
    """
    check_shapes("critic_loss", q=(q, "E B"), y=(y, "B"))
    x = y - q
    alpha = expectile if sparse_alpha is None else sparse_alpha
    if loss == "squared":
        value = x**2
    elif loss == "mean_squared":
        value = x**2 / len(q)
    elif loss == "expectile":
        value = np.where(x >= 0, expectile, 1 - expectile).astype(x.dtype) * x**2
    elif loss == "sparse":
        value = alpha * np.maximum(x / (2 * alpha) + 1, 0) ** 2 - x
    else:
        own = find(CriticLoss, loss, "critic_loss", CRITIC_LOSSES)
        return own.value(equations(), q, y, expectile)
    return np.mean(np.sum(value, axis=0))


def critic_loss_derivative(
    q: Array, y: Array, loss: str, expectile: float, sparse_alpha: float | None = None
) -> Array:
    """The derivative of :func:`critic_loss` with respect to the critics' values.

    Shapes:
        q: ``[E, B]``; y: ``[B]``. Returns ``[E, B]``.

    Equation:
        d loss / d Q_e = -l'(y - Q_e) / B, with
        squared: l'(x) = 2 x;   mean_squared: l'(x) = 2 x / E;
        expectile: l'(x) = 2 (tau_e if x >= 0 else 1 - tau_e) x;
        sparse:  l'(x) = [w > 0] w - 1,  w = x / (2 alpha_S) + 1

    Raises:
        ValueError: shapes that do not match, or an unknown loss.

    Source:
        Derived by hand from :func:`critic_loss`.
    """
    check_shapes("critic_loss_derivative", q=(q, "E B"), y=(y, "B"))
    x = y - q
    alpha = expectile if sparse_alpha is None else sparse_alpha
    if loss == "squared":
        slope = 2 * x
    elif loss == "mean_squared":
        slope = 2 * x / len(q)
    elif loss == "expectile":
        slope = 2 * np.where(x >= 0, expectile, 1 - expectile).astype(x.dtype) * x
    elif loss == "sparse":
        slope = np.maximum(x / (2 * alpha) + 1, 0) - 1
    else:
        return find(CriticLoss, loss, "critic_loss", CRITIC_LOSSES).derivative(q, y, expectile)
    return -slope / len(y)


def critic_gradient(
    params: Params,
    s: Array,
    a: Array,
    y: Array,
    loss: str = "squared",
    expectile: float = 0.9,
    activation: str = "relu",
    sparse_alpha: float | None = None,
) -> tuple[Array, Params]:
    """The critic's loss on a batch and its gradient; the target y is a constant.

    Shapes:
        params: an ensemble; s: ``[B, o]``; a: ``[B, d]``; y: ``[B]``. Returns the loss and a tree
        like params.

    Equation:
        critic_loss_derivative, pulled back by ensemble_vjp

    Raises:
        ValueError: shapes that do not match, or an unknown loss.

    Source:
        Derived by hand from :func:`critic_loss`.
    """
    check_shapes("critic_gradient", s=(s, "B o"), a=(a, "B d"), y=(y, "B"))
    q = critic_values(params, s, a, activation)
    value = critic_loss(q, y, loss, expectile, sparse_alpha)
    cotangent = critic_loss_derivative(q, y, loss, expectile, sparse_alpha)
    gradient, _ = ensemble_vjp(params, _inputs(s, a), cotangent[..., None], activation)
    return value, gradient

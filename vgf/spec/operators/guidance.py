"""The value's gradient inside the reference's sampler, at a noisy action x at time t.

x is on its way from noise (t = 0) to an action (t = 1). Where the critic is asked, and what the
gradient is taken through, is what separates the operators that guide a sampler.
"""

from __future__ import annotations

import numpy as np

from ..critic import action_gradient
from ..flow import project
from ..networks import mlp_vjp
from ..reference import flow_velocity, repeat_states, time_features
from ..shapes import check_shapes
from ..types import Array, Params

GUIDANCE = ("noisy", "denoised", "jacobian", "sampler")


def velocity_vjp(
    params: Params, s: Array, x: Array, t: Array, cotangent: Array, activation: str = "relu"
) -> Array:
    """The vector-Jacobian product of the reference's velocity with respect to the noisy action.

    Shapes:
        As :func:`flow_velocity`; cotangent: u, the shape of x. Returns the shape of x.

    Equation:
        J^T u,  J = d v(s, x, t) / d x

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`flow_velocity`.
    """
    check_shapes("velocity_vjp", x=(x, "* d"), t=(t, "* 1"), cotangent=(cotangent, "* d"))
    o, d = s.shape[-1], x.shape[-1]
    inputs = np.concatenate([repeat_states(s, x), x, time_features(params, t)], axis=-1)
    inputs = inputs.reshape(-1, inputs.shape[-1])
    _, gradient = mlp_vjp(params, inputs, cotangent.reshape(-1, d), activation)
    return gradient[:, o : o + d].reshape(x.shape)


def denoised_gradient(
    params: Params,
    critic: Params,
    s: Array,
    x: Array,
    t: Array,
    how: str = "min",
    activation: str = "relu",
    critic_activation: str = "relu",
) -> Array:
    """The critic's gradient at the denoised action, taken through the denoising.

    Shapes:
        params: the velocity network; critic: an ensemble; s, x, t: as :func:`flow_velocity`; how:
        "min" or "mean" over the critics. Returns the shape of x.

    Equation:
        y = x + (1 - t) v(s, x, t),   w = [-1 <= y <= 1] grad_a agg_e Q_e(s, clip(y, -1, 1))
        g = w + (1 - t) J^T w,   J = d v / d x

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Zhou et al. 2026 (QGF with the Jacobian). Derived by hand; the clip passes gradients on the
        closed interval.
    """
    y = x + (1 - t) * flow_velocity(params, s, x, t, activation)
    w = action_gradient(critic, s, project(y), how, critic_activation)
    w = w * (np.abs(y) <= 1).astype(w.dtype)
    return w + (1 - t) * velocity_vjp(params, s, x, t, w, activation)


def sampler_gradient(
    params: Params,
    critic: Params,
    s: Array,
    x: Array,
    start: int,
    sampling_steps: int = 10,
    how: str = "min",
    activation: str = "relu",
    critic_activation: str = "relu",
) -> Array:
    """The critic's gradient at the end of the sampler, through all steps that are left.

    Shapes:
        s: ``[*, o]``; x: ``[*, d]`` or ``[*, N, d]``, at time k / K; start: k, the steps that are
        behind; how: "min" or "mean" over the critics. Returns the shape of x.

    Equation:
        x_k = x,   x_{l+1} = x_l + v(s, x_l, l / K) / K  for l = k .. K - 1
        g_K = [-1 <= x_K <= 1] grad_a agg_e Q_e(s, clip(x_K, -1, 1))
        g_l = g_{l+1} + J_l^T g_{l+1} / K,   J_l = d v(s, x_l, l / K) / d x_l;   returns g_k

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Wang et al. 2022 (Diffusion-QL) differentiate their sampler; Zhou et al. 2026 guide by it
        ("BPTT"). Derived by hand: the chain rule, backwards.
    """

    def time(step: int) -> Array:
        return np.full((*x.shape[:-1], 1), step / sampling_steps, x.dtype)

    path = [x]
    for step in range(start, sampling_steps):
        v = flow_velocity(params, s, path[-1], time(step), activation)
        path.append(path[-1] + v / sampling_steps)
    end = path.pop()
    g = action_gradient(critic, s, project(end), how, critic_activation)
    g = g * (np.abs(end) <= 1).astype(g.dtype)
    for step in reversed(range(start, sampling_steps)):
        pulled = velocity_vjp(params, s, path.pop(), time(step), g, activation)
        g = g + pulled / sampling_steps
    return g


def guided_sample(
    params: Params,
    critic: Params,
    s: Array,
    x0: Array,
    sampling_steps: int = 10,
    weight: float = 1.0,
    guidance: str = "denoised",
    how: str = "min",
    activation: str = "relu",
    critic_activation: str = "relu",
) -> Array:
    """Draw actions from the flow reference by Euler's method, guided by the critic.

    Shapes:
        params: the velocity network; critic: an ensemble; s: ``[*, o]``; x0: standard normal
        noise, ``[*, d]`` or ``[*, N, d]``; weight: w, in units of action squared per unit of Q;
        how: "min" or "mean" over the critics. Returns actions of the shape of x0, in [-1, 1].

    Equation:
        x <- x + ( v(s, x, t) + w g ) / K,  t = k / K,  k = 0 .. K - 1;   a = clip(x, -1, 1)
        noisy:     g = grad_x agg_e Q_e(s, x)
        denoised:  g = grad_a agg_e Q_e(s, a) at a = clip( x + (1 - t) v(s, x, t), -1, 1 )
        jacobian:  g = denoised_gradient, the same through the denoising
        sampler:   g = sampler_gradient
        w = 0 is flow_sample.

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Zhou et al. 2026: QFQL (noisy), QGF (denoised), QGF with Jacobian, BPTT (sampler).
    """
    if guidance not in GUIDANCE:
        raise ValueError(f"guidance is {guidance!r}; choose one of {', '.join(GUIDANCE)}")
    x = x0
    for k in range(sampling_steps):
        t = np.full((*x.shape[:-1], 1), k / sampling_steps, x.dtype)
        v = flow_velocity(params, s, x, t, activation)
        if guidance == "noisy":
            g = action_gradient(critic, s, x, how, critic_activation)
        elif guidance == "denoised":
            g = action_gradient(critic, s, project(x + (1 - t) * v), how, critic_activation)
        elif guidance == "jacobian":
            g = denoised_gradient(params, critic, s, x, t, how, activation, critic_activation)
        else:
            g = sampler_gradient(
                params, critic, s, x, k, sampling_steps, how, activation, critic_activation
            )
        x = x + (v + weight * g) / sampling_steps
    return project(x)

"""The reference distribution mu(a|s): flow matching, or a Gaussian, fitted to the data's actions.

Both kinds are networks as in networks.py. The flow's takes (s, x, t) side by side; the Gaussian's
takes s and has one more array, ``log_std`` [d], which does not depend on the state.
"""

from __future__ import annotations

import math

import numpy as np

from .flow import project
from .networks import mlp, mlp_vjp
from .shapes import check_shapes, check_states
from .types import Array, Params

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
# Actions are clipped to +- this before the inverse of tanh; float32 represents it exactly.
TANH_EDGE = 1 - 2.0**-20
# The longest period of a sinusoidal embedding, with t in units of 1 / 10000.
TIME_PERIOD = 10_000.0


def repeat_states(s: Array, a: Array) -> Array:
    """States repeated so that there is one for each particle.

    Shapes:
        s: ``[*, o]``; a: ``[*, d]`` or ``[*, N, d]``; returns ``[*, o]`` or ``[*, N, o]``.

    Equation:
        s_i = s for every particle i of the state

    Raises:
        ValueError: states and actions do not match.

    Source:
        The notation of the paper.
    """
    check_states("repeat_states", s, a)
    if s.ndim == a.ndim:
        return s
    return np.broadcast_to(s[..., None, :], (*a.shape[:-1], s.shape[-1]))


def time_frequencies(features: int) -> Array:
    """The frequencies of a sinusoidal embedding of the time.

    Shapes:
        features: e, an even number. Returns ``[e / 2]``.

    Equation:
        w_i = 10000^(-2 i / e),  i = 0 .. e / 2 - 1

    Source:
        Vaswani et al. 2017; QGF's code (Zhou et al. 2026) embeds its time so, with 16 features.
    """
    half = features // 2
    return np.exp(-math.log(TIME_PERIOD) * np.arange(half) / half)


def time_features(params: Params, t: Array) -> Array:
    """What the velocity network is given of the time.

    Shapes:
        params: a network, with or without ``time_frequencies`` ``[e / 2]``, which nothing trains;
        t: ``[*, 1]``. Returns ``[*, 1]``, or ``[*, e]`` with frequencies.

    Equation:
        t;  with frequencies w, [ cos(10000 t w), sin(10000 t w) ]

    Source:
        Paper (t itself); QGF's code (Zhou et al. 2026), `timestep_embedding`.
    """
    if "time_frequencies" not in params:
        return t
    angle = t * TIME_PERIOD * params["time_frequencies"]
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)


def flow_velocity(params: Params, s: Array, x: Array, t: Array, activation: str = "relu") -> Array:
    """The velocity field v(s, x, t) of the flow reference.

    Shapes:
        params: a network; s: ``[*, o]``; x: ``[*, d]`` or ``[*, N, d]``; t: in [0, 1], the shape
        of x but for a last axis of 1. Returns the shape of x.

    Equation:
        v(s, x, t) = mlp( [s, x, time_features(t)] )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, the behaviour policy by flow matching; authors' code, `ActorVectorField`.
    """
    check_shapes("flow_velocity", x=(x, "* d"), t=(t, "* 1"))
    inputs = np.concatenate([repeat_states(s, x), x, time_features(params, t)], axis=-1)
    v = mlp(params, inputs.reshape(-1, inputs.shape[-1]), activation)
    return v.reshape(x.shape)


def flow_matching_loss(
    params: Params,
    s: Array,
    a: Array,
    x0: Array,
    t: Array,
    activation: str = "relu",
    weight: Array | None = None,
) -> Array:
    """The flow-matching loss of behaviour cloning.

    Shapes:
        s: ``[B, o]``; a, x0: ``[B, d]``, data and standard normal noise; t: ``[B, 1]``, uniform on
        [0, 1]; weight: w ``[B]``, or None for 1. Returns a scalar.

    Equation:
        x_t = (1 - t) x0 + t a
        loss = mean over batch and dimensions of w ( v(s, x_t, t) - (a - x0) )^2

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, the behaviour policy by flow matching; Lipman et al. 2023; authors' code,
        `actor_bc_loss_fn`.
    """
    return flow_matching_gradient(params, s, a, x0, t, activation, weight)[0]


def flow_matching_gradient(
    params: Params,
    s: Array,
    a: Array,
    x0: Array,
    t: Array,
    activation: str = "relu",
    weight: Array | None = None,
) -> tuple[Array, Params]:
    """The flow-matching loss and its gradient.

    Shapes:
        As :func:`flow_matching_loss`; returns the loss and a tree like params.

    Equation:
        d loss / d v = 2 w ( v - (a - x0) ) / (B d), pulled back by mlp_vjp

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`flow_matching_loss`.
    """
    check_shapes("flow_matching", s=(s, "B o"), a=(a, "B d"), x0=(x0, "B d"), t=(t, "B 1"))
    x_t, features = (1 - t) * x0 + t * a, time_features(params, t)
    inputs = np.concatenate([s, x_t, features], axis=-1)
    error = mlp(params, inputs, activation) - (a - x0)
    weighted = error * row_weights("flow_matching", weight, error)
    gradient, _ = mlp_vjp(params, inputs, 2 * weighted / error.size, activation)
    if "time_frequencies" in params:
        gradient["time_frequencies"] = np.zeros_like(params["time_frequencies"])
    return np.mean(weighted * error), gradient


def row_weights(where: str, weight: Array | None, rows: Array) -> Array:
    """Weights of a loss, one for each row of a batch; ones if there are none.

    Shapes:
        weight: ``[B]`` or None; rows: ``[B, d]``. Returns ``[B, 1]``.

    Equation:
        w

    Raises:
        ValueError: shapes that do not match.

    Source:
        Weighted behaviour cloning, as in Peng et al. 2019 and Wang et al. 2020.
    """
    if weight is None:
        return np.ones((len(rows), 1), rows.dtype)
    check_shapes(where, weight=(weight, "B"), a=(rows, "B d"))
    return weight[:, None]


def flow_sample(
    params: Params, s: Array, x0: Array, sampling_steps: int = 10, activation: str = "relu"
) -> Array:
    """Draw actions from the flow reference by Euler's method.

    Shapes:
        s: ``[*, o]``; x0: standard normal noise, ``[*, d]`` or ``[*, N, d]``. Returns actions of
        the shape of x0, in [-1, 1].

    Equation:
        x <- x + v(s, x, k / K) / K for k = 0 .. K - 1, from x0;   a = clip(x, -1, 1)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Authors' code, `sample_bc_actions`.
    """
    x = x0
    for k in range(sampling_steps):
        t = np.full((*x.shape[:-1], 1), k / sampling_steps, x.dtype)
        x = x + flow_velocity(params, s, x, t, activation) / sampling_steps
    return project(x)


def gaussian_loss(
    params: Params,
    s: Array,
    a: Array,
    tanh: bool = False,
    activation: str = "relu",
    weight: Array | None = None,
) -> Array:
    """The negative log-likelihood of the data under the Gaussian reference.

    Shapes:
        params: a network with ``log_std`` ``[d]``; s: ``[B, o]``; a: ``[B, d]``, in [-1, 1];
        weight: w ``[B]``, or None for 1. Returns a scalar, in nats.

    Equation:
        loss = mean over the batch of w ( -log N(u; mean(s), std^2) + [tanh] log det(da/du) )
        std = exp( clip(log_std, -5, 2) );  u = a without tanh
        with tanh: u = atanh( clip(a, +-(1 - 2^-20)) ),
        log det(da/du) = sum over d of log(1 - tanh(u)^2)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Authors' code, `Actor` and `actor_bc_loss_fn`; the clip before atanh is ours.
    """
    return gaussian_gradient(params, s, a, tanh, activation, weight)[0]


def gaussian_gradient(
    params: Params,
    s: Array,
    a: Array,
    tanh: bool = False,
    activation: str = "relu",
    weight: Array | None = None,
) -> tuple[Array, Params]:
    """The Gaussian's loss and its gradient.

    Shapes:
        As :func:`gaussian_loss`; returns the loss and a tree like params.

    Equation:
        With z = (u - mean(s)) / std:
        d loss / d mean = -w z / (B std), pulled back by mlp_vjp
        d loss / d log_std = mean over the batch of w (1 - z^2), where -5 <= log_std <= 2, else 0

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`gaussian_loss`.
    """
    log_std = params["log_std"]
    check_shapes("gaussian", s=(s, "B o"), a=(a, "B d"), log_std=(log_std, "d"))
    clipped = np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
    u = np.arctanh(np.clip(a, -TANH_EDGE, TANH_EDGE)) if tanh else a
    z = (u - mlp(params, s, activation)) * np.exp(-clipped)
    nll = z**2 / 2 + clipped + math.log(2 * math.pi) / 2
    if tanh:
        nll = nll + 2 * (math.log(2) - u - np.logaddexp(0, -2 * u))  # log(1 - tanh(u)^2)
    w = row_weights("gaussian", weight, a)
    gradient, _ = mlp_vjp(params, s, -w * z * np.exp(-clipped) / len(s), activation)
    inside = (log_std >= LOG_STD_MIN) & (log_std <= LOG_STD_MAX)
    gradient["log_std"] = np.mean(w * (1 - z**2), axis=0) * inside.astype(log_std.dtype)
    return np.mean(np.sum(w * nll, axis=-1)), gradient


def gaussian_sample(
    params: Params, s: Array, noise: Array, tanh: bool = False, activation: str = "relu"
) -> Array:
    """Draw actions from the Gaussian reference.

    Shapes:
        s: ``[*, o]``; noise: standard normal, ``[*, d]`` or ``[*, N, d]``. Returns actions of the
        shape of noise, in [-1, 1].

    Equation:
        u = mean(s) + exp( clip(log_std, -5, 2) ) * noise;   a = tanh(u), or clip(u, -1, 1)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Authors' code, `Actor` and `sample_bc_actions`.
    """
    check_states("gaussian_sample", s, noise)
    check_shapes("gaussian_sample", noise=(noise, "* d"), log_std=(params["log_std"], "d"))
    mean = mlp(params, s.reshape(-1, s.shape[-1]), activation)
    mean = mean.reshape(*s.shape[:-1], *(1,) * (noise.ndim - s.ndim), noise.shape[-1])
    u = mean + np.exp(np.clip(params["log_std"], LOG_STD_MIN, LOG_STD_MAX)) * noise
    return np.tanh(u) if tanh else project(u)

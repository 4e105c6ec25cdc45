"""What VGF is held against: weighted behaviour cloning, and FQL's one-step policy.

Behaviour cloning itself is the reference (reference.py), and best-of-N is VGF at L = 0.
"""

from __future__ import annotations

import math

import numpy as np

from .critic import action_gradient, aggregate, critic_values
from .flow import project
from .networks import mlp, mlp_vjp
from .reference import repeat_states
from .shapes import check_shapes
from .types import Array, Params

VALUE_SCALE_MIN = 1e-8


def advantage_weights(
    q: Array, baseline: Array, how: str = "mean", temperature: float = 1.0, maximum: float = 20.0
) -> Array:
    """The weights of weighted behaviour cloning.

    Shapes:
        q: ``[E, B]``, Q_e(s, a) on the data; baseline: ``[E, B, N]``, Q_e(s, a_i) on the policy's
        own actions; temperature: beta, in units of Q. Returns ``[B]``.

    Equation:
        A = agg_e Q_e(s, a) - mean_i agg_e Q_e(s, a_i)
        w = min( exp(A / beta), maximum )

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Wang et al. 2020 (critic-regularised regression), the exponential form with the mean
        advantage; Peng et al. 2019. The paper's "weighted behaviour cloning".
    """
    check_shapes("advantage_weights", q=(q, "E B"), baseline=(baseline, "E B N"))
    advantage = aggregate(q, how) - np.mean(aggregate(baseline, how), axis=-1)
    return np.exp(np.minimum(advantage / temperature, math.log(maximum)))


def policy_actions(params: Params, s: Array, noise: Array, activation: str = "relu") -> Array:
    """The actions of FQL's one-step policy, before they are clipped to the box.

    Shapes:
        params: a network; s: ``[*, o]``; noise: standard normal z, ``[*, d]`` or ``[*, N, d]``.
        Returns the shape of noise.

    Equation:
        omega(s, z) = mlp( [s, z] )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Park et al. 2025 (FQL), its code's `actor_onestep_flow`.
    """
    x = np.concatenate([repeat_states(s, noise), noise], axis=-1)
    return mlp(params, x.reshape(-1, x.shape[-1]), activation).reshape(noise.shape)


def policy_loss(
    params: Params,
    critic: Params,
    s: Array,
    noise: Array,
    target: Array,
    distillation: float = 10.0,
    normalise: bool = False,
    activation: str = "relu",
    critic_activation: str = "relu",
) -> Array:
    """FQL's loss of the one-step policy: the value it reaches, and its distance to the reference.

    Shapes:
        params: a network; critic: an ensemble; s: ``[B, o]``; noise: z ``[B, d]``; target: the
        flow reference's actions from the same noise, ``[B, d]``. Returns a scalar.

    Equation:
        a = omega(s, z)
        loss = distillation * mean over batch and dimensions of (a - target)^2
               - lambda * mean over the batch of mean_e Q_e(s, clip(a, -1, 1))
        lambda = 1, or with `normalise` 1 / max( mean over the batch of |mean_e Q_e|, 1e-8 ), a
        constant

    Raises:
        ValueError: shapes that do not match.

    Source:
        Park et al. 2025 (FQL), its code's `actor_loss`; the floor of 1e-8 is ours.
    """
    return policy_gradient(
        params, critic, s, noise, target, distillation, normalise, activation, critic_activation
    )[0]


def policy_gradient(
    params: Params,
    critic: Params,
    s: Array,
    noise: Array,
    target: Array,
    distillation: float = 10.0,
    normalise: bool = False,
    activation: str = "relu",
    critic_activation: str = "relu",
) -> tuple[Array, Params]:
    """FQL's loss of the one-step policy and its gradient, through the critic's action gradient.

    Shapes:
        As :func:`policy_loss`; returns the loss and a tree like params.

    Equation:
        d loss / d a = 2 distillation (a - target) / (B d)
                       - (lambda / B) [-1 <= a <= 1] grad_a mean_e Q_e(s, clip(a, -1, 1)),
        pulled back by mlp_vjp

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`policy_loss`.
    """
    check_shapes("policy", s=(s, "B o"), noise=(noise, "B d"), target=(target, "B d"))
    a = policy_actions(params, s, noise, activation)
    inside = (np.abs(a) <= 1).astype(a.dtype)
    q = aggregate(critic_values(critic, s, project(a), critic_activation), "mean")
    scale = 1 / np.maximum(np.mean(np.abs(q)), VALUE_SCALE_MIN) if normalise else 1.0
    g = action_gradient(critic, s, project(a), "mean", critic_activation)
    loss = distillation * np.mean((a - target) ** 2) - scale * np.mean(q)
    slope = 2 * distillation * (a - target) / a.size - scale * inside * g / len(a)
    x = np.concatenate([s, noise], axis=-1)
    gradient, _ = mlp_vjp(params, x, slope.astype(a.dtype), activation)
    return loss, gradient

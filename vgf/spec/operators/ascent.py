"""Steps of finished actions along the value's gradient, each action by itself."""

from __future__ import annotations

import math

import numpy as np

from ..critic import action_gradient
from ..flow import follow, project
from ..settings import Budget
from ..shapes import check_shapes
from ..types import Array, Params


def gradient_ascent(
    params: Params,
    s: Array,
    a: Array,
    budget: Budget,
    sign: bool = False,
    how: str = "mean",
    activation: str = "relu",
) -> Array:
    """Move actions along the critic's gradient, without a kernel.

    Shapes:
        params: an ensemble; s: ``[*, o]``; a: ``[*, N, d]``; budget: its steps, step size,
        optimiser and box; how: "mean" or "min" over the critics. Returns ``[*, N, d]``.

    Equation:
        a <- flow_step( a, g ),  g = grad_a agg_e Q_e(s, a);  with `sign`, sign(g), which is 0 at 0

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Zhou et al. 2026 ("GradStep", there with plain steps), after Mark et al. 2024 (PA-RL).
    """

    def velocity(a: Array) -> Array:
        g = action_gradient(params, s, a, how, activation)
        return np.sign(g) if sign else g

    return follow(velocity, a, budget)


def langevin(
    params: Params,
    s: Array,
    a: Array,
    noise: Array,
    step_size: float = 0.1,
    temperature: float = 0.1,
    how: str = "mean",
    activation: str = "relu",
) -> Array:
    """Move actions by Langevin dynamics, whose limit is proportional to exp(Q / alpha).

    Shapes:
        params: an ensemble; s: ``[*, o]``; a: ``[*, N, d]``; noise: standard normal xi,
        ``[*, L N, d]``, N rows for each of the L steps; temperature: alpha, in units of Q;
        how: "mean" or "min" over the critics. Returns ``[*, N, d]``, in [-1, 1].

    Equation:
        a <- clip( a + epsilon g + sqrt(2 epsilon alpha) xi, -1, 1 ),  g = grad_a agg_e Q_e(s, a)

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        The unadjusted Langevin algorithm (Roberts and Tweedie 1996), projected on the box; NC-LQL
        (arXiv 2602.07873) acts by Langevin dynamics on Q.
    """
    n = check_shapes("langevin", a=(a, "* N d"), noise=(noise, "* R d"))["N"]
    if noise.shape[-2] % n:
        raise ValueError(f"langevin: noise has {noise.shape[-2]} rows, not a multiple of N = {n}")
    for first in range(0, noise.shape[-2], n):
        g = action_gradient(params, s, a, how, activation)
        xi = noise[..., first : first + n, :]
        a = project(a + step_size * g + math.sqrt(2 * step_size * temperature) * xi)
    return a

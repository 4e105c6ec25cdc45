"""The value gradient flow: the direction, one step, and transport over a budget.

This is the heart of the method. A set of particles a_1 .. a_N per state starts at the reference
distribution and climbs the score g(a) = grad_a Q(s, a), coupled through the kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernel import bandwidth_squared, rbf_kernel, repulsion, repulsion_through_bandwidth
from .optimiser import adam_init, adam_step
from .parts import ParticleStep, equations, find_kernel
from .registry import find
from .settings import Budget
from .shapes import check_shapes
from .types import Array, VectorField


def phi(
    a: Array,
    g: Array,
    temperature: float | None = None,
    bandwidth: float | None = None,
    bandwidth_gradient: bool = False,
    kernel: str | None = "rbf",
    kernel_guard: float = 0.0,
) -> Array:
    """The direction of steepest descent of KL(q || pi*) in the kernel's space, up to its length.

    It is the steepest among fields of unit norm, times that norm. Without the entropy term
    (temperature None) it is the kernel's average of the scores, and descends no KL divergence.

    Shapes:
        a: particles ``[*, N, d]``; g: their scores ``[*, N, d]``; temperature: alpha, in units of
        Q, or None for the form without entropy; bandwidth: sigma, or None for the median
        heuristic; kernel: "rbf", the name of your own kernel, or None for none; kernel_guard:
        added to 2 sigma^2, in squared units of the action. Returns ``[*, N, d]``.

    Equation:
        phi(a_i) = (1/N) sum_j [ k(a_j, a_i) g_j / alpha + grad_{a_j} k(a_j, a_i) ]
        phi(a_i) = (1/N) sum_j   k(a_j, a_i) g_j                 (temperature None)
        phi(a_i) = g_i / alpha, or g_i with temperature None     (kernel None: as with one particle)
        `kernel_guard` puts guard + 2 sigma^2 in place of 2 sigma^2, in k and in its gradient.
        `bandwidth_gradient` swaps the second term for `repulsion_through_bandwidth`.

    Raises:
        ValueError: shapes that do not match, or a fixed bandwidth with `bandwidth_gradient`.

    Source:
        Paper, the discretised flow (its SVGD direction); Liu and Wang 2016, Equation 8. The paper's
        experiments use the second form, the authors' code the first; the third stands in it too,
        as a comment, divided by N.
    """
    n = check_shapes("phi", a=(a, "* N d"), g=(g, "* N d"))["N"]
    if bandwidth is not None and bandwidth_gradient:
        raise ValueError("phi: bandwidth_gradient needs the median bandwidth; drop bandwidth")
    if kernel is None:
        return g if temperature is None else g / temperature
    if bandwidth is None:
        sigma_squared = bandwidth_squared(a)
    else:
        sigma_squared = np.full(a.shape[:-2], bandwidth**2, a.dtype)
    sigma_squared = sigma_squared + kernel_guard / 2
    own = None if kernel == "rbf" else find_kernel(kernel)
    if own is None:
        k = rbf_kernel(a, a, sigma_squared)
    else:
        k = own.value(equations(), a, a, sigma_squared).swapaxes(-1, -2)  # k(a_j, a_i)
    if temperature is None:
        return k @ g / n
    if own is not None:
        entropy = np.mean(own.gradient(a, a, sigma_squared), axis=-3)
    elif bandwidth_gradient:
        entropy = repulsion_through_bandwidth(a, kernel_guard)
    else:
        entropy = repulsion(a, sigma_squared)
    return k @ (g / temperature) / n + entropy


def project(a: Array, low: float | None = -1.0, high: float | None = 1.0) -> Array:
    """Project particles on the action box.

    Shapes:
        a: any; returns the same.

    Equation:
        project(a) = min(max(a, low), high), coordinate by coordinate

    Source:
        Paper, Algorithm 1; the box is [-1, 1]^d in every benchmark of the paper.
    """
    if low is None and high is None:
        return a
    return np.clip(a, low, high)


def clip_velocity(velocity: Array, max_norm: float, scope: str = "state") -> Array:
    """Shorten a velocity field to a norm, before the particle optimiser.

    In float32 a velocity above 1.8e19 has an infinite norm, and is shortened to 0.

    Shapes:
        velocity: ``[*, N, d]``; max_norm: c; scope: "state" or "batch"; returns the same.

    Equation:
        v <- v * min(1, c / ||v||), the norm over the N * d entries of one state ("state"), or
        over all entries ("batch", where states affect each other: in training only, see
        :func:`act`).

    Raises:
        ValueError: velocity is not a set of vectors, or an unknown scope.

    Source:
        Authors' A-VGF clips over the whole batch, which is one state when it acts; "state" is our
        choice, so that an action depends on its own state alone.
    """
    check_shapes("clip_velocity", velocity=(velocity, "* N d"))
    if scope not in ("state", "batch"):
        raise ValueError(f"clip scope is {scope!r}; choose state or batch")
    axes = (-2, -1) if scope == "state" else None
    norm = np.sqrt(np.sum(velocity**2, axis=axes, keepdims=True))
    return velocity * (max_norm / np.maximum(norm, max_norm))


def flow_step(a: Array, velocity: Array, state: Any, budget: Budget) -> tuple[Array, Any]:
    """One step of the particles along a velocity, then back into the box.

    Shapes:
        a, velocity: ``[*, N, d]``; state: of `adam_init(a)` for Adam, None for plain ascent.
        Returns the new particles and the new state.

    Equation:
        a_i <- project( a_i + epsilon phi(a_i) )                                  (plain)
        a_i <- project( a_i + epsilon m / (sqrt(v) + 1e-8) ), m and v the bias-corrected
        moments of phi                                                            (Adam)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, the discretised flow (plain); authors' code, `SVGD_VGF.step` (Adam).
    """
    check_shapes("flow_step", a=(a, "* N d"), velocity=(velocity, "* N d"))
    if budget.clip_norm is not None:
        velocity = clip_velocity(velocity, budget.clip_norm, budget.clip_scope)
    if budget.optimiser == "plain":
        moved = a + budget.step_size * velocity
    elif budget.optimiser != "adam":
        step = find(ParticleStep, budget.optimiser, "optimiser").step
        moved, state = step(equations(), a, velocity, state, budget)
    else:
        moved, state = adam_step(a, -velocity, state, budget.step_size)
    return project(moved, budget.low, budget.high), state


def step_state(a: Array, budget: Budget) -> Any:
    """What a particle step keeps, before the first step of a transport.

    Shapes:
        a: ``[*, N, d]``. Returns `adam_init(a)` for Adam, None for plain ascent, and whatever your
            own particle step returns.

    Equation:
        None.

    Source:
        As :func:`flow_step`.
    """
    if budget.optimiser == "adam":
        return adam_init(a)
    if budget.optimiser == "plain":
        return None
    return find(ParticleStep, budget.optimiser, "optimiser").init(equations(), a)


def follow(velocity: VectorField, a: Array, budget: Budget, trajectory: bool = False) -> Array:
    """Move particles along any velocity field over a budget.

    Shapes:
        velocity: a function from ``[*, N, d]`` to the same; a: ``[*, N, d]``. Returns the
        particles after L steps, or with `trajectory` all of them, ``[L + 1, *, N, d]``, the
        start first.

    Equation:
        a^(l+1) = flow_step( a^(l), velocity(a^(l)) ),  l = 0 .. L - 1

    Source:
        Paper, Algorithm 1.
    """
    state = step_state(a, budget)
    path = [a]
    for _ in range(budget.steps):
        a, state = flow_step(a, velocity(a), state, budget)
        path.append(a)
    return np.stack(path) if trajectory else a


def transport(score: VectorField, a: Array, budget: Budget, trajectory: bool = False) -> Array:
    """Transport particles along a score through the kernel: the value gradient flow.

    With `budget.steps` = 0 the particles are left alone; with one particle it is gradient ascent.

    Shapes:
        score: a function from particles ``[*, N, d]`` to grad_a Q of the same shape;
        a: ``[*, N, d]``. Returns ``[*, N, d]``, or ``[L + 1, *, N, d]`` with `trajectory`.

    Equation:
        a^(l+1) = flow_step( a^(l), phi(a^(l), score(a^(l))) ),  l = 0 .. L - 1

    Raises:
        ValueError: the score does not have the particles' shape.

    Source:
        Paper, the discretised flow and Algorithm 1.
    """

    def velocity(a: Array) -> Array:
        return phi(a, score(a), *budget.phi_settings)

    return follow(velocity, a, budget, trajectory)

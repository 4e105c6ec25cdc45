"""The theory of the paper as functions: distances, the bounds on them, and the target.

Unlike the rest of the specification these are instruments: nothing trains on them, and the
backends do not repeat them.
"""

from __future__ import annotations

import math

import numpy as np

from .kernel import rbf_kernel, squared_distances
from .settings import at_least
from .shapes import check_shapes
from .types import Array


def mmd_squared(x: Array, y: Array, sigma_squared: Array) -> Array:
    """The squared maximum mean discrepancy between two sets of particles (V-statistic).

    Shapes:
        x: ``[*, N, d]``; y: ``[*, M, d]``; sigma_squared: ``[*]``. Returns ``[*]``, never negative
        except by rounding.

    Equation:
        MMD^2 = mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, its bound on the transport; Gretton et al. 2012, Equation 5.
    """
    within_x = np.mean(rbf_kernel(x, x, sigma_squared), axis=(-2, -1))
    within_y = np.mean(rbf_kernel(y, y, sigma_squared), axis=(-2, -1))
    return within_x + within_y - 2 * np.mean(rbf_kernel(x, y, sigma_squared), axis=(-2, -1))


def stein_discrepancy_squared(a: Array, g: Array, sigma_squared: Array) -> Array:
    """The squared kernel Stein discrepancy of particles from a target (V-statistic).

    Shapes:
        a: ``[*, N, d]``; g: grad log pi*, the score over alpha, ``[*, N, d]``; sigma_squared:
        ``[*]``. Returns ``[*]``, never negative except by rounding.

    Equation:
        KSD^2 = mean_ij [ g_i . g_j k + g_i . grad_{a_j} k + g_j . grad_{a_i} k
                          + tr grad_{a_i} grad_{a_j} k ],  k = k(a_i, a_j)
        It is the squared norm of phi in the kernel's space, and in the limit of many particles and
        small steps the rate at which the flow lowers KL(q || pi*).

    Raises:
        ValueError: shapes that do not match.

    Source:
        Liu, Lee and Jordan 2016, Equation 8; Liu and Wang 2016, Theorem 3.1 (the rate).
    """
    d = check_shapes("stein_discrepancy_squared", a=(a, "* N d"), g=(g, "* N d"))["d"]
    k = rbf_kernel(a, a, sigma_squared)
    width = sigma_squared[..., None, None]
    away = a[..., :, None, :] - a[..., None, :, :]  # a_i - a_j
    towards = np.sum((g[..., :, None, :] - g[..., None, :, :]) * away, axis=-1) / width
    curvature = d / width - squared_distances(a, a) / width**2
    both = g @ g.swapaxes(-1, -2)
    return np.mean(k * (both + towards + curvature), axis=(-2, -1))


def kernel_lipschitz(sigma: float) -> float:
    """The Lipschitz constant of the RBF kernel in one argument.

    Shapes:
        sigma: the bandwidth, in units of the action. Returns 1 / units of the action.

    Equation:
        sup ||grad k|| = 1 / (sigma sqrt(e))

    Raises:
        ValueError: a bandwidth that is not positive.

    Source:
        Paper, its bound on the transport: exp(-x^2 / (2 sigma^2)) is steepest at x = sigma.
    """
    at_least("sigma", sigma, 0.0, strict=True)
    return 1 / (sigma * math.sqrt(math.e))


def speed_bound(score_bound: float, temperature: float | None, sigma: float) -> float:
    """The greatest possible length of phi.

    Shapes:
        score_bound: c >= ||g_j||, in units of Q per action; temperature: alpha, positive, in units
        of Q, or None; sigma: fixed. Returns a length.

    Equation:
        ||phi|| <= c / alpha + 1 / (sigma sqrt(e)),  or c without the entropy term

    Raises:
        ValueError: a negative c, a temperature or a bandwidth that is not positive.

    Source:
        Paper, its bound on the transport: k <= 1, and kernel_lipschitz bounds the repulsion.
    """
    at_least("score_bound", score_bound, 0.0)
    if temperature is None:
        return score_bound
    at_least("temperature", temperature, 0.0, strict=True)
    return score_bound / temperature + kernel_lipschitz(sigma)


def displacement_bound(
    steps: int, step_size: float, score_bound: float, temperature: float | None, sigma: float
) -> float:
    """How far plain ascent can move a particle, in Euclidean length.

    Shapes:
        The budget (L, epsilon, alpha); c >= ||g_j||; sigma: fixed. Returns a length.

    Equation:
        ||a^(L) - a^(0)|| <= epsilon L ( c / alpha + 1 / (sigma sqrt(e)) )

    Raises:
        ValueError: as :func:`speed_bound`, or a negative budget.

    Source:
        Paper, its bound on the transport.
    """
    at_least("steps", steps, 0)
    at_least("step_size", step_size, 0.0)
    return step_size * steps * speed_bound(score_bound, temperature, sigma)


def mmd_squared_bound(
    steps: int, step_size: float, score_bound: float, temperature: float | None, sigma: float
) -> float:
    """The paper's bound on the MMD^2 between the reference and the transported particles.

    Shapes:
        The budget (L, epsilon, alpha), plain steps; c >= ||g_j||; sigma: fixed, the same in the
        flow and in the MMD. Returns a pure number.

    Equation:
        MMD^2(mu, pi_L) <= ( 2 epsilon L / (sigma sqrt(e)) ) ( c / alpha + 1 / (sigma sqrt(e)) )

    Raises:
        ValueError: as :func:`speed_bound`, or a negative budget.

    Source:
        Paper, its bound on the transport. It holds for empirical measures.
    """
    moved = displacement_bound(steps, step_size, score_bound, temperature, sigma)
    return 2 * kernel_lipschitz(sigma) * moved


def mmd_squared_sharp_bound(
    steps: int, step_size: float, score_bound: float, temperature: float | None, sigma: float
) -> float:
    """The least bound on the MMD^2 that follows from how far plain ascent can move a particle.

    Shapes:
        As mmd_squared_bound. Returns a pure number, below 2.

    Equation:
        MMD(mu, pi_L) <= mean_i ||k(x_i, .) - k(y_i, .)||,
        ||k(x, .) - k(y, .)||^2 = 2 - 2 k(x, y), and ||x_i - y_i|| <= D of displacement_bound, so
        MMD^2(mu, pi_L) <= 2 ( 1 - exp(-D^2 / (2 sigma^2)) )

    Raises:
        ValueError: as :func:`speed_bound`, or a negative budget.

    Source:
        Derived here; one particle on a constant slope attains it without the entropy term. It is
        at most 0.744 of mmd_squared_bound, and of second order in small budgets.
    """
    moved = displacement_bound(steps, step_size, score_bound, temperature, sigma)
    return -2 * math.expm1(-(moved**2) / (2 * sigma**2))


def adam_step_bound(t: int, b1: float = 0.9, b2: float = 0.999) -> float:
    """The greatest ratio |mhat| / sqrt(vhat) that Adam can reach at its t-th step.

    Shapes:
        t: counted from 1. Returns a pure number, 1 at the first step.

    Equation:
        mhat = sum_k w_k g_{t-k},  vhat = sum_k u_k g_{t-k}^2  (k = 0 .. t - 1),
        w_k = (1 - b1) b1^k / (1 - b1^t),  u_k = (1 - b2) b2^k / (1 - b2^t);
        |mhat| / sqrt(vhat) <= C_t = sqrt( sum_k w_k^2 / u_k )     (Cauchy-Schwarz),
        with equality for g_{t-k} proportional to w_k / u_k.

    Source:
        Derived here. The bound max(1, (1 - b1) / sqrt(1 - b2)) of Kingma and Ba 2015, Section 2.1,
        covers a single gradient after zeros; gradients that grow geometrically exceed it.
    """
    k = np.arange(t)
    w = (1 - b1) * b1**k / (1 - b1**t)
    u = (1 - b2) * b2**k / (1 - b2**t)
    return float(np.sqrt(np.sum(w**2 / u)))


def adam_displacement_bound(
    steps: int, step_size: float, b1: float = 0.9, b2: float = 0.999
) -> float:
    """How far Adam can move one coordinate of a particle.

    Shapes:
        The budget (L, epsilon). Returns a length, along one coordinate.

    Equation:
        |a^(L) - a^(0)| <= epsilon sum_{t=1..L} C_t,  C_t as adam_step_bound

    Source:
        Derived here. C_1 .. C_5 are 1, 1.0014, 1.0036, 1.0068 and 1.0108: the sum of five is 5.022,
        so for L = 5 the bound is 0.45 % above epsilon L.
    """
    return step_size * sum(adam_step_bound(t, b1, b2) for t in range(1, steps + 1))


def wasserstein2(x: Array, y: Array) -> Array:
    """The exact 2-Wasserstein distance between two sets of the same number of particles.

    Shapes:
        x, y: ``[*, N, d]``. Returns lengths ``[*]``.

    Equation:
        W2 = min over permutations p of sqrt( mean_i ||x_i - y_p(i)||^2 )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Birkhoff's theorem; scipy.optimize.linear_sum_assignment.
    """
    from scipy.optimize import linear_sum_assignment  # here, as it is slow to import

    check_shapes("wasserstein2", x=(x, "* N d"), y=(y, "* N d"))
    cost = squared_distances(x, y)
    pairs = cost.reshape(-1, *cost.shape[-2:])
    matched = [linear_sum_assignment(matrix)[1] for matrix in pairs]
    partners = np.reshape(np.array(matched, int), pairs.shape[:2])
    squares = np.take_along_axis(pairs, partners[..., None], axis=-1).mean(axis=(-2, -1))
    return np.sqrt(squares.reshape(cost.shape[:-2]))


def boltzmann_log_density(r: Array, temperature: float, cell: Array | None = None) -> Array:
    """The log-density of the target pi*, which maximises value plus entropy.

    Shapes:
        r: R(s, a) at some points, ``[*, M]``, in units of Q; temperature: alpha; cell: the volume
        each point stands for, ``[M]``, to normalise by quadrature, or None to leave out Z_s.
        Returns ``[*, M]``.

    Equation:
        log pi*(a | s) = R(s, a) / alpha - log Z_s,   Z_s = sum_m cell_m exp( R(s, a_m) / alpha )

    Raises:
        ValueError: shapes that do not match, or a temperature that is not positive.

    Source:
        Paper, the Boltzmann target of behaviour-regularised RL.
    """
    at_least("temperature", temperature, 0.0, strict=True)
    if cell is None:
        return r / temperature
    check_shapes("boltzmann_log_density", r=(r, "* M"), cell=(cell, "M"))
    from scipy.special import logsumexp  # here, as it is slow to import

    log_z = logsumexp(r / temperature, b=cell, axis=-1, keepdims=True)
    normalised: Array = r / temperature - log_z
    return normalised

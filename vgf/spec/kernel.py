"""The RBF kernel, its median bandwidth, and the repulsion between particles.

Everywhere below, a_1 .. a_N in R^d are the particles of one state, and leading axes ``*`` hold
independent sets (one per state).
"""

from __future__ import annotations

import math

import numpy as np

from .shapes import check_shapes
from .types import Array

# sigma^2 never falls below this, so that identical particles give k = 1 and no repulsion
SIGMA_SQUARED_MIN = 1e-12


def squared_distances(x: Array, y: Array) -> Array:
    """All pairwise squared distances, from differences rather than from a Gram matrix.

    Shapes:
        x: ``[*, N, d]``; y: ``[*, M, d]``; returns ``[*, N, M]``.

    Equation:
        D_ij = ||x_i - y_j||^2

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, the kernel of its SVGD direction. The authors' code expands the square into a Gram
        matrix, which cancels for particles that lie close together.
    """
    check_shapes("squared_distances", x=(x, "* N d"), y=(y, "* M d"))
    difference = x[..., :, None, :] - y[..., None, :, :]
    return np.sum(difference**2, axis=-1)


def bandwidth_squared(a: Array) -> Array:
    """The median heuristic, one sigma^2 per set of particles.

    The median is over all N * N pairs, the zero diagonal included; an even count averages the
    two middle values. The result is a constant of the flow: nothing differentiates it.

    Shapes:
        a: ``[*, N, d]``; returns sigma^2 ``[*]``.

    Equation:
        sigma^2 = max( median_ij ||a_i - a_j||^2 / (2 log(N + 1)), 1e-12 )

    Raises:
        ValueError: a is not a set of particles.

    Source:
        Liu and Wang 2016, Section 5 (the heuristic); the authors' code (the factor 2 log(N + 1),
        the diagonal, the floor).
    """
    n = check_shapes("bandwidth_squared", a=(a, "* N d"))["N"]
    distances = squared_distances(a, a)
    median = np.median(distances.reshape(*a.shape[:-2], n * n), axis=-1)
    return np.maximum(median / (2 * math.log(n + 1)), SIGMA_SQUARED_MIN)


def rbf_kernel(x: Array, y: Array, sigma_squared: Array) -> Array:
    """The Gaussian radial basis function kernel.

    Shapes:
        x: ``[*, N, d]``; y: ``[*, M, d]``; sigma_squared: ``[*]``; returns ``[*, N, M]``.

    Equation:
        k(x_i, y_j) = exp( -||x_i - y_j||^2 / (2 sigma^2) )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, the kernel of its SVGD direction. The authors' code divides by 1e-6 + 2 sigma^2,
        which is this kernel with `kernel_guard`, see :func:`phi`.
    """
    check_shapes("rbf_kernel", x=(x, "* N d"), y=(y, "* M d"), sigma_squared=(sigma_squared, "*"))
    return np.exp(-squared_distances(x, y) / (2 * sigma_squared[..., None, None]))


def repulsion(a: Array, sigma_squared: Array) -> Array:
    """The entropy term of the flow: each particle is pushed away from the others.

    Shapes:
        a: ``[*, N, d]``; sigma_squared: ``[*]``; returns ``[*, N, d]``.

    Equation:
        r_i = (1/N) sum_j grad_{a_j} k(a_j, a_i)
            = (1/N) sum_j k(a_j, a_i) (a_i - a_j) / sigma^2
        The sum of r_i over i is zero.

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, the second term of its SVGD direction; Liu and Wang 2016, Equation 8.
    """
    n = check_shapes("repulsion", a=(a, "* N d"), sigma_squared=(sigma_squared, "*"))["N"]
    k = rbf_kernel(a, a, sigma_squared)
    away = (a[..., :, None, :] - a[..., None, :, :]) / sigma_squared[..., None, None, None]
    return np.sum(k[..., None] * away, axis=-2) / n


def repulsion_through_bandwidth(a: Array, guard: float = 0.0) -> Array:
    """The repulsion of the authors' code, which differentiates the median bandwidth as well.

    Not the equation of the paper: it exists so that results of the authors' code can be
    reproduced, and so that an implementation with this slip can be recognised. The derivative is
    taken with respect to the first argument of the kernel; the two middle pairs of the median are
    those of a stable sort of the N * N distances in row-major order.

    Shapes:
        a: ``[*, N, d]``; guard: as in :func:`phi`; returns ``[*, N, d]``.

    Equation:
        With s = sigma(a)^2 + guard / 2, gamma = 1 / (2 s) and D_mj = ||a_m - a_j||^2, the a_j held
        fixed:
        r_i = -(1/N) d/da_i sum_mj exp(-gamma D_mj)
            = (1/N) [ sum_j k_ij (a_i - a_j) / s  +  (sum_mj k_mj D_mj) dgamma/da_i ]
        dgamma/da_i = -1 / (2 s^2) * dsigma^2/da_i
        dsigma^2/da_i = (mean over the middle pairs (p, q) of [p = i] 2 (a_p - a_q))
                        / (2 log(N + 1)),  and 0 where the floor of sigma^2 is active.

    Raises:
        ValueError: a is not a set of particles.

    Source:
        Authors' code, `SVGD_VGF.phi` (automatic differentiation through `rbf_kernel`).
    """
    n = check_shapes("repulsion_through_bandwidth", a=(a, "* N d"))["N"]
    lead, d = a.shape[:-2], a.shape[-1]
    unguarded = bandwidth_squared(a)
    sigma_squared = unguarded + guard / 2
    distances = squared_distances(a, a)
    k = np.exp(-distances / (2 * sigma_squared[..., None, None]))
    weight = np.sum(k * distances, axis=(-2, -1)) / (2 * sigma_squared**2)  # -dsum/dsigma^2

    order = np.argsort(distances.reshape(*lead, n * n), axis=-1, kind="stable")
    dsigma_squared = np.zeros_like(a)
    for middle in ((n * n - 1) // 2, n * n // 2):  # the same pair twice for an odd count
        p, q = np.divmod(order[..., middle], n)
        pair = np.take_along_axis(a, p[..., None, None], axis=-2) - np.take_along_axis(
            a, q[..., None, None], axis=-2
        )
        is_p = np.arange(n) == p[..., None]
        dsigma_squared = dsigma_squared + is_p[..., None] * (pair / (2 * math.log(n + 1)))
    free = (unguarded > SIGMA_SQUARED_MIN)[..., None, None]
    dsigma_squared = np.where(free, dsigma_squared, np.zeros(d, a.dtype))
    return repulsion(a, sigma_squared) - weight[..., None, None] * dsigma_squared / n

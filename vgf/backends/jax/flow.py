"""The kernel and the flow in JAX."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...spec.kernel import SIGMA_SQUARED_MIN
from ...spec.shapes import check_shapes
from ..base import Tree
from ..composed import ComposedBackend
from .device import JaxDevice

Array = jax.Array

# On a GPU, at most this many steps of a sampler or flow are compiled as one.
STEPS_TOGETHER = 16
# Up to this many pairs of particles, counting finds the median faster than sorting.
COUNTED_PAIRS = 128
# Distances that differ by at most so many units of rounding count as equal.
EQUAL = 4


class JaxFlow(JaxDevice):
    """The kernel and the flow.

    `transport` and `follow` with your own function are traced at every call; put jax.jit around
    a function that calls them to compile once.
    """

    def squared_distances(self, x, y):
        check_shapes("squared_distances", x=(x, "* N d"), y=(y, "* M d"))
        return jnp.sum(jnp.square(x[..., :, None, :] - y[..., None, :, :]), axis=-1)

    def bandwidth_squared(self, a):
        n = check_shapes("bandwidth_squared", a=(a, "* N d"))["N"]
        lower, upper = _middle_distances(self.squared_distances(a, a), n)
        median = (lower + upper) / 2
        return lax.stop_gradient(jnp.maximum(median / (2 * math.log(n + 1)), SIGMA_SQUARED_MIN))

    def rbf_kernel(self, x, y, sigma_squared):
        check_shapes(
            "rbf_kernel", x=(x, "* N d"), y=(y, "* M d"), sigma_squared=(sigma_squared, "*")
        )
        return jnp.exp(-self.squared_distances(x, y) / (2 * sigma_squared[..., None, None]))

    def repulsion(self, a, sigma_squared):
        n = check_shapes("repulsion", a=(a, "* N d"), sigma_squared=(sigma_squared, "*"))["N"]
        k = self.rbf_kernel(a, a, sigma_squared)
        away = (a[..., :, None, :] - a[..., None, :, :]) / sigma_squared[..., None, None, None]
        return jnp.sum(k[..., None] * away, axis=-2) / n

    def repulsion_through_bandwidth(self, a, guard):
        n = check_shapes("repulsion_through_bandwidth", a=(a, "* N d"))["N"]

        middle = _middle_distances(self.squared_distances(a, a), n)

        # as the authors' code does it: automatic differentiation, the median included
        def total(moving: Array) -> Array:
            distances = self.squared_distances(moving, a)
            flat = distances.reshape(*distances.shape[:-2], n * n)
            places = zip(middle, _middle_places(n), strict=True)
            chosen = sum(_entry_of(flat, value, place) for value, place in places) / 2
            median = jnp.sum(chosen * flat, axis=-1)
            sigma_squared = jnp.maximum(median / (2 * math.log(n + 1)), SIGMA_SQUARED_MIN)
            guarded = sigma_squared + guard / 2
            return jnp.sum(jnp.exp(-distances / (2 * guarded[..., None, None])))

        return -jax.grad(total)(a) / n

    def follow(self, velocity, a, budget, trajectory):
        if not self.jit:  # a scan would be compiled at every call
            return ComposedBackend.follow(self, velocity, a, budget, trajectory)

        def step(carry: tuple[Array, Tree], _: None) -> tuple[tuple[Array, Tree], Any]:
            a, state = carry
            a, state = self.flow_step(a, velocity(a), state, budget)
            return (a, state), a if trajectory else ()

        def run(a: Array) -> Array:
            state = self.step_state(a, budget)
            (last, _), path = lax.scan(
                step, (a, state), length=budget.steps, unroll=self._unrolled(budget.steps)
            )
            return jnp.concatenate([a[None], path]) if trajectory else last

        return self.in_own_precision(run)(a)

    def project(self, a, low, high):
        return jnp.clip(a, low, high)

    def clip_velocity(self, velocity, max_norm, scope):
        check_shapes("clip_velocity", velocity=(velocity, "* N d"))
        if scope not in ("state", "batch"):
            raise ValueError(f"clip scope is {scope!r}; choose state or batch")
        axes = (-2, -1) if scope == "state" else None
        norm = jnp.sqrt(jnp.sum(jnp.square(velocity), axis=axes, keepdims=True))
        return velocity * (max_norm / jnp.maximum(norm, max_norm))

    def _unrolled(self, steps: int) -> int:
        """How many steps of a loop are compiled as one: a GPU waits between separate ones."""
        return 1 if self.device == "cpu" else min(max(steps, 1), STEPS_TOGETHER)


def _middle_places(n: int) -> tuple[int, int]:
    """Where the two that a median averages stand among N * N sorted distances."""
    return (n * n - 1) // 2, n * n // 2


def _middle_distances(distances: Array, n: int) -> tuple[Array, Array]:
    """The two middle ones of ``[*, N, N]`` squared distances of N particles -> ``[*]``.

    Sorted, they are N zeros, the diagonal, and then each pair's distance twice.
    """
    rows, columns = np.triu_indices(n, 1)
    pairs = distances[..., rows, columns]
    if len(rows) > COUNTED_PAIRS:
        ordered = jnp.sort(pairs, axis=-1)
    else:
        # states last: a CPU counts for many at a time
        pairs = jnp.moveaxis(pairs, -1, 0)
        one, other = pairs[:, None], pairs[None]
        first = np.tri(len(rows), k=-1, dtype=bool)  # of two equal ones
        first = first.reshape(*first.shape, *[1] * (pairs.ndim - 1))
        rank = jnp.sum((other < one) | ((other == one) & first), axis=1)

    def at(place: int) -> Array:
        if place < n:
            return jnp.zeros_like(distances[..., 0, 0])
        if len(rows) > COUNTED_PAIRS:
            return ordered[..., (place - n) // 2]
        return jnp.min(jnp.where(rank >= (place - n) // 2, pairs, jnp.inf), axis=0)

    one_place, other_place = _middle_places(n)
    return at(one_place), at(other_place)


def _entry_of(flat: Array, value: Array, place: int) -> Array:
    """Which of ``[*, M]`` entries, stably sorted, is the one of a value ``[*]`` at a place: 0 or 1.

    XLA may compute the same number twice and round it otherwise. So entries count as equal within
    that, in the order of their indices, and if none is then the nearest is taken. NaN gives NaN.
    """
    flat, value = lax.stop_gradient((flat, value[..., None]))
    gap, rounding = jnp.abs(flat - value), EQUAL * jnp.finfo(flat.dtype).eps
    nearest = jnp.min(gap, axis=-1, keepdims=True) * (1 + rounding)
    margin = jnp.maximum(rounding * value, nearest)
    equal = gap <= margin
    order = jnp.cumsum(equal, axis=-1)
    below = jnp.sum(flat < value - margin, axis=-1, keepdims=True)
    chosen = (equal & (order == jnp.clip(place + 1 - below, 1, order[..., -1:]))).astype(flat.dtype)
    return chosen / jnp.sum(chosen, axis=-1, keepdims=True)

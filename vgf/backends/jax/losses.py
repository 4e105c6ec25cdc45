"""The reference, the critic and what methods add, in JAX."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ...spec.parts import TARGETS, CriticLoss, Target
from ...spec.reference import LOG_STD_MAX, LOG_STD_MIN, TANH_EDGE, TIME_PERIOD
from ...spec.registry import find
from ...spec.settings import CRITIC_LOSSES, Budget
from ...spec.shapes import check_shapes, check_states
from ..composed import check_times, weighted
from .flow import JaxFlow
from .networks import JaxNetworks

Array = jax.Array

# On a CPU: rows whose activations in a few layers fit into a core's own cache.
CACHED_ROWS = 640


class JaxLosses(JaxFlow, JaxNetworks):
    """Losses, and what they are computed from."""

    # --- the reference --------------------------------------------------------------------------

    def flow_velocity(self, params, s, x, t, activation):
        check_times(x, t)
        if "time_frequencies" in params:
            angle = t * TIME_PERIOD * lax.stop_gradient(params["time_frequencies"])
            t = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return self._network(params, self._parts(s, x, t), activation)

    def flow_sample(self, params, s, x0, sampling_steps, activation):
        check_shapes("flow_sample", x0=(x0, "* d"))

        def euler(x: Array, k: Array) -> tuple[Array, None]:
            t = (k / sampling_steps).astype(x.dtype).reshape((1,) * x.ndim)  # of all particles
            velocity = self.flow_velocity(params, s, x, t, activation)
            return x + velocity / sampling_steps, None

        steps = jnp.arange(sampling_steps)
        if not self.jit:
            for k in steps:
                x0, _ = euler(x0, k)
            return self.project(x0)
        return self.project(lax.scan(euler, x0, steps, unroll=self._unrolled(sampling_steps))[0])

    def gaussian_loss(self, params, s, a, tanh, activation, weight):
        log_std = params["log_std"]
        check_shapes("gaussian", s=(s, "B o"), a=(a, "B d"), log_std=(log_std, "d"))
        bounded = self.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
        u = jnp.arctanh(jnp.clip(a, -TANH_EDGE, TANH_EDGE)) if tanh else a
        z = (u - self.mlp(params, s, activation)) * jnp.exp(-bounded)
        nll = jnp.square(z) / 2 + bounded + math.log(2 * math.pi) / 2
        if tanh:
            nll = nll + 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
        return jnp.mean(jnp.sum(weighted(nll, weight), axis=-1))

    def gaussian_sample(self, params, s, noise, tanh, activation):
        check_states("gaussian_sample", s, noise)
        check_shapes("gaussian_sample", noise=(noise, "* d"), log_std=(params["log_std"], "d"))
        mean = self.mlp(params, s.reshape(-1, s.shape[-1]), activation)
        mean = mean.reshape(*s.shape[:-1], *(1,) * (noise.ndim - s.ndim), noise.shape[-1])
        u = mean + jnp.exp(jnp.clip(params["log_std"], LOG_STD_MIN, LOG_STD_MAX)) * noise
        return jnp.tanh(u) if tanh else self.project(u)

    # --- the critic -----------------------------------------------------------------------------

    def aggregate(self, q, how):
        if how == "mean":
            return jnp.mean(q, axis=0)
        if how == "min":
            return jnp.min(q, axis=0)  # shares the gradient evenly between ties
        raise ValueError(f"ensemble aggregation is {how!r}; choose mean or min")

    def action_gradient(self, params, s, a, how, activation):
        def total(a: Array) -> Array:
            return jnp.sum(self.aggregate(self.critic_values(params, s, a, activation), how))

        return jax.grad(total)(a)

    def td_target(self, q, r, mask, discount, how, particles, target):
        check_shapes("td_target", q=(q, "E B N"), r=(r, "B"), mask=(mask, "B"))
        if target != "td":
            own = find(Target, target, "target", TARGETS)
            return own.value(self, q, r, mask, discount, how, particles)
        if particles not in ("mean", "max"):
            raise ValueError(f"particle aggregation is {particles!r}; choose mean or max")
        value = self.aggregate(q, how)
        value = jnp.mean(value, axis=-1) if particles == "mean" else jnp.max(value, axis=-1)
        r, mask = r.astype(value.dtype), mask.astype(value.dtype)  # whole numbers and bools too
        return r + discount * mask * value

    def critic_loss(self, q, y, loss, expectile, sparse_alpha):
        check_shapes("critic_loss", q=(q, "E B"), y=(y, "B"))
        x = y - q
        alpha = expectile if sparse_alpha is None else sparse_alpha
        if loss == "squared":
            value = jnp.square(x)
        elif loss == "mean_squared":
            return jnp.mean(jnp.square(x))
        elif loss == "expectile":
            value = jnp.where(x >= 0, expectile, 1 - expectile) * jnp.square(x)
        elif loss == "sparse":
            value = alpha * jnp.square(jax.nn.relu(x / (2 * alpha) + 1)) - x
        else:
            own = find(CriticLoss, loss, "critic_loss", CRITIC_LOSSES)
            return own.value(self, q, y, expectile)
        return jnp.mean(jnp.sum(value, axis=0))

    def critic_transport(self, params, s, a, budget, how, activation, trajectory):
        whole = super().critic_transport

        def move(s: Array, a: Array) -> Array:
            return whole(params, s, a, budget, how, activation, trajectory)

        return move(s, a) if states_meet(budget, trajectory) else self._by_states(move, s, a)

    def _by_states(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """A function of states ``[B, ...]`` and their particles ``[B, N, d]``, in portions.

        On a CPU this keeps the activations in the caches. States do not affect each other.
        """
        *_, particles = arrays
        if self.device != "cpu" or particles.ndim != 3 or not len(particles) or not self.jit:
            return function(*arrays)
        count = -(-particles.shape[0] * particles.shape[1] // CACHED_ROWS)
        size = -(-len(particles) // count)
        whole = len(particles) // size * size
        if whole == size == len(particles):
            return function(*arrays)
        chunks = [x[:whole].reshape(-1, size, *x.shape[1:]) for x in arrays]
        found = lax.map(lambda xs: function(*xs), chunks).reshape(whole, *particles.shape[1:])
        rest = [x[whole:] for x in arrays]
        return jnp.concatenate([found, function(*rest)]) if len(rest[-1]) else found

    # --- methods --------------------------------------------------------------------------------

    def amortised_transport(self, params, s, a, budget, activation, trajectory):
        whole = super().amortised_transport

        def move(s: Array, a: Array) -> Array:
            return whole(params, s, a, budget, activation, trajectory)

        return move(s, a) if states_meet(budget, trajectory) else self._by_states(move, s, a)

    def advantage_weights(self, q, baseline, how, temperature, maximum):
        check_shapes("advantage_weights", q=(q, "E B"), baseline=(baseline, "E B N"))
        advantage = self.aggregate(q, how) - jnp.mean(self.aggregate(baseline, how), axis=-1)
        return jnp.exp(jnp.minimum(advantage / temperature, math.log(maximum)))


def states_meet(budget: Budget, trajectory: bool) -> bool:
    """Whether a transport has to see all states at once."""
    return trajectory or (budget.clip_norm is not None and budget.clip_scope == "batch")

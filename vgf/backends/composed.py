"""What the accelerated backends compute in the same way: the steps of an update.

A framework supplies the equations (`Backend`); this class strings them into transport, update and
act. It is written against `vgf.spec.update` but does not share its code, so that the property
tests compare two programs rather than one with itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..methods import find_method
from ..spec.agent import check_batch, check_gradients
from ..spec.methods.fql import VALUE_SCALE_MIN
from ..spec.optimiser import tree_map
from ..spec.parts import Kernel, ParticleStep, Sampler, find_kernel
from ..spec.registry import find
from ..spec.settings import Budget, Settings
from ..spec.shapes import check_shapes, check_states
from ..spec.text import LENGTH_MIN, SEQUENCE_KERNELS, within_lengths
from ..spec.update import init_state as spec_init_state
from .base import Array, Backend, Tree
from .operators import ComposedOperators


def check_layer(name: str, widths: Sequence[int], kernel: Array, bias: Array) -> None:
    """Check a layer's arrays against the widths of its inputs.

    Raises:
        ValueError: naming the layer and the shapes.
    """
    found, width = tuple(kernel.shape), sum(widths)
    if len(found) != 2 or found[0] != width:
        raise ValueError(
            f"mlp, layer {name}: kernel has shape {found}, expected [in, out] with in = {width}"
        )
    check_shapes(f"mlp, layer {name}", kernel=(kernel, "in out"), bias=(bias, "out"))


def check_times(x: Array, t: Array) -> None:
    """Check the times of actions ``[*, d]``: ``[*, 1]``, or one for all, ``[1, ..., 1]``.

    Raises:
        ValueError: naming both shapes.
    """
    if tuple(t.shape) != (1,) * len(x.shape):
        check_shapes("flow_velocity", x=(x, "* d"), t=(t, "* 1"))


def weighted(rows: Array, weight: Array | None) -> Array:
    """The terms of a loss ``[B, d]`` times the weights of their rows, if there are any."""
    if weight is None:
        return rows
    check_shapes("weights", rows=(rows, "B d"), weight=(weight, "B"))
    return rows * weight[:, None]


class ComposedBackend(ComposedOperators):
    """What torch and JAX have in common: equations and the agent, composed of other equations."""

    # what no other equation calls in a framework, where networks are computed as a whole
    uncalled = frozenset({"mlp", "mlp_vjp", "ensemble", "ensemble_vjp", "layer_norm"})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls.uncalled & vars(cls).keys():
            if any(name in vars(base) for base in cls.__mro__[1:] if base not in Backend.__mro__):
                raise TypeError(
                    f"{cls.__name__}.{name} would never be called: this backend computes networks "
                    "as a whole; override activate, critic_values or flow_velocity instead"
                )

    def stack(self, arrays: list[Array]) -> Array:
        """Arrays of one shape ``[*]`` -> ``[n, *]``."""
        raise NotImplementedError

    def matmul(self, x: Array, y: Array) -> Array:
        """A matrix product in the backend's precision."""
        raise NotImplementedError

    def constant(self, x: Array) -> Array:
        """An array through which no gradient passes."""
        raise NotImplementedError

    def clip(self, x: Array, low: float, high: float) -> Array:
        """An array clipped, through which gradients pass on the closed interval."""
        raise NotImplementedError

    # --- networks -------------------------------------------------------------------------------

    def _network(self, params: Tree, x: Any, activation: str) -> Array:
        """A network on ``[*, in]`` or a tuple of parts of it; an ensemble's result has one more
        axis."""
        raise NotImplementedError

    def _parts(self, s: Array, *others: Array) -> tuple[Array, ...]:
        """A network's input: states, and what goes with each of them or with its particles."""
        check_states("network input", s, others[0])
        return (s if others[0].ndim == s.ndim else s[..., None, :], *others)

    def mlp(self, params, x, activation):
        return self._network(params, x, activation)

    def mlp_vjp(self, params, x, cotangent, activation):
        out = params["output"]["kernel"].shape[-1]
        check_shapes("mlp_vjp", x=(x, "M in"), cotangent=(cotangent, f"M {out}"))
        return self._network_vjp(params, x, cotangent, activation)

    def ensemble(self, params, x, activation):
        return self._network(params, x, activation)

    def ensemble_vjp(self, params, x, cotangent, activation):
        size, out = params["output"]["bias"].shape
        check_shapes("ensemble_vjp", x=(x, "M in"), cotangent=(cotangent, f"{size} M {out}"))
        return self._network_vjp(params, x, cotangent, activation)

    def _network_vjp(
        self, params: Tree, x: Array, cotangent: Array, activation: str
    ) -> tuple[Tree, Array]:
        networks = {name: params[name] for name in params if name != "log_std"}

        def pullback(both: Tree) -> Array:
            return (self._network(both["params"], both["x"], activation) * cotangent).sum()

        _, gradient = self.value_and_gradient(pullback, {"params": networks, "x": x})
        return gradient["params"], gradient["x"]

    def critic_values(self, params, s, a, activation):
        return self._network(params, self._parts(s, a), activation).squeeze(-1)

    def gradient_field(self, params, s, a, activation):
        return self._network(params, self._parts(s, a), activation)

    def policy_actions(self, params, s, noise, activation):
        return self._network(params, self._parts(s, noise), activation)

    # --- losses ---------------------------------------------------------------------------------

    def flow_matching_loss(self, params, s, a, x0, t, activation, weight):
        check_shapes("flow_matching", s=(s, "B o"), a=(a, "B d"), x0=(x0, "B d"), t=(t, "B 1"))
        x_t = (1 - t) * x0 + t * a
        error = self.flow_velocity(params, s, x_t, t, activation) - (a - x0)
        return weighted(error**2, weight).mean()

    def gradient_field_loss(self, params, s, a, g, normalise, activation):
        check_shapes("gradient_field", s=(s, "B o"), a=(a, "B d"), g=(g, "B d"))
        if normalise:
            g = g / ((g**2).sum(-1)[:, None] ** 0.5 + 1e-8)
        return ((self.gradient_field(params, s, a, activation) - g) ** 2).mean()

    def policy_loss(
        self,
        params,
        critic,
        s,
        noise,
        target,
        distillation,
        normalise,
        activation,
        critic_activation,
    ):
        check_shapes("policy", s=(s, "B o"), noise=(noise, "B d"), target=(target, "B d"))
        a = self.policy_actions(params, s, noise, activation)
        inside = self.clip(a, -1, 1)
        q = self.aggregate(self.critic_values(critic, s, inside, critic_activation), "mean")
        value = q.mean()
        if normalise:
            value = value / self.project(self.constant(abs(q).mean()), VALUE_SCALE_MIN, None)
        return distillation * ((a - target) ** 2).mean() - value

    def polyak(self, online, target, tau):
        return tree_map(lambda p, q: tau * p + (1 - tau) * q, online, target)

    # --- flow -----------------------------------------------------------------------------------

    def phi(self, a, g, temperature, bandwidth, bandwidth_gradient, kernel, kernel_guard):
        n = check_shapes("phi", a=(a, "* N d"), g=(g, "* N d"))["N"]
        if bandwidth is not None and bandwidth_gradient:
            raise ValueError("phi: bandwidth_gradient needs the median bandwidth; drop bandwidth")
        if kernel is None:
            return g if temperature is None else g / temperature
        if bandwidth is None:
            sigma_squared = self.bandwidth_squared(a)
        else:
            sigma_squared = self.full(a.shape[:-2], bandwidth**2, a)
        sigma_squared = sigma_squared + kernel_guard / 2
        own = None if kernel == "rbf" else find_kernel(kernel)
        if own is None:
            k = self.rbf_kernel(a, a, sigma_squared)
        else:
            k = own.value(self, a, a, sigma_squared).swapaxes(-1, -2)  # k(a_j, a_i)
        if temperature is None:
            return self.matmul(k, g) / n
        if own is not None:
            entropy = self._own_repulsion(own, a, sigma_squared)
        elif bandwidth_gradient:
            entropy = self.repulsion_through_bandwidth(a, kernel_guard)
        else:
            entropy = self.repulsion(a, sigma_squared)
        return self.matmul(k, g / temperature) / n + entropy

    def _own_repulsion(self, kernel: Kernel, a: Array, sigma_squared: Array) -> Array:
        """(1/N) sum_j grad_{a_j} k(a_j, a_i), the derivative with respect to the first argument.

        It is the gradient, with respect to a common shift d_i, of sum_j k(a_j + d_i, a_i).
        """

        def total(shift: Array) -> Array:
            shifted = a[..., None, :, :] + shift[..., :, None, :]  # [*, i, j, d]
            sigma = sigma_squared[..., None] + 0 * shift[..., 0]
            return kernel.value(self, shifted, a[..., :, None, :], sigma).sum()

        return self.value_and_gradient(total, a * 0)[1] / a.shape[-2]

    def flow_step(self, a, velocity, state, budget):
        check_shapes("flow_step", a=(a, "* N d"), velocity=(velocity, "* N d"))
        if budget.clip_norm is not None:
            velocity = self.clip_velocity(velocity, budget.clip_norm, budget.clip_scope)
        if budget.optimiser == "plain":
            moved = a + budget.step_size * velocity
        elif budget.optimiser == "adam":
            moved, state = self.adam_step(a, -velocity, state, budget.step_size)
        else:
            step = find(ParticleStep, budget.optimiser, "optimiser").step
            moved, state = step(self, a, velocity, state, budget)
        return self.project(moved, budget.low, budget.high), state

    def step_state(self, a: Array, budget: Budget) -> Tree:
        """What a particle step keeps, before the first step of a transport."""
        if budget.optimiser == "adam":
            return self.adam_init(a)
        if budget.optimiser == "plain":
            return None
        return find(ParticleStep, budget.optimiser, "optimiser").init(self, a)

    def follow(self, velocity, a, budget, trajectory):
        state = self.step_state(a, budget)
        path = [a]
        for _ in range(budget.steps):
            a, state = self.flow_step(a, velocity(a), state, budget)
            if trajectory:
                path.append(a)
        return self.stack(path) if trajectory else a

    def transport(self, score, a, budget, trajectory):
        def velocity(a: Array) -> Array:
            return self.phi(a, score(a), *budget.phi_settings)

        return self.follow(velocity, a, budget, trajectory)

    def critic_transport(self, params, s, a, budget, how, activation, trajectory):
        def score(a: Array) -> Array:
            return self.action_gradient(params, s, a, how, activation)

        return self.transport(score, a, budget, trajectory)

    def amortised_transport(self, params, s, a, budget, activation, trajectory):
        def velocity(a: Array) -> Array:
            return self.gradient_field(params, s, a, activation)

        return self.follow(velocity, a, budget, trajectory)

    # --- gradients, by automatic differentiation -------------------------------------------------

    def flow_matching_gradient(self, params: Tree, *args: Any, **kwargs: Any) -> Any:
        return self._gradient(self.flow_matching_loss, params, *args, **kwargs)

    def gaussian_gradient(self, params: Tree, *args: Any, **kwargs: Any) -> Any:
        return self._gradient(self.gaussian_loss, params, *args, **kwargs)

    def gradient_field_gradient(self, params: Tree, *args: Any, **kwargs: Any) -> Any:
        return self._gradient(self.gradient_field_loss, params, *args, **kwargs)

    def policy_gradient(self, params: Tree, *args: Any, **kwargs: Any) -> Any:
        return self._gradient(self.policy_loss, params, *args, **kwargs)

    def state_values(self, params, s, activation):
        check_shapes("state_values", s=(s, "B o"))
        return self.mlp(params, s, activation)[:, 0]

    def value_loss(self, params, s, q, expectile, activation):
        check_shapes("value_loss", s=(s, "B o"), q=(q, "B"))
        v = self.state_values(params, s, activation)
        return self.critic_loss(v[None], q, "expectile", expectile)

    def value_gradient(self, params: Tree, *args: Any, **kwargs: Any) -> Any:
        return self._gradient(self.value_loss, params, *args, **kwargs)

    def critic_gradient(self, params, s, a, y, loss, expectile, activation, sparse_alpha):
        check_shapes("critic_gradient", s=(s, "B o"), a=(a, "B d"), y=(y, "B"))

        def objective(params: Tree) -> Array:
            return self.critic_loss(
                self.critic_values(params, s, a, activation), y, loss, expectile, sparse_alpha
            )

        return self.value_and_gradient(objective, params)

    def _gradient(self, loss: Callable[..., Array], params: Tree, *args: Any, **kwargs: Any) -> Any:
        return self.value_and_gradient(lambda p: loss(p, *args, **kwargs), params)

    # --- text -----------------------------------------------------------------------------------

    def sequence_phi(self, u, g, lengths, kernel, temperature, bandwidth):
        size = check_shapes("sequence_phi", u=(u, "N T d"), g=(g, "N T d"))
        n, t, d = size["N"], size["T"], size["d"]
        there = self._within_lengths("sequence_phi", lengths, n, t)
        u, g = u * there, g * there
        if kernel == "position":
            return self._position_phi(u, g, lengths, temperature, bandwidth)
        if kernel not in (None, *SEQUENCE_KERNELS):
            names = ", ".join(SEQUENCE_KERNELS)
            raise ValueError(f"kernel is {kernel!r}; choose one of {names}, or None")
        shape = (n, 1, t * d) if kernel is None else (n, t * d)
        moved = self.phi(u.reshape(shape), g.reshape(shape), temperature, bandwidth)
        return moved.reshape(u.shape) * there

    def _position_phi(
        self,
        u: Array,
        g: Array,
        lengths: tuple[int, ...],
        temperature: float | None,
        bandwidth: float | None,
    ) -> Array:
        """Positions that the same responses reach are one call of phi."""
        columns: list[Array] = []
        for start, stop in itertools.pairwise(sorted({0, *lengths, u.shape[1]})):
            reached = [i for i, length in enumerate(lengths) if length > start]
            rows = [u[0, start:stop] * 0] * len(lengths)
            if reached:
                a, score = (
                    self.stack([x[i, start:stop] for i in reached]).swapaxes(0, 1) for x in (u, g)
                )
                moved = self.phi(a, score, temperature, bandwidth)
                for place, i in enumerate(reached):
                    rows[i] = moved[:, place]
            columns += [self.stack([row[k] for row in rows]) for k in range(stop - start)]
        return self.stack(columns).swapaxes(0, 1)

    def rescale_sequences(self, v, lengths, like):
        n = check_shapes("rescale_sequences", v=(v, "N T d"))["N"]
        self._within_lengths("rescale_sequences", lengths, n, v.shape[1])
        if like is None:
            wanted = self.asarray(np.sqrt(lengths))
        else:
            check_shapes("rescale_sequences", v=(v, "N T d"), like=(like, "N T d"))
            wanted = self._sequence_norms(like)
        return v * (wanted / self.project(self._sequence_norms(v), LENGTH_MIN, None))[:, None, None]

    @staticmethod
    def _sequence_norms(v: Array) -> Array:
        return (v * v).sum((1, 2)) ** 0.5

    def _within_lengths(self, name: str, lengths: tuple[int, ...], n: int, t: int) -> Array:
        """1 where there is a token and 0 at padding, ``[N, T, 1]``."""
        check_shapes(name, lengths=(np.asarray(lengths), f"{n}"))
        return self.asarray(within_lengths(lengths, t)[:, :, None] * 1.0)

    # --- the agent ------------------------------------------------------------------------------

    def init_state(self, seed, observation_dim, action_dim, settings):
        return self.asarray(spec_init_state(seed, observation_dim, action_dim, settings))

    def sample_reference(self, params, s, noise, settings):
        activation = settings.reference.activation
        if settings.sampler != "euler":
            sampler = find(Sampler, settings.sampler, "sampler")
            return sampler.sample(self, params, s, noise, settings)
        if settings.reference_kind == "gaussian":
            return self.gaussian_sample(params, s, noise, settings.reference_tanh, activation)
        return self.flow_sample(params, s, noise, settings.sampling_steps, activation)

    def propose(self, state, s, noise, settings):
        return find_method(settings.method).propose(self, state, s, noise, settings)

    def move(self, state, s, a, budget, settings, trajectory):
        return find_method(settings.method).move(self, state, s, a, budget, settings, trajectory)

    def mean_over_shares(self, tree: Tree) -> Tree:
        """The mean of what several cores found for their shares of a batch; here one has it all."""
        return tree

    def update_from_noise(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, Tree]:
        """One update with its random numbers given: what a framework compiles as a whole."""
        method = find_method(settings.method)
        gradients, metrics = self.mean_over_shares(
            method.gradients(self, state, batch, noise, settings)
        )
        check_gradients(gradients, settings)
        new = dict(state)
        new["step"] = state["step"] + 1
        new["optimiser"] = dict(state["optimiser"])
        for name, gradient in gradients.items():
            if settings.clip_norm is not None:
                gradient = self.clip_by_global_norm(gradient, settings.clip_norm)
            new[name], new["optimiser"][name] = self.adam_step(
                state[name], gradient, state["optimiser"][name], settings.learning_rate_of(name)
            )
        if "critic" in gradients:
            online = (state if settings.target_update == "before" else new)["critic"]
            new["target_critic"] = self.polyak(online, state["target_critic"], settings.polyak)
        return new, metrics

    def act_from_noise(
        self, state: Tree, s: Array, noise: Tree, budget: Budget, settings: Settings
    ) -> tuple[Array, Tree]:
        """Acting with its random numbers given: what a framework compiles as a whole."""
        start = self.propose(state, s, noise["particles"], settings)
        moved = self.move(state, s, start, replace(budget, clip_scope="state"), settings)
        q = find_method(settings.method).values(self, state, s, moved, settings)
        a, index = self.select(
            moved, q, noise["select"], settings.selection, settings.selection_temperature
        )
        return a, {"start": start, "moved": moved, "q": q, "index": index}

    def update(self, state, batch, settings, noise):
        sizes = check_batch(batch)
        if noise is None:
            noise = self.draw_update_noise(
                state["seed"], state["step"], sizes["B"], sizes["d"], settings
            )
        return self.update_from_noise(state, batch, noise, settings)

    def act(self, state, s, budget, settings, particles, noise, draw):
        b = check_shapes("act", s=(s, "B o"))["B"]
        if noise is None:
            n = settings.particles if particles is None else particles
            d = find_method(settings.method).action_dim(state)
            noise = self.draw_act_noise(state["seed"], draw, b, n, d)
        return self.act_from_noise(state, s, noise, budget, settings)

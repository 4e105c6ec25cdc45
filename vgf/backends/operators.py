"""Operators on the accelerated backends: gradients by automatic differentiation.

Written against `vgf.spec.operators` without sharing its code, as composed.py is.
"""

from __future__ import annotations

import math

from ..spec.operators.guidance import GUIDANCE
from ..spec.settings import Budget
from ..spec.shapes import check_shapes
from .base import Array, Backend, Tree


class ComposedOperators(Backend):
    """Acting at test time by an operator, composed of other equations."""

    def full(self, shape: tuple[int, ...], value: float, like: Array) -> Array:
        """An array of one value, with the dtype and device of another."""
        raise NotImplementedError

    def denoised_gradient(self, params, critic, s, x, t, how, activation, critic_activation):
        def end(x: Array) -> Array:
            return x + (1 - t) * self.flow_velocity(params, s, x, t, activation)

        return self._gradient_at_the_end(end, critic, s, x, how, critic_activation)

    def sampler_gradient(
        self, params, critic, s, x, start, sampling_steps, how, activation, critic_activation
    ):
        def end(x: Array) -> Array:
            for k in range(start, sampling_steps):
                x = x + self._velocity_at(params, s, x, k / sampling_steps, activation) / (
                    sampling_steps
                )
            return x

        return self._gradient_at_the_end(end, critic, s, x, how, critic_activation)

    def _gradient_at_the_end(
        self, end, critic: Tree, s: Array, x: Array, how: str, activation: str
    ) -> Array:
        """The gradient of the critic at the clipped end of a noisy action, through both."""

        def value(x: Array) -> Array:
            y = end(x)
            # passes gradients on the closed interval, where frameworks differ
            a = self.xp.where(abs(y) <= 1, y, self.project(y))
            return self.aggregate(self.critic_values(critic, s, a, activation), how).sum()

        return self.value_and_gradient(value, x)[1]

    def _velocity_at(self, params: Tree, s: Array, x: Array, t: float, activation: str) -> Array:
        return self.flow_velocity(params, s, x, self.full((1,) * len(x.shape), t, x), activation)

    def guided_sample(
        self,
        params,
        critic,
        s,
        x0,
        sampling_steps,
        weight,
        guidance,
        how,
        activation,
        critic_activation,
    ):
        if guidance not in GUIDANCE:
            raise ValueError(f"guidance is {guidance!r}; choose one of {', '.join(GUIDANCE)}")
        x = x0
        for k in range(sampling_steps):
            v = self._velocity_at(params, s, x, k / sampling_steps, activation)
            t = k / sampling_steps
            if guidance == "noisy":
                g = self.action_gradient(critic, s, x, how, critic_activation)
            elif guidance == "denoised":
                y = self.project(x + (1 - t) * v)
                g = self.action_gradient(critic, s, y, how, critic_activation)
            elif guidance == "jacobian":
                time = self.full((1,) * len(x.shape), t, x)
                g = self.denoised_gradient(
                    params, critic, s, x, time, how, activation, critic_activation
                )
            else:
                g = self.sampler_gradient(
                    params, critic, s, x, k, sampling_steps, how, activation, critic_activation
                )
            x = x + (v + weight * g) / sampling_steps
        return self.project(x)

    def gradient_ascent(self, params, s, a, budget: Budget, sign, how, activation):
        def velocity(a: Array) -> Array:
            g = self.action_gradient(params, s, a, how, activation)
            return self.xp.sign(g) if sign else g

        return self.follow(velocity, a, budget, False)

    def langevin(self, params, s, a, noise, step_size, temperature, how, activation):
        n = check_shapes("langevin", a=(a, "* N d"), noise=(noise, "* R d"))["N"]
        if noise.shape[-2] % n:
            raise ValueError(
                f"langevin: noise has {noise.shape[-2]} rows, not a multiple of N = {n}"
            )
        for step in range(noise.shape[-2] // n):
            xi = noise[..., step * n : (step + 1) * n, :]
            drift = step_size * self.action_gradient(params, s, a, how, activation)
            a = self.project(a + drift + math.sqrt(2 * step_size * temperature) * xi)
        return a

    def operate(self, state, s, operator, settings, noise):
        check_shapes("operate", s=(s, "B o"))
        operator.refuse(settings)
        moved = operator.improve(self, state, s, noise["particles"], settings)
        first = moved[..., : operator.chosen(settings), :]
        if first.shape[-2] == 1:
            q = first[..., 0] * 0
        else:
            critics, activation = operator.critics(state), settings.critic.activation
            q = self.critic_values(critics, s, first, activation)
            q = self.aggregate(q, operator.chosen_by(settings))
        a, index = self.select(first, q, noise["select"])
        return a, {"moved": moved, "q": q, "index": index}

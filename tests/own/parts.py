"""Parts of a method as a stranger writes them; tests name them as ``tests/own/parts.py:...``."""

import numpy as np

from vgf.methods import CriticLoss, Kernel, ParticleStep, Sampler, SelectionRule, Target


class InverseMultiquadric(Kernel):
    """k(x, y) = (1 + ||x - y||^2 / (2 sigma^2))^(-1/2)."""

    def value(self, eq, x, y, sigma_squared):
        distances = eq.squared_distances(x, y)
        return (1 + distances / (2 * sigma_squared[..., None, None])) ** -0.5

    def gradient(self, x, y, sigma_squared):
        difference = x[..., :, None, :] - y[..., None, :, :]
        sigma_squared = sigma_squared[..., None, None, None]
        inner = 1 + np.sum(difference**2, axis=-1, keepdims=True) / (2 * sigma_squared)
        return -(inner**-1.5) * difference / (2 * sigma_squared)


class Lopsided(Kernel):
    """A kernel that is not symmetric, so that a mix-up of its arguments shows."""

    def value(self, eq, x, y, sigma_squared):
        along = eq.xp.sum(x, axis=-1)[..., :, None] - 2 * eq.xp.sum(y, axis=-1)[..., None, :]
        return eq.xp.exp(-(along**2) / 20)

    def gradient(self, x, y, sigma_squared):
        along = np.sum(x, axis=-1)[..., :, None] - 2 * np.sum(y, axis=-1)[..., None, :]
        slope = -along / 10 * np.exp(-(along**2) / 20)
        return np.broadcast_to(slope[..., None], (*slope.shape, x.shape[-1]))


class SecondBest(SelectionRule):
    """The particle of the second highest value, or the only one."""

    def pick(self, eq, q, u, temperature):
        order = eq.xp.argsort(q, axis=-1)
        return order[..., max(q.shape[-1] - 2, 0)]


class Midpoint(Sampler):
    """The flow integrated by the midpoint rule, and clipped to the box."""

    def sample(self, eq, params, s, noise, settings):
        x, k, activation = noise, settings.sampling_steps, settings.reference.activation
        zero = noise[..., :1] * 0
        for i in range(k):
            half = x + eq.flow_velocity(params, s, x, zero + i / k, activation) / (2 * k)
            x = x + eq.flow_velocity(params, s, half, zero + (i + 0.5) / k, activation) / k
        return eq.project(x)


class Momentum(ParticleStep):
    """Ascent with momentum."""

    def init(self, eq, a):
        return {"v": a * 0}

    def step(self, eq, a, velocity, state, budget):
        v = 0.5 * state["v"] + velocity
        return a + budget.step_size * v, {"v": v}


class LogCosh(CriticLoss):
    """mean over the batch of sum_e log cosh(y - Q_e)."""

    def value(self, eq, q, y, expectile):
        x = eq.xp.abs(y - q)
        rows = x + eq.xp.log1p(eq.xp.exp(-2 * x)) - np.log(2)
        return eq.xp.mean(eq.xp.sum(rows, axis=0))

    def derivative(self, q, y, expectile):
        return -np.tanh(y - q) / len(y)


class Pessimistic(Target):
    """A target from the lowest value of any particle and critic."""

    def value(self, eq, q, r, mask, discount, how, particles):
        return r + discount * mask * eq.xp.min(eq.xp.min(q, axis=-1), axis=0)


class NoGradient(Kernel):
    """A kernel without the derivative that NumPy needs."""

    def value(self, eq, x, y, sigma_squared):
        return eq.rbf_kernel(x, y, sigma_squared)

"""Landscapes with known answers: mixtures of Gaussians, and bounded scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vgf.spec import rbf_kernel, squared_distances
from vgf.spec.types import Array, VectorField


@dataclass(frozen=True)
class Mixture:
    """A mixture of round Gaussians, all of one width.

    Args:
        means: the centre of each, in units of the action.
        weights: of each; they sum to 1.
        std: the standard deviation of all.
    """

    means: Sequence[Sequence[float]]
    weights: Sequence[float]
    std: float

    def sample(self, rng: np.random.Generator, shape: Sequence[int]) -> Array:
        """Exact samples, ``[*shape, d]``."""
        means = np.asarray(self.means)
        which = rng.choice(len(means), size=tuple(shape), p=self.weights)
        return means[which] + self.std * rng.standard_normal((*shape, means.shape[1]))

    def density(self, a: Array) -> Array:
        """The density at points ``[*, d]`` -> ``[*]``."""
        d = a.shape[-1]
        return np.exp(self._log_parts(a)).sum(-1) / (2 * math.pi * self.std**2) ** (d / 2)

    def score(self, a: Array) -> Array:
        """grad log p(a), ``[*, d]`` -> the same."""
        parts = self._log_parts(a)
        share = np.exp(parts - parts.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        towards = np.asarray(self.means) - a[..., None, :]
        return np.sum(share[..., None] * towards, axis=-2) / self.std**2

    def mmd_squared(self, a: Array, sigma_squared: float) -> Array:
        """MMD^2 between particles ``[*, N, d]`` and the mixture itself, by its integrals: ``[*]``.

        With Y ~ N(m, s^2 I): E k(x, Y) = (sigma^2 / (sigma^2 + s^2))^(d/2)
        exp(-||x - m||^2 / (2 (sigma^2 + s^2))), and E k(Y, Y') the same with 2 s^2.
        """
        means, weights = np.asarray(self.means), np.asarray(self.weights)
        half = a.shape[-1] / 2
        wide, wider = sigma_squared + self.std**2, sigma_squared + 2 * self.std**2
        lead = np.full(a.shape[:-2], 1.0)
        points = np.broadcast_to(means, (*a.shape[:-2], *means.shape))
        to_target = (sigma_squared / wide) ** half * rbf_kernel(a, points, lead * wide) @ weights
        within = weights @ np.exp(-squared_distances(means, means) / (2 * wider)) @ weights
        within_target = (sigma_squared / wider) ** half * within
        within_a = rbf_kernel(a, a, lead * sigma_squared).mean((-2, -1))
        return within_a + within_target - 2 * to_target.mean(-1)

    def _log_parts(self, a: Array) -> Array:
        """log(weight) - ||a - mean||^2 / (2 std^2), one for each Gaussian."""
        away = a[..., None, :] - np.asarray(self.means)
        return np.log(self.weights) - np.sum(away**2, axis=-1) / (2 * self.std**2)


def ring(modes: int, radius: float, std: float) -> Mixture:
    """Equal Gaussians evenly spaced on a circle around the origin of the plane."""
    angles = (np.arange(modes) + 0.5) * 2 * math.pi / modes
    means = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return Mixture(means.tolist(), [1 / modes] * modes, std)


def clipped(score: VectorField, length: float) -> VectorField:
    """A score clipped to `length`, as the bounds of the theory require."""

    def field(a: Array) -> Array:
        g = score(a)
        return g * (length / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), length))

    return field


def slope(length: float) -> VectorField:
    """A score of constant length along the first axis: what moves particles furthest."""
    return lambda a: np.broadcast_to(length * np.eye(a.shape[-1])[0], a.shape)


def waves(rng: np.random.Generator, sets: int, d: int, length: float) -> VectorField:
    """A smooth random score for each set of particles, no longer than `length`."""
    turn = 3 * rng.standard_normal((sets, d, d))
    phase = rng.uniform(0, 2 * math.pi, (sets, 1, d))
    return lambda a: length * np.sin(a @ turn + phase) / math.sqrt(d)

"""Weighted behaviour cloning: the reference is fitted with weights of the critic's advantages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..agent import fit_critic, fit_reference, sample_reference
from ..critic import aggregate, critic_values
from ..settings import Settings, at_least
from ..shapes import check_shapes
from ..types import Array, Params
from .base import Draw, Specification, normal


def advantage_weights(
    q: Array, baseline: Array, how: str = "mean", temperature: float = 1.0, maximum: float = 20.0
) -> Array:
    """The weights of weighted behaviour cloning.

    Shapes:
        q: ``[E, B]``, Q_e(s, a) on the data; baseline: ``[E, B, N]``, Q_e(s, a_i) on the policy's
        own actions; how: "mean" or "min" over the critics; temperature: beta, in units of Q.
        Returns ``[B]``.

    Equation:
        A = agg_e Q_e(s, a) - mean_i agg_e Q_e(s, a_i)
        w = min( exp(A / beta), maximum )

    Raises:
        ValueError: shapes that do not match, or an unknown rule.

    Source:
        Wang et al. 2020 (critic-regularised regression), the exponential form with the mean
        advantage; Peng et al. 2019. The paper's "weighted behaviour cloning".
    """
    check_shapes("advantage_weights", q=(q, "E B"), baseline=(baseline, "E B N"))
    advantage = aggregate(q, how) - np.mean(aggregate(baseline, how), axis=-1)
    return np.exp(np.minimum(advantage / temperature, math.log(maximum)))


def weigh(state: Params, s: Array, a: Array, noise: Params, settings: Any) -> Array:
    """The weights of weighted behaviour cloning, from the critic and the policy's own actions.

    Shapes:
        s: ``[B, o]``; a: ``[B, d]``; noise: as :func:`draw_update_noise`. Returns ``[B]``.

    Equation:
        advantage_weights( Q(s, a), Q(s, a_i) ),  a_i ~ mu(. | s)

    Raises:
        ValueError: shapes that do not match.

    Source:
        As :func:`advantage_weights`.
    """
    activation = settings.critic.activation
    own = sample_reference(state["reference"], s, noise["baseline"], settings)
    return advantage_weights(
        critic_values(state["critic"], s, a, activation),
        critic_values(state["critic"], s, own, activation),
        settings.value_ensemble,
        settings.weight_temperature,
        settings.weight_maximum,
    )


@dataclass(frozen=True)
class WeightedBCSettings(Settings):
    """The settings of weighted behaviour cloning.

    Args:
        weight_temperature: beta, in units of Q.
        weight_maximum: the largest weight.
    """

    weight_temperature: float = 1.0
    weight_maximum: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight_temperature", "weight_maximum"):
            at_least(name, getattr(self, name), 0.0, strict=True)


class WeightedBC(Specification):
    """Weighted behaviour cloning: the reference is itself the policy, and no particle is moved."""

    name = "weighted_bc"
    title = "weighted BC"
    long_title = "weighted behaviour cloning"
    Settings = WeightedBCSettings

    def states_meet(self, settings: Any) -> bool:
        return False

    def noise(self, b: int, d: int, settings: Any) -> dict[str, Draw]:
        return {"baseline": normal(b, settings.particles, d)}

    def gradients(
        self, state: Params, batch: Params, noise: Params, settings: Any
    ) -> tuple[Params, Params]:
        """The critic's gradient, and the weighted reference's.

        Shapes:
            As :meth:`Specification.gradients`.

        Equation:
            flow_matching_gradient or gaussian_gradient, with the weights of advantage_weights

        Source:
            As :func:`advantage_weights`.
        """
        s, a, s_next = batch["observations"], batch["actions"], batch["next_observations"]
        start = self.propose(state, s_next, noise["particles"], settings)
        moved = self.move(state, s_next, start, settings.budget, settings)
        critic, metrics = fit_critic(state, batch, start, moved, settings)
        weight = weigh(state, s, a, noise, settings)
        loss, reference = fit_reference(state["reference"], s, a, noise, settings, weight)
        metrics |= {"weight_mean": np.mean(weight), "reference_loss": loss}
        return {"critic": critic, "reference": reference}, metrics

"""Weighted behaviour cloning: the reference is fitted with weights of the critic's advantages."""

from __future__ import annotations

from typing import Any

from ..equations import Equations
from ..spec import methods as specified
from .base import Array, Method, Tree


class WeightedBC(Method):
    """Weighted behaviour cloning: the reference is itself the policy, and no particle is moved."""

    specification = specified.WeightedBC()

    def gradients(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[dict[str, Tree], dict[str, Array]]:
        critic, metrics = self.critic_gradient(eq, state, batch, noise, settings)
        s, a = batch["observations"], batch["actions"]
        own = eq.sample_reference(state["reference"], s, noise["baseline"], settings)
        activation = settings.critic.activation
        weight = eq.advantage_weights(
            eq.critic_values(state["critic"], s, a, activation),
            eq.critic_values(state["critic"], s, own, activation),
            settings.value_ensemble,
            settings.weight_temperature,
            settings.weight_maximum,
        )
        reference, found = self.reference_gradient(eq, state, batch, noise, settings, weight)
        return (
            {"critic": critic, "reference": reference},
            {**metrics, "weight_mean": weight.mean(), **found},
        )

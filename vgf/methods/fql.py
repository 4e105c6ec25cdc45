"""FQL (Park et al. 2025): a one-step policy between the flow reference and the critic."""

from __future__ import annotations

from typing import Any

from ..equations import Equations
from ..spec import methods as specified
from ..spec.agent import check_network
from .base import Array, Method, Tree


class FQL(Method):
    """FQL: a one-step policy, distilled from the flow reference and trained through the critic."""

    specification = specified.FQL()

    def gradients(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[dict[str, Tree], dict[str, Array]]:
        gradients, metrics = super().gradients(eq, state, batch, noise, settings)
        s, z = batch["observations"], noise["policy"]
        loss, gradients["policy"] = eq.policy_gradient(
            state["policy"],
            state["critic"],
            s,
            z,
            eq.sample_reference(state["reference"], s, z, settings),
            settings.distillation,
            settings.normalise_values,
            settings.policy.activation,
            settings.critic.activation,
        )
        return gradients, {**metrics, "policy_loss": loss}

    def propose(self, eq: Equations, state: Tree, s: Array, noise: Array, settings: Any) -> Array:
        check_network(state, "policy", "method 'fql'")
        return eq.project(eq.policy_actions(state["policy"], s, noise, settings.policy.activation))

"""In-sample expectile (IQL, Kostrikov et al. 2022): a critic that never sees a moved particle."""

from __future__ import annotations

from typing import Any

from ..equations import Equations
from ..spec import methods as specified
from .base import Array, Method, Tree


class IQL(Method):
    """IQL: V by expectile regression, Q on r + gamma V(s'); particles move at test time only."""

    specification = specified.IQL()

    def gradients(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[dict[str, Tree], dict[str, Array]]:
        s, a, activation = batch["observations"], batch["actions"], settings.critic.activation
        q = eq.critic_values(state["target_critic"], s, a, activation)
        value_loss, value = eq.value_gradient(
            state["value"],
            s,
            eq.aggregate(q, settings.target_ensemble),
            settings.expectile,
            settings.value.activation,
        )
        v = eq.state_values(state["value"], batch["next_observations"], settings.value.activation)
        y = batch["rewards"] + settings.discount * batch["masks"] * v
        critic_loss, critic = eq.critic_gradient(
            state["critic"],
            s,
            a,
            y,
            settings.critic_loss,
            settings.expectile,
            activation,
            settings.sparse_alpha,
        )
        reference, found = self.reference_gradient(eq, state, batch, noise, settings)
        return {"critic": critic, "reference": reference, "value": value}, {
            "critic_loss": critic_loss,
            "target_mean": y.mean(),
            "value_loss": value_loss,
            **found,
        }

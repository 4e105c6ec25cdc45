"""Amortised VGF (A-VGF): a network f(s, a) learns the critic's gradient; the flow follows it."""

from __future__ import annotations

from typing import Any

from ..equations import Equations
from ..spec import methods as specified
from ..spec.agent import check_network
from ..spec.settings import Budget
from .base import Array, Method, Tree


class AVGF(Method):
    """Amortised VGF: VGF with a network f, and particles that follow f alone."""

    specification = specified.AVGF()

    def gradients(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[dict[str, Tree], dict[str, Array]]:
        gradients, metrics = super().gradients(eq, state, batch, noise, settings)
        s, a = batch["observations"], batch["actions"]
        score = eq.action_gradient(state["critic"], s, a, "mean", settings.critic.activation)
        activation = settings.gradient_field.activation
        loss, gradients["gradient_field"] = eq.gradient_field_gradient(
            state["gradient_field"], s, a, score, settings.normalise_gradients, activation
        )
        return gradients, {**metrics, "gradient_field_loss": loss}

    def move(
        self,
        eq: Equations,
        state: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        settings: Any,
        trajectory: bool = False,
    ) -> Array:
        check_network(state, "gradient_field", "method 'avgf'")
        field, activation = state["gradient_field"], settings.gradient_field.activation
        return eq.amortised_transport(field, s, a, budget, activation, trajectory)

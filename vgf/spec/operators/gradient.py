"""Gradient steps: every finished action climbs the critic by itself, or its gradient's sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..settings import Budget
from ..types import Array, Params
from .base import Cost, Operator, proposal_cost


@dataclass(frozen=True)
class Gradient(Operator):
    """Plain gradient steps a <- clip(a + epsilon g); VGF with one particle and plain steps.

    Args:
        steps: L.
        step_size: epsilon; with `sign`, what a coordinate moves in one step.
        sign: climb along the sign of the gradient.
    """

    name: ClassVar[str] = "gradient"
    title: ClassVar[str] = "gradient steps"

    steps: int = 1
    step_size: float = 0.1
    sign: bool = False

    def improve(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        start = self.start(eq, state, s, noise, settings)
        budget = Budget(
            steps=self.steps, step_size=self.step_size, temperature=None, optimiser="plain"
        )
        how, activation = self.climbed(settings), settings.critic.activation
        return eq.gradient_ascent(self.critics(state), s, start, budget, self.sign, how, activation)

    def cost(self, settings: Any) -> Cost:
        n = self.count(settings)
        return proposal_cost(n, settings)._replace(gradient=n * self.steps)

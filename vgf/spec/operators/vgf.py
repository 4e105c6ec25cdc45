"""The value gradient flow: particles move together, over a transport budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..settings import Budget
from ..types import Array, Params
from .base import Cost, Operator, proposal_cost


@dataclass(frozen=True)
class Flow(Operator):
    """Value Gradient Flow along the critic, at any budget.

    Args:
        budget: steps, step size, temperature, optimiser, kernel...; ``None`` is the agent's
            training budget.
    """

    name: ClassVar[str] = "vgf"
    title: ClassVar[str] = "VGF"

    budget: Budget | None = None

    def improve(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        start = self.start(eq, state, s, noise, settings)
        budget, how = self.over(settings), self.climbed(settings)
        return eq.critic_transport(
            self.critics(state), s, start, budget, how, settings.critic.activation
        )

    def over(self, settings: Any) -> Budget:
        """The budget.

        Shapes:
            settings: the agent's.
        """
        return settings.budget if self.budget is None else self.budget

    def cost(self, settings: Any) -> Cost:
        n = self.count(settings)
        return proposal_cost(n, settings)._replace(gradient=n * self.over(settings).steps)

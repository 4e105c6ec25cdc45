"""Langevin steps: every finished action climbs the critic by itself, with noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..types import Array, Params
from .base import Cost, Operator, proposal_cost


@dataclass(frozen=True)
class Langevin(Operator):
    """Langevin dynamics towards exp(Q / alpha).

    Args:
        steps: L.
        step_size: epsilon.
        temperature: alpha, in units of Q; 0 is gradient steps.
    """

    name: ClassVar[str] = "langevin"
    title: ClassVar[str] = "Langevin steps"

    steps: int = 1
    step_size: float = 0.1
    temperature: float = 0.1

    def improve(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        start, n = self.start(eq, state, s, noise, settings), self.count(settings)
        return eq.langevin(
            self.critics(state),
            s,
            start,
            noise[..., n : self.rows(settings), :],
            self.step_size,
            self.temperature,
            self.climbed(settings),
            settings.critic.activation,
        )

    def rows(self, settings: Any) -> int:
        return self.count(settings) * (1 + self.steps)

    def cost(self, settings: Any) -> Cost:
        n = self.count(settings)
        return proposal_cost(n, settings)._replace(gradient=n * self.steps)

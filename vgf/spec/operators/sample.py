"""Samples of the reference as they are: one, or the best of N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..types import Array, Params
from .base import Cost, Operator, proposal_cost


@dataclass(frozen=True)
class BestOfN(Operator):
    """The best of N samples by the critic; nothing is moved."""

    name: ClassVar[str] = "best_of_n"
    title: ClassVar[str] = "best of N"

    def improve(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        return self.start(eq, state, s, noise, settings)

    def cost(self, settings: Any) -> Cost:
        return proposal_cost(self.count(settings), settings)


@dataclass(frozen=True)
class Sample(BestOfN):
    """One sample: behaviour cloning, or what the agent's policy proposes."""

    name: ClassVar[str] = "sample"
    title: ClassVar[str] = "one sample"
    needs: ClassVar[tuple[str, ...]] = ()

    particles: int | None = 1

"""TD at L = 0: the critic's target is valued at the reference's own particles, not moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..settings import Budget
from .base import Specification


class TD(Specification):
    """TD at L = 0: VGF whose particles move along the critic at test time only.

    The target is the expected SARSA target of the reference, or with target_particles "max" that of
    best-of-N (Ghasemipour et al. 2021, EMaQ).
    """

    name = "td"
    title = "TD, L = 0"
    transports = True

    def training_budget(self, settings: Any) -> Budget:
        return replace(settings.budget, steps=0)

    def states_meet(self, settings: Any) -> bool:
        return False

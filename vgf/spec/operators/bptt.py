"""The critic's gradient through all that is left of the sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Cost
from .guided import Guided


@dataclass(frozen=True)
class BPTT(Guided):
    """The sampler, guided by the critic's gradient through its remaining steps."""

    name: ClassVar[str] = "bptt"
    title: ClassVar[str] = "through the sampler"

    def guidance(self) -> str:
        return "sampler"

    def cost(self, settings: Any) -> Cost:
        k = settings.sampling_steps
        each = self.count(settings) * k
        return Cost(each, 0, each, self.count(settings) * k * (k + 1) // 2)

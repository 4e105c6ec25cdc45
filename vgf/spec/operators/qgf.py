"""QGF: the critic's gradient at the action that the noisy one leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Cost
from .guided import Guided


@dataclass(frozen=True)
class QGF(Guided):
    """Q-guided flow: the sampler, guided by the critic's gradient at the denoised action.

    Args:
        jacobian: take the gradient through the denoising too ("QGF with Jacobian").
    """

    name: ClassVar[str] = "qgf"
    title: ClassVar[str] = "QGF"

    jacobian: bool = False

    def guidance(self) -> str:
        return "jacobian" if self.jacobian else "denoised"

    def cost(self, settings: Any) -> Cost:
        cost = super().cost(settings)
        return cost._replace(reference_gradient=cost.reference) if self.jacobian else cost

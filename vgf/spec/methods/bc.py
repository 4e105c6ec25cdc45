"""Behaviour cloning: the reference alone, without a critic."""

from __future__ import annotations

from typing import Any

from ..agent import fit_reference
from ..types import Params
from .base import Specification


class BC(Specification):
    """Behaviour cloning: particles are the reference's, none is moved, and all are valued alike."""

    name = "bc"
    title = "BC"
    long_title = "behaviour cloning"
    trains = ("reference",)

    def states_meet(self, settings: Any) -> bool:
        return False

    def gradients(
        self, state: Params, batch: Params, noise: Params, settings: Any
    ) -> tuple[Params, Params]:
        """The gradient of the reference.

        Shapes:
            As :meth:`Specification.gradients`.

        Equation:
            flow_matching_gradient or gaussian_gradient

        Source:
            Paper, the reference.
        """
        loss, reference = fit_reference(
            state["reference"], batch["observations"], batch["actions"], noise, settings
        )
        return {"reference": reference}, {"reference_loss": loss}

"""Behaviour cloning: the reference alone, without a critic."""

from __future__ import annotations

from typing import Any

from ..equations import Equations
from ..spec import methods as specified
from .base import Array, Method, Tree


class BC(Method):
    """Behaviour cloning: particles are the reference's, none is moved, and all are valued alike."""

    specification = specified.BC()

    def gradients(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[dict[str, Tree], dict[str, Array]]:
        reference, metrics = self.reference_gradient(eq, state, batch, noise, settings)
        return {"reference": reference}, metrics

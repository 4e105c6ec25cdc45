"""VGF: particles of the reference follow the critic's gradient through the kernel."""

from __future__ import annotations

from typing import Any

from .base import Specification


class VGF(Specification):
    """Value Gradient Flow (paper, Algorithm 1): what :class:`Specification` says, and no more.

    The critic learns the TD target of particles that were moved along its own gradient; the
    reference learns the data's actions; acting moves particles over any test budget and keeps the
    best.
    """

    name = "vgf"
    title = "VGF"
    transports = True

    def states_meet(self, settings: Any) -> bool:
        return False

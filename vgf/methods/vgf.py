"""VGF: particles of the reference follow the critic's gradient through the kernel."""

from __future__ import annotations

from ..spec import methods as specified
from .base import Method


class VGF(Method):
    """Value Gradient Flow (paper, Algorithm 1): what :class:`Method` does, and no more."""

    specification = specified.VGF()

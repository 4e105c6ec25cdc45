"""TD at L = 0: the critic's target is valued at the reference's own particles, not moved."""

from __future__ import annotations

from ..spec import methods as specified
from .base import Method


class TD(Method):
    """TD at L = 0: VGF whose particles move along the critic at test time only."""

    specification = specified.TD()

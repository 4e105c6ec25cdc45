"""QFQL: the critic's gradient at the noisy action itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .guided import Guided


@dataclass(frozen=True)
class QFQL(Guided):
    """The sampler, guided by the critic's gradient at the noisy action."""

    name: ClassVar[str] = "qfql"
    title: ClassVar[str] = "QFQL"

    def guidance(self) -> str:
        return "noisy"

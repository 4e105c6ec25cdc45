"""What operators that guide the reference's sampler have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..types import Array, Params
from .base import Cost, Operator


@dataclass(frozen=True)
class Guided(Operator):
    """The flow reference's sampler, guided by the critic at every step.

    Args:
        weight: w, of the guidance beside the velocity.
    """

    needs: ClassVar[tuple[str, ...]] = ("critic", "reference")
    guides: ClassVar[bool] = True

    weight: float = 1.0

    def guidance(self) -> str:
        """The rule of :func:`guided_sample`.

        Shapes:
            None.
        """
        raise NotImplementedError

    def improve(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        return eq.guided_sample(
            state["reference"],
            self.critics(state),
            s,
            noise[..., : self.count(settings), :],
            settings.sampling_steps,
            self.weight,
            self.guidance(),
            self.climbed(settings),
            settings.reference.activation,
            settings.critic.activation,
        )

    def start(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        x0 = noise[..., : self.count(settings), :]
        return eq.sample_reference(state["reference"], s, x0, settings)

    def cost(self, settings: Any) -> Cost:
        each = self.count(settings) * settings.sampling_steps
        return Cost(reference=each, gradient=each)

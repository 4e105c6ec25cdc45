"""An agent as a policy: NumPy in, NumPy out, its observations scaled as in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backends.base import Backend, Tree
from ..data.scaling import Scaling
from .evaluation import Policy
from ..spec.settings import Budget, Settings
from ..spec.types import Array


def agent_policy(
    backend: Backend, state: Tree, agent: Settings, scaling: Scaling, particles: int
) -> Policy[Budget]:
    """An agent as :func:`vgf.runs.evaluation.evaluate` wants it.

    Args:
        backend, state: the agent.
        agent: its settings.
        scaling: of its observations.
        particles: N; of the noise that the policy is given it takes as many.
    """
    answer = backend.policy(state, agent)

    def policy(
        observations: Array, budget: Budget, noise: Mapping[str, Array]
    ) -> tuple[Array, Mapping[str, Any]]:
        chosen = {"particles": noise["particles"][:, :particles], "select": noise["select"]}
        return answer(scaling(observations), budget, chosen)

    return policy

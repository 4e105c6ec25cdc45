"""The authors' whole agents, described for `vgf check --agent`: see `vgf.checker.agents`."""

from __future__ import annotations

from typing import Any

import numpy as np

from vgf.support.extras import need

from .authors import FQL, VGF, config_of, modules_of

# Each agent: the repository, its module and class, what its networks are called, and the settings
# in which its code departs from the equations.
DEPARTURES = {
    "target_update": "before",
    "budget.bandwidth_gradient": True,
    "budget.kernel_guard": 1e-6,
}
AGENTS: dict[str, tuple[str, str, str, dict[str, str], dict[str, Any]]] = {
    "vgf": (
        VGF,
        "agents.vgf",
        "VGFAgent",
        {"critic": "critic.params", "target_critic": "target_critic.params",
         "reference": "actor_bc.params"},
        DEPARTURES,
    ),
    "avgf": (
        VGF,
        "agents.a_vgf",
        "AVGFAgent",
        {"critic": "critic.params", "target_critic": "target_critic.params",
         "reference": "actor_bc.params", "gradient_field": "q_grad.params"},
        {"target_update": "before", "clip_norm": 1.0, "budget.clip_norm": 1.0,
         "budget.clip_scope": "batch"},
    ),
    "fql": (
        FQL,
        "agents.fql",
        "FQLAgent",
        {"critic": "network.params.modules_critic",
         "target_critic": "network.params.modules_target_critic",
         "reference": "network.params.modules_actor_bc_flow",
         "policy": "network.params.modules_actor_onestep_flow"},
        {},
    ),
}  # fmt: skip


class Authors:
    """An agent of a checkout.

    Args:
        method: a key of :data:`AGENTS`.
        root: the checkout.
    """

    def __init__(self, method: str, root: str) -> None:
        self.method, self.root = method, root
        _, self._module, self._class, self.networks, self.settings = AGENTS[method]

    def create(self, settings: Any, observation_dim: int, action_dim: int, seed: int) -> Any:
        """Theirs with our settings."""
        with modules_of(self.root) as load:
            theirs = load(self._module)
        config = config_of(settings, theirs.get_config())
        make = getattr(theirs, self._class).create
        return make(seed, np.zeros((1, observation_dim)), np.zeros((1, action_dim)), config)

    def update(self, agent: Any, batch: Any) -> Any:
        """One update."""
        return agent.update(batch)[0]

    def act(self, agent: Any, observations: Any, steps: int) -> Any:
        """Actions, one state at a time."""
        jax = need("jax", "jax")
        more = {} if self.method == "fql" else {"eval_vgf_steps": steps}
        key = jax.random.PRNGKey(0)
        with jax.disable_jit():  # each budget would be compiled
            return np.stack([agent.sample_actions(s, seed=key, **more) for s in observations])

"""FQL (Park et al. 2025): a one-step policy between the flow reference and the critic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..agent import check_network, sample_reference
from ..critic import action_gradient, aggregate, critic_values
from ..flow import project
from ..networks import mlp, mlp_vjp
from ..reference import repeat_states
from ..settings import Network, Settings, at_least
from ..shapes import check_shapes
from ..types import Array, Params
from .base import Draw, NetworkShape, Specification, normal

VALUE_SCALE_MIN = 1e-8


def policy_actions(params: Params, s: Array, noise: Array, activation: str = "relu") -> Array:
    """The actions of FQL's one-step policy, before they are clipped to the box.

    Shapes:
        params: a network; s: ``[*, o]``; noise: standard normal z, ``[*, d]`` or ``[*, N, d]``.
        Returns the shape of noise.

    Equation:
        omega(s, z) = mlp( [s, z] )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Park et al. 2025 (FQL), its code's `actor_onestep_flow`.
    """
    x = np.concatenate([repeat_states(s, noise), noise], axis=-1)
    return mlp(params, x.reshape(-1, x.shape[-1]), activation).reshape(noise.shape)


def policy_loss(
    params: Params,
    critic: Params,
    s: Array,
    noise: Array,
    target: Array,
    distillation: float = 10.0,
    normalise: bool = False,
    activation: str = "relu",
    critic_activation: str = "relu",
) -> Array:
    """FQL's loss of the one-step policy: the value it reaches, and its distance to the reference.

    Shapes:
        params: a network; critic: an ensemble; s: ``[B, o]``; noise: z ``[B, d]``; target: the
        flow reference's actions from the same noise, ``[B, d]``. Returns a scalar.

    Equation:
        a = omega(s, z)
        loss = distillation * mean over batch and dimensions of (a - target)^2
               - kappa * mean over the batch of mean_e Q_e(s, clip(a, -1, 1))
        kappa = 1, or with `normalise` 1 / max( mean over the batch of |mean_e Q_e|, 1e-8 ), a
        constant; in FQL's code `lam`, and `distillation` is its alpha

    Raises:
        ValueError: shapes that do not match.

    Source:
        Park et al. 2025 (FQL), its code's `actor_loss`; the floor of 1e-8 is ours.
    """
    return policy_gradient(
        params, critic, s, noise, target, distillation, normalise, activation, critic_activation
    )[0]


def policy_gradient(
    params: Params,
    critic: Params,
    s: Array,
    noise: Array,
    target: Array,
    distillation: float = 10.0,
    normalise: bool = False,
    activation: str = "relu",
    critic_activation: str = "relu",
) -> tuple[Array, Params]:
    """FQL's loss of the one-step policy and its gradient, through the critic's action gradient.

    Shapes:
        As :func:`policy_loss`; returns the loss and a tree like params.

    Equation:
        d loss / d a = 2 distillation (a - target) / (B d)
                       - (kappa / B) [-1 <= a <= 1] grad_a mean_e Q_e(s, clip(a, -1, 1)),
        pulled back by mlp_vjp

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`policy_loss`.
    """
    check_shapes("policy", s=(s, "B o"), noise=(noise, "B d"), target=(target, "B d"))
    a = policy_actions(params, s, noise, activation)
    inside = (np.abs(a) <= 1).astype(a.dtype)
    q = aggregate(critic_values(critic, s, project(a), critic_activation), "mean")
    scale = 1 / np.maximum(np.mean(np.abs(q)), VALUE_SCALE_MIN) if normalise else 1.0
    g = action_gradient(critic, s, project(a), "mean", critic_activation)
    loss = distillation * np.mean((a - target) ** 2) - scale * np.mean(q)
    slope = 2 * distillation * (a - target) / a.size - scale * inside * g / len(a)
    x = np.concatenate([s, noise], axis=-1)
    gradient, _ = mlp_vjp(params, x, slope.astype(a.dtype), activation)
    return loss, gradient


def fit_policy(state: Params, batch: Params, noise: Params, settings: Any) -> tuple[Array, Params]:
    """FQL's one-step policy: the loss towards the flow reference and the critic, its gradient.

    Shapes:
        batch, noise: as :func:`update`. Returns a scalar and a tree like the policy.

    Equation:
        policy_gradient, its target flow_sample(s, z) from the same noise z

    Raises:
        ValueError: shapes that do not match.

    Source:
        Park et al. 2025 (FQL), its code's `actor_loss`.
    """
    s = batch["observations"]
    target = sample_reference(state["reference"], s, noise["policy"], settings)
    return policy_gradient(
        state["policy"],
        state["critic"],
        s,
        noise["policy"],
        target,
        settings.distillation,
        settings.normalise_values,
        settings.policy.activation,
        settings.critic.activation,
    )


@dataclass(frozen=True)
class FQLSettings(Settings):
    """The settings of FQL.

    Args:
        policy: the one-step policy.
        distillation: the weight of staying near the flow reference (alpha in its paper).
        normalise_values: divide the value term by the mean of |Q|.
    """

    policy: Network = field(default_factory=Network)
    distillation: float = 10.0
    normalise_values: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("distillation", self.distillation, 0.0)


class FQL(Specification):
    """FQL: a one-step policy, distilled from the flow reference and trained through the critic."""

    name = "fql"
    title = "FQL"
    Settings = FQLSettings
    # its code, agents/fql.py and utils/networks.py: one action; the mean of the critics in the
    # target and in the loss; GELU, and LayerNorm of the critic after it; the target from before
    defaults = {
        "particles": 1,
        "target_ensemble": "mean",
        "target_update": "before",
        "critic_loss": "mean_squared",
        "critic": Network(activation="gelu_tanh", layer_norm="after"),
        "reference": Network(activation="gelu_tanh"),
        "policy": Network(activation="gelu_tanh"),
    }
    trains = ("critic", "reference", "policy")
    actors = ("reference", "policy")
    own_sizes = True

    def networks(self, o: int, d: int, settings: Any) -> dict[str, NetworkShape]:
        return {"policy": NetworkShape(o + d, d, settings.policy)}

    def noise(self, b: int, d: int, settings: Any) -> dict[str, Draw]:
        return {"policy": normal(b, d)}

    def refuse(self, settings: Any) -> None:
        super().refuse(settings)
        if settings.reference_kind != "flow":
            raise ValueError(
                "method 'fql' distils the flow reference; reference_kind must be 'flow'"
            )

    def states_meet(self, settings: Any) -> bool:
        return bool(settings.normalise_values)

    def gradients(
        self, state: Params, batch: Params, noise: Params, settings: Any
    ) -> tuple[Params, Params]:
        """Those of the critic and the reference, and the policy's.

        Shapes:
            As :meth:`Specification.gradients`.

        Equation:
            policy_gradient, towards the flow reference's actions from the same noise

        Source:
            Park et al. 2025 (FQL), its code's `total_loss`.
        """
        gradients, metrics = super().gradients(state, batch, noise, settings)
        loss, gradients["policy"] = fit_policy(state, batch, noise, settings)
        return gradients, {**metrics, "policy_loss": loss}

    def propose(self, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        """The one-step policy's actions.

        Shapes:
            As :meth:`Specification.propose`.

        Equation:
            a_i = clip( omega(s, z_i), -1, 1 )

        Source:
            Park et al. 2025 (FQL), its code's `sample_actions`.
        """
        check_network(state, "policy", "method 'fql'")
        return project(policy_actions(state["policy"], s, noise, settings.policy.activation))

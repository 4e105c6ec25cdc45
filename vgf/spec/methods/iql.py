"""In-sample expectile (IQL, Kostrikov et al. 2022): a critic that never sees a moved particle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..agent import fit_reference
from ..critic import aggregate, critic_gradient, critic_loss, critic_loss_derivative, critic_values
from ..networks import mlp, mlp_vjp
from ..settings import Network, Settings
from ..shapes import check_shapes
from ..types import Array, Params
from .base import NetworkShape, Specification


def state_values(params: Params, s: Array, activation: str = "relu") -> Array:
    """The value V of states.

    Shapes:
        params: a network; s: ``[B, o]``. Returns ``[B]``.

    Equation:
        V(s) = mlp( s )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Kostrikov et al. 2022 (IQL).
    """
    check_shapes("state_values", s=(s, "B o"))
    return mlp(params, s, activation)[:, 0]


def value_loss(
    params: Params, s: Array, q: Array, expectile: float = 0.9, activation: str = "relu"
) -> Array:
    """The expectile regression of V on the values of the data's actions.

    Shapes:
        params: a network; s: ``[B, o]``; q: agg_e Qtarget_e(s, a) ``[B]``, a constant. Returns a
        scalar.

    Equation:
        loss = mean over the batch of (tau_e if x >= 0 else 1 - tau_e) x^2,  x = q - V(s)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Kostrikov et al. 2022 (IQL), Equation 5.
    """
    return value_gradient(params, s, q, expectile, activation)[0]


def value_gradient(
    params: Params, s: Array, q: Array, expectile: float = 0.9, activation: str = "relu"
) -> tuple[Array, Params]:
    """The expectile loss of V and its gradient.

    Shapes:
        As :func:`value_loss`; returns the loss and a tree like params.

    Equation:
        d loss / d V = -2 (tau_e if x >= 0 else 1 - tau_e) x / B, pulled back by mlp_vjp

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`value_loss`.
    """
    check_shapes("value_gradient", s=(s, "B o"), q=(q, "B"))
    v = state_values(params, s, activation)[None]
    slope = critic_loss_derivative(v, q, "expectile", expectile)
    gradient, _ = mlp_vjp(params, s, slope[0][:, None], activation)
    return critic_loss(v, q, "expectile", expectile), gradient


@dataclass(frozen=True)
class IQLSettings(Settings):
    """The settings of IQL; `expectile` is V's, and `budget` is that of test time.

    Args:
        value: the network V.
    """

    value: Network = field(default_factory=lambda: Network(layer_norm=True))


class IQL(Specification):
    """IQL: V by expectile regression, Q on r + gamma V(s'); particles move at test time only."""

    name = "iql"
    title = "IQL"
    Settings = IQLSettings
    trains = ("critic", "reference", "value")
    transports = True

    def networks(self, o: int, d: int, settings: Any) -> dict[str, NetworkShape]:
        return {"value": NetworkShape(o, 1, settings.value)}

    def states_meet(self, settings: Any) -> bool:
        return False

    def gradients(
        self, state: Params, batch: Params, noise: Params, settings: Any
    ) -> tuple[Params, Params]:
        """The gradients of V, of the critic and of the reference.

        Shapes:
            As :meth:`Specification.gradients`.

        Equation:
            value_gradient of V towards agg_e Qtarget_e(s, a);
            critic_gradient towards y = r + gamma mask V(s')

        Source:
            Kostrikov et al. 2022 (IQL), Equations 5 and 6; Zhou et al. 2026 train so.
        """
        s, a, value = batch["observations"], batch["actions"], settings.value
        q = critic_values(state["target_critic"], s, a, settings.critic.activation)
        q = aggregate(q, settings.target_ensemble)
        fitted, v = value_gradient(state["value"], s, q, settings.expectile, value.activation)
        v_next = state_values(state["value"], batch["next_observations"], value.activation)
        y = batch["rewards"] + settings.discount * batch["masks"] * v_next
        found, critic = critic_gradient(
            state["critic"],
            s,
            a,
            y.astype(v_next.dtype),
            settings.critic_loss,
            settings.expectile,
            settings.critic.activation,
            settings.sparse_alpha,
        )
        loss, reference = fit_reference(state["reference"], s, a, noise, settings)
        return {"critic": critic, "reference": reference, "value": v}, {
            "critic_loss": found,
            "target_mean": np.mean(y),
            "value_loss": fitted,
            "reference_loss": loss,
        }

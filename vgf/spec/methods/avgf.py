"""Amortised VGF (A-VGF): a network f(s, a) learns the critic's gradient; the flow follows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..agent import check_network
from ..critic import action_gradient
from ..flow import follow
from ..networks import mlp, mlp_vjp
from ..reference import repeat_states
from ..settings import Budget, Network, Settings
from ..shapes import check_shapes
from ..types import Array, Params
from .base import NetworkShape, Specification


def gradient_field(params: Params, s: Array, a: Array, activation: str = "relu") -> Array:
    """The amortised gradient f(s, a).

    Shapes:
        params: a network; s: ``[*, o]``; a: ``[*, d]`` or ``[*, N, d]``. Returns the shape of a.

    Equation:
        f(s, a) = mlp( [s, a] )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, amortised VGF; authors' code, `ValueGrad`.
    """
    x = np.concatenate([repeat_states(s, a), a], axis=-1)
    return mlp(params, x.reshape(-1, x.shape[-1]), activation).reshape(a.shape)


def normalise_rows(g: Array) -> Array:
    """Gradients scaled to unit length.

    Shapes:
        g: ``[*, d]``; returns the same.

    Equation:
        g <- g / ( ||g|| + 1e-8 )

    Source:
        Authors' A-VGF, `q_grad_norm`.
    """
    return g / (np.sqrt(np.sum(g**2, axis=-1, keepdims=True)) + 1e-8)


def gradient_field_loss(
    params: Params, s: Array, a: Array, g: Array, normalise: bool = False, activation: str = "relu"
) -> Array:
    """The regression of f on the critic's action gradient at the data.

    Shapes:
        s: ``[B, o]``; a, g: ``[B, d]``, g = grad_a mean_e Q_e(s, a). Returns a scalar.

    Equation:
        loss = mean over batch and dimensions of ( f(s, a) - g )^2, g optionally normalise_rows(g)

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, amortised VGF; authors' A-VGF, `q_grad_loss_fn`.
    """
    return gradient_field_gradient(params, s, a, g, normalise, activation)[0]


def gradient_field_gradient(
    params: Params, s: Array, a: Array, g: Array, normalise: bool = False, activation: str = "relu"
) -> tuple[Array, Params]:
    """The regression loss of f and its gradient; g is a constant.

    Shapes:
        As :func:`gradient_field_loss`; returns the loss and a tree like params.

    Equation:
        d loss / d f = 2 ( f - g ) / (B d), pulled back by mlp_vjp

    Raises:
        ValueError: shapes that do not match.

    Source:
        Derived by hand from :func:`gradient_field_loss`.
    """
    check_shapes("gradient_field", s=(s, "B o"), a=(a, "B d"), g=(g, "B d"))
    target = normalise_rows(g) if normalise else g
    x = np.concatenate([s, a], axis=-1)
    error = mlp(params, x, activation) - target
    gradient, _ = mlp_vjp(params, x, 2 * error / error.size, activation)
    return np.mean(error**2), gradient


def amortised_transport(
    params: Params,
    s: Array,
    a: Array,
    budget: Budget,
    activation: str = "relu",
    trajectory: bool = False,
) -> Array:
    """Transport particles along f alone: no kernel, no repulsion, no temperature.

    Shapes:
        params: the network f; s: ``[*, o]``; a: ``[*, N, d]``. Returns ``[*, N, d]``, or
        ``[L + 1, *, N, d]`` with `trajectory`.

    Equation:
        a^(l+1) = flow_step( a^(l), f(s, a^(l)) ),  l = 0 .. L - 1

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, amortised VGF; authors' A-VGF, `SVGD_VGF.step`.
    """
    return follow(lambda a: gradient_field(params, s, a, activation), a, budget, trajectory)


@dataclass(frozen=True)
class AVGFSettings(Settings):
    """The settings of A-VGF.

    Args:
        gradient_field: the network f.
        normalise_gradients: regress on gradients normalised to unit length, row by row.
    """

    gradient_field: Network = field(default_factory=lambda: Network(layer_norm=True))
    normalise_gradients: bool = False


class AVGF(Specification):
    """Amortised VGF: f(s, a) learns the critic's action gradient, and the flow follows f alone."""

    name = "avgf"
    title = "A-VGF"
    Settings = AVGFSettings
    # authors' code, a_vgf.py and its run scripts
    defaults = {
        "particles": 5,
        "clip_norm": 1.0,
        "budget": Budget(steps=5, step_size=0.1, temperature=None, clip_norm=1.0),
    }
    trains = ("critic", "reference", "gradient_field")
    transports = True

    def networks(self, o: int, d: int, settings: Any) -> dict[str, NetworkShape]:
        return {"gradient_field": NetworkShape(o + d, d, settings.gradient_field)}

    def states_meet(self, settings: Any) -> bool:
        return False

    def refuse(self, settings: Any) -> None:
        super().refuse(settings)
        if settings.value_ensemble == "min":
            raise ValueError(
                "method 'avgf' learns the gradient of the mean critic; "
                "value_ensemble 'min' has no part in it"
            )

    def gradients(
        self, state: Params, batch: Params, noise: Params, settings: Any
    ) -> tuple[Params, Params]:
        """Those of VGF, and the gradient of f.

        Shapes:
            As :meth:`Specification.gradients`.

        Equation:
            gradient_field_gradient against grad_a mean_e Q_e(s, a)

        Source:
            Paper, amortised VGF; authors' A-VGF, `q_grad_loss_fn`.
        """
        gradients, metrics = super().gradients(state, batch, noise, settings)
        s, a = batch["observations"], batch["actions"]
        g = action_gradient(state["critic"], s, a, "mean", settings.critic.activation)
        activation = settings.gradient_field.activation
        loss, gradients["gradient_field"] = gradient_field_gradient(
            state["gradient_field"], s, a, g, settings.normalise_gradients, activation
        )
        return gradients, {**metrics, "gradient_field_loss": loss}

    def move(
        self,
        state: Params,
        s: Array,
        a: Array,
        budget: Budget,
        settings: Any,
        trajectory: bool = False,
    ) -> Array:
        """Transport along f.

        Shapes:
            As :meth:`Specification.move`.

        Equation:
            amortised_transport

        Source:
            Paper, amortised VGF.
        """
        check_network(state, "gradient_field", "method 'avgf'")
        activation = settings.gradient_field.activation
        return amortised_transport(state["gradient_field"], s, a, budget, activation, trajectory)

"""Parts of a method that you can write: derive from one of these, and name it in a setting.

Each is written once, with plain operators on arrays and with `eq`: every equation of the
specification under its own name (``eq.squared_distances``, ``eq.flow_velocity``, ...), and
``eq.xp``, the functions of the array API standard (``eq.xp.exp``), both of the running backend.
torch and JAX differentiate it. NumPy does not, so a derivative that it needs is written by hand, in
NumPy, as a function beside it; without one, the part runs on torch and JAX only.

Leading axes ``*`` hold states, which must not affect each other.
"""

from __future__ import annotations

import sys
from typing import Any

from .registry import find
from .types import Array

KERNELS = ("rbf",)
SAMPLERS = ("euler",)
TARGETS = ("td",)


def equations() -> Any:
    """What a part gets as `eq` on NumPy: the specification itself.

    Shapes:
        None.

    Equation:
        None.

    Source:
        Ours.
    """
    return sys.modules[__package__]


class Kernel:
    """A kernel k(x, y); the setting is `budget.kernel`."""

    def value(self, eq: Any, x: Array, y: Array, sigma_squared: Array) -> Array:
        """k(x_i, y_j).

        Shapes:
            x: ``[*, N, d]``; y: ``[*, M, d]``; sigma_squared: the squared bandwidth ``[*]``, of the
            median heuristic or of `budget.bandwidth`, a constant. Returns ``[*, N, M]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must have value(eq, x, y, sigma_squared)")

    def gradient(self, x: Array, y: Array, sigma_squared: Array) -> Array:
        """For NumPy only: grad_{x_i} k(x_i, y_j), ``[*, N, M, d]``, derived by hand.

        Shapes:
            As :meth:`value`.
        """
        raise ValueError(lacks(self, "gradient(x, y, sigma_squared)"))


class SelectionRule:
    """How acting picks a particle; the setting is `selection`."""

    def pick(self, eq: Any, q: Array, u: Array, temperature: float) -> Array:
        """The index of the particle picked.

        Shapes:
            q: values ``[*, N]``; u: uniform on [0, 1), ``[*]``; temperature:
            `selection_temperature`. Returns whole numbers ``[*]`` in 0 .. N - 1.
        """
        raise NotImplementedError(f"{type(self).__name__} must have pick(eq, q, u, temperature)")


class Sampler:
    """How particles are drawn from the flow reference; the setting is `sampler`."""

    def sample(self, eq: Any, params: Any, s: Array, noise: Array, settings: Any) -> Array:
        """Particles from noise.

        Shapes:
            params: the velocity network, of ``eq.flow_velocity``; s: ``[*, o]``; noise: standard
            normal ``[*, N, d]`` or ``[*, d]``; settings: the agent's. Returns the shape of noise.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have sample(eq, params, s, noise, settings)"
        )


class ParticleStep:
    """How particles take a step along a velocity; the setting is `budget.optimiser`."""

    def init(self, eq: Any, a: Array) -> Any:
        """The state before the first step of a transport: arrays, or None (the default).

        Shapes:
            a: ``[*, N, d]``.
        """
        return None

    def step(
        self, eq: Any, a: Array, velocity: Array, state: Any, budget: Any
    ) -> tuple[Array, Any]:
        """New particles, before they are projected on the box, and the new state.

        Shapes:
            a, velocity: ``[*, N, d]``; state: as :meth:`init` gave it; budget: its `step_size`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have step(eq, a, velocity, state, budget)"
        )


class CriticLoss:
    """A loss of the critic; the setting is `critic_loss`."""

    def value(self, eq: Any, q: Array, y: Array, expectile: float) -> Array:
        """The loss, a mean over the batch.

        Shapes:
            q: ``[E, B]``, Q_e(s, a) on the data; y: targets ``[B]``; expectile: of the settings.
            Returns a scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} must have value(eq, q, y, expectile)")

    def derivative(self, q: Array, y: Array, expectile: float) -> Array:
        """For NumPy only: the derivative with respect to q, ``[E, B]``, derived by hand.

        Shapes:
            As :meth:`value`.
        """
        raise ValueError(lacks(self, "derivative(q, y, expectile)"))


class Target:
    """The target of the critic; the setting is `target`."""

    def value(
        self, eq: Any, q: Array, r: Array, mask: Array, discount: float, how: str, particles: str
    ) -> Array:
        """The target y; nothing differentiates it.

        Shapes:
            q: ``[E, B, N]``, the target critics on the moved particles; r, mask: ``[B]``; how:
            "min" or "mean" over the critics (`target_ensemble`); particles: "mean" or "max" over
            them (`target_particles`). Returns ``[B]``.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have value(eq, q, r, mask, discount, how, particles)"
        )


PARTS = (Kernel, SelectionRule, Sampler, ParticleStep, CriticLoss, Target)


def lacks(part: Any, function: str) -> str:
    """The message for a part that NumPy cannot run.

    Shapes:
        function: the missing one, with its arguments.

    Equation:
        None.

    Source:
        Ours.
    """
    return (
        f"{type(part).__name__} has no {function}, which NumPy needs, as it differentiates nothing "
        "itself; write it, or use --backend torch or jax"
    )


def find_kernel(name: str) -> Kernel:
    """Your own kernel by its name; see :func:`vgf.spec.registry.find`.

    Shapes:
        None.

    Equation:
        None.

    Source:
        Ours.
    """
    return find(Kernel, name, "kernel", KERNELS)

"""What every method declares, and what most methods do in NumPy unless they say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..agent import check_network, fit_critic, fit_reference, sample_reference
from ..critic import aggregate, critic_transport, critic_values
from ..registry import Declared
from ..settings import Budget, Network, Settings
from ..types import Array, Params


class NetworkShape(NamedTuple):
    """A network of a method: its inputs, outputs and hidden layers.

    Args:
        inputs, outputs: widths.
        network: hidden layers, activation, LayerNorm.
        ensemble: number of members, along a leading axis; None for one network.
        output_gain: factor on the initial weights of the last layer.
    """

    inputs: int
    outputs: int
    network: Network
    ensemble: int | None = None
    output_gain: float = 1.0


class Draw(NamedTuple):
    """Random numbers that an update takes: "normal" or "uniform" on [0, 1), and their shape."""

    kind: str
    shape: tuple[int, ...]


def normal(*shape: int) -> Draw:
    """Standard normal numbers.

    Shapes:
        shape: of the array.

    Equation:
        None.

    Source:
        Ours.
    """
    return Draw("normal", shape)


def uniform(*shape: int) -> Draw:
    """Uniform numbers on [0, 1).

    Shapes:
        shape: of the array.

    Equation:
        None.

    Source:
        Ours.
    """
    return Draw("uniform", shape)


class Declaration(Declared):
    """What a method is, apart from its equations.

    Attributes:
        name: as settings name it; ``module:object`` for your own.
        title: its name in tables.
        long_title: its name in figures; the title if not given.
        Settings: its settings, a frozen dataclass derived from :class:`vgf.spec.Settings`.
        defaults: the settings in which its authors' form differs from the plain `Settings`; where
            it moves no particles, `budget.steps` is 0 by itself.
        trains: the networks that an update trains, in order. "critic" has a target network,
            "target_critic"; "critic" and "reference" are made from the settings of that name.
        actors: those of its networks that give actions, and so are trained with
            `actor_learning_rate`.
        transports: whether particles move along the value's gradient, over a budget.
        own_sizes: whether `vgf run` without a preset keeps its authors' network sizes, K, gamma
            and tau, in place of the default run's.
    """

    name = ""
    title = ""
    long_title = ""
    Settings: type[Settings] = Settings
    defaults: Mapping[str, Any] = {}
    trains: tuple[str, ...] = ("critic", "reference")
    actors: tuple[str, ...] = ("reference",)
    transports = False
    own_sizes = False

    def networks(self, o: int, d: int, settings: Any) -> dict[str, NetworkShape]:
        """The method's own networks, besides "critic" and "reference".

        Shapes:
            o, d: widths of states and actions.
        """
        return {}

    def noise(self, b: int, d: int, settings: Any) -> dict[str, Draw]:
        """The method's own random numbers in an update, besides those of every method.

        Shapes:
            b: states in a batch; d: width of an action. Every method has particles: normal
            ``[B, N, d]``; for the flow reference, reference_start: normal ``[B, d]`` and
            reference_time: uniform ``[B, 1]``.
        """
        return {}

    def training_budget(self, settings: Any) -> Budget:
        """How far particles move for the critic's target: over `budget`, unless it says otherwise.

        Acting, and collecting online, starts from `budget` in any case.
        """
        budget: Budget = settings.budget
        return budget

    def refuse(self, settings: Any) -> None:
        """Refuse settings that contradict the method.

        Raises:
            ValueError: what contradicts it, and the way out.
        """
        if not self.transports and settings.budget.steps > 0:
            raise ValueError(
                f"method {settings.method!r} moves no particles; budget.steps must be 0, "
                "which is the method's default"
            )

    def states_meet(self, settings: Any) -> bool:
        """Whether states in a batch affect each other in an update, except by means over it.

        Cores share a batch only where they do not. For your own method the default is True;
        return False where every gradient and every metric is a mean over the batch.
        """
        return True

    def action_dim(self, state: Params) -> int:
        """The width of an action, d, read off an agent's networks."""
        return int(state["reference"]["output"]["bias"].shape[0])


class Specification(Declaration):
    """A method in NumPy, its gradients derived by hand: what VGF does, unless it says otherwise.

    The same names, without `eq`, are those of :class:`vgf.methods.Method`, which torch and JAX run.
    """

    def gradients(
        self, state: Params, batch: Params, noise: Params, settings: Any
    ) -> tuple[Params, Params]:
        """The gradient of every trained network, all at the state the update starts from.

        Shapes:
            state, batch, noise: as :func:`vgf.spec.update`. Returns trees like the networks, under
            their names, and a dict of scalars to report.

        Equation:
            a_i proposed and moved at s';  y = td_target( Qtarget(s', a_i), r, mask )
            critic_gradient( Q(s, a), y );  flow_matching_gradient or gaussian_gradient

        Source:
            Paper, Algorithm 1.
        """
        s_next = batch["next_observations"]
        start = self.propose(state, s_next, noise["particles"], settings)
        moved = self.move(state, s_next, start, self.training_budget(settings), settings)
        critic, metrics = fit_critic(state, batch, start, moved, settings)
        loss, reference = fit_reference(
            state["reference"], batch["observations"], batch["actions"], noise, settings
        )
        return {"critic": critic, "reference": reference}, {**metrics, "reference_loss": loss}

    def propose(self, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        """The particles before transport.

        Shapes:
            s: ``[*, o]``; noise: standard normal ``[*, N, d]``. Returns ``[*, N, d]`` in [-1, 1].

        Equation:
            a_i ~ mu(. | s)

        Source:
            Paper, Algorithm 1.
        """
        return sample_reference(state["reference"], s, noise, settings)

    def move(
        self,
        state: Params,
        s: Array,
        a: Array,
        budget: Budget,
        settings: Any,
        trajectory: bool = False,
    ) -> Array:
        """Transport along the online critic; any method moves particles if it is given steps.

        Shapes:
            s: ``[*, o]``; a: ``[*, N, d]``. Returns ``[*, N, d]``, or ``[L + 1, *, N, d]`` with
            `trajectory`.

        Equation:
            critic_transport

        Source:
            Paper, Algorithm 1.
        """
        if budget.steps == 0:
            return a[None] if trajectory else a
        check_network(state, "critic", f"moving particles in method {settings.method!r}")
        activation = settings.critic.activation
        return critic_transport(
            state["critic"], s, a, budget, settings.value_ensemble, activation, trajectory
        )

    def values(self, state: Params, s: Array, a: Array, settings: Any) -> Array:
        """The values that acting picks a particle by.

        Shapes:
            s: ``[*, o]``; a: ``[*, N, d]``. Returns ``[*, N]``.

        Equation:
            agg_e Q_e(s, a_i), as the TD target aggregates;  0 without a critic

        Source:
            Authors' code, `sample_actions`.
        """
        if "critic" not in self.trains:
            return np.zeros(a.shape[:-1], a.dtype)
        q = critic_values(state["critic"], s, a, settings.critic.activation)
        return aggregate(q, settings.target_ensemble)

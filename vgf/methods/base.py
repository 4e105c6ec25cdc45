"""A method, written once for torch and JAX; and what VGF does, which most methods share."""

from __future__ import annotations

from typing import Any, ClassVar

from ..equations import Equations
from ..spec.agent import check_network
from ..spec.methods import Declaration, Specification
from ..spec.settings import Budget

# An array, or a nested dict of arrays, of the running backend.
Array = Any
Tree = Any

# What a method declares may be in its specification, if it has one.
_DECLARED = (
    "name",
    "title",
    "long_title",
    "Settings",
    "defaults",
    "trains",
    "actors",
    "transports",
    "networks",
    "noise",
    "training_budget",
    "refuse",
    "states_meet",
    "action_dim",
)
# The functions that compute an update.
_COMPUTED = {"gradients", "critic_gradient", "reference_gradient", "propose", "move", "values"}


class Method(Declaration):
    """A method, written against the equations `eq` of the backend that runs it.

    It says what it trains and declares (see :class:`vgf.spec.methods.Declaration`), the gradients
    of an update, and how its particles are proposed, moved and valued. `eq` has every equation of
    the specification under its own name, ``eq.value_and_gradient(loss, params)`` for your own loss,
    and ``eq.xp``, the functions of the array API standard.

    Nothing is changed in place. Python's `if` may look at settings and shapes, not at numbers.

    Attributes:
        specification: the same in NumPy, which `--backend numpy` runs and
            :func:`vgf.testing.check_method` compares with; None without one. What it declares need
            not be repeated.
    """

    specification: ClassVar[Specification | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        beside, said = vars(cls).get("specification"), "states_meet" in vars(cls)
        if beside is not None:
            for name in _DECLARED:
                if name not in vars(cls):
                    setattr(cls, name, _from(beside, name))
            if not said and "states_meet" not in vars(type(beside)):
                cls.states_meet = Declaration.states_meet  # type: ignore[method-assign]
        # what a base says of its own computation is not said of another one
        computed = _first(cls, _COMPUTED)
        if computed < _first(cls, {"specification"}):
            cls.specification = None
        if computed < _first(cls, {"states_meet"}):
            cls.states_meet = Declaration.states_meet  # type: ignore[method-assign]

    # --- training -------------------------------------------------------------------------------

    def gradients(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[dict[str, Tree], dict[str, Array]]:
        """The gradient of every network in `trains`, and scalars to report.

        All are taken at the state the update starts from. Adam, the clip of gradients and the
        target critic follow, the same for every method.

        Args:
            eq: the backend.
            state: of the agent, see :mod:`vgf.spec.update`; ``state["step"]`` counts updates.
            batch: observations ``[B, o]``, actions ``[B, d]``, rewards and masks ``[B]``,
                next_observations ``[B, o]``.
            noise: what every update draws, and what `noise` declares.
            settings: of the method's own class.
        """
        critic, found = self.critic_gradient(eq, state, batch, noise, settings)
        reference, more = self.reference_gradient(eq, state, batch, noise, settings)
        return {"critic": critic, "reference": reference}, {**found, **more}

    def critic_gradient(
        self, eq: Equations, state: Tree, batch: Tree, noise: Tree, settings: Any
    ) -> tuple[Tree, dict[str, Array]]:
        """The critic towards the TD target of particles that were proposed and moved at s'."""
        s_next, activation = batch["next_observations"], settings.critic.activation
        start = eq.propose(state, s_next, noise["particles"], settings)
        moved = eq.move(state, s_next, start, self.training_budget(settings), settings)
        y = eq.td_target(
            eq.critic_values(state["target_critic"], s_next, moved, activation),
            batch["rewards"],
            batch["masks"],
            settings.discount,
            settings.target_ensemble,
            settings.target_particles,
            settings.target,
        )
        loss, gradient = eq.critic_gradient(
            state["critic"],
            batch["observations"],
            batch["actions"],
            y,
            settings.critic_loss,
            settings.expectile,
            activation,
            settings.sparse_alpha,
        )
        return gradient, {
            "critic_loss": loss,
            "target_mean": y.mean(),
            "displacement": (((moved - start) ** 2).sum(-1) ** 0.5).mean(),
            "spread_start": _spread(start),
            "spread_moved": _spread(moved),
        }

    def reference_gradient(
        self,
        eq: Equations,
        state: Tree,
        batch: Tree,
        noise: Tree,
        settings: Any,
        weight: Array | None = None,
    ) -> tuple[Tree, dict[str, Array]]:
        """The reference towards the data's actions, its rows weighted or not."""
        params, activation = state["reference"], settings.reference.activation
        s, a = batch["observations"], batch["actions"]
        if settings.reference_kind == "gaussian":
            loss, gradient = eq.gaussian_gradient(
                params, s, a, settings.reference_tanh, activation, weight
            )
        else:
            x0, t = noise["reference_start"], noise["reference_time"]
            loss, gradient = eq.flow_matching_gradient(params, s, a, x0, t, activation, weight)
        return gradient, {"reference_loss": loss}

    # --- acting ---------------------------------------------------------------------------------

    def propose(self, eq: Equations, state: Tree, s: Array, noise: Array, settings: Any) -> Array:
        """Particles before transport, in [-1, 1]: the reference's.

        Args:
            eq: the backend.
            state: of the agent.
            s: states ``[*, o]``.
            noise: standard normal ``[*, N, d]``.
            settings: of the method's own class.
        """
        return eq.sample_reference(state["reference"], s, noise, settings)

    def move(
        self,
        eq: Equations,
        state: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        settings: Any,
        trajectory: bool = False,
    ) -> Array:
        """Particles ``[*, N, d]`` transported over a budget: along the online critic.

        With `trajectory`, all of them, ``[L + 1, *, N, d]``, the start first.
        """
        if not budget.steps:
            return a[None] if trajectory else a
        check_network(state, "critic", f"moving particles in method {settings.method!r}")
        critic, activation = state["critic"], settings.critic.activation
        return eq.critic_transport(
            critic, s, a, budget, settings.value_ensemble, activation, trajectory
        )

    def values(self, eq: Equations, state: Tree, s: Array, a: Array, settings: Any) -> Array:
        """The values ``[*, N]`` that acting picks a particle by: the critic's, or 0 without one."""
        if "critic" not in self.trains:
            return a[..., 0] * 0
        q = eq.critic_values(state["critic"], s, a, settings.critic.activation)
        return eq.aggregate(q, settings.target_ensemble)


def _spread(a: Array) -> Array:
    """The variance over a state's particles (no N - 1), averaged over states and dimensions."""
    return ((a - a.mean(-2)[..., None, :]) ** 2).mean()


def _from(specification: Specification, name: str) -> Any:
    """A declaration of a specification, as an attribute of a class."""
    value = getattr(specification, name)
    return staticmethod(value) if callable(value) and not isinstance(value, type) else value


def _first(cls: type, names: set[str]) -> int:
    """The place, among a class and its bases, of the first that defines one of some names."""
    places = [i for i, base in enumerate(cls.__mro__) if names & vars(base).keys()]
    return places[0] if places else len(cls.__mro__)

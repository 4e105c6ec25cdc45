"""What an operator is: a way of acting at test time with one reference and one critic."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..critic import aggregate, critic_values
from ..parts import equations
from ..selection import select
from ..settings import Settings, at_least
from ..shapes import check_shapes
from ..types import Array, Params


class Cost(NamedTuple):
    """Evaluations of networks for one decision in one state.

    Args:
        reference: of the reference's network.
        critic: of the critic, all members of its ensemble counted as one.
        gradient: of the critic's gradient with respect to the action.
        reference_gradient: of vector-Jacobian products of the reference's network.
    """

    reference: int = 0
    critic: int = 0
    gradient: int = 0
    reference_gradient: int = 0

    @property
    def passes(self) -> int:
        """Passes through a network: 1 for an evaluation, 2 for a gradient (there and back)."""
        return self.reference + self.critic + 2 * (self.gradient + self.reference_gradient)


@dataclass(frozen=True)
class Operator:
    """A way of acting at test time, written once with `eq`, the equations of any backend.

    N particles are drawn and improved; the best of the first M by the critic is the action.
    Derive from it for your own: a frozen dataclass whose fields are its settings.

    Args:
        particles: N; ``None`` is the agent's.
        best_of: M, from 1 (no choice) to N; ``None`` is N.
        critic: "online", or "target", the Polyak average.
        ensemble: "mean" or "min" over the critics, climbed and chosen by; ``None`` is the agent's
            `value_ensemble` and `target_ensemble`.

    Attributes:
        name: as ``--operator`` names it; ``module:object`` for your own.
        title: its name in tables.
        needs: the networks that an agent must have.
        guides: whether it acts inside the flow reference's sampler.

    Raises:
        ValueError: a setting out of its range, named.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("critic",)
    guides: ClassVar[bool] = False

    particles: int | None = None
    best_of: int | None = None
    critic: str = "online"
    ensemble: str | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, kind = getattr(self, entry.name), str(entry.type)
            if value is None or not kind.startswith(("int", "float")):
                continue
            whole = kind.startswith("int")
            if isinstance(value, bool | str) or (whole and int(value) != value):
                number = "whole number" if whole else "number"
                raise ValueError(f"{self.name}: {entry.name} is {value!r}; it must be a {number}")
            object.__setattr__(self, entry.name, int(value) if whole else float(value))
            at_least(f"{self.name}: {entry.name}", getattr(self, entry.name), 0)
        for name in ("particles", "best_of"):
            if getattr(self, name) is not None:
                at_least(f"{self.name}: {name}", getattr(self, name), 1)
        if self.particles is not None and (self.best_of or 1) > self.particles:
            raise ValueError(
                f"{self.name}: best_of is {self.best_of}, more than its {self.particles} particles"
            )
        choices = {"critic": ("online", "target"), "ensemble": (None, "mean", "min")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                given = ", ".join(str(k or "none") for k in known)
                raise ValueError(
                    f"{self.name}: {name} is {getattr(self, name)!r}; choose one of {given}"
                )

    # --- what an operator says -----------------------------------------------------------------

    def improve(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        """The particles, improved.

        Shapes:
            eq: the equations; state: of an agent; s: ``[*, o]``; noise: standard normal
            ``[*, R, d]``, R as :meth:`rows`. Returns ``[*, N, d]``, in [-1, 1].
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have improve(eq, state, s, noise, settings)"
        )

    def cost(self, settings: Any) -> Cost:
        """What :meth:`improve` evaluates for one state; :meth:`total` adds the choice.

        Shapes:
            settings: the agent's.
        """
        raise NotImplementedError(f"{type(self).__name__} must have cost(settings)")

    def rows(self, settings: Any) -> int:
        """Rows of noise that it takes for one state, R: N, unless it says otherwise.

        Shapes:
            settings: the agent's.
        """
        return self.count(settings)

    def refuse(self, settings: Any) -> None:
        """Refuse agents that it cannot act with.

        Shapes:
            settings: the agent's.

        Raises:
            ValueError: what is missing, and the way out.
        """
        for network in self.needs:
            if network not in settings.networks:
                raise ValueError(
                    f"operator {self.name!r} needs a {network}, which method {settings.method!r} "
                    "does not train; use another operator"
                )
        if self.best_of is not None and self.best_of > self.count(settings):
            raise ValueError(
                f"{self.name}: best_of is {self.best_of}, more than the agent's "
                f"{self.count(settings)} particles; give particles too"
            )
        if not self.guides:
            return
        if settings.reference_kind != "flow" or settings.sampler != "euler":
            kind = (
                settings.reference_kind if settings.reference_kind != "flow" else settings.sampler
            )
            raise ValueError(
                f"operator {self.name!r} guides the flow reference's Euler sampler, and this "
                f"agent's is {kind!r}; use an operator that moves finished actions"
            )

    # --- what most of them use -----------------------------------------------------------------

    def count(self, settings: Any) -> int:
        """N.

        Shapes:
            settings: the agent's.
        """
        return settings.particles if self.particles is None else self.particles

    def chosen(self, settings: Any) -> int:
        """M, the particles that one is chosen of.

        Shapes:
            settings: the agent's.
        """
        return self.count(settings) if self.best_of is None else self.best_of

    def total(self, settings: Any) -> Cost:
        """What a decision costs, the choice among M included.

        Shapes:
            settings: the agent's.
        """
        cost, m = self.cost(settings), self.chosen(settings)
        return cost._replace(critic=cost.critic + (m if m > 1 else 0))

    def start(self, eq: Any, state: Params, s: Array, noise: Array, settings: Any) -> Array:
        """What the agent proposes from the first N rows of noise: N particles, not yet moved.

        Shapes:
            As :meth:`improve`.
        """
        return eq.propose(state, s, noise[..., : self.count(settings), :], settings)

    def critics(self, state: Params) -> Params:
        """The critics that it climbs and chooses by.

        Shapes:
            state: of an agent. Returns an ensemble.
        """
        found: Params = state["critic" if self.critic == "online" else "target_critic"]
        return found

    def climbed(self, settings: Any) -> str:
        """How the critics that are climbed are aggregated.

        Shapes:
            settings: the agent's.
        """
        return settings.value_ensemble if self.ensemble is None else self.ensemble

    def chosen_by(self, settings: Any) -> str:
        """How the critics that are chosen by are aggregated.

        Shapes:
            settings: the agent's.
        """
        return settings.target_ensemble if self.ensemble is None else self.ensemble


def proposal_cost(n: int, settings: Any) -> Cost:
    """What it costs to propose N particles.

    Shapes:
        n: N; settings: the agent's.

    Equation:
        N K evaluations of the flow reference; 1 of the Gaussian's mean; N of FQL's policy, which
        is counted as a reference

    Source:
        Ours.
    """
    if "policy" in settings.networks:
        return Cost(reference=n)
    return Cost(reference=n * settings.sampling_steps if settings.reference_kind == "flow" else 1)


def operate(
    state: Params, s: Array, operator: Operator, settings: Settings, noise: Params
) -> tuple[Array, Params]:
    """Actions of a trained agent by an operator.

    Shapes:
        s: ``[B, o]``; operator: of this folder, or your own; noise: particles: standard normal
        ``[B, R, d]``, R as the operator's `rows`, and select: uniform ``[B]``, as
        :func:`draw_act_noise` makes them. Returns the actions ``[B, d]`` and a dict with the
        improved particles (moved ``[B, N, d]``), the values of the first M (q ``[B, M]``) and the
        index picked (index ``[B]``).

    Equation:
        a_1 .. a_N = improve(s, noise);   a = a_i,  i = argmax over i <= M of agg_e Q_e(s, a_i)

    Raises:
        ValueError: shapes that do not match, or an agent that the operator cannot act with.

    Source:
        Best-of-N sampling with a critic, as Zhou et al. 2026 follow every operator by it.
    """
    check_shapes("operate", s=(s, "B o"))
    operator.refuse(settings)
    moved = operator.improve(equations(), state, s, noise["particles"], settings)
    first = moved[..., : operator.chosen(settings), :]
    if first.shape[-2] == 1:
        q = np.zeros(first.shape[:-1], first.dtype)
    else:
        q = critic_values(operator.critics(state), s, first, settings.critic.activation)
        q = aggregate(q, operator.chosen_by(settings))
    a, index = select(first, q, noise["select"])
    return a, {"moved": moved, "q": q, "index": index}

"""What the accelerated backends compute alike: the steps of an update, put together.

A framework supplies the equations (`Backend`); this class strings them into transport, update and
act. It is written against `vgf.spec.update` but does not share its code, so that the property
tests compare two programs and not one with itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..spec.settings import Budget, Settings
from ..spec.shapes import check_shapes
from ..spec.text import LENGTH_MIN, SEQUENCE_KERNELS, within_lengths
from ..spec.update import check_batch, check_network
from ..spec.update import init_state as spec_init_state
from .base import Array, Backend, Tree, VectorField


def check_layer(name: str, widths: Sequence[int], kernel: Array, bias: Array) -> None:
    """Check a layer's arrays against the widths of what it is given side by side.

    Raises:
        ValueError: naming the layer and the shapes.
    """
    found, width = tuple(kernel.shape), sum(widths)
    if len(found) != 2 or found[0] != width:
        raise ValueError(
            f"mlp, layer {name}: kernel has shape {found}, expected [in, out] with in = {width}"
        )
    check_shapes(f"mlp, layer {name}", kernel=(kernel, "in out"), bias=(bias, "out"))


def check_times(x: Array, t: Array) -> None:
    """Check the times of actions ``[*, d]``: ``[*, 1]``, or of one for all, ``[1, ..., 1]``.

    Raises:
        ValueError: naming both shapes.
    """
    if tuple(t.shape) != (1,) * len(x.shape):
        check_shapes("flow_velocity", x=(x, "* d"), t=(t, "* 1"))


class ComposedBackend(Backend):
    """A backend whose agent is composed from its own equations."""

    def stack(self, arrays: list[Array]) -> Array:
        """Arrays of one shape ``[*]`` -> ``[n, *]``."""
        raise NotImplementedError

    # --- transport ------------------------------------------------------------------------------

    def follow(
        self, velocity: VectorField, a: Array, budget: Budget, trajectory: bool = False
    ) -> Array:
        state = self.adam_init(a) if budget.optimiser == "adam" else None
        path = [a]
        for _ in range(budget.steps):
            a, state = self.flow_step(a, velocity(a), state, budget)
            if trajectory:
                path.append(a)
        return self.stack(path) if trajectory else a

    def transport(
        self, score: VectorField, a: Array, budget: Budget, trajectory: bool = False
    ) -> Array:
        def velocity(a: Array) -> Array:
            return self.phi(
                a, score(a), budget.temperature, budget.bandwidth, budget.bandwidth_gradient
            )

        return self.follow(velocity, a, budget, trajectory)

    def critic_transport(
        self,
        params: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        how: str = "mean",
        activation: str = "relu",
        trajectory: bool = False,
    ) -> Array:
        def score(a: Array) -> Array:
            return self.action_gradient(params, s, a, how, activation)

        return self.transport(score, a, budget, trajectory)

    def amortised_transport(
        self,
        params: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        activation: str = "relu",
        trajectory: bool = False,
    ) -> Array:
        def velocity(a: Array) -> Array:
            return self.gradient_field(params, s, a, activation)

        return self.follow(velocity, a, budget, trajectory)

    # --- text -----------------------------------------------------------------------------------

    def sequence_phi(
        self,
        u: Array,
        g: Array,
        lengths: tuple[int, ...],
        kernel: str | None = "sequence",
        temperature: float | None = None,
        bandwidth: float | None = None,
    ) -> Array:
        size = check_shapes("sequence_phi", u=(u, "N T d"), g=(g, "N T d"))
        n, t, d = size["N"], size["T"], size["d"]
        there = self._within_lengths("sequence_phi", lengths, n, t)
        u, g = u * there, g * there
        if kernel == "position":
            return self._position_phi(u, g, lengths, temperature, bandwidth)
        if kernel not in (None, *SEQUENCE_KERNELS):
            names = ", ".join(SEQUENCE_KERNELS)
            raise ValueError(f"kernel is {kernel!r}; choose one of {names}, or None")
        shape = (n, 1, t * d) if kernel is None else (n, t * d)
        moved = self.phi(u.reshape(shape), g.reshape(shape), temperature, bandwidth)
        return moved.reshape(u.shape) * there

    def _position_phi(
        self,
        u: Array,
        g: Array,
        lengths: tuple[int, ...],
        temperature: float | None,
        bandwidth: float | None,
    ) -> Array:
        """Positions that the same responses reach are one call of phi."""
        columns: list[Array] = []
        for start, stop in itertools.pairwise(sorted({0, *lengths, u.shape[1]})):
            reached = [i for i, length in enumerate(lengths) if length > start]
            rows = [u[0, start:stop] * 0] * len(lengths)
            if reached:
                a, score = (
                    self.stack([x[i, start:stop] for i in reached]).swapaxes(0, 1) for x in (u, g)
                )
                moved = self.phi(a, score, temperature, bandwidth)
                for place, i in enumerate(reached):
                    rows[i] = moved[:, place]
            columns += [self.stack([row[k] for row in rows]) for k in range(stop - start)]
        return self.stack(columns).swapaxes(0, 1)

    def rescale_sequences(
        self, v: Array, lengths: tuple[int, ...], like: Array | None = None
    ) -> Array:
        n = check_shapes("rescale_sequences", v=(v, "N T d"))["N"]
        self._within_lengths("rescale_sequences", lengths, n, v.shape[1])
        if like is None:
            wanted = self.asarray(np.sqrt(lengths))
        else:
            check_shapes("rescale_sequences", v=(v, "N T d"), like=(like, "N T d"))
            wanted = self._sequence_norms(like)
        return v * (wanted / self.project(self._sequence_norms(v), LENGTH_MIN, None))[:, None, None]

    @staticmethod
    def _sequence_norms(v: Array) -> Array:
        return (v * v).sum((1, 2)) ** 0.5

    def _within_lengths(self, name: str, lengths: tuple[int, ...], n: int, t: int) -> Array:
        """1 where there is a token and 0 at padding, ``[N, T, 1]``."""
        check_shapes(name, lengths=(np.asarray(lengths), f"{n}"))
        return self.asarray(within_lengths(lengths, t)[:, :, None] * 1.0)

    # --- the agent ------------------------------------------------------------------------------

    def init_state(
        self, seed: int, observation_dim: int, action_dim: int, settings: Settings
    ) -> Tree:
        return self.asarray(spec_init_state(seed, observation_dim, action_dim, settings))

    def sample_reference(self, params: Tree, s: Array, noise: Array, settings: Settings) -> Array:
        activation = settings.reference.activation
        if settings.reference_kind == "gaussian":
            return self.gaussian_sample(params, s, noise, settings.reference_tanh, activation)
        return self.flow_sample(params, s, noise, settings.sampling_steps, activation)

    def propose(self, state: Tree, s: Array, noise: Array, settings: Settings) -> Array:
        if settings.method == "fql":
            check_network(state, "policy", "method 'fql'")
            activation = settings.policy.activation
            return self.project(self.policy_actions(state["policy"], s, noise, activation))
        return self.sample_reference(state["reference"], s, noise, settings)

    def move(
        self,
        state: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        settings: Settings,
        trajectory: bool = False,
    ) -> Array:
        if settings.method == "avgf":
            check_network(state, "gradient_field", "method 'avgf'")
            field, activation = state["gradient_field"], settings.gradient_field.activation
            return self.amortised_transport(field, s, a, budget, activation, trajectory)
        if not budget.steps:
            return self.stack([a]) if trajectory else a
        check_network(state, "critic", f"moving particles in method {settings.method!r}")
        critic, activation = state["critic"], settings.critic.activation
        return self.critic_transport(
            critic, s, a, budget, settings.value_ensemble, activation, trajectory
        )

    def update_from_noise(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, Tree]:
        """One update with its random numbers given: what a framework compiles whole."""
        metrics: dict[str, Array] = {}
        gradients: dict[str, Tree] = {}
        for name in settings.networks:
            fit = getattr(self, f"_fit_{name}")
            gradients[name], found = fit(state, batch, noise, settings)
            metrics |= found

        new = dict(state)
        new["step"] = state["step"] + 1
        new["optimiser"] = {}
        for name, gradient in gradients.items():
            if settings.clip_norm is not None:
                gradient = self.clip_by_global_norm(gradient, settings.clip_norm)
            new[name], new["optimiser"][name] = self.adam_step(
                state[name], gradient, state["optimiser"][name], settings.learning_rate
            )
        if "critic" in gradients:
            online = (state if settings.target_update == "before" else new)["critic"]
            new["target_critic"] = self.polyak(online, state["target_critic"], settings.polyak)
        return new, metrics

    # one for each network that a method may train: its gradient, and what is reported of it

    def _fit_critic(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, dict[str, Array]]:
        s_next, activation = batch["next_observations"], settings.critic.activation
        start = self.propose(state, s_next, noise["particles"], settings)
        moved = self.move(state, s_next, start, settings.budget, settings)
        y = self.td_target(
            self.critic_values(state["target_critic"], s_next, moved, activation),
            batch["rewards"],
            batch["masks"],
            settings.discount,
            settings.target_ensemble,
            settings.target_particles,
        )
        loss, gradient = self.critic_gradient(
            state["critic"],
            batch["observations"],
            batch["actions"],
            y,
            settings.critic_loss,
            settings.expectile,
            activation,
        )
        return gradient, {
            "critic_loss": loss,
            "target_mean": y.mean(),
            "displacement": (((moved - start) ** 2).sum(-1) ** 0.5).mean(),
            "spread_start": self._spread(start),
            "spread_moved": self._spread(moved),
        }

    def _fit_reference(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, dict[str, Array]]:
        params, activation = state["reference"], settings.reference.activation
        s, a = batch["observations"], batch["actions"]
        metrics: dict[str, Array] = {}
        weight = None
        if settings.method == "weighted_bc":
            own = self.sample_reference(params, s, noise["baseline"], settings)
            q, baseline = (
                self.critic_values(state["critic"], s, actions, settings.critic.activation)
                for actions in (a, own)
            )
            weight = self.advantage_weights(
                q,
                baseline,
                settings.value_ensemble,
                settings.weight_temperature,
                settings.weight_maximum,
            )
            metrics["weight_mean"] = weight.mean()
        if settings.reference_kind == "gaussian":
            loss, gradient = self.gaussian_gradient(
                params, s, a, settings.reference_tanh, activation, weight
            )
        else:
            x0, t = noise["reference_start"], noise["reference_time"]
            loss, gradient = self.flow_matching_gradient(params, s, a, x0, t, activation, weight)
        return gradient, {**metrics, "reference_loss": loss}

    def _fit_gradient_field(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, dict[str, Array]]:
        s, a = batch["observations"], batch["actions"]
        score = self.action_gradient(state["critic"], s, a, "mean", settings.critic.activation)
        loss, gradient = self.gradient_field_gradient(
            state["gradient_field"],
            s,
            a,
            score,
            settings.normalise_gradients,
            settings.gradient_field.activation,
        )
        return gradient, {"gradient_field_loss": loss}

    def _fit_policy(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, dict[str, Array]]:
        s, z = batch["observations"], noise["policy"]
        target = self.sample_reference(state["reference"], s, z, settings)
        loss, gradient = self.policy_gradient(
            state["policy"],
            state["critic"],
            s,
            z,
            target,
            settings.distillation,
            settings.normalise_values,
            settings.policy.activation,
            settings.critic.activation,
        )
        return gradient, {"policy_loss": loss}

    def _spread(self, a: Array) -> Array:
        """The variance over a state's particles (no N - 1), meaned over states and dimensions."""
        return ((a - a.mean(-2)[..., None, :]) ** 2).mean()

    def act_from_noise(
        self, state: Tree, s: Array, noise: Tree, budget: Budget, settings: Settings
    ) -> tuple[Array, Tree]:
        """Acting with its random numbers given: what a framework compiles whole."""
        start = self.propose(state, s, noise["particles"], settings)
        moved = self.move(state, s, start, budget, settings)
        if settings.method == "bc":
            q = moved[..., 0] * 0
        else:
            values = self.critic_values(state["critic"], s, moved, settings.critic.activation)
            q = self.aggregate(values, settings.target_ensemble)
        a, index = self.select(
            moved, q, noise["select"], settings.selection, settings.selection_temperature
        )
        return a, {"start": start, "moved": moved, "q": q, "index": index}

    def update(
        self, state: Tree, batch: Tree, settings: Settings, noise: Tree | None = None
    ) -> tuple[Tree, Tree]:
        sizes = check_batch(batch)
        if noise is None:
            noise = self.draw_update_noise(
                state["seed"], state["step"], sizes["B"], sizes["d"], settings
            )
        return self.update_from_noise(state, batch, noise, settings)

    def act(
        self,
        state: Tree,
        s: Array,
        budget: Budget,
        settings: Settings,
        particles: int | None = None,
        noise: Tree | None = None,
        draw: int = 0,
    ) -> tuple[Array, Tree]:
        b = check_shapes("act", s=(s, "B o"))["B"]
        if noise is None:
            n = settings.particles if particles is None else particles
            d = state["reference"]["output"]["bias"].shape[0]
            noise = self.draw_act_noise(state["seed"], draw, b, n, d)
        return self.act_from_noise(state, s, noise, budget, settings)

"""Start here: one training update of VGF, and how a trained agent acts.

:func:`update` is Algorithm 1 of the paper, and everything else in the specification is reached
from it. The state of an agent is a nested dict of arrays:

    critic, target_critic   ensembles of E networks on (s, a)
    reference               the network of the reference distribution
    gradient_field          the network f(s, a) of A-VGF (only there)
    policy                  the one-step policy of FQL (only there)
    optimiser               Adam's state for each trained network, under the network's name
    seed, step              integers; together they fix every random number of the next update
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .amortised import amortised_transport, gradient_field_gradient
from .baselines import advantage_weights, policy_actions, policy_gradient
from .critic import (
    action_gradient,
    aggregate,
    critic_gradient,
    critic_transport,
    critic_values,
    td_target,
)
from .flow import project
from .networks import init_ensemble, init_mlp
from .optimiser import adam_init, adam_step, clip_by_global_norm, polyak, tree_map
from .reference import flow_matching_gradient, flow_sample, gaussian_gradient, gaussian_sample
from .selection import select
from .settings import Budget, Settings
from .shapes import check_shapes
from .types import Array, Params

# What separates the random numbers of training from those of acting and of initialisation.
TRAIN, ACT, INIT = 0, 1, 2


def update(
    state: Params, batch: Params, settings: Settings, noise: Params | None = None
) -> tuple[Params, Params]:
    """One training update: the critic, its target, the reference, and what the method adds.

    All gradients are taken at the state the update starts from.

    Shapes:
        batch: observations s ``[B, o]``, actions a ``[B, d]``, rewards r ``[B]``, masks ``[B]``
        (0 where the task is done, 1 elsewhere), next_observations s' ``[B, o]``.
        noise: as :func:`draw_update_noise` makes it, or None to draw it from seed and step.
        Returns the new state and a dict of scalars.

    Equation:
        a_i^(0) ~ mu(. | s'),   a_i = transport( a_i^(0) ) over the training budget
        y = td_target( Qtarget(s', a_i), r, mask )
        theta <- Adam( critic_loss( Q(s, a), y ) )                        (all but "bc")
        theta' <- polyak(theta, theta')
        mu <- Adam( flow-matching loss, or the Gaussian's, weighted in "weighted_bc" )
        f <- Adam( gradient_field_loss against grad_a mean_e Q_e(s, a) )        ("avgf")
        omega <- Adam( policy_loss )                                             ("fql")

    Raises:
        ValueError: a batch with a missing key or of the wrong shape.

    Source:
        Paper, Algorithm 1; authors' code, `VGFAgent.update`.
    """
    sizes = check_batch(batch)
    if noise is None:
        seed, step = int(state["seed"]), int(state["step"])
        noise = draw_update_noise(seed, step, sizes["B"], sizes["d"], settings)
    s, a = batch["observations"], batch["actions"]

    gradients: Params = {}
    metrics: Params = {}
    weight = None
    if "critic" in settings.networks:
        gradients["critic"], metrics = fit_critic(state, batch, noise, settings)
    if settings.method == "weighted_bc":
        weight = weigh(state, s, a, noise, settings)
        metrics["weight_mean"] = np.mean(weight)
    metrics["reference_loss"], gradients["reference"] = fit_reference(
        state["reference"], s, a, noise, settings, weight
    )
    if settings.method == "avgf":
        g = action_gradient(state["critic"], s, a, "mean", settings.critic.activation)
        metrics["gradient_field_loss"], gradients["gradient_field"] = gradient_field_gradient(
            state["gradient_field"],
            s,
            a,
            g,
            settings.normalise_gradients,
            settings.gradient_field.activation,
        )
    if settings.method == "fql":
        metrics["policy_loss"], gradients["policy"] = fit_policy(state, batch, noise, settings)

    new = optimise(state, gradients, settings)
    if "critic" in gradients:
        online = new["critic"] if settings.target_update == "after" else state["critic"]
        new["target_critic"] = polyak(online, state["target_critic"], settings.polyak)
    return new, metrics


def fit_critic(
    state: Params, batch: Params, noise: Params, settings: Settings
) -> tuple[Params, Params]:
    """The critic's gradient towards the TD target of the moved particles.

    Shapes:
        As :func:`update`; returns a tree like the critic and a dict of scalars.

    Equation:
        y = td_target( Qtarget(s', a_i), r, mask ),  a_i proposed and moved at s'
        critic_gradient( Q(s, a), y )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1; authors' code, `critic_loss_fn`.
    """
    s_next, activation = batch["next_observations"], settings.critic.activation
    start = propose(state, s_next, noise["particles"], settings)
    moved = move(state, s_next, start, settings.budget, settings)
    y = td_target(
        critic_values(state["target_critic"], s_next, moved, activation),
        batch["rewards"],
        batch["masks"],
        settings.discount,
        settings.target_ensemble,
        settings.target_particles,
    )
    loss, gradient = critic_gradient(
        state["critic"],
        batch["observations"],
        batch["actions"],
        y,
        settings.critic_loss,
        settings.expectile,
        activation,
    )
    return gradient, {"critic_loss": loss, **transport_metrics(y, start, moved)}


def weigh(state: Params, s: Array, a: Array, noise: Params, settings: Settings) -> Array:
    """The weights of weighted behaviour cloning, from the critic and the policy's own actions.

    Shapes:
        s: ``[B, o]``; a: ``[B, d]``; noise: as :func:`draw_update_noise`. Returns ``[B]``.

    Equation:
        advantage_weights( Q(s, a), Q(s, a_i) ),  a_i ~ mu(. | s)

    Raises:
        ValueError: shapes that do not match.

    Source:
        As :func:`advantage_weights`.
    """
    activation = settings.critic.activation
    own = sample_reference(state["reference"], s, noise["baseline"], settings)
    return advantage_weights(
        critic_values(state["critic"], s, a, activation),
        critic_values(state["critic"], s, own, activation),
        settings.value_ensemble,
        settings.weight_temperature,
        settings.weight_maximum,
    )


def fit_policy(
    state: Params, batch: Params, noise: Params, settings: Settings
) -> tuple[Array, Params]:
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


def check_batch(batch: Params) -> dict[str, int]:
    """Check that a batch is whole.

    Shapes:
        As :func:`update`; returns the sizes B, o and d.

    Equation:
        None.

    Raises:
        ValueError: a batch with a missing key or of the wrong shape.

    Source:
        Names of the fields as in OGBench and D4RL loaders.
    """
    patterns = {
        "observations": "B o",
        "actions": "B d",
        "rewards": "B",
        "masks": "B",
        "next_observations": "B o",
    }
    missing = [key for key in patterns if key not in batch]
    if missing:
        raise ValueError(f"batch lacks {', '.join(missing)}; it has {', '.join(sorted(batch))}")
    return check_shapes("batch", **{key: (batch[key], axes) for key, axes in patterns.items()})


def sample_reference(params: Params, s: Array, noise: Array, settings: Settings) -> Array:
    """Particles from the reference, of either kind.

    Shapes:
        s: ``[*, o]``; noise: standard normal ``[*, N, d]``. Returns ``[*, N, d]``, in [-1, 1].

    Equation:
        a_i ~ mu(. | s) by flow_sample or gaussian_sample

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1.
    """
    activation = settings.reference.activation
    if settings.reference_kind == "flow":
        return flow_sample(params, s, noise, settings.sampling_steps, activation)
    return gaussian_sample(params, s, noise, settings.reference_tanh, activation)


def propose(state: Params, s: Array, noise: Array, settings: Settings) -> Array:
    """The particles of a method before transport: the reference's, or FQL's one-step policy's.

    Shapes:
        state: of an agent; s: ``[*, o]``; noise: standard normal ``[*, N, d]``. Returns
        ``[*, N, d]``, in [-1, 1].

    Equation:
        a_i ~ mu(. | s);  "fql": a_i = clip( omega(s, z_i), -1, 1 )

    Raises:
        ValueError: shapes that do not match, or a state without the network.

    Source:
        Paper, Algorithm 1; Park et al. 2025 (FQL), its code's `sample_actions`.
    """
    if settings.method != "fql":
        return sample_reference(state["reference"], s, noise, settings)
    check_network(state, "policy", "method 'fql'")
    return project(policy_actions(state["policy"], s, noise, settings.policy.activation))


def fit_reference(
    params: Params,
    s: Array,
    a: Array,
    noise: Params,
    settings: Settings,
    weight: Array | None = None,
) -> tuple[Array, Params]:
    """The loss of the reference, of either kind, and its gradient.

    Shapes:
        s: ``[B, o]``; a: ``[B, d]``; noise: as :func:`draw_update_noise`; weight: ``[B]`` or None.
        Returns a scalar and a tree like params.

    Equation:
        flow_matching_gradient or gaussian_gradient

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1.
    """
    activation = settings.reference.activation
    if settings.reference_kind == "flow":
        x0, t = noise["reference_start"], noise["reference_time"]
        return flow_matching_gradient(params, s, a, x0, t, activation, weight)
    return gaussian_gradient(params, s, a, settings.reference_tanh, activation, weight)


def move(
    state: Params, s: Array, a: Array, budget: Budget, settings: Settings, trajectory: bool = False
) -> Array:
    """Transport particles along the online critic (VGF) or along f (A-VGF).

    The baselines move none; given steps, their particles follow the critic too, if they have one.

    Shapes:
        state: of an agent; s: ``[*, o]``; a: ``[*, N, d]``. Returns ``[*, N, d]``, or
        ``[L + 1, *, N, d]`` with `trajectory`.

    Equation:
        critic_transport or amortised_transport

    Raises:
        ValueError: shapes that do not match, or a state without the network.

    Source:
        Paper, Algorithm 1 and amortised VGF.
    """
    if settings.method == "avgf":
        check_network(state, "gradient_field", "method 'avgf'")
        activation = settings.gradient_field.activation
        return amortised_transport(state["gradient_field"], s, a, budget, activation, trajectory)
    if budget.steps == 0:
        return a[None] if trajectory else a
    check_network(state, "critic", f"moving particles in method {settings.method!r}")
    activation = settings.critic.activation
    return critic_transport(
        state["critic"], s, a, budget, settings.value_ensemble, activation, trajectory
    )


def check_network(state: Params, name: str, why: str) -> None:
    """Check that an agent has a network.

    Shapes:
        state: of an agent.

    Equation:
        None.

    Raises:
        ValueError: it has not, and why it should.

    Source:
        Ours.
    """
    if name not in state:
        raise ValueError(f"the state has no {name}, which {why} needs; it has {', '.join(state)}")


def optimise(state: Params, gradients: Params, settings: Settings) -> Params:
    """Adam on every network that has a gradient, after the optional global-norm clip.

    Shapes:
        gradients: a tree for each network, under its name. Returns a new state, one step on.

    Equation:
        theta <- Adam( clip(g) )

    Source:
        Paper, its hyperparameters; the authors' A-VGF clips each network's gradient to norm 1.
    """
    new = {**state, "optimiser": dict(state["optimiser"]), "step": state["step"] + 1}
    for name, gradient in gradients.items():
        if settings.clip_norm is not None:
            gradient = clip_by_global_norm(gradient, settings.clip_norm)
        new[name], new["optimiser"][name] = adam_step(
            state[name], gradient, state["optimiser"][name], settings.learning_rate
        )
    return new


def transport_metrics(y: Array, start: Array, moved: Array) -> Params:
    """What an update reports about its transport.

    Shapes:
        y: ``[B]``; start, moved: ``[B, N, d]``. Returns a dict of scalars.

    Equation:
        target_mean = mean y;  displacement = mean_i ||a_i - a_i^(0)||;
        spread_start, spread_moved = mean over batch and dimensions of the particles' variance

    Source:
        Authors' code logs the two spreads (`bc_flow_var`, `vgf_var`, with N - 1).
    """
    return {
        "target_mean": np.mean(y),
        "displacement": np.mean(np.sqrt(np.sum((moved - start) ** 2, axis=-1))),
        "spread_start": np.mean(np.var(start, axis=-2)),
        "spread_moved": np.mean(np.var(moved, axis=-2)),
    }


def act(
    state: Params,
    s: Array,
    budget: Budget,
    settings: Settings,
    particles: int | None = None,
    noise: Params | None = None,
    draw: int = 0,
) -> tuple[Array, Params]:
    """Actions of a trained agent at any test budget.

    Shapes:
        s: ``[B, o]``; particles: N, or None for the training N; noise: as
        :func:`draw_act_noise`, or None to draw it from the state's seed and `draw`, the number
        of the call. Returns the actions ``[B, d]`` and a dict with the particles before and after
        transport (start, moved ``[B, N, d]``), their values (q ``[B, N]``) and the index picked
        (index ``[B]``).

    Equation:
        a_i^(0) proposed at s,  a_i = transport( a_i^(0) ) over the test budget,
        a = select( a_i, agg_e Q_e(s, a_i) );  without a critic ("bc"), all values are 0

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, adaptive test-time scaling; authors' code, `sample_actions`, which
        aggregates Q as its TD target does.
    """
    check_shapes("act", s=(s, "B o"))
    if noise is None:
        d = state["reference"]["output"]["bias"].shape[0]
        n = settings.particles if particles is None else particles
        noise = draw_act_noise(int(state["seed"]), draw, len(s), n, d)
    activation = settings.critic.activation
    start = propose(state, s, noise["particles"], settings)
    moved = move(state, s, start, budget, settings)
    if "critic" in settings.networks:
        values = critic_values(state["critic"], s, moved, activation)
        q = aggregate(values, settings.target_ensemble)
    else:
        q = np.zeros(moved.shape[:-1], moved.dtype)
    a, index = select(moved, q, noise["select"], settings.selection, settings.selection_temperature)
    return a, {"start": start, "moved": moved, "q": q, "index": index}


def draw_update_noise(
    seed: int, step: int, batch_size: int, action_dim: int, settings: Settings
) -> Params:
    """The random numbers of one update, a pure function of seed and step.

    Shapes:
        Returns particles: standard normal ``[B, N, d]``; for the flow reference, reference_start:
        standard normal ``[B, d]``, reference_time: uniform ``[B, 1]``; for "weighted_bc",
        baseline: standard normal ``[B, N, d]``; for "fql", policy: standard normal ``[B, d]``.

    Equation:
        Independent draws, none used twice.

    Source:
        Paper, Algorithm 1. The authors' code uses one key for several of these draws.
    """
    rng = np.random.default_rng([seed, TRAIN, step])
    noise = {"particles": rng.standard_normal((batch_size, settings.particles, action_dim))}
    if settings.reference_kind == "flow":
        noise["reference_start"] = rng.standard_normal((batch_size, action_dim))
        noise["reference_time"] = rng.random((batch_size, 1))
    if settings.method == "weighted_bc":
        noise["baseline"] = rng.standard_normal(noise["particles"].shape)
    if settings.method == "fql":
        noise["policy"] = rng.standard_normal((batch_size, action_dim))
    return noise


def draw_act_noise(
    seed: int, draw: int, batch_size: int, particles: int, action_dim: int
) -> Params:
    """The random numbers of one call of :func:`act`, a pure function of seed and draw.

    Shapes:
        Returns particles: standard normal ``[B, N, d]``; select: uniform ``[B]``.

    Equation:
        Independent draws, apart from those of training.

    Source:
        Ours.
    """
    rng = np.random.default_rng([seed, ACT, draw])
    return {
        "particles": rng.standard_normal((batch_size, particles, action_dim)),
        "select": rng.random(batch_size),
    }


def init_state(seed: int, observation_dim: int, action_dim: int, settings: Settings) -> Params:
    """The state of a new agent, a pure function of the seed and the same on every backend.

    Shapes:
        Returns a state as described at the head of this file, float64.

    Equation:
        init_mlp for each network;  theta' = theta;  log_std = 0 for the Gaussian

    Raises:
        ValueError: a seed out of its range.

    Source:
        Paper, its hyperparameters; authors' code, `VGFAgent.create` (the Gaussian's last layer
        has gain 1e-2).
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}; it must lie in [0, 2^31)")
    rng = np.random.default_rng([seed, INIT])
    o, d = observation_dim, action_dim
    critic = init_ensemble(rng, o + d, settings.critic, 1, settings.ensemble)
    if settings.reference_kind == "flow":
        reference = init_mlp(rng, o + d + 1, settings.reference, d)
    else:
        reference = init_mlp(rng, o, settings.reference, d, output_gain=1e-2)
        reference["log_std"] = np.zeros(d)
    made: dict[str, Any] = {"critic": critic, "reference": reference}
    if settings.method == "avgf":
        made["gradient_field"] = init_mlp(rng, o + d, settings.gradient_field, d)
    if settings.method == "fql":
        made["policy"] = init_mlp(rng, o + d, settings.policy, d)
    networks = {name: made[name] for name in settings.networks}
    targets = {"target_critic": tree_map(np.copy, critic)} if "critic" in networks else {}
    return {
        **networks,
        **targets,
        "optimiser": {name: adam_init(params) for name, params in networks.items()},
        "seed": np.asarray(seed, np.int32),
        "step": np.asarray(0, np.int32),
    }

"""Start here: one training update of VGF, and how a trained agent acts.

:func:`update` is Algorithm 1 of the paper, and everything else in the specification is reached
from it. The state of an agent is a nested dict of arrays:

    critic, target_critic   ensembles of E networks on (s, a)
    reference               the network of the reference distribution
    ...                     the method's own networks: A-VGF's gradient_field, FQL's policy
    optimiser               Adam's state for each trained network, under the network's name
    seed, step              integers; together they fix every random number of the next update
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from .agent import check_batch, check_gradients, optimise
from .methods.base import Draw, Specification, normal, uniform
from .networks import init_ensemble, init_mlp
from .optimiser import adam_init, polyak, tree_map
from .reference import time_frequencies
from .selection import select
from .settings import Budget, Settings
from .shapes import check_shapes
from .types import Array, Params

# Separates the random numbers of training from those of acting and of initialisation.
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
        theta <- Adam( critic_loss( Q(s, a), y ) )
        theta' <- polyak(theta, theta')
        mu <- Adam( flow-matching loss, or the Gaussian's )
        and what the method adds, each network by Adam; see vgf/spec/methods

    Raises:
        ValueError: a batch with a missing key or of the wrong shape.

    Source:
        Paper, Algorithm 1; authors' code, `VGFAgent.update`.
    """
    sizes = check_batch(batch)
    if noise is None:
        seed, step = int(state["seed"]), int(state["step"])
        noise = draw_update_noise(seed, step, sizes["B"], sizes["d"], settings)
    gradients, metrics = specification(settings).gradients(state, batch, noise, settings)
    check_gradients(gradients, settings)
    new = optimise(state, gradients, settings)
    if "critic" in gradients:
        online = new["critic"] if settings.target_update == "after" else state["critic"]
        new["target_critic"] = polyak(online, state["target_critic"], settings.polyak)
    return new, metrics


def specification(settings: Settings) -> Specification:
    """The equations of a method in NumPy.

    Shapes:
        None.

    Equation:
        None.

    Raises:
        ValueError: your own method has none; the message names the way out.

    Source:
        vgf/spec/methods, one file each.
    """
    found = settings.declared
    if not isinstance(found, Specification):
        found = found.specification
    if found is None:
        raise ValueError(
            f"method {settings.method!r} has no `specification`, which NumPy runs; give it one (a "
            "vgf.spec.Specification), or use --backend torch or jax"
        )
    return found


def propose(state: Params, s: Array, noise: Array, settings: Settings) -> Array:
    """The particles of a method before transport.

    Shapes:
        state: of an agent; s: ``[*, o]``; noise: standard normal ``[*, N, d]``. Returns
        ``[*, N, d]``, in [-1, 1].

    Equation:
        a_i ~ mu(. | s), or what the method says

    Raises:
        ValueError: shapes that do not match, or a state without the network.

    Source:
        The method's `propose`.
    """
    return specification(settings).propose(state, s, noise, settings)


def move(
    state: Params, s: Array, a: Array, budget: Budget, settings: Settings, trajectory: bool = False
) -> Array:
    """Transport particles as the method does: along the online critic (VGF) or along f (A-VGF).

    Shapes:
        state: of an agent; s: ``[*, o]``; a: ``[*, N, d]``. Returns ``[*, N, d]``, or
        ``[L + 1, *, N, d]`` with `trajectory`.

    Equation:
        critic_transport or amortised_transport

    Raises:
        ValueError: shapes that do not match, or a state without the network.

    Source:
        The method's `move`.
    """
    return specification(settings).move(state, s, a, budget, settings, trajectory)


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
        a = select( a_i, values(s, a_i) ): agg_e Q_e(s, a_i), or 0 without a critic
        A clip of the velocity is over the particles of one state, whatever `clip_scope` says.

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, adaptive test-time scaling; authors' code, `sample_actions`, which acts in one state
        at a time and aggregates Q as its TD target does.
    """
    check_shapes("act", s=(s, "B o"))
    method = specification(settings)
    if noise is None:
        d = method.action_dim(state)
        n = settings.particles if particles is None else particles
        noise = draw_act_noise(int(state["seed"]), draw, len(s), n, d)
    start = method.propose(state, s, noise["particles"], settings)
    budget = replace(budget, clip_scope="state")  # one decision does not depend on another
    moved = method.move(state, s, start, budget, settings)
    q = method.values(state, s, moved, settings)
    a, index = select(moved, q, noise["select"], settings.selection, settings.selection_temperature)
    return a, {"start": start, "moved": moved, "q": q, "index": index}


def update_draws(batch_size: int, action_dim: int, settings: Settings) -> dict[str, Draw]:
    """The random numbers that one update takes, in order: every method's, then its own.

    Shapes:
        Returns particles: normal ``[B, N, d]``; for the flow reference, reference_start: normal
        ``[B, d]``, reference_time: uniform ``[B, 1]``; then what the method's `noise` says.

    Equation:
        None.

    Source:
        Paper, Algorithm 1.
    """
    b, d = batch_size, action_dim
    draws = {"particles": normal(b, settings.particles, d)}
    if settings.reference_kind == "flow":
        draws |= {"reference_start": normal(b, d), "reference_time": uniform(b, 1)}
    return draws | settings.declared.noise(b, d, settings)


def draw_update_noise(
    seed: int, step: int, batch_size: int, action_dim: int, settings: Settings
) -> Params:
    """The random numbers of one update, a pure function of seed and step.

    Shapes:
        Returns what :func:`update_draws` says.

    Equation:
        Independent draws, none used twice.

    Source:
        Paper, Algorithm 1. The authors' code uses one key for several of these draws.
    """
    rng = np.random.default_rng([seed, TRAIN, step])
    draw: dict[str, Any] = {"normal": rng.standard_normal, "uniform": rng.random}
    wanted = update_draws(batch_size, action_dim, settings)
    return {name: draw[kind](shape) for name, (kind, shape) in wanted.items()}


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
    # made for every method, so that with one seed all of them start from the same networks
    critic = init_ensemble(rng, o + d, settings.critic, 1, settings.ensemble)
    if settings.reference_kind == "flow":
        reference = init_mlp(rng, o + d + settings.time_features, settings.reference, d)
        if settings.time_features > 1:
            reference["time_frequencies"] = time_frequencies(settings.time_features)
    else:
        reference = init_mlp(rng, o, settings.reference, d, output_gain=1e-2)
        reference["log_std"] = np.zeros(d)
    made: dict[str, Any] = {"critic": critic, "reference": reference}
    for name, (inputs, outputs, network, size, gain) in settings.declared.networks(
        o, d, settings
    ).items():
        if size is None:
            made[name] = init_mlp(rng, inputs, network, outputs, gain)
        else:
            made[name] = init_ensemble(rng, inputs, network, outputs, size)
    unmade = [name for name in settings.networks if name not in made]
    if unmade:
        raise ValueError(
            f"method {settings.method!r} trains {', '.join(unmade)}, which its `networks` does not "
            "describe"
        )
    networks = {name: made[name] for name in settings.networks}
    targets = {"target_critic": tree_map(np.copy, critic)} if "critic" in networks else {}
    return {
        **networks,
        **targets,
        "optimiser": {name: adam_init(params) for name, params in networks.items()},
        "seed": np.asarray(seed, np.int32),
        "step": np.asarray(0, np.int32),
    }


def __getattr__(name: str) -> Any:
    """What stood here up to version 0.1, and stands elsewhere in the specification."""
    package = sys.modules[__package__]
    if name.startswith("_") or not hasattr(package, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(package, name)

"""What the updates of all methods are made of: the critic's and the reference's gradients, Adam.

The state of an agent is described in update.py, where to start.
"""

from __future__ import annotations

import numpy as np

from .critic import critic_gradient, critic_values, td_target
from .optimiser import adam_step, clip_by_global_norm
from .parts import Sampler, equations
from .reference import flow_matching_gradient, flow_sample, gaussian_gradient, gaussian_sample
from .registry import find
from .settings import Settings
from .shapes import check_shapes
from .types import Array, Params


def fit_critic(
    state: Params, batch: Params, start: Array, moved: Array, settings: Settings
) -> tuple[Params, Params]:
    """The critic's gradient towards the TD target of the moved particles.

    Shapes:
        state, batch: as :func:`update`; start, moved: the particles at s' before and after
        transport, ``[B, N, d]``. Returns a tree like the critic and a dict of scalars.

    Equation:
        y = td_target( Qtarget(s', a_i), r, mask )
        critic_gradient( Q(s, a), y )

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1; authors' code, `critic_loss_fn`.
    """
    s_next, activation = batch["next_observations"], settings.critic.activation
    y = td_target(
        critic_values(state["target_critic"], s_next, moved, activation),
        batch["rewards"],
        batch["masks"],
        settings.discount,
        settings.target_ensemble,
        settings.target_particles,
        settings.target,
    )
    loss, gradient = critic_gradient(
        state["critic"],
        batch["observations"],
        batch["actions"],
        y,
        settings.critic_loss,
        settings.expectile,
        activation,
        settings.sparse_alpha,
    )
    return gradient, {"critic_loss": loss, **transport_metrics(y, start, moved)}


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


def sample_reference(params: Params, s: Array, noise: Array, settings: Settings) -> Array:
    """Particles from the reference, of either kind.

    Shapes:
        s: ``[*, o]``; noise: standard normal ``[*, N, d]``. Returns ``[*, N, d]``, in [-1, 1].

    Equation:
        a_i ~ mu(. | s) by flow_sample, gaussian_sample, or your own sampler

    Raises:
        ValueError: shapes that do not match.

    Source:
        Paper, Algorithm 1.
    """
    activation = settings.reference.activation
    if settings.sampler != "euler":
        return find(Sampler, settings.sampler, "sampler").sample(
            equations(), params, s, noise, settings
        )
    if settings.reference_kind == "flow":
        return flow_sample(params, s, noise, settings.sampling_steps, activation)
    return gaussian_sample(params, s, noise, settings.reference_tanh, activation)


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


def optimise(state: Params, gradients: Params, settings: Settings) -> Params:
    """Adam on every network that has a gradient, after the optional global-norm clip.

    Shapes:
        gradients: a tree for each network, under its name. Returns a new state, one step on.

    Equation:
        theta <- Adam( clip(g) ), the learning rate that of the method's actors or of the others

    Source:
        Paper, its hyperparameters; the authors' A-VGF clips each network's gradient to norm 1;
        their `actor_lr` and `value_lr`.
    """
    new = {**state, "optimiser": dict(state["optimiser"]), "step": state["step"] + 1}
    for name, gradient in gradients.items():
        if settings.clip_norm is not None:
            gradient = clip_by_global_norm(gradient, settings.clip_norm)
        new[name], new["optimiser"][name] = adam_step(
            state[name], gradient, state["optimiser"][name], settings.learning_rate_of(name)
        )
    return new


def check_batch(batch: Params) -> dict[str, int]:
    """Check that a batch is complete.

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


def check_gradients(gradients: Params, settings: Settings) -> None:
    """Check that a method gave the gradient of every network that it trains, and of no other.

    Shapes:
        gradients: a tree for each network, under its name.

    Equation:
        None.

    Raises:
        ValueError: it did not.

    Source:
        Ours.
    """
    if set(gradients) != set(settings.networks):
        raise ValueError(
            f"method {settings.method!r} returned gradients of {', '.join(sorted(gradients))}; it "
            f"trains {', '.join(settings.networks)}"
        )


def check_network(state: Params, name: str, why: str) -> None:
    """Check that an agent has a network.

    Shapes:
        state: of an agent.

    Equation:
        None.

    Raises:
        ValueError: it has none, and why it needs one.

    Source:
        Ours.
    """
    if name not in state:
        raise ValueError(f"the state has no {name}, which {why} needs; it has {', '.join(state)}")

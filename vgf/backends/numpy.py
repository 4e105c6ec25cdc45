"""The specification itself, lent to the interface of the backends."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import spec
from ..spec.settings import Settings
from .base import Array, Backend, Tree
from .errors import BackendError


class NumpyBackend(Backend):
    """NumPy: the specification, in float64 or float32, on the CPU."""

    name = "numpy"
    device = "cpu"

    squared_distances = staticmethod(spec.squared_distances)
    bandwidth_squared = staticmethod(spec.bandwidth_squared)
    rbf_kernel = staticmethod(spec.rbf_kernel)
    repulsion = staticmethod(spec.repulsion)
    repulsion_through_bandwidth = staticmethod(spec.repulsion_through_bandwidth)
    phi = staticmethod(spec.phi)
    project = staticmethod(spec.project)
    clip_velocity = staticmethod(spec.clip_velocity)
    flow_step = staticmethod(spec.flow_step)
    follow = staticmethod(spec.follow)
    transport = staticmethod(spec.transport)
    activate = staticmethod(spec.activate)
    layer_norm = staticmethod(spec.layer_norm)
    mlp = staticmethod(spec.mlp)
    mlp_vjp = staticmethod(spec.mlp_vjp)
    ensemble = staticmethod(spec.ensemble)
    ensemble_vjp = staticmethod(spec.ensemble_vjp)
    flow_velocity = staticmethod(spec.flow_velocity)
    flow_matching_loss = staticmethod(spec.flow_matching_loss)
    flow_matching_gradient = staticmethod(spec.flow_matching_gradient)
    flow_sample = staticmethod(spec.flow_sample)
    gaussian_loss = staticmethod(spec.gaussian_loss)
    gaussian_gradient = staticmethod(spec.gaussian_gradient)
    gaussian_sample = staticmethod(spec.gaussian_sample)
    critic_values = staticmethod(spec.critic_values)
    aggregate = staticmethod(spec.aggregate)
    action_gradient = staticmethod(spec.action_gradient)
    critic_transport = staticmethod(spec.critic_transport)
    td_target = staticmethod(spec.td_target)
    critic_loss = staticmethod(spec.critic_loss)
    critic_gradient = staticmethod(spec.critic_gradient)
    gradient_field = staticmethod(spec.gradient_field)
    gradient_field_loss = staticmethod(spec.gradient_field_loss)
    gradient_field_gradient = staticmethod(spec.gradient_field_gradient)
    amortised_transport = staticmethod(spec.amortised_transport)
    advantage_weights = staticmethod(spec.advantage_weights)
    policy_actions = staticmethod(spec.policy_actions)
    policy_loss = staticmethod(spec.policy_loss)
    policy_gradient = staticmethod(spec.policy_gradient)
    select = staticmethod(spec.select)
    adam_init = staticmethod(spec.adam_init)
    adam_step = staticmethod(spec.adam_step)
    global_norm = staticmethod(spec.global_norm)
    clip_by_global_norm = staticmethod(spec.clip_by_global_norm)
    polyak = staticmethod(spec.polyak)
    sequence_phi = staticmethod(spec.sequence_phi)
    rescale_sequences = staticmethod(spec.rescale_sequences)
    decoding_scores = staticmethod(spec.decoding_scores)
    sample_reference = staticmethod(spec.sample_reference)
    propose = staticmethod(spec.propose)
    move = staticmethod(spec.move)

    def __init__(self, device: str, dtype: str | None, matmul_precision: str) -> None:
        if device not in ("auto", "cpu"):
            raise BackendError(
                f"backend 'numpy' runs on the CPU, not on device {device!r}; "
                "use --device cpu, or --backend torch or jax"
            )
        if matmul_precision != "float32":
            raise BackendError(
                f"backend 'numpy' has no matmul precision {matmul_precision!r}; "
                "use --matmul-precision float32, or --backend torch or jax"
            )
        self.dtype = dtype or "float64"
        self.matmul_precision = matmul_precision

    def asarray(self, tree: Tree) -> Tree:
        def convert(leaf: Any) -> Array:
            array = np.array(leaf)
            return array.astype(self.dtype) if array.dtype.kind == "f" else array

        return spec.tree_map(convert, tree)

    def to_numpy(self, tree: Tree) -> Tree:
        return spec.tree_map(np.array, tree)

    def synchronise(self, tree: Tree) -> Tree:
        return tree

    def init_state(
        self, seed: int, observation_dim: int, action_dim: int, settings: Settings
    ) -> Tree:
        return self.asarray(spec.init_state(seed, observation_dim, action_dim, settings))

    def draw_update_noise(
        self, seed: int, step: int, batch_size: int, action_dim: int, settings: Settings
    ) -> Tree:
        return self.asarray(
            spec.draw_update_noise(int(seed), int(step), batch_size, action_dim, settings)
        )

    def draw_act_noise(
        self, seed: int, draw: int, batch_size: int, particles: int, action_dim: int
    ) -> Tree:
        return self.asarray(spec.draw_act_noise(int(seed), draw, batch_size, particles, action_dim))

    def update(
        self, state: Tree, batch: Tree, settings: Settings, noise: Tree | None = None
    ) -> tuple[Tree, Tree]:
        if noise is None:
            b, d = spec.check_batch(batch)["B"], batch["actions"].shape[1]
            noise = self.draw_update_noise(state["seed"], state["step"], b, d, settings)
        return spec.update(state, batch, settings, noise)

    def act(
        self,
        state: Tree,
        s: Array,
        budget: spec.Budget,
        settings: Settings,
        particles: int | None = None,
        noise: Tree | None = None,
        draw: int = 0,
    ) -> tuple[Array, Tree]:
        if noise is None:
            n = settings.particles if particles is None else particles
            d = state["reference"]["output"]["bias"].shape[0]
            noise = self.draw_act_noise(state["seed"], draw, len(s), n, d)
        return spec.act(state, s, budget, settings, noise=noise)

"""The interface that every backend has.

A backend is an object whose methods are pure functions on its own arrays: nothing is changed in
place, and what is returned depends on the arguments alone. Names, arguments, defaults and shapes
are those of the specification (`vgf.spec`), whose docstrings give the equations; parameter trees
have the same keys on every backend, so that what one has trained another can run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ..spec.settings import Budget, Settings

# An array of the backend's own kind: numpy.ndarray, torch.Tensor or jax.Array.
Array = Any
# A nested dict of such arrays, as in vgf/spec/networks.py and vgf/spec/update.py.
Tree = Any
# A map from particles [*, N, d] to vectors of the same shape.
VectorField = Callable[[Array], Array]

# States [B, o], a budget and noise, all NumPy, to actions [B, d] and `act`'s info, NumPy too.
NumpyPolicy = Callable[[np.ndarray, Budget, Tree], tuple[np.ndarray, Tree]]
# Data and row numbers [B] to the batch of those rows.
Gather = Callable[[Tree, Array], Tree]

DTYPES = ("float32", "float64")
MATMUL_PRECISIONS = ("float32", "tf32", "bf16")


def take(data: Tree, rows: Array) -> Tree:
    """The rows ``[B]`` of the arrays of a batch, each ``[M, ...]``."""
    return {name: array[rows] for name, array in data.items()}


class Backend(Protocol):
    """What a backend can do. Shapes: B states, N particles, E critics, ``*`` any leading axes.

    Attributes:
        name: "numpy", "torch" or "jax".
        device: where arrays live: "cpu" or "gpu:0", "gpu:1", ...
        dtype: "float32" or "float64".
        matmul_precision: of matrix products: "float32" (full: as precise as the dtype), "tf32" or
            "bf16" (operands rounded to bfloat16, and in torch the result too; sums in float32).
    """

    name: str
    device: str
    dtype: str
    matmul_precision: str

    # --- arrays ---------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, tree: Tree) -> Tree:
        """Copy arrays, numbers or nested dicts of them to the device, floats to the dtype."""

    @abstractmethod
    def to_numpy(self, tree: Tree) -> Tree:
        """Copy arrays or nested dicts of them to NumPy."""

    @abstractmethod
    def synchronise(self, tree: Tree) -> Tree:
        """Wait until arrays have been computed, and return them (for timing)."""

    # --- kernel and flow ------------------------------------------------------------------------

    @abstractmethod
    def squared_distances(self, x: Array, y: Array) -> Array:
        """``[*, N, d]``, ``[*, M, d]`` -> ``[*, N, M]``."""

    @abstractmethod
    def bandwidth_squared(self, a: Array) -> Array:
        """``[*, N, d]`` -> sigma^2 ``[*]``."""

    @abstractmethod
    def rbf_kernel(self, x: Array, y: Array, sigma_squared: Array) -> Array:
        """``[*, N, d]``, ``[*, M, d]``, ``[*]`` -> ``[*, N, M]``."""

    @abstractmethod
    def repulsion(self, a: Array, sigma_squared: Array) -> Array:
        """``[*, N, d]``, ``[*]`` -> ``[*, N, d]``."""

    @abstractmethod
    def repulsion_through_bandwidth(self, a: Array) -> Array:
        """``[*, N, d]`` -> ``[*, N, d]``: the authors' variant."""

    @abstractmethod
    def phi(
        self,
        a: Array,
        g: Array,
        temperature: float | None = None,
        bandwidth: float | None = None,
        bandwidth_gradient: bool = False,
    ) -> Array:
        """``[*, N, d]`` twice -> ``[*, N, d]``."""

    @abstractmethod
    def project(self, a: Array, low: float | None = -1.0, high: float | None = 1.0) -> Array:
        """Any shape -> the same."""

    @abstractmethod
    def clip_velocity(self, velocity: Array, max_norm: float, scope: str = "state") -> Array:
        """``[*, N, d]`` -> the same."""

    @abstractmethod
    def flow_step(
        self, a: Array, velocity: Array, state: Tree, budget: Budget
    ) -> tuple[Array, Tree]:
        """``[*, N, d]`` twice and Adam's state (or None) -> particles and state."""

    @abstractmethod
    def follow(
        self, velocity: VectorField, a: Array, budget: Budget, trajectory: bool = False
    ) -> Array:
        """A function of particles, ``[*, N, d]`` -> ``[*, N, d]`` or ``[L + 1, *, N, d]``."""

    @abstractmethod
    def transport(
        self, score: VectorField, a: Array, budget: Budget, trajectory: bool = False
    ) -> Array:
        """A function of particles, ``[*, N, d]`` -> ``[*, N, d]`` or ``[L + 1, *, N, d]``."""

    # --- networks -------------------------------------------------------------------------------

    @abstractmethod
    def activate(self, x: Array, activation: str) -> Array:
        """Any shape -> the same."""

    @abstractmethod
    def layer_norm(self, x: Array, scale: Array, offset: Array) -> Array:
        """``[*, h]``, ``[h]``, ``[h]`` -> ``[*, h]``."""

    @abstractmethod
    def mlp(self, params: Tree, x: Array, activation: str = "relu") -> Array:
        """``[M, in]`` -> ``[M, out]``."""

    @abstractmethod
    def mlp_vjp(
        self, params: Tree, x: Array, cotangent: Array, activation: str = "relu"
    ) -> tuple[Tree, Array]:
        """``[M, in]``, ``[M, out]`` -> gradients of params and of x."""

    @abstractmethod
    def ensemble(self, params: Tree, x: Array, activation: str = "relu") -> Array:
        """``[M, in]`` -> ``[E, M, out]``."""

    @abstractmethod
    def ensemble_vjp(
        self, params: Tree, x: Array, cotangent: Array, activation: str = "relu"
    ) -> tuple[Tree, Array]:
        """``[M, in]``, ``[E, M, out]`` -> gradients of params and of x."""

    # --- reference ------------------------------------------------------------------------------

    @abstractmethod
    def flow_velocity(
        self, params: Tree, s: Array, x: Array, t: Array, activation: str = "relu"
    ) -> Array:
        """``[*, o]``, ``[*, (N,) d]``, ``[*, (N,) 1]`` -> the shape of x."""

    @abstractmethod
    def flow_matching_loss(
        self,
        params: Tree,
        s: Array,
        a: Array,
        x0: Array,
        t: Array,
        activation: str = "relu",
        weight: Array | None = None,
    ) -> Array:
        """``[B, o]``, ``[B, d]``, ``[B, d]``, ``[B, 1]``, weight ``[B]`` -> a scalar."""

    @abstractmethod
    def flow_matching_gradient(
        self,
        params: Tree,
        s: Array,
        a: Array,
        x0: Array,
        t: Array,
        activation: str = "relu",
        weight: Array | None = None,
    ) -> tuple[Array, Tree]:
        """As flow_matching_loss -> the loss and a tree like params."""

    @abstractmethod
    def flow_sample(
        self, params: Tree, s: Array, x0: Array, sampling_steps: int = 10, activation: str = "relu"
    ) -> Array:
        """``[*, o]``, ``[*, (N,) d]`` -> the shape of x0."""

    @abstractmethod
    def gaussian_loss(
        self,
        params: Tree,
        s: Array,
        a: Array,
        tanh: bool = False,
        activation: str = "relu",
        weight: Array | None = None,
    ) -> Array:
        """``[B, o]``, ``[B, d]``, weight ``[B]`` -> a scalar."""

    @abstractmethod
    def gaussian_gradient(
        self,
        params: Tree,
        s: Array,
        a: Array,
        tanh: bool = False,
        activation: str = "relu",
        weight: Array | None = None,
    ) -> tuple[Array, Tree]:
        """As gaussian_loss -> the loss and a tree like params."""

    @abstractmethod
    def gaussian_sample(
        self, params: Tree, s: Array, noise: Array, tanh: bool = False, activation: str = "relu"
    ) -> Array:
        """``[*, o]``, ``[*, (N,) d]`` -> the shape of noise."""

    # --- critic ---------------------------------------------------------------------------------

    @abstractmethod
    def critic_values(self, params: Tree, s: Array, a: Array, activation: str = "relu") -> Array:
        """``[*, o]``, ``[*, (N,) d]`` -> ``[E, * (, N)]``."""

    @abstractmethod
    def aggregate(self, q: Array, how: str) -> Array:
        """``[E, *]`` -> ``[*]``."""

    @abstractmethod
    def action_gradient(
        self, params: Tree, s: Array, a: Array, how: str = "mean", activation: str = "relu"
    ) -> Array:
        """``[*, o]``, ``[*, (N,) d]`` -> the shape of a."""

    @abstractmethod
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
        """``[*, o]``, ``[*, N, d]`` -> ``[*, N, d]`` or ``[L + 1, *, N, d]``."""

    @abstractmethod
    def td_target(
        self,
        q: Array,
        r: Array,
        mask: Array,
        discount: float,
        how: str = "min",
        particles: str = "mean",
    ) -> Array:
        """``[E, B, N]``, ``[B]``, ``[B]`` -> ``[B]``."""

    @abstractmethod
    def critic_loss(
        self, q: Array, y: Array, loss: str = "squared", expectile: float = 0.9
    ) -> Array:
        """``[E, B]``, ``[B]`` -> a scalar."""

    @abstractmethod
    def critic_gradient(
        self,
        params: Tree,
        s: Array,
        a: Array,
        y: Array,
        loss: str = "squared",
        expectile: float = 0.9,
        activation: str = "relu",
    ) -> tuple[Array, Tree]:
        """``[B, o]``, ``[B, d]``, ``[B]`` -> the loss and a tree like params."""

    # --- amortised gradient ---------------------------------------------------------------------

    @abstractmethod
    def gradient_field(self, params: Tree, s: Array, a: Array, activation: str = "relu") -> Array:
        """``[*, o]``, ``[*, (N,) d]`` -> the shape of a."""

    @abstractmethod
    def gradient_field_loss(
        self,
        params: Tree,
        s: Array,
        a: Array,
        g: Array,
        normalise: bool = False,
        activation: str = "relu",
    ) -> Array:
        """``[B, o]``, ``[B, d]``, ``[B, d]`` -> a scalar."""

    @abstractmethod
    def gradient_field_gradient(
        self,
        params: Tree,
        s: Array,
        a: Array,
        g: Array,
        normalise: bool = False,
        activation: str = "relu",
    ) -> tuple[Array, Tree]:
        """As gradient_field_loss -> the loss and a tree like params."""

    @abstractmethod
    def amortised_transport(
        self,
        params: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        activation: str = "relu",
        trajectory: bool = False,
    ) -> Array:
        """``[*, o]``, ``[*, N, d]`` -> ``[*, N, d]`` or ``[L + 1, *, N, d]``."""

    # --- baselines ------------------------------------------------------------------------------

    @abstractmethod
    def advantage_weights(
        self,
        q: Array,
        baseline: Array,
        how: str = "mean",
        temperature: float = 1.0,
        maximum: float = 20.0,
    ) -> Array:
        """``[E, B]``, ``[E, B, N]`` -> ``[B]``."""

    @abstractmethod
    def policy_actions(
        self, params: Tree, s: Array, noise: Array, activation: str = "relu"
    ) -> Array:
        """``[*, o]``, ``[*, (N,) d]`` -> the shape of noise."""

    @abstractmethod
    def policy_loss(
        self,
        params: Tree,
        critic: Tree,
        s: Array,
        noise: Array,
        target: Array,
        distillation: float = 10.0,
        normalise: bool = False,
        activation: str = "relu",
        critic_activation: str = "relu",
    ) -> Array:
        """``[B, o]``, ``[B, d]``, ``[B, d]`` -> a scalar."""

    @abstractmethod
    def policy_gradient(
        self,
        params: Tree,
        critic: Tree,
        s: Array,
        noise: Array,
        target: Array,
        distillation: float = 10.0,
        normalise: bool = False,
        activation: str = "relu",
        critic_activation: str = "relu",
    ) -> tuple[Array, Tree]:
        """As policy_loss -> the loss and a tree like params."""

    # --- selection and optimiser ----------------------------------------------------------------

    @abstractmethod
    def select(
        self, a: Array, q: Array, u: Array, rule: str = "best", temperature: float = 1.0
    ) -> tuple[Array, Array]:
        """``[*, N, d]``, ``[*, N]``, ``[*]`` -> actions ``[*, d]`` and indices ``[*]``."""

    @abstractmethod
    def adam_init(self, params: Tree) -> Tree:
        """An array or a tree -> Adam's state: count, m, v."""

    @abstractmethod
    def adam_step(
        self,
        params: Tree,
        gradient: Tree,
        state: Tree,
        learning_rate: float,
        b1: float = 0.9,
        b2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> tuple[Tree, Tree]:
        """Trees of the same keys -> new params and state."""

    @abstractmethod
    def global_norm(self, tree: Tree) -> Array:
        """An array or a tree -> a scalar."""

    @abstractmethod
    def clip_by_global_norm(self, gradient: Tree, max_norm: float) -> Tree:
        """An array or a tree -> the same."""

    @abstractmethod
    def polyak(self, online: Tree, target: Tree, tau: float) -> Tree:
        """Two trees of the same keys -> the new target."""

    # --- text -----------------------------------------------------------------------------------

    @abstractmethod
    def sequence_phi(
        self,
        u: Array,
        g: Array,
        lengths: tuple[int, ...],
        kernel: str | None = "sequence",
        temperature: float | None = None,
        bandwidth: float | None = None,
    ) -> Array:
        """``[N, T, d]`` twice and N lengths -> ``[N, T, d]``."""

    @abstractmethod
    def rescale_sequences(
        self, v: Array, lengths: tuple[int, ...], like: Array | None = None
    ) -> Array:
        """``[N, T, d]`` and N lengths -> ``[N, T, d]``."""

    @abstractmethod
    def decoding_scores(
        self,
        u: Array,
        log_p: Array,
        embeddings: Array,
        original: Array,
        allowed: Array,
        decoding_weight: float = 0.2,
        decoding_top: int | None = 50,
    ) -> Array:
        """``[B, d]``, ``[B, V]``, ``[V, d]``, ``[B]``, ``[V]`` -> ``[B, V]``."""

    # --- the agent ------------------------------------------------------------------------------

    @abstractmethod
    def init_state(
        self, seed: int, observation_dim: int, action_dim: int, settings: Settings
    ) -> Tree:
        """A new agent, the same on every backend for the same seed."""

    @abstractmethod
    def update(
        self, state: Tree, batch: Tree, settings: Settings, noise: Tree | None = None
    ) -> tuple[Tree, Tree]:
        """One training update: a state and a batch -> the new state and metrics.

        Without `noise`, random numbers are drawn on the device, from the state's seed and step
        alone: the same on every run of this backend, not the same on another.
        """

    def updates(
        self, state: Tree, data: Tree, rows: Any, settings: Settings, gather: Gather = take
    ) -> tuple[Tree, dict[str, Array]]:
        """Training updates one after another, without coming back to Python where that pays.

        Args:
            state: of the agent.
            data: arrays to take batches from, on the device.
            rows: NumPy integers ``[U, B]``, U at least 1: which rows each update is made on.
            settings: of the agent.
            gather: takes a batch from the data, the same for NumPy, torch and JAX.

        Returns:
            What U calls of :meth:`update` on those batches would, the metrics of the last.
        """
        metrics: dict[str, Array] = {}
        for picked in self.asarray(np.asarray(rows)):
            state, metrics = self.update(state, gather(data, picked), settings)
        return state, metrics

    def updates_together(
        self, states: list[Tree], data: Tree, rows: Any, settings: Settings, gather: Gather = take
    ) -> list[tuple[Tree, dict[str, Array]]]:
        """:meth:`updates` of several agents, side by side where that pays.

        Args:
            states: S agents.
            rows: ``[S, U, B]``; the rest is as for :meth:`updates`.
        """
        return [
            self.updates(state, data, own, settings, gather)
            for state, own in zip(states, rows, strict=True)
        ]

    def free_memory(self) -> int | None:
        """Bytes free on a device with a memory of its own; None where that is the machine's."""
        return None

    @abstractmethod
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
        """States ``[B, o]`` -> actions ``[B, d]`` and what they were picked from."""

    def policy(self, state: Tree, settings: Settings) -> NumpyPolicy:
        """`act` for one agent, from NumPy to NumPy: what an environment asks at every step.

        The function takes states ``[B, o]``, a budget and the noise of `act`.
        """

        def policy(s: np.ndarray, budget: Budget, noise: Tree) -> tuple[np.ndarray, Tree]:
            given = self.asarray({"s": s, **noise})
            actions, info = self.act(state, given.pop("s"), budget, settings, noise=given)
            return np.asarray(self.to_numpy(actions)), self.to_numpy(info)

        return policy

    @abstractmethod
    def sample_reference(self, params: Tree, s: Array, noise: Array, settings: Settings) -> Array:
        """``[*, o]``, ``[*, N, d]`` -> ``[*, N, d]``."""

    @abstractmethod
    def propose(self, state: Tree, s: Array, noise: Array, settings: Settings) -> Array:
        """``[*, o]``, ``[*, N, d]`` -> ``[*, N, d]``: the method's particles before transport."""

    @abstractmethod
    def move(
        self,
        state: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        settings: Settings,
        trajectory: bool = False,
    ) -> Array:
        """``[*, o]``, ``[*, N, d]`` -> ``[*, N, d]`` or ``[L + 1, *, N, d]``."""

    @abstractmethod
    def draw_update_noise(
        self, seed: int, step: int, batch_size: int, action_dim: int, settings: Settings
    ) -> Tree:
        """The random numbers of one update, on the device: a pure function of seed and step."""

    @abstractmethod
    def draw_act_noise(
        self, seed: int, draw: int, batch_size: int, particles: int, action_dim: int
    ) -> Tree:
        """The random numbers of one `act`, on the device: a pure function of seed and draw."""

"""The JAX backend: every function compiled, the whole update in one piece; on the CPU or a GPU.

Gradients come from jax.grad, the optimiser from optax. The traps that separate JAX from the
specification are met where they occur: float64 has to be switched on (for the whole process; a
float32 backend switches it off again for its own calls, so that its results do not depend on it),
matrix products state their precision, and ReLU and clip say their gradients at ties.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..spec.baselines import VALUE_SCALE_MIN
from ..spec.kernel import SIGMA_SQUARED_MIN
from ..spec.networks import LAYER_NORM_EPSILON, hidden_layers
from ..spec.optimiser import tree_map
from ..spec.reference import LOG_STD_MAX, LOG_STD_MIN, TANH_EDGE
from ..spec.settings import ACTIVATIONS, CRITIC_LOSSES, SELECTION_RULES, Budget, Settings
from ..spec.shapes import check_shapes, check_states
from ..spec.update import ACT, TRAIN
from .base import Gather, NumpyPolicy, Tree, VectorField, take
from .composed import ComposedBackend, check_layer, check_times
from .errors import BackendError

Array = jax.Array
# A network's input, in parts that are set side by side; their leading axes broadcast.
Parts = tuple[Array, ...]

# On a CPU: as many rows as the activations of a few layers fit into a core's own cache.
CACHED_ROWS = 640
# One compiled program makes up to this many updates, and multiples of it.
UPDATES_TOGETHER = 64
# On a GPU, so many steps of a sampler or of a flow are compiled as one at the most.
STEPS_TOGETHER = 16
# At most so many cores take a share of the states of an update; the optimiser's work all do.
CORES = 4
STATES = "states"  # the axis that cores share
_Spec: Any = PartitionSpec
EVERYWHERE, BY_STATES = _Spec(), _Spec(None, STATES)  # how a tree and row numbers [U, B] lie
# Up to this many pairs of particles, counting finds the median faster than sorting.
COUNTED_PAIRS = 128

# jax.enable_x64 since jax 0.8, jax.experimental.enable_x64 before
_x64 = jax if hasattr(jax, "enable_x64") else jax.experimental
enable_x64: Any = _x64.enable_x64


class compiled:  # noqa: N801  (a decorator)
    """Compile a method with jax.jit, once for each backend object; name its static arguments."""

    def __init__(self, *static: str) -> None:
        self.static = static

    def __call__(self, method: Callable[..., Any]) -> compiled:
        self.method = method
        functools.update_wrapper(self, method)
        return self

    def __get__(self, backend: JaxBackend | None, owner: type) -> Any:
        if backend is None:
            return self.method
        if self not in backend.compilations:
            bound = functools.partial(self.method, backend)
            jitted = jax.jit(bound, static_argnames=self.static) if backend.jit else bound
            backend.compilations[self] = backend.in_own_precision(jitted)
        return backend.compilations[self]


class JaxBackend(ComposedBackend):
    """JAX. `jit=False` runs operation by operation, for debugging.

    `cores=2` has two cores of a CPU make many updates (`updates`) together, each with half of the
    states: what they share is then the gradient, once an update, and not every matrix product, for
    which cores with caches of their own have to wait. It sums in another order. It needs JAX not to
    be in use before, jax 0.6, a batch that divides, and settings in which states do not meet;
    where that is not so, one device does it all, as with `cores=1`.

    `transport` and `follow` with a function of yours are traced at every call; put jax.jit around
    a function that calls them to compile once.
    """

    name = "jax"

    def __init__(
        self,
        device: str,
        dtype: str | None,
        matmul_precision: str,
        jit: bool = True,
        cores: int = 1,
    ) -> None:
        cores = min(cores, CORES) if hasattr(jax, "shard_map") else 1
        _want_cpu_devices(cores)
        self.jax_device = _find_device(device)
        platform = self.jax_device.platform
        self.device = "cpu" if platform == "cpu" else f"gpu:{self.jax_device.id}"
        if matmul_precision == "tf32" and self.device == "cpu":
            raise BackendError(
                "matmul precision 'tf32' needs an NVIDIA GPU; "
                "use --matmul-precision float32 or bf16 on the CPU"
            )
        self.dtype = dtype or "float32"
        if self.dtype == "float64":
            # or JAX cuts float64 down to float32 in silence
            jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
        self.matmul_precision = matmul_precision
        self.jit = jit
        self.compilations: dict[compiled, Callable[..., Any]] = {}
        self.cores = _cpu_mesh(cores) if jit and self.device == "cpu" else None

    def in_own_precision(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function run on this backend's device, with float64 on or off as its dtype wants."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with enable_x64(self.dtype == "float64"), jax.default_device(self.jax_device):
                return function(*args, **kwargs)

        return run

    @staticmethod
    def forget_compilations() -> None:
        """Free what has been compiled: thousands of small programs exhaust a system's maps."""
        jax.clear_caches()  # type: ignore[no-untyped-call]

    # --- arrays ---------------------------------------------------------------------------------

    def asarray(self, tree: Tree) -> Tree:
        def convert(leaf: Any) -> Array:
            array = leaf if isinstance(leaf, Array) else np.array(leaf)
            if array.dtype.kind == "f":
                array = array.astype(self.dtype)
            return jax.device_put(array, self.jax_device)

        return self.in_own_precision(tree_map)(convert, tree)

    def to_numpy(self, tree: Tree) -> Tree:
        return tree_map(np.array, tree)

    def synchronise(self, tree: Tree) -> Tree:
        return jax.block_until_ready(tree)  # type: ignore[no-untyped-call]

    def free_memory(self) -> int | None:
        found = self.jax_device.memory_stats() or {}
        if "bytes_limit" not in found:
            return None
        return int(found["bytes_limit"]) - int(found["bytes_in_use"])

    @compiled()
    def stack(self, arrays: list[Array]) -> Array:
        return jnp.stack(arrays)

    # --- kernel and flow ------------------------------------------------------------------------

    @compiled()
    def squared_distances(self, x: Array, y: Array) -> Array:
        check_shapes("squared_distances", x=(x, "* N d"), y=(y, "* M d"))
        return jnp.sum(jnp.square(x[..., :, None, :] - y[..., None, :, :]), axis=-1)

    @compiled()
    def bandwidth_squared(self, a: Array) -> Array:
        n = check_shapes("bandwidth_squared", a=(a, "* N d"))["N"]
        median = _median_distance(self.squared_distances(a, a), n)
        return lax.stop_gradient(jnp.maximum(median / (2 * math.log(n + 1)), SIGMA_SQUARED_MIN))

    @compiled()
    def rbf_kernel(self, x: Array, y: Array, sigma_squared: Array) -> Array:
        check_shapes(
            "rbf_kernel", x=(x, "* N d"), y=(y, "* M d"), sigma_squared=(sigma_squared, "*")
        )
        return jnp.exp(-self.squared_distances(x, y) / (2 * sigma_squared[..., None, None]))

    @compiled()
    def repulsion(self, a: Array, sigma_squared: Array) -> Array:
        n = check_shapes("repulsion", a=(a, "* N d"), sigma_squared=(sigma_squared, "*"))["N"]
        k = self.rbf_kernel(a, a, sigma_squared)
        away = (a[..., :, None, :] - a[..., None, :, :]) / sigma_squared[..., None, None, None]
        return jnp.sum(k[..., None] * away, axis=-2) / n

    @compiled()
    def repulsion_through_bandwidth(self, a: Array) -> Array:
        n = check_shapes("repulsion_through_bandwidth", a=(a, "* N d"))["N"]

        # as the authors' code does it: automatic differentiation, the median included
        def total(moving: Array) -> Array:
            distances = self.squared_distances(moving, a)
            flat = distances.reshape(*distances.shape[:-2], n * n)
            order = jnp.argsort(lax.stop_gradient(flat), axis=-1, stable=True)
            ordered = jnp.take_along_axis(flat, order, axis=-1)
            median = (ordered[..., (n * n - 1) // 2] + ordered[..., n * n // 2]) / 2
            sigma_squared = jnp.maximum(median / (2 * math.log(n + 1)), SIGMA_SQUARED_MIN)
            return jnp.sum(jnp.exp(-distances / (2 * sigma_squared[..., None, None])))

        return -jax.grad(total)(a) / n

    def follow(
        self, velocity: VectorField, a: Array, budget: Budget, trajectory: bool = False
    ) -> Array:
        def step(carry: tuple[Array, Tree], _: None) -> tuple[tuple[Array, Tree], Any]:
            a, state = carry
            a, state = self.flow_step(a, velocity(a), state, budget)
            return (a, state), a if trajectory else ()

        def run(a: Array) -> Array:
            state = self.adam_init(a) if budget.optimiser == "adam" else None
            (last, _), path = lax.scan(
                step, (a, state), length=budget.steps, unroll=self._unrolled(budget.steps)
            )
            return jnp.concatenate([a[None], path]) if trajectory else last

        return self.in_own_precision(run)(a)

    @compiled("temperature", "bandwidth", "bandwidth_gradient")
    def phi(
        self,
        a: Array,
        g: Array,
        temperature: float | None = None,
        bandwidth: float | None = None,
        bandwidth_gradient: bool = False,
    ) -> Array:
        n = check_shapes("phi", a=(a, "* N d"), g=(g, "* N d"))["N"]
        if bandwidth is not None and bandwidth_gradient:
            raise ValueError("phi: bandwidth_gradient needs the median bandwidth; drop bandwidth")
        if bandwidth is None:
            sigma_squared = self.bandwidth_squared(a)
        else:
            sigma_squared = jnp.full(a.shape[:-2], bandwidth**2, a.dtype)
        k = self.rbf_kernel(a, a, sigma_squared)
        if temperature is None:
            return self.matmul(k, g) / n
        if bandwidth_gradient:
            entropy = self.repulsion_through_bandwidth(a)
        else:
            entropy = self.repulsion(a, sigma_squared)
        return self.matmul(k, g / temperature) / n + entropy

    @compiled("low", "high")
    def project(self, a: Array, low: float | None = -1.0, high: float | None = 1.0) -> Array:
        return jnp.clip(a, low, high)

    @compiled("max_norm", "scope")
    def clip_velocity(self, velocity: Array, max_norm: float, scope: str = "state") -> Array:
        check_shapes("clip_velocity", velocity=(velocity, "* N d"))
        if scope not in ("state", "batch"):
            raise ValueError(f"clip scope is {scope!r}; choose state or batch")
        axes = (-2, -1) if scope == "state" else None
        norm = jnp.sqrt(jnp.sum(jnp.square(velocity), axis=axes, keepdims=True))
        return velocity * (max_norm / jnp.maximum(norm, max_norm))

    @compiled("budget")
    def flow_step(
        self, a: Array, velocity: Array, state: Tree, budget: Budget
    ) -> tuple[Array, Tree]:
        check_shapes("flow_step", a=(a, "* N d"), velocity=(velocity, "* N d"))
        if budget.clip_norm is not None:
            velocity = self.clip_velocity(velocity, budget.clip_norm, budget.clip_scope)
        if budget.optimiser == "plain":
            moved = a + budget.step_size * velocity
        else:
            moved, state = self.adam_step(a, -velocity, state, budget.step_size)
        return self.project(moved, budget.low, budget.high), state

    # --- networks -------------------------------------------------------------------------------

    def matmul(self, x: Array, y: Array) -> Array:
        """A matrix product in the backend's precision."""
        if self.matmul_precision == "bf16":
            x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
            return jnp.matmul(x, y, preferred_element_type=jnp.float32)
        precision = lax.Precision.HIGH if self.matmul_precision == "tf32" else lax.Precision.HIGHEST
        return jnp.matmul(x, y, precision=precision)

    def _product(self, x: Array, kernel: Array) -> Array:
        """``[*, in] @ [in, out]``, out of a GPU's matrix units where they have little to do.

        With one input or one output it is a pass over memory, which XLA makes one of with what
        stands before and after; and seeds side by side (vmap) stay in order.
        """
        if self.device == "cpu" or 1 not in kernel.shape:
            return self.matmul(x, kernel)
        if self.matmul_precision == "bf16":
            x, kernel = (lax.reduce_precision(y, 8, 7) for y in (x, kernel))
        if kernel.shape[0] == 1:
            return x * kernel[0]
        return jnp.sum(x * kernel[:, 0], axis=-1, keepdims=True)

    @compiled("activation")
    def activate(self, x: Array, activation: str) -> Array:
        if activation == "relu":
            return jax.nn.relu(x)
        if activation == "gelu":
            return jax.nn.gelu(x, approximate=False)
        if activation == "gelu_tanh":
            return jax.nn.gelu(x, approximate=True)
        if activation == "swish":
            return jax.nn.swish(x)
        raise ValueError(f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}")

    @compiled()
    def layer_norm(self, x: Array, scale: Array, offset: Array) -> Array:
        check_shapes("layer_norm", x=(x, "* h"), scale=(scale, "h"), offset=(offset, "h"))
        return self._normalise(x - jnp.mean(x, axis=-1, keepdims=True)) * scale + offset

    def _normalise(self, centred: Array) -> Array:
        return _unit_variance(centred, self.device == "cpu")

    def _network(self, params: Tree, x: Array | Parts, activation: str) -> Array:
        """A network on ``[*, in]`` or parts of it; an ensemble's result has one more axis."""
        if params["output"]["kernel"].ndim == 2:
            return self._member(params, x, activation)
        members = functools.partial(self._member, x=x, activation=activation)
        if self.device != "cpu":
            return jax.vmap(members)(params)
        count = len(params["output"]["kernel"])
        return jnp.stack([members(tree_map(lambda p, e=e: p[e], params)) for e in range(count)])

    def _member(self, params: Tree, x: Array | Parts, activation: str) -> Array:
        parts = x if isinstance(x, tuple) else (x,)
        for name in [*hidden_layers(params), "output"]:
            layer = params[name]
            kernel, bias = layer["kernel"], layer["bias"]
            widths = [part.shape[-1] for part in parts]
            check_layer(name, widths, kernel, bias)
            if "norm_scale" in layer:
                # what LayerNorm does first, taking the features' mean away, done to the weights
                kernel = kernel - jnp.mean(kernel, axis=-1, keepdims=True)
                bias = bias - jnp.mean(bias)
            # what belongs to a state is multiplied once, and not once for each particle
            kernels = jnp.split(kernel, np.cumsum(widths)[:-1])
            y = bias + sum(map(self._product, parts, kernels))
            if "norm_scale" in layer:
                y = self._normalise(y) * layer["norm_scale"] + layer["norm_offset"]
            if name != "output":
                y = self.activate(y, activation)
            parts = (y,)
        return parts[0]

    @compiled("activation")
    def mlp(self, params: Tree, x: Array, activation: str = "relu") -> Array:
        return self._network(params, x, activation)

    @compiled("activation")
    def mlp_vjp(
        self, params: Tree, x: Array, cotangent: Array, activation: str = "relu"
    ) -> tuple[Tree, Array]:
        out = params["output"]["kernel"].shape[-1]
        check_shapes("mlp_vjp", x=(x, "M in"), cotangent=(cotangent, f"M {out}"))
        return self._network_vjp(params, x, cotangent, activation)

    @compiled("activation")
    def ensemble(self, params: Tree, x: Array, activation: str = "relu") -> Array:
        return self._network(params, x, activation)

    @compiled("activation")
    def ensemble_vjp(
        self, params: Tree, x: Array, cotangent: Array, activation: str = "relu"
    ) -> tuple[Tree, Array]:
        size, out = params["output"]["bias"].shape
        check_shapes("ensemble_vjp", x=(x, "M in"), cotangent=(cotangent, f"{size} M {out}"))
        return self._network_vjp(params, x, cotangent, activation)

    def _network_vjp(
        self, params: Tree, x: Array, cotangent: Array, activation: str
    ) -> tuple[Tree, Array]:
        networks = {name: params[name] for name in params if name != "log_std"}
        _, pullback = jax.vjp(lambda p, x: self._network(p, x, activation), networks, x)
        gradient, dx = pullback(cotangent)
        return gradient, dx

    # --- reference ------------------------------------------------------------------------------

    def _parts(self, s: Array, *others: Array) -> Parts:
        """A network's input: states, and what goes with each of them or with its particles."""
        check_states("network input", s, others[0])
        return (s if others[0].ndim == s.ndim else s[..., None, :], *others)

    def _unrolled(self, steps: int) -> int:
        """How many steps of a loop are compiled as one: a GPU waits between those that are not."""
        return 1 if self.device == "cpu" else min(max(steps, 1), STEPS_TOGETHER)

    def _by_states(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """A function of states ``[B, ...]`` and their particles ``[B, N, d]``, some at a time.

        On a CPU that keeps the activations in the caches. States do not affect each other.
        """
        *_, particles = arrays
        if self.device != "cpu" or particles.ndim != 3 or not len(particles):
            return function(*arrays)
        count = -(-particles.shape[0] * particles.shape[1] // CACHED_ROWS)
        size = -(-len(particles) // count)
        whole = len(particles) // size * size
        if whole == size == len(particles):
            return function(*arrays)
        chunks = [x[:whole].reshape(-1, size, *x.shape[1:]) for x in arrays]
        found = lax.map(lambda xs: function(*xs), chunks).reshape(whole, *particles.shape[1:])
        rest = [x[whole:] for x in arrays]
        return jnp.concatenate([found, function(*rest)]) if len(rest[-1]) else found

    @compiled("activation")
    def flow_velocity(
        self, params: Tree, s: Array, x: Array, t: Array, activation: str = "relu"
    ) -> Array:
        check_times(x, t)
        return self._network(params, self._parts(s, x, t), activation)

    @compiled("activation")
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
        check_shapes("flow_matching", s=(s, "B o"), a=(a, "B d"), x0=(x0, "B d"), t=(t, "B 1"))
        x_t = (1 - t) * x0 + t * a
        error = self.flow_velocity(params, s, x_t, t, activation) - (a - x0)
        return jnp.mean(_weighted(jnp.square(error), weight))

    @compiled("activation")
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
        return jax.value_and_grad(self.flow_matching_loss)(params, s, a, x0, t, activation, weight)

    @compiled("sampling_steps", "activation")
    def flow_sample(
        self, params: Tree, s: Array, x0: Array, sampling_steps: int = 10, activation: str = "relu"
    ) -> Array:
        check_shapes("flow_sample", x0=(x0, "* d"))

        def euler(x: Array, k: Array) -> tuple[Array, None]:
            t = (k / sampling_steps).astype(x.dtype).reshape((1,) * x.ndim)  # of all particles
            velocity = self.flow_velocity(params, s, x, t, activation)
            return x + velocity / sampling_steps, None

        steps = jnp.arange(sampling_steps)
        return self.project(lax.scan(euler, x0, steps, unroll=self._unrolled(sampling_steps))[0])

    @compiled("tanh", "activation")
    def gaussian_loss(
        self,
        params: Tree,
        s: Array,
        a: Array,
        tanh: bool = False,
        activation: str = "relu",
        weight: Array | None = None,
    ) -> Array:
        log_std = params["log_std"]
        check_shapes("gaussian", s=(s, "B o"), a=(a, "B d"), log_std=(log_std, "d"))
        bounded = _bounded_log_std(log_std)
        u = jnp.arctanh(jnp.clip(a, -TANH_EDGE, TANH_EDGE)) if tanh else a
        z = (u - self.mlp(params, s, activation)) * jnp.exp(-bounded)
        nll = jnp.square(z) / 2 + bounded + math.log(2 * math.pi) / 2
        if tanh:
            nll = nll + 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
        return jnp.mean(jnp.sum(_weighted(nll, weight), axis=-1))

    @compiled("tanh", "activation")
    def gaussian_gradient(
        self,
        params: Tree,
        s: Array,
        a: Array,
        tanh: bool = False,
        activation: str = "relu",
        weight: Array | None = None,
    ) -> tuple[Array, Tree]:
        return jax.value_and_grad(self.gaussian_loss)(params, s, a, tanh, activation, weight)

    @compiled("tanh", "activation")
    def gaussian_sample(
        self, params: Tree, s: Array, noise: Array, tanh: bool = False, activation: str = "relu"
    ) -> Array:
        check_states("gaussian_sample", s, noise)
        check_shapes("gaussian_sample", noise=(noise, "* d"), log_std=(params["log_std"], "d"))
        mean = self.mlp(params, s.reshape(-1, s.shape[-1]), activation)
        mean = mean.reshape(*s.shape[:-1], *(1,) * (noise.ndim - s.ndim), noise.shape[-1])
        u = mean + jnp.exp(jnp.clip(params["log_std"], LOG_STD_MIN, LOG_STD_MAX)) * noise
        return jnp.tanh(u) if tanh else self.project(u)

    # --- critic ---------------------------------------------------------------------------------

    @compiled("activation")
    def critic_values(self, params: Tree, s: Array, a: Array, activation: str = "relu") -> Array:
        return self._network(params, self._parts(s, a), activation)[..., 0]

    @compiled("how")
    def aggregate(self, q: Array, how: str) -> Array:
        if how == "mean":
            return jnp.mean(q, axis=0)
        if how == "min":
            return jnp.min(q, axis=0)  # shares the gradient evenly between ties
        raise ValueError(f"ensemble aggregation is {how!r}; choose mean or min")

    @compiled("how", "activation")
    def action_gradient(
        self, params: Tree, s: Array, a: Array, how: str = "mean", activation: str = "relu"
    ) -> Array:
        def total(a: Array) -> Array:
            return jnp.sum(self.aggregate(self.critic_values(params, s, a, activation), how))

        return jax.grad(total)(a)

    @compiled("discount", "how", "particles")
    def td_target(
        self,
        q: Array,
        r: Array,
        mask: Array,
        discount: float,
        how: str = "min",
        particles: str = "mean",
    ) -> Array:
        check_shapes("td_target", q=(q, "E B N"), r=(r, "B"), mask=(mask, "B"))
        if particles not in ("mean", "max"):
            raise ValueError(f"particle aggregation is {particles!r}; choose mean or max")
        value = self.aggregate(q, how)
        value = jnp.mean(value, axis=-1) if particles == "mean" else jnp.max(value, axis=-1)
        r, mask = r.astype(value.dtype), mask.astype(value.dtype)  # whole numbers and bools too
        return r + discount * mask * value

    @compiled("loss", "expectile")
    def critic_loss(
        self, q: Array, y: Array, loss: str = "squared", expectile: float = 0.9
    ) -> Array:
        check_shapes("critic_loss", q=(q, "E B"), y=(y, "B"))
        x = y - q
        if loss == "squared":
            value = jnp.square(x)
        elif loss == "expectile":
            value = jnp.where(x >= 0, expectile, 1 - expectile) * jnp.square(x)
        elif loss == "sparse":
            value = expectile * jnp.square(jax.nn.relu(x / (2 * expectile) + 1)) - x
        else:
            raise ValueError(f"critic_loss is {loss!r}; choose one of {', '.join(CRITIC_LOSSES)}")
        return jnp.mean(jnp.sum(value, axis=0))

    @compiled("loss", "expectile", "activation")
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
        check_shapes("critic_gradient", s=(s, "B o"), a=(a, "B d"), y=(y, "B"))

        def objective(params: Tree) -> Array:
            return self.critic_loss(
                self.critic_values(params, s, a, activation), y, loss, expectile
            )

        return jax.value_and_grad(objective)(params)

    @compiled("budget", "how", "activation", "trajectory")
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
        whole = super().critic_transport

        def move(s: Array, a: Array) -> Array:
            return whole(params, s, a, budget, how, activation, trajectory)

        return move(s, a) if _states_meet(budget, trajectory) else self._by_states(move, s, a)

    # --- amortised gradient ---------------------------------------------------------------------

    @compiled("activation")
    def gradient_field(self, params: Tree, s: Array, a: Array, activation: str = "relu") -> Array:
        return self._network(params, self._parts(s, a), activation)

    @compiled("normalise", "activation")
    def gradient_field_loss(
        self,
        params: Tree,
        s: Array,
        a: Array,
        g: Array,
        normalise: bool = False,
        activation: str = "relu",
    ) -> Array:
        check_shapes("gradient_field", s=(s, "B o"), a=(a, "B d"), g=(g, "B d"))
        if normalise:
            g = g / (jnp.sqrt(jnp.sum(jnp.square(g), axis=-1, keepdims=True)) + 1e-8)
        return jnp.mean(jnp.square(self.gradient_field(params, s, a, activation) - g))

    @compiled("normalise", "activation")
    def gradient_field_gradient(
        self,
        params: Tree,
        s: Array,
        a: Array,
        g: Array,
        normalise: bool = False,
        activation: str = "relu",
    ) -> tuple[Array, Tree]:
        return jax.value_and_grad(self.gradient_field_loss)(params, s, a, g, normalise, activation)

    @compiled("budget", "activation", "trajectory")
    def amortised_transport(
        self,
        params: Tree,
        s: Array,
        a: Array,
        budget: Budget,
        activation: str = "relu",
        trajectory: bool = False,
    ) -> Array:
        whole = super().amortised_transport

        def move(s: Array, a: Array) -> Array:
            return whole(params, s, a, budget, activation, trajectory)

        return move(s, a) if _states_meet(budget, trajectory) else self._by_states(move, s, a)

    # --- baselines ------------------------------------------------------------------------------

    @compiled("how", "temperature", "maximum")
    def advantage_weights(
        self,
        q: Array,
        baseline: Array,
        how: str = "mean",
        temperature: float = 1.0,
        maximum: float = 20.0,
    ) -> Array:
        check_shapes("advantage_weights", q=(q, "E B"), baseline=(baseline, "E B N"))
        advantage = self.aggregate(q, how) - jnp.mean(self.aggregate(baseline, how), axis=-1)
        return jnp.exp(jnp.minimum(advantage / temperature, math.log(maximum)))

    @compiled("activation")
    def policy_actions(
        self, params: Tree, s: Array, noise: Array, activation: str = "relu"
    ) -> Array:
        return self._network(params, self._parts(s, noise), activation)

    @compiled("distillation", "normalise", "activation", "critic_activation")
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
        check_shapes("policy", s=(s, "B o"), noise=(noise, "B d"), target=(target, "B d"))
        a = self.policy_actions(params, s, noise, activation)
        # jnp.clip would halve the gradient on the edge of the box
        clipped = jnp.where(jnp.abs(a) <= 1, a, lax.stop_gradient(jnp.clip(a, -1, 1)))
        q = self.aggregate(self.critic_values(critic, s, clipped, critic_activation), "mean")
        value = jnp.mean(q)
        if normalise:
            value = value / lax.stop_gradient(jnp.maximum(jnp.mean(jnp.abs(q)), VALUE_SCALE_MIN))
        return distillation * jnp.mean(jnp.square(a - target)) - value

    @compiled("distillation", "normalise", "activation", "critic_activation")
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
        return jax.value_and_grad(self.policy_loss)(
            params, critic, s, noise, target, distillation, normalise, activation, critic_activation
        )

    # --- selection and optimiser ----------------------------------------------------------------

    @compiled("rule", "temperature")
    def select(
        self, a: Array, q: Array, u: Array, rule: str = "best", temperature: float = 1.0
    ) -> tuple[Array, Array]:
        n = check_shapes("select", a=(a, "* N d"), q=(q, "* N"), u=(u, "*"))["N"]
        if rule == "best":
            index = jnp.argmax(q, axis=-1)
        elif rule == "softmax":
            logits = (q - jnp.max(q, axis=-1, keepdims=True)) / temperature
            below = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1) <= u[..., None]
            index = jnp.minimum(jnp.sum(below, axis=-1), n - 1)
        elif rule == "uniform":
            index = jnp.minimum(jnp.floor(u * n).astype(jnp.int32), n - 1)
        else:
            raise ValueError(f"selection is {rule!r}; choose one of {', '.join(SELECTION_RULES)}")
        return jnp.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :], index

    @compiled()
    def adam_init(self, params: Tree) -> Tree:
        state = optax.scale_by_adam().init(params)
        return {"count": state.count, "m": state.mu, "v": state.nu}

    @compiled("learning_rate", "b1", "b2", "epsilon")
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
        adam = optax.scale_by_adam(b1, b2, epsilon)
        before = optax.ScaleByAdamState(state["count"], state["m"], state["v"])
        direction, after = adam.update(gradient, before)
        new = tree_map(lambda p, u: p - learning_rate * u, params, direction)
        return new, {"count": after.count, "m": after.mu, "v": after.nu}

    @compiled()
    def global_norm(self, tree: Tree) -> Array:
        return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))

    @compiled("max_norm")
    def clip_by_global_norm(self, gradient: Tree, max_norm: float) -> Tree:
        clip = optax.clip_by_global_norm(max_norm)
        return clip.update(gradient, clip.init(gradient))[0]

    @compiled("tau")
    def polyak(self, online: Tree, target: Tree, tau: float) -> Tree:
        return tree_map(lambda p, q: tau * p + (1 - tau) * q, online, target)

    @compiled("decoding_weight", "decoding_top")
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
        check_shapes(
            "decoding_scores",
            u=(u, "B d"),
            log_p=(log_p, "B V"),
            embeddings=(embeddings, "V d"),
            original=(original, "B"),
            allowed=(allowed, "V"),
        )
        if decoding_top is not None and decoding_top < 1:
            raise ValueError(f"decoding_top is {decoding_top}; it must be 1 or more, or None")
        norms = jnp.sum(jnp.square(embeddings), axis=-1)
        score = (self.matmul(u, embeddings.T) - norms / 2) / jnp.mean(norms)
        score = score + decoding_weight * log_p
        likely = jnp.where(allowed, log_p, -jnp.inf)
        kept = likely.shape[-1] if decoding_top is None else min(decoding_top, likely.shape[-1])
        candidate = allowed & (likely >= lax.top_k(likely, kept)[0][:, -1:])
        candidate = candidate | (jnp.arange(likely.shape[-1]) == original[:, None])
        return jnp.where(candidate, score, -jnp.inf)

    # --- the agent ------------------------------------------------------------------------------

    @compiled("settings")
    def update(
        self, state: Tree, batch: Tree, settings: Settings, noise: Tree | None = None
    ) -> tuple[Tree, Tree]:
        return super().update(state, batch, settings, noise)

    def updates(
        self, state: Tree, data: Tree, rows: Any, settings: Settings, gather: Gather = take
    ) -> tuple[Tree, dict[str, Array]]:
        count, size = np.shape(rows)
        if self.cores is None or size % self.cores.size or _batch_meets(settings):
            return self._updates(state, data, _padded(rows), count, settings, gather)
        put = self.in_own_precision(jax.device_put)
        state, data = put((state, data), NamedSharding(self.cores, EVERYWHERE))
        rows = put(_padded(rows), NamedSharding(self.cores, BY_STATES))
        found = self._updates_on_cores(state, data, rows, count, settings, gather)
        return jax.tree.map(lambda x: x.addressable_data(0), found)

    def updates_together(
        self, states: list[Tree], data: Tree, rows: Any, settings: Settings, gather: Gather = take
    ) -> list[tuple[Tree, dict[str, Array]]]:
        if len(states) == 1:
            return super().updates_together(states, data, rows, settings, gather)
        count = np.shape(rows)[1]
        return self._updates_together(states, data, _padded(rows), count, settings, gather)

    @compiled("settings", "gather")
    def _updates_together(
        self,
        states: list[Tree],
        data: Tree,
        rows: Array,
        count: Array,
        settings: Settings,
        gather: Gather,
    ) -> list[tuple[Tree, dict[str, Array]]]:
        together = jax.tree.map(lambda *xs: jnp.stack(xs), *states)
        found = jax.vmap(
            lambda state, own: self._updates(state, data, own, count, settings, gather)
        )(together, rows)
        return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(states))]

    @compiled("settings", "gather")
    def _updates_on_cores(
        self, state: Tree, data: Tree, rows: Array, count: Array, settings: Settings, gather: Gather
    ) -> tuple[Tree, dict[str, Array]]:
        """As `_updates`, each core with its columns of the rows; see `_Share`."""
        assert self.cores is not None
        cores, size = self.cores.size, rows.shape[1]
        share = _Share.of(self)

        def own(noise: Array) -> Array:
            place = lax.axis_index(STATES) * (size // cores)
            return lax.dynamic_slice_in_dim(noise, place, size // cores)

        def one(state: Tree, batch: Tree) -> tuple[Tree, Tree]:
            d = batch["actions"].shape[-1]
            noise = self.draw_update_noise(state["seed"], state["step"], size, d, settings)
            return share.update_from_noise(state, batch, tree_map(own, noise), settings)

        loop: Any = jax.shard_map(
            lambda state, data, rows, count: _repeat(
                lambda i, state: one(state, gather(data, rows[i])), count, state
            ),
            mesh=self.cores,
            check_vma=False,
            out_specs=EVERYWHERE,
            in_specs=(EVERYWHERE, EVERYWHERE, BY_STATES, EVERYWHERE),
        )
        return loop(state, data, rows, count)

    @compiled("settings", "gather")
    def _updates(
        self, state: Tree, data: Tree, rows: Array, count: Array, settings: Settings, gather: Gather
    ) -> tuple[Tree, dict[str, Array]]:
        return _repeat(
            lambda i, state: self.update(state, gather(data, rows[i]), settings), count, state
        )

    @compiled("budget", "settings", "particles")
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
        return super().act(state, s, budget, settings, particles, noise, draw)

    def policy(self, state: Tree, settings: Settings) -> NumpyPolicy:
        # a compiled function takes NumPy arrays in less time than it takes to place them before
        def policy(s: np.ndarray, budget: Budget, noise: Tree) -> tuple[np.ndarray, Tree]:
            given = tree_map(lambda x: np.asarray(x, self.dtype), {"s": s, **noise})
            actions, info = self.act(state, given.pop("s"), budget, settings, noise=given)
            return np.asarray(actions), tree_map(np.asarray, info)

        return policy

    @compiled("batch_size", "action_dim", "settings")
    def draw_update_noise(
        self, seed: Any, step: Any, batch_size: int, action_dim: int, settings: Settings
    ) -> Tree:
        keys = jax.random.split(_key(seed, TRAIN, step), 3)
        shape = (batch_size, settings.particles, action_dim)
        noise = {"particles": jax.random.normal(keys[0], shape, self.dtype)}
        if settings.reference_kind == "flow":
            start = (batch_size, action_dim)
            noise["reference_start"] = jax.random.normal(keys[1], start, self.dtype)
            noise["reference_time"] = jax.random.uniform(keys[2], (batch_size, 1), self.dtype)
        more = jax.random.fold_in(_key(seed, TRAIN, step), len(keys))
        if settings.method == "weighted_bc":
            noise["baseline"] = jax.random.normal(more, shape, self.dtype)
        if settings.method == "fql":
            noise["policy"] = jax.random.normal(more, (batch_size, action_dim), self.dtype)
        return noise

    @compiled("batch_size", "particles", "action_dim")
    def draw_act_noise(
        self, seed: Any, draw: Any, batch_size: int, particles: int, action_dim: int
    ) -> Tree:
        keys = jax.random.split(_key(seed, ACT, draw))
        shape = (batch_size, particles, action_dim)
        return {
            "particles": jax.random.normal(keys[0], shape, self.dtype),
            "select": jax.random.uniform(keys[1], (batch_size,), self.dtype),
        }


class _Share(JaxBackend):
    """A backend that is given some states of a batch: gradients and metrics are those of all.

    Both are means over states, and all shares are of one size, so a mean over the cores it is.
    """

    @classmethod
    def of(cls, backend: JaxBackend) -> _Share:
        """The share of a backend, to be called within its shard_map."""
        share = cls.__new__(cls)
        share.__dict__ = {**backend.__dict__, "compilations": {}}
        return share

    def _fit_critic(self, *args: Any) -> tuple[Tree, dict[str, Array]]:
        return _mean_over_cores(super()._fit_critic(*args))

    def _fit_reference(self, *args: Any) -> tuple[Tree, dict[str, Array]]:
        return _mean_over_cores(super()._fit_reference(*args))

    def _fit_gradient_field(self, *args: Any) -> tuple[Tree, dict[str, Array]]:
        return _mean_over_cores(super()._fit_gradient_field(*args))

    def _fit_policy(self, *args: Any) -> tuple[Tree, dict[str, Array]]:
        return _mean_over_cores(super()._fit_policy(*args))


def _mean_over_cores(tree: Any) -> Any:
    return lax.pmean(tree, STATES)  # type: ignore[no-untyped-call]


def _repeat(
    one: Callable[[Array | int, Tree], tuple[Tree, Tree]], count: Array, state: Tree
) -> tuple[Tree, dict[str, Array]]:
    """`count` updates, ``one(i, state)``: the last state, and the last one's metrics."""
    shapes = jax.eval_shape(lambda state: one(0, state), state)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1])
    return lax.fori_loop(0, count, lambda i, carry: one(i, carry[0]), (state, nothing))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _unit_variance(centred: Array, by_product: bool) -> Array:
    """Rows of mean 0 to rows of variance 1; the last part of LayerNorm, with its gradient.

    The gradient is that of LayerNorm for rows that were centred before: what it lacks, the mean of
    the cotangent, the centring's own gradient takes away.
    """
    return _unit_variance_forward(centred, by_product)[0]


def _unit_variance_forward(centred: Array, by_product: bool) -> tuple[Array, Tree]:
    variance = _row_mean(jnp.square(centred), by_product)
    scale = lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return centred * scale, (centred * scale, scale)


def _unit_variance_backward(by_product: bool, kept: Tree, cotangent: Array) -> tuple[Array]:
    unit, scale = kept
    return (scale * (cotangent - unit * _row_mean(cotangent * unit, by_product)),)


_unit_variance.defvjp(_unit_variance_forward, _unit_variance_backward)


def _row_mean(x: Array, by_product: bool) -> Array:
    """The mean of every row, ``[*, h]`` -> ``[*, 1]``.

    As a matrix product where XLA's own sums are slow: on a CPU it does not vectorise them.
    """
    if not by_product:
        return jnp.mean(x, axis=-1, keepdims=True)
    ones = jnp.full((x.shape[-1], 1), 1 / x.shape[-1], x.dtype)
    return jnp.matmul(x, ones, precision=lax.Precision.HIGHEST)


def _median_distance(distances: Array, n: int) -> Array:
    """The median of ``[*, N, N]`` squared distances of N particles from each other -> ``[*]``.

    In order they are N zeros, the diagonal, and then each pair's distance twice.
    """
    rows, columns = np.triu_indices(n, 1)
    pairs = distances[..., rows, columns]
    if len(rows) > COUNTED_PAIRS:
        ordered = jnp.sort(pairs, axis=-1)
    else:
        one, other = pairs[..., :, None], pairs[..., None, :]
        first = np.tri(len(rows), k=-1, dtype=bool)  # of two that tie
        rank = jnp.sum((other < one) | ((other == one) & first), axis=-1)

    def at(place: int) -> Array:
        if place < n:
            return jnp.zeros_like(distances[..., 0, 0])
        if len(rows) > COUNTED_PAIRS:
            return ordered[..., (place - n) // 2]
        return jnp.sum(jnp.where(rank == (place - n) // 2, pairs, 0), axis=-1)

    return (at((n * n - 1) // 2) + at(n * n // 2)) / 2


def _states_meet(budget: Budget, trajectory: bool) -> bool:
    """Whether a transport has to see all states at once."""
    return trajectory or (budget.clip_norm is not None and budget.clip_scope == "batch")


def _batch_meets(settings: Settings) -> bool:
    """Whether an update has to see all states of its batch at once, but for means over them."""
    return _states_meet(settings.budget, trajectory=False) or settings.normalise_values


def _padded(rows: Any) -> Any:
    """Row numbers ``[*, U, B]``, U a multiple, so that one program serves every number of them."""
    rows = np.asarray(rows)
    padding = -rows.shape[-2] % UPDATES_TOGETHER
    return np.pad(rows, [(0, 0)] * (rows.ndim - 2) + [(0, padding), (0, 0)])


def _key(seed: Any, purpose: int, index: Any) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), index)


def _weighted(rows: Array, weight: Array | None) -> Array:
    """The terms of a loss ``[B, d]`` times the weights of their rows, if there are any."""
    if weight is None:
        return rows
    check_shapes("weights", rows=(rows, "B d"), weight=(weight, "B"))
    return rows * weight[:, None]


def _bounded_log_std(log_std: Array) -> Array:
    """log_std clipped to [-5, 2]; the gradient passes on the closed interval."""
    inside = (log_std >= LOG_STD_MIN) & (log_std <= LOG_STD_MAX)
    clipped = lax.stop_gradient(jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
    return jnp.where(inside, log_std, clipped)


def _want_cpu_devices(cores: int) -> None:
    """Have JAX see so many CPU devices, where it can still be told."""
    if cores > 1:
        try:
            jax.config.update("jax_num_cpu_devices", cores)  # type: ignore[no-untyped-call]
        except RuntimeError:
            return  # it is in use already, with the devices it has


def _cpu_mesh(cores: int) -> Mesh | None:
    """So many CPU devices side by side; None where there is one, or are fewer."""
    devices = jax.devices("cpu")
    if cores < 2 or len(devices) < cores:
        return None
    return Mesh(np.array(devices[:cores]), (STATES,))


def _find_device(device: str) -> Any:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return jax.devices("cpu")[0]
    try:
        gpus = jax.devices("gpu")
    except RuntimeError:
        gpus = []
    if kind == "auto":
        return gpus[0] if gpus else jax.devices("cpu")[0]
    if int(index or 0) >= len(gpus):
        raise BackendError(
            f"device {device!r} was asked for, but jax {jax.__version__} sees "
            f"{len(gpus) or 'no'} GPU{'s' if len(gpus) > 1 else ''}; use --device cpu, "
            "or install the CUDA build: pip install 'jax[cuda12]'"
        )
    return gpus[int(index or 0)]

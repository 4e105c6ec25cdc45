"""Where JAX computes and how precisely; arrays; compiled methods.

float64 has to be switched on in JAX, for the whole process; a float32 backend switches it off again
for its own calls, so that its results do not depend on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ...equations import Equation
from ...spec.optimiser import tree_map
from ..base import Tree
from ..composed import ComposedBackend
from ..errors import BackendError

Array = jax.Array

# At most this many cores share agents side by side, or the states of an update, in which each does
# all of the optimiser's work.
CORES = 4
STATES = "states"  # the axis that cores share

# jax.enable_x64 since jax 0.8, jax.experimental.enable_x64 before
_x64 = jax if hasattr(jax, "enable_x64") else jax.experimental
enable_x64: Any = _x64.enable_x64

# The compiled functions of every backend of this package's own class, by its options.
_programs: dict[Any, Callable[..., Any]] = {}


class compiled:  # noqa: N801  (a decorator)
    """Compile a method with jax.jit, once for all backends of the same options.

    A class derived from a backend may depend on more than options, so each of its objects has
    its own.

    Args:
        static: the names of its arguments that are not arrays.
    """

    def __init__(self, *static: str) -> None:
        self.static = static

    def __call__(self, method: Callable[..., Any]) -> compiled:
        self.method = method
        functools.update_wrapper(self, method)
        return self

    def __get__(self, backend: JaxDevice | None, owner: type) -> Any:
        if backend is None:
            return self.method
        programs, key = backend.programs()
        if (self, key) not in programs:
            bound = functools.partial(self.method, backend)
            jitted = jax.jit(bound, static_argnames=self.static) if backend.jit else bound
            programs[self, key] = backend.in_own_precision(jitted)
            programs[self, key].__doc__ = self.method.__doc__
        return programs[self, key]


class JaxDevice(ComposedBackend):
    """A device, dtype and precision of JAX, and arrays on it."""

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
            # or JAX silently cuts float64 down to float32
            jax.config.update("jax_enable_x64", True)
        self.matmul_precision = matmul_precision
        self.jit = jit
        self.compilations: dict[Any, Callable[..., Any]] = {}
        self.sharing = False  # whether this is one core's share of a backend
        self.cores = _cpu_mesh(cores) if jit and self.device == "cpu" else None

    @classmethod
    def prepared(cls, equation: Equation[Any], method: FunctionType) -> Any:
        return method if equation.takes_function else compiled(*equation.settings)(method)

    def programs(self) -> tuple[dict[Any, Callable[..., Any]], Any]:
        """Where this backend's compiled methods are kept, and the key added to theirs."""
        if not type(self).__module__.startswith(__package__) or self.sharing:
            return self.compilations, None
        cores = self.cores and self.cores.size
        options = (self.jax_device, self.dtype, self.matmul_precision, self.jit, cores)
        return _programs, (type(self), *options)

    def in_own_precision(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function run on this backend's device, with float64 on or off as its dtype needs."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with enable_x64(self.dtype == "float64"), jax.default_device(self.jax_device):
                return function(*args, **kwargs)

        return run

    @staticmethod
    def forget_compilations() -> None:
        """Free what has been compiled: thousands of small programs exhaust a system's maps."""
        jax.clear_caches()

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
        return jax.block_until_ready(tree)

    def free_memory(self) -> int | None:
        found = self.jax_device.memory_stats() or {}
        if "bytes_limit" not in found:
            return None
        return int(found["bytes_limit"]) - int(found["bytes_in_use"])

    @compiled()
    def stack(self, arrays: list[Array]) -> Array:
        return jnp.stack(arrays)

    def full(self, shape: tuple[int, ...], value: float, like: Array) -> Array:
        return jnp.full(shape, value, like.dtype)

    @property
    def xp(self) -> Any:
        return jnp

    def constant(self, x: Array) -> Array:
        return lax.stop_gradient(x)

    def clip(self, x: Array, low: float, high: float) -> Array:
        # jnp.clip would halve the gradient on the edge
        clipped = lax.stop_gradient(jnp.clip(x, low, high))
        return jnp.where((x >= low) & (x <= high), x, clipped)

    def value_and_gradient(self, loss: Callable[[Tree], Array], params: Tree) -> tuple[Array, Tree]:
        return jax.value_and_grad(loss)(params)


def _want_cpu_devices(cores: int) -> None:
    """Make JAX show this many CPU devices, if it can still be told to."""
    if cores > 1:
        try:
            jax.config.update("jax_num_cpu_devices", cores)
        except RuntimeError:
            return  # already in use, with the devices it has


def _cpu_mesh(cores: int) -> Mesh | None:
    """This many CPU devices side by side; None for one, or if there are fewer."""
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
            f"device {device!r} was requested, but jax {jax.__version__} sees "
            f"{len(gpus) or 'no'} GPU{'s' if len(gpus) > 1 else ''}; use --device cpu, "
            "or install the CUDA build: pip install 'jax[cuda12]'"
        )
    return gpus[int(index or 0)]

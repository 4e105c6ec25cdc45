"""The specification itself, behind the interface of the backends."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import spec
from ..equations import EQUATIONS
from ..spec.parts import CriticLoss, Kernel, find_kernel, lacks
from ..spec.registry import find
from .base import Array, Backend, Tree
from .errors import BackendError
from .rebinding import rebound_specification


class Lent:
    """A function of the specification as a method of the backend; an override's `super()` too."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, backend: NumpyBackend | None, owner: type) -> Any:
        lent = vars(spec) if backend is None else backend.lent
        return lent[self.name]


class NumpyBackend(Backend):
    """NumPy: the specification, in float64 or float32, on the CPU.

    The functions of the specification call each other and not a backend. Where a subclass overrides
    some, they are rebuilt over a table of names that holds the overrides. A function whose gradient
    is derived by hand beside it cannot be overridden alone.
    """

    # any other function would keep the old one's gradient
    hand_derived = frozenset(
        {"activate", "layer_norm", "mlp", "ensemble", "flow_velocity", "critic_values", "aggregate"}
        | {"gradient_field", "policy_actions"}
        | {name for name in EQUATIONS if name.endswith("_loss")}
    )

    name = "numpy"
    device = "cpu"
    xp = np

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in sorted(cls.hand_derived & vars(cls).keys()):
            raise TypeError(
                f"{cls.__name__}.{name} would not be called: NumPy's gradients are derived by hand "
                "from the specification's own; override the gradient, or use torch or jax"
            )

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
        own = {
            name: getattr(self, name)
            for name in set(EQUATIONS) - _IN_ITS_DTYPE
            if getattr(type(self), name) is not getattr(NumpyBackend, name)
        }
        self._functions, self.lent = rebound_specification(own) if own else (vars(spec), vars(spec))

    def check_method(self, settings: spec.Settings) -> None:
        spec.specification(settings)
        budget, loss = settings.budget, settings.critic_loss
        if ":" in (budget.kernel or "") and budget.temperature is not None:
            kernel = find_kernel(str(budget.kernel))
            if type(kernel).gradient is Kernel.gradient:
                raise ValueError(lacks(kernel, "gradient(x, y, sigma_squared)"))
        if ":" in loss:
            own = find(CriticLoss, loss, "critic_loss")
            if type(own).derivative is CriticLoss.derivative:
                raise ValueError(lacks(own, "derivative(q, y, expectile)"))

    def asarray(self, tree: Tree) -> Tree:
        def convert(leaf: Any) -> Array:
            array = np.array(leaf)
            return array.astype(self.dtype) if array.dtype.kind == "f" else array

        return spec.tree_map(convert, tree)

    def to_numpy(self, tree: Tree) -> Tree:
        return spec.tree_map(np.array, tree)

    def synchronise(self, tree: Tree) -> Tree:
        return tree

    # agents are initialised, and their noise drawn, in this backend's dtype

    def init_state(self, seed, observation_dim, action_dim, settings):
        return self.asarray(spec.init_state(seed, observation_dim, action_dim, settings))

    def draw_update_noise(self, seed, step, batch_size, action_dim, settings):
        return self.asarray(
            spec.draw_update_noise(int(seed), int(step), batch_size, action_dim, settings)
        )

    def draw_act_noise(self, seed, draw, batch_size, particles, action_dim):
        return self.asarray(spec.draw_act_noise(int(seed), draw, batch_size, particles, action_dim))

    def update(self, state, batch, settings, noise):
        if noise is None:
            b, d = spec.check_batch(batch)["B"], batch["actions"].shape[1]
            noise = self.draw_update_noise(state["seed"], state["step"], b, d, settings)
        return self._functions["update"](state, batch, settings, noise)

    def act(self, state, s, budget, settings, particles, noise, draw):
        if noise is None:
            n = settings.particles if particles is None else particles
            d = settings.declared.action_dim(state)
            noise = self.draw_act_noise(state["seed"], draw, len(s), n, d)
        return self._functions["act"](state, s, budget, settings, noise=noise)


_IN_ITS_DTYPE = {"init_state", "draw_update_noise", "draw_act_noise", "update", "act"}
for _name in set(EQUATIONS) - _IN_ITS_DTYPE:
    setattr(NumpyBackend, _name, Lent(_name))

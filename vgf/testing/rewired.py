"""The specification with variants planted in it, one into the other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from ..backends.numpy import Lent, NumpyBackend
from ..backends.rebinding import rebound, rebound_specification, specification_names
from ..equations import EQUATIONS
from ..spec.methods import Specification
from ..spec.registry import Declared, find, names
from ..spec.settings import Budget
from .compare import MACHINE_EPSILON, perturb


@functools.cache
def reached_from(name: str) -> frozenset[str]:
    """The functions and constants of the specification that a function depends on, itself too."""
    every = specification_names()
    found, left = {name}, [name]
    while left:
        now = left.pop()
        value = every.get(now)
        functions = _of_methods() if now == "specification" else [value]
        codes = [f.__code__ for f in functions if isinstance(f, FunctionType)]
        for code in codes:  # functions inside functions
            codes += [c for c in code.co_consts if isinstance(c, CodeType)]
        new = {n for code in codes for n in code.co_names if n in every} - found
        found |= new
        left += new
    return frozenset(found | {seam for seam, inside in _INSIDE.items() if inside in found})


def _of_methods() -> list[FunctionType]:
    """The functions of every method's specification."""
    classes = [type(find(Declared, name, "method")) for name in names(Declared)]
    return [
        value
        for cls in classes
        if issubclass(cls, Specification)
        for base in cls.__mro__
        for value in vars(base).values()
        if isinstance(value, FunctionType)
    ]


# Names under which variants replace a part of a function, and the function.
_INSIDE = {
    "_network": "mlp",
    "_normalise": "layer_norm",
    "_statistic": "bandwidth_squared",
    "_factor": "bandwidth_squared",
    "update_from_noise": "update",
}


class Rewired(NumpyBackend):
    """The specification with variants planted in it, one into the other.

    Args:
        variants: in the order in which they are planted; a later one finds the earlier ones' work
            under the name of the original.
        rounding: the dtype whose rounding errors are put into the flow, with a seed; see
            `vgf.testing.equations.Jittered`.
    """

    def __init__(self, variants: Sequence[Any] = (), rounding: tuple[str, int] | None = None):
        super().__init__("cpu", "float64", "float32")
        self._names = names = rebound_specification({})[0]
        whole = names["update"]
        names["update_from_noise"] = lambda state, batch, noise, settings: whole(
            state, batch, settings, noise
        )
        for variant in variants:
            if variant.method in _SEAMS:
                _SEAMS[variant.method](names)
        # the repulsion last: the differentiated one is made of all the others' work
        for variant in sorted(variants, key=lambda v: v.method == "repulsion"):
            original = names[variant.method]
            if variant.method == "repulsion" and isinstance(original, FunctionType):
                # the differentiated one is built on the right one
                through = specification_names()["repulsion_through_bandwidth"]
                names["repulsion_through_bandwidth"] = rebound(through, dict(names))
            if callable(original):
                names[variant.method] = partial(variant.replacement, self, original)
            else:
                names[variant.method] = variant.replacement(self, original)
        self._count = [0]
        if rounding is not None:
            self._count[0] = rounding[1]
            names["flow_step"] = _jittered(names["flow_step"], rounding[0], self._count)

    def seeded(self, seed: int) -> Rewired:
        """The same, its rounding errors as if it were new with this seed."""
        self._count[0] = seed
        return self

    def __getattribute__(self, name: str) -> Any:
        if name in _LENT:
            return self._names[name]
        return super().__getattribute__(name)

    @contextmanager
    def replaced(self, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
        """One more function replaced for a while: replacement(original, *args)."""
        original = self._names[name]
        self._names[name] = partial(replacement, original)
        try:
            yield
        finally:
            self._names[name] = original

    def matmul(self, x: Any, y: Any) -> Any:
        return x @ y

    def update(self, state: Any, batch: Any, settings: Any, noise: Any = None) -> Any:
        if noise is None:
            return super().update(state, batch, settings, None)  # type: ignore[no-untyped-call]
        return self._names["update_from_noise"](state, batch, noise, settings)

    def act(
        self,
        state: Any,
        s: Any,
        budget: Any,
        settings: Any,
        particles: Any = None,
        noise: Any = None,
        draw: int = 0,
    ) -> Any:
        return self._names["act"](state, s, budget, settings, particles, noise, draw)


# What the interface lends from the specification, and what variants reach for.
_LENT = {name for name in EQUATIONS if isinstance(vars(NumpyBackend)[name], Lent)} | {
    "_normalise",
    "_network",
    "selection_probabilities",
    "normalise_rows",
    "layer_norm_vjp",
    "critic_loss_derivative",
    "activate_derivative",
    "mmd_squared",
    "wasserstein2",
}


def _own_network(names: dict[str, Any]) -> None:
    """Let variants take the place of the network's forward pass under the backends' name for it."""
    _own_normalise(names)
    if "_network" not in names:
        names["_network"] = names["mlp"]
        names["mlp"] = lambda params, x, activation="relu": names["_network"](params, x, activation)


def _own_normalise(names: dict[str, Any]) -> None:
    """Let variants take the place of LayerNorm's normalisation, and of that in its gradient."""
    if "_normalise" in names:
        return
    epsilon = names["LAYER_NORM_EPSILON"]

    def normalise(x: Any) -> Any:
        centred = x - np.mean(x, axis=-1, keepdims=True)
        return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + epsilon)

    names["_normalise"] = normalise
    names["layer_norm"] = lambda x, scale, offset: scale * names["_normalise"](x) + offset


def _own_bandwidth(names: dict[str, Any]) -> None:
    """Let variants take the place of the median of the squared distances, and of its factor."""
    if "_statistic" in names:
        return
    names["_statistic"] = lambda distances, n: np.median(distances, axis=-1)
    names["_factor"] = lambda n, d: 1 / (2 * math.log(n + 1))

    def bandwidth_squared(a: Any) -> Any:
        n, d = a.shape[-2:]
        distances = names["squared_distances"](a, a).reshape(*a.shape[:-2], n * n)
        width = names["_factor"](n, d) * names["_statistic"](distances, n)
        return np.maximum(width, names["SIGMA_SQUARED_MIN"])

    names["bandwidth_squared"] = bandwidth_squared


_SEAMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "_statistic": _own_bandwidth,
    "_factor": _own_bandwidth,
    "_network": _own_network,
    "_normalise": _own_normalise,
}


def _jittered(step: Callable[..., Any], dtype: str, count: list[int]) -> Callable[..., Any]:
    """A flow step with rounding errors of a dtype in its velocity and its result."""
    u = MACHINE_EPSILON[dtype]

    def rough(a: Any, velocity: Any, state: Any, budget: Budget) -> Any:
        count[0] += 1
        size = float(np.max(np.abs(velocity), initial=0.0))
        moved, state = step(a, perturb(velocity, u, count[0], unit=size or 1.0), state, budget)
        if count[0] % 2 and dtype == "float32":
            return moved.astype(np.float32).astype(np.float64), state
        return perturb(moved, u, count[0], unit=1.0), state

    return rough

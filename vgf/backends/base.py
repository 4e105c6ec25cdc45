"""The interface that every backend has.

A backend is an object whose methods are pure functions on its own arrays: nothing is changed in
place, and the results depend on the arguments alone. The equations are listed in
vgf/equations.py; parameter trees have the same keys on every backend, so that any backend can
run what another has trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from ..equations import EQUATIONS, Equation, Equations
from ..methods import find_method
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


class Backend(Equations):
    """The equations of :class:`vgf.equations.Equations`, arrays, and series of updates.

    An equation that a subclass overrides is the one that all others call, in `update` and `act`
    too; its parameters have the specification's names. Leading axes hold states, which must not
    affect each other: they may be computed in portions.

    Attributes:
        name: "numpy", "torch" or "jax".
        device: where arrays live: "cpu" or "gpu:0", "gpu:1", ...
        dtype: "float32" or "float64".
        matmul_precision: of matrix products: "float32" (full: as precise as the dtype), "tf32" or
            "bf16" (operands rounded to bfloat16, and in torch the result too; sums in float32).
        rounds_by_place: whether the last bits of what an agent becomes depend on its place among
            those computed side by side, and on their number.
        compiles_first: whether the next update will be compiled first, for tens of seconds.
    """

    name: str
    device: str
    dtype: str
    matmul_precision: str
    rounds_by_place: bool = False
    compiles_first: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            method = inspect.unwrap(value) if callable(value) else value
            if name not in EQUATIONS or not isinstance(method, FunctionType):
                continue
            EQUATIONS[name].adopt(cls, method)
            value.__doc__ = method.__doc__
            if isinstance(value, FunctionType):
                setattr(cls, name, cls.prepared(EQUATIONS[name], value))

    @classmethod
    def prepared(cls, equation: Equation[Any], method: FunctionType) -> Any:
        """A method that computes an equation, prepared for this kind of backend."""
        return method

    def check_method(self, settings: Settings) -> None:
        """Check that this backend can run a method.

        Raises:
            ValueError: it cannot; the message names the way out.
        """
        find_method(settings.method)

    # --- arrays ---------------------------------------------------------------------------------

    def asarray(self, tree: Tree) -> Tree:
        """Copy arrays, numbers or nested dicts of them to the device, floats to the dtype."""
        raise NotImplementedError

    def to_numpy(self, tree: Tree) -> Tree:
        """Copy arrays or nested dicts of them to NumPy."""
        raise NotImplementedError

    def synchronise(self, tree: Tree) -> Tree:
        """Wait until arrays have been computed, and return them (for timing)."""
        raise NotImplementedError

    # --- many updates ---------------------------------------------------------------------------

    def updates(
        self, state: Tree, data: Tree, rows: Any, settings: Settings, gather: Gather = take
    ) -> tuple[Tree, dict[str, Array]]:
        """Training updates one after another, without returning to Python where that is faster.

        Args:
            state: of the agent.
            data: arrays to take batches from, on the device.
            rows: NumPy integers ``[U, B]``, U at least 1: which rows each update is made on.
            settings: of the agent.
            gather: takes a batch from the data, the same for NumPy, torch and JAX.

        Returns:
            What U calls of :meth:`update` on those batches would, with the metrics of the last.
        """
        metrics: dict[str, Array] = {}
        for picked in self.asarray(np.asarray(rows)):
            state, metrics = self.update(state, gather(data, picked), settings)
        return state, metrics

    def updates_together(
        self,
        states: list[Tree | None],
        data: Tree,
        rows: Any,
        settings: Settings,
        gather: Gather = take,
    ) -> list[tuple[Tree, dict[str, Array]] | None]:
        """:meth:`updates` of several agents, side by side where that is faster.

        Args:
            states: S agents; None is a place without one. What an agent becomes depends on its
                place, on S and on the machine's cores, and not on the others, to the last bit.
            rows: ``[S, U, B]``; the rest is as for :meth:`updates`.
        """
        return [
            None if state is None else self.updates(state, data, own, settings, gather)
            for state, own in zip(states, rows, strict=True)
        ]

    def free_memory(self) -> int | None:
        """Bytes free on a device with its own memory; None where it uses the machine's."""
        return None

    def policy(self, state: Tree, settings: Settings) -> NumpyPolicy:
        """`act` for one agent, from NumPy to NumPy: what an environment needs at every step.

        The function takes states ``[B, o]``, a budget and the noise of `act`.
        """

        def policy(s: np.ndarray, budget: Budget, noise: Tree) -> tuple[np.ndarray, Tree]:
            given = self.asarray({"s": s, **noise})
            actions, info = self.act(state, given.pop("s"), budget, settings, noise=given)
            return np.asarray(self.to_numpy(actions)), self.to_numpy(info)

        return policy

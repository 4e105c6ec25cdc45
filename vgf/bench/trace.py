"""What an update is made of: the equations that its method calls, and the matrix products in each.

Torch and JAX run a method from one text, written against their equations (vgf/methods). Here that
text runs against equations that compute nothing: they note that they are called, and which products
they cannot do without. So a method of a user's own is counted as ours are.
"""

# The parameters of an equation are typed in vgf/equations.py, once for every backend.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,override"

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import spec
from ..backends.base import Array, Tree
from ..backends.composed import ComposedBackend
from ..equations import EQUATIONS, Equation
from ..support.errors import VGFError
from ..support.objects import short_error
from .work import Work


class UnknownLimitError(VGFError):
    """A method whose matrix products cannot be counted."""


class Product(NamedTuple):
    """`times` matrix products ``[m, k] @ [k, n]``."""

    m: int
    k: int
    n: int
    times: int = 1

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n * self.times

    @property
    def numbers(self) -> int:
        """Numbers read and written, if each product reads both factors and writes its result."""
        return (self.m * self.k + self.k * self.n + self.m * self.n) * self.times


# The parts of an update that are not named as their equations are.
_NAMES = {
    "action_gradient": "score",
    "gradient_field": "field",
    "phi": "kernel",
    "flow_step": "particle step",
    "critic_values": "target",
    "td_target": "target",
    "flow_matching_gradient": "reference gradient",
    "gaussian_gradient": "reference gradient",
    "gradient_field_gradient": "field gradient",
    "value_and_gradient": "own gradient",
    "clip_by_global_norm": "optimiser",
    "adam_step": "optimiser",
    "polyak": "target network",
}
# Not parts: made of parts, or called outside an update.
_UNNOTED = {
    "update",
    "act",
    "move",
    "transport",
    "critic_transport",
    "amortised_transport",
    "follow",
    "adam_init",
    "init_state",
    "draw_update_noise",
    "draw_act_noise",
}


@dataclass
class Call:
    """A call of an equation, and the products in it.

    Args:
        equation: its name.
        arguments: in order; arrays are NumPy's, those that an equation returned made up.
        named: arguments given by name.
        products: those it cannot do without.
    """

    equation: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    products: list[Product] = field(default_factory=list)

    @property
    def repeatable(self) -> bool:
        """Whether it can be called again elsewhere: no function is among its arguments."""
        return self.equation in EQUATIONS

    @property
    def part(self) -> str:
        """The part of an update that it belongs to."""
        return _NAMES.get(self.equation, self.equation.replace("_", " "))


def trace_update(work: Work) -> list[Call]:
    """The equations that one update of one agent calls, in order.

    Raises:
        UnknownLimitError: the method does not run without torch or JAX.
    """
    settings, b = work.settings(), work.batch_size
    batch = replace(work, transitions=b).dataset()
    noise = spec.draw_update_noise(0, 0, b, work.action_dim, settings)
    return _trace(work, lambda eq, state: eq.update(state, batch, settings, noise))


def trace_decision(work: Work) -> list[Call]:
    """The equations that one decision calls, for one state; the batch's size does not count.

    Raises:
        UnknownLimitError: as :func:`trace_update`.
    """
    settings = work.settings()
    s = np.ones((1, work.observation_dim))
    noise = spec.draw_act_noise(0, 0, 1, work.particles, work.action_dim)
    return _trace(work, lambda eq, state: eq.act(state, s, settings.budget, settings, noise=noise))


def _trace(work: Work, run: Callable[[Any, Tree], Any]) -> list[Call]:
    tracer = Tracer()
    state = spec.init_state(0, work.observation_dim, work.action_dim, work.settings())
    try:
        with np.errstate(all="ignore"):
            run(tracer, state)
    except Exception as error:
        raise UnknownLimitError(
            f"no limit is known for method {work.method}: its products cannot be counted, as it "
            f"does not run on NumPy arrays: {short_error(error)}"
        ) from error
    return tracer.calls


class _Varying(np.ndarray):
    """An array that depends on what a gradient is taken of."""


class Tracer(ComposedBackend):
    """Equations that note calls and products. What they return has the right shape, no more.

    Those without products are the specification's.

    The products are those of a method, not of a program: what one and the same product gives is
    counted once. The state's part of the first layer is counted once for each state, not for each
    particle or step, except where a network is fitted or given an input that the method has put
    together, which count whole. A gradient goes back to what it is taken of, and no further. What a
    method multiplies without an equation is not counted.
    """

    name = "trace"
    xp = np
    uncalled = frozenset()

    def __init__(self) -> None:
        self.dtype, self.matmul_precision = "float64", "float32"
        self.calls: list[Call] = []
        self._open: Call | None = None
        self._rng = np.random.default_rng(0)
        self._kept: list[Array] = []  # so that no address is used twice
        self._done: set[tuple[Any, ...]] = set()
        for name, equation in {**EQUATIONS, "value_and_gradient": None}.items():
            missing = isinstance(inspect.getattr_static(self, name), Equation)
            function = equation.function if equation and missing else getattr(self, name)
            noted = function if name in _UNNOTED else partial(self._note, name, function)
            setattr(self, name, noted)

    def _note(self, name: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if self._open is not None:  # called by another equation
            return function(*args, **named)
        self._open = Call(name, args, named)
        self.calls.append(self._open)
        try:
            return function(*args, **named)
        finally:
            self._open = None

    def _count(self, *products: Product) -> None:
        assert self._open is not None
        self._open.products += [product for product in products if product.flops]

    def _made(self, shape: tuple[int, ...], *of: Any) -> Array:
        """Made-up numbers, which vary where one of the arrays that they come of does."""
        numbers = self._rng.standard_normal(shape)
        return numbers.view(_Varying) if any(isinstance(x, _Varying) for x in of) else numbers

    def _place(self, array: Array | None) -> tuple[int, ...]:
        """The same for the same numbers, however they are viewed."""
        if array is None:
            return ()
        self._kept.append(array)
        return array.__array_interface__["data"][0], array.size

    def _network(
        self,
        params: Tree,
        s: Array | None,
        x: Array | None,
        shape: tuple[int, ...],
        columns: int | None = None,
        back: int | None = None,
    ) -> Array:
        """A pass of a network or an ensemble.

        Args:
            params: of it.
            s: states ``[*, o]``, or None.
            x: what it takes besides, ``[*, d]`` or ``[*, N, d]``, or None.
            shape: of what it returns.
            columns: inputs besides the state's that are counted; None for d.
            back: those of `x` that a gradient goes back to; None for d.
        """
        kernels = [layer["kernel"] for layer in params.values() if "kernel" in layer]
        e = math.prod(kernels[0].shape[:-2])
        (_, h), *others = (kernel.shape[-2:] for kernel in kernels)
        b, o = (0, 0) if s is None else (math.prod(s.shape[:-1]), s.shape[-1])
        rows, d = (b, 0) if x is None else (math.prod(x.shape[:-1]), x.shape[-1])
        state = Product(b, o, h, e)
        beyond = [Product(rows, m, n, e) for m, n in others]
        own = Product(rows, d if columns is None else columns, h, e)
        fitted = isinstance(kernels[0], _Varying)

        layer = (self._place(kernels[0]), self._place(s))
        whole = (*layer, self._place(x))
        if whole not in self._done:
            if fitted or layer not in self._done:
                self._count(state)
            if not fitted:
                self._done.add(layer)
            self._count(own, *beyond)
            self._done.add(whole)
        if fitted or isinstance(x, _Varying) or isinstance(s, _Varying):
            self._count(*beyond)
        if isinstance(x, _Varying):
            self._count(Product(rows, d if back is None else back, h, e))
        if isinstance(s, _Varying):
            self._count(state)
        if fitted:
            self._count(*(Product(p.k, p.m, p.n, p.times) for p in (state, own, *beyond)))
        return self._made(shape, kernels[0], s, x)

    # --- equations with products in them ---------------------------------------------------------

    def mlp(self, params, x, activation):
        out = params["output"]["kernel"].shape[-1]
        return self._network(params, None, x, (*x.shape[:-1], out), back=0)

    def ensemble(self, params, x, activation):
        kernel = params["output"]["kernel"]
        shape = (kernel.shape[0], *x.shape[:-1], kernel.shape[-1])
        return self._network(params, None, x, shape, back=0)

    def critic_values(self, params, s, a, activation):
        members = params["output"]["kernel"].shape[0]
        return self._network(params, s, a, (members, *a.shape[:-1]))

    def action_gradient(self, params, s, a, how, activation):
        self.critic_values(params, s, np.asarray(a).view(_Varying), activation)
        return self._made(a.shape, a)

    def flow_velocity(self, params, s, x, t, activation):
        # one time for all adds one row of the kernel to every state
        columns = x.shape[-1] + (math.prod(t.shape) > 1)
        return self._network(params, s, x, x.shape, columns)

    def flow_matching_loss(self, params, s, a, x0, t, activation, weight):
        x = (1 - t) * x0 + t * a
        return self._network(params, s, x, x.shape, x.shape[-1] + 1).sum()

    def flow_sample(self, params, s, x0, sampling_steps, activation):
        x = x0
        for _ in range(sampling_steps):
            x = self._network(params, s, x, x.shape)
        return self.project(x)

    def gaussian_loss(self, params, s, a, tanh, activation, weight):
        return self._network(params, s, None, a.shape).sum()

    def gaussian_sample(self, params, s, noise, tanh, activation):
        return self.project(self._made(noise.shape, self._network(params, s, None, s.shape)))

    def gradient_field(self, params, s, a, activation):
        return self._network(params, s, a, a.shape)

    def gradient_field_loss(self, params, s, a, g, normalise, activation):
        return self.gradient_field(params, s, a, activation).sum()

    def policy_actions(self, params, s, noise, activation):
        return self._network(params, s, noise, noise.shape)

    def policy_loss(
        self,
        params,
        critic,
        s,
        noise,
        target,
        distillation,
        normalise,
        activation,
        critic_activation,
    ):
        a = self.project(self.policy_actions(params, s, noise, activation))
        return self.critic_values(critic, s, a, critic_activation).sum()

    def phi(self, a, g, temperature, bandwidth, bandwidth_gradient, kernel, kernel_guard):
        *states, n, d = a.shape
        self._count(Product(n, n, d, math.prod(states)))
        return self._made(a.shape, a, g)

    # --- what a framework has besides ------------------------------------------------------------

    def value_and_gradient(self, loss: Callable[[Tree], Array], params: Tree) -> tuple[Array, Tree]:
        value = loss(spec.tree_map(lambda leaf: np.asarray(leaf).view(_Varying), params))
        return np.array(value), params  # its gradient has the same shapes

    def asarray(self, tree: Tree) -> Tree:
        return spec.tree_map(np.asarray, tree)

    def stack(self, arrays: list[Array]) -> Array:
        return np.stack(arrays)

    def full(self, shape: tuple[int, ...], value: float, like: Array) -> Array:
        return np.full(shape, value, like.dtype)

    def matmul(self, x: Array, y: Array) -> Array:
        return np.matmul(x, y)

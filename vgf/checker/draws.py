"""Random numbers that a function draws itself: its generators taken over, and what it drew.

While a :class:`Draws` is entered, normal and uniform numbers of jax.random, torch and NumPy come
from it. First those it was given, each array once, to the first draw of its kind and size; after
those, numbers of its own from a fixed seed. So a function that draws inside gives one result for
one input, and the specification can be given the same numbers. Compiled functions are taken over
too: under JAX the numbers are fetched when the program runs.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from .code import own_functions

# Names of arguments that are generators, or make one.
GENERATORS = (
    "key",
    "rng",
    "rng_key",
    "rngs",
    "prng",
    "prng_key",
    "prngkey",
    "seed",
    "generator",
    "gen",
    "random_state",
)
_ZERO_TO_ONE = "uniform"
# NumPy's own, whatever takes their place meanwhile.
_seeded = np.random.default_rng
_HOLDERS = (np.random.Generator, np.random.RandomState)


@dataclass(frozen=True)
class Taken:
    """One draw of theirs.

    Attributes:
        kind: "normal" (mean 0, deviation 1), "uniform" (0 to 1) or another distribution's name.
        values: what it was given.
        name: of the specification's argument that they are, or "" for numbers that it has not.
    """

    kind: str
    values: np.ndarray
    name: str = ""

    def __str__(self) -> str:
        shape = ", ".join(map(str, np.shape(self.values)))
        return f"{self.kind} [{shape}]"


_current: Draws | None = None


class Draws:
    """Takes the generators over; a context manager that can be entered again and again.

    Args:
        function: whose module may hold generators, and functions that draw, under other names.

    Attributes:
        taken: what was drawn since the last :meth:`give`.
    """

    def __init__(self, function: Any = None) -> None:
        self.taken: list[Taken] = []
        self._left: list[tuple[str, str, np.ndarray]] = []
        self._function = function
        self._rng = _seeded(0)
        self._open: list[contextlib.ExitStack] = []
        self._new = True
        self._places: list[tuple[dict[str, Any], str]] | None = None

    def give(self, arrays: Sequence[tuple[str, str, np.ndarray]] = ()) -> None:
        """Have these drawn next: names, kinds and values; forget what was drawn before."""
        self._left, self.taken = list(arrays), []
        self._rng = _seeded(0)

    def reseed(self, seed: int) -> None:
        """Let what it was not given be other numbers."""
        self._rng = _seeded([seed])

    def next(self, kind: str, shape: Sequence[int]) -> np.ndarray:
        """The numbers of one draw."""
        shape = tuple(int(n) for n in shape)
        for i, (name, own, values) in enumerate(self._left):
            if own == kind and values.size == math.prod(shape) and values.size:
                del self._left[i]
                found = np.asarray(values, np.float64).reshape(shape)
                self.taken.append(Taken(kind, found, name))
                return found
        draw = self._rng.standard_normal if kind == "normal" else self._rng.random
        found = np.asarray(draw(shape), np.float64)
        self.taken.append(Taken(kind, found))
        return found

    def tell(self, kind: str, values: Any) -> None:
        """Note a draw that was left alone."""
        self.taken.append(Taken(kind, np.empty(np.shape(values))))

    def __enter__(self) -> Draws:
        global _current
        stack = contextlib.ExitStack()
        before, _current = _current, self
        stack.callback(_restore, before)
        for patch in _patches(self._new):
            stack.enter_context(patch)
        self._new = False
        self._swap_globals(stack)
        self._open.append(stack)
        return self

    def __exit__(self, *_: Any) -> None:
        if "jax" in sys.modules:
            sys.modules["jax"].effects_barrier()
        self._open.pop().close()

    def _swap_globals(self, stack: contextlib.ExitStack) -> None:
        """What their module imported by name, and generators that it or their object holds."""
        if self._places is None:
            self._places = list(_places(self._function))
        for scope, name in self._places:
            now = scope[name]
            other = _taken_over().get(id(now))
            if other is None and isinstance(now, _HOLDERS):
                other = numpy_generator()
            if other is not None:
                stack.enter_context(mock.patch.dict(scope, {name: other}))


def _restore(before: Draws | None) -> None:
    global _current
    _current = before


def _next(kind: str, shape: Sequence[int]) -> np.ndarray:
    # a program that was compiled meanwhile may be called later
    return (_current or Draws()).next(kind, shape)


def _places(function: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a function's module, or the object whose method it is, may hold what draws."""
    known = {*_taken_over()}
    scopes = [own.__globals__ for own in own_functions(function)] if function is not None else []
    owner = getattr(function, "__self__", None)
    if owner is not None and hasattr(owner, "__dict__") and not isinstance(owner, type):
        scopes.append(vars(owner))
    seen: set[int] = set()
    for scope in scopes:
        if id(scope) in seen or not isinstance(scope, dict):
            continue
        seen.add(id(scope))
        for name, value in list(scope.items()):
            held = isinstance(value, _HOLDERS)
            if held or id(value) in known:
                yield scope, name


# --- NumPy ---------------------------------------------------------------------------------------


class _Generator(np.random.Generator):
    """A generator of NumPy whose normal and uniform numbers are those of the current draws."""

    def standard_normal(self, size: Any = None, dtype: Any = float, out: Any = None) -> Any:
        return _numpy("normal", size, 0.0, 1.0, dtype)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return _numpy("normal", size, loc, scale)

    def random(self, size: Any = None, dtype: Any = float, out: Any = None) -> Any:
        return _numpy(_ZERO_TO_ONE, size, 0.0, 1.0, dtype)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return _numpy(_ZERO_TO_ONE, size, low, np.subtract(high, low))

    # the older interface
    randn = staticmethod(lambda *shape: _numpy("normal", shape, 0.0, 1.0))
    rand = staticmethod(lambda *shape: _numpy(_ZERO_TO_ONE, shape, 0.0, 1.0))
    random_sample = random


def numpy_generator(*_: Any, **__: Any) -> Any:
    """A generator that draws from the current :class:`Draws`; any seed is ignored."""
    return _Generator(np.random.PCG64(0))


def _numpy(kind: str, size: Any, shift: Any, scale: Any, dtype: Any = float) -> Any:
    if size is None:
        shape: tuple[int, ...] = np.broadcast_shapes(np.shape(shift), np.shape(scale))
    else:
        shape = (int(size),) if np.ndim(size) == 0 else tuple(size)
    found = np.asarray(shift + scale * _next(kind, shape)).astype(dtype)
    return found if shape else found[()]


_NUMPY: dict[str, Callable[..., Any]] = {
    "randn": lambda *shape: _numpy("normal", shape, 0.0, 1.0),
    "rand": lambda *shape: _numpy(_ZERO_TO_ONE, shape, 0.0, 1.0),
    "standard_normal": lambda size=None: _numpy("normal", size, 0.0, 1.0),
    "normal": lambda loc=0.0, scale=1.0, size=None: _numpy("normal", size, loc, scale),
    "uniform": lambda low=0.0, high=1.0, size=None: _numpy(
        _ZERO_TO_ONE, size, low, np.subtract(high, low)
    ),
    "random": lambda size=None: _numpy(_ZERO_TO_ONE, size, 0.0, 1.0),
    "random_sample": lambda size=None: _numpy(_ZERO_TO_ONE, size, 0.0, 1.0),
    "default_rng": numpy_generator,
    "RandomState": numpy_generator,
}
_REAL_NUMPY = {name: getattr(np.random, name) for name in _NUMPY}


# --- torch ---------------------------------------------------------------------------------------


def _torch_mode() -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    kinds = {
        torch.randn: "normal",
        torch.randn_like: "normal",
        torch.rand: _ZERO_TO_ONE,
        torch.rand_like: _ZERO_TO_ONE,
        torch.normal: "normal",
        torch.Tensor.normal_: "normal",
        torch.Tensor.uniform_: _ZERO_TO_ONE,
    }
    # mean and deviation, or the ends
    scaled = {torch.normal, torch.Tensor.normal_, torch.Tensor.uniform_}

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            result = func(*args, **kwargs)
            kind = kinds.get(func)
            if kind is None:
                name = getattr(func, "__name__", "").rstrip("_")
                if _current is not None and name in ("randint", "randperm", "multinomial"):
                    _current.tell(name, result.shape)
                return result
            values = torch.from_numpy(_next(kind, result.shape)).to(result.dtype)
            values = values.to(result.device)
            if func in scaled:
                words = list(args if func is torch.normal else args[1:])
                names = ("from", "to") if kind == _ZERO_TO_ONE else ("mean", "std")
                numbers = [
                    words.pop(0) if words else kwargs.get(name, default)
                    for name, default in zip(names, (0.0, 1.0), strict=True)
                ]
                width = numbers[1] - numbers[0] if kind == _ZERO_TO_ONE else numbers[1]
                values = numbers[0] + width * values
            with torch.no_grad():
                result.copy_(values)
            return result

    return Mode()


# --- JAX -----------------------------------------------------------------------------------------


def _jax_draw(kind: str, shape: tuple[int, ...], dtype: Any) -> Callable[[Any], Any]:
    """key -> numbers fetched when the program runs; under vmap for all at once."""
    import jax
    from jax.custom_batching import custom_vmap
    from jax.experimental import io_callback

    @custom_vmap
    def draw(key: Any) -> Any:
        return io_callback(
            lambda: _next(kind, shape).astype(dtype),
            jax.ShapeDtypeStruct(shape, dtype),  # type: ignore[no-untyped-call]
            ordered=True,
        )

    @draw.def_vmap
    def _(size: int, batched: Any, key: Any) -> Any:
        return _jax_draw(kind, (size, *shape), dtype)(key), True

    return draw


def _jax_normal(key: Any, shape: Any = (), dtype: Any = float, **_: Any) -> Any:
    return _from_jax("normal", key, shape, dtype)


def _jax_uniform(
    key: Any, shape: Any = (), dtype: Any = float, minval: Any = 0.0, maxval: Any = 1.0, **_: Any
) -> Any:
    return minval + (maxval - minval) * _from_jax(_ZERO_TO_ONE, key, shape, dtype)


def _from_jax(kind: str, key: Any, shape: Any, dtype: Any) -> Any:
    import jax

    shape = (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)
    return _jax_draw(kind, shape, jax.dtypes.canonicalize_dtype(dtype))(key)


_JAX = {"normal": _jax_normal, "uniform": _jax_uniform}
_REAL_JAX: dict[str, Any] = {}


def _real_jax() -> dict[str, Any]:
    if not _REAL_JAX and "jax" in sys.modules:
        random = sys.modules["jax"].random
        _REAL_JAX.update({name: getattr(random, name) for name in _JAX})
    return _REAL_JAX


def _taken_over() -> dict[int, Any]:
    """What replaces the frameworks' own functions, by their identity."""
    found = {id(real): _NUMPY[name] for name, real in _REAL_NUMPY.items()}
    return found | {id(real): _JAX[name] for name, real in _real_jax().items()}


def _patches(new: bool) -> Iterator[Any]:
    for name, other in _NUMPY.items():
        yield mock.patch.object(np.random, name, other)
    if "torch" in sys.modules:
        yield _torch_mode()
    if _real_jax():
        import jax

        if new:  # what was compiled before drew for itself
            jax.clear_caches()  # type: ignore[no-untyped-call]
        for name, jax_other in _JAX.items():
            yield mock.patch.object(jax.random, name, jax_other)

"""A network as a class, torch's `nn.Module` or flax's, called as a function of its parameters."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..support.errors import VGFError
from ..support.objects import short_error
from .layers import natural, places_of, shapes_of

# Sizes that an argument of the class may name: those of one input.
SIZES = ("B", "N", "d", "o", "E", "in", "out", "hidden", "layers")


def is_torch(found: Any) -> bool:
    """Whether it is an nn.Module, or a class of them."""
    return _derives(found, "torch.nn.modules.module", "Module")


def is_flax(found: Any) -> bool:
    """Whether it is a module of flax.linen, or a class of them."""
    return _derives(found, "flax.linen.module", "Module")


def _derives(found: Any, module: str, name: str) -> bool:
    cls = found if inspect.isclass(found) else type(found)
    return any(base.__module__ == module and base.__name__ == name for base in cls.__mro__)


class NetworkCall:
    """A function (params, ...) that makes a module, gives it the parameters, and calls it.

    Args:
        cls: the class, of torch or of flax.
        construct: its arguments; words of :data:`SIZES`, alone or in an expression such as "o + d",
            stand for the sizes of the input.
        label: what to call it in errors.
    """

    def __init__(self, cls: type, construct: Mapping[str, Any], label: str) -> None:
        self.cls, self.construct, self.label = cls, dict(construct), label
        self.framework = "torch" if is_torch(cls) else "jax"
        inner: Any = cls.forward if self.framework == "torch" else cls.__call__  # type: ignore[attr-defined]
        parameters = list(inspect.signature(inner).parameters.values())[1:]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = {p.name for p in parameters}
        self.params = "params" if "params" not in names else "params_"
        first = inspect.Parameter(self.params, kind)
        self.__signature__ = inspect.Signature([first, *parameters])
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__wrapped__ = inner  # whose code is read
        self._made: dict[str, Any] = {}

    def __call__(self, params: Any, *args: Any, **named: Any) -> Any:
        params = named.pop(self.params, params)
        if self.framework == "torch":
            return self._torch(params, args, named)
        return self._flax(params, args, named)

    def fit(self, params: Any, arrays: list[Any]) -> None:
        """Give a module of these sizes the parameters.

        Raises:
            VGFError: it has other layers.
        """
        arrays = [np.asarray(x, np.float32) for x in arrays]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # float64 before JAX is told
            if self.framework == "torch":
                self._module(params, arrays, {})
            else:
                self._variables(params, arrays, {})

    def hidden(self, params: Any, arrays: list[Any]) -> tuple[int, ...]:
        """The widths of the hidden layers that the class has whatever ours are."""
        given = self._arguments(params, {}, [np.asarray(x, np.float32) for x in arrays])
        module = _made(self.cls, given, self.label)
        if self.framework == "torch":
            outputs = [int(p.shape[0]) for p in module.parameters() if p.ndim == 2]
        else:
            import jax

            tree = jax.eval_shape(lambda: module.init(jax.random.PRNGKey(0), *arrays))["params"]
            flat = jax.tree_util.tree_flatten_with_path(tree)[0]
            named = [(".".join(str(getattr(k, "key", k)) for k in path), x) for path, x in flat]
            named.sort(key=lambda item: natural(item[0]))
            outputs = [int(x.shape[-1]) for name, x in named if name.endswith("kernel")]
        members = 1 if self.framework == "jax" else int(given.get("E", 1))
        return tuple(outputs[: len(outputs) // members][:-1])

    def _arguments(self, params: Any, named: Mapping[str, Any], args: Any) -> dict[str, Any]:
        from .adapter import Expression

        kernels = [layer["kernel"] for layer in params.values() if isinstance(layer, Mapping)]
        widths = [int(np.shape(k)[-1]) for k in kernels]
        sizes: dict[str, Any] = {"hidden": tuple(widths[:-1]), "layers": len(widths)}
        sizes["d"] = widths[-1]
        if np.ndim(kernels[0]) == 3:
            sizes["E"] = int(np.shape(kernels[0])[0])
        arrays = [x for x in [*args, *named.values()] if np.ndim(x) >= 1]
        first = arrays[0] if arrays else np.zeros((1, 1))
        sizes["o"], sizes["B"] = int(np.shape(first)[-1]), int(np.shape(first)[0])
        inputs = int(np.shape(kernels[0])[-2])
        sizes |= {"in": inputs, "out": widths[-1]}
        if "E" in sizes and len(arrays) > 1:  # critics: their inputs are (s, a)
            sizes["d"] = inputs - sizes["o"]
        found = {}
        for name, value in self.construct.items():
            if isinstance(value, str) and value in sizes:  # "in" alone is no expression
                value = sizes[value]
            elif isinstance(value, str) and any(size in value for size in SIZES):
                expression = Expression(value)
                if expression.names and expression.names <= set(sizes):
                    value = expression(sizes)
            found[name] = value
        return found

    def _torch(self, params: Any, args: Any, named: Mapping[str, Any]) -> Any:
        import torch

        module, places = self._module(params, args, named)
        values = {name: torch.as_tensor(x) for name, x in _written(places, params).items()}
        return torch.func.functional_call(module, values, args, dict(named))

    def _module(self, params: Any, args: Any, named: Mapping[str, Any]) -> tuple[Any, Any]:
        """A module for these sizes, and where our parameters are in it."""
        given, shapes = self._arguments(params, named, args), shapes_of(params)
        key = repr((sorted(given.items(), key=str), sorted(shapes.items())))
        if key not in self._made:
            module = _made(self.cls, given, self.label)
            own = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
            self._made[key] = module, places_of(shapes, own, self.label)
        found: tuple[Any, Any] = self._made[key]
        return found

    def _flax(self, params: Any, args: Any, named: Mapping[str, Any]) -> Any:
        import jax

        module, places, tree, names = self._variables(params, args, named)
        values = _written(places, params)
        filled = jax.tree_util.tree_unflatten(tree, [values[name] for name in names])
        return module.apply({"params": filled}, *args, **named)

    def _variables(self, params: Any, args: Any, named: Mapping[str, Any]) -> Any:
        """A module for these sizes, where our parameters are in its own, and their names."""
        import jax

        given, shapes = self._arguments(params, named, args), shapes_of(params)
        sizes = [np.shape(x) for x in [*args, *named.values()]]
        key = repr((sorted(given.items(), key=str), sorted(shapes.items()), sizes))
        if key not in self._made:
            module = _made(self.cls, given, self.label)
            variables = jax.eval_shape(lambda: module.init(jax.random.PRNGKey(0), *args, **named))
            flat, tree = jax.tree_util.tree_flatten_with_path(variables["params"])
            names = [".".join(str(getattr(k, "key", k)) for k in path) for path, _ in flat]
            own = [(name, tuple(x.shape)) for name, (_, x) in zip(names, flat, strict=True)]
            own.sort(key=lambda item: natural(item[0]))
            self._made[key] = module, places_of(shapes, own, self.label), tree, names
        return self._made[key]


def _written(places: Any, params: Any) -> dict[str, Any]:
    """As :func:`vgf.checker.layers.write`, on arrays of their framework."""
    found: dict[str, Any] = {}
    for place in places:
        array: Any = params
        for step in place.ours:
            array = array[step]
        array = array if place.member is None else array[place.member]
        if place.transposed:
            array = array.swapaxes(-1, -2)
        found[place.theirs] = array
    return found


def _made(cls: Callable[..., Any], given: Mapping[str, Any], label: str) -> Any:
    try:
        return cls(**given)
    except Exception as error:
        raise VGFError(f"{label}: {cls.__name__} cannot be made: {short_error(error)}") from error

"""The specification with some functions replaced, for every function that calls them.

The functions of `vgf.spec` call each other as globals of their modules. Here each of them is
rebuilt over one private table of names, so that a replaced median takes effect in phi, in transport
and in a whole update, while the specification itself is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

from .. import spec
from ..spec.methods import Specification

Names = dict[str, Any]


@cache
def specification_names() -> Mapping[str, Any]:
    """Every name of every module of the specification."""
    names: Names = {}
    for module in sorted(name for name in sys.modules if name.startswith(f"{spec.__name__}.")):
        names |= vars(sys.modules[module])
    return names


def rebound_specification(replaced: Mapping[str, Callable[..., Any]]) -> tuple[Names, Names]:
    """Every name of the specification; its functions call each other through this table.

    Args:
        replaced: functions to use instead of the specification's. Those put into the table later
            take effect as well.

    Returns:
        The table, and the originals, rebuilt so that the functions they call are replaced.
    """
    original = specification_names()
    names: Names = dict(original)
    for name, value in original.items():
        if isinstance(value, FunctionType) and value.__module__.startswith(spec.__name__):
            names[name] = rebound(value, names)
    find, view = original["specification"], _View(names)
    names["equations"] = lambda: view
    # a method calls its own `propose` and `move`; where those are replaced, the replacements
    for name in ("propose", "move"):
        plain = {"specification": lambda settings: _rebound_method(find(settings), names, view, {})}
        names[name] = rebound(original[name], plain)
    made = {name: names[name] for name in ("propose", "move")}

    def method(settings: Any) -> Specification:
        others = {name: names[name] for name, own in made.items() if names[name] is not own}
        return _rebound_method(find(settings), names, view, others)

    names["specification"] = method
    before = dict(names)
    names.update(replaced)
    return names, before


def rebound(
    function: FunctionType, names: Names, own_class: CellType | None = None
) -> FunctionType:
    """A function rebuilt so that it finds its globals, and `super()`, elsewhere."""
    code, defaults, closure = function.__code__, function.__defaults__, function.__closure__
    if own_class is not None and closure is not None:
        closure = tuple(
            own_class if name == "__class__" else cell
            for name, cell in zip(code.co_freevars, closure, strict=True)
        )
    made = FunctionType(code, names, function.__name__, defaults, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


class _View(SimpleNamespace):
    """A table of names, read as attributes: it replaces the specification in other code."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(name) from None


def _rebound_method(
    method: Specification, names: Names, view: _View, replaced: Mapping[str, Callable[..., Any]]
) -> Specification:
    """A method whose functions use the table, wherever they were written."""
    classes: dict[type, type] = {}
    for cls in reversed(type(method).__mro__[:-1]):
        own = CellType()
        functions = {
            name: rebound(value, _globals_of(value, names, view), own)
            for name, value in vars(cls).items()
            if isinstance(value, FunctionType)
        }
        bases = tuple(classes.get(base, base) for base in cls.__bases__)
        kept = {
            name: value
            for name, value in vars(cls).items()
            if name not in functions and name not in ("__dict__", "__weakref__")
        }
        classes[cls] = own.cell_contents = type(cls.__name__, bases, {**kept, **functions})
    leaf: Any = classes[type(method)]
    made: Specification = object.__new__(leaf)
    made.__dict__.update(vars(method))
    made.__dict__.update(replaced)
    return made


def _globals_of(function: FunctionType, names: Names, view: _View) -> Names:
    if function.__module__.startswith(spec.__name__):
        return names
    own = specification_names()
    return {
        key: view if value is spec else names[key] if own.get(key) is value else value
        for key, value in function.__globals__.items()
    }

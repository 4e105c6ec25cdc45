"""Methods and parts of them by name: those of this package, and ``module:object`` for yours.

A setting that names one of these is a string, so that it can be given on a command line, in a file
and in a compiled program's key. Given an object instead of a string, :func:`name_of` registers it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Declared:
    """A method, as settings know it; see :class:`vgf.spec.methods.Declaration`."""

    name: str
    title: str
    long_title: str
    Settings: type
    defaults: Mapping[str, Any]
    trains: tuple[str, ...]
    actors: tuple[str, ...]
    transports: bool
    own_sizes: bool


_KNOWN: dict[tuple[type, str], Any] = {}


def load_from_module(name: str) -> Any:
    """The object that ``module:object`` names.

    Shapes:
        None.

    Equation:
        None.

    Raises:
        ValueError: no such module, or nothing of that name in it.

    Source:
        The spelling of Python's entry points.
    """
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from error
    return found


# How a name with a colon is loaded; vgf.methods puts in its own, which also takes files of code.
load: Callable[[str], Any] = load_from_module


def register(kind: type, name: str, value: Any) -> None:
    """Register an object under a name.

    Shapes:
        None.

    Equation:
        None.

    Source:
        Ours.
    """
    _KNOWN[kind, name] = value


def names(kind: type) -> list[str]:
    """The registered names of a kind, in order.

    Shapes:
        None.

    Equation:
        None.

    Source:
        Ours.
    """
    return [name for known, name in _KNOWN if known is kind]


def find(kind: type[T], name: str, what: str, choices: Iterable[str] = ()) -> T:
    """The object of a kind with a given name.

    Shapes:
        name: a registered one, or ``module:object``, an object or a subclass of `kind`; what: the
        setting's name, for the message; choices: the names to offer instead.

    Equation:
        None.

    Raises:
        ValueError: an unknown name, or an object of another kind.

    Source:
        Ours.
    """
    if (kind, name) in _KNOWN:
        found: T = _KNOWN[kind, name]
        return found
    if ":" not in name:
        known = [*choices, *(n for k, n in _KNOWN if k is kind and n not in choices)]
        raise ValueError(
            f"{what} is {name!r}; choose one of {', '.join(known)}, or module:object of your own"
        )
    return _made(kind, load(name), name, what)


def name_of(kind: type, given: Any, what: str) -> str:
    """The name of what is given: a string as it is; an object or class of `kind`, registered.

    Shapes:
        what: the setting's name, for the message.

    Equation:
        None.

    Raises:
        ValueError: neither a string nor of that kind.

    Source:
        Ours.
    """
    if isinstance(given, str):
        return given
    cls = given if isinstance(given, type) else type(given)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not isinstance(given, type) and getattr(given, "__dict__", None):
        name = f"{name}#{id(given):x}"  # an object with its own state equals only itself
    elif (kind, name) in _KNOWN and type(_KNOWN[kind, name]) is not cls:
        name = f"{name}#{id(cls):x}"  # another class has the name
    _made(kind, given, name, what)
    return name


def _made(kind: type[T], found: Any, name: str, what: str) -> T:
    """An object of a kind, instantiated if a class was found; registered."""
    if inspect.isclass(found) and issubclass(found, kind):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(f"{what} is {name!r}, which cannot be made: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{what} is {name!r}, a {type(found).__name__}; it must be a class derived from "
            f"{kind.__module__}.{kind.__qualname__}"
        )
    register(kind, name, found)
    return found

"""Loading what is to be checked: a function, a method of a class, a module that is called."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from ..support.objects import load_object, short_error
from ..testing.variants import VARIANTS, Variant
from .modules import NetworkCall, is_flax, is_torch


def load_checked(
    target: str,
    construct: Mapping[str, Any] | None = None,
    network: bool = False,
    mapped: Collection[str] = (),
) -> Callable[..., Any]:
    """A function by its name; of a class, an instance is made and its method taken.

    Args:
        target: ``module:function``, ``path/to/file.py:Class.method`` or ``...:Class``, whose
            instances are called.
        construct: arguments of the class.
        network: what it is checked as has a network's parameters: a class of torch's or flax's
            modules is then given them, and made anew for each size.
        mapped: names that arguments are declared for; those that the class takes, and its method
            does not, become keywords of the function, and an instance is made for every call.

    Raises:
        VGFError: what cannot be found, imported, made or called.
    """
    found = load_object(target)
    place, _, path = target.rpartition(":")
    owner, _, name = path.rpartition(".")
    if network and inspect.isclass(found) and (is_torch(found) or is_flax(found)):
        return NetworkCall(found, construct or {}, target)
    if inspect.isclass(found):
        found = _instance(found, "__call__", construct or {}, mapped, target)
    elif owner:
        cls = load_object(f"{place}:{owner}")
        if inspect.isclass(cls) and _binds(inspect.getattr_static(cls, name)):
            found = _instance(cls, name, construct or {}, mapped, target)
        elif construct:
            raise VGFError(f"{target}: --construct is for a class, and {owner} is none")
    elif construct:
        raise VGFError(f"{target}: --construct is for a class or its method, not for a function")
    if not callable(found):
        raise VGFError(f"{target} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _binds(attribute: Any) -> bool:
    """Whether what a class holds is a method of its instances: a function, or one that jit or
    another decorator has wrapped."""
    unbound = isinstance(attribute, staticmethod | classmethod)
    return callable(attribute) and hasattr(attribute, "__get__") and not unbound


def _instance(
    cls: type, name: str, construct: Mapping[str, Any], mapped: Collection[str], target: str
) -> Any:
    """A method of an instance; of one made for every call, where arguments of it are drawn."""
    shown = "forward" if name == "__call__" and is_torch(cls) else name
    method = next((vars(c)[shown] for c in cls.__mro__ if shown in vars(c)), None)
    own = list(inspect.signature(method).parameters.values())[1:] if callable(method) else []
    drawn = [
        key
        for key in _parameters(cls)
        if key in mapped and key not in construct and key not in {p.name for p in own}
    ]
    if not drawn or not callable(method):
        made = _make(cls, construct, target)
        return made if name == "__call__" else getattr(made, name)

    @functools.wraps(method)
    def call(*args: Any, **named: Any) -> Any:
        given = {key: named.pop(key) for key in drawn}
        return getattr(_make(cls, {**construct, **given}, target), name)(*args, **named)

    more = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in drawn]
    place = len(own) - sum(p.kind is inspect.Parameter.VAR_KEYWORD for p in own)
    parameters = [*own[:place], *more, *own[place:]]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _parameters(cls: type) -> list[str]:
    """The arguments of a class."""
    try:
        return list(inspect.signature(cls).parameters)
    except (TypeError, ValueError):
        return []


def _make(cls: type, construct: Mapping[str, Any], target: str) -> Any:
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**construct)
        except TypeError as error:
            raise VGFError(
                f"{target}: {cls.__name__}{signature} cannot be made ({error}); give what it needs "
                "with --construct NAME=VALUE, or check a function that makes one"
            ) from None
    try:
        return cls(**construct)
    except Exception as error:
        raise VGFError(f"{target}: {cls.__name__} cannot be made: {short_error(error)}") from error


def load_variants(path: Path) -> tuple[Variant, ...]:
    """The variants that a file of one's own registers with `vgf.testing.variants.variant`.

    Raises:
        VGFError: a file that is not there, cannot be imported, or registers none.
    """
    if not path.is_file():
        raise VGFError(f"{path}: no such file")
    before = dict(VARIANTS)
    description = importlib.util.spec_from_file_location(f"variants_{path.stem}", path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[description.name] = module
    try:
        description.loader.exec_module(module)
        found = tuple(v for name, v in VARIANTS.items() if before.get(name) is not v)
    except Exception as error:
        raise VGFError(f"{path} cannot be imported: {short_error(error)}") from error
    finally:
        VARIANTS.clear()
        VARIANTS.update(before)
    if not found:
        raise VGFError(f"{path} registers no variant; use @vgf.testing.variants.variant(...)")
    return found

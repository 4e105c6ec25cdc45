"""Methods as torch and JAX run them: one file each, written once against the equations.

Your own method is a class derived from :class:`Method`, named as ``module:class`` or as
``path/to/file.py:class``. What NumPy runs is in vgf/spec/methods, under the same names.
"""

from __future__ import annotations

from typing import Any

from ..spec import registry
from ..spec.methods import Declaration, Draw, NetworkShape, Specification, normal, uniform
from ..spec.parts import CriticLoss, Kernel, ParticleStep, Sampler, SelectionRule, Target
from ..spec.registry import Declared
from ..spec.settings import Budget, Network, Settings, method_settings
from ..support.errors import VGFError
from ..support.objects import load_object
from .avgf import AVGF
from .base import Method
from .bc import BC
from .fql import FQL
from .iql import IQL
from .td import TD
from .vgf import VGF
from .weighted_bc import WeightedBC

for _method in (VGF(), AVGF(), BC(), WeightedBC(), FQL(), IQL(), TD()):
    registry.register(Method, _method.name, _method)


def _load(name: str) -> Any:
    try:
        return load_object(name)
    except VGFError as error:
        raise ValueError(str(error)) from error


registry.load = _load  # files of code too, and errors that say where to look


def find_method(method: Any) -> Method:
    """A method by its name, or your own class or object.

    Args:
        method: the name of one of this package, such as "vgf" or "iql"; ``module:class`` or
            ``path/to/file.py:class``; or a class derived from :class:`Method`, or an object of it.

    Raises:
        ValueError: an unknown name, something other than a method, or one that only NumPy runs.
    """
    name = registry.name_of(Declared, method, "method")
    if name in registry.names(Method):
        return registry.find(Method, name, "method")
    found = registry.find(Declared, name, "method")
    if not isinstance(found, Method):
        raise ValueError(
            f"method {name!r} is a specification, which only NumPy runs; derive a class from "
            "vgf.methods.Method for torch and JAX, or use --backend numpy"
        )
    return found


def method_names() -> list[str]:
    """The names of this package's methods, and of your own that were loaded."""
    return registry.names(Declared)

"""Value Gradient Flow: reinforcement learning that never parameterises a policy.

`vgf.spec` is the specification in NumPy; `vgf.backends` computes the same on torch and JAX;
`vgf.testing` decides whether an implementation does. Importing any of them imports no framework,
and `import vgf` itself imports nothing until one of the names below is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .moved import keep_old_names
from .support.errors import VGFError

if TYPE_CHECKING:
    __version__: str
    from .backends import available_backends, get_backend
    from .spec.settings import Budget, Network, Settings, method_settings

keep_old_names()

_HOMES = {
    "available_backends": ".backends",
    "get_backend": ".backends",
    "Budget": ".methods",
    "Network": ".methods",
    "Settings": ".methods",
    "method_settings": ".methods",
    "spec": ".",
    "backends": ".",
    "testing": ".",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'vgf' has no attribute {name!r}")
    if _HOMES[name] == ".":
        return importlib.import_module(f".{name}", __name__)
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def _version() -> str:
    """The version that was installed, which git's tags named; "unknown" where none was."""
    from importlib import metadata

    try:
        return metadata.version("vgf")
    except metadata.PackageNotFoundError:
        return "unknown"


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])

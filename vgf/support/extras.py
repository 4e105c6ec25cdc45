"""Packages that only some features need, imported where they are used."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from .errors import VGFError


def need(module: str, extra: str) -> Any:
    """Import `module`, which the extra `extra` of this package installs.

    Raises:
        VGFError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        package = module.partition(".")[0]
        raise VGFError(
            f"{package} is not installed here; install the extra: pip install 'vgf[{extra}]'"
        ) from error


def installed_version(package: str) -> str:
    """The version of an installed package, without importing it."""
    return importlib.metadata.version(package)


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None

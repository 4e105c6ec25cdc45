"""What a test needs beyond NumPy and SciPy, and how long a process it starts may take."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

SECONDS = 240  # for a process that a test starts; a hang is to fail, a busy machine is not


def backends_to_test(all_of_them: Sequence[str] = ()) -> tuple[list[str], bool]:
    """The backends under test, and whether an absent one is a failure.

    `--backends` arrives here by VGF_TEST_BACKENDS, which is what the processes of a test see too.
    """
    named = os.environ.get("VGF_TEST_BACKENDS")
    if named:
        return [name.strip() for name in named.split(",")], True
    return list(all_of_them), bool(os.environ.get("CI"))


def need(*packages: str) -> None:
    """Skip this test, or this module at its head, where a package is absent.

    With CI set that is a failure; so it is for a framework whose backend was asked for. A framework
    whose backend was not asked for is skipped in any case.
    """
    named, strict = backends_to_test()
    for package in packages:
        framework = package in ("torch", "jax")
        if named and framework and package not in named:
            pytest.skip(f"{package} is not among the backends to test", allow_module_level=True)
        if importlib.util.find_spec(package) is None:
            if os.environ.get("CI") or (strict and framework):
                pytest.fail(f"{package} is not installed")
            pytest.skip(f"{package} is not installed", allow_module_level=True)


def hide(*packages: str) -> None:
    """Make packages look absent in this process, however they are installed."""
    find = importlib.util.find_spec

    def hidden(name: str) -> bool:
        return name.partition(".")[0] in packages

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if hidden(name):
                raise ModuleNotFoundError(f"No module named {name!r} for these tests", name=name)

    importlib.util.find_spec = lambda name, package=None: (
        None if hidden(name) else find(name, package)
    )
    sys.meta_path.insert(0, Finder())

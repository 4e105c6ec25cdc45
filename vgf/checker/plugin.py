"""A pytest plugin: the fixture `vgf_check` puts a function through the specification.

Installed with the package, so that a test needs no import::

    def test_phi(vgf_check):
        vgf_check(my_phi, "phi", arguments={"theta": "a"})

A failure's message is what `vgf check` prints. ``pytest --vgf-examples 2000 --vgf-seed 7`` scales
the search. Nothing heavy is imported before the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flags of the search."""
    group = parser.getgroup("vgf", "vgf: functions against the specification")
    group.addoption("--vgf-examples", type=int, help="inputs in each dtype")
    group.addoption("--vgf-seed", type=int, help="of the search")


@pytest.fixture
def vgf_check(request: pytest.FixtureRequest) -> Callable[..., None]:
    """As :func:`vgf.testing.assert_matches`: a function, as what, and how its signature differs."""
    from .checking import assert_matches

    given = {
        name: request.config.getoption(f"--vgf-{name}")
        for name in ("examples", "seed")
        if request.config.getoption(f"--vgf-{name}") is not None
    }

    def check(function: Any, name: Any, adapter: Any = None, **options: Any) -> None:
        __tracebackhide__ = True
        assert_matches(function, name, adapter, **{**options, **given})

    return check

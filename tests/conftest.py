"""Options of the test run, and the backends under test.

A backend is tested when its framework is installed. One that was asked for by name (`--backends`,
VGF_TEST_BACKENDS), or any at all when CI is set, FAILS when it is absent; it is not skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vgf.backends import BACKENDS, BackendError, get_backend, missing_packages
from vgf.backends.base import Backend

JAX_TESTS_BETWEEN_CLEANINGS = 25  # compiled programs pile up, and the system's maps run out
_jax_tests = 0
_CACHE: dict[tuple[str, str, str], Backend] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vgf")
    group.addoption(
        "--backends",
        default=os.environ.get("VGF_TEST_BACKENDS"),
        help="backends that must be tested, e.g. numpy,torch; default: all that are installed, "
        "and all there are when CI is set",
    )
    group.addoption(
        "--examples", type=int, default=20, help="examples of each property (default 20)"
    )
    group.addoption("--seed", type=int, default=0, help="of the search for examples (default 0)")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["VGF_COMPILATION_CACHE"] = "0"  # nothing of a test is to be found by the next run
    # several processes share one GPU: none may take its memory when it starts
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    unknown = [name for name in requested(config)[0] if name not in BACKENDS]
    if unknown:
        raise pytest.UsageError(
            f"backend {unknown[0]!r} is unknown; choose from {', '.join(BACKENDS)}"
        )


def requested(config: pytest.Config) -> tuple[list[str], bool]:
    """The backends to test, and whether an absent one is a failure."""
    named = config.getoption("--backends")
    if named:
        return [name.strip() for name in named.split(",")], True
    return list(BACKENDS), bool(os.environ.get("CI"))


def gpu_of(name: str) -> bool:
    """Whether a framework sees a GPU."""
    if name == "numpy" or missing_packages(name):
        return False
    try:
        get_backend(name, device="gpu")
    except BackendError:
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names, _ = requested(metafunc.config)
    if "backend_key" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("backend")
    only = marker.kwargs if marker else {}
    names = [name for name in names if name in only.get("names", (*names,))]
    keys = [
        (name, dtype, device)
        for name in names
        for device in (["cpu", "gpu"] if gpu_of(name) else ["cpu"])
        for dtype in only.get("dtypes", ("float64", "float32"))
    ]
    metafunc.parametrize("backend_key", keys, ids=["-".join(key) for key in keys], indirect=True)


@pytest.fixture(scope="module")
def backend_key(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    return request.param


@pytest.fixture
def backend(backend_key: tuple[str, str, str], request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend under test: NumPy, torch or JAX, in float64 and float32, on CPU and GPU."""
    name, dtype, device = backend_key
    if backend_key not in _CACHE:
        if missing_packages(name) and not requested(request.config)[1]:
            pytest.skip(f"{name} is not installed; CI=1 or --backends {name} makes this a failure")
        _CACHE[backend_key] = get_backend(name, dtype=dtype, device=device)
    yield _CACHE[backend_key]
    global _jax_tests
    _jax_tests += name == "jax"
    if name == "jax" and _jax_tests % JAX_TESTS_BETWEEN_CLEANINGS == 0:
        _CACHE[backend_key].forget_compilations()  # type: ignore[attr-defined]


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--examples")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--seed")

"""Options of the test run, its tiers, and the backends under test.

Tiers: `pytest -m quick` is what has no marker `full` or `slow`; `pytest` leaves out `slow` alone.

A backend is tested when its framework is installed. One that was asked for by name (`--backends`,
VGF_TEST_BACKENDS), or any at all when CI is set, FAILS when it is absent; it is not skipped. Where
some are asked for, no test sees the frameworks of the others.
"""

from __future__ import annotations

import functools
import os

# Before NumPy is imported: the matrices of the tests are small, and threads that wait for each
# other cost up to 25 times what they compute. Processes that a test starts inherit it.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from needs import backends_to_test, hide

from vgf.backends import BACKENDS, BackendError, get_backend, missing_packages
from vgf.backends.base import Backend
from vgf.spec import registry

_NO_BACKEND = SimpleNamespace(params={})
TEXT = Path(__file__).parent / "text"  # it imports transformers
VALIDATION = Path(__file__).parent / "validation"  # experiments
JAX_TESTS_BETWEEN_CLEANINGS = 25  # compiled programs pile up, and the system's maps run out
_jax_tests = 0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vgf")
    group.addoption(
        "--backends",
        default=os.environ.get("VGF_TEST_BACKENDS"),
        help="backends that must be tested, e.g. numpy,torch; default: all that are installed, "
        "and all there are when CI is set",
    )
    group.addoption(
        "--examples", type=int, help="examples of each property (default 8; 3 with -m quick)"
    )
    group.addoption("--seed", type=int, default=0, help="of the search for examples (default 0)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--backends"):
        os.environ["VGF_TEST_BACKENDS"] = config.getoption("--backends")
    if config.getoption("dist", "no") == "load":
        config.option.dist = "worksteal"  # a worker keeps to its files, and so to their fixtures
    os.environ["VGF_COMPILATION_CACHE"] = "0"  # nothing of a test is to be found by the next run
    # several processes share one GPU: none may take its memory when it starts
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    names, _ = backends_to_test(BACKENDS)
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise pytest.UsageError(
            f"backend {unknown[0]!r} is unknown; choose from {', '.join(BACKENDS)}"
        )
    hide(*({"torch", "jax"} - set(names)))


def is_quick(config: pytest.Config) -> bool:
    return config.option.markexpr == "quick"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """In the quick tier, what takes seconds to be imported alone."""
    return True if is_quick(config) and collection_path in (TEXT, VALIDATION) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {TEXT, VALIDATION} & set(item.path.parents):
            item.add_marker("full")
        heavy = item.get_closest_marker("heavy")
        if heavy is not None and backend_of(item)[0] in heavy.args:
            item.add_marker("slow")
        if item.get_closest_marker("slow") is None and not is_full(item):
            item.add_marker("quick")


def backend_of(item: pytest.Item) -> tuple[str, str]:
    """The backend and dtype that a test is of, or two empty words."""
    key = getattr(item, "callspec", _NO_BACKEND).params.get("backend_key")
    return key[:2] if isinstance(key, tuple) else ("", "")  # a test may be of no backend at hand


def is_full(item: pytest.Item) -> bool:
    """Whether a test is left out of the quick tier: by its marker, or as JAX compiles it twice."""
    name, dtype = backend_of(item)
    marker = item.get_closest_marker("full")
    if marker is not None and (not marker.args or name in marker.args):
        return True
    restricted = item.get_closest_marker("backend")
    dtypes = restricted.kwargs.get("dtypes", ("float64",)) if restricted else ("float64",)
    return (name, dtype) == ("jax", "float32") and "float64" in dtypes


@functools.cache
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
    names, _ = backends_to_test(BACKENDS)
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
def backend(backend_key: tuple[str, str, str]) -> Iterator[Backend]:
    """A backend under test: NumPy, torch or JAX, in float64 and float32, on CPU and GPU."""
    name, dtype, device = backend_key
    if missing_packages(name) and not backends_to_test(BACKENDS)[1]:
        pytest.skip(f"{name} is not installed; CI=1 or --backends {name} makes this a failure")
    made = get_backend(name, dtype=dtype, device=device)
    yield made
    global _jax_tests
    _jax_tests += name == "jax"
    if name == "jax" and _jax_tests % JAX_TESTS_BETWEEN_CLEANINGS == 0:
        made.forget_compilations()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def own_methods_are_forgotten() -> Iterator[None]:
    """What a test loads by ``module:object`` is no setting of the next one's."""
    yield
    for kind, name in list(registry._KNOWN):
        if ":" in name:
            del registry._KNOWN[kind, name]


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    few = 3 if is_quick(request.config) else 8  # .ci/run takes 20
    return request.config.getoption("--examples") or few


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--seed")

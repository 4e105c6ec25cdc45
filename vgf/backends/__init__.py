"""The backends, chosen at runtime by name: "numpy", "torch" or "jax".

Importing this package imports no framework; :func:`get_backend` imports the requested one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from argparse import ArgumentParser
from typing import Any

from .base import DTYPES, MATMUL_PRECISIONS, Backend
from .errors import BackendError

BACKENDS = ("numpy", "torch", "jax")
ENVIRONMENT_VARIABLE = "VGF_BACKEND"

_CLASSES = {"numpy": "NumpyBackend", "torch": "TorchBackend", "jax": "JaxBackend"}
# What each backend imports, besides NumPy and SciPy.
_NEEDS: dict[str, tuple[str, ...]] = {"numpy": (), "torch": ("torch",), "jax": ("jax", "optax")}


def missing_packages(name: str) -> list[str]:
    """The packages that backend `name` needs and this Python lacks; imports none of them."""
    return [package for package in _NEEDS[name] if importlib.util.find_spec(package) is None]


def available_backends() -> list[str]:
    """The names of the backends whose frameworks are installed."""
    return [name for name in BACKENDS if not missing_packages(name)]


def default_backend() -> str:
    """The backend used when none is named: VGF_BACKEND, or else the fastest one installed."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return chosen
    return next(name for name in ("jax", "torch", "numpy") if not missing_packages(name))


def get_backend(
    name: str | None = None,
    *,
    device: str | None = "auto",
    dtype: str | None = None,
    matmul_precision: str = "float32",
    **options: Any,
) -> Backend:
    """Make a backend.

    Args:
        name: "numpy", "torch" or "jax"; None means the environment variable VGF_BACKEND, or else
            the fastest one installed.
        device: "auto" (a GPU if there is one), "cpu", "gpu", or "gpu:1" for the second GPU;
            "cuda" means "gpu".
        dtype: "float32" or "float64"; None means float32, and float64 for NumPy.
        matmul_precision: "float32" (matrix products as precise as the dtype), "tf32" (NVIDIA GPUs)
            or "bf16" (operands rounded to bfloat16, and in torch the result too; sums in
            float32).
        options: of one backend: torch takes `compile`, JAX takes `jit` and `cores`.

    Returns:
        A :class:`~vgf.backends.base.Backend`.

    Raises:
        BackendError: an unknown name or setting, a framework that is not installed, or a missing
        GPU; the message says which extra or flag to use.
    """
    source = ""
    if name is None:
        name = default_backend()
        if os.environ.get(ENVIRONMENT_VARIABLE):
            source = f" (from {ENVIRONMENT_VARIABLE})"
    if name not in BACKENDS:
        raise BackendError(
            f"backend {name!r}{source} is unknown; choose one of {', '.join(BACKENDS)}"
        )
    missing = missing_packages(name)
    if missing:
        raise BackendError(
            f"backend {name!r}{source} needs {' and '.join(missing)}, not installed here; "
            f"install the extra: pip install 'vgf[{name}]', or choose one of "
            f"{', '.join(available_backends())}"
        )
    if dtype is not None and dtype not in DTYPES:
        raise BackendError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if matmul_precision not in MATMUL_PRECISIONS:
        raise BackendError(
            f"matmul precision {matmul_precision!r} is unknown; "
            f"choose one of {', '.join(MATMUL_PRECISIONS)}"
        )
    if matmul_precision != "float32" and dtype == "float64":
        raise BackendError(
            f"matmul precision {matmul_precision!r} contradicts dtype 'float64'; "
            "use --dtype float32, or --matmul-precision float32"
        )
    module = importlib.import_module(f".{name}", __name__)
    try:
        backend: Backend = getattr(module, _CLASSES[name])(
            device=parse_device("auto" if device is None else device),
            dtype=dtype,
            matmul_precision=matmul_precision,
            **options,
        )
    except TypeError as error:
        if not options:
            raise
        raise BackendError(f"backend {name!r}: {error}") from error
    return backend


def parse_device(device: str) -> str:
    """Check the spelling of a device: "auto", "cpu", "gpu" or "gpu:<index>" ("cuda" is "gpu")."""
    spelled = device.replace("cuda", "gpu")
    kind, _, index = spelled.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (index and (kind != "gpu" or not index.isdigit())):
        raise BackendError(f"device {device!r} is unknown; choose auto, cpu, gpu or gpu:<index>")
    return spelled


def add_backend_arguments(parser: ArgumentParser) -> None:
    """Add the flags that choose a backend, the same for every command."""
    group = parser.add_argument_group("backend")
    group.add_argument(
        "--backend", choices=BACKENDS, help=f"default: {ENVIRONMENT_VARIABLE}, or the fastest here"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:<index>")
    group.add_argument("--dtype", choices=DTYPES, help="default: float32; float64 for numpy")
    group.add_argument("--matmul-precision", choices=MATMUL_PRECISIONS, default="float32")

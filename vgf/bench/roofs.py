"""What the machine can do: bare products, copies and simulation, as a worker starts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import get_backend
from ..support.errors import VGFError
from .ours import device_memory

LIBRARIES = ("numpy", "torch", "jax")


class Product:
    """``[m, k] @ [k, k]`` over and over, its result the next one's factor.

    Args:
        library: of :data:`LIBRARIES`.
        m, k: the sizes.
        device, dtype, matmul_precision: as :func:`vgf.backends.get_backend`; "bf16" multiplies
            numbers that are bfloat16 already.
    """

    def __init__(
        self, library: str, m: int, k: int, device: str, dtype: str, matmul_precision: str
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((m, k)).astype(dtype)
        w = (rng.standard_normal((k, k)) / np.sqrt(k)).astype(dtype)  # keeps the size of x
        # checks the request, and that there is such a device
        backend = get_backend(
            library, device=device, dtype=dtype, matmul_precision=matmul_precision
        )
        self.device = backend.device
        self.multiply: Callable[[int], Any] = {
            "numpy": _numpy_product,
            "torch": _torch_product,
            "jax": _jax_product,
        }[library](backend, x, w)

    def run(self, count: int) -> None:
        """Make `count` products."""
        self.multiply(count)

    def describe(self) -> dict[str, Any]:
        """Where it runs."""
        return {"device": self.device}

    def device_memory(self) -> int | None:
        """The most memory held on the device, in bytes; None for a CPU."""
        return device_memory(self.device)


def device_name(backend: Any) -> str | None:
    """What a GPU calls itself; None for a CPU."""
    if backend.device == "cpu":
        return None
    if backend.name == "jax":
        return str(backend.jax_device.device_kind)
    import torch

    return str(torch.cuda.get_device_name(backend.torch_device))


def _numpy_product(backend: Any, x: np.ndarray, w: np.ndarray) -> Callable[[int], Any]:
    y = np.empty_like(x)

    def multiply(count: int) -> None:
        for _ in range(count):
            np.matmul(x, w, out=y)

    return multiply


def _torch_product(backend: Any, x: np.ndarray, w: np.ndarray) -> Callable[[int], Any]:
    import torch

    a, b = backend.asarray({"x": x, "w": w}).values()
    if backend.matmul_precision == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
    y = torch.empty_like(a)
    if backend.matmul_precision == "tf32":
        torch.set_float32_matmul_precision("high")

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=y)
        backend.synchronise(y)

    return multiply


def _jax_product(backend: Any, x: np.ndarray, w: np.ndarray) -> Callable[[int], Any]:
    import jax

    a, b = backend.asarray({"x": x, "w": w}).values()
    precision: Any = {"float32": "float32", "tf32": "tensorfloat32", "bf16": None}
    if backend.matmul_precision == "bf16":
        a, b = a.astype("bfloat16"), b.astype("bfloat16")

    @jax.jit
    def chain(a: Any, b: Any, count: Any) -> Any:
        product = lambda _, x: jax.numpy.matmul(x, b, precision=precision[backend.matmul_precision])
        return jax.lax.fori_loop(0, count, product, a)

    return lambda count: jax.block_until_ready(chain(a, b, count))  # type: ignore[no-untyped-call]


class Copy:
    """One array copied to another over and over.

    Args:
        library: of :data:`LIBRARIES`.
        size: of each array, in bytes.
        device: as :func:`vgf.backends.get_backend`.
    """

    def __init__(self, library: str, size: int, device: str) -> None:
        backend = get_backend(library, device=device, dtype="float32")
        self.device, self.device_name = backend.device, device_name(backend)
        x = np.zeros(size // 4, np.float32)
        self.copy: Callable[[], Any]
        if library == "numpy":
            y = np.zeros_like(x)
            self.copy = lambda: np.copyto(y, x)
        elif library == "torch":
            source, target = backend.asarray(x), backend.asarray(x)
            self.copy = lambda: backend.synchronise(target.copy_(source))
        else:
            import jax

            array = backend.asarray(x)
            plus = jax.jit(lambda x: x + 1)  # a bare copy may be left out
            self.copy = lambda: backend.synchronise(plus(array))

    def run(self, count: int) -> None:
        """Make `count` copies."""
        for _ in range(count):
            self.copy()

    def describe(self) -> dict[str, Any]:
        """Where it runs."""
        return {"device": self.device, "device_name": self.device_name}

    def device_memory(self) -> int | None:
        """The most memory held on the device, in bytes; None for a CPU."""
        return device_memory(self.device)


class Steps:
    """An environment under random actions, in one process, starting again where it is over.

    Args:
        task: its name.
    """

    def __init__(self, task: str) -> None:
        from ..benchmarks.tasks import make_task

        found = make_task(task, with_dataset=False)
        if found.make_env is None:
            raise VGFError(f"{task} has no environment")
        self.env = found.make_env(0)
        self.env.reset(seed=0)
        rng = np.random.default_rng(0)
        self.actions = rng.uniform(-1, 1, (64, found.action_dim)).astype(np.float32)
        self.taken = 0

    def run(self, count: int) -> None:
        """Take `count` steps."""
        for i in range(count):
            ended, cut = self.env.step(self.actions[i % len(self.actions)])[2:4]
            if ended or cut:
                self.env.reset()
        self.taken += count

    def describe(self) -> dict[str, Any]:
        """Where it runs, and the steps taken so far."""
        return {"device": "cpu", "taken": self.taken}

    def device_memory(self) -> None:
        """It holds none."""


def start(what: str, **options: Any) -> Product | Copy | Steps:
    """What a worker starts: "product", "copy" or "steps"."""
    kinds: dict[str, Callable[..., Any]] = {"product": Product, "copy": Copy, "steps": Steps}
    started: Product | Copy | Steps = kinds[what](**options)
    return started

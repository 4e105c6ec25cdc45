"""Where torch computes and how precisely; arrays and trees of them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...spec.optimiser import tree_map
from ...support.extras import need
from ..base import Tree
from ..composed import ComposedBackend
from ..errors import BackendError

# What compiles the update needs one of these.
COMPILERS = ("g++", "clang++", "c++", "cl")

Method = TypeVar("Method", bound=Callable[..., Any])


def leaves(tree: Tree) -> list[Tensor]:
    """The arrays of a tree, in the order of its keys."""
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for value in tree.values() for leaf in leaves(value)]


def rebuild(tree: Tree, values: list[Tensor]) -> Tree:
    """A tree with the same keys and other arrays, in the order of :func:`leaves`."""
    iterator = iter(values)
    return tree_map(lambda _: next(iterator), tree)


def with_precision(method: Method) -> Method:
    """Run a method under the backend's TF32 setting, and restore torch's own setting afterwards."""

    @functools.wraps(method)
    def run(self: TorchDevice, *args: Any, **kwargs: Any) -> Any:
        # compiled code is called from where this was set, and cannot set it
        if not self.device.startswith("gpu") or torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        switch, tf32 = torch.backends.cuda.matmul, self.matmul_precision == "tf32"
        # the two ways of setting it must not be mixed: the new one since torch 2.9
        name = "fp32_precision" if hasattr(switch, "fp32_precision") else "allow_tf32"
        before = getattr(switch, name)
        setattr(switch, name, tf32 if name == "allow_tf32" else "tf32" if tf32 else "ieee")
        try:
            return method(self, *args, **kwargs)
        finally:
            setattr(switch, name, before)

    return run  # type: ignore[return-value]


class TorchDevice(ComposedBackend):
    """A device, dtype and precision of torch, and arrays on it."""

    name = "torch"

    def __init__(
        self, device: str, dtype: str | None, matmul_precision: str, compile: bool = False
    ) -> None:
        self.torch_device = _find_device(device)
        self.device = str(self.torch_device).replace("cuda", "gpu")
        if matmul_precision == "tf32" and not self.device.startswith("gpu"):
            raise BackendError(
                "matmul precision 'tf32' needs an NVIDIA GPU; "
                "use --matmul-precision float32 or bf16 on the CPU"
            )
        self.dtype = dtype or "float32"
        self.torch_dtype: torch.dtype = getattr(torch, self.dtype)
        self.matmul_precision = matmul_precision
        self._update: Callable[..., Any] = super().update_from_noise
        if compile:
            if not any(map(shutil.which, COMPILERS)):
                raise BackendError(
                    f"compiling needs a C++ compiler ({', '.join(COMPILERS)}), none is on the "
                    "PATH; install one, or compile = False (--eager)"
                )
            from .programs import Program

            self._update = Program(self._update, self.torch_device.type == "cpu")
            self.compiles_first = True

    # --- arrays ---------------------------------------------------------------------------------

    def asarray(self, tree: Tree) -> Tree:
        def convert(leaf: Any) -> Tensor:
            if isinstance(leaf, Tensor):
                tensor = leaf.detach().clone()
            else:
                tensor = torch.from_numpy(np.array(leaf))
            if tensor.is_floating_point():
                return tensor.to(self.torch_device, self.torch_dtype)
            # counters stay on the host: reading them must not wait for the device
            return tensor if tensor.ndim == 0 else tensor.to(self.torch_device)

        return tree_map(convert, tree)

    def to_numpy(self, tree: Tree) -> Tree:
        return tree_map(
            lambda t: t.detach().cpu().numpy().copy() if isinstance(t, Tensor) else np.array(t),
            tree,
        )

    def synchronise(self, tree: Tree) -> Tree:
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)
        return tree

    def free_memory(self) -> int | None:
        if self.torch_device.type != "cuda":
            return None
        return int(torch.cuda.mem_get_info(self.torch_device)[0])

    def stack(self, arrays: list[Tensor]) -> Tensor:
        return torch.stack(arrays)

    def full(self, shape: tuple[int, ...], value: float, like: Tensor) -> Tensor:
        return torch.full(shape, value, dtype=like.dtype, device=like.device)

    @property
    def xp(self) -> Any:
        return need("array_api_compat.torch", "torch")

    def constant(self, x: Tensor) -> Tensor:
        return x.detach()

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @with_precision
    def value_and_gradient(
        self, loss: Callable[[Tree], Tensor], params: Tree
    ) -> tuple[Tensor, Tree]:
        gradient, value = torch.func.grad_and_value(loss)(params)
        return value, gradient


def _find_device(device: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return torch.device("cpu")
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise BackendError(
            f"device {device!r} was requested, but torch {torch.__version__} sees "
            f"{count or 'no'} CUDA GPU{'s' if count > 1 else ''}; use --device cpu, "
            "or install a CUDA build of torch and check that nvidia-smi lists the GPU"
        )
    return torch.device("cuda", index)

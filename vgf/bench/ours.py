"""Our training, as a worker starts it: the loop of `vgf run` without logs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..data.dataset import Dataset, check_dataset
from ..runs.agent import make_backend
from ..runs.config import BackendSettings
from ..runs.updates import UPDATES_PER_CALL, Batches, Request
from .work import Work

# The sides of a comparison that are ours: the backend, and whether it runs operation by operation.
OURS = {
    "jax": ("jax", False),
    "torch": ("torch", False),
    "torch-eager": ("torch", True),
    "numpy": ("numpy", False),
}


def backend_settings(side: str, device: str, dtype: str, matmul_precision: str) -> BackendSettings:
    """What `vgf run` would be given for one of :data:`OURS`."""
    name, eager = OURS[side]
    return BackendSettings(name, device, dtype, matmul_precision, eager)


class Training:
    """Agents in training, side by side where there are several seeds.

    Args:
        backend: what computes.
        work: the sizes.
        dataset: what batches are sampled from.
    """

    def __init__(self, backend: Backend, work: Work, dataset: Dataset) -> None:
        self.backend, self.work, self.settings = backend, work, work.settings()
        sizes = work.observation_dim, work.action_dim
        self.states = [
            backend.init_state(seed, *sizes, self.settings) for seed in range(work.seeds)
        ]
        self.batches = Batches(dataset, backend, UPDATES_PER_CALL * work.batch_size * work.seeds)
        self.step = 0

    def run(self, count: int) -> None:
        """Make `count` updates of every agent."""
        end = self.step + count
        while self.step < end:
            together = min(end - self.step, UPDATES_PER_CALL)
            requests = [
                Request(
                    state,
                    self.settings,
                    self.batches.dataset,
                    seed,
                    self.step,
                    together,
                    self.work.batch_size,
                )
                for seed, state in enumerate(self.states)
            ]
            replies = self.batches.update(requests, together)
            self.states = [reply.state for reply in replies if reply is not None]
            self.step += together
        self.backend.synchronise(self.states)

    def describe(self) -> dict[str, Any]:
        """Where it runs."""
        return {"device": self.backend.device}

    def device_memory(self) -> int | None:
        """The most memory held on the device, in bytes; None for a CPU."""
        return device_memory(self.backend.device)


def device_memory(device: str) -> int | None:
    """The most memory that the framework in use has held on a GPU, in bytes; None for a CPU."""
    if device == "cpu":
        return None
    index = int(device.partition(":")[2] or 0)
    if "torch" in sys.modules:
        return int(sys.modules["torch"].cuda.max_memory_allocated(index))
    stats = sys.modules["jax"].devices()[index].memory_stats()
    return None if not stats else int(stats["peak_bytes_in_use"])


def start(
    side: str, work: dict[str, Any], data: str, device: str, dtype: str, matmul_precision: str
) -> Training:
    """What a worker starts.

    Args:
        side: of :data:`OURS`.
        work: the fields of :class:`vgf.bench.work.Work`.
        data: an .npz file of the data set.
        device, dtype, matmul_precision: as :class:`vgf.runs.config.BackendSettings`.
    """
    backend = make_backend(backend_settings(side, device, dtype, matmul_precision))
    with np.load(data) as arrays:
        dataset = check_dataset(arrays, "the benchmark's data")
    return Training(backend, Work(**work), dataset)

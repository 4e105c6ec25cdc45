"""Other people's training, imported from a checkout when it is timed; nothing of theirs is here.

Runs in the Python that their code needs: imports the standard library and NumPy, and what the
checkout brings. Each trains as its own `main.py` does: a batch from their data set class, their
agent's compiled update, and waiting for the device at the end only.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np


class Agent(NamedTuple):
    """An agent of theirs.

    Args:
        module: of their repository.
        name: the agent's class in it.
        sizes: their name of a setting, and ours of its size.
    """

    module: str
    name: str
    sizes: dict[str, str]


_FLOW = {
    "bc_flow_steps": "sampling_steps",
    "vgf_particles": "particles",
    "train_vgf_steps": "steps",
}
# For each repository, the methods that it trains.
PEERS = {
    "ryanxhr/vgf": {
        "vgf": Agent("agents.vgf", "VGFAgent", _FLOW),
        "avgf": Agent("agents.a_vgf", "AVGFAgent", _FLOW),
    },
    "seohongpark/fql": {"fql": Agent("agents.fql", "FQLAgent", {"flow_steps": "sampling_steps"})},
}
_PACKAGES = ("numpy", "jax", "jaxlib", "flax", "optax")


class Training:
    """One of their agents in training.

    Args:
        peer: the repository, of :data:`PEERS`.
        checkout: where it lies.
        work: the fields of :class:`vgf.bench.work.Work`.
        data: an .npz file of the data set.
    """

    def __init__(self, peer: str, checkout: str, work: dict[str, Any], data: str) -> None:
        sys.path.insert(0, os.path.abspath(checkout))
        agent = PEERS[peer][work["method"]]
        theirs = importlib.import_module(agent.module)
        config = theirs.get_config()
        hidden = (work["width"],) * work["depth"]
        sizes = {
            "batch_size": work["batch_size"],
            "value_hidden_dims": hidden,
            "actor_hidden_dims": hidden,
            **{name: work[size] for name, size in agent.sizes.items()},
        }
        for name, value in sizes.items():
            if name not in config:
                raise KeyError(f"{agent.module} of {checkout} has no setting {name}")
            config[name] = value
        with np.load(data) as arrays:
            self.dataset = importlib.import_module("utils.datasets").Dataset.create(**arrays)
        self.batch_size = work["batch_size"]
        first = self.dataset.sample(1)
        self.agent = getattr(theirs, agent.name).create(
            0, first["observations"], first["actions"], config
        )

    def run(self, count: int) -> None:
        """Make `count` updates."""
        info: Any = {}
        for _ in range(count):
            self.agent, info = self.agent.update(self.dataset.sample(self.batch_size))
        if "jax" in sys.modules:
            sys.modules["jax"].block_until_ready((self.agent, info))

    def describe(self) -> dict[str, Any]:
        """Where and with what it runs."""
        found: dict[str, Any] = {"versions": {"python": sys.version.split()[0]}, "device": "cpu"}
        for package in _PACKAGES:
            try:
                found["versions"][package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        if "jax" in sys.modules:
            found["device"] = sys.modules["jax"].devices()[0].platform
        return found

    def device_memory(self) -> int | None:
        """The most memory held on the device, in bytes; None for a CPU."""
        if "jax" not in sys.modules:
            return None
        stats = sys.modules["jax"].devices()[0].memory_stats()
        return None if not stats else int(stats["peak_bytes_in_use"])


def start(**options: Any) -> Training:
    """What a worker starts."""
    return Training(**options)

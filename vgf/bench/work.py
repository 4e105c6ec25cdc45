"""The sizes of one training update that are measured, under the names that a user types."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..methods import find_method
from ..spec.settings import Network, Settings, method_settings
from ..support.errors import VGFError


@dataclass(frozen=True)
class Work:
    """What one training update is of.

    Args:
        method: as :func:`vgf.methods.find_method` takes its name; of your own, ``module:class``
            or ``path/to/file.py:class``.
        observation_dim, action_dim: o and d.
        depth, width: hidden layers of every network, and units in each.
        batch_size: B.
        sampling_steps: K, Euler steps of the reference's sampler.
        particles: N; a method that moves none and has one by default has one.
        steps: L, the flow steps of training; 0 for a method that moves no particles.
        seeds: agents trained side by side; a time is that of one update of one of them.
        transitions: rows of the data set that batches are sampled from.

    Raises:
        VGFError: a size out of its range, or a contradiction with the method, named.
    """

    method: str = "vgf"
    observation_dim: int = 28
    action_dim: int = 5
    depth: int = 4
    width: int = 512
    batch_size: int = 256
    sampling_steps: int = 10
    particles: int = 10
    steps: int = 5
    seeds: int = 1
    transitions: int = 100_000

    def __post_init__(self) -> None:
        fixed = fixed_sizes(self.method)
        for field in dataclasses.fields(self):
            low = 0 if field.name == "steps" else 1
            value = getattr(self, field.name)
            if field.name != "method" and value < low:
                name = field.name.replace("_", "-")
                raise VGFError(f"--{name} is {value}; it must be {low} or more")
        if self.steps and "steps" in fixed:
            raise VGFError(f"method {self.method} moves no particles; drop --steps")
        if self.particles != 1 and "particles" in fixed:
            raise VGFError(f"method {self.method} has one particle; drop --particles")
        try:
            self.settings()
        except ValueError as error:
            raise VGFError(str(error)) from error

    @property
    def name(self) -> str:
        """A short name, which the command takes back."""
        flow = "".join(f"-{letter.lower()}{size}" for letter, size in self._flow())
        return f"{self.method}-{self.depth}x{self.width}{flow}-o{self.observation_dim}"

    @property
    def title(self) -> str:
        """All of its sizes, for people."""
        flow = "".join(f"{letter} {size}, " for letter, size in self._flow())
        text = (
            f"{self.method}, {self.depth} x {self.width}, {flow}K {self.sampling_steps}, "
            f"o {self.observation_dim}, d {self.action_dim}, batch {self.batch_size}"
        )
        return text if self.seeds == 1 else f"{text}, {self.seeds} seeds"

    def _flow(self) -> list[tuple[str, int]]:
        """The sizes of the flow that the method leaves open."""
        sizes = {"particles": ("N", self.particles), "steps": ("L", self.steps)}
        fixed = fixed_sizes(self.method)
        return [size for name, size in sizes.items() if name not in fixed]

    def settings(self) -> Settings:
        """The method's settings, as its authors run it, at these sizes."""
        base = method_settings(self.method)
        networks: dict[str, Any] = {
            field.name: dataclasses.replace(network, hidden=(self.width,) * self.depth)
            for field in dataclasses.fields(base)
            if isinstance(network := getattr(base, field.name), Network)
        }
        return dataclasses.replace(
            base,
            **networks,
            sampling_steps=self.sampling_steps,
            particles=self.particles,
            budget=dataclasses.replace(base.budget, steps=self.steps),
        )

    def dataset(self) -> dict[str, np.ndarray]:
        """Made-up transitions, the same for everybody: every field ``[M, ...]`` float32.

        States and rewards are standard normal, actions uniform in [-1, 1]; a row's next state is
        the state of the row after it, one row in a hundred ends a trajectory, and no task is done.
        """
        rng = np.random.default_rng(0)
        m, o, d = self.transitions, self.observation_dim, self.action_dim
        terminals = np.zeros(m, np.float32)
        terminals[99::100] = terminals[-1] = 1
        states = rng.standard_normal((m + 1, o), np.float32)
        return {
            "observations": states[:-1],
            "actions": 2 * rng.random((m, d), np.float32) - 1,
            "rewards": rng.standard_normal(m, np.float32),
            "masks": np.ones(m, np.float32),
            "terminals": terminals,
            "next_observations": states[1:],
        }


def fixed_sizes(method: str) -> dict[str, int]:
    """The sizes that a method has no choice of: without transport, no step; and one particle,
    where that is its default.

    Raises:
        VGFError: an unknown method, or one whose defaults contradict it.
    """
    try:
        transports, own = find_method(method).transports, method_settings(method)
    except ValueError as error:
        raise VGFError(str(error)) from error
    if transports:
        return {}
    return {"steps": 0, **({"particles": 1} if own.particles == 1 else {})}


FULL = Work()
SMOKE = Work(
    observation_dim=6,
    action_dim=2,
    depth=2,
    width=16,
    batch_size=16,
    sampling_steps=2,
    particles=3,
    steps=1,
    transitions=500,
)
# What is recorded: the paper's sizes, then smaller networks, then the baseline.
RECORDED = (
    *(Work(particles=n, steps=steps) for n, steps in ((10, 5), (10, 3), (5, 1), (1, 0))),
    *(Work("avgf", particles=5, steps=steps) for steps in (5, 1)),
    *(Work(observation_dim=o) for o in (83, 220)),
    Work(width=256, particles=5, steps=1),
    Work(depth=2, width=64, particles=5, steps=1),
    Work("fql", particles=1, steps=0),
)
NAMED = {work.name: work for work in RECORDED}


def choose(names: list[str] | None, changes: dict[str, Any]) -> list[Work]:
    """The works of these names, or the full size for none, each with some sizes changed.

    Raises:
        VGFError: an unknown name, or a size out of its range.
    """
    for name in names or []:
        if name not in NAMED:
            raise VGFError(f"--work {name}: unknown; choose among {', '.join(NAMED)}")
    if "method" in changes:
        changes = {**fixed_sizes(changes["method"]), **changes}
    picked = [NAMED[name] for name in names] if names else [FULL]
    return [dataclasses.replace(work, **changes) for work in picked]

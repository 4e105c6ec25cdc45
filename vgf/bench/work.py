"""The sizes of one training update that are measured, under the names that a user types."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec.settings import Network, Settings, method_settings
from ..support.errors import VGFError


@dataclass(frozen=True)
class Work:
    """What one training update is of.

    Args:
        method: "vgf", "avgf" or "fql".
        observation_dim, action_dim: o and d.
        depth, width: hidden layers of every network, and units in each.
        batch_size: B.
        sampling_steps: K, Euler steps of the reference's sampler.
        particles: N; "fql" has one.
        steps: L, the flow steps of training; "fql" has none.
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
        if self.method not in METHODS:
            raise VGFError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        for field in dataclasses.fields(self):
            low = 0 if field.name == "steps" else 1
            value = getattr(self, field.name)
            if field.name != "method" and value < low:
                name = field.name.replace("_", "-")
                raise VGFError(f"--{name} is {value}; it must be {low} or more")
        if self.method == "fql" and (self.particles, self.steps) != (1, 0):
            raise VGFError("method fql has one particle and no flow step; drop the flags")

    @property
    def name(self) -> str:
        """A short name, which the command takes back."""
        parts = [self.method, f"{self.depth}x{self.width}"]
        if self.method != "fql":
            parts += [f"n{self.particles}", f"l{self.steps}"]
        return "-".join([*parts, f"o{self.observation_dim}"])

    @property
    def title(self) -> str:
        """All of its sizes, for people."""
        flow = "" if self.method == "fql" else f"N {self.particles}, L {self.steps}, "
        text = (
            f"{self.method}, {self.depth} x {self.width}, {flow}K {self.sampling_steps}, "
            f"o {self.observation_dim}, d {self.action_dim}, batch {self.batch_size}"
        )
        return text if self.seeds == 1 else f"{text}, {self.seeds} seeds"

    def settings(self) -> Settings:
        """The method's settings, as its authors run it, at these sizes."""
        hidden = (self.width,) * self.depth
        base = method_settings(self.method)
        return dataclasses.replace(
            base,
            critic=Network(hidden, layer_norm=True),
            reference=Network(hidden),
            gradient_field=Network(hidden, layer_norm=True),
            policy=Network(hidden),
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


METHODS = ("vgf", "avgf", "fql")
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
            raise VGFError(f"{name} is no size that is known; choose among {', '.join(NAMED)}")
    if changes.get("method") == "fql":
        changes = {"particles": 1, "steps": 0, **changes}
    picked = [NAMED[name] for name in names] if names else [FULL]
    return [dataclasses.replace(work, **changes) for work in picked]

"""Consecutive whole updates on two backends, from the same start, batches and noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..backends.numpy import NumpyBackend
from ..spec.optimiser import tree_map
from ..spec.settings import CRITIC_LOSSES, Budget, Network, Settings, method_settings
from ..spec.update import draw_update_noise, init_state
from .compare import named_leaves

_SMALL: dict[str, Any] = {
    "critic": Network((32, 32), layer_norm=True),
    "reference": Network((32, 32)),
    "gradient_field": Network((32, 32), layer_norm=True),
    "policy": Network((32, 32)),
    "sampling_steps": 5,
}
_FLOWS: dict[str, dict[str, Any]] = {
    "vgf": {"budget": Budget(steps=3, step_size=0.1, temperature=0.2)},
    "avgf": {
        "budget": Budget(steps=3, step_size=0.1, temperature=None, clip_norm=1.0),
        "clip_norm": 1.0,
    },
}
_REFERENCES: dict[str, dict[str, Any]] = {
    "vgf flow": {},
    "vgf gaussian": {"reference_kind": "gaussian", "reference_tanh": True},
    "avgf flow": {},
    "avgf gaussian": {"reference_kind": "gaussian"},
}
# VGF and A-VGF, both references, all critic losses; then the baselines
TRAININGS: dict[str, Settings] = {
    f"{name} {loss}": Settings(
        method=name.split()[0],
        critic_loss=loss,
        particles=5,
        **_FLOWS[name.split()[0]],
        **reference,
        **_SMALL,
    )
    for name, reference in _REFERENCES.items()
    for loss in CRITIC_LOSSES
}
TRAININGS |= {
    "bc flow": method_settings("bc", **_SMALL),
    "bc gaussian": method_settings("bc", reference_kind="gaussian", **_SMALL),
    "weighted_bc flow": method_settings("weighted_bc", particles=4, **_SMALL),
    "weighted_bc gaussian": method_settings(
        "weighted_bc", reference_kind="gaussian", particles=4, **_SMALL
    ),
    "fql": method_settings("fql", **_SMALL),
    "fql normalised": method_settings("fql", normalise_values=True, distillation=1.0, **_SMALL),
}
OBSERVATION_DIM, ACTION_DIM, BATCH = 6, 3, 32
# The largest relative difference that a hundred updates in float64 may make.
DRIFT_BOUND = 1e-8


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far one backend's parameters are from the specification's after some updates.

    Attributes:
        absolute: the largest difference of any number.
        relative: the largest difference of any array, over that array's largest number.
        leaf: the array of the largest relative difference.
    """

    updates: int
    absolute: float
    relative: float
    leaf: str


def batches(updates: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random transitions of a made-up task, some of which end it."""
    rng = np.random.default_rng(seed)
    return [
        {
            "observations": rng.standard_normal((BATCH, OBSERVATION_DIM)),
            "actions": rng.uniform(-1, 1, (BATCH, ACTION_DIM)),
            "rewards": rng.standard_normal(BATCH),
            "masks": (rng.random(BATCH) > 0.1).astype(np.float64),
            "next_observations": rng.standard_normal((BATCH, OBSERVATION_DIM)),
        }
        for _ in range(updates)
    ]


def course(backend: Backend, settings: Settings, updates: int, seed: int = 0) -> Iterator[Any]:
    """The state after each of some updates; numbers rounded to the backend's dtype."""
    state = backend.asarray(init_state(seed, OBSERVATION_DIM, ACTION_DIM, settings))
    for step, batch in enumerate(batches(updates, seed)):
        noise = draw_update_noise(seed, step, BATCH, ACTION_DIM, settings)
        state, _ = backend.update(state, backend.asarray(batch), settings, backend.asarray(noise))
        yield state


def train(backend: Backend, settings: Settings, updates: int, seed: int = 0) -> Any:
    """The state after some updates, as NumPy arrays."""
    *_, last = course(backend, settings, updates, seed)
    return backend.to_numpy(last)


def measure_drift(
    backend: Backend,
    training: str | Settings,
    updates: int = 100,
    seed: int = 0,
    bound: float | None = None,
) -> Drift:
    """Train on a backend and on the specification in float64, and compare all of the state.

    Args:
        training: a key of :data:`TRAININGS`, or settings.
        bound: stop at the first update after which the relative difference exceeds it.
    """
    settings = TRAININGS[training] if isinstance(training, str) else training
    reference = NumpyBackend("cpu", "float64", "float32")
    found = Drift(0, 0.0, 0.0, "")
    pairs = zip(
        course(backend, settings, updates, seed),
        course(reference, settings, updates, seed),
        strict=True,
    )
    for count, (got, want) in enumerate(pairs, 1):
        if count == updates or bound is not None:
            found = drift(backend.to_numpy(got), want, count)
            if bound is not None and not found.relative <= bound:
                break
    return found


def drift(got: Any, want: Any, updates: int) -> Drift:
    """Compare two states, array by array; NaN counts as infinitely far."""
    tree_map(lambda *_: None, got, want)  # the keys agree
    worst = Drift(updates, 0.0, 0.0, "")
    absolute = 0.0
    for (leaf, g), (_, w) in zip(named_leaves(got), named_leaves(want), strict=True):
        gap = np.abs(np.asarray(g, np.float64) - np.asarray(w, np.float64))
        error = float(np.max(np.where(np.isnan(gap), np.inf, gap), initial=0.0))
        size = float(np.max(np.abs(np.asarray(w)), initial=0.0))
        relative = error / size if size else error
        absolute = max(absolute, error)
        if relative > worst.relative:
            worst = Drift(updates, absolute, relative, leaf)
    return dataclasses.replace(worst, absolute=absolute)

"""A walking policy for gymnasium's Hopper, to record data with: `validation.hopper:policy`.

A linear policy found by random search (Mania et al. 2018, the basic form), the same on every run
of the same simulator. It is not an expert: the data it records are of medium quality at best.

    python -m validation.hopper     # searches, and writes results/hopper-policy.json
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

import numpy as np

from vgf.spec.types import Array
from vgf.support.extras import need

from .record import RESULTS, write_json

ENV = "Hopper-v5"
WEIGHTS = RESULTS / "hopper-policy.json"
ITERATIONS, DIRECTIONS, BEST, STEP, NOISE = 40, 8, 4, 0.1, 0.1


def act(weights: Array, observation: Array) -> Array:
    """The action of a linear policy: weights ``[d, o + 1]``, the last column a constant."""
    return np.clip(weights[:, :-1] @ observation + weights[:, -1], -1.0, 1.0)


def episode(env: Any, weights: Array, seed: int) -> float:
    """The return of an episode."""
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(act(weights, observation))
        total += float(reward)
        over = terminated or truncated
    return total


def search(iterations: int = ITERATIONS, seed: int = 0) -> Array:
    """Random search: steps along the directions whose two sides differ most in return."""
    env = need("gymnasium", "envs").make(ENV)
    rng = np.random.default_rng(seed)
    weights = np.zeros((env.action_space.shape[0], env.observation_space.shape[0] + 1))
    for iteration in range(iterations):
        directions = rng.standard_normal((DIRECTIONS, *weights.shape))
        returns = np.array(
            [
                [episode(env, weights + side * NOISE * way, iteration) for side in (1, -1)]
                for way in directions
            ]
        )
        best = np.argsort(-returns.max(axis=1))[:BEST]
        gaps = returns[best, 0] - returns[best, 1]
        step = STEP / (BEST * returns[best].std() + 1e-6)
        weights = weights + step * np.einsum("k,kij->ij", gaps, directions[best])
    env.close()
    return weights


@cache
def _weights() -> Array:
    return np.asarray(json.loads(WEIGHTS.read_text())["weights"])


def policy(observation: Array) -> Array:
    """The action of the recorded policy: ``[o]`` -> ``[d]``."""
    return act(_weights(), observation)


def main() -> int:
    weights = search()
    env = need("gymnasium", "envs").make(ENV)
    returns = [episode(env, weights, seed) for seed in range(20)]
    env.close()
    print(f"{ENV}: return {np.mean(returns):.0f} over {len(returns)} episodes")
    write_json(WEIGHTS, {"env": ENV, "iterations": ITERATIONS, "weights": weights.tolist()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

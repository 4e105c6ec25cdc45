"""What an environment returns, as the networks see it; part of an agent, like its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..spec.types import Array
from .dataset import Dataset, standardise


class Scaling:
    """Observations shifted and scaled by the offline data's statistics, or left alone; rewards
    shifted and scaled like those of the offline data.

    Args:
        mean, std: ``[o]``, or None to leave observations alone.
        reward_shift, reward_scale: rewards are (r + shift) * scale, where r is the environment's.
    """

    def __init__(
        self,
        mean: Array | None,
        std: Array | None,
        reward_shift: float = 0.0,
        reward_scale: float = 1.0,
    ) -> None:
        self.mean, self.std = mean, std
        self.reward_shift, self.reward_scale = reward_shift, reward_scale

    @classmethod
    def of(cls, dataset: Dataset, standardised: bool) -> Scaling:
        """The scaling of a run's data, with observations standardised or not."""
        rewards = dataset.reward_shift, dataset.reward_scale
        if not standardised:
            return cls(None, None, *rewards)
        return cls(dataset.observation_mean, dataset.observation_std, *rewards)

    def __call__(self, observations: Array) -> Array:
        """Observations ``[*, o]`` -> the same shape."""
        if self.mean is None or self.std is None:
            return observations
        return standardise(observations, self.mean, self.std)

    def rewards(self, rewards: Array) -> Array:
        """The environment's rewards ``[*]`` -> the same shape."""
        return (rewards + self.reward_shift) * self.reward_scale

    def dataset(self, dataset: Dataset) -> Dataset:
        """The same data, with observations scaled on use; their rewards already are."""
        return dataclasses.replace(dataset, mean=self.mean, std=self.std)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint, so that it acts, and learns online, without its data."""
        value: dict[str, Any] = {
            "reward_shift": self.reward_shift,
            "reward_scale": self.reward_scale,
        }
        if self.mean is not None and self.std is not None:
            value |= {"mean": self.mean.tolist(), "std": self.std.tolist()}
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scaling:
        """As :meth:`to_json` wrote it.

        Raises:
            ValueError: it did not.
        """
        try:
            mean, std = (
                np.asarray(value[name], np.float32) if name in value else None
                for name in ("mean", "std")
            )
            shift, scale = float(value["reward_shift"]), float(value["reward_scale"])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"its scaling is damaged: {error}") from error
        vectors = [array for array in (mean, std) if array is not None]
        sound = len({array.shape for array in vectors}) == bool(vectors) and len(vectors) != 1
        if not sound or any(array.ndim != 1 or not np.isfinite(array).all() for array in vectors):
            raise ValueError("its scaling is damaged: mean and std must be two vectors of numbers")
        if not np.isfinite([shift, scale]).all() or (std is not None and (std <= 0).any()):
            raise ValueError("its scaling is damaged: a number out of range")
        return cls(mean, std, shift, scale)

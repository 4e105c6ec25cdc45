"""Updates and acting in torch, and their random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...spec.settings import Budget, Settings
from ...spec.update import ACT, TRAIN, update_draws
from ..base import Tree
from .device import TorchDevice, with_precision


class TorchUpdates(TorchDevice):
    """The agent: updates, acting, and their random numbers."""

    @with_precision
    def update_from_noise(
        self, state: Tree, batch: Tree, noise: Tree, settings: Settings
    ) -> tuple[Tree, Tree]:
        done: tuple[Tree, Tree] = self._update(state, batch, noise, settings)
        self.compiles_first = False
        return done

    @with_precision
    def act_from_noise(
        self, state: Tree, s: Tensor, noise: Tree, budget: Budget, settings: Settings
    ) -> tuple[Tensor, Tree]:
        return super().act_from_noise(state, s, noise, budget, settings)

    def draw_update_noise(self, seed, step, batch_size, action_dim, settings):
        random = self._generator(int(seed), TRAIN, int(step))
        draw = {"normal": random.normal, "uniform": random.uniform}
        wanted = update_draws(batch_size, action_dim, settings)
        return {name: draw[kind](*shape) for name, (kind, shape) in wanted.items()}

    def draw_act_noise(self, seed, draw, batch_size, particles, action_dim):
        random = self._generator(int(seed), ACT, int(draw))
        return {
            "particles": random.normal(batch_size, particles, action_dim),
            "select": random.uniform(batch_size),
        }

    def _generator(self, *key: int) -> _Random:
        return _Random(self.torch_device, self.torch_dtype, key)


class _Random:
    """Random numbers on a device, fixed by a key of integers."""

    def __init__(self, device: torch.device, dtype: torch.dtype, key: tuple[int, ...]) -> None:
        word = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        self.generator = torch.Generator(device).manual_seed(word >> 1)
        self.kind: dict[str, Any] = {"device": device, "dtype": dtype}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, **self.kind)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, **self.kind)

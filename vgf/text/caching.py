"""The attention cache of prompts, computed once for all responses to them and all steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

try:
    from transformers.cache_utils import DynamicLayer
except ImportError:  # before transformers 4.54: every cache is computed anew

    class DynamicLayer:  # type: ignore[no-redef]
        """No layer is one."""


KEPT = 4  # batches of prompts


class PromptCache:
    """The caches of the last prompts that a model read.

    There is one where the model takes it, and all its layers keep keys and values of every token.

    Args:
        model: a causal model of transformers, with or without a head.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        accepts = inspect.signature(model.forward).parameters
        names = [name for name in ("cache", "past_key_values") if name in accepts]
        self.name = names[0] if names and "position_ids" in accepts else None
        self._kept: dict[Any, tuple[Any, Tensor]] = {}

    def clear(self) -> None:
        """Forget all prompts."""
        self._kept.clear()

    def of(
        self, prompts: Sequence[Sequence[int]], pad: int, device: torch.device
    ) -> tuple[dict[str, Any], Tensor] | None:
        """The cache of some prompts, equal ones read once, as an argument of the model.

        Args:
            prompts: rows of tokens, which are padded on the left.
            pad: any token.
            device: the model's.

        Returns:
            The argument, which the model may change, and ones at tokens ``[B, P]``; None where
            there is none.
        """
        rows = list(map(tuple, prompts))
        unique = tuple(dict.fromkeys(rows))
        width = max(map(len, unique))
        if self.name is None or width == 0:
            return None
        if unique not in self._kept:
            if len(self._kept) == KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[unique] = self._read(unique, width, pad, device)
        cache, mask = self._kept[unique]
        if cache is None:
            return None
        place = {row: i for i, row in enumerate(unique)}
        index = torch.tensor([place[row] for row in rows])  # on no device: layers may be on several
        own = copy.deepcopy(cache)
        own.batch_select_indices(index)
        return {self.name: own}, mask[index]

    @torch.no_grad()
    def _read(
        self, unique: Sequence[tuple[int, ...]], width: int, pad: int, device: torch.device
    ) -> tuple[Any, Tensor]:
        gaps = [width - len(row) for row in unique]
        pairs = list(zip(gaps, unique, strict=True))
        ids = torch.tensor([[pad] * gap + list(row) for gap, row in pairs], device=device)
        mask = torch.tensor([[0] * gap + [1] * len(row) for gap, row in pairs], device=device)
        found = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
        )
        cache = getattr(found, self.name or "", None)
        layers = getattr(cache, "layers", [])
        plain = type(cache) is DynamicCache and all(isinstance(x, DynamicLayer) for x in layers)
        linear = any("Linear" in type(x).__name__ for x in layers)
        return (cache if plain and layers and not linear else None), mask

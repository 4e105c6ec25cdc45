"""The reward model as a differentiable function of its input embeddings.

Hugging Face's decoder-based sequence classifiers read the last position when given embeddings,
padding or not. Here the last token of every row is read, so that a padded batch gives
the rewards and gradients of its rows one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..support.errors import VGFError


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one output.

    Attributes:
        model: as Hugging Face loads it.
        vocabulary: V, the tokenizer's number of tokens.
        dtype: of the particles: float64 for a model of that dtype, and float32 otherwise.
    """

    model: Any
    vocabulary: int

    @property
    def device(self) -> torch.device:
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        own = self.model.get_input_embeddings().weight.dtype
        return torch.float64 if own == torch.float64 else torch.float32

    @cached_property
    def table(self) -> Tensor:
        """The embeddings of all tokens ``[V, d]``."""
        return self._embed(range(self.vocabulary)).to(self.dtype)

    @cached_property
    def scale(self) -> float:
        """The root mean square norm of the token embeddings: the unit of length."""
        return float(self.table.square().sum(-1).mean().sqrt())

    @torch.no_grad()
    def rewards(self, rows: Sequence[list[int]]) -> Tensor:
        """The reward of each row of tokens ``[B]``, prompt and response together."""
        return self._read([self._embed(row) for row in rows])

    def gradients(
        self, prompts: Sequence[list[int]], u: Sequence[Tensor], ends: Sequence[list[int]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Rewards, and their gradients with respect to the embeddings of the responses.

        Args:
            prompts: rows of tokens before the embeddings.
            u: for each row, embeddings ``[T_i, d]``.
            ends: rows of tokens after them, which may be empty.

        Returns:
            Rewards ``[B]``, and for each row dR / du ``[T_i, d]``.
        """
        free = [row.detach().requires_grad_() for row in u]
        own = self.model.get_input_embeddings().weight.dtype
        rows = [
            torch.cat([self._embed(prompt), row.to(own), self._embed(end)])
            for prompt, row, end in zip(prompts, free, ends, strict=True)
        ]
        with torch.enable_grad():
            rewards = self._read(rows)
            found = torch.autograd.grad(rewards.sum(), free)
        return rewards.detach(), list(found)

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        ids = torch.tensor(list(tokens), dtype=torch.long, device=self.device)
        with torch.no_grad():
            found: Tensor = self.model.get_input_embeddings()(ids)
        return found

    def _read(self, rows: list[Tensor]) -> Tensor:
        """The model's output for rows of embeddings ``[L_i, d]``."""
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        if hasattr(self.model, "score"):  # the head of decoders, on the last token
            body = self.model.base_model(
                inputs_embeds=pad_sequence(rows, True),
                attention_mask=(
                    torch.arange(int(lengths.max()), device=self.device) < lengths[:, None]
                ).long(),
                use_cache=False,
            )
            at = torch.arange(len(rows), device=self.device)
            found = self.model.score(body.last_hidden_state[at, lengths - 1])[:, 0]
        else:  # any other head reads whole rows: those of one length at a time, without padding
            found = torch.empty(len(rows), dtype=rows[0].dtype, device=self.device)
            for length in {len(row) for row in rows}:
                same = (lengths == length).nonzero()[:, 0]
                batch = torch.stack([row for row in rows if len(row) == length])
                ones = torch.ones(batch.shape[:2], dtype=torch.long, device=self.device)
                logits = self.model(inputs_embeds=batch, attention_mask=ones).logits[:, 0]
                found = found.index_put((same,), logits.to(found.dtype))
        found = found.to(self.dtype)
        if not bool(found.isfinite().all()):
            raise VGFError(
                f"the reward model gives {found.tolist()}; a wider --rm-dtype may keep it finite"
            )
        return found

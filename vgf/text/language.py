"""The base model: sampling responses, their likelihood, and decoding moved embeddings.

Sampling and decoding are Hugging Face's `generate`, with its sampler replaced: rows of a batch do
not share random numbers, so that a prompt's responses do not depend on what else was in the batch,
except for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..backends.base import Backend
from .settings import AlignSettings

SAMPLE, DIRECTION = 1, 2  # the purposes of random numbers


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Random numbers on a device, fixed by a key: the seed, the purpose, and further numbers."""
    word = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(word >> 1)


def portions(lengths: Sequence[int], most: int) -> Iterator[slice]:
    """Consecutive rows that, padded to their longest, hold at most a number of tokens.

    A single longer row is a portion by itself.
    """
    start, longest = 0, 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if i > start and longest * (i + 1 - start) > most:
            yield slice(start, i)
            start, longest = i, length
    if lengths:
        yield slice(start, len(lengths))


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokens.

    Attributes:
        model: as Hugging Face loads it.
        end: the end-of-text token, or None.
        pad: the padding token.
        allowed: booleans ``[V]``, false for special tokens; V is the tokenizer's number of tokens.
    """

    model: Any
    end: int | None
    pad: int
    allowed: Tensor

    @property
    def device(self) -> torch.device:
        return self.allowed.device

    def movable(self, response: Sequence[int]) -> list[int]:
        """The tokens of a response that the flow moves: all but the end of the text."""
        return list(response[:-1] if response[-1] == self.end else response)

    def sample(
        self, prompts: Sequence[list[int]], keys: Sequence[tuple[int, ...]], settings: AlignSettings
    ) -> list[list[int]]:
        """One response to each row of prompts, including the end of the text if there is one.

        Args:
            prompts: rows of tokens.
            keys: of each row's random numbers.
            settings: of generation.
        """
        pick: list[Any] = [_OnlyAllowed(self, settings.min_new_tokens)]
        pick.append(TemperatureLogitsWarper(settings.sampling_temperature))
        if settings.top_k is not None:
            pick.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p is not None:
            pick.append(TopPLogitsWarper(settings.top_p))
        pick.append(_Gumbel([generator(self.device, *key) for key in keys]))
        rows = self._generate(prompts, pick, settings.max_new_tokens, self.end)
        return [row[: row.index(self.end) + 1] if self.end in row else row for row in rows]

    def decode(
        self,
        backend: Backend,
        prompts: Sequence[list[int]],
        u: Tensor,
        originals: Sequence[list[int]],
        table: Tensor,
        weight: float,
        top: int,
    ) -> list[list[int]]:
        """Moved embeddings as tokens, from left to right by :func:`vgf.spec.decoding_scores`.

        Args:
            backend: whose `decoding_scores` it is.
            prompts: rows of tokens.
            u: ``[B, T, d]``, padded.
            originals: for each row, the tokens that its embeddings started from.
            table: all token embeddings ``[V, d]``, in the space of u.
            weight, top: see :class:`vgf.text.AlignSettings`.
        """
        first = pad_sequence([torch.tensor(row) for row in originals], True).to(self.device)
        u, table = u.to(self.device), table.to(self.device)
        pick = _Decoding(backend, u, first, table, self.allowed, weight, top)
        rows = self._generate(prompts, [pick], first.shape[1], None)
        return [row[: len(own)] for row, own in zip(rows, originals, strict=True)]

    @torch.no_grad()
    def log_likelihoods(
        self, prompts: Sequence[list[int]], responses: Sequence[list[int]]
    ) -> list[float]:
        """log p(response | prompt) of each row, summed over the response's tokens."""
        rows = [
            torch.tensor(prompt + response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        ids = pad_sequence(rows, True, self.pad).to(self.device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], True).to(self.device)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = []
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            start, stop = len(prompt), len(prompt) + len(response)
            log_p = logits[i, start - 1 : stop - 1].float().log_softmax(-1)
            found.append(float(log_p.gather(1, ids[i, start:stop, None]).double().sum()))
        return found

    @torch.no_grad()
    def _generate(
        self, prompts: Sequence[list[int]], pick: list[Any], longest: int, end: int | None
    ) -> list[list[int]]:
        """What follows each prompt if the token with the largest logit is taken, padded."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        own = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=longest,
            pad_token_id=self.pad,
            eos_token_id=end,
        )
        with _without_its_defaults(self.model):
            out = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=own,
                logits_processor=LogitsProcessorList(pick),
            )
        rows: list[list[int]] = out[:, width:].tolist()
        return rows


@contextmanager
def _without_its_defaults(model: Any) -> Iterator[None]:
    """Switch off the model's own defaults, such as a penalty or a forced token."""
    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


class _OnlyAllowed(LogitsProcessor):
    """No special token but the end, and that one not too early."""

    def __init__(self, language: LanguageModel, least: int) -> None:
        self.allowed, self.end, self.left = language.allowed, language.end, least

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        kept = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        kept[: len(self.allowed)] = self.allowed
        if self.end is not None:
            kept[self.end] = self.left <= 0
        self.left -= 1
        return scores.masked_fill(~kept, -torch.inf)


class _Gumbel(LogitsProcessor):
    """Sampling: the largest of logits + Gumbel noise is a draw from their softmax."""

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.double()
        noise = [
            torch.empty_like(row).exponential_(generator=random).log()
            for row, random in zip(scores, self.generators, strict=True)
        ]
        return scores - torch.stack(noise)


class _Decoding(LogitsProcessor):
    """The decoding score of the next position in place of its logits."""

    def __init__(
        self,
        backend: Backend,
        u: Tensor,
        first: Tensor,
        table: Tensor,
        allowed: Tensor,
        weight: float,
        top: int,
    ) -> None:
        self.backend, self.u, self.first, self.table = backend, u, first, table
        self.allowed, self.weight, self.top, self.t = allowed, weight, top, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log_p = scores.to(self.u.dtype).log_softmax(-1)[:, : len(self.table)]
        found = self.backend.decoding_scores(
            self.u[:, self.t],
            log_p,
            self.table,
            self.first[:, self.t],
            self.allowed,
            self.weight,
            self.top,
        )
        self.t += 1
        return torch.full_like(scores, -torch.inf, dtype=found.dtype).index_copy(
            1, torch.arange(found.shape[1], device=found.device), found
        )

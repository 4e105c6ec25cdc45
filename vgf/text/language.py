"""The base model: sampling responses, their likelihood, and decoding moved embeddings.

Sampling and decoding are Hugging Face's `generate`, with its sampler replaced: rows of a batch do
not share random numbers, so that a prompt's responses do not depend on what else was in the batch,
except for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..backends.base import Backend
from .caching import PromptCache
from .reward import position_limit
from .settings import AlignSettings
from .tokens import added_text, character_spans, encode

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


class Generated(NamedTuple):
    """Rows of tokens, and log p(row | prompt) of each under the base model."""

    rows: list[list[int]]
    log_likelihoods: list[float]


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokens.

    Attributes:
        model: as Hugging Face loads it.
        tokenizer: its tokenizer.
        ends: the tokens that end a response, of the tokenizer and of the generation configuration.
        pad: the padding token.
        allowed: booleans ``[V]``, false for special tokens and ends; V is the number of tokens that
            a response can have.
    """

    model: Any
    tokenizer: Any
    ends: tuple[int, ...]
    pad: int
    allowed: Tensor

    @property
    def device(self) -> torch.device:
        return self.allowed.device

    @cached_property
    def limit(self) -> int | None:
        """The most tokens of a prompt and its response."""
        return position_limit(self.model)

    def movable(self, response: Sequence[int]) -> list[int]:
        """The tokens of a response that the flow moves: all but the end of the text."""
        return list(response[:-1] if response and response[-1] in self.ends else response)

    def sample(
        self, prompts: Sequence[list[int]], keys: Sequence[tuple[int, ...]], settings: AlignSettings
    ) -> Generated:
        """One response to each row of prompts, with the token that ends it, if one does.

        What a stop string and the text after it were is left out.

        Args:
            prompts: rows of tokens; the cache of equal ones is computed once.
            keys: of each row's random numbers.
            settings: of generation.
        """
        pick: list[Any] = [_OnlyAllowed(self, settings.min_new_tokens)]
        pick.append(TemperatureLogitsWarper(settings.sampling_temperature))
        if settings.top_k is not None:
            pick.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p is not None:
            pick.append(TopPLogitsWarper(settings.top_p))
        pick.append(_Draw([generator(self.device, *key) for key in keys]))
        strings = settings.stop_strings
        stop = [_StopStrings(self.tokenizer, prompts, strings)] if strings else []
        rows, log_p = self._generate(prompts, pick, settings.max_new_tokens, self.ends, stop)
        lengths = [_until(row, self.ends) for row in rows]
        rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        found = [math.fsum(own[:length]) for own, length in zip(log_p, lengths, strict=True)]
        return self.cut(prompts, Generated(rows, found), strings)

    def cut(
        self, prompts: Sequence[list[int]], given: Generated, strings: Sequence[str]
    ) -> Generated:
        """Responses up to the first stop string in their text, which is left out.

        A token that holds the beginning of one is replaced by the tokens of its text before it; if
        those do not read as that text, it is left out whole.
        """
        rows, log_p = list(given.rows), list(given.log_likelihoods)
        fresh = []
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            text = added_text(self.tokenizer, prompt, row)
            found = [at for at in (text.find(one) for one in strings) if at >= 0]
            if found:
                rows[i] = self._before(prompt, row, text[: min(found)])
                fresh.append(i)
        if fresh:
            again = self.log_likelihoods([prompts[i] for i in fresh], [rows[i] for i in fresh])
            for i, value in zip(fresh, again, strict=True):
                log_p[i] = value
        return Generated(rows, log_p)

    def _before(self, prompt: list[int], row: list[int], text: str) -> list[int]:
        spans = character_spans(self.tokenizer, prompt, row)
        whole = sum(high <= len(text) for _, high in spans)
        while whole and spans[whole - 1][0] >= len(text):
            whole -= 1  # tokens without text of their own
        kept = row[:whole]
        left = text[spans[whole - 1][1] if whole else 0 :]
        if left:
            more = kept + encode(self.tokenizer, left)
            if added_text(self.tokenizer, prompt, more) == text:
                return more
        return kept

    def decode(
        self,
        backend: Backend,
        prompts: Sequence[list[int]],
        u: Tensor,
        originals: Sequence[list[int]],
        table: Tensor,
        allowed: Tensor,
        weight: float | Sequence[float],
        top: int,
    ) -> Generated:
        """Moved embeddings as tokens, from left to right by :func:`vgf.spec.decoding_scores`.

        Args:
            backend: whose `decoding_scores` it is.
            prompts: rows of tokens.
            u: ``[B, T, d]``, padded.
            originals: for each row, the tokens that its embeddings started from, and after them the
                token that ends the response, if one does: it stays.
            table: all token embeddings ``[V, d]``, in the space of u.
            allowed: booleans ``[V]``, false for tokens not to be decoded to.
            weight, top: see :class:`vgf.text.AlignSettings`; the weight also for each row.
        """
        if not any(originals):
            return Generated([[] for _ in originals], [0.0 for _ in originals])
        rows = [torch.tensor(row, dtype=torch.long) for row in originals]
        first = pad_sequence(rows, True, padding_value=self.pad).to(self.device)
        u, table, allowed = (x.to(self.device) for x in (u, table, allowed))
        moving = torch.tensor([len(self.movable(row)) for row in originals], device=self.device)
        weights = torch.as_tensor(weight, dtype=u.dtype, device=self.device).reshape(-1, 1)
        pick = _Decoding(backend, u, first, moving, table, allowed, weights, top)
        found, log_p = self._generate(prompts, [pick], first.shape[1], (), [])
        cut = [len(row) for row in originals]
        return Generated(
            [row[:n] for row, n in zip(found, cut, strict=True)],
            [math.fsum(row[:n]) for row, n in zip(log_p, cut, strict=True)],
        )

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
            own = ids[i, start:stop, None].to(logits.device)
            log_p = logits[i, start - 1 : stop - 1].float().log_softmax(-1)
            found.append(float(log_p.gather(1, own).double().sum()))
        return found

    @torch.no_grad()
    def _generate(
        self,
        prompts: Sequence[list[int]],
        pick: list[Any],
        longest: int,
        ends: tuple[int, ...],
        stop: list[Any],
    ) -> tuple[list[list[int]], list[list[float]]]:
        """What follows each prompt if the token with the largest logit is taken, padded.

        Returns:
            The tokens, and the base model's log-probability of each.
        """
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        own = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=longest,
            pad_token_id=self.pad,
            eos_token_id=list(ends) or None,
        )
        picked = _Picked(pick)
        with _without_its_defaults(self.model):
            out = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=own,
                logits_processor=LogitsProcessorList([picked]),
                stopping_criteria=StoppingCriteriaList(stop),
                **self._prefix(prompts),
            )
        rows: list[list[int]] = out[:, width:].tolist()
        return rows, torch.stack(picked.log_p, 1).tolist()

    @cached_property
    def prefixes(self) -> PromptCache:
        """The last prompts' cache, which sampling and decoding share."""
        return PromptCache(self.model)

    def _prefix(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        """The cache of the prompts but for their last tokens, where the model has one."""
        found = self.prefixes.of([row[:-1] for row in prompts], self.pad, self.device)
        return {} if found is None else found[0]


def _until(row: list[int], ends: tuple[int, ...]) -> int:
    """The number of tokens up to the first end, which counts."""
    return next((t + 1 for t, token in enumerate(row) if token in ends), len(row))


@contextmanager
def _without_its_defaults(model: Any) -> Iterator[None]:
    """Switch off the model's own defaults, such as a penalty or a forced token."""
    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


class _Picked(LogitsProcessor):
    """Some processors, and the base model's own log-probability of every token that they pick.

    What they are given in place of logits is log-probabilities. They are one, as transformers looks
    at the signature of each at every token.
    """

    def __init__(self, pick: Sequence[Any]) -> None:
        self.pick = pick
        self.log_p: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        own = scores = scores.float().log_softmax(-1)
        for one in self.pick:
            scores = one(input_ids, scores)
        self.log_p.append(own.gather(1, scores.argmax(-1, keepdim=True))[:, 0].double())
        return scores


class _StopStrings(StoppingCriteria):
    """A response ends when its text holds one of some strings."""

    def __init__(
        self, tokenizer: Any, prompts: Sequence[list[int]], strings: Sequence[str]
    ) -> None:
        self.tokenizer, self.prompts, self.strings = tokenizer, prompts, strings
        self.width = max(map(len, prompts))

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        rows = input_ids[:, self.width :].tolist()
        texts = [
            added_text(self.tokenizer, prompt, row)
            for prompt, row in zip(self.prompts, rows, strict=True)
        ]
        found = [any(one in text for one in self.strings) for text in texts]
        return torch.tensor(found, device=input_ids.device)


class _OnlyAllowed(LogitsProcessor):
    """No special token but those that end a response, and these not too early."""

    def __init__(self, language: LanguageModel, least: int) -> None:
        self.language, self.left, self.banned = language, least, torch.empty(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not len(self.banned):
            self.banned = scores.new_ones(scores.shape[-1], dtype=torch.bool)
            self.banned[: len(self.language.allowed)] = ~self.language.allowed
        if self.left == 0:
            self.banned[[end for end in self.language.ends if end < len(self.banned)]] = False
        self.left -= 1
        return scores.masked_fill(self.banned, -torch.inf)


class _Draw(LogitsProcessor):
    """Sampling from the softmax of the logits: where its running sum passes a uniform number."""

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        total = scores.softmax(-1, torch.float64).cumsum(-1)
        uniform = [
            torch.rand(1, generator=random, device=scores.device, dtype=total.dtype)
            for random in self.generators
        ]
        index = torch.searchsorted(total, torch.stack(uniform) * total[:, -1:], right=True)
        out = torch.full_like(scores, -torch.inf)
        return out.scatter(1, index.clamp(max=scores.shape[-1] - 1), 0.0)


class _Decoding(LogitsProcessor):
    """The decoding score of the next position in place of its logits; what follows it stays."""

    def __init__(
        self,
        backend: Backend,
        u: Tensor,
        first: Tensor,
        moving: Tensor,
        table: Tensor,
        allowed: Tensor,
        weight: Tensor,
        top: int,
    ) -> None:
        self.backend, self.u, self.first, self.moving = backend, u, first, moving
        self.table, self.allowed, self.weight, self.top, self.t = table, allowed, weight, top, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        own = self.first[:, self.t]
        out = torch.full_like(scores, -torch.inf, dtype=self.u.dtype)
        if self.t < self.u.shape[1]:
            size = len(self.table)
            out[:, :size] = self.backend.decoding_scores(
                self.u[:, self.t],
                scores.to(self.u.dtype)[:, :size],
                self.table,
                own.clamp(max=size - 1),
                self.allowed,
                self.weight,  # type: ignore[arg-type]  # one for each row
                self.top,
            )
        stays = (self.t >= self.moving).nonzero()[:, 0]
        out[stays] = -torch.inf
        out[stays, own[stays]] = 0.0
        self.t += 1
        return out

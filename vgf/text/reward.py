"""The reward model as a differentiable function of its input embeddings.

Hugging Face's decoder-based sequence classifiers read the last position when given embeddings,
padding or not. Here the token that they read when given tokens is read in every row, so that a
padded batch gives the rewards and gradients of its rows one by one: the last token that is not the
model's padding token. Where padding and end of text are one token, that is the token before the
end; `reward_token` "last" reads the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..support.errors import VGFError
from .caching import PromptCache
from .settings import AlignSettings

_SOME_TOKEN = -1  # of a response that moves: it is no padding


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier.

    Attributes:
        model: as Hugging Face loads it.
        vocabulary: V, the number of tokens that particles can be decoded to.
        label: the output whose log odds are the reward; None if there is one output.
        reward_token: see :class:`vgf.text.AlignSettings`.
    """

    model: Any
    vocabulary: int
    label: int | None = None
    reward_token: str = "huggingface"

    @property
    def device(self) -> torch.device:
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the particles: float64 for a model of that dtype, and float32 otherwise."""
        own = self.model.get_input_embeddings().weight.dtype
        return torch.float64 if own == torch.float64 else torch.float32

    @cached_property
    def table(self) -> Tensor:
        """The embeddings of all tokens ``[V, d]``."""
        return self.embed(range(self.vocabulary)).to(self.dtype)

    @cached_property
    def scale(self) -> float:
        """The root mean square norm of the token embeddings: the unit of length."""
        return float(self.table.square().sum(-1).mean().sqrt())

    @cached_property
    def limit(self) -> int | None:
        """The most tokens of a row."""
        return position_limit(self.model)

    @torch.no_grad()
    def rewards(
        self, rows: Sequence[list[int]], prompts: Sequence[list[int]] | None = None
    ) -> Tensor:
        """The reward of each row of tokens ``[B]``, prompt and response together.

        Args:
            rows: of tokens.
            prompts: what each begins with, to be read once for all rows and calls; None reads whole
                rows.
        """
        at = [self.read_at(row) for row in rows]
        return self._read(self.embed_rows(rows), at, prompts)

    def gradients(
        self,
        prompts: Sequence[list[int]],
        u: Sequence[Tensor],
        ends: Sequence[list[int]],
        tokens: Sequence[list[int]] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Rewards, and their gradients with respect to the embeddings of the responses.

        Args:
            prompts: rows of tokens before the embeddings.
            u: for each row, embeddings ``[T_i, d]``.
            ends: rows of tokens after them, which may be empty.
            tokens: for each row, the T_i tokens that the embeddings started from: the reward is
                read where theirs is. None: none of them is padding.

        Returns:
            Rewards ``[B]``, and for each row dR / du ``[T_i, d]``.
        """
        free = [row.detach().requires_grad_() for row in u]
        own = self.model.get_input_embeddings().weight.dtype
        if tokens is None:
            tokens = [[_SOME_TOKEN] * len(row) for row in u]
        before, after = self.embed_rows(prompts), self.embed_rows(ends)
        rows = [
            torch.cat([prompt, row.to(own), end])
            for prompt, row, end in zip(before, free, after, strict=True)
        ]
        at = [
            self.read_at([*prompt, *row, *end])
            for prompt, row, end in zip(prompts, tokens, ends, strict=True)
        ]
        with torch.enable_grad():
            rewards = self._read(rows, at, prompts)
            found = torch.autograd.grad(rewards.sum(), free, allow_unused=True)
        none = zip(found, free, strict=True)  # a response without a token, or behind what is read
        return rewards.detach(), [torch.zeros_like(u) if g is None else g for g, u in none]

    def read_at(self, row: Sequence[int]) -> int:
        """The position whose output is the reward, for a decoder."""
        pad = getattr(self.model.config.get_text_config(), "pad_token_id", None)
        if self.reward_token == "last" or pad is None:
            return len(row) - 1
        return max((t for t, token in enumerate(row) if token != pad), default=0)

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """The input embeddings of some tokens ``[T, d]``."""
        ids = torch.tensor(list(tokens), dtype=torch.long, device=self.device)
        with torch.no_grad():
            found: Tensor = self.model.get_input_embeddings()(ids)
        return found

    def embed_rows(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """The input embeddings of rows of tokens, each ``[T_i, d]``; equal rows share theirs."""
        unique = list(dict.fromkeys(map(tuple, rows)))
        every = self.embed(list(chain.from_iterable(unique)))
        found = torch.split(every, [len(row) for row in unique])
        known = dict(zip(unique, found, strict=True))
        return [known[tuple(row)] for row in rows]

    def _read(
        self, rows: list[Tensor], at: list[int], prompts: Sequence[list[int]] | None = None
    ) -> Tensor:
        """The rewards of rows of embeddings ``[L_i, d]``, read at a position of each."""
        with _in_single(self._half_head):
            found = None if prompts is None else self._after_prompts(rows, at, prompts)
            found = self._outputs(rows, at) if found is None else found
        found = found.to(device=self.device, dtype=self.dtype)
        if self.label is not None and found.shape[1] > 1:
            others = [i for i in range(found.shape[1]) if i != self.label]
            reward = found[:, self.label] - found[:, others].logsumexp(-1)
        else:
            reward = found[:, self.label or 0]
        if not bool(reward.isfinite().all()):
            wrong = reward[~reward.isfinite()].tolist()
            raise VGFError(f"the reward model gives {wrong}; a wider --rm-dtype may keep it finite")
        return reward

    @cached_property
    def prefixes(self) -> PromptCache:
        """The last prompts' cache, which the steps and the scoring share."""
        return PromptCache(self.model.base_model)

    @cached_property
    def shares_prompts(self) -> bool:
        """Whether the prompt's cache can stand for the prompt.

        It takes a decoder whose layers are not computed again for the gradient. It is asked for two
        rows of tokens, once with the cache and once without.
        """
        if not hasattr(self.model, "score") or self.prefixes.name is None:
            return False
        if any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules()):
            return False
        some = [i for i in range(min(self.vocabulary, 64)) if self.read_at([i, i]) == 1][:4]
        if len(some) < 4:
            return False
        rows = [[*some, some[0]], [*some[:2], some[1], some[2]]]
        embedded, at = self.embed_rows(rows), [len(row) - 1 for row in rows]
        with torch.no_grad():
            plain = self._outputs(embedded, at)
            cached = self._with_cache(embedded, at, [some, some[:2]])
        if cached is None:
            return False
        plain, cached = plain.float(), cached.float()
        eps = max(torch.finfo(dtype).eps for dtype in (self.model.dtype, torch.float32))
        noise = 1e3 * eps * float(plain.abs().max())  # some layers are float32 in any model
        apart = 0.1 * float((plain[0] - plain[1]).abs().max())
        return float((plain - cached).abs().max()) <= min(noise, apart)

    @cached_property
    def _half_head(self) -> Any:
        """The last layer where it is of half precision; None otherwise.

        Rewards of bfloat16 have 8 bits, and different responses often get the same.
        """
        heads = [
            module
            for module in self.model.modules()
            if isinstance(module, torch.nn.Linear)
            and module.out_features == self.model.config.num_labels
            and module.weight.dtype in (torch.bfloat16, torch.float16)
        ]
        return heads[-1] if heads else None

    def _after_prompts(
        self, rows: list[Tensor], at: list[int], prompts: Sequence[list[int]]
    ) -> Tensor | None:
        """:meth:`_outputs` with the prompts' cache; None where that cannot be done."""
        early = any(i < len(prompt) for i, prompt in zip(at, prompts, strict=True))
        return None if early or not self.shares_prompts else self._with_cache(rows, at, prompts)

    def _with_cache(
        self, rows: list[Tensor], at: list[int], prompts: Sequence[list[int]]
    ) -> Tensor | None:
        shared = self.prefixes.of(prompts, 0, self.device)
        if shared is None:
            return None
        cache, before = shared
        rest = [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]
        lengths = torch.tensor([len(row) for row in rest], device=self.device)
        place = torch.arange(int(lengths.max()), device=self.device)
        start = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        body = self.model.base_model(
            inputs_embeds=pad_sequence(rest, True),
            attention_mask=torch.cat([before, (place < lengths[:, None]).long()], 1),
            # those of padding are the last token's: beyond it there may be no position
            position_ids=start[:, None] + torch.minimum(place, lengths[:, None] - 1),
            use_cache=True,
            **cache,
        )
        index = torch.tensor(at, device=self.device) - start
        return self._head(body.last_hidden_state, index)

    def _head(self, hidden: Tensor, at: Tensor) -> Tensor:
        """A decoder's head on one token of each row."""
        rows = torch.arange(len(hidden), device=hidden.device)
        found: Tensor = self.model.score(hidden[rows, at.to(hidden.device)])
        return found

    def _outputs(self, rows: list[Tensor], at: list[int]) -> Tensor:
        """The model's outputs ``[B, labels]``."""
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        if hasattr(self.model, "score"):  # the head of decoders, on one token
            body = self.model.base_model(
                inputs_embeds=pad_sequence(rows, True),
                attention_mask=(
                    torch.arange(int(lengths.max()), device=self.device) < lengths[:, None]
                ).long(),
                use_cache=False,
            )
            return self._head(body.last_hidden_state, torch.tensor(at))
        # any other head reads whole rows: those of one length at a time, without padding
        found: list[Any] = [None] * len(rows)
        for length in dict.fromkeys(map(len, rows)):
            same = [i for i, row in enumerate(rows) if len(row) == length]
            batch = torch.stack([rows[i] for i in same])
            ones = torch.ones(batch.shape[:2], dtype=torch.long, device=self.device)
            logits = self.model(inputs_embeds=batch, attention_mask=ones).logits
            for i, row in zip(same, logits, strict=True):
                found[i] = row
        return torch.stack(found)


def position_limit(model: Any) -> int | None:
    """The most tokens that a model has positions for; None if there is no such number.

    RoBERTa and its kin number positions from their padding token's on, so that those before are
    lost; XLNet says -1 for no limit.
    """
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(most, int) or most <= 0:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            skipped = module.padding_idx
            return most if skipped is None else module.num_embeddings - skipped - 1
    return most


@contextmanager
def _in_single(head: Any) -> Iterator[None]:
    """Compute a linear layer of half precision, or None, in float32."""

    def again(module: Any, args: Any, _: Any) -> Tensor:
        bias = None if module.bias is None else module.bias.float()
        return torch.nn.functional.linear(args[0].float(), module.weight.float(), bias)

    handle = None if head is None else head.register_forward_hook(again)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def checkpoint_layers(model: Any) -> None:
    """Let a model's layers be computed again for the gradient.

    transformers does so in training mode only; the layers that do it are set to that mode, and
    nothing in them, so that dropout stays off.

    Raises:
        VGFError: the model has no such layers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # transformers 6 renames it
            model.gradient_checkpointing_enable({"use_reentrant": False})
    except (AttributeError, ValueError) as error:
        raise VGFError(
            f"--gradient-checkpointing: {type(model).__name__} does not support it; drop the flag"
        ) from error
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def from_settings(
    model: Any, vocabulary: int, label: int | None, settings: AlignSettings
) -> RewardModel:
    """A reward model that is read as the settings say."""
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    return RewardModel(model, vocabulary, label, settings.reward_token)

"""Sampling responses, moving them along the reward's gradient, and decoding them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..spec.settings import Budget
from ..support.errors import VGFError
from .language import DIRECTION, SAMPLE, Generated, generator, portions
from .models import Models, Query
from .prompts import Content
from .reading import Reading, alignment
from .settings import AlignSettings


@dataclass(frozen=True)
class Responses:
    """The responses to one prompt.

    Attributes:
        index: of the prompt, which fixes its random numbers.
        prompt: its tokens.
        rows: N rows of tokens, including the token that ends the text if there is one.
        movable: N rows of the tokens that the flow moves.
        content: the prompt as text or turns; None is the text of its tokens.
        log_likelihoods: log p(row | prompt) of each, where known.
        rewards: of each ``[N]``, where known.
    """

    index: int
    prompt: list[int]
    rows: list[list[int]]
    movable: list[list[int]]
    content: Content | None = None
    log_likelihoods: list[float] | None = None
    rewards: Tensor | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of tokens that move in each response."""
        return tuple(map(len, self.movable))

    def with_tokens(self, movable: list[list[int]]) -> Responses:
        """The same with other tokens in place of those that move."""
        ends = [row[len(own) :] for row, own in zip(self.rows, self.movable, strict=True)]
        rows = [[*own, *end] for own, end in zip(movable, ends, strict=True)]
        return replace(self, rows=rows, movable=movable, log_likelihoods=None, rewards=None)


class PromptError(VGFError):
    """What went wrong with one prompt, the others being sound."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(f"prompt {index + 1}: {message}")
        self.index = index


def readings(models: Models, responses: Responses) -> list[Reading]:
    """Each response as the reward model reads it.

    Raises:
        PromptError: it cannot read one, or one is too long for it.
    """
    content = responses.content
    each = [
        (movable, row[len(movable) :])
        for row, movable in zip(responses.rows, responses.movable, strict=True)
    ]
    try:
        if models.bridge is not None:
            if content is None:
                content = models.text([], responses.prompt)
            texts = [models.text(responses.prompt, row) for row in responses.rows]
            found = [models.reader.by_text(content, text) for text in texts]
        elif content is None:
            found = [Reading(responses.prompt, movable, end) for movable, end in each]
        else:
            found = models.reader.by_tokens(content, responses.prompt, each)
    except VGFError as error:
        raise PromptError(responses.index, f"for the reward model: {error}") from error
    most, longest = models.reward.limit, max(len(of.row) for of in found)
    if most is not None and longest > most:
        raise PromptError(
            responses.index,
            f"with a response it has {longest} tokens, and the --rm model takes {most}; shorten "
            "it, or lower --max-new-tokens",
        )
    return found


def _portions(lengths: Sequence[int], each: Sequence[Any], settings: AlignSettings) -> list[Any]:
    return [each[part] for part in portions(lengths, settings.batch_tokens)]


def sample(
    models: Models, prompts: Sequence[tuple[int, list[int] | Query]], settings: AlignSettings
) -> list[Responses]:
    """N responses of the base model to each prompt.

    Args:
        models: the base model is sampled.
        prompts: their indices and tokens, or how the models read them.
        settings: of generation, and N.
    """
    tokens = [of.tokens if isinstance(of, Query) else of for _, of in prompts]
    each = [
        (index, own, i)
        for (index, _), own in zip(prompts, tokens, strict=True)
        for i in range(settings.particles)
    ]
    rows: list[list[int]] = []
    values: list[float] = []
    lengths = [len(prompt) + settings.max_new_tokens for _, prompt, _ in each]
    for part in _portions(lengths, each, settings):
        keys = [(settings.seed, SAMPLE, index, i) for index, _, i in part]
        found = models.language.sample([prompt for _, prompt, _ in part], keys, settings)
        rows += found.rows
        values += found.log_likelihoods
        for (index, _, _), value in zip(part, found.log_likelihoods, strict=True):
            if math.isnan(value):
                raise PromptError(
                    index, "the base model gives NaN; a wider --sft-dtype may keep it finite"
                )
    responses = []
    for k, ((index, of), prompt) in enumerate(zip(prompts, tokens, strict=True)):
        here = slice(k * settings.particles, (k + 1) * settings.particles)
        movable = [models.language.movable(row) for row in rows[here]]
        content = of.content if isinstance(of, Query) else None
        responses.append(Responses(index, prompt, rows[here], movable, content, values[here]))
    return responses


def embed(models: Models, responses: Responses) -> Tensor:
    """The reward model's embeddings of what moves ``[N, T, d]``, zero at padding."""
    return _embed(models, readings(models, responses))


def _embed(models: Models, read: Sequence[Reading]) -> Tensor:
    rows = models.reward.embed_rows([of.moving for of in read])
    return pad_sequence(rows, True).to(models.reward.dtype)


def transport(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> tuple[dict[int, list[Tensor]], list[Responses]]:
    """One flow, with the particles of each prompt as they are after each budget.

    The responses of a prompt are moved together; those of other prompts do not affect them.

    Args:
        models: the reward model is climbed.
        responses: the samples of some prompts.
        settings: with `step_size` set, if there are steps.

    Returns:
        For each L of the settings, the embeddings ``[N, T, d]`` of each prompt; and the samples
        with their rewards, which the first step reads.

    Raises:
        PromptError: a gradient that is not finite.
    """
    backend, last = models.backend, max(settings.steps)
    read = [readings(models, of) for of in responses]
    u = [_embed(models, own) for own in read]
    budget = _budget(settings, models.reward.scale, u[0].shape[-1])
    state = [backend.adam_init(row.flatten(1)) if budget.optimiser == "adam" else None for row in u]
    found, scored = {}, list(responses)
    for step in range(last + 1):
        if step in settings.steps:
            found[step] = list(u)
        if step == last:
            break
        values, gradients = _gradients(models, responses, read, u, settings)
        if step == 0:
            scored = [replace(of, rewards=own) for of, own in zip(scored, values, strict=True)]
        for k, of in enumerate(responses):
            lengths = tuple(len(own.moving) for own in read[k])
            v = _velocity(models, of.index, lengths, u[k], gradients[k], settings)
            moved, state[k] = backend.flow_step(u[k].flatten(1), v.flatten(1), state[k], budget)
            u[k] = moved.reshape(v.shape)
    return found, scored


def _budget(settings: AlignSettings, scale: float, d: int) -> Budget:
    """The budget of `flow_step`: lengths in the embeddings' own units, and no box."""
    unit = {"normalised": scale, "adam": scale / math.sqrt(d), "plain": scale**2}
    return Budget(
        steps=max(settings.steps),
        temperature=settings.temperature,
        low=None,
        high=None,
        step_size=(settings.step_size or 0.0) * unit[settings.particle_step],
        optimiser="adam" if settings.particle_step == "adam" else "plain",
    )


def _gradients(
    models: Models,
    responses: Sequence[Responses],
    read: Sequence[Sequence[Reading]],
    u: Sequence[Tensor],
    settings: AlignSettings,
) -> tuple[list[Tensor], list[Tensor]]:
    """The rewards of each prompt's responses ``[N]``, and dR / du ``[N, T, d]``."""
    each = [(k, own, u[k][i]) for k, rows in enumerate(read) for i, own in enumerate(rows)]
    values: list[Tensor] = []
    found: list[Tensor] = []
    for part in _portions([len(own.row) for _, own, _ in each], each, settings):
        rewards, gradients = models.reward.gradients(
            [own.before for _, own, _ in part],
            [row[: len(own.moving)] for _, own, row in part],
            [own.after for _, own, _ in part],
            [own.moving for _, own, _ in part],
        )
        for (k, _, _), gradient in zip(part, gradients, strict=True):
            if not bool(gradient.isfinite().all()):
                raise PromptError(
                    responses[k].index,
                    "the reward's gradient is not finite; a wider --rm-dtype may keep it so",
                )
        values.append(rewards)
        found += gradients
    rows_of = iter(found)
    return (
        list(torch.split(torch.cat(values), [len(rows) for rows in read])),
        [pad_sequence([next(rows_of) for _ in rows], True) for rows in read],
    )


def _velocity(
    models: Models,
    index: int,
    lengths: tuple[int, ...],
    u: Tensor,
    g: Tensor,
    settings: AlignSettings,
) -> Tensor:
    """The direction in which one prompt's particles take a step ``[N, T, d]``."""
    backend = models.backend
    if settings.direction == "negative":
        g = -g
    elif settings.direction == "random":  # the same at every step: no flow goes further
        random = generator(u.device, settings.seed, DIRECTION, index)
        noise = torch.randn(u.shape, generator=random, device=u.device, dtype=u.dtype)
        there = [torch.ones(n, 1, dtype=u.dtype, device=u.device) for n in lengths]
        g = backend.rescale_sequences(noise * pad_sequence(there, True), lengths, g)
    v = backend.sequence_phi(u, g, lengths, settings.kernel, settings.temperature)
    if settings.particle_step == "normalised":
        v = backend.rescale_sequences(v, lengths)
    return v


def targets(models: Models, responses: Responses, u: Tensor) -> list[Tensor]:
    """What each token is decoded from: N times ``[T_i, d]``, one vector for a base token.

    With one vocabulary, the moved embeddings. With two, the embedding of the token, moved as the
    reward model's tokens of the same characters were, by their shares.
    """
    read = readings(models, responses)
    if models.bridge is None:
        return [row[: len(own.moving)] for row, own in zip(u, read, strict=True)]
    moved = u - _embed(models, read)
    found = []
    for own, tokens, row in zip(read, responses.movable, moved, strict=True):
        assert own.spans is not None
        shares = alignment(models.tokenizer, responses.prompt, tokens, own.spans)
        weights = torch.as_tensor(shares, dtype=u.dtype, device=u.device)
        ids = torch.tensor(tokens, dtype=torch.long, device=u.device)
        found.append(models.table[ids] + weights @ row[: len(own.moving)])
    return found


def decode(
    models: Models,
    responses: Sequence[Responses],
    u: Sequence[Tensor],
    settings: AlignSettings,
    weights: Sequence[float] | None = None,
) -> list[Responses]:
    """Moved embeddings as responses.

    Args:
        models: the base model weighs the tokens.
        responses: what the embeddings started from; several times the same, at several budgets, are
            decoded together.
        u: for each of the responses, the embeddings ``[N, T, d]``.
        settings: with `decoding_weight` set, if the rule has one.
        weights: in place of `decoding_weight`, one for each of the responses.
    """
    if weights is None:
        weights = [settings.decoding_weight or 0.0] * len(responses)
    each = [
        (of, i, row, weight)
        for of, moved, weight in zip(responses, u, weights, strict=True)
        for i, row in enumerate(targets(models, of, moved))
    ]
    rows: list[list[int]] = []
    values: list[float] | None = []
    lengths = [len(of.prompt) + len(of.rows[i]) for of, i, _, _ in each]
    for part in _portions(lengths, each, settings):
        if settings.decoding == "nearest":
            for of, i, row, _ in part:
                rest = of.rows[i][len(of.movable[i]) :]
                rows.append(_nearest(models, row, of.movable[i]) + rest)
            values = None
            continue
        found = models.language.decode(
            models.backend,
            [of.prompt for of, *_ in part],
            pad_sequence([row for _, _, row, _ in part], True),
            [of.rows[i] for of, i, *_ in part],
            models.table,
            models.allowed,
            [weight for *_, weight in part],
            settings.decoding_top,
        )
        rows += found.rows
        assert values is not None
        values += found.log_likelihoods
    done, start = [], 0
    for of in responses:
        own = rows[start : start + len(of.rows)]
        movable = [row[: len(was)] for row, was in zip(own, of.movable, strict=True)]
        log_p = None if values is None else values[start : start + len(of.rows)]
        done.append(replace(of, rows=own, movable=movable, log_likelihoods=log_p, rewards=None))
        start += len(of.rows)
    return done


def until_stop(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> list[Responses]:
    """Decoded responses up to a stop string that they did not have before."""
    if not settings.stop_strings:
        return list(responses)
    found = []
    for of in responses:
        log_p = of.log_likelihoods or log_likelihoods(models, [of], settings)[0]
        prompts = [of.prompt] * len(of.rows)
        cut = models.language.cut(prompts, Generated(of.rows, log_p), settings.stop_strings)
        movable = [models.language.movable(row) for row in cut.rows]
        found.append(
            replace(
                of,
                rows=cut.rows,
                movable=movable,
                log_likelihoods=cut.log_likelihoods,
                rewards=None,
            )
        )
    return found


def _nearest(models: Models, u: Tensor, first: list[int]) -> list[int]:
    """The nearest token embeddings ``[T, d]``: the decoding score without a likelihood."""
    table = models.table
    scores = models.backend.decoding_scores(
        u,
        u.new_zeros(len(u), len(table)),
        table,
        torch.tensor(first, dtype=torch.long, device=u.device),
        models.allowed,
        0.0,
        None,
    )
    tokens: list[int] = scores.argmax(-1).tolist()
    return tokens


def changed(before: Responses, after: Responses) -> list[float]:
    """The share of changed tokens in each response."""
    return [
        sum(x != y for x, y in zip(old, new, strict=True)) / max(len(old), 1)
        for old, new in zip(before.movable, after.movable, strict=True)
    ]


def distance(models: Models, responses: Responses, u: Tensor) -> list[float]:
    """How far each response moved: root mean square over its tokens, in units of the embeddings."""
    read = readings(models, responses)
    moved = (u - _embed(models, read)).square().sum((1, 2))
    lengths = torch.tensor([max(len(own.moving), 1) for own in read], device=u.device)
    return [float(x) for x in (moved / lengths).sqrt() / models.reward.scale]


def rewards(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> list[Tensor]:
    """The rewards of each prompt's responses ``[N]``; those that are known are not read again."""
    each = [own for of in responses if of.rewards is None for own in readings(models, of)]
    found = [
        models.reward.rewards([own.row for own in part], [own.before for own in part])
        for part in _portions([len(own.row) for own in each], each, settings)
    ]
    rows = iter(torch.cat(found) if found else ())
    return [
        torch.stack([next(rows) for _ in of.rows]) if of.rewards is None else of.rewards
        for of in responses
    ]


def log_likelihoods(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> list[list[float]]:
    """log p(response | prompt) under the base model, of each prompt's responses.

    Those that generating gave are not computed again.
    """
    each = [(of.prompt, row) for of in responses if of.log_likelihoods is None for row in of.rows]
    found: list[float] = []
    for part in _portions([len(prompt) + len(row) for prompt, row in each], each, settings):
        found += models.language.log_likelihoods(*map(list, zip(*part, strict=True)))
    values = iter(found)
    return [
        [next(values) for _ in of.rows] if of.log_likelihoods is None else of.log_likelihoods
        for of in responses
    ]


def best(models: Models, responses: Responses, values: Tensor) -> int:
    """Which response is picked: `select` by the reward, the first of equals."""
    rows = values.new_zeros(len(values), 1)
    _, index = models.backend.select(rows, values, values.new_zeros(()))
    return int(index)

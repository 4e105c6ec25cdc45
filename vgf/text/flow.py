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
from .language import DIRECTION, SAMPLE, generator, portions
from .models import Models
from .settings import AlignSettings


@dataclass(frozen=True)
class Responses:
    """The responses to one prompt.

    Attributes:
        index: of the prompt, which fixes its random numbers.
        prompt: its tokens.
        rows: N rows of tokens, including the end of the text if there is one.
        movable: N rows of the tokens that the flow moves.
    """

    index: int
    prompt: list[int]
    rows: list[list[int]]
    movable: list[list[int]]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of tokens that move in each response."""
        return tuple(map(len, self.movable))

    def with_tokens(self, movable: list[list[int]]) -> Responses:
        """The same with other tokens in place of those that move."""
        ends = [row[len(own) :] for row, own in zip(self.rows, self.movable, strict=True)]
        rows = [[*own, *end] for own, end in zip(movable, ends, strict=True)]
        return replace(self, rows=rows, movable=movable)


def _each(responses: Sequence[Responses]) -> list[tuple[Responses, int]]:
    """All responses of some prompts, one after the other."""
    return [(of, i) for of in responses for i in range(len(of.rows))]


def _portions(each: list[tuple[Responses, int]], settings: AlignSettings) -> list[Any]:
    lengths = [len(of.prompt) + len(of.rows[i]) for of, i in each]
    return [each[part] for part in portions(lengths, settings.batch_tokens)]


def sample(
    models: Models, prompts: Sequence[tuple[int, list[int]]], settings: AlignSettings
) -> list[Responses]:
    """N responses of the base model to each prompt.

    Args:
        models: the base model is sampled.
        prompts: their indices and tokens.
        settings: of generation, and N.
    """
    each = [(index, prompt, i) for index, prompt in prompts for i in range(settings.particles)]
    found: list[list[int]] = []
    lengths = [len(prompt) + settings.max_new_tokens for _, prompt, _ in each]
    for part in portions(lengths, settings.batch_tokens):
        keys = [(settings.seed, SAMPLE, index, i) for index, _, i in each[part]]
        found += models.language.sample([prompt for _, prompt, _ in each[part]], keys, settings)
    rows = iter(found)
    responses = []
    for index, prompt in prompts:
        own = [next(rows) for _ in range(settings.particles)]
        movable = [models.language.movable(row) for row in own]
        responses.append(Responses(index, prompt, own, movable))
    return responses


def embed(models: Models, responses: Responses) -> Tensor:
    """The embeddings of the tokens that move ``[N, T, d]``, zero at padding."""
    table = models.reward.table
    return pad_sequence(
        [table[torch.tensor(row, device=table.device)] for row in responses.movable], True
    )


def transport(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> dict[int, list[Tensor]]:
    """One flow, with the particles of each prompt as they are after each budget.

    The responses of a prompt are moved together; those of other prompts do not affect them.

    Args:
        models: the reward model is climbed.
        responses: the samples of some prompts.
        settings: with `step_size` set, if there are steps.

    Returns:
        For each L of the settings, the embeddings ``[N, T, d]`` of each prompt.
    """
    backend, last = models.backend, max(settings.steps)
    u = [embed(models, of) for of in responses]
    budget = _budget(settings, models.reward.scale, u[0].shape[-1])
    state = [backend.adam_init(row.flatten(1)) if budget.optimiser == "adam" else None for row in u]
    found = {}
    for step in range(last + 1):
        if step in settings.steps:
            found[step] = list(u)
        if step == last:
            break
        gradients = _gradients(models, responses, u, settings)
        for k, of in enumerate(responses):
            v = _velocity(models, of, u[k], gradients[k], settings)
            moved, state[k] = backend.flow_step(u[k].flatten(1), v.flatten(1), state[k], budget)
            u[k] = moved.reshape(v.shape)
    return found


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
    models: Models, responses: Sequence[Responses], u: Sequence[Tensor], settings: AlignSettings
) -> list[Tensor]:
    """dR / du of each prompt's responses ``[N, T, d]``."""
    each = [(k, i) for k, of in enumerate(responses) for i in range(len(of.rows))]
    lengths = [len(responses[k].prompt) + len(responses[k].rows[i]) for k, i in each]
    found: list[Tensor] = []
    for part in portions(lengths, settings.batch_tokens):
        rows = [(responses[k], i, u[k][i]) for k, i in each[part]]
        _, gradients = models.reward.gradients(
            [of.prompt for of, _, _ in rows],
            [row[: len(of.movable[i])] for of, i, row in rows],
            [of.rows[i][len(of.movable[i]) :] for of, i, _ in rows],
        )
        found += gradients
    rows_of = iter(found)
    return [pad_sequence([next(rows_of) for _ in of.rows], True) for of in responses]


def _velocity(
    models: Models, of: Responses, u: Tensor, g: Tensor, settings: AlignSettings
) -> Tensor:
    """The direction in which one prompt's particles take a step ``[N, T, d]``."""
    backend = models.backend
    if settings.direction == "negative":
        g = -g
    elif settings.direction == "random":  # the same at every step: no flow goes further
        random = generator(u.device, settings.seed, DIRECTION, of.index)
        noise = torch.randn(u.shape, generator=random, device=u.device, dtype=u.dtype)
        there = [torch.ones(n, 1, dtype=u.dtype, device=u.device) for n in of.lengths]
        g = backend.rescale_sequences(noise * pad_sequence(there, True), of.lengths, g)
    v = backend.sequence_phi(u, g, of.lengths, settings.kernel, settings.temperature)
    if settings.particle_step == "normalised":
        v = backend.rescale_sequences(v, of.lengths)
    return v


def decode(
    models: Models, responses: Sequence[Responses], u: Sequence[Tensor], settings: AlignSettings
) -> list[Responses]:
    """Moved embeddings as responses.

    Args:
        models: the base model weighs the tokens.
        responses: what the embeddings started from.
        u: for each prompt, the embeddings ``[N, T, d]``.
        settings: with `decoding_weight` set, if the rule has one.
    """
    place = {id(of): k for k, of in enumerate(responses)}
    found: list[list[int]] = []
    for part in _portions(_each(responses), settings):
        prompts = [of.prompt for of, _ in part]
        own = [of.movable[i] for of, i in part]
        moved = [u[place[id(of)]][i, : len(of.movable[i])] for of, i in part]
        if settings.decoding == "nearest":
            found += [_nearest(models, row, first) for row, first in zip(moved, own, strict=True)]
            continue
        assert settings.decoding_weight is not None
        found += models.language.decode(
            models.backend,
            prompts,
            pad_sequence(moved, True),
            own,
            models.reward.table,
            settings.decoding_weight,
            settings.decoding_top,
        )
    rows = iter(found)
    return [of.with_tokens([next(rows) for _ in of.rows]) for of in responses]


def _nearest(models: Models, u: Tensor, first: list[int]) -> list[int]:
    """The nearest token embeddings ``[T, d]``: the decoding score without a likelihood."""
    table = models.reward.table
    scores = models.backend.decoding_scores(
        u,
        u.new_zeros(len(u), len(table)),
        table,
        torch.tensor(first, device=u.device),
        models.language.allowed.to(u.device),
        0.0,
        None,
    )
    tokens: list[int] = scores.argmax(-1).tolist()
    return tokens


def changed(before: Responses, after: Responses) -> list[float]:
    """The share of changed tokens in each response."""
    return [
        sum(x != y for x, y in zip(old, new, strict=True)) / len(old)
        for old, new in zip(before.movable, after.movable, strict=True)
    ]


def distance(models: Models, responses: Responses, u: Tensor) -> list[float]:
    """How far each response moved: root mean square over its tokens, in units of the embeddings."""
    moved = (u - embed(models, responses)).square().sum((1, 2))
    lengths = torch.tensor(responses.lengths, device=u.device)
    return [float(x) for x in (moved / lengths).sqrt() / models.reward.scale]


def rewards(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> list[Tensor]:
    """The rewards of each prompt's responses ``[N]``."""
    found = [
        models.reward.rewards([of.prompt + of.rows[i] for of, i in part])
        for part in _portions(_each(responses), settings)
    ]
    return list(torch.split(torch.cat(found), [len(of.rows) for of in responses]))


def log_likelihoods(
    models: Models, responses: Sequence[Responses], settings: AlignSettings
) -> list[list[float]]:
    """log p(response | prompt) under the base model, of each prompt's responses."""
    found: list[float] = []
    for part in _portions(_each(responses), settings):
        prompts, rows = [of.prompt for of, _ in part], [of.rows[i] for of, i in part]
        found += models.language.log_likelihoods(prompts, rows)
    values = iter(found)
    return [[next(values) for _ in of.rows] for of in responses]


def best(models: Models, responses: Responses, values: Tensor) -> int:
    """Which response is picked: `select` by the reward, the first of equals."""
    rows = values.new_zeros(len(values), 1)
    _, index = models.backend.select(rows, values, values.new_zeros(()))
    return int(index)

"""Finding the decoder's weight and the step size that change a given share of the tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from ..support.progress import progress
from .flow import Responses, changed, decode, embed, sample, transport
from .models import Models
from .settings import AlignSettings

# The range searched for both: lambda, and epsilon in units of the embeddings
LOW, HIGH, HALVINGS = 1e-3, 10.0, 9


def calibrate(
    models: Models, prompts: Sequence[tuple[int, list[int]]], settings: AlignSettings
) -> AlignSettings:
    """The settings, with those to be calibrated filled in.

    lambda is the largest that changes at most `unmoved_change` of the tokens of unmoved responses;
    epsilon is the largest that, with this lambda, changes at most `moved_change` of them at the
    largest budget. Each share grows with its number, so that each number is found by bisection of
    its logarithm. If a share is not reached within [0.001, 10], the number stays at that end.

    Args:
        models: both are used.
        prompts: indices and tokens, of the prompts to calibrate on.
        settings: see :attr:`AlignSettings.calibrates`.
    """
    wanted = settings.calibrates
    if not wanted:
        return settings
    samples = sample(models, prompts, settings)
    with progress(HALVINGS * len(wanted), "calibrating", "trial") as bar:

        def share(settings: AlignSettings, u: Sequence[Tensor]) -> float:
            after = decode(models, samples, u, settings)
            bar.update()
            return mean_change(samples, after)

        if "decoding_weight" in wanted:
            start = [embed(models, of) for of in samples]
            weight = largest(
                lambda x: share(replace(settings, decoding_weight=x), start),
                settings.unmoved_change,
            )
            settings = replace(settings, decoding_weight=weight)
        if "step_size" in wanted:
            last = replace(settings, steps=(max(settings.steps),))

            def moved(size: float) -> float:
                tried = replace(last, step_size=size)
                return share(tried, transport(models, samples, tried)[last.steps[0]])

            settings = replace(settings, step_size=largest(moved, settings.moved_change))
    return settings


def at_an_end(value: float) -> bool:
    """Whether a calibrated number is at an end of its range, its share not reached."""
    return value in (largest(lambda _: 1.0, 0.0), largest(lambda _: 0.0, 1.0))


def mean_change(before: Sequence[Responses], after: Sequence[Responses]) -> float:
    """The share of changed tokens over all responses to some prompts."""
    shares = [x for pair in zip(before, after, strict=True) for x in changed(*pair)]
    return math.fsum(shares) / len(shares)


def largest(share: Callable[[float], float], target: float) -> float:
    """The largest number whose share, which grows with it, is at most the target."""
    low, high = math.log(LOW), math.log(HIGH)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if share(math.exp(middle)) <= target:
            low = middle
        else:
            high = middle
    return math.exp(low)

"""Finding the decoder's weight and the step size that change a given share of the tokens."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..support.errors import VGFError
from ..support.files import cache_folder, read_json, write_atomically
from ..support.progress import progress, say_line
from .flow import PromptError, Responses, changed, decode, embed, sample, transport
from .models import Models, Query
from .settings import AlignSettings, calibration_name

# The range searched for both: lambda, and epsilon in units of the embeddings
LOW, HIGH = 1e-3, 10.0
ROUNDS, PARTS = 3, 8  # each round leaves an eighth of the range, all its trials decoded together


def kept_calibration(
    models: Models, prompts: Sequence[tuple[int, Query]], settings: AlignSettings
) -> AlignSettings:
    """:func:`calibrate`, or what it found before for these models and settings.

    The numbers are kept in `vgf.support.files.cache_folder`, whatever the prompts and the seed
    were; `recalibrate` computes them again. A prompt that fails is left out.

    Raises:
        PromptError: every prompt fails.
        VGFError: all fail together, or each by itself.
    """
    if not settings.calibrates:
        return settings
    place = cache_folder() / "calibrations" / calibration_file(models, settings)
    if not settings.recalibrate and place.is_file():
        try:
            kept = read_json(place, dict)
            found: Any = {name: float(kept[name]) for name in settings.calibrates}
            say_line(f"calibrated before ({place}); --recalibrate does it again")
            return replace(settings, **found)
        except (VGFError, KeyError, TypeError, ValueError):
            pass  # a damaged file is written anew
    left = list(prompts)
    while True:
        try:
            chosen = calibrate(models, left, settings)
            break
        except PromptError as error:
            left = [row for row in left if row[0] != error.index]
            if not left:
                raise
        except (VGFError, RuntimeError, IndexError):  # which of them it is does not say
            sound = [row for row in left if _calibrates(models, row, settings)]
            if len(sound) in (0, len(left)):
                raise
            left = sound
    values = {name: getattr(chosen, name) for name in settings.calibrates}
    with contextlib.suppress(VGFError):  # a cache that cannot be written is none
        write_atomically(place, json.dumps(values) + "\n")
    return chosen


def _calibrates(models: Models, row: tuple[int, Query], settings: AlignSettings) -> bool:
    """Whether a prompt alone can be calibrated on."""
    try:
        calibrate(models, [row], settings)
    except (VGFError, RuntimeError, IndexError):
        return False
    return True


def calibration_file(models: Models, settings: AlignSettings) -> str:
    """The name of the file for these models and settings."""
    return f"{calibration_name(settings, models.fingerprint)}.json"


def calibrate(
    models: Models, prompts: Sequence[tuple[int, list[int] | Query]], settings: AlignSettings
) -> AlignSettings:
    """The settings, with those to be calibrated filled in.

    lambda is the largest that changes at most `unmoved_change` of the tokens of unmoved responses;
    epsilon is the largest that, with this lambda, changes at most `moved_change` of them at the
    largest budget. Each share grows with its number, so that each number is found by dividing the
    range of its logarithm. If a share is not reached within [0.001, 10], the number stays at that
    end.

    Args:
        models: both are used.
        prompts: indices and tokens, of the prompts to calibrate on.
        settings: see :attr:`AlignSettings.calibrates`.
    """
    wanted = settings.calibrates
    if not wanted:
        return settings
    samples = sample(models, prompts, settings)
    with progress(ROUNDS * len(wanted), "calibrating", "round") as bar:

        def shares(weights: list[float], every: list[list[Tensor]]) -> list[float]:
            """The share of changed tokens of several trials, decoded together."""
            of = samples * len(every)
            each = [weight for weight in weights for _ in samples]
            after = decode(models, of, [u for one in every for u in one], settings, each)
            bar.update()
            size = len(samples)
            return [mean_change(samples, after[k : k + size]) for k in range(0, len(after), size)]

        if "decoding_weight" in wanted:
            start = [embed(models, of) for of in samples]
            weight = largest(
                lambda trials: shares(trials, [start] * len(trials)), settings.unmoved_change
            )
            settings = replace(settings, decoding_weight=weight)
        if "step_size" in wanted:
            last = replace(settings, steps=(max(settings.steps),))

            def moved(sizes: list[float]) -> list[float]:
                tried = [replace(last, step_size=size) for size in sizes]
                every = [transport(models, samples, one)[0][last.steps[0]] for one in tried]
                return shares([settings.decoding_weight or 0.0] * len(sizes), every)

            settings = replace(settings, step_size=largest(moved, settings.moved_change))
    return settings


def at_an_end(value: float) -> bool:
    """Whether a calibrated number is at an end of its range, its share not reached."""
    return value in (
        largest(lambda trials: [1.0] * len(trials), 0.0),
        largest(lambda trials: [0.0] * len(trials), 1.0),
    )


def mean_change(before: Sequence[Responses], after: Sequence[Responses]) -> float:
    """The share of changed tokens over all responses to some prompts."""
    shares = [x for pair in zip(before, after, strict=True) for x in changed(*pair)]
    return math.fsum(shares) / len(shares)


def largest(shares: Callable[[list[float]], list[float]], target: float) -> float:
    """The largest number whose share, which grows with it, is at most the target.

    Args:
        shares: of several numbers at once.
        target: at least 0.
    """
    low, high = math.log(LOW), math.log(HIGH)
    for _ in range(ROUNDS):
        edges = [low + (high - low) * k / PARTS for k in range(PARTS + 1)]
        found = shares([math.exp(x) for x in edges[1:-1]])
        # the first that is above the target bounds the number
        above = next((k for k, share in enumerate(found) if not share <= target), PARTS - 1)
        low, high = edges[above], edges[above + 1]
    return math.exp(low)

"""What the result of an episode is called, and how certain its mean is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

SUCCESS, NORMALISED, RETURN = "success", "normalised score", "return"
CONFIDENCE = 0.95


def interval(
    values: Sequence[npt.NDArray[np.floating]], kind: str
) -> tuple[float | None, float | None]:
    """The 95 % confidence interval of a mean over runs.

    None for a single number, and for returns that are all equal: their spread is not known.

    For one run: Wilson's over the episodes for success, Student's for other scores. For several:
    Student's over their means, and Wilson's over all episodes where that is wider.

    Args:
        values: for each run, the scores of its episodes; for success 0 or 1.
        kind: "success" or another score.
    """
    from scipy import stats

    bounds = []
    if kind == SUCCESS:
        pooled = np.concatenate(values)
        bounds.append(wilson(int(np.sum(pooled >= 1.0)), len(pooled)))
    sample = np.array([run.mean() for run in values]) if len(values) > 1 else values[0]
    if (kind != SUCCESS or len(values) > 1) and len(sample) > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1)
        half = float(quantile * stats.sem(sample))
        if kind == SUCCESS or np.ptp(sample) > 0:  # equal returns do not say how far others may be
            bounds.append((float(sample.mean()) - half, float(sample.mean()) + half))
    if not bounds:
        return None, None
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    return (max(low, 0.0), min(high, 1.0)) if kind == SUCCESS else (low, high)


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a rate.

    Args:
        successes: how many; a success may count as a part of one.
        trials: of how many.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    rate, scale = successes / trials, 1 + z**2 / trials
    middle = (rate + z**2 / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2) / scale
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


def mean_measured(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None if all are."""
    measured = [float(value) for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


def normalised(value: float, low: float, high: float) -> float:
    """100 (value - low) / (high - low): the score of a return between two reference returns."""
    return 100.0 * (value - low) / (high - low)

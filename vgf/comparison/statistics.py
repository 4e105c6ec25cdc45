"""Statistics over tasks and seeds.

The definitions are those of Agarwal et al., "Deep reinforcement learning at the edge of the
statistical precipice" (arXiv 2108.13264), as their package rliable has them; the intervals are
SciPy's percentile bootstrap with a task as a sample of its own, that is, stratified by task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..support.statistics import CONFIDENCE

Array = npt.NDArray[np.floating]
Scores = Mapping[str, Mapping[int, float]]  # task -> seed -> score, of one method

AGGREGATES = ("IQM", "median", "mean", "optimality gap")
RESAMPLES = 2_000
POWER = 0.8


class Estimate(NamedTuple):
    """A number and its 95 % interval; None where there is too little to tell."""

    value: float
    low: float | None = None
    high: float | None = None


def of_seeds(values: Sequence[float], bounded: bool = False) -> Estimate:
    """The mean over seeds with Student's 95 % interval.

    Args:
        values: [S].
        bounded: whether they lie in [0, 1], and so does the interval.

    One seed has no interval, and neither have seeds that all agree: their spread is not known.
    """
    from scipy import stats

    sample = np.asarray(values, float)
    centre = float(sample.mean())
    if len(sample) < 2 or np.ptp(sample) == 0:
        return Estimate(centre)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1) * stats.sem(sample))
    low, high = centre - half, centre + half
    return (
        Estimate(centre, max(low, 0.0), min(high, 1.0)) if bounded else Estimate(centre, low, high)
    )


def aggregates(
    scores: Scores, full: float = 1.0, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """IQM, median, mean and optimality gap over tasks, with stratified bootstrap intervals.

    IQM is the mean of the middle half of all runs of all tasks; median and mean are over the tasks'
    means; the optimality gap is the mean amount by which runs miss `full`.

    Args:
        scores: {task: {seed: score}} of one method; the numbers of seeds may differ.
        full: the score of a perfect result.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    samples = [np.array(list(of_task.values()), float) for of_task in scores.values()]

    def statistic(*resampled: Array, axis: int = -1) -> Array:
        means = np.stack([one.mean(axis) for one in resampled])
        runs = _pooled(resampled)
        gap = full - np.minimum(runs, full).mean(-1)
        return np.stack([_iqm(runs), np.median(means, 0), means.mean(0), gap])

    return dict(zip(AGGREGATES, _bootstrap(samples, statistic, resamples, seed), strict=True))


def profile(
    scores: Scores, thresholds: Array, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """The performance profile: the share of runs above each threshold, each task weighing the same.

    Args:
        scores: as in :func:`aggregates`.
        thresholds: [K].
    """
    samples = [np.array(list(of_task.values()), float) for of_task in scores.values()]

    def statistic(*resampled: Array, axis: int = -1) -> Array:
        shares = [(one > thresholds.reshape(-1, *[1] * one.ndim)).mean(axis) for one in resampled]
        return np.mean(shares, 0)

    return _bootstrap(samples, statistic, resamples, seed)


def iqm_curve(curves: Sequence[Array], resamples: int = RESAMPLES, seed: int = 0) -> list[Estimate]:
    """The IQM over tasks at every step; an interval resamples whole runs.

    Args:
        curves: for each task, [E, S]: the scores of S seeds at the same E steps.
    """
    samples = [np.arange(curve.shape[1]) for curve in curves]

    def statistic(*resampled: npt.NDArray[np.int64], axis: int = -1) -> Array:
        return _iqm(_pooled([curve[:, one] for curve, one in zip(curves, resampled, strict=True)]))

    return _bootstrap(samples, statistic, resamples, seed)


def improvement(
    x: Scores, y: Scores, paired: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The probability that a run of X scores more than one of Y on the same task; ties count half.

    It is the mean over the tasks that both have. Unpaired, it is the Mann-Whitney statistic: every
    run of X against every run of Y. Paired, it is each seed of X against the same seed of Y.

    Args:
        x, y: as in :func:`aggregates`.
        paired: whether equal seeds belong together; then the bootstrap resamples them together.
    """
    wins: list[Array] = []
    for task in (task for task in x if task in y):
        seeds = [s for s in x[task] if s in y[task]]
        a, b = (
            np.array([one[task][s] for s in (seeds if paired else one[task])]) for one in (x, y)
        )
        table = (a[:, None] > b) + 0.5 * (a[:, None] == b)
        wins += [np.diag(table) if paired else table] if table.size else []
    if not wins:
        return Estimate(math.nan)
    samples = [np.arange(n) for table in wins for n in table.shape]

    def statistic(*resampled: npt.NDArray[np.int64], axis: int = -1) -> Array:
        rest, found = iter(resampled), []
        for table in wins:
            first = next(rest)
            if paired:
                found.append(table[first].mean(axis))
            else:
                left, right = (_shares(one) for one in (first, next(rest)))
                found.append(((left @ table) * right).sum(-1).reshape(first.shape[:-1]))
        return np.mean(found, 0)[None]

    return _bootstrap(samples, statistic, resamples, seed)[0]


def seeds_needed(scores: Sequence[Scores], difference: float, power: float = POWER) -> int | None:
    """The seeds for each method and task that would tell two means over tasks apart.

    The test is Student's two-sided one of two means over the same tasks, at the level 0.05; its
    power comes from the noncentral t distribution, and the spread of seeds from `scores`, pooled.

    Args:
        scores: of each method, as in :func:`aggregates`.
        difference: between the methods' means over tasks.
        power: the probability of finding it.

    Returns:
        The least number, at least 2; None where no two seeds were run, or more than 10,000 are
        needed.
    """
    from scipy import stats

    tasks = list(dict.fromkeys(task for method in scores for task in method))
    samples = [list(m[task].values()) for task in tasks for m in scores if len(m.get(task, ())) > 1]
    if not samples:
        return None
    freedom = sum(len(one) - 1 for one in samples)
    variance = sum(float(np.var(one, ddof=1)) * (len(one) - 1) for one in samples) / freedom
    if variance == 0:
        return 2

    def found(n: int) -> float:
        free = 2 * len(tasks) * (n - 1)
        effect = difference / math.sqrt(2 * variance / (n * len(tasks)))
        limit = stats.t.ppf(1 - (1 - CONFIDENCE) / 2, free)
        return float(stats.nct.sf(limit, free, effect) + stats.nct.cdf(-limit, free, effect))

    low, high = 1, 2
    while not found(high) >= power:
        low, high = high, 2 * high
        if high > 10_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


def _shares(drawn: npt.NDArray[np.int64]) -> Array:
    """[B, n]: the share of each of n in each row of n that were drawn with replacement."""
    rows = np.atleast_2d(drawn)
    many, n = rows.shape
    places = rows + n * np.arange(many)[:, None]
    return np.bincount(places.ravel(), minlength=n * many).reshape(many, n) / n


def _pooled(samples: Sequence[Array]) -> Array:
    """All runs of all tasks on the last axis; in rliable's order where the numbers are equal."""
    if len({one.shape[-1] for one in samples}) == 1:
        together = np.stack(samples, -1)
        return together.reshape(*together.shape[:-2], -1)
    return np.concatenate(samples, -1)


def _iqm(runs: Array) -> Array:
    from scipy import stats

    return np.asarray(stats.trim_mean(runs, 0.25, axis=-1))


def _bootstrap(
    samples: Sequence[Array] | Sequence[npt.NDArray[np.int64]],
    statistic: Callable[..., Array],
    resamples: int,
    seed: int,
) -> list[Estimate]:
    """A statistic with several values, each with its percentile interval."""
    from scipy import stats

    centre = statistic(*samples)
    if min(map(len, samples), default=0) < 2:  # nothing says how far another seed may be
        return [Estimate(float(x)) for x in centre]
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=100,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return [
        Estimate(float(x), float(a), float(b))
        for x, a, b in zip(centre, *map(np.asarray, (found.low, found.high)), strict=True)
    ]

"""The statistics are rliable's: its own figures on published results, and its own intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from needs import need

from vgf.comparison import aggregates, compare, improvement, profile, read_table, seeds_needed
from vgf.comparison.statistics import AGGREGATES, iqm_curve, of_seeds

PUBLISHED = Path(__file__).parent / "published.npz"


def matrix(method: str, evaluation: int = 19) -> np.ndarray:
    """[seed, task], of the fixture."""
    with np.load(PUBLISHED) as file:
        names = [name for name in file.files if name.endswith(f"|{method}")]
        return np.stack([file[name][evaluation] for name in names], 1).astype(np.float64)


def as_scores(runs: np.ndarray) -> dict[str, dict[int, float]]:
    return {f"task{t}": dict(enumerate(map(float, runs[:, t]))) for t in range(runs.shape[1])}


@pytest.mark.full
def test_aggregates_are_rliables() -> None:
    """To the last digit; and the intervals within the error of two bootstraps."""
    need("rliable")
    from rliable import library, metrics

    def theirs(x: np.ndarray) -> np.ndarray:
        return np.array(
            [
                metrics.aggregate_iqm(x),
                metrics.aggregate_median(x),
                metrics.aggregate_mean(x),
                metrics.aggregate_optimality_gap(x),
            ]
        )

    for method in ("QAM", "FQL"):
        runs = matrix(method)
        ours = aggregates(as_scores(runs), resamples=2_000)
        assert list(ours) == list(AGGREGATES)
        np.testing.assert_allclose([one.value for one in ours.values()], theirs(runs), rtol=1e-15)
        random_state = np.random.RandomState(0)
        _, intervals = library.get_interval_estimates(
            {"x": runs}, theirs, reps=2_000, random_state=random_state
        )
        mine = np.array([[one.low, one.high] for one in ours.values()]).T
        width = np.diff(mine, axis=0)
        # the median of ten tasks' means of 12 runs moves in steps, and a percentile with it
        step = 1.01 / (2 * 12 * 50)
        assert np.all(np.abs(mine - intervals["x"]) <= np.maximum(0.15 * width, step))
        # a bootstrap that is not stratified by task is wider, and would be noticed
        flat = np.random.default_rng(0).choice(runs.ravel(), (2_000, runs.size))
        whole = np.diff(np.percentile(flat.mean(1), [2.5, 97.5]))
        assert whole > 1.5 * width[0, AGGREGATES.index("mean")]


@pytest.mark.slow
@pytest.mark.full
def test_improvement_and_profiles_are_rliables() -> None:
    need("rliable")
    from rliable import library, metrics

    x, y = matrix("QAM"), matrix("FQL")
    ours = improvement(as_scores(x), as_scores(y))
    np.testing.assert_allclose(ours.value, metrics.probability_of_improvement(x, y), rtol=1e-14)
    points, intervals = library.get_interval_estimates(
        {"pair": (x, y)},
        metrics.probability_of_improvement,
        reps=2_000,
        random_state=np.random.RandomState(0),
    )
    assert np.allclose([ours.low, ours.high], intervals["pair"][:, 0], atol=0.005)
    assert points["pair"] == pytest.approx(ours.value)
    thresholds = np.linspace(0, 1, 21)
    theirs, bands = library.create_performance_profile({"x": x}, thresholds, reps=300)
    mine = profile(as_scores(x), thresholds, 300)
    np.testing.assert_allclose([one.value for one in mine], theirs["x"], rtol=1e-14)
    assert np.allclose([[one.low, one.high] for one in mine], bands["x"].T, atol=0.01)


def test_aggregates_by_hand() -> None:
    """IQM drops a quarter at each end of all runs; the median is of the tasks' means."""
    found = aggregates({"a": {0: 0.0, 1: 0.2}, "b": {0: 0.4, 1: 1.5}, "c": {0: 0.5, 1: 0.7}})
    # six runs: trimming cuts int(0.25 * 6) = 1 at each end
    assert found["IQM"].value == pytest.approx((0.2 + 0.4 + 0.5 + 0.7) / 4)
    assert found["median"].value == pytest.approx(0.6)
    assert found["mean"].value == pytest.approx((0.1 + 0.95 + 0.6) / 3)
    assert found["optimality gap"].value == pytest.approx(
        1 - (0.0 + 0.2 + 0.4 + 1.0 + 0.5 + 0.7) / 6
    )
    again = aggregates({"a": {0: 0.0, 1: 0.2}, "b": {0: 0.4, 1: 1.5}, "c": {0: 0.5, 1: 0.7}})
    assert again == found  # the bootstrap has a seed


def test_pairs_of_equal_seeds() -> None:
    """Paired, a seed meets itself alone; unpaired, it meets all."""
    x = {"t": {0: 1.0, 1: 2.0, 2: 3.0}}
    y = {"t": {2: 2.9, 0: 0.9, 1: 1.9}}
    assert improvement(x, y, paired=True).value == 1.0
    assert improvement(x, y).value == pytest.approx(6 / 9)
    assert improvement(x, x).value == 0.5
    half = improvement(x, {"t": {0: 1.0, 1: 2.0, 2: 4.0}}, paired=True)
    assert half.value == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert np.isnan(improvement(x, {"t": {7: 1.0}}, paired=True).value)


def test_too_little_to_tell() -> None:
    assert of_seeds([0.3]) == (0.3, None, None)
    assert of_seeds([0.0, 0.0, 0.0], bounded=True) == (0.0, None, None)
    assert aggregates({"a": {0: 0.5}, "b": {0: 0.1, 1: 0.2}})["IQM"].low is None
    low, high = of_seeds([0.9, 1.0], bounded=True)[1:]
    assert low is not None
    assert high == 1.0
    # t(0.975, 1) = 12.7062, and the standard error is 0.05
    assert low == pytest.approx(0.95 - 12.7062 * 0.05, rel=1e-5)


def test_seeds_needed_are_enough() -> None:
    """Simulated: with that number the difference is found in 80 % of trials; with fewer, less."""
    from scipy import stats

    rng = np.random.default_rng(0)
    spread, difference = 0.1, 0.08
    scores = [{"t": dict(enumerate(rng.normal(0, 1, 3)))}]
    values = np.array(list(scores[0]["t"].values()))
    scaled = [{"t": dict(enumerate(spread * values / values.std(ddof=1)))}]
    n = seeds_needed(scaled, difference)
    assert n is not None

    def power(n: int) -> float:
        a, b = rng.normal(0, spread, (2, 4_000, n))
        return float(np.mean(stats.ttest_ind(a + difference, b, axis=1).pvalue < 0.05))

    assert power(n) > 0.78
    assert power(n - 2) < 0.78
    assert seeds_needed([{"t": {0: 1.0}}], 1.0) is None


def test_curves_resample_whole_runs() -> None:
    """Seeds that keep their order at every step are resampled together."""
    curve = np.array([[0.0, 1.0], [0.1, 1.1]])
    found = iqm_curve([curve], 200)
    assert [one.value for one in found] == [0.5, pytest.approx(0.6)]
    assert found[0].low == 0.0
    assert found[1].high == pytest.approx(1.1)


def test_published_averages() -> None:
    """The published averages over their tasks, and everything that is said about them."""
    results = read_table(PUBLISHED, every=50_000).only(["QAM", "FQL"])
    found = compare(results, at=1_000_000, resamples=50, figures=False)
    for method in ("QAM", "FQL"):
        assert found.over_tasks[method]["mean"].value == pytest.approx(
            matrix(method).mean(), rel=1e-14
        )
    assert found.improvements[("QAM", "FQL")].value > 0.5

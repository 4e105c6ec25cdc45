"""The bounds of the paper hold, are not vacuous, and the instruments measure what they say."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgf import Budget, spec

seeds = st.integers(0, 2**32 - 1)
quick = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


def bounded_score(rng, c, d):
    """A smooth score field of length at most c."""
    w, phase = 3 * rng.standard_normal((d, d)), rng.uniform(0, 6, d)
    return lambda a: c * np.sin(a @ w + phase) / math.sqrt(d)


def test_stein_discrepancy_is_the_rate_of_the_flow():
    """mean_i of g . phi + div phi at a_i, phi(x) a function of the place, by differences."""
    rng = np.random.default_rng(0)
    a, g, sigma = rng.standard_normal((6, 2)), rng.standard_normal((6, 2)), 0.7

    def phi(x):
        k = np.exp(-((x - a) ** 2).sum(-1) / (2 * sigma**2))[:, None]
        return (k * g + k * (x - a) / sigma**2).mean(0)

    np.testing.assert_allclose(spec.phi(a, g, 1.0, sigma), [phi(x) for x in a])
    rate = 0.0
    for x, score in zip(a, g, strict=True):
        steps = 1e-6 * np.eye(2)
        slopes = [(phi(x + e) - phi(x - e))[i] / 2e-6 for i, e in enumerate(steps)]
        rate += (score @ phi(x) + sum(slopes)) / len(a)
    got = spec.stein_discrepancy_squared(a[None], g[None], np.array([sigma**2]))
    assert got == pytest.approx(rate, rel=1e-7)


def test_stein_discrepancy_of_a_sample_vanishes():
    """Of more and more exact samples of the target; not of another one's."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20, 400, 1))
    sigma_squared = np.ones(20)
    right = spec.stein_discrepancy_squared(a, -a, sigma_squared).mean()
    few = spec.stein_discrepancy_squared(a[:, :40], -a[:, :40], sigma_squared).mean()
    wrong = spec.stein_discrepancy_squared(a, 0.5 - a, sigma_squared).mean()
    assert right < few / 5
    assert wrong > 10 * right


@quick
@given(seeds, st.sampled_from([None, 0.1, 1.0]), st.sampled_from([0.1, 0.5, 2.0]))
def test_plain_transport_stays_under_its_bounds(seed, temperature, sigma):
    rng = np.random.default_rng(seed)
    n, d, steps, step_size, c = int(rng.integers(1, 8)), int(rng.integers(1, 4)), 4, 0.05, 2.0
    budget = Budget(
        steps=steps,
        step_size=step_size,
        temperature=temperature,
        optimiser="plain",
        bandwidth=sigma,
        low=None,
        high=None,
    )
    a = rng.uniform(-1, 1, (n, d))
    moved = spec.transport(bounded_score(rng, c, d), a, budget)
    bounds = (steps, step_size, c, temperature, sigma)
    assert np.linalg.norm(moved - a, axis=1).max() <= spec.displacement_bound(*bounds) * (1 + 1e-12)
    found, sharp = spec.mmd_squared(a, moved, np.array(sigma**2)), spec.mmd_squared_sharp_bound
    assert found <= sharp(*bounds) * (1 + 1e-9) + 1e-15
    assert sharp(*bounds) <= 0.7445 * spec.mmd_squared_bound(*bounds)
    assert spec.wasserstein2(a, moved) <= spec.displacement_bound(*bounds) * (1 + 1e-12)


def test_displacement_bound_is_reached_by_a_constant_score():
    budget = Budget(
        steps=5, step_size=0.1, temperature=None, optimiser="plain", low=None, high=None
    )
    moved = spec.transport(lambda a: np.full_like(a, 3.0), np.zeros((4, 1)), budget)
    assert moved == pytest.approx(spec.displacement_bound(5, 0.1, 3.0, None, 1.0))


def test_sharp_mmd_bound_is_reached_by_one_particle_on_a_slope():
    budget = Budget(
        steps=4,
        step_size=0.1,
        temperature=None,
        optimiser="plain",
        bandwidth=0.3,
        low=None,
        high=None,
    )
    start = np.zeros((1, 2))
    moved = spec.transport(lambda a: np.tile([2.0, 0.0], (1, 1)), start, budget)
    found = spec.mmd_squared(start, moved, np.array(0.3**2))
    assert found == pytest.approx(spec.mmd_squared_sharp_bound(4, 0.1, 2.0, None, 0.3), rel=1e-9)


def test_kernel_lipschitz_is_the_steepest_slope():
    x = np.linspace(-5, 5, 20001)
    k = np.exp(-(x**2) / (2 * 0.7**2))
    assert np.abs(np.gradient(k, x)).max() == pytest.approx(spec.kernel_lipschitz(0.7), rel=1e-5)


@quick
@given(seeds, st.integers(1, 30))
def test_adam_stays_under_its_bound(seed, steps):
    rng = np.random.default_rng(seed)
    x, state = np.zeros(6), spec.adam_init(np.zeros(6))
    growth = rng.uniform(0.5, 2, 6)
    for t in range(steps):
        x, state = spec.adam_step(x, rng.standard_normal(6) * growth**t, state, 0.1)
    assert np.abs(x).max() <= spec.adam_displacement_bound(steps, 0.1) * (1 + 1e-9)


def test_adam_bound_is_reached_at_one_step():
    """g_(t-k) proportional to w_k / u_k makes Cauchy-Schwarz an equality, at every t."""
    for t in (1, 2, 5, 50, 500):
        k = np.arange(t)
        gradients = ((0.9 / 0.999) ** k)[::-1]
        x, state = np.zeros(1), spec.adam_init(np.zeros(1))
        for g in gradients:
            before = x
            x, state = spec.adam_step(x, np.array([g]), state, 1.0, epsilon=0.0)
        assert np.abs(x - before) == pytest.approx(spec.adam_step_bound(t), rel=1e-6)


def test_the_usual_bound_on_adams_step_does_not_hold():
    """lr max(1, (1 - b1) / sqrt(1 - b2)) = 3.16 lr is exceeded by a growing gradient."""
    usual = (1 - 0.9) / math.sqrt(1 - 0.999)
    x, state = np.zeros(1), spec.adam_init(np.zeros(1))
    longest = 0.0
    for t in range(2000):
        before = x
        x, state = spec.adam_step(
            x, np.array([1e-80 * (0.999 / 0.9) ** t]), state, 1.0, epsilon=0.0
        )
        longest = max(longest, float(np.abs(x - before)[0]))
    assert usual == pytest.approx(3.1623, abs=1e-4)
    assert longest > 2 * usual
    assert longest == pytest.approx(spec.adam_step_bound(2000), rel=1e-3)


def test_the_first_five_of_adams_bounds_are_as_the_documentation_says():
    found = [spec.adam_step_bound(t) for t in range(1, 6)]
    assert [round(bound, 4) for bound in found] == [1.0, 1.0014, 1.0036, 1.0068, 1.0108]
    assert spec.adam_displacement_bound(5, 0.1) == pytest.approx(0.1 * 5 * 1.0045, rel=1e-5)


@pytest.mark.parametrize("temperature", [-0.1, 0.0, math.nan])
def test_a_temperature_that_is_not_positive_has_no_bound(temperature):
    calls = (
        lambda: spec.speed_bound(1.0, temperature, 0.5),
        lambda: spec.displacement_bound(2, 0.1, 1.0, temperature, 0.5),
        lambda: spec.mmd_squared_bound(2, 0.1, 1.0, temperature, 0.5),
        lambda: spec.mmd_squared_sharp_bound(2, 0.1, 1.0, temperature, 0.5),
        lambda: spec.boltzmann_log_density(np.ones(3), temperature),
    )
    for call in calls:
        with pytest.raises(ValueError, match="temperature is"):
            call()


def test_bounds_refuse_what_is_negative():
    for call, name in (
        (lambda: spec.kernel_lipschitz(0.0), "sigma"),
        (lambda: spec.speed_bound(-1.0, None, 0.5), "score_bound"),
        (lambda: spec.displacement_bound(-1, 0.1, 1.0, None, 0.5), "steps"),
        (lambda: spec.displacement_bound(1, -0.1, 1.0, None, 0.5), "step_size"),
    ):
        with pytest.raises(ValueError, match=f"{name} is"):
            call()


def test_float32_squares_overflow_and_steps_are_then_zero():
    """As the docstrings of Adam, the norm and the clips say."""
    with np.errstate(over="ignore"):
        g = np.full((1, 2, 3), 2e19, np.float32)
        assert not spec.clip_velocity(g, 1.0).any()
        assert not spec.clip_by_global_norm({"a": g}, 1.0)["a"].any()
        start = np.zeros_like(g)
        still, state = spec.adam_step(start, g, spec.adam_init(start), 0.1)
        small = g / 100
        for _ in range(3):  # of any size that follows
            assert not still.any()
            still, state = spec.adam_step(still, small, state, 0.1)
        assert spec.clip_velocity(small, 1.0).all()
        assert spec.adam_step(start, small, spec.adam_init(start), 0.1)[0].all()


@quick
@given(seeds, st.integers(1, 5))
def test_wasserstein2_is_the_best_of_all_pairings(seed, n):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, n, 2))
    best = min(
        np.mean(np.sum((x - y[list(p)]) ** 2, axis=1)) for p in itertools.permutations(range(n))
    )
    assert spec.wasserstein2(x, y) == pytest.approx(math.sqrt(best))


def test_wasserstein2_of_a_shuffled_set_is_zero():
    x = np.random.default_rng(0).standard_normal((6, 3))
    assert spec.wasserstein2(x, x[::-1]) == 0


@quick
@given(seeds)
def test_mmd_is_the_norm_of_the_difference_of_mean_embeddings(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((3, 2)), rng.standard_normal((4, 2))
    s = np.array(0.5)
    points, weight = np.concatenate([x, y]), np.concatenate([np.full(3, 1 / 3), np.full(4, -1 / 4)])
    want = weight @ spec.rbf_kernel(points, points, s) @ weight
    assert spec.mmd_squared(x, y, s) == pytest.approx(want, abs=1e-14)
    assert spec.mmd_squared(x, x, s) == pytest.approx(0, abs=1e-15)


def test_boltzmann_density_integrates_to_one_and_is_a_gaussian():
    a = np.linspace(-8, 8, 4001)
    cell = np.full(a.shape, a[1] - a[0])
    log_density = spec.boltzmann_log_density(-((a - 1) ** 2), 0.5, cell)
    assert np.sum(cell * np.exp(log_density)) == pytest.approx(1)
    want = -((a - 1) ** 2) / 0.5 - math.log(math.sqrt(2 * math.pi) * 0.5)  # variance alpha / 2
    np.testing.assert_allclose(log_density, want, atol=1e-9)
    np.testing.assert_allclose(
        spec.boltzmann_log_density(a, 0.5)[:-1] - a[:-1] / 0.5, 0, atol=1e-12
    )

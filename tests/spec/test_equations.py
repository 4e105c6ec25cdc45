"""Values of the specification that can be worked out by other means."""

import math

import numpy as np
import pytest
import scipy.stats

from vgf import Budget, Network, Settings, method_settings, spec


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_median_bandwidth_counts_the_diagonal_and_averages_the_middle():
    # distances^2 of 0, 1, 3 are 1, 4, 9; with the diagonal 0 0 0 1 1 4 4 9 9 the median is 1
    a = np.array([[0.0], [1.0], [3.0]])
    assert spec.bandwidth_squared(a) == pytest.approx(1 / (2 * math.log(4)))
    # of 0, 2 they are 0 0 4 4, whose middle values average to 2
    assert spec.bandwidth_squared(a[[0, 0]] + [[0.0], [2.0]]) == pytest.approx(1 / math.log(3))


def test_kernel_by_hand():
    k = spec.rbf_kernel(np.array([[0.0, 0.0]]), np.array([[1.0, 2.0]]), np.array(2.0))
    assert k == pytest.approx(math.exp(-5 / 4))


def test_phi_by_hand():
    a, g, alpha, sigma = np.array([[0.0], [1.0]]), np.array([[2.0], [-1.0]]), 0.5, 1.0
    k = math.exp(-0.5)
    entropy = np.array([[-k], [k]]) / 2
    pull = np.array([[2 - k], [2 * k - 1]]) / alpha / 2
    np.testing.assert_allclose(spec.phi(a, g, alpha, sigma), pull + entropy)
    np.testing.assert_allclose(spec.phi(a, g, None, sigma), pull * alpha)


def test_transport_finds_a_gaussian_target(rng):
    """Many particles and steps of plain SVGD reach the mean and variance of exp(R / alpha)."""
    alpha, centre, width = 0.5, 0.3, 0.4
    start = rng.normal(-0.5, 0.1, (40, 1))
    budget = Budget(
        steps=2000, step_size=0.05, temperature=alpha, optimiser="plain", low=None, high=None
    )
    moved = spec.transport(lambda a: alpha * (centre - a) / width**2, start, budget)
    assert moved.mean() == pytest.approx(centre, abs=0.01)
    assert moved.std() == pytest.approx(width, abs=0.04)


def test_gaussian_loss_is_the_negative_log_likelihood(rng):
    params = spec.init_mlp(rng, 2, Network((4,)), 3) | {"log_std": np.array([-1.0, 0.0, 0.5])}
    s, a = rng.standard_normal((5, 2)), rng.uniform(-0.9, 0.9, (5, 3))
    normal = scipy.stats.norm(spec.mlp(params, s), np.exp(params["log_std"]))
    assert spec.gaussian_loss(params, s, a) == pytest.approx(-normal.logpdf(a).sum(1).mean())
    squashed = normal.logpdf(np.arctanh(a)) - np.log(1 - a**2)
    assert spec.gaussian_loss(params, s, a, True) == pytest.approx(-squashed.sum(1).mean())


def test_gaussian_loss_is_finite_on_the_edge_of_the_box(rng):
    params = spec.init_mlp(rng, 2, Network((4,)), 1) | {"log_std": np.zeros(1)}
    loss, gradient = spec.gaussian_gradient(
        params, np.ones((2, 2)), np.array([[1.0], [-1.0]]), True
    )
    assert np.isfinite(loss)
    assert all(
        np.all(np.isfinite(v)) for layer in ("hidden_0", "output") for v in gradient[layer].values()
    )


def test_flow_sampler_follows_a_constant_velocity(rng):
    params = spec.init_mlp(rng, 4, Network((4,)), 2)
    params["output"]["kernel"][:] = 0
    params["output"]["bias"][:] = [0.5, -3.0]
    x0 = np.zeros((1, 3, 2))
    np.testing.assert_allclose(
        spec.flow_sample(params, np.zeros((1, 1)), x0, 7), [[[0.5, -1.0]] * 3]
    )


def test_expectile_and_sparse_losses_by_hand():
    q, y = np.array([[1.0, 3.0]]), np.array([2.0, 2.0])  # y - q = 1, -1
    assert spec.critic_loss(q, y, "squared") == 1
    assert spec.critic_loss(q, y, "expectile", 0.9) == pytest.approx((0.9 + 0.1) / 2)
    w = 1 / 1.8
    sparse = (0.9 * (w + 1) ** 2 - 1 + 0.9 * (1 - w) ** 2 + 1) / 2
    assert spec.critic_loss(q, y, "sparse", 0.9) == pytest.approx(sparse)


def test_target_bootstraps_through_a_timeout_and_not_through_a_terminal():
    q = np.array([[[1.0, 3.0], [1.0, 3.0]], [[2.0, 2.0], [2.0, 2.0]]])
    y = spec.td_target(q, np.array([1.0, 1.0]), np.array([1.0, 0.0]), 0.5, "min", "mean")
    np.testing.assert_allclose(y, [1 + 0.5 * (1 + 2) / 2, 1])
    assert spec.td_target(q, np.ones(2), np.ones(2), 0.5, "mean", "max")[0] == 1 + 0.5 * 2.5


def test_selection_follows_its_probabilities(rng):
    q = np.array([[0.0, 1.0, 3.0]])
    a, u = np.arange(3.0)[None, :, None], rng.random(20000)
    for rule in ("best", "softmax", "uniform"):
        _, index = spec.select(np.repeat(a, 20000, 0), np.repeat(q, 20000, 0), u, rule, 2.0)
        found = np.bincount(index, minlength=3) / 20000
        np.testing.assert_allclose(found, spec.selection_probabilities(q, rule, 2.0)[0], atol=0.02)


def test_best_of_a_tie_is_the_first():
    a, q = np.arange(3.0)[None, :, None], np.array([[1.0, 2.0, 2.0]])
    assert spec.select(a, q, np.array([0.99]))[1] == 1


@pytest.mark.full
def test_update_learns_a_bandit(rng):
    """One state, reward -|a - 0.5|^2, no bootstrap: acting moves beyond the data's best action."""
    settings = Settings(
        critic=Network((32, 32), layer_norm=True),
        reference=Network((32, 32)),
        particles=5,
        learning_rate=3e-3,
        sampling_steps=5,
        budget=Budget(steps=1, step_size=0.1, temperature=None),
    )
    state = spec.init_state(0, 1, 1, settings)
    s = np.zeros((64, 1))
    for _ in range(300):
        a = rng.uniform(-0.6, 0.2, (64, 1))
        batch = {
            "observations": s,
            "actions": a,
            "rewards": -((a[:, 0] - 0.5) ** 2),
            "masks": np.zeros(64),
            "next_observations": s,
        }
        state, metrics = spec.update(state, batch, settings)
    assert metrics["critic_loss"] < 0.01
    of_data, _ = spec.act(state, s, Budget(steps=0), settings)
    moved, _ = spec.act(state, s, Budget(steps=5, step_size=0.05, temperature=None), settings)
    assert of_data.mean() < 0.25
    assert moved.mean() > of_data.mean() + 0.1


def test_update_uses_every_random_number_once():
    settings = Settings(critic=Network((4,)), reference=Network((4,)))
    noise = spec.draw_update_noise(0, 0, 6, 2, settings)
    again = spec.draw_update_noise(0, 0, 6, 2, settings)
    other = spec.draw_update_noise(0, 1, 6, 2, settings)
    assert all(np.array_equal(noise[k], again[k]) for k in noise)
    assert not any(np.array_equal(noise[k], other[k]) for k in noise)
    numbers = np.concatenate([v.ravel() for v in (*noise.values(), *other.values())])
    assert len(np.unique(numbers)) == len(numbers)
    acting = spec.draw_act_noise(0, 0, 6, 10, 2)["particles"]
    assert not np.array_equal(acting, noise["particles"])


def test_inputs_are_not_changed(rng):
    settings = Settings(critic=Network((4,), layer_norm=True), reference=Network((4,)), particles=3)
    state = spec.init_state(0, 2, 1, settings)
    batch = {
        "observations": rng.standard_normal((4, 2)),
        "actions": rng.uniform(-1, 1, (4, 1)),
        "rewards": np.ones(4),
        "masks": np.ones(4),
        "next_observations": rng.standard_normal((4, 2)),
    }
    for tree in (state, batch):
        spec.tree_map(lambda x: x.setflags(write=False), tree)
    spec.update(state, batch, settings)
    spec.act(state, batch["observations"], Budget(steps=1), settings)


def test_responses_without_a_kernel_follow_their_own_gradients(rng):
    u, g = rng.standard_normal((2, 3, 4, 2))
    there = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])[:, :, None]
    np.testing.assert_allclose(spec.sequence_phi(u, g, (2, 4, 1), None, 0.5), there * g / 0.5)


def test_a_kernel_per_position_forgets_responses_that_have_ended(rng):
    u, g = rng.standard_normal((2, 3, 2, 2))
    moved = spec.sequence_phi(u, g, (2, 1, 2), "position", 0.3)
    np.testing.assert_allclose(moved[:, 0], spec.phi(u[:, 0], g[:, 0], 0.3))
    np.testing.assert_allclose(moved[[0, 2], 1], spec.phi(u[[0, 2], 1], g[[0, 2], 1], 0.3))
    assert not moved[1, 1].any()


def test_responses_of_one_token_have_one_kernel(rng):
    u, g = rng.standard_normal((2, 4, 1, 3))
    by_hand = spec.phi(u[:, 0], g[:, 0], 0.2)[:, None]
    for kernel in ("sequence", "position"):
        np.testing.assert_allclose(spec.sequence_phi(u, g, (1,) * 4, kernel, 0.2), by_hand)


def test_normalised_steps_are_of_length_1_for_a_token(rng):
    v = rng.standard_normal((2, 3, 5)) * np.array([1e-3, 1e3])[:, None, None]
    v[0, 1:] = 0
    moved = spec.rescale_sequences(v, (1, 3))
    np.testing.assert_allclose((moved**2).sum((1, 2)), [1, 3])
    np.testing.assert_allclose(moved[1] / moved[1, 0, 0], v[1] / v[1, 0, 0])
    like = spec.rescale_sequences(v[::-1], (3, 1), v)
    np.testing.assert_allclose((like**2).sum((1, 2)), (v**2).sum((1, 2)))
    assert not spec.rescale_sequences(v * 0, (1, 3)).any()


def test_decoding_without_a_likelihood_is_the_nearest_token(rng):
    e, u, log_p = rng.standard_normal((9, 3)), rng.standard_normal((6, 3)), np.zeros((6, 9))
    nearest = spec.squared_distances(u, e).argmin(1)
    scores = spec.decoding_scores(u, log_p, e, np.zeros(6, int), np.ones(9, bool), 0.0, None)
    assert (scores.argmax(1) == nearest).all()
    # an unmoved token stays what it is
    kept = spec.decoding_scores(e, np.zeros((9, 9)), e, np.arange(9), np.ones(9, bool), 0.0, 1)
    assert (kept.argmax(1) == np.arange(9)).all()


def test_decoding_by_hand():
    e, u = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [3.0, 3.0]]), np.array([[1.0, 0.5]])
    log_p = np.log([[0.1, 0.5, 0.3, 0.1]])
    allowed = np.array([True, True, True, False])
    scores = spec.decoding_scores(u, log_p, e, np.array([0]), allowed, 0.2, 1)
    mean = (1 + 4 + 2 + 18) / 4
    expected = [(1 - 0.5) / mean + 0.2 * math.log(0.1), (1 - 2) / mean + 0.2 * math.log(0.5)]
    np.testing.assert_allclose(scores, [[*expected, -np.inf, -np.inf]])
    with pytest.raises(ValueError, match="decoding_top is 0"):
        spec.decoding_scores(u, log_p, e, np.array([0]), allowed, 0.2, 0)


@pytest.mark.parametrize(
    ("lengths", "kernel", "message"),
    [((1, 4), None, "between 0 and 3"), ((1,), None, "lengths"), ((1, 2), "rbf", "'rbf'")],
)
def test_responses_that_cannot_be(rng, lengths, kernel, message):
    u = rng.standard_normal((2, 3, 2))
    with pytest.raises(ValueError, match=message):
        spec.sequence_phi(u, u, lengths, kernel)


def test_no_draw_of_an_update_is_used_twice():
    """The authors' code uses one key for several of them."""
    for method in ("vgf", "avgf", "fql"):
        settings = method_settings(method)
        draws = [
            x.ravel()
            for step in (0, 1)
            for x in spec.draw_update_noise(0, step, 64, 3, settings).values()
        ]
        every = np.concatenate(draws)
        assert len(np.unique(every)) == len(every)

"""What the authors' code does beside the equations, on small cases of our own."""

from dataclasses import replace

import numpy as np
import pytest

from vgf import spec
from vgf.spec.settings import Budget, Network, Settings, method_settings


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("guard", [0.0, 1e-6, 0.3])
def test_the_guard_is_in_the_kernel_and_in_its_gradient(rng, guard):
    a, g = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    distances = ((a[:, None] - a[None]) ** 2).sum(-1)
    sigma_squared = np.median(distances) / (2 * np.log(6))

    def total(moving):
        between = ((moving[:, None] - a[None]) ** 2).sum(-1)
        return np.exp(-between / (guard + 2 * sigma_squared)).sum()

    entropy = np.zeros_like(a)
    for i in np.ndindex(*a.shape):
        step = np.zeros_like(a)
        step[i] = 1e-6
        entropy[i] = -(total(a + step) - total(a - step)) / 2e-6 / len(a)
    k = np.exp(-distances / (guard + 2 * sigma_squared))
    got = spec.phi(a[None], g[None], 0.5, kernel_guard=guard)[0]
    np.testing.assert_allclose(got, k @ g / 0.5 / 5 + entropy, rtol=1e-6, atol=1e-8)
    fixed = spec.phi(a[None], g[None], None, 0.4, kernel_guard=guard)[0]
    np.testing.assert_allclose(fixed, np.exp(-distances / (guard + 0.32)) @ g / 5, rtol=1e-12)


@pytest.mark.parametrize(
    ("apart", "guard", "low", "high"),
    [
        (1e-6, 0.0, 0.45, 0.55),
        (1e-6, 1e-6, 0.0, 0.1),  # the guard ends their repulsion
        (1e-5, 1e-6, 0.2, 0.45),
        (1e-4, 0.0, 0.45, 0.55),
        (1e-4, 1e-6, 0.45, 0.55),  # and not that of these
        (1.0, 0.0, 0.0, 0.2),  # as far from each other as alpha / |score| or more
    ],
)
def test_how_much_of_a_narrow_reference_moves_against_the_value(apart, guard, low, high):
    """On a slope of the value, as the documentation of the guard says."""
    wrong = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a = apart * rng.normal(size=(1, 10, 5))
        g = np.broadcast_to(rng.normal(size=(1, 1, 5)), a.shape)
        budget = Budget(steps=1, temperature=0.1, kernel_guard=guard, low=None, high=None)
        moved = spec.transport(lambda _, g=g: g, a, budget)
        wrong.append(np.mean(np.sign(moved - a) != np.sign(g)))
    assert low <= np.mean(wrong) <= high


def test_logged_spreads_are_over_n_and_theirs_over_one_fewer(rng):
    start, moved = rng.normal(size=(2, 3, 4, 2))
    found = spec.transport_metrics(np.zeros(3), start, moved)
    theirs = np.mean(np.var(moved, axis=1, ddof=1))
    assert found["spread_moved"] == pytest.approx(theirs * 3 / 4)


def test_without_a_kernel_each_particle_climbs_by_itself(rng):
    a, g = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 3))
    np.testing.assert_array_equal(spec.phi(a, g, None, kernel=None), g)
    np.testing.assert_array_equal(spec.phi(a, g, 0.5, kernel=None), g / 0.5)
    budget = Budget(steps=2, optimiser="plain", step_size=0.1, temperature=None, kernel=None)
    moved = spec.transport(lambda a: -a, 0.3 * a, budget)
    np.testing.assert_allclose(moved, 0.3 * a * 0.9**2, rtol=1e-12)
    # as one particle moves with a kernel
    one = replace(budget, kernel="rbf", temperature=0.5)
    none = replace(one, kernel=None)
    alone = spec.transport(lambda a: -a, 0.3 * a[:, :1], one)
    np.testing.assert_allclose(alone, spec.transport(lambda a: -a, 0.3 * a, none)[:, :1])


SMALL = {
    "critic": Network((8, 8), layer_norm="before"),
    "reference": Network((8,)),
    "particles": 3,
    "sampling_steps": 2,
}


def batch_of(rng, b=4, o=3, d=2):
    return {
        "observations": rng.normal(size=(b, o)),
        "actions": rng.uniform(-1, 1, (b, d)),
        "rewards": rng.normal(size=b),
        "masks": np.ones(b),
        "next_observations": rng.normal(size=(b, o)),
    }


def test_a_clip_over_the_batch_is_of_training_alone(rng):
    """Acting, as the authors act: one state after another, whatever stands beside it."""
    budget = Budget(steps=2, temperature=None, clip_norm=0.01, clip_scope="batch")
    settings = Settings(
        method="avgf", budget=budget, gradient_field=Network((8,), layer_norm="before"), **SMALL
    )
    state = spec.init_state(0, 3, 2, settings)
    s, noise = rng.normal(size=(5, 3)), spec.draw_act_noise(0, 0, 5, 3, 2)
    together, info = spec.act(state, s, budget, settings, noise=noise)
    for i in range(5):
        one = {key: array[i : i + 1] for key, array in noise.items()}
        alone, _ = spec.act(state, s[i : i + 1], budget, settings, noise=one)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-12)
    # in training the states meet
    moved = spec.move(state, s, info["start"], budget, settings)
    assert np.abs(moved - info["moved"]).max() > 1e-3


def test_the_actors_have_a_learning_rate_of_their_own(rng):
    batch = batch_of(rng)
    trained = {}
    for rate in (None, 0.0, 1e-2):
        settings = Settings(actor_learning_rate=rate, learning_rate=1e-3, **SMALL)
        start = spec.init_state(0, 3, 2, settings)
        trained[rate], _ = spec.update(start, batch, settings)
        assert settings.learning_rate_of("critic") == 1e-3

    def moved(rate, network):
        was, now = start[network]["output"]["bias"], trained[rate][network]["output"]["bias"]
        return np.abs(now - was).max()

    assert [moved(rate, "critic") for rate in (None, 0.0, 1e-2)] == pytest.approx([1e-3] * 3, 1e-3)
    assert moved(0.0, "reference") == 0
    assert moved(None, "reference") == pytest.approx(1e-3, 1e-3)
    assert moved(1e-2, "reference") == pytest.approx(1e-2, 1e-3)
    fql = method_settings("fql", actor_learning_rate=0.5)
    assert [fql.learning_rate_of(name) for name in fql.networks] == [3e-4, 0.5, 0.5]


@pytest.mark.parametrize("method", ["vgf", "fql"])
def test_the_target_mixes_in_the_critic_from_before_its_step(rng, method):
    own = {"budget": Budget(steps=0)} if method == "fql" else {}
    batch = batch_of(rng)
    for when, source in (("before", 0), ("after", 1)):
        settings = Settings(method=method, target_update=when, polyak=0.1, **own, **SMALL)
        start = spec.init_state(0, 3, 2, settings)
        start["target_critic"] = spec.tree_map(lambda p: 0.5 * p, start["critic"])
        after, _ = spec.update(start, batch, settings)
        want = spec.polyak((start, after)[source]["critic"], start["target_critic"], 0.1)
        np.testing.assert_array_equal(
            after["target_critic"]["output"]["kernel"], want["output"]["kernel"]
        )


def test_the_critics_mean_is_half_of_their_sum(rng):
    q, y = rng.normal(size=(2, 5)), rng.normal(size=5)
    assert spec.critic_loss(q, y, "mean_squared") == pytest.approx(np.mean((q - y) ** 2))
    assert spec.critic_loss(q, y, "squared") == pytest.approx(2 * np.mean((q - y) ** 2))


def test_the_sparse_loss_has_an_alpha_of_its_own(rng):
    q, y = rng.normal(size=(2, 5)), rng.normal(size=5)
    x, alpha = y - q, 3.0
    w = x / (2 * alpha) + 1
    want = np.mean(np.sum(alpha * np.where(w > 0, w**2, 0) - x, axis=0))
    assert spec.critic_loss(q, y, "sparse", 0.7, alpha) == pytest.approx(want)
    assert spec.critic_loss(q, y, "sparse", 0.7) == spec.critic_loss(q, y, "sparse", 0.2, 0.7)
    with pytest.raises(ValueError, match="sparse_alpha"):
        Settings(sparse_alpha=0.0)


def test_fql_is_its_authors_code():
    """As agents/fql.py and utils/networks.py of seohongpark/fql have it."""
    settings = method_settings("fql")
    wide = (512, 512, 512, 512)
    assert settings.critic == Network(wide, "gelu_tanh", "after")
    assert settings.reference == settings.policy == Network(wide, "gelu_tanh", None)
    assert (settings.target_update, settings.critic_loss) == ("before", "mean_squared")
    assert (settings.target_ensemble, settings.particles) == ("mean", 1)
    assert (settings.distillation, settings.normalise_values) == (10.0, False)
    layers = spec.init_state(0, 3, 2, settings)["critic"]
    assert set(layers["hidden_0"]) == {"kernel", "bias", "post_scale", "post_offset"}
    assert set(layers["output"]) == {"kernel", "bias"}


def test_layer_norm_after_the_activation(rng):
    params = spec.init_mlp(rng, 3, Network((6,), "gelu_tanh", "after"), 2)
    layer, x = params["hidden_0"], rng.normal(size=(4, 3))
    layer["post_scale"], layer["post_offset"] = rng.normal(size=6), rng.normal(size=6)
    z = spec.activate(x @ layer["kernel"] + layer["bias"], "gelu_tanh")
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
    want = (z * layer["post_scale"] + layer["post_offset"]) @ params["output"]["kernel"]
    np.testing.assert_allclose(spec.mlp(params, x, "gelu_tanh"), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "meant"), [(True, "before"), (False, None), ("none", None), ("after", "after")]
)
def test_how_layer_norm_is_spelled(given, meant):
    assert Network(layer_norm=given).layer_norm == meant
    with pytest.raises(ValueError, match=r"network\.layer_norm is 'middle'"):
        Network(layer_norm="middle")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Budget(kernel_guard=None), "budget.kernel_guard is None; it must be a number"),
        (lambda: Budget(steps=None), "budget.steps is None; it must be a number"),
        (lambda: Settings(discount=None), "discount is None; it must be a number"),
        (lambda: Settings(polyak="x"), "polyak is 'x'; it must be a number"),
        (lambda: method_settings("fql", distillation=None), "distillation is None"),
    ],
)
def test_none_is_no_number_where_it_means_nothing(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""A hundred consecutive updates give the same parameters on every backend."""

import numpy as np
import pytest

from vgf import get_backend, spec
from vgf.testing.training import ACTION_DIM, BATCH, TRAININGS, batches, drift, measure_drift, train

pytestmark = pytest.mark.full("jax")  # a program for every training

# one on the way of all, and one more of each method on torch; the others take seconds, more on JAX,
# which compiles them; NumPy runs the specification itself
QUICK = ("vgf flow squared",)
FULL = ("avgf gaussian squared", "weighted_bc flow", "fql normalised")
SLOW = {name: ("jax", "numpy") if name in FULL else ("jax", "numpy", "torch") for name in TRAININGS}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.heavy(*SLOW[n])]) for n in TRAININGS],
)
@pytest.mark.full
@pytest.mark.backend(dtypes=("float64",))
def test_a_hundred_updates_agree_in_float64(backend, name):
    found = measure_drift(backend, name)
    assert found.relative <= 1e-8, found


@pytest.mark.full
@pytest.mark.heavy("jax")
@pytest.mark.parametrize("name", ["vgf flow squared", "avgf flow squared"])
@pytest.mark.backend(dtypes=("float32",))
def test_float32_stays_near_at_first(backend, name):
    """Later a rounding can flip a ReLU: the drift over 100 updates is for validation.parity."""
    found = measure_drift(backend, name, updates=10)
    assert found.relative < 1e-3, found


@pytest.mark.full
@pytest.mark.heavy("jax")
@pytest.mark.backend(dtypes=("float64",))
def test_drawn_noise_reproduces_a_run_and_its_continuation(backend):
    """Seed and step decide the noise: a split run equals a straight one, bit for bit."""
    settings = TRAININGS["vgf flow squared"]

    def run(state, steps):
        for step in steps:
            state, _ = backend.update(state, backend.asarray(data[step]), settings)
        return state

    data = batches(4)
    start = backend.init_state(7, 6, 3, settings)
    straight = backend.to_numpy(run(start, range(4)))
    half = backend.to_numpy(run(start, range(2)))
    split = backend.to_numpy(run(backend.asarray(half), range(2, 4)))
    assert drift(split, straight, 4).absolute == 0
    other = run({**start, "seed": start["seed"] + 1}, range(4))
    assert drift(backend.to_numpy(other["critic"]), straight["critic"], 4).absolute > 0


@pytest.mark.backend(dtypes=("float64",))
def test_parameters_trained_on_one_backend_run_on_another(backend):
    settings = TRAININGS["vgf flow squared"]
    trained = train(backend, settings, 3)
    other = spec.tree_map(np.array, trained)
    s = np.random.default_rng(0).standard_normal((5, 6))
    noise = spec.draw_act_noise(0, 0, 5, 4, ACTION_DIM)
    want, _ = spec.act(other, s, settings.budget, settings, noise=noise)
    got, _ = backend.act(
        backend.asarray(trained),
        backend.asarray(s),
        settings.budget,
        settings,
        noise=backend.asarray(noise),
    )
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-9, atol=1e-12)


@pytest.mark.heavy("jax")
def test_a_policy_is_act_from_numpy_to_numpy(backend):
    settings = TRAININGS["vgf flow squared"]
    state = backend.init_state(0, 6, ACTION_DIM, settings)
    # as an evaluation has them: float32 observations, float64 noise
    s = np.random.default_rng(0).standard_normal((5, 6), np.float32)
    noise = spec.draw_act_noise(0, 0, 5, 4, ACTION_DIM)
    a, info = backend.policy(state, settings)(s, settings.budget, noise)
    want, told = backend.act(
        state, backend.asarray(s), settings.budget, settings, noise=backend.asarray(noise)
    )
    assert type(a) is np.ndarray
    assert a.dtype == backend.dtype
    np.testing.assert_array_equal(a, backend.to_numpy(want))
    assert info.keys() == told.keys()
    for key, array in info.items():
        assert type(array) is np.ndarray
        np.testing.assert_array_equal(array, backend.to_numpy(told[key]))


@pytest.mark.heavy("jax")
def test_drawn_noise_is_what_it_should_be(backend):
    settings = TRAININGS["vgf flow squared"]
    first = backend.to_numpy(backend.draw_update_noise(3, 5, BATCH, ACTION_DIM, settings))
    again = backend.to_numpy(backend.draw_update_noise(3, 5, BATCH, ACTION_DIM, settings))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    others = [
        backend.to_numpy(backend.draw_update_noise(4, 5, BATCH, ACTION_DIM, settings)),
        backend.to_numpy(backend.draw_update_noise(3, 6, BATCH, ACTION_DIM, settings)),
    ]
    acting = backend.to_numpy(backend.draw_act_noise(3, 5, BATCH, 5, ACTION_DIM))
    assert first["particles"].shape == acting["particles"].shape == (BATCH, 5, ACTION_DIM)
    assert all(first[key].dtype == backend.dtype for key in first)
    numbers = [first, *others, acting]
    for i, one in enumerate(numbers):
        for other in numbers[:i]:
            # float32 numbers coincide now and then
            assert np.isin(one["particles"], other["particles"]).mean() < 0.02
    many = backend.to_numpy(backend.draw_update_noise(0, 0, 4000, 5, settings))
    for name in ("particles", "reference_start"):
        assert abs(many[name].mean()) < 0.03
        assert abs(many[name].std() - 1) < 0.03
    assert np.isin(many["reference_start"][:100], many["particles"][:100]).mean() < 0.02
    correlation = np.corrcoef(many["reference_start"].ravel(), many["particles"][:, 0].ravel())
    assert abs(correlation[0, 1]) < 0.03
    t = many["reference_time"]
    assert 0 <= t.min() < 0.01
    assert 0.99 < t.max() <= 1
    assert abs(t.mean() - 0.5) < 0.02


@pytest.mark.parametrize("name", ["vgf flow squared", "avgf gaussian expectile"])
@pytest.mark.slow
@pytest.mark.backend(names=("torch",), dtypes=("float64",))
def test_torch_compiled_agrees_too(backend, name):
    compiled = get_backend("torch", dtype="float64", device=backend.device, compile=True)
    assert measure_drift(compiled, name, updates=20).relative <= 1e-8


def test_drift_notices_a_difference_and_nan():
    want = {"a": np.ones(3), "b": {"c": np.full(2, 10.0)}}
    close = {"a": np.ones(3), "b": {"c": np.array([10.0, 10.1])}}
    assert drift(want, want, 1).relative == 0
    assert drift(close, want, 1).leaf == "b.c"
    assert drift(close, want, 1).relative == pytest.approx(0.01)
    assert drift({"a": np.full(3, np.nan), "b": want["b"]}, want, 1).relative == np.inf
    with pytest.raises(ValueError, match="trees differ"):
        drift({"a": np.ones(3)}, want, 1)


@pytest.mark.full
@pytest.mark.heavy("jax")
@pytest.mark.backend(dtypes=("float64",))
def test_trees_are_paired_by_name_and_not_by_order(backend):
    settings = TRAININGS["avgf flow squared"]
    state = spec.tree_map(np.array, train(backend, settings, 2))

    def reversed_keys(tree):
        if not isinstance(tree, dict):
            return tree
        return {key: reversed_keys(tree[key]) for key in reversed(list(tree))}

    mixed = {**state, "optimiser": reversed_keys(state["optimiser"])}
    mixed["target_critic"] = reversed_keys(state["target_critic"])
    batch, noise = batches(1)[0], spec.draw_update_noise(0, 0, BATCH, ACTION_DIM, settings)
    after = [
        backend.to_numpy(
            backend.update(
                backend.asarray(tree), backend.asarray(batch), settings, backend.asarray(noise)
            )[0]
        )
        for tree in (state, mixed)
    ]
    assert drift(after[1], after[0], 1).absolute == 0

"""Parts of a method that are a user's own: felt on every backend, and equal to NumPy's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from vgf import Budget, Network, Settings, method_settings, spec
from vgf.spec.parts import Kernel
from vgf.testing.training import ACTION_DIM, BATCH, OBSERVATION_DIM, batches, drift, train

OWN = Path(__file__).parents[1] / "own" / "parts.py"
SMALL = {
    "critic": Network((16, 16), layer_norm=True),
    "reference": Network((16, 16)),
    "sampling_steps": 3,
    "particles": 4,
}
BUDGET = Budget(steps=2, step_size=0.1, temperature=0.3)
PARTS = {
    "kernel": {"budget": {"kernel": "InverseMultiquadric"}},
    "kernel, asymmetric": {"budget": {"kernel": "Lopsided"}},
    "kernel without entropy": {"budget": {"kernel": "Lopsided", "temperature": None}},
    "particle step": {"budget": {"optimiser": "Momentum"}},
    "sampler": {"sampler": "Midpoint"},
    "critic loss": {"critic_loss": "LogCosh"},
    "target": {"target": "Pessimistic"},
}


def named(name):
    return f"{OWN}:{name}"


def settings_with(part, **more):
    values = {key: named(value) for key, value in part.items() if key != "budget"}
    budget = {
        key: named(value) if isinstance(value, str) else value
        for key, value in part.get("budget", {}).items()
    }
    return Settings(**{**SMALL, **more, **values, "budget": dataclasses.replace(BUDGET, **budget)})


@pytest.mark.full
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
@pytest.mark.heavy("jax")
def test_a_part_of_ones_own_computes_the_same_everywhere(backend, name):
    from vgf.backends import get_backend

    settings = settings_with(PARTS[name])
    want = train(get_backend("numpy"), settings, 5)
    found = drift(train(backend, settings, 5), want, 5)
    assert found.relative <= 1e-8, found
    plain = drift(train(backend, Settings(**SMALL, budget=BUDGET), 5), want, 5)
    assert plain.absolute > 1e-4  # it is felt


@pytest.mark.full
@pytest.mark.backend(dtypes=("float64",))
def test_a_selection_rule_of_ones_own(backend):
    settings = settings_with({"selection": "SecondBest"})
    state = backend.init_state(0, OBSERVATION_DIM, ACTION_DIM, settings)
    s = backend.asarray(np.random.default_rng(0).standard_normal((5, OBSERVATION_DIM)))
    noise = backend.asarray(spec.draw_act_noise(0, 0, 5, 4, ACTION_DIM))
    actions, info = backend.act(state, s, BUDGET, settings, noise=noise)
    q, index, moved = (backend.to_numpy(info[name]) for name in ("q", "index", "moved"))
    np.testing.assert_array_equal(index, np.argsort(q, axis=-1)[:, -2])
    np.testing.assert_array_equal(backend.to_numpy(actions), moved[np.arange(5), index])


@pytest.mark.backend(names=("numpy",))
def test_numpy_says_what_a_part_lacks(backend):
    settings = settings_with({"budget": {"kernel": "NoGradient"}})
    with pytest.raises(ValueError, match=r"NoGradient has no gradient\(x, y, sigma_squared\)"):
        train(backend, settings, 1)


def test_an_object_of_ones_own_stands_for_its_name():
    class Mine(Kernel):
        def value(self, eq, x, y, sigma_squared):
            return eq.rbf_kernel(x, y, sigma_squared)

    budget = Budget(kernel=Mine)
    assert budget.kernel.endswith("Mine")
    assert Budget(kernel=budget.kernel) == budget


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"selection": "wurst"}, "selection is 'wurst'; choose one of best, softmax, uniform"),
        ({"selection": f"{OWN}:Midpoint"}, "must be a class derived from .*SelectionRule"),
        ({"selection": f"{OWN}:SecondBets"}, "did you mean SecondBest"),
        ({"target": "nowhere.at.all:X"}, "no module 'nowhere'"),
        ({"sampler": f"{OWN}:Midpoint", "reference_kind": "gaussian"}, "reference_kind 'flow'"),
    ],
)
def test_names_that_name_no_part(values, message):
    with pytest.raises(ValueError, match=message):
        method_settings("vgf", **values)


@pytest.mark.full
@pytest.mark.backend(names=("jax",), dtypes=("float64",))
@pytest.mark.heavy("jax")
def test_parts_are_felt_where_seeds_train_side_by_side(backend):
    settings = settings_with(PARTS["kernel, asymmetric"])
    states = [backend.init_state(seed, OBSERVATION_DIM, ACTION_DIM, settings) for seed in (0, 1)]
    data = backend.asarray(batches(1)[0])
    rows = np.zeros((2, 1, BATCH), np.int64) + np.arange(BATCH)
    gpu = type("Gpu", (type(backend),), {})("cpu", backend.dtype, backend.matmul_precision)
    gpu.device = "gpu:0"  # on a CPU of one device, side by side is one by one
    together = gpu.updates_together(states, data, rows, settings)
    for (state, _), start, own in zip(together, states, rows, strict=True):
        alone, _ = backend.updates(start, data, own, settings)
        assert drift(backend.to_numpy(state), backend.to_numpy(alone), 1).relative < 1e-9

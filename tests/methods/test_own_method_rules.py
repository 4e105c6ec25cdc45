"""What a method of somebody's own says is what runs, and what it leaves out is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vgf import Budget, Network, get_backend, method_settings, spec
from vgf.methods import VGF, Method
from vgf.runs.config import default_config
from vgf.runs.resolve import resolve
from vgf.spec.parts import Kernel
from vgf.testing.training import ACTION_DIM, OBSERVATION_DIM, batches

MINE = Path(__file__).parents[1] / "own" / "mine.py"
SMALL = {"critic": Network((4,)), "reference": Network((4,)), "sampling_steps": 1, "particles": 2}


class Derived(VGF):
    def gradients(self, eq, state, batch, noise, settings):
        return super().gradients(eq, state, batch, noise, settings)


class Forgetful(VGF):
    def gradients(self, eq, state, batch, noise, settings):
        gradients, metrics = super().gradients(eq, state, batch, noise, settings)
        return {"critic": gradients["critic"]}, metrics


class Unmade(Method):
    trains = ("critic", "extra")


class Chosen(VGF):
    defaults = {"particles": 10, "budget": Budget(steps=4, optimiser="plain", bandwidth=0.7)}


def updated(backend, settings):
    state = backend.init_state(0, OBSERVATION_DIM, ACTION_DIM, settings)
    return backend.update(state, backend.asarray(batches(1)[0]), settings)


def test_numpy_does_not_run_a_base_in_its_place():
    assert Derived.specification is None
    assert VGF.specification is not None
    with pytest.raises(ValueError, match="has no `specification`, which NumPy runs"):
        updated(get_backend("numpy"), method_settings(Derived, **SMALL))


@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
def test_gradients_are_those_of_the_networks_it_trains(backend):
    with pytest.raises(ValueError, match="returned gradients of critic; it trains critic, ref"):
        updated(backend, method_settings(Forgetful, **SMALL))


def test_a_network_that_nobody_describes():
    settings = method_settings(Unmade, **SMALL)
    with pytest.raises(ValueError, match="trains extra, which its `networks` does not describe"):
        spec.init_state(0, OBSERVATION_DIM, ACTION_DIM, settings)


def test_its_defaults_are_a_runs():
    agent = default_config(method=method_settings(Chosen).method).agent
    assert (agent.particles, agent.budget) == (10, Chosen.defaults["budget"])


def test_a_file_of_code_named_in_a_file_of_settings_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE.read_text())
    (tmp_path / "run.toml").write_text(
        '[agent]\nmethod = "mine.py:MyMethod"\nbudget.kernel = "mine.py:IMQ"\n'
    )
    agent = resolve({}, "run.toml").agent
    assert agent.method == f"{tmp_path}/mine.py:MyMethod"
    assert agent.budget.kernel == f"{tmp_path}/mine.py:IMQ"


def test_two_classes_of_one_name_are_two():
    def kernel(scale):
        class Scaled(Kernel):
            def value(self, eq, x, y, sigma_squared):
                return scale * eq.rbf_kernel(x, y, sigma_squared)

        return Scaled

    one, two = (Budget(kernel=kernel(scale), temperature=None) for scale in (1.0, 2.0))
    assert one != two
    a, g = np.zeros((1, 2, 1)), np.ones((1, 2, 1))
    moved = [spec.phi(a, g, None, 1.0, False, budget.kernel) for budget in (one, two)]
    np.testing.assert_allclose(moved[1], 2 * moved[0])

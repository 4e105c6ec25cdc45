"""An equation that a subclass overrides is called by every other, or the class is refused."""

import dataclasses

import numpy as np
import pytest

from vgf import Budget, Network, Settings, method_settings
from vgf.equations import EQUATIONS
from vgf.spec.operators import BPTT, QGF, Gradient, Langevin
from vgf.testing.training import ACTION_DIM, BATCH, OBSERVATION_DIM, TRAININGS, batches

pytestmark = pytest.mark.full  # a subclass compiles its own programs on JAX
SETTINGS = TRAININGS["vgf flow squared"]
# Between them, they use every equation but those of language models.
SMALL = {"critic": Network((4,)), "reference": Network((4,)), "sampling_steps": 1, "particles": 2}
BUDGET = Budget(steps=1, clip_norm=1.0)
EVERY_USE = [
    Settings(**SMALL, budget=BUDGET, clip_norm=1.0),
    Settings(**SMALL, budget=dataclasses.replace(BUDGET, bandwidth_gradient=True)),
    Settings(**SMALL, reference_kind="gaussian"),
    method_settings("avgf", **SMALL, gradient_field=Network((4,))),
    method_settings("weighted_bc", **SMALL),
    method_settings("fql", **SMALL, policy=Network((4,))),
    method_settings("iql", **SMALL, value=Network((4,))),
]
OPERATORS = [QGF(jacobian=True), BPTT(), Gradient(), Langevin()]
TEXT = {"sequence_phi", "rescale_sequences", "decoding_scores"}
OPTIONS = {"device": "cpu", "matmul_precision": "float32"}


def subclass(backend, **methods):
    """A backend of the same kind with some methods of its own."""
    kind = type("Mine", (type(backend),), methods)
    return kind(dtype=backend.dtype, **OPTIONS)


def still(self, a, g, *args, **kwargs):
    return g * 0


def start(backend, settings=SETTINGS):
    return backend.init_state(0, OBSERVATION_DIM, ACTION_DIM, settings)


def displacement(metrics, backend):
    return float(backend.to_numpy(metrics["displacement"]))


@pytest.mark.backend(dtypes=("float64",))
@pytest.mark.heavy("jax")
def test_a_phi_of_zeros_moves_nothing(backend):
    mine = subclass(backend, phi=still)
    batch = mine.asarray(batches(1)[0])
    for one, moves in ((mine, False), (backend, True)):
        _, metrics = one.update(start(one), batch, SETTINGS)
        assert (displacement(metrics, one) > 0) is moves
        _, info = one.act(start(one), batch["observations"], SETTINGS.budget, SETTINGS)
        gone = np.abs(one.to_numpy(info["moved"]) - one.to_numpy(info["start"])).max()
        assert bool(gone > 0) is moves


@pytest.mark.backend(dtypes=("float64",))
@pytest.mark.heavy("jax")
def test_it_is_felt_in_many_updates_and_side_by_side(backend):
    mine = subclass(backend, phi=still)
    if backend.name == "jax":
        mine.device = "gpu:0"  # on a CPU of one device, side by side is one by one
    data, rows = mine.asarray(batches(1)[0]), np.zeros((2, 3, BATCH), np.int64) + np.arange(BATCH)
    _, metrics = mine.updates(start(mine), data, rows[0], SETTINGS)
    assert displacement(metrics, mine) == 0
    for _, found in mine.updates_together([start(mine), start(mine)], data, rows, SETTINGS):
        assert displacement(found, mine) == 0


@pytest.mark.backend(dtypes=("float64",))
def test_what_would_never_be_called_is_refused(backend):
    with pytest.raises(TypeError, match=r"Mine\.mlp would (never|not) be called"):
        subclass(backend, mlp=lambda self, params, x, activation: x)
    with pytest.raises(TypeError, match=r"Mine\.phi takes \(a, score\); it is called with \(a, g,"):
        subclass(backend, phi=lambda self, a, score: a)


@pytest.mark.backend(dtypes=("float64",))
@pytest.mark.heavy("jax")
def test_every_equation_is_called_or_refused(backend):
    """Each override is heard in an update or in acting of some method, or its class is refused."""
    heard = set()

    def listening(name):
        def listen(self, *args, **kwargs):
            heard.add(name)
            return getattr(super(self.mine, self), name)(*args, **kwargs)

        return listen

    wanted = {}
    for name in set(EQUATIONS) - TEXT:
        try:
            type("One", (type(backend),), {name: listening(name)})
        except TypeError:
            continue
        wanted[name] = listening(name)
    assert len(wanted) > len(EQUATIONS) / 2
    kind = type("Mine", (type(backend),), wanted)
    kind.mine = kind
    mine = kind(dtype="float64", **OPTIONS, **({"jit": False} if backend.name == "jax" else {}))
    batch = mine.asarray(batches(1)[0])
    for settings in EVERY_USE:
        state = start(mine, settings)
        mine.update(state, batch, settings)
        mine.act(state, batch["observations"], settings.budget, settings)
    settings = EVERY_USE[-1]
    state, s = start(mine, settings), batch["observations"]
    for operator in OPERATORS:
        noise = mine.draw_act_noise(0, 0, len(s), operator.rows(settings), ACTION_DIM)
        mine.operate(state, s, operator, settings, noise)
    assert heard == set(wanted)

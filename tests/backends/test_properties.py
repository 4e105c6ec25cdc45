"""The limits and symmetries of the flow, as properties of every backend.

They do not compare with the specification, so that an error in it would show here.
"""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgf import Budget
from vgf.testing.compare import MACHINE_EPSILON
from vgf.testing.strategies import Maker

FORMS = [
    {"temperature": 0.5},
    {"temperature": None},
    {"temperature": 0.5, "bandwidth_gradient": True},
]
BUDGETS = [
    Budget(steps=3, step_size=0.1, optimiser="plain", temperature=0.5),
    Budget(steps=3, step_size=0.1, optimiser="adam", temperature=0.5),
    Budget(steps=2, step_size=0.3, optimiser="adam", temperature=None),
]


@pytest.fixture
def search(examples, seed):
    """Decorates a property: tries it on examples drawn by a Maker."""

    def decorate(test):
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @given(st.composite(lambda draw: Maker(draw))())
        def run(make):
            test(make)

        run()

    return decorate


def particles_and_scores(make, backend):
    """Generic particles, so that rounding cannot decide between neighbours of the median."""
    b, n, d = make.sizes()
    return (
        backend.asarray(make.rng.uniform(-1, 1, (b, n, d))),
        backend.asarray(make.normal(b, n, d)),
    )


def close(backend, got, want, scale=1.0):
    """Equal to the rounding of a few hundred operations at the given scale."""
    got, want = (np.asarray(backend.to_numpy(x), np.float64) for x in (got, want))
    scale = max(scale, float(np.max(np.abs(want), initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=500 * MACHINE_EPSILON[backend.dtype] * scale)


@pytest.mark.parametrize("form", FORMS[:2], ids=["entropy", "no entropy"])
def test_phi_is_equivariant_to_permuting_particles(backend, search, form):
    @search
    def _(make):
        a, g = particles_and_scores(make, backend)
        order = make.rng.permutation(a.shape[1])
        phi = backend.phi(a, g, **form)
        close(backend, backend.phi(a[:, order], g[:, order], **form), phi[:, order], 10.0)


@pytest.mark.parametrize("form", FORMS, ids=["entropy", "no entropy", "through bandwidth"])
def test_phi_is_unchanged_by_translating_particles(backend, search, form):
    @search
    def _(make):
        a, g = particles_and_scores(make, backend)
        # a shift by a power of two of numbers on a coarse grid is exact in both dtypes
        a = backend.asarray(np.round(backend.to_numpy(a) * 256) / 256)
        close(backend, backend.phi(a + 2.0, g, **form), backend.phi(a, g, **form), 10.0)


def test_repulsion_sums_to_zero(backend, search):
    @search
    def _(make):
        b, n, d = make.sizes()
        a = make.particles((b,), n, d)
        sigma_squared = make.rng.uniform(0.01, 4, (b,))
        pushes = backend.to_numpy(backend.repulsion(*map(backend.asarray, (a, sigma_squared))))
        close(
            backend,
            backend.asarray(pushes.sum(-2)),
            backend.asarray(np.zeros((b, d))),
            n * float(np.max(np.abs(pushes), initial=0.0)),
        )


def test_repulsion_pushes_two_particles_apart(backend):
    a = backend.asarray([[[-0.1], [0.2]]])
    push = backend.to_numpy(backend.repulsion(a, backend.bandwidth_squared(a)))[0, :, 0]
    assert push[0] < 0 < push[1]
    # k = exp(-d^2 / (2 s)) with s = (d^2 / 2) / (2 log 3), so k = 3^-2, and the push is k d / (2 s)
    expected = (1 / 9) * 0.3 / (0.3**2 / 2 / (2 * np.log(3))) / 2
    np.testing.assert_allclose(push, [-expected, expected], rtol=1e-5)


def test_one_particle_is_gradient_ascent(backend, search):
    @search
    def _(make):
        b, _, d = make.sizes()
        a, g = make.particles((b,), 1, d), make.normal(b, 1, d)
        a, g = backend.asarray(a), backend.asarray(g)
        close(backend, backend.phi(a, g), g)
        close(backend, backend.phi(a, g, 0.25), g * 4.0)


@pytest.mark.parametrize("form", FORMS, ids=["entropy", "no entropy", "through bandwidth"])
def test_identical_particles_do_not_repel(backend, search, form):
    @search
    def _(make):
        b, n, d = make.sizes()
        a = np.repeat(make.rng.uniform(-1, 1, (b, 1, d)), n, axis=1)
        g = make.normal(b, n, d)
        phi = backend.to_numpy(backend.phi(backend.asarray(a), backend.asarray(g), **form))
        mean = g.mean(axis=1, keepdims=True) / (form["temperature"] or 1.0)
        close(backend, backend.asarray(phi), backend.asarray(np.repeat(mean, n, axis=1)), 5.0)
        assert np.all(
            backend.to_numpy(backend.repulsion_through_bandwidth(backend.asarray(a))) == 0
        )


def test_constant_scores_without_entropy_act_through_the_kernel_alone(backend, search):
    @search
    def _(make):
        b, n, d = make.sizes()
        a = backend.asarray(make.rng.uniform(-1, 1, (b, n, d)))
        c = make.normal(d)
        phi = backend.phi(a, backend.asarray(np.broadcast_to(c, (b, n, d)).copy()))
        k = backend.to_numpy(backend.rbf_kernel(a, a, backend.bandwidth_squared(a)))
        close(backend, phi, backend.asarray(k.mean(-1)[..., None] * c), 3.0)


@pytest.mark.heavy("jax")
@pytest.mark.parametrize("budget", BUDGETS, ids=["plain", "adam", "no entropy"])
def test_states_do_not_affect_each_other(backend, search, budget):
    @search
    def _(make):
        a, g = particles_and_scores(make, backend)
        together = backend.transport(lambda x: g - x, a, budget)
        alone = backend.transport(lambda x: g[:1] - x, a[:1], budget)
        close(backend, together[:1], alone, 5.0)


@pytest.mark.heavy("jax")
@pytest.mark.full
@pytest.mark.parametrize("clip", ["state", None])
def test_an_action_depends_on_its_own_state_alone(backend, clip):
    from vgf import Network, method_settings

    small = Network((8, 8), layer_norm=True)
    settings = method_settings(
        "avgf", critic=small, reference=Network((8, 8)), gradient_field=small
    )
    budget = Budget(steps=3, optimiser="plain", clip_norm=0.01 if clip else None)
    state = backend.init_state(0, 3, 2, settings)
    s = backend.asarray(np.random.default_rng(0).standard_normal((4, 3)))
    noise = backend.draw_act_noise(0, 0, 4, 5, 2)
    a, _ = backend.act(state, s, budget, settings, noise=noise)
    first = {"particles": noise["particles"][:1], "select": noise["select"][:1]}
    close(backend, backend.act(state, s[:1], budget, settings, noise=first)[0], a[:1])


def test_no_steps_leave_the_particles_alone(backend, search):
    @search
    def _(make):
        b, n, d = make.sizes()
        a = backend.asarray(make.particles((b,), n, d))
        for optimiser in ("plain", "adam"):
            moved = backend.transport(lambda x: x * np.nan, a, Budget(steps=0, optimiser=optimiser))
            assert np.array_equal(backend.to_numpy(moved), backend.to_numpy(a))


def test_no_steps_are_best_of_n(backend):
    from vgf import Network, Settings

    settings = Settings(critic=Network((8, 8), layer_norm=True), reference=Network((8, 8)))
    state = backend.init_state(3, 4, 2, settings)
    s = backend.asarray(np.random.default_rng(0).standard_normal((6, 4)))
    a, info = backend.act(state, s, Budget(steps=0), settings, particles=7)
    start, q = backend.to_numpy(info["start"]), backend.to_numpy(info["q"])
    assert np.array_equal(backend.to_numpy(info["moved"]), start)
    assert start.shape == (6, 7, 2)
    assert np.array_equal(backend.to_numpy(a), start[np.arange(6), q.argmax(1)])


@pytest.mark.heavy("jax")
def test_the_trajectory_holds_every_shorter_budget(backend, search):
    @search
    def _(make):
        a, g = particles_and_scores(make, backend)
        full = Budget(steps=3, step_size=0.1, temperature=0.5)
        path = backend.transport(lambda x: g - x, a, full, trajectory=True)
        assert path.shape == (4, *a.shape)
        assert np.array_equal(backend.to_numpy(path[0]), backend.to_numpy(a))
        for steps in (1, 2, 3):
            short = Budget(steps=steps, step_size=0.1, temperature=0.5)
            close(backend, backend.transport(lambda x: g - x, a, short), path[steps], 2.0)


def test_moved_particles_stay_in_the_box(backend, search):
    @search
    def _(make):
        b, n, d = make.sizes()
        a, g = make.actions(b, n, d), make.scores((b, n, d))
        moved = backend.transport(
            lambda x: x * 0 + backend.asarray(g),
            backend.asarray(a),
            Budget(steps=2, step_size=0.5, temperature=0.1),
        )
        moved = backend.to_numpy(moved)
        assert np.all(np.isfinite(moved))
        assert np.all(np.abs(moved) <= 1)


def test_adam_moves_each_coordinate_by_the_step_size_at_first(backend):
    a = backend.asarray([[[0.0, 0.0], [0.3, -0.2]]])
    velocity = backend.asarray([[[5.0, -1e-3], [1e6, -2.0]]])
    budget = Budget(steps=1, step_size=0.1)
    moved, _ = backend.flow_step(a, velocity, backend.adam_init(a), budget)
    step = backend.to_numpy(moved) - backend.to_numpy(a)
    np.testing.assert_allclose(step, [[[0.1, -0.1], [0.1, -0.1]]], rtol=2e-5)

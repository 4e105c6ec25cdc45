"""Operators in NumPy: gradients by finite differences, limits that must hold, costs counted."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from test_gradients import numerical_gradient

from vgf import Budget, Network, method_settings, spec
from vgf.spec.operators import (
    BPTT,
    QFQL,
    QGF,
    BestOfN,
    Cost,
    Flow,
    Gradient,
    Langevin,
    Operator,
    Sample,
)
from vgf.spec.registry import find, names

O, D, K, N = 3, 2, 4, 5  # noqa: E741
SMALL = {
    "critic": Network((6, 5), "swish", layer_norm=True),
    "reference": Network((6, 5), "swish"),
    "sampling_steps": K,
    "particles": N,
}
IQL = method_settings("iql", **SMALL, value=Network((4,)))
EVERY = [find(Operator, name, "operator") for name in names(Operator) if ":" not in name]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def state(rng):
    made = spec.init_state(0, O, D, IQL)
    shaken = {
        name: spec.tree_map(lambda p: p + 0.3 * rng.standard_normal(p.shape), made[name])
        for name in ("critic", "target_critic", "reference")
    }
    return {**made, **shaken}


def value(state, s, a, how):
    return spec.aggregate(spec.critic_values(state["critic"], s, a, "swish"), how).sum()


@pytest.mark.parametrize("how", ["mean", "min"])
@pytest.mark.parametrize("scale", [0.3, 3.0])  # inside the box, and mostly beyond it
def test_gradients_through_the_sampler(rng, state, how, scale):
    s, x, v = (
        rng.standard_normal((4, O)),
        scale * rng.standard_normal((4, N, D)),
        state["reference"],
    )
    t = np.full((4, N, 1), 0.25)

    def one_step(x):
        y = x + 0.75 * spec.flow_velocity(v, s, x, t, "swish")
        return value(state, s, spec.project(y), how)

    got = spec.denoised_gradient(v, state["critic"], s, x, t, how, "swish", "swish")
    np.testing.assert_allclose(got, numerical_gradient(one_step, x), rtol=1e-5, atol=1e-7)
    for start in range(K + 1):

        def rest(x, start=start):
            for k in range(start, K):
                x = x + spec.flow_velocity(v, s, x, np.full((4, N, 1), k / K), "swish") / K
            return value(state, s, spec.project(x), how)

        got = spec.sampler_gradient(v, state["critic"], s, x, start, K, how, "swish", "swish")
        np.testing.assert_allclose(got, numerical_gradient(rest, x), rtol=1e-5, atol=1e-7)


def test_velocity_vjp(rng, state):
    s, x, t = rng.standard_normal((3, O)), rng.standard_normal((3, D)), rng.random((3, 1))
    u, v = rng.standard_normal((3, D)), state["reference"]
    got = spec.velocity_vjp(v, s, x, t, u, "swish")
    want = numerical_gradient(lambda x: (spec.flow_velocity(v, s, x, t, "swish") * u).sum(), x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_value_gradient(rng):
    params = spec.init_mlp(rng, O, Network((5,), "swish", layer_norm=True), 1)
    s, q = rng.standard_normal((6, O)), rng.standard_normal(6)
    loss, gradient = spec.value_gradient(params, s, q, 0.8, "swish")
    x = q - spec.state_values(params, s, "swish")
    assert loss == pytest.approx(np.mean(np.abs(0.8 - (x < 0)) * x**2))
    kernel = params["hidden_0"]["kernel"]

    def of_kernel(k):
        changed = {**params, "hidden_0": {**params["hidden_0"], "kernel": k}}
        return spec.value_loss(changed, s, q, 0.8, "swish")

    np.testing.assert_allclose(
        gradient["hidden_0"]["kernel"], numerical_gradient(of_kernel, kernel), 1e-5
    )


def act(state, operator, settings=IQL, b=4, seed=0):
    s = np.random.default_rng(seed).standard_normal((b, O))
    noise = spec.draw_act_noise(seed, 0, b, 30, D)  # the same for all: each takes its first rows
    noise["particles"] = noise["particles"][:, : operator.rows(settings)]
    return spec.operate(state, s, operator, settings, noise)


@pytest.mark.parametrize("operator", [QFQL(weight=0.0), QGF(weight=0.0), BPTT(weight=0.0)])
def test_guidance_of_weight_0_is_the_reference(state, operator):
    got, want = act(state, operator), act(state, BestOfN())
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)


def test_no_steps_are_the_best_of_n(state):
    want, _ = act(state, BestOfN())
    still = Flow(budget=Budget(steps=0))
    for operator in (still, Gradient(steps=0), Langevin(steps=0)):
        np.testing.assert_array_equal(act(state, operator)[0], want)


def test_one_particle_of_the_flow_is_gradient_steps(state):
    budget = Budget(steps=3, step_size=0.05, temperature=None, optimiser="plain")
    flow = act(state, Flow(particles=1, budget=budget))
    steps = act(state, Gradient(particles=1, steps=3, step_size=0.05))
    np.testing.assert_allclose(flow[0], steps[0], rtol=1e-12)


def test_langevin_without_temperature_is_gradient_steps(state):
    cold = act(state, Langevin(steps=3, step_size=0.05, temperature=0.0))
    steps = act(state, Gradient(steps=3, step_size=0.05))
    np.testing.assert_allclose(cold[0], steps[0], rtol=1e-12)


def test_langevin_finds_the_boltzmann_distribution():
    """Of a quadratic value: a Gaussian with variance alpha / curvature, far from the box."""
    curvature, alpha = 40.0, 0.4
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (1, 2000, 1))
    g = {"x": a}
    original = spec.operators.ascent.action_gradient
    try:
        spec.operators.ascent.action_gradient = lambda params, s, a, *_: -curvature * a
        noise = rng.standard_normal((1, 2000 * 200, 1))
        end = spec.langevin(g, np.zeros((1, 1)), a, noise, 0.002, alpha)
    finally:
        spec.operators.ascent.action_gradient = original
    assert end.mean() == pytest.approx(0, abs=0.01)
    assert end.var() == pytest.approx(alpha / curvature, rel=0.15)


def test_the_sign_moves_every_coordinate_alike(state):
    start = act(state, BestOfN())[1]["moved"]
    moved = act(state, Gradient(sign=True, step_size=0.01))[1]["moved"]
    inside = np.abs(start) < 0.98
    np.testing.assert_allclose(np.abs(moved - start)[inside], 0.01, rtol=1e-9)


def test_the_best_of_the_first_m_is_chosen(state):
    for m in (1, 2, N):
        a, info = act(state, QGF(best_of=m, weight=0.3))
        assert info["moved"].shape == (4, N, D)
        assert info["q"].shape == (4, m)
        assert info["index"].max() < m
        np.testing.assert_array_equal(a, info["moved"][np.arange(4), info["index"]])
    assert act(state, Sample())[1]["moved"].shape == (4, 1, D)


def test_target_critic_and_minimum_are_used(state):
    online, target = act(state, QGF()), act(state, QGF(critic="target"))
    assert np.abs(online[0] - target[0]).max() > 1e-6
    mean, low = act(state, QGF(ensemble="mean")), act(state, QGF(ensemble="min"))
    assert np.abs(mean[0] - low[0]).max() > 1e-6


@pytest.mark.parametrize("operator", EVERY, ids=lambda operator: operator.name)
def test_states_do_not_affect_each_other(state, operator):
    together = act(state, operator, b=4)
    s = np.random.default_rng(0).standard_normal((4, O))
    noise = spec.draw_act_noise(0, 0, 4, 30, D)
    noise["particles"] = noise["particles"][:, : operator.rows(IQL)]
    for i in range(4):
        one = {name: x[i : i + 1] for name, x in noise.items()}
        alone, _ = spec.operate(state, s[i : i + 1], operator, IQL, one)
        np.testing.assert_allclose(alone[0], together[0][i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("operator", EVERY, ids=lambda operator: operator.name)
def test_actions_are_in_the_box_and_inputs_are_kept(state, operator):
    spec.tree_map(lambda x: x.setflags(write=False), state)
    a, info = act(state, operator)
    assert np.abs(a).max() <= 1
    assert np.isfinite(info["moved"]).all()


COUNTED = [
    *EVERY,
    QGF(jacobian=True, particles=3, best_of=1),
    Flow(budget=Budget(steps=3), particles=2),
    Langevin(steps=3, particles=4, best_of=2),
    Sample(particles=3, best_of=1),
]


@pytest.mark.parametrize("operator", COUNTED, ids=str)
def test_the_cost_is_what_is_evaluated(state, operator, monkeypatch):
    """Rows that pass through each network, counted where they pass."""
    rows: Counter[str] = Counter()
    folder = (spec.reference, spec.critic, spec.operators.guidance, spec.operators.ascent)
    inside = []

    def counting(name, original, particles):
        def count(*args, **kwargs):
            if not inside:
                rows[name] += int(np.prod(args[particles].shape[:-1]))
            inside.append(name)
            try:
                return original(*args, **kwargs)
            finally:
                inside.pop()

        return count

    for name, particles in (
        ("flow_velocity", 2),
        ("velocity_vjp", 2),
        ("action_gradient", 2),
        ("critic_values", 2),
    ):
        wrapped = counting(name, getattr(spec, name), particles)
        for module in (*folder, spec.operators.base):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, wrapped)
    act(state, operator, b=1)
    # a vector-Jacobian product is there and back, and here its way there is walked beforehand too
    expected = operator.total(IQL)
    assert expected == Cost(
        rows["flow_velocity"] - rows["velocity_vjp"],
        rows["critic_values"],
        rows["action_gradient"],
        rows["velocity_vjp"],
    )
    assert expected.passes == expected[0] + expected[1] + 2 * (expected[2] + expected[3])


def test_a_gaussian_reference_cannot_be_guided():
    gaussian = method_settings("iql", **SMALL, reference_kind="gaussian")
    for operator in (QFQL(), QGF(), BPTT()):
        with pytest.raises(ValueError, match=f"'{operator.name}' guides the flow reference's"):
            operator.refuse(gaussian)
    state = spec.init_state(0, O, D, gaussian)
    for operator in (Sample(), BestOfN(), Flow(), Gradient(), Langevin()):
        assert act(state, operator, gaussian)[0].shape == (4, D)


def test_behaviour_cloning_has_no_critic():
    bc = method_settings("bc", reference=SMALL["reference"], sampling_steps=K)
    state = spec.init_state(0, O, D, bc)
    assert act(state, Sample(), bc)[0].shape == (4, D)
    for operator in EVERY[1:]:
        with pytest.raises(ValueError, match="needs a critic, which method 'bc' does not train"):
            act(state, operator, bc)


def test_fql_proposes_by_its_policy_and_guides_its_reference():
    fql = method_settings("fql", **{**SMALL, "particles": 3}, policy=Network((4,)))
    state = spec.init_state(0, O, D, fql)
    moved = act(state, BestOfN(), fql)[1]["moved"]
    noise = spec.draw_act_noise(0, 0, 4, 30, D)["particles"][:, :3]
    s = np.random.default_rng(0).standard_normal((4, O))
    np.testing.assert_array_equal(moved, spec.propose(state, s, noise, fql))
    reference = spec.sample_reference(state["reference"], s, noise, fql)
    np.testing.assert_array_equal(act(state, QGF(weight=0.0), fql)[1]["moved"], reference)
    assert BestOfN().total(fql) == Cost(reference=3, critic=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QGF(particles=0), "particles is 0; it must be 1 or more"),
        (lambda: QGF(particles=2, best_of=3), "best_of is 3, more than its 2 particles"),
        (lambda: QGF(critic="both"), "critic is 'both'; choose one of online, target"),
        (lambda: QGF(ensemble="max"), "ensemble is 'max'; choose one of none, mean, min"),
        (lambda: QGF(weight=float("nan")), "weight is nan; it must be 0"),
        (lambda: Gradient(steps=1.5), "steps is 1.5; it must be a whole number"),
        (lambda: Langevin(temperature=-1.0), "temperature is -1.0; it must be 0"),
        (lambda: Flow(best_of=9).refuse(IQL), "best_of is 9, more than the agent's 5"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_operators_are_settings():
    """Hashable and equal by value, so that a compiled program is shared."""
    assert hash(QGF(weight=1)) == hash(QGF(weight=1.0))
    assert dataclasses.replace(QGF(), weight=2.0) == QGF(weight=2.0)


def test_td_takes_its_target_where_the_reference_left_it(rng):
    td = method_settings("td", **SMALL, budget=Budget(steps=2, temperature=None))
    vgf = method_settings("vgf", **SMALL, budget=Budget(steps=0, temperature=None))
    batch = {
        "observations": rng.standard_normal((6, O)),
        "actions": rng.uniform(-1, 1, (6, D)),
        "rewards": rng.standard_normal(6),
        "masks": np.array([1.0, 0, 1, 1, 0, 1]),
        "next_observations": rng.standard_normal((6, O)),
    }
    new, metrics = spec.update(spec.init_state(0, O, D, td), batch, td)
    want, _ = spec.update(spec.init_state(0, O, D, vgf), batch, vgf)
    assert metrics["displacement"] == 0
    spec.tree_map(np.testing.assert_array_equal, new["critic"], want["critic"])
    _, info = spec.act(new, batch["observations"], td.budget, td)
    assert np.abs(info["moved"] - info["start"]).max() > 0.01


def test_iql_never_asks_for_another_action(rng, monkeypatch):
    """Its critic is trained on the data's actions alone: no sample, no moved particle."""
    batch = {
        "observations": rng.standard_normal((6, O)),
        "actions": rng.uniform(-1, 1, (6, D)),
        "rewards": rng.standard_normal(6),
        "masks": np.ones(6),
        "next_observations": rng.standard_normal((6, O)),
    }
    state = spec.init_state(0, O, D, IQL)
    noise = spec.draw_update_noise(0, 0, 6, D, IQL)
    other = {**noise, "particles": noise["particles"] + 1}
    one, metrics = spec.update(state, batch, IQL, noise)
    two, _ = spec.update(state, batch, IQL, other)
    spec.tree_map(np.testing.assert_array_equal, one["critic"], two["critic"])
    v = spec.state_values(state["value"], batch["next_observations"])
    assert metrics["target_mean"] == pytest.approx(np.mean(batch["rewards"] + 0.99 * v))

"""A function from outside against the specification: what passes, what fails, and what it is told.

The library of variants is tested by planting every one as somebody's function and demanding its own
name back, or that of one which is the same on every input.
"""

import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from needs import need

from vgf import spec
from vgf.checker import checking, diagnosis
from vgf.checker.adapter import Arrays, Expression, Reading, to_numpy
from vgf.checker.alternatives import ALTERNATIVES, library, library_for
from vgf.checker.diagnosis import explains
from vgf.checker.subjects import STEP_FROM_SCORE
from vgf.checker.trial import SPECIFICATION, Outcome, Trial, draw_many
from vgf.support.errors import VGFError
from vgf.support.objects import load_function
from vgf.testing import SUBJECTS, Adapter, assert_matches, check_function, inputs
from vgf.testing.rewired import Rewired


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Searches stop early: what is to be found here is found in that many tries."""
    monkeypatch.setattr(diagnosis, "TRIES", diagnosis.TRIES // 6)
    monkeypatch.setattr(checking, "SHRINK", 250)


def kernel(x, sigma_squared):
    distances = ((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1)
    return np.exp(-distances / (2 * sigma_squared[..., None, None]))


def bandwidth(x, median=np.median, log=lambda n: math.log(n + 1)):
    n = x.shape[-2]
    distances = ((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1)
    found = median(distances.reshape(*x.shape[:-2], n * n), axis=-1)
    return np.maximum(found / (2 * log(n)), 1e-12)


def phi(x, score, alpha, sigma_squared=None):
    s, n = bandwidth(x) if sigma_squared is None else sigma_squared, x.shape[-2]
    k, away = kernel(x, s), x[..., :, None, :] - x[..., None, :, :]
    return (k @ score / alpha + (k[..., None] * away).sum(-2) / s[..., None, None]) / n


def says(result):
    return " ".join(f.says for f in result.findings)


# --- right functions -----------------------------------------------------------------------------


def test_a_right_function_passes_and_says_how_hard_it_was_tried():
    result = check_function(phi, "phi", examples=40)
    text = str(result)
    assert result.agrees
    assert [t.dtype for t in result.tried] == ["float64", "float32"]
    assert all(t.examples == 40 and t.differ == 0 and t.worst.ratio < 1 for t in result.tried)
    for word in (
        "agrees",
        "float64: 40 examples, all agree",
        "64 units of rounding",
        "x = a",
        "score = g",
        "alpha = temperature",
        "bandwidth = None",
    ):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "name",
    [
        "phi",
        "flow_step",
        "transport",
        "td_target",
        "critic_loss",
        "flow_matching_loss",
        "flow_sample",
        "select",
        "polyak",
        "update",
    ],
)
def test_the_specification_itself_passes(name):
    result = check_function(getattr(spec, name), name, examples=4, dtype="float64")
    assert result.agrees, str(result)


def test_torch():
    need("torch")
    import torch

    def target(rewards, dones, q1, q2, gamma):
        return rewards + gamma * (1 - dones) * torch.minimum(q1, q2).mean(-1)

    result = check_function(target, "td_target", examples=30)
    assert result.agrees, str(result)
    assert result.framework == "torch"
    assert "dones = 1 - mask" in result.bindings


def test_a_value_that_torch_differentiates():
    need("torch")
    import torch

    def climb(x, q_fn, n_steps, lr):
        for _ in range(n_steps):
            x = x.detach().requires_grad_(True)
            g = torch.autograd.grad(q_fn(x).sum(), x)[0]
            x = (x + lr * g).detach().clamp(-1, 1)
        return x

    single = inputs_of_one_particle(climb)
    assert single.agrees, str(single)


def inputs_of_one_particle(function):
    """Transport without its kernel is `follow` of the score."""
    adapter = Adapter(closures={"q_fn": "value"})
    return check_function(function, "follow", adapter, examples=15, dtype="float64")


@pytest.mark.full
def test_jax():
    need("jax")
    import jax.numpy as jnp

    def loss(q, y):
        return jnp.mean(jnp.sum((y - q) ** 2, axis=0))

    result = check_function(loss, "critic_loss", examples=20)
    assert result.agrees, str(result)
    assert result.framework == "jax"
    assert "loss = squared" in str(result)


def test_a_function_that_computes_in_float32_is_judged_in_float32():
    def half(x, score, alpha):
        x, score = x.astype(np.float32), score.astype(np.float32)
        return phi(x, score, alpha).astype(np.float32)

    result = check_function(half, "phi", examples=30)
    assert result.agrees, str(result)
    assert [t.dtype for t in result.tried] == ["float32"]
    assert "judged in float32" in str(result)


def test_lists_turn_into_arrays():
    assert_matches(lambda q, y: float(((y - q) ** 2).sum(0).mean()), "critic_loss", examples=20)
    assert_matches(lambda a: np.clip(a, -1, 1).tolist(), "project", examples=20)


# --- wrong functions, named ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_answers_in_the_terms_of_the_field():
    n_minus_one = lambda x, score, alpha: (
        phi(x, score, alpha) * x.shape[-2] / max(x.shape[-2] - 1, 1)
    )
    assert "your phi divides by N - 1" in says(check_function(n_minus_one, "phi", examples=40))

    def lower(distances, axis):
        ordered = np.sort(distances, axis=axis)
        return ordered[..., (distances.shape[-1] - 1) // 2]

    low = lambda x, score, alpha: phi(x, score, alpha, bandwidth(x, lower))
    found = check_function(low, "phi", examples=40, dtype="float64")
    assert "your median is the lower of the two middle values" in says(found)

    unmasked = lambda r, mask, q, discount: r + discount * q.min(0).mean(-1)
    assert "your target ignores the mask" in says(
        check_function(unmasked, "td_target", examples=40)
    )

    through = lambda x, score, alpha: spec.phi(x, score, alpha, None, True)
    found = check_function(through, "phi", examples=40, dtype="float64")
    assert "your repulsion differentiates the bandwidth" in says(found)
    assert found.findings[0].variants == ("bandwidth differentiated",)


@pytest.mark.slow
def test_two_departures_at_once():
    def both(x, score, alpha):
        s = bandwidth(x, log=lambda n: math.log(max(n, 2)))
        return phi(x, score, alpha, s) * x.shape[-2] / max(x.shape[-2] - 1, 1)

    found = check_function(both, "phi", examples=40, dtype="float64").findings[0]
    assert set(found.variants) == {"log N", "N - 1"}
    assert "(1)" in found.says
    assert "(2)" in found.says


# Variants of what has no subject, or that only rounding tells from the specification on what the
# equation draws.
PLANTED = [name for name, v in library().items() if v.method != "transport_metrics"]


@functools.cache
def drawn(name, count):
    """Inputs, what was chosen for them, and the specification's results."""
    trial = trial_of(SUBJECTS[name])
    return [(x, chosen, trial.expect(x)) for x, chosen in draw_many(trial.subject, count, seed=1)]


def trial_of(subject):
    return Trial(None, Reading(subject, {}, frozenset(), {}), Adapter(), Arrays("numpy"))


def equation_of(variant):
    own = {
        "_network": "mlp",
        "_statistic": "bandwidth_squared",
        "_factor": "bandwidth_squared",
        "_normalise": "layer_norm",
        "LAYER_NORM_EPSILON": "layer_norm",
        "layer_norm_vjp": "mlp_vjp",
        "SIGMA_SQUARED_MIN": "bandwidth_squared",
        "LOG_STD_MIN": "gaussian_loss",
        "LOG_STD_MAX": "gaussian_loss",
        "normalise_rows": "gradient_field_loss",
        "update_from_noise": "update",
        "optimise": "update",
    }
    if variant.name == "kernel without the diagonal":  # of one set of particles with itself
        return "phi"
    name = variant.method if variant.name in ALTERNATIVES else variant.equation
    return own.get(name, name)


def test_variants_that_a_function_cannot_depend_on_are_not_tried():
    assert {v.method for v in library_for("polyak").values()} == {"polyak"}
    assert {"bandwidth_squared", "SIGMA_SQUARED_MIN", "phi"} <= {
        v.method for v in library_for("transport").values()
    }
    assert {"update_from_noise", "td_target", "_normalise", "LAYER_NORM_EPSILON"} <= {
        v.method for v in library_for("update").values()
    }


def test_a_variant_of_phi_divides_the_score_by_the_temperature_unless_it_says_otherwise():
    """Else another cause would be told beside it: one that makes up for the temperature."""
    rng = np.random.default_rng(0)
    a, g = rng.uniform(-1, 1, (2, 4, 3)), 1e-3 * rng.standard_normal((2, 4, 3))
    otherwise = {"score without phi", "phi of unit length"}
    for name, variant in library().items():
        if variant.method != "phi" or "temperature" in name + variant.says or name in otherwise:
            continue
        b = Rewired((variant,))
        one, half = (b.phi(a, g, alpha) - b.phi(a, 0 * g, alpha) for alpha in (1.0, 2.0))
        assert np.allclose(one, 2 * half, rtol=1e-2), name


# One for each equation in the default tier.
FIRST = {equation_of(library()[name]): name for name in reversed(PLANTED)}.values()


@pytest.mark.full
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in FIRST)) for n in PLANTED]
)
def test_every_variant_is_told_from_the_specification_by_its_own_equation(name):
    """By the checker's own verdict, on inputs that it draws itself."""
    variant = library()[name]
    subject = SUBJECTS[equation_of(variant)]
    wrong, trial = Rewired((variant,)), trial_of(subject)
    slow = subject.name in ("update", "act", "transport", "follow")
    for arguments, chosen, right in drawn(subject.name, 30 if slow else 100):
        outcome = Outcome(arguments, subject.named(arguments), chosen, "float64")
        with np.errstate(all="ignore"):
            found = subject.equation.run(wrong, *arguments)
            trial.judge(outcome, found, right)
        if not outcome.agrees:
            return
    pytest.fail(f"{name} computes what the specification does")


def flat(result):
    from vgf.testing.compare import named_leaves

    return np.concatenate([np.ravel(np.asarray(x, float)) for _, x in named_leaves(result)])


ONE_OF_EACH = [
    "log N",
    "repulsion doubled",
    "temperature on the repulsion",
    "clip missing",
    "norm per particle",
    "LayerNorm with N - 1",
    "quick GELU",
    "times in the middle of the steps",
    "path with sigma_min 0.01",
    "Jacobian of tanh missing",
    "particles before critics",
    "quantile for expectile",
    "score of the first critic",
    "batch normalised",
    "worst particle",
    "Adam's epsilon 1e-05",
    "torch's clip",
    "Polyak reversed",
]
# Those whose diagnosis takes a second; the others take several each.
BRIEF = (
    "repulsion doubled",
    "clip missing",
    "norm per particle",
    "quick GELU",
    "particles before critics",
    "quantile for expectile",
    "worst particle",
    "torch's clip",
)


@pytest.mark.full
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in BRIEF)) for n in ONE_OF_EACH]
)
def test_a_planted_variant_is_diagnosed_by_name(name):
    variant = library()[name]
    subject = SUBJECTS[equation_of(variant)]
    wrong = Rewired((variant,))
    if subject.name == "phi" or subject.drawn_names != subject.parameters:
        subject = SUBJECTS["phi"]

    def theirs(*arguments):
        with np.errstate(all="ignore"):
            return subject.equation.run(wrong, *arguments)

    names = ", ".join(subject.parameters)
    function = eval(f"lambda {names}: f({names})", {"f": theirs})
    result = check_function(
        function, subject.name, Adapter(framework="numpy"), examples=50, dtype="float64"
    )
    assert not result.agrees
    assert variant.says in says(result) or repr(name) in says(result), str(result)


@pytest.mark.full
def test_a_constant_factor_is_named():
    minus = lambda q, how: -spec.aggregate(q, how)
    assert "opposite sign" in says(check_function(minus, "aggregate", examples=30))


@pytest.mark.slow
def test_a_factor_that_depends_on_sizes_is_named():
    third = lambda a, sigma_squared: spec.repulsion(a, sigma_squared) / 3
    assert "1/3 times the specification's" in says(check_function(third, "repulsion", examples=30))
    by_dimension = lambda a, sigma_squared: spec.repulsion(a, sigma_squared) * a.shape[-1] ** 2
    assert "is d^2 times" in says(check_function(by_dimension, "repulsion", examples=40))


@pytest.mark.full
def test_what_is_no_variant_is_said_to_be_none_and_where_it_agrees():
    odd = lambda r, mask, q, discount: spec.td_target(q, r, mask, discount) + np.sin(q[0, :, 0])
    result = check_function(odd, "td_target", examples=30, dtype="float64")
    assert "no named variant" in says(result)
    assert any(f.kind == "where" for f in result.findings)
    assert result.findings[-1].kind == "where"


def test_arguments_that_the_specification_cannot_take_are_no_failure_of_the_check():
    """u + 2, tried in its place, has no particle."""

    def pick(a, q, u, rule="best", temperature=1.0):
        i = spec.select(a, q, u, rule, temperature)[1] // (2 if rule == "uniform" else 1)
        return np.take_along_axis(a, i[..., None, None], -2)[..., 0, :], i

    assert "no named variant" in says(check_function(pick, "select", dtype="float64"))


@pytest.mark.slow
def test_states_that_affect_each_other():
    shared = lambda a, sigma_squared: (
        spec.repulsion(a, sigma_squared)
        + (a.mean((0, 1)) - a.mean((0, 1)) if len(a) == 1 else np.sin(a[::-1]))
    )
    assert "right alone" in says(check_function(shared, "repulsion", examples=30, dtype="float64"))


@pytest.mark.full
def test_what_the_two_terms_of_phi_are_worth_apart():
    odd = lambda a, g, temperature: (
        spec.phi(a, 0 * g, temperature)
        + (np.sin(g) if temperature is None else spec.phi(a, np.sin(g), None) / temperature)
    )
    result = check_function(odd, "phi", examples=20, dtype="float64")
    assert "your repulsion agrees; the score's term differs" in says(result)


# --- findings that are not about numbers ---------------------------------------------------------


def in_place(a):
    np.clip(a, -1, 1, out=a)
    return a


@pytest.mark.full
def test_in_place_random_shape_and_exceptions():
    assert "changes its argument a in place" in says(
        check_function(in_place, "project", examples=10)
    )
    rng = np.random.default_rng(0)
    noisy = lambda a: np.clip(a, -1, 1) + 1e-3 * rng.standard_normal(a.shape)
    assert "two results for one input" in says(check_function(noisy, "project", examples=10))
    broadcast = lambda r, mask, q, discount: r[:, None] + discount * mask * q.min(0).mean(-1)
    assert "[B, 1] have broadcast" in says(check_function(broadcast, "td_target", examples=20))

    def fragile(a, sigma_squared):
        if a.shape[-2] == 1:
            raise ZeroDivisionError("log of one particle")
        return spec.repulsion(a, sigma_squared)

    result = check_function(fragile, "repulsion", examples=30)
    assert "raises on" in says(result)
    assert "ZeroDivisionError: log of one particle" in says(result)
    assert "it differs exactly where N is 1" in says(result)
    lost = lambda a: np.median(spec.squared_distances(a, a), axis=(-2, -1)) * np.nan
    assert "not finite" in says(check_function(lost, "bandwidth_squared", examples=10))
    with pytest.raises(AssertionError, match="float16"):
        assert_matches(lambda a: np.clip(a, -1, 1).astype(np.float16), "project", examples=5)


def test_the_smallest_input_is_small():
    result = check_function(
        lambda r, mask, q, discount: r + discount * q.min(0).mean(-1), "td_target", examples=40
    )
    small = result.smallest
    assert small.named["q"].size == 2
    assert np.all(np.abs(small.named["q"]) <= 2)
    assert "Smallest input found (B = 1, N = 1" in str(result)
    assert "expected" in str(result)


# --- adapting ------------------------------------------------------------------------------------


@pytest.mark.full
def test_layout_single_returns_constants_and_expressions():
    swapped = lambda x, score: np.swapaxes(
        phi(np.swapaxes(x, 0, 1), np.swapaxes(score, 0, 1), 1.0), 0, 1
    )
    assert_matches(swapped, "phi", layout={"": "N B d"}, examples=20)
    assert_matches(
        lambda x, score: phi(x, score, 1.0),
        "phi",
        single=True,
        constants={"temperature": 1.0},
        examples=20,
    )
    assert_matches(
        lambda a, h: {"phi": (0, -spec.repulsion(a, h / 2))},
        "repulsion",
        arguments={"h": "2 * sigma_squared"},
        returns="-result.phi[1]",
        examples=20,
    )
    assert_matches(
        lambda x, score, extra: phi(x, score, extra),
        "phi",
        constants={"extra": 0.1, "temperature": 0.1},
        examples=20,
    )
    with pytest.raises(AssertionError, match="DIFFERS"):
        assert_matches(swapped, "phi", examples=20, explain=False)


def test_one_state_at_a_time_is_found_out_and_said():
    def one(theta, dlogp, alpha):
        assert theta.ndim == 2
        return phi(theta, dlogp, alpha)

    result = check_function(one, "phi", examples=20)
    assert result.agrees, str(result)
    assert "one state at a time" in str(result)


@pytest.mark.slow
def test_a_step_that_is_given_the_score_computes_phi_itself():
    def step(x, grad, lr, alpha):
        return np.clip(x + lr * phi(x, grad, alpha), -1, 1)

    result = check_function(step, "flow_step", examples=30)
    assert result.agrees, str(result)
    free = lambda x, grad, lr, alpha: x + lr * phi(x, grad, alpha)
    assert "do not" in says(check_function(free, "flow_step", examples=30, dtype="float64"))
    assert check_function(
        lambda a, velocity, lr: np.clip(a + lr * velocity, -1, 1), "flow_step", examples=20
    ).agrees


def test_networks_as_functions():
    def loss(net, obs, actions, noise, t):
        x = (1 - t) * noise + t * actions
        return ((net(obs, x, t) - (actions - noise)) ** 2).mean()

    assert_matches(loss, "flow_matching_loss", examples=20)


@pytest.mark.slow
def test_times_that_a_network_is_given_late_are_named():
    def sampler(v, obs, noise, K):
        for k in range(K):
            noise = noise + v(obs, noise, (k + 1) / K) / K
        return noise.clip(-1, 1)

    result = check_function(sampler, "flow_sample", examples=20, dtype="float64")
    assert "times are (k + 1) / K" in says(result)


def transport(x, score_fn, n_steps, lr, alpha):
    for _ in range(n_steps):
        x = np.clip(x + lr * phi(x, score_fn(x), alpha), -1, 1)
    return x


@pytest.mark.full
def test_the_fields_of_the_budget():
    assert_matches(transport, "transport", examples=30)


@pytest.mark.slow
def test_a_step_too_many_is_named():
    late = lambda x, score_fn, n_steps, lr, alpha: transport(x, score_fn, n_steps + 1, lr, alpha)
    result = check_function(late, "transport", examples=30, dtype="float64")
    assert "one step too many" in says(result)


@pytest.mark.slow
def test_a_whole_update():
    def update(state, batch, noise, settings):
        return spec.update(state, {**batch, "masks": 0 * batch["masks"] + 1}, settings, noise)

    result = check_function(update, "update", examples=5, dtype="float64")
    assert "your target ignores the mask" in says(result)
    assert any(f.kind == "parts" and "different: state critic" in f.says for f in result.findings)


# --- wrong requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name", "options", "message"),
    [
        (phi, "phii", {}, "did you mean phi"),
        (phi, "zzzzzz", {}, "vgf check --list"),
        (lambda blob: blob, "project", {}, "cannot tell what its argument blob is; .*--arg blob="),
        (phi, "phi", {"arguments": {"zz": "a"}}, "takes no argument zz; it takes x, score, alpha"),
        (phi, "phi", {"arguments": {"x": "aa"}}, "phi has no argument aa"),
        (phi, "phi", {"arguments": {"x": "a ++"}}, "is not an expression"),
        (phi, "phi", {"arguments": {"x": "open(a)"}}, "phi has no argument open"),
        (phi, "phi", {"arguments": {"x": "a.__class__"}}, "not understood"),
        (phi, "phi", {"constants": {"tempratur": 1.0}}, "did you mean temperature"),
        (phi, "phi", {"layout": {"b": "N B d"}}, "has no array 'b'; it has a, g"),
        (phi, "phi", {"layout": {"a": "N Q d"}}, "Q is none of them"),
        (phi, "phi", {"layout": {"a": "N d"}}, "B is missing"),
        (phi, "phi", {"closures": {"score": "nothing"}}, "choose one of score, value"),
        (phi, "phi", {"framework": "mxnet"}, "choose one of numpy, torch, jax"),
        (phi, "phi", {"returns": "nothing"}, "has no such part"),
        (phi, "phi", {"examples": 0}, "must be 1 or more"),
        (phi, "phi", {"dtype": "float16"}, "choose one of float32, float64"),
        (phi, "phi", {"constants": {"bandwidth": -1.0, "bandwidth_gradient": True}}, "refuses"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line_with_the_way_out(
    function, name, options, message
):
    with pytest.raises(VGFError, match=message) as error:
        assert_matches(function, name, **options)
    assert "\n" not in str(error.value)


def test_loading(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class A:\n    def phi(self, a): return a\nobj = A()\nnumber = 3\n")
    assert load_function(f"{file}:obj.phi")(2) == 2
    for target, message in [
        ("mine", "names no function"),
        (f"{tmp_path}/absent.py:f", "no such file"),
        ("absent_module_zz:f", "no module 'absent_module_zz'"),
        (f"{file}:obj.phy", "did you mean phi"),
        (f"{file}:number", "is a int, not a function"),
    ]:
        with pytest.raises(VGFError, match=message):
            load_function(target)
    file.write_text("def f(:\n")
    with pytest.raises(VGFError, match="cannot be imported: SyntaxError"):
        load_function(f"{file}:f")
    file.write_text("import absent_module_zz\n")
    with pytest.raises(VGFError, match="ModuleNotFoundError"):
        load_function(f"{file}:f")


# --- the pieces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUBJECTS)
def test_rewired_without_a_variant_is_the_specification(name):
    subject, plain = SUBJECTS[name], Rewired()
    for arguments, _ in draw_many(subject, 5, seed=0):
        right = subject.equation.run(SPECIFICATION, *arguments)
        found = subject.equation.run(plain, *arguments)
        assert np.array_equal(flat(right), flat(found), equal_nan=True)


OTHERWISE = {
    "budget.steps": (0, 2),
    "budget.step_size": (0.02, 0.5),
    "budget.temperature": (None, 0.3),
    "budget.bandwidth": (0.2, 1.5),
    "budget.bandwidth_gradient": (False, True),
    "budget.optimiser": ("plain", "adam"),
    "budget.clip_norm": (None, 1e-3),
    "budget.clip_scope": ("state", "batch"),
    "budget.low": (None, -1e-3),
    "budget.high": (None, 1e-3),
    "budget.kernel": ("rbf", None),
    "budget.kernel_guard": (0.0, 2.0),
}
# What has to stand beside a setting for it to matter.
_RBF = {"budget.bandwidth": None, "budget.bandwidth_gradient": False, "budget.kernel": "rbf"}
_NO_BOX = {"budget.low": None, "budget.high": None}
WITH = {
    **dict.fromkeys(("budget.bandwidth", "budget.bandwidth_gradient", "budget.kernel"), _RBF),
    "budget.kernel_guard": _RBF,
    "budget.clip_scope": {"budget.clip_norm": 1e-3},
    "budget.low": _NO_BOX,
    "budget.high": _NO_BOX,
}


@pytest.mark.parametrize(
    ("subject", "field"),
    [
        pytest.param(subject, field, id=f"{subject.form}: {field}")
        for subject in (*SUBJECTS.values(), STEP_FROM_SCORE)
        for field in subject.fields
    ],
)
def test_every_setting_that_a_function_may_take_is_heard(subject, field):
    for arguments, _ in draw_many(subject, 40, seed=0):
        results = []
        for value in OTHERWISE[field]:
            fixed = {**WITH.get(field, {}), field: value}
            results.append(
                flat(subject.equation.run(SPECIFICATION, *subject.fix(arguments, fixed)))
            )
        if len(results[0]) != len(results[1]) or not np.allclose(*results, equal_nan=True):
            return
    pytest.fail(f"{subject.form} gives the same for {field} = {OTHERWISE[field]}")


def test_planting_leaves_the_specification_alone():
    a = np.random.default_rng(0).standard_normal((2, 4, 3))
    before = spec.phi(a, a, 1.0)
    Rewired((library()["log N"],)).phi(a, a, 1.0)
    assert np.array_equal(spec.phi(a, a, 1.0), before)


@settings(max_examples=20, deadline=None)
@given(inputs("phi", temperature=0.1))
def test_inputs_are_a_strategy_of_named_arguments(arguments):
    flow = ["bandwidth", "bandwidth_gradient", "kernel", "kernel_guard"]
    assert list(arguments) == ["a", "g", "temperature", *flow]
    assert arguments["temperature"] == 0.1
    assert arguments["a"].shape == arguments["g"].shape
    assert arguments["a"].ndim == 3


def test_inputs_of_a_transport_have_a_score_that_can_be_called():
    @settings(max_examples=10, deadline=None)
    @given(inputs("transport"))
    def run(arguments):
        score = arguments.pop("score")
        spec.transport(score.score, **arguments)

    run()
    with pytest.raises(VGFError, match="phi has no argument tau"):
        inputs("phi", tau=1.0)


def test_expressions():
    values = {"q": np.arange(6.0).reshape(2, 3), "mask": 1.0, "s": {"x": 2.0}}
    assert Expression("1 - mask")(values) == 0
    assert Expression("q[0][1:] ** 2")(values).tolist() == [1.0, 4.0]
    assert Expression("q[:, 0]")(values).tolist() == [0.0, 3.0]
    assert Expression("-s.x / sqrt(4)")(values) == -1
    assert Expression("mean(min(q, 0), 0)")(values) == 1.0


def test_explains_needs_something_to_explain():
    from vgf.checker.adapter import bind
    from vgf.checker.subjects import find_subject

    subject, adapter = find_subject("phi"), Adapter()
    reading = bind(spec.phi, subject, adapter)[0]
    tried = Trial(spec.phi, reading, adapter, Arrays("numpy"))
    outcomes = [tried.run(*inputs, "float64") for inputs in draw_many(subject, 5, 0)]
    assert not explains(tried, outcomes)


@pytest.mark.full
def test_results_become_json():
    result = check_function(lambda a: a, "project", examples=20)
    found = json.loads(json.dumps(result.as_dict()))
    assert found["agrees"] is False
    assert found["findings"][0]["kind"] == "variant"
    assert found["smallest"]["arguments"]["a"]
    assert found["dtypes"][0]["examples"] == 20
    assert to_numpy({"a": [1.0, 2]})["a"].tolist() == [1.0, 2.0]


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def clip(a): return np.clip(a, -1, 1)\n"
        "def free(a): return a\n"
        "def odd(blob): return blob\n"
        "def swapped(x, y): return ((y[None] - x[:, None]) ** 2).sum(-1)\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vgf(*words):
    from vgf.cli import main

    return main(["check", *map(str, words)])


def test_the_command_agrees(mine, capsys):
    assert vgf("mine.py:clip", "--as", "project", "--examples", 20) == 0
    text = capsys.readouterr().out
    assert "mine.py:clip as project: agrees" in text
    assert "20 examples, all agree" in text


@pytest.mark.full
def test_the_command_differs_and_writes_json(mine, capsys):
    place = mine / "found.json"
    words = ("mine.py:free", "--as", "project", "--examples", 20)
    assert vgf(*words, "--json", place, "--seed", 3) == 1
    assert "You do not clip to the box" in capsys.readouterr().out
    found = json.loads(place.read_text())
    assert found[0]["findings"][0]["variants"] == ["clip missing"]
    assert vgf(*words, "--json", "-") == 1
    assert json.loads(capsys.readouterr().out)[0]["agrees"] is False


def test_a_mapping_in_a_file(mine, capsys):
    (mine / "map.toml").write_text(
        'as = "project"\nexamples = 10\n[arguments]\nblob = "a"\n[constants]\nlow = "none"\n'
        'high = "none"\n'
    )
    assert vgf("mine.py:odd", "--mapping", "map.toml") == 0
    assert "10 examples" in capsys.readouterr().out
    (mine / "map.toml").write_text("argumens = 3\n")
    assert vgf("mine.py:odd", "--mapping", "map.toml") == 2
    assert "argumens is unknown; did you mean arguments?" in capsys.readouterr().err


def test_flags_adapt(mine, capsys):
    assert vgf("mine.py:swapped", "--as", "squared_distances", "--single", "--examples", 10) == 0
    assert (
        vgf(
            "mine.py:odd",
            "--as",
            "project",
            "--arg",
            "blob=a",
            "--constant",
            "low=none",
            "--constant",
            "high=none",
            "--examples",
            10,
            "--dtype",
            "float64",
        )
        == 0
    )
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a function"),
        (("mine.py:clip",), "--as NAME"),
        (("mine.py:clip", "--as", "projct"), "did you mean project"),
        (("mine.py:clop", "--as", "project"), "did you mean clip"),
        (("mine.py:odd", "--as", "project"), "--arg blob=OURS"),
        (("mine.py:odd", "--as", "project", "--arg", "blob"), "write --arg NAME=VALUE"),
        (("mine.py:clip", "--as", "project", "--mapping", "absent.toml"), "no such file"),
        (("mine.py:clip", "--as", "project", "--exampels", "3"), "did you mean --examples"),
        (("--list", "nothing_like_it"), "cannot be checked"),
    ],
)
def test_wrong_requests_exit_with_2(mine, capsys, words, message):
    assert vgf(*words) == 2
    found = capsys.readouterr().err
    assert message in found
    assert found.count("\n") == 1


def test_list(capsys):
    assert vgf("--list") == 0
    text = capsys.readouterr().out
    assert all(f"  {name}(" in text for name in SUBJECTS)
    assert vgf("--list", "flow_step") == 0
    text = capsys.readouterr().out
    assert "a_i <- project( a_i + epsilon phi(a_i) )" in text
    assert "clip missing: you do not clip to the box" in text
    assert "velocity: [B, N, d]" in text

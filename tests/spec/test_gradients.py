"""Every hand-derived gradient against central finite differences, in float64."""

import numpy as np
import pytest

from vgf import Network, spec
from vgf.spec.settings import ACTIVATIONS, CRITIC_LOSSES, LAYER_NORMS


def numerical_gradient(function, x, step=1e-6):
    """Central differences of a scalar function of one array."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (function(up) - function(down)) / (2 * step)
    return gradient


def check_tree(loss, params, gradient):
    """A gradient tree against finite differences of every array of the parameters."""
    assert gradient.keys() == params.keys()
    for name in params:
        arrays = params[name] if isinstance(params[name], dict) else {"": params[name]}
        for key in arrays:

            def of_array(x, name=name, key=key):
                changed = {**params, name: {**params[name], key: x} if key else x}
                return loss(changed)

            got = gradient[name][key] if key else gradient[name]
            np.testing.assert_allclose(
                got, numerical_gradient(of_array, arrays[key]), rtol=1e-5, atol=1e-7
            )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def network(rng, inputs, outputs, layer_norm=True, size=None):
    shape = Network((5, 4), layer_norm=layer_norm)
    if size:
        params = spec.init_ensemble(rng, inputs, shape, outputs, size)
    else:
        params = spec.init_mlp(rng, inputs, shape, outputs)
    # biases and LayerNorm away from their initial values
    return spec.tree_map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)


def test_repulsion_is_the_mean_gradient_of_the_kernel(rng):
    a = rng.uniform(-1, 1, (2, 4, 3))
    sigma_squared = spec.bandwidth_squared(a)
    got = spec.repulsion(a, sigma_squared)
    for b in range(2):
        for i in range(4):

            def kernel_sum(others, b=b, i=i):  # sum_j k(a_j, a_i), a_i held fixed
                k = spec.rbf_kernel(others[None], a[b, i][None, None], sigma_squared[b : b + 1])
                return k.sum()

            want = numerical_gradient(kernel_sum, a[b]).sum(0) / 4
            np.testing.assert_allclose(got[b, i], want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("guard", [0.0, 1e-6, 0.3])
def test_repulsion_through_bandwidth(rng, guard):
    for n in (2, 3, 4, 5):  # an even and an odd count of distances
        a = rng.uniform(-1, 1, (n, 2))

        def kernel_sum(moving, fixed=a, n=n):
            distances = spec.squared_distances(moving, fixed)
            # the order of a stable sort at the point itself: ties (i, j), (j, i) stay as they are
            order = np.argsort(spec.squared_distances(fixed, fixed).ravel(), kind="stable")
            ranked = distances.ravel()[order]
            median = (ranked[(n * n - 1) // 2] + ranked[n * n // 2]) / 2
            return np.exp(-distances / (guard + 2 * median / (2 * np.log(n + 1)))).sum()

        got = spec.repulsion_through_bandwidth(a, guard)
        np.testing.assert_allclose(
            got, -numerical_gradient(kernel_sum, a) / n, rtol=1e-5, atol=1e-8
        )


def test_repulsion_through_bandwidth_differs_as_measured(rng):
    """On random sets (N 10, d 5, spread 0.3) two of ten particles change, by far."""
    a = 0.3 * rng.standard_normal((200, 10, 5))
    plain = spec.repulsion(a, spec.bandwidth_squared(a))
    through = spec.repulsion_through_bandwidth(a)
    changed = np.any(np.abs(through - plain) > 1e-12, axis=-1).mean()
    assert 0.15 < changed <= 0.2
    excess = np.linalg.norm(through - plain, axis=(1, 2)) / np.linalg.norm(plain, axis=(1, 2))
    assert 2.4 < np.median(excess) < 3.2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(rng, activation):
    x = rng.uniform(-4, 4, 50)
    want = (spec.activate(x + 1e-6, activation) - spec.activate(x - 1e-6, activation)) / 2e-6
    np.testing.assert_allclose(spec.activate_derivative(x, activation), want, atol=1e-8)


def test_relu_has_slope_zero_at_zero():
    assert spec.activate_derivative(np.zeros(1), "relu") == 0


def test_layer_norm(rng):
    x, scale, offset, c = (rng.standard_normal(s) for s in ((3, 5), 5, 5, (3, 5)))
    got = spec.layer_norm_vjp(x, scale, c)
    want = (
        numerical_gradient(lambda v: (spec.layer_norm(v, scale, offset) * c).sum(), x),
        numerical_gradient(lambda v: (spec.layer_norm(x, v, offset) * c).sum(), scale),
        numerical_gradient(lambda v: (spec.layer_norm(x, scale, v) * c).sum(), offset),
    )
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layer_norm", [None, *LAYER_NORMS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(rng, layer_norm, activation):
    params, x, c = (
        network(rng, 3, 2, layer_norm),
        rng.standard_normal((4, 3)),
        rng.standard_normal((4, 2)),
    )
    gradient, dx = spec.mlp_vjp(params, x, c, activation)
    check_tree(lambda p: (spec.mlp(p, x, activation) * c).sum(), params, gradient)
    want = numerical_gradient(lambda v: (spec.mlp(params, v, activation) * c).sum(), x)
    np.testing.assert_allclose(dx, want, rtol=1e-5, atol=1e-7)


def test_ensemble(rng):
    params, x, c = (
        network(rng, 3, 2, size=2),
        rng.standard_normal((4, 3)),
        rng.standard_normal((2, 4, 2)),
    )
    gradient, dx = spec.ensemble_vjp(params, x, c, "swish")
    check_tree(lambda p: (spec.ensemble(p, x, "swish") * c).sum(), params, gradient)
    want = numerical_gradient(lambda v: (spec.ensemble(params, v, "swish") * c).sum(), x)
    np.testing.assert_allclose(dx, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("how", ["mean", "min"])
def test_action_gradient(rng, how):
    params, s, a = (
        network(rng, 5, 1, size=2),
        rng.standard_normal((3, 3)),
        rng.uniform(-1, 1, (3, 4, 2)),
    )
    total = lambda a: spec.aggregate(spec.critic_values(params, s, a, "swish"), how).sum()
    got = spec.action_gradient(params, s, a, how, "swish")
    np.testing.assert_allclose(got, numerical_gradient(total, a), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("loss", CRITIC_LOSSES)
def test_critic_loss(rng, loss, alpha):
    params, s, a = (
        network(rng, 5, 1, size=2),
        rng.standard_normal((4, 3)),
        rng.uniform(-1, 1, (4, 2)),
    )
    y = 3 * rng.standard_normal(4)
    value, gradient = spec.critic_gradient(params, s, a, y, loss, 0.8, "swish", alpha)

    def of_params(p):
        return spec.critic_loss(spec.critic_values(p, s, a, "swish"), y, loss, 0.8, alpha)

    assert value == of_params(params)
    check_tree(of_params, params, gradient)


def test_flow_matching_loss(rng):
    params = network(rng, 6, 2, layer_norm=False)
    s, a, x0, t = (rng.standard_normal(s) for s in ((4, 3), (4, 2), (4, 2), (4, 1)))
    _, gradient = spec.flow_matching_gradient(params, s, a, x0, t, "swish")
    check_tree(lambda p: spec.flow_matching_loss(p, s, a, x0, t, "swish"), params, gradient)


@pytest.mark.parametrize("tanh", [False, True])
def test_gaussian_loss(rng, tanh):
    params = network(rng, 3, 2, layer_norm=False)
    params["log_std"] = np.array([-0.5, 2.5])  # inside and above the bounds
    s, a = rng.standard_normal((4, 3)), rng.uniform(-0.95, 0.95, (4, 2))
    _, gradient = spec.gaussian_gradient(params, s, a, tanh, "swish")
    assert gradient["log_std"][1] == 0
    below = {**params, "log_std": np.array([-6.0, -5.0])}  # below a bound, and on it
    at_bounds = spec.gaussian_gradient(below, s, a, tanh, "swish")[1]["log_std"]
    assert at_bounds[0] == 0
    assert at_bounds[1] != 0
    check_tree(lambda p: spec.gaussian_loss(p, s, a, tanh, "swish"), params, gradient)


@pytest.mark.parametrize("normalise", [False, True])
def test_gradient_field_loss(rng, normalise):
    params = network(rng, 5, 2)
    s, a, g = (rng.standard_normal(s) for s in ((4, 3), (4, 2), (4, 2)))
    _, gradient = spec.gradient_field_gradient(params, s, a, g, normalise, "swish")
    check_tree(lambda p: spec.gradient_field_loss(p, s, a, g, normalise, "swish"), params, gradient)


def test_finite_differences_would_notice_a_wrong_gradient(rng):
    params, x, c = network(rng, 3, 2), rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    gradient, _ = spec.mlp_vjp(params, x, c, "swish")
    gradient["hidden_1"]["norm_scale"] = gradient["hidden_1"]["norm_scale"] * 1.001
    with pytest.raises(AssertionError):
        check_tree(lambda p: (spec.mlp(p, x, "swish") * c).sum(), params, gradient)

"""The specification's hand-derived gradients against each framework's automatic differentiation.

The losses are written here once more, in the framework's own words; the backends' gradients are
not used. (test_parity compares those, which come from autodiff too, function by function.)
"""

import importlib
import math

import numpy as np
import pytest
from needs import need

from vgf import Network, spec

B, OBS, D, N = 5, 3, 2, 4


class Torch:
    """The few operations the losses below need, and a gradient."""

    def __init__(self):
        self.torch = importlib.import_module("torch")

    def array(self, x):
        return self.torch.tensor(np.asarray(x), dtype=self.torch.float64)

    def gradient(self, function, x):
        x = self.array(x).requires_grad_()
        (gradient,) = self.torch.autograd.grad(function(x), x)
        return gradient.numpy()

    def __getattr__(self, name):
        return getattr(self.torch, name)

    def act(self, x, kind):
        f = self.torch.nn.functional
        return {
            "relu": f.relu,
            "gelu": f.gelu,
            "swish": f.silu,
            "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
        }[kind](x)


class Jax:
    def __init__(self):
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)

    def array(self, x):
        return self.jax.numpy.asarray(x, "float64")

    def gradient(self, function, x):
        return np.asarray(self.jax.grad(function)(self.array(x)))

    def __getattr__(self, name):
        return getattr(self.jax.numpy, name)

    def act(self, x, kind):
        nn = self.jax.nn
        return {
            "relu": nn.relu,
            "gelu": lambda x: nn.gelu(x, approximate=False),
            "swish": nn.swish,
            "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
        }[kind](x)


@pytest.fixture(params=["torch", pytest.param("jax", marks=pytest.mark.full)])
def fw(request):
    need(request.param)
    return {"torch": Torch, "jax": Jax}[request.param]()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def mlp(fw, params, x, kind):
    """A network in the framework's words."""
    for i in range(2):
        layer = params[f"hidden_{i}"]
        x = x @ fw.array(layer["kernel"]) + fw.array(layer["bias"])
        if "norm_scale" in layer:
            mean = x.mean(-1)[:, None]
            variance = ((x - mean) ** 2).mean(-1)[:, None]
            x = (x - mean) / fw.sqrt(variance + 1e-6)
            x = x * fw.array(layer["norm_scale"]) + fw.array(layer["norm_offset"])
        x = fw.act(x, kind)
    return x @ fw.array(params["output"]["kernel"]) + fw.array(params["output"]["bias"])


def with_array(params, layer, key, value):
    return {**params, layer: {**params[layer], key: value}}


class Raw:
    """A framework whose `array` passes on what is an array of its own already."""

    def __init__(self, fw):
        self.fw = fw

    def array(self, x):
        return self.fw.array(x) if isinstance(x, np.ndarray) else x

    def __getattr__(self, name):
        return getattr(self.fw, name)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def network(rng, inputs, outputs, layer_norm=True):
    params = spec.init_mlp(rng, inputs, Network((8, 4), layer_norm=layer_norm), outputs)
    return spec.tree_map(lambda p: p + 0.3 * rng.standard_normal(p.shape), params)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.full] * (kind in ("gelu", "swish")))
        for kind in spec.settings.ACTIVATIONS
    ],
)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_mlp_vjp(fw, rng, kind, layer_norm):
    params, x, c = (
        network(rng, OBS, D, layer_norm),
        rng.standard_normal((B, OBS)),
        rng.standard_normal((B, D)),
    )
    gradient, dx = spec.mlp_vjp(params, x, c, kind)
    raw = Raw(fw)
    close(dx, fw.gradient(lambda v: (mlp(raw, params, v, kind) * fw.array(c)).sum(), x))
    for layer, arrays in params.items():
        for key, value in arrays.items():

            def loss(v, layer=layer, key=key):
                y = mlp(raw, with_array(params, layer, key, v), fw.array(x), kind)
                return (y * fw.array(c)).sum()

            close(gradient[layer][key], fw.gradient(loss, value))


def test_repulsion(fw, rng):
    a = rng.uniform(-1, 1, (N, D))
    s = float(spec.bandwidth_squared(a))

    def kernel_sum(others, i):
        return fw.exp(-((others - fw.array(a[i])) ** 2).sum(-1) / (2 * s)).sum()

    want = [fw.gradient(lambda x, i=i: kernel_sum(x, i), a).sum(0) / N for i in range(N)]
    close(spec.repulsion(a, np.array(s)), np.stack(want))


@pytest.mark.parametrize("loss", spec.settings.CRITIC_LOSSES)
def test_critic_loss(fw, rng, loss):
    q, y, tau = rng.standard_normal((2, B)), rng.standard_normal(B), 0.8

    def value(q):
        x = fw.array(y) - q
        positive = fw.array((y - q_np >= 0).astype(float))
        if loss == "mean_squared":
            return (x**2).mean()
        if loss == "squared":
            per = x**2
        elif loss == "expectile":
            per = (tau * positive + (1 - tau) * (1 - positive)) * x**2
        else:
            w = x / (2 * tau) + 1
            inside = fw.array(((y - q_np) / (2 * tau) + 1 > 0).astype(float))
            per = tau * inside * w**2 - x
        return per.sum(0).mean()

    q_np = q
    close(spec.critic_loss_derivative(q, y, loss, tau), fw.gradient(value, q))


def test_action_gradient(fw, rng):
    params = spec.init_ensemble(rng, OBS + D, Network((8, 4), layer_norm=True), 1, 2)
    s, a = rng.standard_normal((B, OBS)), rng.uniform(-1, 1, (B, D))

    def values(a):
        x = fw.concatenate([fw.array(s), a], -1)
        return [mlp(Raw(fw), spec.member(params, e), x, "swish")[:, 0] for e in range(2)]

    mean = fw.gradient(lambda a: (sum(values(a)) / 2).sum(), a)
    close(spec.action_gradient(params, s, a, "mean", "swish"), mean)
    least = fw.gradient(lambda a: fw.minimum(*values(a)).sum(), a)
    close(spec.action_gradient(params, s, a, "min", "swish"), least)


def test_flow_matching(fw, rng):
    params = network(rng, OBS + D + 1, D, layer_norm=False)
    s, a, x0, t = (rng.standard_normal(k) for k in ((B, OBS), (B, D), (B, D), (B, 1)))
    _, gradient = spec.flow_matching_gradient(params, s, a, x0, t, "gelu")

    def loss(w):
        x = fw.array(np.concatenate([s, (1 - t) * x0 + t * a, t], -1))
        error = mlp(Raw(fw), with_array(params, "hidden_0", "kernel", w), x, "gelu") - fw.array(
            a - x0
        )
        return (error**2).mean()

    close(gradient["hidden_0"]["kernel"], fw.gradient(loss, params["hidden_0"]["kernel"]))


@pytest.mark.parametrize("tanh", [False, True])
def test_gaussian(fw, rng, tanh):
    params = network(rng, OBS, D, layer_norm=False) | {"log_std": np.array([-0.5, 0.3])}
    s, a = rng.standard_normal((B, OBS)), rng.uniform(-0.9, 0.9, (B, D))
    _, gradient = spec.gaussian_gradient(params, s, a, tanh, "swish")
    u = np.arctanh(a) if tanh else a

    def loss(log_std, bias):
        mean = mlp(Raw(fw), with_array(params, "output", "bias", bias), fw.array(s), "swish")
        z = (fw.array(u) - mean) / fw.exp(log_std)
        return (z**2 / 2 + log_std + math.log(2 * math.pi) / 2).sum(-1).mean()

    bias, log_std = params["output"]["bias"], params["log_std"]
    close(gradient["log_std"], fw.gradient(lambda v: loss(v, fw.array(bias)), log_std))
    close(gradient["output"]["bias"], fw.gradient(lambda v: loss(fw.array(log_std), v), bias))


@pytest.mark.parametrize("normalise", [False, True])
def test_gradient_field(fw, rng, normalise):
    params = network(rng, OBS + D, D)
    s, a, g = (rng.standard_normal(k) for k in ((B, OBS), (B, D), (B, D)))
    _, gradient = spec.gradient_field_gradient(params, s, a, g, normalise, "relu")
    target = g / (np.linalg.norm(g, axis=-1, keepdims=True) + 1e-8) if normalise else g

    def loss(w):
        x = fw.array(np.concatenate([s, a], -1))
        f = mlp(Raw(fw), with_array(params, "hidden_1", "kernel", w), x, "relu")
        return ((f - fw.array(target)) ** 2).mean()

    close(gradient["hidden_1"]["kernel"], fw.gradient(loss, params["hidden_1"]["kernel"]))

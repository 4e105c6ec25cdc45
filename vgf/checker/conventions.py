"""More conventions and mistakes, of the kinds that published code shows: see alternatives.py."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..spec.flow import step_state
from ..spec.kernel import SIGMA_SQUARED_MIN
from ..spec.networks import hidden_layers
from ..spec.optimiser import tree_map
from ..spec.selection import selection_probabilities
from ..testing.variants import VARIANTS, all_distances, normalised
from .alternatives import (
    _adam,
    _attraction,
    _budget,
    _euler,
    _flow_matching,
    _huber,
    _loss,
    _pair,
    _phi,
    _sampler,
    _scaled,
    _statistic,
    _target,
    alternative,
)

# --- bandwidth -----------------------------------------------------------------------------------


def _upper(x: Any, n: int) -> Any:
    """The distances of the pairs i <= j in ascending order: the diagonal, and each pair once."""
    x = np.sort(x, axis=-1)
    return np.concatenate([x[..., :n], x[..., n::2]], axis=-1)


_statistic(
    "median of the triangle",
    "your median is over the pairs i <= j: the diagonal counts N times, each pair once, not twice",
    lambda x, n: np.median(_upper(x, n), axis=-1),
)
_statistic(
    "lower median of the triangle",
    "your median is over the pairs i <= j, and is the lower of the two middle values",
    lambda x, n: _upper(x, n)[..., (n * (n + 1) // 2 - 1) // 2],
)
_statistic(
    "upper median off the diagonal",
    "your median leaves out the diagonal and is the upper of the two middle values",
    lambda x, n: np.sort(x, axis=-1)[..., n if n > 1 else 0 :][
        ..., (n * n - n) // 2 if n > 1 else 0
    ],
)
_statistic(
    "median of the positive distances",
    "your median is over the distances above 0 only",
    lambda x, n: np.nan_to_num(_median_above_zero(x)),
)
_statistic(
    "lower quartile",
    "your bandwidth takes the first quartile, not the median",
    lambda x, n: np.quantile(x, 0.25, axis=-1),
)
_statistic(
    "upper quartile",
    "your bandwidth takes the third quartile, not the median",
    lambda x, n: np.quantile(x, 0.75, axis=-1),
)

for _fallback in (1.0, 1e-3, 1e-6):
    _statistic(
        f"bandwidth {_fallback:g} where the median is 0",
        f"your sigma^2 is {_fallback:g} where the median is 0, and should have the floor there",
        lambda x, n, instead=_fallback: np.where(
            np.median(x, axis=-1) > 0, np.median(x, axis=-1), instead * 2 * math.log(n + 1)
        ),
    )


def _median_above_zero(x: Any) -> Any:
    with np.errstate(all="ignore"):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.nanmedian(np.where(x > 0, x, np.nan), axis=-1)


@alternative(
    "floor on the median", "bandwidth_squared", "your floor of 1e-12 is the median's, not sigma^2's"
)
def _(b: Any, original: Any, a: Any) -> Any:
    median = np.maximum(np.median(all_distances(b, a), axis=-1), 1e-12)
    return median / (2 * math.log(a.shape[-2] + 1))


_scaled(
    "log of the dimensions",
    "your bandwidth divides by log(d + 1), not by log(N + 1)",
    lambda n, d: 1 / (2 * math.log(d + 1)),
)
_scaled(
    "bandwidth of log N, without the two",
    "your sigma^2 is median / log N: no 2, and log N for log(N + 1)",
    lambda n, d: 1 / math.log(max(n, 2)),
)
_scaled(
    "bandwidth by d",
    "your bandwidth divides by the dimensions too",
    lambda n, d: 1 / (2 * d * math.log(n + 1)),
)
_scaled("median by N", "your sigma^2 is median / N", lambda n, d: 1 / n)
_scaled(
    "log of N squared",
    "your bandwidth divides by 2 log(N^2 + 1)",
    lambda n, d: 1 / (2 * math.log(n * n + 1)),
)
_scaled(
    "log(N) plus the two left out",
    "your sigma^2 is median / (log(N) + 1)",
    lambda n, d: 1 / (math.log(n) + 1),
)
_scaled(
    "bandwidth quartered",
    "your sigma^2 is a quarter of what it should be",
    lambda n, d: 1 / (8 * math.log(n + 1)),
)
_scaled(
    "bandwidth four times",
    "your sigma^2 is four times what it should be",
    lambda n, d: 2 / math.log(n + 1),
)


# --- kernel --------------------------------------------------------------------------------------


@alternative(
    "normalised density",
    "rbf_kernel",
    "your kernel is the Gaussian's density: it is divided by (2 pi sigma^2)^(d/2)",
)
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    with np.errstate(all="ignore"):
        norm = (2 * math.pi * sigma_squared[..., None, None]) ** (x.shape[-1] / 2)
        return original(x, y, sigma_squared) / norm


@alternative("kernel transposed", "rbf_kernel", "your kernel is transposed: k(y_j, x_i) for [i, j]")
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    return np.swapaxes(original(x, y, sigma_squared), -1, -2)


@alternative("distances transposed", "squared_distances", "your distances are transposed")
def _(b: Any, original: Any, x: Any, y: Any) -> Any:
    return np.swapaxes(original(x, y), -1, -2)


@alternative(
    "largest coordinate's distance",
    "squared_distances",
    "your squared distance is the largest coordinate's, not their sum",
)
def _(b: Any, original: Any, x: Any, y: Any) -> Any:
    return np.max((x[..., :, None, :] - y[..., None, :, :]) ** 2, axis=-1)


def _flow_parts(
    b: Any, a: Any, g: Any, temperature: Any, bandwidth: Any, kernel: Any, slope: Any
) -> tuple[Any, Any]:
    """phi's terms for k = kernel(D, sigma^2), with slope its derivative by D."""
    n = a.shape[-2]
    s = np.full(a.shape[:-2], bandwidth**2) if bandwidth is not None else b.bandwidth_squared(a)
    d2, s = b.squared_distances(a, a), s[..., None, None]
    k, dk = kernel(d2, s), slope(d2, s)
    difference = a[..., :, None, :] - a[..., None, :, :]
    attraction = k @ g / n / (1.0 if temperature is None else temperature)
    repulsion = 0.0 if temperature is None else np.sum(-2 * dk[..., None] * difference, -2) / n
    return attraction, repulsion


def _radial(name: str, says: str, kernel: Any, slope: Any) -> None:
    """phi with another kernel and that kernel's own gradient."""

    def replacement(
        b: Any,
        original: Any,
        a: Any,
        g: Any,
        temperature: Any = None,
        bandwidth: Any = None,
        *rest: Any,
    ) -> Any:
        with np.errstate(all="ignore"):
            parts = _flow_parts(b, a, g, temperature, bandwidth, kernel, slope)
        return parts[0] + parts[1]

    alternative(name, "phi", says)(replacement)


for _power, _word, _exponent in (
    (0.5, "inverse multiquadric", "^(-1/2)"),
    (1.0, "rational quadratic", "^(-1)"),
):
    for _two, _width in ((1.0, "sigma^2"), (2.0, "(2 sigma^2)")):
        _radial(
            f"{_word} of {_width}",
            f"your kernel is (1 + d^2 / {_width}){_exponent} with its gradient",
            lambda d, s, p=_power, c=_two: (1 + d / (c * s)) ** -p,
            lambda d, s, p=_power, c=_two: -p / (c * s) * (1 + d / (c * s)) ** (-p - 1),
        )
_radial(
    "inverse multiquadric of one",
    "your kernel is (1 + d^2)^(-1/2) with its gradient, without a bandwidth",
    lambda d, s: (1 + d) ** -0.5,
    lambda d, s: -0.5 * (1 + d) ** -1.5,
)
_radial(
    "Laplace's kernel",
    "your kernel is Laplace's, exp(-d / sigma), with its gradient",
    lambda d, s: np.exp(-np.sqrt(d / s)),
    lambda d, s: np.where(
        d > 0, -np.exp(-np.sqrt(d / s)) / (2 * np.sqrt(np.maximum(d, 1e-300) * s)), 0
    ),
)
_radial(
    "Matern's kernel of 3/2",
    "your kernel is Matern's of order 3/2, with its gradient",
    lambda d, s: (1 + np.sqrt(3 * d / s)) * np.exp(-np.sqrt(3 * d / s)),
    lambda d, s: -1.5 / s * np.exp(-np.sqrt(3 * d / s)),
)
for _sigmas in (1, 2, 3, 4):
    _radial(
        f"kernel cut at {_sigmas} sigma",
        f"your kernel is cut: it is 0 beyond {_sigmas} sigma",
        lambda d, s, c=_sigmas: np.where(d > c * c * s, 0.0, np.exp(-d / (2 * s))),
        lambda d, s, c=_sigmas: np.where(d > c * c * s, 0.0, -np.exp(-d / (2 * s)) / (2 * s)),
    )


def _rows_of(b: Any, a: Any, bandwidth: Any) -> Any:
    """sum_j k(a_j, a_i), [*, N, 1]."""
    s = np.full(a.shape[:-2], bandwidth**2) if bandwidth is not None else b.bandwidth_squared(a)
    return np.sum(b.rbf_kernel(a, a, s), axis=-1, keepdims=True)


def _by_rows(name: str, says: str, change: Any) -> None:
    """phi from its two terms, N and the kernel's row sums."""

    def replacement(
        b: Any,
        original: Any,
        a: Any,
        g: Any,
        temperature: Any = None,
        bandwidth: Any = None,
        *rest: Any,
    ) -> Any:
        t, r = _attraction(b, original, a, g, temperature, (bandwidth, *rest))
        return change(t, r, a.shape[-2], _rows_of(b, a, bandwidth))

    alternative(name, "phi", says)(replacement)


_by_rows(
    "score's rows sum to one",
    "your score's term is divided by sum_j k, as a softmax's, and not by N",
    lambda t, r, n, k: n * t / k + r,
)
_by_rows(
    "score's rows sum to one, over N",
    "your score's kernel is made to sum to one over j, and then divided by N",
    lambda t, r, n, k: t / k + r,
)
_by_rows(
    "phi divided by the kernel's sum",
    "your phi is divided by sum_j k, and not by N",
    lambda t, r, n, k: n * (t + r) / k,
)
_by_rows(
    "repulsion's rows sum to one",
    "your repulsion is divided by sum_j k, and not by N",
    lambda t, r, n, k: t + n * r / k,
)


_phi(
    "temperature's root",
    "your score is divided by the root of the temperature",
    lambda t, r, n, g, alpha: t * math.sqrt(alpha) + r,
)
_phi(
    "repulsion's 1/N twice",
    "your repulsion is divided by N twice",
    lambda t, r, n, g, alpha: t + r / n,
)
_phi(
    "attraction's 1/N twice",
    "your score's term is divided by N twice",
    lambda t, r, n, g, alpha: t / n + r,
)
_phi(
    "own score added",
    "your phi adds the particle's own score once more",
    lambda t, r, n, g, alpha: t + r + g / alpha,
)
_phi(
    "phi of unit length",
    "your phi is scaled to length 1, each particle's by itself",
    lambda t, r, n, g, alpha: (
        (t + r) / np.maximum(np.linalg.norm(t + r, axis=-1, keepdims=True), 1e-300)
    ),
)


@alternative("scores of unit length", "phi", "your scores are scaled to length 1 before the kernel")
def _(b: Any, original: Any, a: Any, g: Any, *rest: Any) -> Any:
    norm = np.linalg.norm(g, axis=-1, keepdims=True)
    return original(a, g / np.where(norm > 0, norm, 1.0), *rest)


@alternative("scores clipped to one", "phi", "your scores are clipped to [-1, 1], entry by entry")
def _(b: Any, original: Any, a: Any, g: Any, *rest: Any) -> Any:
    return original(a, np.clip(g, -1, 1), *rest)


# --- step and transport --------------------------------------------------------------------------


@alternative(
    "velocity clipped to the box", "flow_step", "your step clips the velocity to [-1, 1] first"
)
def _(b: Any, original: Any, a: Any, velocity: Any, *rest: Any) -> Any:
    return original(a, np.clip(velocity, -1, 1), *rest)


@alternative(
    "clipped before the step", "flow_step", "you clip the particles before the step, not after it"
)
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    free = dataclasses.replace(budget, low=None, high=None)
    return original(np.clip(a, budget.low, budget.high), velocity, state, free)


@alternative(
    "clipped before the step too", "flow_step", "you clip the particles before the step as well"
)
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    return original(np.clip(a, budget.low, budget.high), velocity, state, budget)


@alternative("sign of the velocity", "flow_step", "your step takes the velocity's sign only")
def _(b: Any, original: Any, a: Any, velocity: Any, *rest: Any) -> Any:
    return original(a, np.sign(velocity), *rest)


@alternative(
    "velocity of unit length", "flow_step", "your step scales each particle's velocity to length 1"
)
def _(b: Any, original: Any, a: Any, velocity: Any, *rest: Any) -> Any:
    norm = np.linalg.norm(velocity, axis=-1, keepdims=True)
    return original(a, velocity / np.where(norm > 0, norm, 1.0), *rest)


_budget(
    "velocity added twice",
    "your step is twice as long",
    step_size=lambda budget: 2 * budget.step_size,
)


@alternative("projected on the ball", "project", "you project on the unit ball, not on the box")
def _(b: Any, original: Any, a: Any, *rest: Any) -> Any:
    return a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1.0)


@alternative("wrapped round", "project", "you wrap round at the box's edge, and should clip")
def _(b: Any, original: Any, a: Any, *rest: Any) -> Any:
    return (a + 1) % 2 - 1


for _then in ("", " before you clip"):

    @alternative(f"reflected{_then}", "project", f"you reflect at the box's faces{_then}")
    def _(
        b: Any, original: Any, a: Any, low: Any = -1.0, high: Any = 1.0, clips: bool = bool(_then)
    ) -> Any:
        new = a if high is None else np.where(a > high, 2 * high - a, a)
        new = new if low is None else np.where(new < low, 2 * low - new, new)
        return original(new, low, high) if clips else new


for _inside in (1e-5, 1e-6, 1e-3):

    @alternative(
        f"box shrunk by {_inside:g}", "project", f"your box is +-(1 - {_inside:g}), not [-1, 1]"
    )
    def _(
        b: Any, original: Any, a: Any, low: Any = -1.0, high: Any = 1.0, by: float = _inside
    ) -> Any:
        return original(a, None if low is None else low + by, None if high is None else high - by)


def _annealed(name: str, says: str, share: Any) -> None:
    """Steps whose size changes: share(l, L) of it in step l = 0 .. L - 1."""

    @alternative(name, "follow", says)
    def _(
        b: Any, original: Any, velocity: Any, a: Any, budget: Any, trajectory: bool = False
    ) -> Any:
        state, path = step_state(a, budget), [a]
        for i in range(budget.steps):
            now = dataclasses.replace(budget, step_size=budget.step_size * share(i, budget.steps))
            a, state = b.flow_step(a, velocity(a), state, now)
            path.append(a)
        return np.stack(path) if trajectory else a


_annealed(
    "steps annealed",
    "your step size falls linearly, epsilon (1 - l / L), and should stay",
    lambda i, steps: 1 - i / steps,
)
_annealed(
    "steps annealed from the first",
    "your step size falls linearly, epsilon (1 - (l + 1) / (L + 1)), and should stay",
    lambda i, steps: 1 - (i + 1) / (steps + 1),
)
_annealed(
    "steps on a cosine",
    "your step size falls as a cosine from epsilon to 0, and should stay",
    lambda i, steps: (1 + math.cos(math.pi * i / steps)) / 2,
)
_annealed(
    "steps that shrink as 1 / l",
    "your step size falls as epsilon / (l + 1), and should stay",
    lambda i, steps: 1 / (i + 1),
)
_annealed(
    "steps that shrink as the root",
    "your step size falls as epsilon / sqrt(l + 1), and should stay",
    lambda i, steps: 1 / math.sqrt(i + 1),
)
_annealed(
    "step size over L",
    "your step size is divided by the number of steps",
    lambda i, steps: 1 / steps,
)


@alternative(
    "score at the start only",
    "transport",
    "your score is computed once, at the start, and the kernel anew at each step",
)
def _(b: Any, original: Any, score: Any, a: Any, *rest: Any) -> Any:
    g = score(a)
    return original(lambda now: g, a, *rest)


@alternative(
    "bandwidth at the start only",
    "transport",
    "your bandwidth is computed once, at the start, and the kernel anew at each step",
)
def _(b: Any, original: Any, score: Any, a: Any, budget: Any, *rest: Any) -> Any:
    if budget.bandwidth is not None or budget.bandwidth_gradient:
        return original(score, a, budget, *rest)
    start = b.bandwidth_squared(a)
    names = b._names
    before, names["bandwidth_squared"] = names["bandwidth_squared"], lambda now: start
    try:
        return original(score, a, budget, *rest)
    finally:
        names["bandwidth_squared"] = before


@alternative(
    "kernel at the start only",
    "transport",
    "your kernel and repulsion are computed once, at the start, and the score anew at each step",
)
def _(b: Any, original: Any, score: Any, a: Any, budget: Any, *rest: Any) -> Any:
    names, start = b._names, a
    whole = names["phi"]
    before, names["phi"] = whole, lambda now, g, *others: whole(start, g, *others)
    try:
        return original(score, a, budget, *rest)
    finally:
        names["phi"] = before


# --- networks ------------------------------------------------------------------------------------


def _network(name: str, says: str, change: Any) -> None:
    """A network with its parameters changed."""
    alternative(name, "_network", says)(
        lambda b, original, params, x, activation="relu": original(change(params), x, activation)
    )


def _without(params: Any, names: Any, key: str) -> Any:
    return {
        k: {**v, key: 0 * v[key]} if k in names and isinstance(v, dict) and key in v else v
        for k, v in params.items()
    }


_network(
    "output bias left out",
    "your network leaves out the output's bias",
    lambda p: _without(p, ["output"], "bias"),
)
_network(
    "hidden biases left out",
    "your network leaves out the hidden layers' biases",
    lambda p: _without(p, hidden_layers(p), "bias"),
)
_network(
    "all biases left out",
    "your network leaves out every bias",
    lambda p: _without(p, [*hidden_layers(p), "output"], "bias"),
)


@alternative("a hidden layer left out", "_network", "your network leaves out its last activation")
def _(b: Any, original: Any, params: Any, x: Any, activation: str = "relu") -> Any:
    *first, last = hidden_layers(params)
    for name in first:
        x = _layer(b, params[name], x, activation)
    x = _layer(b, params[last], x, None)
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def _layer(b: Any, layer: Any, x: Any, activation: str | None) -> Any:
    x = x @ layer["kernel"] + layer["bias"]
    if "norm_scale" in layer:
        x = b.layer_norm(x, layer["norm_scale"], layer["norm_offset"])
    return x if activation is None else b.activate(x, activation)


@alternative("linear network", "_network", "your network has no activation between its layers")
def _(b: Any, original: Any, params: Any, x: Any, activation: str = "relu") -> Any:
    for name in hidden_layers(params):
        x = _layer(b, params[name], x, None)
    return x @ params["output"]["kernel"] + params["output"]["bias"]


@alternative(
    "variance by n - 1, epsilon 1e-5",
    "_normalise",
    "your LayerNorm divides its variance by n - 1 and adds 1e-5",
)
def _(b: Any, original: Any, x: Any) -> Any:
    return normalised(x, 1e-5, lost=1)


# --- reference -----------------------------------------------------------------------------------

_flow_matching(
    "target from the point",
    "your flow's target is a - x_t, not a - x0",
    lambda x0, a, t: ((1 - t) * x0 + t * a, t * 0 + a - ((1 - t) * x0 + t * a), t),
)
_flow_matching(
    "target from the point, over 1 - t",
    "your flow's target is (a - x_t) / (1 - t)",
    lambda x0, a, t: (
        (1 - t) * x0 + t * a,
        (a - ((1 - t) * x0 + t * a)) / np.maximum(1 - t, 1e-300),
        t,
    ),
)
_flow_matching(
    "target is the noise's negative",
    "your flow's target is -x0, not a - x0",
    lambda x0, a, t: ((1 - t) * x0 + t * a, -x0, t),
)
for _times in (10, 100, 999, 1000):
    _flow_matching(
        f"time times {_times}",
        f"your network is given {_times} t, not t",
        lambda x0, a, t, c=_times: ((1 - t) * x0 + t * a, a - x0, c * t),
    )
    _sampler(
        f"sampler's time times {_times}",
        f"your sampler gives the network {_times} t, not t",
        lambda v, x, k, clip, c=_times: clip(_euler(v, x, k, lambda i: c * i / k)),
    )
_flow_matching(
    "time left out",
    "your network is given 0 for t",
    lambda x0, a, t: ((1 - t) * x0 + t * a, a - x0, 0 * t),
)
_flow_matching(
    "noise left out of the point",
    "your point is t a, without the noise",
    lambda x0, a, t: (t * a, a - x0, t),
)
_flow_matching(
    "square root path",
    "your path is sqrt(1 - t) x0 + sqrt(t) a, with the target a - x0",
    lambda x0, a, t: (np.sqrt(1 - t) * x0 + np.sqrt(t) * a, a - x0, t),
)
_flow_matching(
    "half the loss",
    "your loss is half the mean square",
    lambda x0, a, t: ((1 - t) * x0 + t * a, a - x0, t),
    lambda e, w: (np.mean(w * e**2) / 2, w * e / e.size),
)


_flow_matching(
    "loss over the sum of the weights",
    "your loss is divided by the sum of the weights, and should be by the batch",
    lambda x0, a, t: ((1 - t) * x0 + t * a, a - x0, t),
    lambda e, w: _weighted_mean(e, w + 0 * e),
)


def _weighted_mean(error: Any, w: Any) -> Any:
    whole = max(float(np.sum(w)), 1e-300)
    return np.sum(w * error**2) / whole, 2 * w * error / whole


_sampler(
    "network sees clipped actions",
    "your sampler gives the network the clipped action, and should give it the action",
    lambda v, x, k, clip: clip(_euler(lambda y, t: v(clip(y), t), x, k, lambda i: i / k)),
)


def _gaussian(name: str, says: str, change: Any, edge: float = 1 - 2.0**-20) -> None:
    """The likelihood of changed means and log-stds, with other edges of tanh's inverse."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        s: Any,
        a: Any,
        tanh: bool = False,
        activation: str = "relu",
        weight: Any = None,
    ) -> Any:
        log_std = change(np.clip(params["log_std"], -5.0, 2.0))
        with np.errstate(all="ignore"):
            u = np.arctanh(np.clip(a, -edge, edge)) if tanh else a
            z = (u - b.mlp(params, s, activation)) * np.exp(-log_std)
            nll = z**2 / 2 + log_std + math.log(2 * math.pi) / 2
            if tanh:
                nll = nll + 2 * (math.log(2) - u - np.logaddexp(0, -2 * u))
        rows = np.ones(len(a)) if weight is None else weight
        return np.mean(rows * np.sum(nll, axis=-1))

    alternative(name, "gaussian_loss", says)(replacement)


_gaussian(
    "log_std as log-variance",
    "your log_std is taken as the logarithm of the variance",
    lambda log_std: log_std / 2,
)
_gaussian(
    "log_std of 0", "your standard deviation is 1 whatever log_std is", lambda log_std: 0 * log_std
)
_gaussian("log_std doubled", "your standard deviation is squared", lambda log_std: 2 * log_std)
for _edge in (1e-2, 1e-3, 1e-4, 1e-5, 1e-7, 1e-8):
    _gaussian(
        f"tanh's inverse clipped at 1 - {_edge:g}",
        f"your inverse of tanh is clipped at 1 - {_edge:g}, not at 1 - 2^-20",
        lambda log_std: log_std,
        1 - _edge,
    )


# --- critic --------------------------------------------------------------------------------------


@alternative(
    "first two of the ensemble", "aggregate", "your ensemble counts its first two members only"
)
def _(b: Any, original: Any, q: Any, *rest: Any) -> Any:
    return original(q[:2], *rest)


_target(
    "discount squared",
    "your target discounts twice",
    lambda o, q, r, m, c, how, ps: o(q, r, m, c * c, how, ps),
)
_target(
    "reward where done only",
    "your target takes the reward only where the task is done",
    lambda o, q, r, m, c, how, ps: o(q, (1 - m) * r, m, c, how, ps),
)
_target(
    "reward scaled by one minus discount",
    "your reward is multiplied by 1 - discount",
    lambda o, q, r, m, c, how, ps: o(q, (1 - c) * r, m, c, how, ps),
)
_target(
    "value not below zero",
    "your bootstrap value is cut at 0",
    lambda o, q, r, m, c, how, ps: (
        r + c * m * np.maximum(o(q, 0 * r, np.ones_like(r), 1.0, how, ps), 0)
    ),
)
for _low, _high, _range in (
    (-1, 1, "+-1 / (1 - discount)"),
    (-1, 0, "[-1 / (1 - discount), 0]"),
    (0, 1, "[0, 1 / (1 - discount)]"),
):
    _target(
        f"target clipped to {_range}",
        f"your target is clipped to {_range}, the range of returns",
        lambda o, q, r, m, c, how, ps, low=_low, high=_high: np.clip(
            o(q, r, m, c, how, ps), low / max(1 - c, 1e-300), high / max(1 - c, 1e-300)
        ),
    )
_loss(
    "one side for all critics",
    "your expectile's side is that of the mean critic's error, and should be each critic's own",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(np.where(y - q.mean(0) >= 0, t, 1 - t) * (y - q) ** 2, 0))
        if loss == "expectile"
        else o(q, y, loss, t)
    ),
)


_loss(
    "sparse loss of 0 below its threshold",
    "your sparse loss is 0 where w is at most 0, and should keep its linear term there",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(np.where(y - q > -2 * t, t * ((y - q) / (2 * t) + 1) ** 2 - (y - q), 0), 0))
        if loss == "sparse"
        else o(q, y, loss, t)
    ),
)
_loss(
    "Huber's loss, doubled",
    "your loss is twice Huber's (smooth L1), not the square",
    lambda o, q, y, loss, t: np.mean(np.sum(2 * _huber(y - q), 0)),
)
_loss(
    "log-cosh",
    "your loss is log cosh, not the square",
    lambda o, q, y, loss, t: np.mean(np.sum(np.logaddexp(y - q, q - y) - math.log(2), 0)),
)


@alternative("median of the ensemble", "aggregate", "your ensemble takes the median")
def _(b: Any, original: Any, q: Any, *rest: Any) -> Any:
    return np.median(q, axis=0)


# --- baselines -----------------------------------------------------------------------------------


def _weights(name: str, says: str, change: Any) -> None:
    """Weights from the two aggregated values: change(q, own [B, N], beta, maximum)."""

    def replacement(
        b: Any,
        original: Any,
        q: Any,
        baseline: Any,
        how: str = "mean",
        temperature: float = 1.0,
        maximum: float = 20.0,
    ) -> Any:
        with np.errstate(all="ignore"):
            values = b.aggregate(q, how), b.aggregate(baseline, how)
            return change(*values, temperature, maximum)

    alternative(name, "advantage_weights", says)(replacement)


def _bounded(advantage: Any, temperature: float, maximum: float) -> Any:
    return np.exp(np.minimum(advantage / temperature, math.log(maximum)))


_weights(
    "baseline is the best particle",
    "your baseline is the best particle's value, not the mean",
    lambda q, own, t, m: _bounded(q - own.max(-1), t, m),
)
_weights(
    "baseline is the first particle",
    "your baseline is the first particle's value",
    lambda q, own, t, m: _bounded(q - own[:, 0], t, m),
)
_weights(
    "baseline is the median",
    "your baseline is the median particle's value",
    lambda q, own, t, m: _bounded(q - np.median(own, -1), t, m),
)
_weights(
    "baseline left out",
    "your weights have no baseline: exp(Q / beta)",
    lambda q, own, t, m: _bounded(q, t, m),
)
_weights(
    "baseline of the batch",
    "your baseline is the mean over the batch",
    lambda q, own, t, m: _bounded(q - own.mean(), t, m),
)
_weights(
    "exponent clipped at the maximum",
    "your maximum bounds the exponent, not the weight",
    lambda q, own, t, m: np.exp(np.minimum((q - own.mean(-1)) / t, m)),
)
for _guard in (0.0, 1e-8, 1e-6, 1e-5):
    _weights(
        f"advantage standardised (and {_guard:g})",
        "your advantage is standardised over the batch",
        lambda q, own, t, m, guard=_guard: _bounded(
            (q - own.mean(-1) - np.mean(q - own.mean(-1)))
            / np.maximum(np.std(q - own.mean(-1)) + guard, 1e-300),
            t,
            m,
        ),
    )
_weights(
    "binary weights",
    "your weights are 1 where the advantage is positive and 0 elsewhere",
    lambda q, own, t, m: (q > own.mean(-1)) * 1.0,
)
_weights(
    "advantage's sign",
    "your advantage has the wrong sign",
    lambda q, own, t, m: _bounded(own.mean(-1) - q, t, m),
)
_weights(
    "weights of mean one",
    "your weights are divided by their mean over the batch",
    lambda q, own, t, m: _bounded(q - own.mean(-1), t, m) / _bounded(q - own.mean(-1), t, m).mean(),
)


@alternative(
    "worst advantage of the critics",
    "advantage_weights",
    "you aggregate the critics' advantages, and should subtract aggregated values",
)
def _(b: Any, original: Any, q: Any, baseline: Any, *args: Any) -> Any:
    return original(q - baseline.mean(-1), 0 * baseline, *args)


def _policy(name: str, says: str, change: Any) -> None:
    """FQL's policy loss: change(a, target, q(action, how), distillation, normalise)."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        critic: Any,
        s: Any,
        noise: Any,
        target: Any,
        distillation: float = 10.0,
        normalise: bool = False,
        activation: str = "relu",
        critic_activation: str = "relu",
    ) -> Any:
        a = b.policy_actions(params, s, noise, activation)

        def q(action: Any, how: str = "mean") -> Any:
            values = b.critic_values(critic, s, action, critic_activation)
            return {"mean": values.mean(0), "min": values.min(0), "max": values.max(0)}.get(
                how, values[0]
            )

        return change(a, target, q, distillation, normalise)

    alternative(name, "policy_loss", says)(replacement)


def _scale(q: Any, normalise: bool) -> Any:
    return 1 / np.maximum(np.mean(np.abs(q)), 1e-8) if normalise else 1.0


def _policy_form(name: str, says: str, distil: Any = None, value: Any = None) -> None:
    """The loss with another distillation, or another value."""

    def change(a: Any, target: Any, q: Any, alpha: float, normalise: bool) -> Any:
        near = np.mean((a - target) ** 2) if distil is None else distil(a, target)
        best = q(np.clip(a, -1, 1)) if value is None else value(a, q)
        return alpha * near - _scale(best, normalise) * np.mean(best)

    _policy(name, says, change)


_policy_form(
    "distillation summed over dimensions",
    "your distillation sums over the dimensions, and should take their mean",
    lambda a, x: np.mean(np.sum((a - x) ** 2, axis=-1)),
)
_policy_form(
    "distillation summed",
    "your distillation sums over batch and dimensions",
    lambda a, x: np.sum((a - x) ** 2),
)
_policy_form(
    "distillation halved",
    "your distillation is half the mean square",
    lambda a, x: np.mean((a - x) ** 2) / 2,
)
_policy_form(
    "distillation's absolute error",
    "your distillation is the absolute error",
    lambda a, x: np.mean(np.abs(a - x)),
)
_policy_form(
    "distillation of clipped actions",
    "your distillation compares clipped actions",
    lambda a, x: np.mean((np.clip(a, -1, 1) - x) ** 2),
)
_policy_form(
    "policy by the worst critic",
    "your policy climbs the minimum of the critics, not their mean",
    None,
    lambda a, q: q(np.clip(a, -1, 1), "min"),
)
_policy_form(
    "policy by the best critic",
    "your policy climbs the maximum of the critics, not their mean",
    None,
    lambda a, q: q(np.clip(a, -1, 1), "max"),
)
_policy_form(
    "policy by the first critic",
    "your policy climbs the first critic alone",
    None,
    lambda a, q: q(np.clip(a, -1, 1), "first"),
)
_policy_form(
    "policy's action not clipped",
    "your policy's action is not clipped before the critic",
    None,
    lambda a, q: q(a),
)
_policy_form(
    "policy's action squashed",
    "your policy's action is squashed by tanh before the critic",
    None,
    lambda a, q: q(np.tanh(a)),
)
_policy(
    "distillation on the value",
    "your alpha multiplies the value and not the distillation",
    lambda a, x, q, alpha, n: (
        np.mean((a - x) ** 2)
        - alpha * _scale(q(np.clip(a, -1, 1)), n) * np.mean(q(np.clip(a, -1, 1)))
    ),
)
_policy(
    "distillation left out",
    "your policy loss leaves out the distillation",
    lambda a, x, q, alpha, n: -_scale(q(np.clip(a, -1, 1)), n) * np.mean(q(np.clip(a, -1, 1))),
)
_policy(
    "value left out",
    "your policy loss leaves out the value",
    lambda a, x, q, alpha, n: alpha * np.mean((a - x) ** 2),
)
_policy(
    "value scaled by the mean, not of |Q|",
    "you divide by |mean Q|, not by the mean of |Q|",
    lambda a, x, q, alpha, n: (
        alpha * np.mean((a - x) ** 2)
        - (1 / max(abs(float(np.mean(q(np.clip(a, -1, 1))))), 1e-8) if n else 1.0)
        * np.mean(q(np.clip(a, -1, 1)))
    ),
)


# --- optimiser and selection ---------------------------------------------------------------------


def _adam_step(name: str, says: str, step: Any) -> None:
    """Adam with another step: step(theta, m, v, g, t, learning rate) on new moments."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        gradient: Any,
        state: Any,
        learning_rate: float,
        b1: float = 0.9,
        b2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> Any:
        _, new = original(params, gradient, state, learning_rate, b1, b2, epsilon)
        t = int(new["count"])
        moved = tree_map(
            lambda p, m, v, g: step(p, m, v, g, t, learning_rate),
            params,
            new["m"],
            new["v"],
            gradient,
        )
        return moved, new

    alternative(name, "adam_step", says)(replacement)


def _m(m: Any, t: int) -> Any:
    return m / (1 - 0.9**t)


def _v(v: Any, t: int) -> Any:
    return v / (1 - 0.999**t)


_adam_step(
    "first moment not corrected",
    "your Adam corrects the second moment only",
    lambda p, m, v, g, t, lr: p - lr * m / (np.sqrt(_v(v, t)) + 1e-8),
)
_adam_step(
    "second moment not corrected",
    "your Adam corrects the first moment only",
    lambda p, m, v, g, t, lr: p - lr * _m(m, t) / (np.sqrt(v) + 1e-8),
)
_adam_step(
    "epsilon before the correction",
    "your Adam adds its epsilon before the correction (epsilon-hat)",
    lambda p, m, v, g, t, lr: (
        p - lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
    ),
)
_adam_step(
    "root left out",
    "your Adam leaves out the root of the second moment",
    lambda p, m, v, g, t, lr: p - lr * _m(m, t) / (_v(v, t) + 1e-8),
)
for _decay in (1e-4, 1e-3, 1e-2, 0.1):
    _adam_step(
        f"weight decay {_decay:g}",
        f"your Adam decays the weights by {_decay:g} (AdamW)",
        lambda p, m, v, g, t, lr, w=_decay: (
            p * (1 - lr * w) - lr * _m(m, t) / (np.sqrt(_v(v, t)) + 1e-8)
        ),
    )
_adam_step(
    "Nesterov's Adam",
    "your Adam is Nesterov's (NAdam)",
    lambda p, m, v, g, t, lr: (
        p - lr * (0.9 * _m(m, t) + 0.1 * g / (1 - 0.9**t)) / (np.sqrt(_v(v, t)) + 1e-8)
    ),
)


def _second_share(o: Any, p: Any, g: Any, s: Any, rate: float, share: float) -> Any:
    """Adam on gradients root times as large, so that v gets a larger share; undone for m."""
    root = math.sqrt(share / 0.001)
    larger = {**s, "m": tree_map(lambda m: root * m, s["m"])}
    moved, new = o(p, tree_map(lambda g: root * g, g), larger, rate / root)
    return moved, {**new, "m": tree_map(lambda m: m / root, new["m"])}


for _share, _words in ((0.1, "1 - b1"), (1.0, "1")):
    _adam(
        f"second moment's share {_words}",
        f"your second moment adds {_words} of the square, and should add 1 - b2",
        lambda o, p, g, s, lr, share=_share: _second_share(o, p, g, s, lr, share),
    )


def _leaves_mixed(name: str, says: str, part: str | tuple[str, ...], copied: bool) -> None:
    """Polyak on some leaves only: the others are copied, or left as they are."""

    def mix(online: Any, target: Any, tau: float, key: str = "") -> Any:
        if isinstance(online, dict):
            return {k: mix(online[k], target[k], tau, k) for k in online}
        if key.startswith(part):
            return np.array(online if copied else target)
        return tau * online + (1 - tau) * target

    alternative(name, "polyak", says)(
        lambda b, original, online, target, tau: mix(online, target, tau)
    )


for _part, _word in (
    ("bias", "biases"),
    ("norm", "LayerNorm's parameters"),
    ("kernel", "kernels"),
    (("bias", "norm"), "biases and LayerNorm's parameters"),
):
    _leaves_mixed(f"{_word} copied", f"your target copies the {_word} outright", _part, True)
    _leaves_mixed(f"{_word} left", f"your target leaves the {_word} as they are", _part, False)


def _norm_of(name: str, says: str, keep: Any) -> None:
    """Clipping by the norm of some leaves only."""

    def squares(tree: Any, key: str = "") -> float:
        if isinstance(tree, dict):
            return sum(squares(v, k) for k, v in tree.items())
        return float(np.sum(tree**2)) if keep(key) else 0.0

    def replacement(b: Any, original: Any, gradient: Any, max_norm: float) -> Any:
        scale = max_norm / max(math.sqrt(squares(gradient)), max_norm)
        return tree_map(lambda g: g * scale, gradient)

    alternative(name, "clip_by_global_norm", says)(replacement)


_norm_of("norm of the kernels", "your norm is the kernels' only", lambda k: k == "kernel")
_norm_of("norm without biases", "your norm leaves the biases out", lambda k: k != "bias")
_norm_of(
    "norm without LayerNorm",
    "your norm leaves LayerNorm's parameters out",
    lambda k: not k.startswith("norm"),
)
_norm_of("norm of the biases", "your norm is the biases' only", lambda k: k == "bias")


@alternative(
    "softmax from the other end",
    "select",
    "your softmax's draw counts from the last particle: it takes 1 - u for u",
)
def _(b: Any, original: Any, a: Any, q: Any, u: Any, *rest: Any) -> Any:
    return original(a, q, 1 - u, *rest)


def _index(name: str, says: str, rule: str, index: Any) -> None:
    """Another index under one rule: index(q, u, temperature)."""

    def replacement(
        b: Any, original: Any, a: Any, q: Any, u: Any, own: str = "best", temperature: float = 1.0
    ) -> Any:
        if own != rule:
            return original(a, q, u, own, temperature)
        picked = np.clip(index(q, u, temperature), 0, a.shape[-2] - 1).astype(int)
        return np.take_along_axis(a, picked[..., None, None], axis=-2)[..., 0, :], picked

    alternative(name, "select", says)(replacement)


def _inverse(p: Any, u: Any) -> Any:
    return np.sum(np.cumsum(p, axis=-1) <= u[..., None], axis=-1)


def _in_proportion(q: Any, u: Any, temperature: float) -> Any:
    with np.errstate(all="ignore"):
        return _inverse(q / np.sum(q, axis=-1, keepdims=True), u)


def _likely(q: Any, temperature: float) -> Any:
    return selection_probabilities(q, "softmax", temperature)


_index(
    "probabilities from the values",
    "you pick in proportion to the values",
    "softmax",
    _in_proportion,
)
_index(
    "uniform without the last",
    "your uniform rule never picks the last particle: it takes floor(u (N - 1))",
    "uniform",
    lambda q, u, t: np.floor(u * (q.shape[-1] - 1)),
)
_index(
    "uniform by rounding",
    "your uniform rule rounds u (N - 1): the first and the last are picked half as often",
    "uniform",
    lambda q, u, t: np.round(u * (q.shape[-1] - 1)),
)
_index(
    "softmax of the ranks, not mapped back",
    "your softmax picks a place in the order of the values, and takes it for the particle's",
    "softmax",
    lambda q, u, t: _inverse(-np.sort(-_likely(q, t), axis=-1), u),
)
_index(
    "softmax of the ranks",
    "your softmax counts through the particles from the best to the worst",
    "softmax",
    lambda q, u, t: np.take_along_axis(
        np.argsort(-q, axis=-1, kind="stable"),
        _inverse(-np.sort(-_likely(q, t), axis=-1), u)[..., None].clip(max=q.shape[-1] - 1),
        axis=-1,
    )[..., 0],
)
_index(
    "softmax picks the worst",
    "your softmax has the wrong sign: low values are likely",
    "softmax",
    lambda q, u, t: _inverse(_likely(-q, t), u),
)


@alternative(
    "gradients normalised over the batch",
    "normalise_rows",
    "your gradients are scaled to length 1 over the batch, dimension by dimension, not row by row",
)
def _(b: Any, original: Any, g: Any) -> Any:
    return original(g.T).T


# --- amortised gradient --------------------------------------------------------------------------


@alternative(
    "gradient field normalised", "gradient_field", "your field's output is scaled to length 1"
)
def _(b: Any, original: Any, *args: Any) -> Any:
    return b.normalise_rows(original(*args))


@alternative("half the field's loss", "gradient_field_loss", "your loss is half the mean square")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args) / 2


@alternative(
    "field's output normalised in the loss",
    "gradient_field_loss",
    "your loss normalises the field's output as well as the target",
)
def _(
    b: Any,
    original: Any,
    params: Any,
    s: Any,
    a: Any,
    g: Any,
    normalise: bool = False,
    activation: str = "relu",
) -> Any:
    f = b.gradient_field(params, s, a, activation)
    return np.mean((b.normalise_rows(f) - b.normalise_rows(g)) ** 2)


@alternative("score's sign, of the critic", "action_gradient", "your score descends the critic")
def _(b: Any, original: Any, *args: Any) -> Any:
    return -original(*args)


# --- seen in code of others ----------------------------------------------------------------------


@alternative(
    "lower median differentiated",
    "phi",
    "your median is the lower of the two middle values (torch.median), and your repulsion "
    "differentiates it",
)
def _(
    b: Any,
    original: Any,
    a: Any,
    g: Any,
    temperature: Any = None,
    bandwidth: Any = None,
    *rest: Any,
) -> Any:
    if bandwidth is not None:
        return original(a, g, temperature, bandwidth, *rest)
    n = a.shape[-2]
    s = VARIANTS["lower median"].replacement(b, None, a)
    k = b.rbf_kernel(a, a, s)
    attraction = k @ g / n
    if temperature is None:
        return attraction
    distances = b.squared_distances(a, a)
    weight = np.sum(k * distances, axis=(-2, -1)) / (2 * s**2)
    at_p, _, away = _pair(a, distances, (n * n - 1) // 2)
    slope = np.where((s > SIGMA_SQUARED_MIN)[..., None, None], at_p * away, 0.0) / math.log(n + 1)
    return attraction / temperature + b.repulsion(a, s) - weight[..., None, None] * slope / n


@alternative(
    "constant of the density once",
    "gaussian_loss",
    "your density counts log(2 pi) / 2 once, not for each dimension",
)
def _(b: Any, original: Any, params: Any, s: Any, a: Any, *rest: Any) -> Any:
    weight = rest[2] if len(rest) > 2 else None
    rows = 1.0 if weight is None else np.mean(weight)
    return original(params, s, a, *rest) - rows * (a.shape[-1] - 1) * math.log(2 * math.pi) / 2


@alternative(
    "critic's gradient clipped",
    "action_gradient",
    "your score is clipped to [-1, 1], entry by entry",
)
def _(b: Any, original: Any, *args: Any) -> Any:
    return np.clip(original(*args), -1.0, 1.0)


_flow_matching(
    "time squared on the path",
    "your path takes t^2 for t",
    lambda x0, a, t: ((1 - t**2) * x0 + t**2 * a, a - x0, t),
)
_flow_matching(
    "square root of time on the path",
    "your path takes sqrt(t) for t",
    lambda x0, a, t: ((1 - np.sqrt(t)) * x0 + np.sqrt(t) * a, a - x0, t),
)


@alternative(
    "norm of each token",
    "rescale_sequences",
    "your norm is each token's own, not the whole response's",
)
def _(b: Any, original: Any, v: Any, lengths: Any, like: Any = None) -> Any:
    tokens = (-1, 1, v.shape[-1])  # each a response by itself
    alike = None if like is None else like.reshape(tokens)
    each = original(v.reshape(tokens), (1,) * (v.shape[0] * v.shape[1]), alike).reshape(v.shape)
    return each if like is not None else each * np.sqrt(np.asarray(lengths))[:, None, None]


@alternative(
    "by all responses at a position",
    "sequence_phi",
    "your phi at a position divides by all N responses, not by those that have a token there",
)
def _(
    b: Any, original: Any, u: Any, g: Any, lengths: Any, kernel: str | None = "sequence", *rest: Any
) -> Any:
    moved = original(u, g, lengths, kernel, *rest)
    if kernel != "position":
        return moved
    there = np.arange(u.shape[1]) < np.asarray(lengths)[:, None]
    return moved * np.sum(there, axis=0)[:, None] / len(u)


@alternative(
    "likeliest of all tokens",
    "decoding_scores",
    "your likeliest tokens are taken among all, and should be among the allowed ones",
)
def _(
    b: Any,
    original: Any,
    u: Any,
    log_p: Any,
    embeddings: Any,
    own: Any,
    allowed: Any,
    weight: float = 0.2,
    top: int | None = 50,
) -> Any:
    score = original(u, log_p, embeddings, own, np.ones_like(allowed), weight, top)
    kept = allowed | (np.arange(len(allowed)) == own[:, None])
    return np.where(kept, score, -np.inf)


@alternative(
    "value's scale not detached",
    "policy_gradient",
    "your 1 / mean |Q| is not detached: the gradient runs through it",
)
def _(
    b: Any,
    original: Any,
    params: Any,
    critic: Any,
    s: Any,
    noise: Any,
    target: Any,
    distillation: float = 10.0,
    normalise: bool = False,
    activation: str = "relu",
    critic_activation: str = "relu",
) -> Any:
    rest = (distillation, normalise, activation, critic_activation)
    loss, gradient = original(params, critic, s, noise, target, *rest)
    if not normalise:
        return loss, gradient
    a = b.policy_actions(params, s, noise, activation)
    q = b.critic_values(critic, s, b.project(a), critic_activation).mean(0)
    size = np.mean(np.abs(q))
    if size < 1e-8:
        return loss, gradient
    # d( mean q / mean |q| ) / da_i also has -(mean q) sign(q_i) / size^2 of grad q_i / B
    g = b.action_gradient(critic, s, b.project(a), "mean", critic_activation)
    inside = (np.abs(a) <= 1).astype(a.dtype)
    slope = np.mean(q) / size**2 * np.sign(q)[:, None] * inside * g / len(a)
    x = np.concatenate([s, noise], axis=-1)
    through, _ = b.mlp_vjp(params, x, slope.astype(a.dtype), activation)
    return loss, tree_map(lambda one, other: one + other, gradient, through)


def _exchanged(method: str, says: str) -> None:
    """A network that is given its other inputs before the state."""

    def replacement(b: Any, original: Any, params: Any, s: Any, a: Any, *rest: Any) -> Any:
        first = "hidden_0" if "hidden_0" in params else "output"
        kernel, d, o = params[first]["kernel"], a.shape[-1], s.shape[-1]
        order = [*range(d, d + o), *range(d), *range(d + o, kernel.shape[-2])]
        moved = {**params[first], "kernel": kernel[..., order, :]}
        return original({**params, first: moved}, s, a, *rest)

    alternative(f"inputs of {method} exchanged", method, says)(replacement)


_exchanged("critic_values", "your critic's input is [a, s], not [s, a]")
_exchanged("gradient_field", "your gradient field's input is [a, s], not [s, a]")
_exchanged("flow_velocity", "your velocity's input is [x, s, t], not [s, x, t]")


@alternative(
    "cross term once",
    "squared_distances",
    "your distances subtract x . y, and should subtract 2 x . y",
)
def _(b: Any, original: Any, x: Any, y: Any) -> Any:
    return original(x, y) + np.einsum("...nd,...md->...nm", x, y)


@alternative(
    "mean squashed before the noise",
    "gaussian_sample",
    "your sample is tanh of the mean, and then the noise; it should be tanh of the sum",
)
def _(
    b: Any,
    original: Any,
    params: Any,
    s: Any,
    noise: Any,
    tanh: bool = False,
    activation: str = "relu",
) -> Any:
    if not tanh:
        return original(params, s, noise, tanh, activation)
    mean = original(params, s, 0 * noise, tanh, activation)  # its tanh
    return b.project(mean + np.exp(np.clip(params["log_std"], -5.0, 2.0)) * noise)


@alternative(
    "norms not halved",
    "decoding_scores",
    "your decoding subtracts ||e_c||^2, and should subtract half of it",
)
def _(b: Any, original: Any, u: Any, log_p: Any, embeddings: Any, *rest: Any) -> Any:
    norms = np.sum(embeddings**2, axis=-1)
    return original(u, log_p, embeddings, *rest) - norms / 2 / np.mean(norms)


_adam_step(
    "both moments corrected by b2",
    "your Adam corrects its first moment with b2, as its second",
    lambda p, m, v, g, t, rate: (
        p - rate * m / (1 - 0.999**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    ),
)
_adam_step(
    "both moments corrected by b1",
    "your Adam corrects its second moment with b1, as its first",
    lambda p, m, v, g, t, rate: p - rate * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8),
)

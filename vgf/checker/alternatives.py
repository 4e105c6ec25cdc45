"""More named ways of departing from the specification, for telling what a function does instead.

`variants.py` plants mistakes in every backend, to test the checks. These are planted in the
specification alone (:class:`~vgf.testing.rewired.Rewired`), where one replaced function is felt
by all that call it: a median planted here explains a phi, a transport and a whole update. Some are
no mistakes but conventions of published code; the text says whose.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..spec.networks import LAYER_NORM_EPSILON
from ..spec.optimiser import tree_map
from ..testing.rewired import reached_from
from ..testing.variants import VARIANTS, Replacement, Variant, all_distances, floored

ALTERNATIVES: dict[str, Variant] = {}


def alternative(name: str, method: str, says: str) -> Callable[[Replacement], Replacement]:
    """Register a replacement of a function, or of a constant, of the specification."""

    def register(replacement: Replacement) -> Replacement:
        if name in ALTERNATIVES:
            raise ValueError(f"two variants are called {name!r}")
        ALTERNATIVES[name] = Variant(name, says, method, replacement, method)
        return replacement

    return register


def library() -> dict[str, Variant]:
    """All that a failing function is compared with: the planted mistakes and the alternatives."""
    for more in ("conventions", "operators"):  # which register more of them
        importlib.import_module(f"{__package__}.{more}")
    return {**VARIANTS, **ALTERNATIVES}


def library_for(*functions: str) -> dict[str, Variant]:
    """Those that replace something the functions depend on."""
    reached = frozenset().union(*(reached_from(name) for name in functions))
    return {name: v for name, v in library().items() if v.method in reached}


# --- bandwidth -----------------------------------------------------------------------------------


def _statistic(name: str, says: str, pick: Any) -> None:
    """Another statistic of the distances in the place of the median."""

    alternative(name, "_statistic", says)(lambda b, original, distances, n: pick(distances, n))


def _sorted_off_diagonal(x: Any, n: int) -> Any:
    """The distances between different particles in ascending order (the zero alone for N = 1)."""
    return np.sort(x, axis=-1)[..., n if n > 1 else 0 :]


# these two and the logarithm of N are planted in every backend too; here they go with others
_statistic(
    "lower median",
    "your median is the lower of the two middle values",
    lambda x, n: np.sort(x, axis=-1)[..., (n * n - 1) // 2],
)
_statistic(
    "median off the diagonal",
    "your median leaves out the diagonal",
    lambda x, n: np.median(_sorted_off_diagonal(x, n), axis=-1),
)
_statistic(
    "upper median",
    "your median is the upper of the two middle values",
    lambda x, n: np.sort(x, axis=-1)[..., n * n // 2],
)
_statistic(
    "lower median off the diagonal",
    "your median leaves out the diagonal and is the lower of the two middle values",
    lambda x, n: _sorted_off_diagonal(x, n)[..., (max(n * n - n, 1) - 1) // 2],
)
# each pair once: an even count of pairs doubles to one whose middle values are the same pair
_statistic(
    "lower median of the pairs",
    "your median is over the N(N - 1)/2 pairs and is the lower of the two middle values",
    lambda x, n: _sorted_off_diagonal(x, n)[..., ::2][..., (max(n * (n - 1) // 2, 1) - 1) // 2],
)
_statistic(
    "mean for median",
    "your bandwidth takes the mean of the distances, not their median",
    lambda x, n: np.mean(x, axis=-1),
)
_statistic(
    "mean off the diagonal",
    "your bandwidth takes the mean distance of different particles, not the median of all",
    lambda x, n: np.mean(_sorted_off_diagonal(x, n), axis=-1),
)
_statistic(
    "median of distances squared",
    "your bandwidth squares the median distance: it should take the median squared distance",
    lambda x, n: np.median(np.sqrt(x), axis=-1) ** 2,
)
_statistic(
    "median of distances off the diagonal squared",
    "your bandwidth squares the median distance of different particles (blackjax's "
    "convention), and should take the median squared distance of all pairs",
    lambda x, n: np.median(np.sqrt(_sorted_off_diagonal(x, n)), axis=-1) ** 2,
)
_statistic(
    "mean distance squared",
    "your bandwidth squares the mean distance, and should take the median squared distance",
    lambda x, n: np.mean(np.sqrt(x), axis=-1) ** 2,
)
_statistic(
    "median distance",
    "your bandwidth takes the median distance, not its square",
    lambda x, n: np.median(np.sqrt(x), axis=-1),
)
_statistic(
    "largest distance",
    "your bandwidth takes the largest distance, not the median",
    lambda x, n: np.max(x, axis=-1),
)


@alternative(
    "one median for the batch",
    "bandwidth_squared",
    "your states share one bandwidth: the median runs over the whole batch",
)
def _(b: Any, original: Any, a: Any) -> Any:
    median = np.median(all_distances(b, a))
    shared = floored(b, median / (2 * math.log(a.shape[-2] + 1)))
    return np.full(a.shape[:-2], shared)


def _scaled(name: str, says: str, factor: Any) -> None:
    """The median times another factor of N and d, with the floor after that."""

    alternative(name, "_factor", says)(lambda b, original, n, d: factor(n, d))


_scaled(
    "log N",
    "your bandwidth divides by log N, not by log(N + 1)",
    lambda n, d: 1 / (2 * math.log(max(n, 2))),
)
_scaled(
    "bandwidth without the two",
    "your sigma^2 is median / log(N + 1), without the 2",
    lambda n, d: 1 / math.log(n + 1),
)
_scaled(
    "kernel and its gradient without the two",
    "your kernel is exp(-d^2 / sigma^2), without the 2 of 2 sigma^2",
    lambda n, d: 1 / (4 * math.log(n + 1)),
)
_scaled(
    "bandwidth without the logarithm",
    "your sigma^2 is half the median: it lacks the log(N + 1)",
    lambda n, d: 1 / 2,
)
_scaled(
    "bandwidth is the median",
    "your sigma^2 is the median, not divided by 2 log(N + 1)",
    lambda n, d: 1.0,
)
_scaled(
    "logarithm to the base 2",
    "your bandwidth takes the logarithm to the base 2",
    lambda n, d: 1 / (2 * math.log2(n + 1)),
)
_scaled(
    "logarithm to the base 10",
    "your bandwidth takes the logarithm to the base 10",
    lambda n, d: 1 / (2 * math.log10(n + 1)),
)
_scaled(
    "log N plus one",
    "your bandwidth divides by log(N) + 1, not by log(N + 1)",
    lambda n, d: 1 / (2 * (math.log(n) + 1)),
)


@alternative(
    "bandwidth is sigma",
    "bandwidth_squared",
    "your kernel and its gradient use sigma where sigma^2 belongs",
)
def _(b: Any, original: Any, a: Any) -> Any:
    return original(a) ** 0.5


@alternative(
    "bandwidth squared twice",
    "bandwidth_squared",
    "your kernel and its gradient use sigma^4 where sigma^2 belongs",
)
def _(b: Any, original: Any, a: Any) -> Any:
    return original(a) ** 2


@alternative("bandwidth one", "bandwidth_squared", "your sigma is 1 whatever the particles are")
def _(b: Any, original: Any, a: Any) -> Any:
    return np.ones(a.shape[:-2])


for _small in (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-16, 1e-24):

    @alternative(
        f"floor of {_small:g}",
        "SIGMA_SQUARED_MIN",
        f"your sigma^2 has a floor of {_small:g}, not of 1e-12",
    )
    def _(b: Any, original: Any, small: float = _small) -> Any:
        return small


for _small in (1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10):

    @alternative(
        f"{_small:g} added to the bandwidth", "bandwidth_squared", f"you add {_small:g} to sigma^2"
    )
    def _(b: Any, original: Any, a: Any, small: float = _small) -> Any:
        return original(a) + small

    # the kernel's own denominator, and with it that of its gradient
    @alternative(
        f"{_small:g} added to 2 sigma^2",
        "bandwidth_squared",
        f"your kernel divides by {_small:g} + 2 sigma^2",
    )
    def _(b: Any, original: Any, a: Any, small: float = _small) -> Any:
        return original(a) + small / 2

    @alternative(
        f"{_small:g} added in the kernel",
        "rbf_kernel",
        f"your kernel divides by {_small:g} + 2 sigma^2",
    )
    def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any, small: float = _small) -> Any:
        return original(x, y, sigma_squared + small / 2)


# --- kernel --------------------------------------------------------------------------------------


@alternative("distances not squared", "squared_distances", "your distances are not squared")
def _(b: Any, original: Any, x: Any, y: Any) -> Any:
    return np.sqrt(original(x, y))


@alternative(
    "distances averaged over dimensions",
    "squared_distances",
    "your squared distance is the mean over the dimensions, not their sum",
)
def _(b: Any, original: Any, x: Any, y: Any) -> Any:
    return original(x, y) / x.shape[-1]


@alternative(
    "city-block distances", "squared_distances", "your distance is the sum of absolute differences"
)
def _(b: Any, original: Any, x: Any, y: Any) -> Any:
    return np.sum(np.abs(x[..., :, None, :] - y[..., None, :, :]), axis=-1)


@alternative(
    "inverse multiquadric",
    "rbf_kernel",
    "your kernel is the inverse multiquadric (1 + d^2 / (2 sigma^2))^(-1/2)",
)
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    return (1 + b.squared_distances(x, y) / (2 * sigma_squared[..., None, None])) ** -0.5


@alternative(
    "exponent's sign",
    "rbf_kernel",
    "your kernel grows with the distance: the exponent lacks its minus",
)
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    with np.errstate(all="ignore"):
        return 1 / original(x, y, sigma_squared)


@alternative("kernel rows normalised", "rbf_kernel", "your kernel's rows are made to sum to one")
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    k = original(x, y, sigma_squared)
    return k / np.sum(k, axis=-1, keepdims=True)


@alternative(
    "bandwidth for its square",
    "rbf_kernel",
    "your kernel divides by sigma^4, as if it were given sigma",
)
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    return original(x, y, sigma_squared**2)


@alternative(
    "kernel without the diagonal", "rbf_kernel", "your sum over j leaves out the particle itself"
)
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    k = original(x, y, sigma_squared)
    return k * (1 - np.eye(*k.shape[-2:])) if x is y else k


# --- repulsion -----------------------------------------------------------------------------------


def _repulsion(name: str, says: str, change: Any) -> None:
    """The repulsion, changed with its value r, N and sigma^2 [*, 1, 1] at hand."""
    alternative(name, "repulsion", says)(
        lambda b, original, a, sigma_squared: change(
            original(a, sigma_squared), a.shape[-2], sigma_squared[..., None, None]
        )
    )


_repulsion("no repulsion", "your repulsion is missing", lambda r, n, s: 0 * r)
_repulsion(
    "repulsion doubled",
    "your repulsion is twice as large (both arguments of the kernel differentiated, or a 2 "
    "too many)",
    lambda r, n, s: 2 * r,
)
_repulsion(
    "repulsion halved",
    "your repulsion is half as large (the 2 of the square is lost)",
    lambda r, n, s: r / 2,
)
_repulsion("repulsion without 1/N", "your repulsion lacks the 1/N", lambda r, n, s: n * r)
_repulsion(
    "repulsion by N - 1", "your repulsion divides by N - 1", lambda r, n, s: r * n / max(n - 1, 1)
)
_repulsion(
    "repulsion without 1/sigma^2", "your repulsion lacks the 1 / sigma^2", lambda r, n, s: r * s
)
_repulsion(
    "repulsion over sigma",
    "your repulsion divides by sigma, not sigma^2",
    lambda r, n, s: r * np.sqrt(s),
)
_repulsion(
    "repulsion over 2 sigma^2, doubled sigma",
    "your repulsion divides by sigma^4",
    lambda r, n, s: r / s,
)


@alternative(
    "repulsion without the kernel", "repulsion", "your repulsion is not weighted by the kernel"
)
def _(b: Any, original: Any, a: Any, sigma_squared: Any) -> Any:
    return (a - np.mean(a, axis=-2, keepdims=True)) / sigma_squared[..., None, None]


def _pair(a: Any, distances: Any, place: int) -> tuple[Any, Any, Any]:
    """The pair (p, q) whose distance has a place in their order: where p and q are, a_p - a_q."""
    n = a.shape[-2]
    order = np.argsort(distances.reshape(*a.shape[:-2], n * n), axis=-1, kind="stable")
    p, q = np.divmod(order[..., place], n)
    at_p, at_q = ((np.arange(n) == i[..., None])[..., None] for i in (p, q))
    away = np.sum(a * at_p, axis=-2) - np.sum(a * at_q, axis=-2)
    return at_p, at_q, away[..., None, :]


@alternative(
    "both arguments and the bandwidth differentiated",
    "repulsion",
    "your repulsion differentiates both arguments of the kernel, and the bandwidth too",
)
def _(b: Any, original: Any, a: Any, sigma_squared: Any) -> Any:
    n = a.shape[-2]
    distances = b.squared_distances(a, a)
    k = np.exp(-distances / (2 * sigma_squared[..., None, None]))
    weight = np.sum(k * distances, axis=(-2, -1)) / (2 * sigma_squared**2)
    slope = np.zeros_like(a)
    for middle in ((n * n - 1) // 2, n * n // 2):  # the pair's both ends move its distance
        at_p, at_q, away = _pair(a, distances, middle)
        slope = slope + (at_p * 1.0 - at_q * 1.0) * away / (2 * math.log(n + 1))
    free = (sigma_squared > 1e-12)[..., None, None]
    return 2 * original(a, sigma_squared) - np.where(free, weight[..., None, None] * slope / n, 0.0)


# --- phi -----------------------------------------------------------------------------------------


def _attraction(b: Any, original: Any, a: Any, g: Any, temperature: Any, rest: Any) -> Any:
    """phi's two terms apart: k g / alpha and the repulsion."""
    zero = original(a, np.zeros_like(g), temperature, *rest)
    return original(a, g, temperature, *rest) - zero, zero


def _phi(name: str, says: str, change: Any) -> None:
    """phi from its parts: change(attraction, repulsion, n, g, temperature or 1)."""

    def replacement(
        b: Any, original: Any, a: Any, g: Any, temperature: Any = None, *rest: Any
    ) -> Any:
        attraction, repulsion = _attraction(b, original, a, g, temperature, rest)
        scale = 1.0 if temperature is None else temperature
        return change(attraction, repulsion, a.shape[-2], g, scale)

    alternative(name, "phi", says)(replacement)


_phi(
    "phi's sign",
    "your phi has the wrong sign: it descends the value and attracts",
    lambda t, r, n, g, alpha: -(t + r),
)
_phi(
    "score's sign",
    "your score's term has the wrong sign: the particles descend the value",
    lambda t, r, n, g, alpha: r - t,
)
_phi(
    "attraction without 1/N", "your score's term lacks the 1/N", lambda t, r, n, g, alpha: n * t + r
)
_phi(
    "attraction by N - 1",
    "your score's term divides by N - 1",
    lambda t, r, n, g, alpha: t * n / max(n - 1, 1) + r,
)
_phi(
    "temperature on the repulsion",
    "your phi is alpha times the specification's: alpha multiplies the repulsion where it should "
    "divide the score",
    lambda t, r, n, g, alpha: alpha * (t + r),
)
_phi(
    "temperature divides both",
    "your temperature divides the repulsion too",
    lambda t, r, n, g, alpha: t + r / alpha,
)
_phi(
    "temperature on both sides",
    "your temperature divides the score and multiplies the repulsion as well",
    lambda t, r, n, g, alpha: t + r * alpha,
)
_phi(
    "temperature squared",
    "your phi divides by the square of the temperature",
    lambda t, r, n, g, alpha: t / alpha + r,
)
_phi(
    "score without the kernel",
    "your score's term lacks the kernel: it is g / alpha",
    lambda t, r, n, g, alpha: g / alpha + r,
)
_phi(
    "score without the kernel, by N",
    "your score's term lacks the kernel: it is g / (N alpha)",
    lambda t, r, n, g, alpha: g / (n * alpha) + r,
)
_phi(
    "score averaged",
    "your score's term lacks the kernel: it averages the scores",
    lambda t, r, n, g, alpha: np.mean(g, axis=-2, keepdims=True) / alpha + r,
)
_phi("repulsion dropped", "your phi lacks the repulsion", lambda t, r, n, g, alpha: t)
_phi("attraction dropped", "your phi lacks the score's term", lambda t, r, n, g, alpha: r)


@alternative("temperature None repels", "phi", "your phi repels even with temperature None")
def _(b: Any, original: Any, a: Any, g: Any, temperature: Any = None, *rest: Any) -> Any:
    return original(a, g, 1.0 if temperature is None else temperature, *rest)


@alternative("bandwidth ignored", "phi", "your phi ignores the bandwidth it is given")
def _(
    b: Any,
    original: Any,
    a: Any,
    g: Any,
    temperature: Any = None,
    bandwidth: Any = None,
    *rest: Any,
) -> Any:
    return original(a, g, temperature, None, *rest)


@alternative("bandwidth as sigma squared", "phi", "your phi takes the bandwidth for sigma^2")
def _(
    b: Any,
    original: Any,
    a: Any,
    g: Any,
    temperature: Any = None,
    bandwidth: Any = None,
    *rest: Any,
) -> Any:
    return original(a, g, temperature, None if bandwidth is None else bandwidth**0.5, *rest)


@alternative(
    "bandwidth for each dimension",
    "phi",
    "your bandwidth is each dimension's own, h = median / log(N + 1), the lower median of "
    "the N(N - 1)/2 pairs (pyro's convention)",
)
def _(b: Any, original: Any, a: Any, g: Any, temperature: Any = None, *rest: Any) -> Any:
    n = a.shape[-2]
    if n == 1:
        return original(a, g, temperature, *rest)
    away = a[..., :, None, :] - a[..., None, :, :]
    i, j = np.triu_indices(n, 1)
    pairs = np.sort(away[..., i, j, :] ** 2, axis=-2)
    h = pairs[..., (pairs.shape[-2] - 1) // 2, :] / math.log(n + 1)
    h = h[..., None, None, :]
    k = np.exp(-np.sum(away**2 / h, axis=-1))
    if temperature is None:
        return k @ g / n
    return k @ g / (temperature * n) + np.sum(k[..., None] * 2 * away / h, axis=-2) / n


# --- steps and transport -------------------------------------------------------------------------


@alternative("descent", "flow_step", "your step goes down the velocity, not up")
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    return original(a, -velocity, state, budget)


def _budget(name: str, says: str, **changes: Any) -> None:
    """A step that ignores a setting of its budget."""

    @alternative(name, "flow_step", says)
    def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
        new = {k: (v(budget) if callable(v) else v) for k, v in changes.items()}
        return original(a, velocity, state, dataclasses.replace(budget, **new))


_budget("step size ignored", "your step ignores the step size", step_size=1.0)
_budget(
    "step size squared",
    "your step multiplies by the step size twice",
    step_size=lambda budget: budget.step_size**2,
)
_budget("velocity not clipped", "you do not clip the velocity", clip_norm=None)
_budget("box ignored", "you do not project on the box", low=None, high=None)
_budget(
    "box from 0 to 1",
    "you clip to [0, 1], not to the box [-1, 1]",
    low=lambda budget: None if budget.low is None else 0.0,
)
_budget("always the unit box", "you clip to [-1, 1] whatever the box is", low=-1.0, high=1.0)


@alternative("tanh for the projection", "project", "you squash with tanh and should clip")
def _(b: Any, original: Any, a: Any, low: Any = -1.0, high: Any = 1.0) -> Any:
    return a if low is None and high is None else np.tanh(a)


@alternative("clipped below only", "project", "you clip from below only")
def _(b: Any, original: Any, a: Any, low: Any = -1.0, high: Any = 1.0) -> Any:
    return original(a, low, None)


@alternative("clipped above only", "project", "you clip from above only")
def _(b: Any, original: Any, a: Any, low: Any = -1.0, high: Any = 1.0) -> Any:
    return original(a, None, high)


@alternative("plain for Adam", "flow_step", "your step is plain ascent where Adam is asked for")
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    return original(a, velocity, state, dataclasses.replace(budget, optimiser="plain"))[0], state


@alternative("Adam for plain", "flow_step", "your step is Adam's where plain ascent is asked for")
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    fresh = b.adam_init(a) if state is None else state
    moved, new = original(a, velocity, fresh, dataclasses.replace(budget, optimiser="adam"))
    return moved, None if state is None else new


@alternative("moments forgotten", "flow_step", "your Adam starts with fresh moments at every step")
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    return original(a, velocity, None if state is None else b.adam_init(a), budget)


@alternative(
    "moments of the velocity",
    "flow_step",
    "your Adam's first moment is the velocity's, where the specification's is of its negative, "
    "the gradient that Adam descends (--arg m=\"-state['m']\", if that is meant)",
)
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    if state is None:
        return original(a, velocity, state, budget)
    moved, new = original(a, velocity, {**state, "m": -state["m"]}, budget)
    return moved, {**new, "m": -new["m"]}


@alternative(
    "clipped after the step", "flow_step", "you clip the movement, and should clip the velocity"
)
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    if budget.clip_norm is None:
        return original(a, velocity, state, budget)
    free = dataclasses.replace(budget, clip_norm=None, low=None, high=None)
    moved, state = original(a, velocity, state, free)
    step = b.clip_velocity(moved - a, budget.clip_norm, budget.clip_scope)
    return b.project(a + step, budget.low, budget.high), state


@alternative(
    "clipped after Adam",
    "flow_step",
    "you clip what Adam makes of the velocity, and should clip the velocity",
)
def _(b: Any, original: Any, a: Any, velocity: Any, state: Any, budget: Any) -> Any:
    if budget.clip_norm is None:
        return original(a, velocity, state, budget)
    free = dataclasses.replace(budget, clip_norm=None, low=None, high=None, step_size=1.0)
    moved, state = original(a, velocity, state, free)
    step = b.clip_velocity(moved - a, budget.clip_norm, budget.clip_scope)
    return b.project(a + budget.step_size * step, budget.low, budget.high), state


@alternative(
    "norm per particle",
    "clip_velocity",
    "your clip takes the norm of each particle, not of all particles of a state",
)
def _(b: Any, original: Any, velocity: Any, max_norm: float, scope: str = "state") -> Any:
    norm = np.sqrt(np.sum(velocity**2, axis=-1, keepdims=True))
    return velocity * (max_norm / np.maximum(norm, max_norm))


@alternative(
    "always scaled to the norm",
    "clip_velocity",
    "you scale every velocity to the norm, shorter ones too",
)
def _(b: Any, original: Any, velocity: Any, max_norm: float, scope: str = "state") -> Any:
    axes = (-2, -1) if scope == "state" else None
    norm = np.sqrt(np.sum(velocity**2, axis=axes, keepdims=True))
    return velocity * (max_norm / np.maximum(norm, 1e-300))


@alternative("clipped by entry", "clip_velocity", "you clip each entry, not the norm")
def _(b: Any, original: Any, velocity: Any, max_norm: float, scope: str = "state") -> Any:
    return np.clip(velocity, -max_norm, max_norm)


@alternative(
    "velocity clipped by state",
    "clip_velocity",
    "your clip takes the norm of each state where the batch's is asked for",
)
def _(b: Any, original: Any, velocity: Any, max_norm: float, scope: str = "state") -> Any:
    return original(velocity, max_norm, "state")


@alternative("one step fewer", "follow", "you take one step too few")
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    return original(velocity, a, dataclasses.replace(budget, steps=max(budget.steps - 1, 0)), *args)


@alternative("one step only", "follow", "you take one step whatever the budget is")
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    return original(velocity, a, dataclasses.replace(budget, steps=1), *args)


@alternative(
    "projected at the end only",
    "follow",
    "you project on the box after the last step only, not after each",
)
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    free = dataclasses.replace(budget, low=None, high=None)
    return b.project(original(velocity, a, free, *args), budget.low, budget.high)


@alternative(
    "projected before the first step",
    "follow",
    "you project the particles before the first step too",
)
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    return original(velocity, b.project(a, budget.low, budget.high), budget, *args)


@alternative("no transport", "follow", "your particles are not moved at all")
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    return original(lambda a: 0 * a, a, dataclasses.replace(budget, low=None, high=None), *args)


@alternative(
    "AdaGrad of the original SVGD code",
    "follow",
    "your steps are those of the original SVGD code: AdaGrad with decay 0.9 and 1e-6 "
    "beside the root",
)
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, trajectory: bool = False) -> Any:
    squares, path = np.zeros_like(a), [a]
    for step in range(budget.steps):
        v = velocity(a)
        squares = v**2 if step == 0 else 0.9 * squares + 0.1 * v**2
        moved = a + budget.step_size * v / (1e-6 + np.sqrt(squares))
        a = b.project(moved, budget.low, budget.high)
        path.append(a)
    return np.stack(path) if trajectory else a


def _momentum(name: str, says: str, decay: float, share: float) -> None:
    """Steps along a decaying sum of the velocities, the newest with a share."""

    @alternative(name, "follow", says)
    def _(
        b: Any, original: Any, velocity: Any, a: Any, budget: Any, trajectory: bool = False
    ) -> Any:
        total, path = np.zeros_like(a), [a]
        for _step in range(budget.steps):
            total = decay * total + share * velocity(a)
            a = b.project(a + budget.step_size * total, budget.low, budget.high)
            path.append(a)
        return np.stack(path) if trajectory else a


for _decay in (0.5, 0.9, 0.99):
    _momentum(
        f"momentum {_decay:g}",
        f"your steps have a momentum of {_decay:g} (heavy ball) where plain ascent is asked for",
        _decay,
        1.0,
    )
    _momentum(
        f"momentum {_decay:g}, averaged",
        f"your steps follow a running mean of the velocities (decay {_decay:g}) where plain ascent "
        "is asked for",
        _decay,
        1 - _decay,
    )


@alternative("score without phi", "phi", "your particles follow the score itself, not phi")
def _(b: Any, original: Any, a: Any, g: Any, *rest: Any) -> Any:
    return g


# --- networks ------------------------------------------------------------------------------------


@alternative(
    "LayerNorm epsilon 1e-5",
    "LAYER_NORM_EPSILON",
    "your LayerNorm's epsilon is 1e-5 (torch's default), not 1e-6",
)
def _(b: Any, original: Any) -> Any:
    return 1e-5


for _small in (1e-3, 1e-4, 1e-7, 1e-8, 1e-10, 1e-12, 0.0):

    @alternative(
        f"LayerNorm epsilon {_small:g}",
        "LAYER_NORM_EPSILON",
        f"your LayerNorm's epsilon is {_small:g}, not 1e-6",
    )
    def _(b: Any, original: Any, small: float = _small) -> Any:
        return small


@alternative(
    "LayerNorm's epsilon outside the root",
    "_normalise",
    "your LayerNorm adds its epsilon to the standard deviation",
)
def _(b: Any, original: Any, x: Any) -> Any:
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / (np.sqrt(np.mean(centred**2, axis=-1, keepdims=True)) + 1e-6)


@alternative(
    "root mean square for LayerNorm",
    "_normalise",
    "your LayerNorm does not subtract the mean (it is RMSNorm)",
)
def _(b: Any, original: Any, x: Any) -> Any:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)


@alternative(
    "LayerNorm without scale and offset",
    "layer_norm",
    "your LayerNorm leaves out its scale and offset",
)
def _(b: Any, original: Any, x: Any, scale: Any, offset: Any) -> Any:
    return original(x, np.ones_like(scale), np.zeros_like(offset))


@alternative("LayerNorm left out", "layer_norm", "your network leaves out its LayerNorm")
def _(b: Any, original: Any, x: Any, scale: Any, offset: Any) -> Any:
    return x


def _held(name: str, says: str, mean: float, spread: float) -> None:
    """LayerNorm's derivative with its mean, or its spread, taken for constants."""

    def replacement(b: Any, original: Any, x: Any, scale: Any, cotangent: Any) -> Any:
        _, dscale, doffset = original(x, scale, cotangent)
        centred = x - np.mean(x, axis=-1, keepdims=True)
        std = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
        c, unit = scale * cotangent, centred / std
        through = mean * np.mean(c, axis=-1, keepdims=True)
        through = through + spread * unit * np.mean(c * unit, axis=-1, keepdims=True)
        return (c - through) / std, dscale, doffset

    alternative(name, "layer_norm_vjp", says)(replacement)


_held(
    "LayerNorm's spread held",
    "your derivative takes LayerNorm's standard deviation for a constant",
    *(1.0, 0.0),
)
_held("LayerNorm's mean held", "your derivative takes LayerNorm's mean for a constant", 0.0, 1.0)
_held(
    "LayerNorm's statistics held",
    "your derivative takes LayerNorm's mean and standard deviation for constants",
    *(0.0, 0.0),
)


@alternative("exact GELU", "activate", "your GELU is the exact one where tanh's form is asked for")
def _(b: Any, original: Any, x: Any, activation: str) -> Any:
    return original(x, "gelu" if activation == "gelu_tanh" else activation)


@alternative("quick GELU", "activate", "your GELU is x sigmoid(1.702 x)")
def _(b: Any, original: Any, x: Any, activation: str) -> Any:
    if activation != "gelu":
        return original(x, activation)
    return original(1.702 * x, "swish") / 1.702


@alternative("leaky ReLU", "activate", "your ReLU leaks: it is 0.01 x below 0")
def _(b: Any, original: Any, x: Any, activation: str) -> Any:
    return np.where(x > 0, x, 0.01 * x) if activation == "relu" else original(x, activation)


@alternative("activation ignored", "activate", "your network uses ReLU whatever is asked for")
def _(b: Any, original: Any, x: Any, activation: str) -> Any:
    return original(x, "relu")


@alternative("activation on the output", "_network", "your network activates its last layer too")
def _(b: Any, original: Any, params: Any, x: Any, activation: str = "relu") -> Any:
    return b.activate(original(params, x, activation), activation)


# --- reference -----------------------------------------------------------------------------------


def _flow_matching(name: str, says: str, path: Any, reduce: Any = None) -> None:
    """Flow matching along another path: path(x0, a, t) -> point, velocity, time.

    `reduce` takes the error to the loss and to the loss's derivative by the error.
    """

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        s: Any,
        a: Any,
        x0: Any,
        t: Any,
        activation: str = "relu",
        weight: Any = None,
    ) -> Any:
        x, target, time = path(x0, a, t)
        inputs = np.concatenate([s, x, time], axis=-1)
        error = b.mlp(params, inputs, activation) - target
        rows = np.ones(len(a)) if weight is None else weight
        loss, slope = (_mean_square if reduce is None else reduce)(error, rows[:, None])
        return loss, b.mlp_vjp(params, inputs, slope, activation)[0]

    alternative(name, "flow_matching_gradient", says)(replacement)


def _mean_square(error: Any, w: Any) -> Any:
    return np.mean(w * error**2), 2 * w * error / error.size


def _mean_norm(error: Any, w: Any) -> Any:
    norm = np.sqrt(np.sum(error**2, axis=-1, keepdims=True))
    return np.mean(w * norm), w * error / np.where(norm > 0, norm, 1.0) / len(error)


def _straight(x0: Any, a: Any, t: Any) -> Any:
    return (1 - t) * x0 + t * a, a - x0, t


_flow_matching(
    "target x0 - a",
    "your flow's target is x0 - a, the path being right",
    lambda x0, a, t: ((1 - t) * x0 + t * a, x0 - a, t),
)
_flow_matching(
    "path's ends swapped",
    "your path's ends are swapped: x_t is t x0 + (1 - t) a",
    lambda x0, a, t: (t * x0 + (1 - t) * a, a - x0, t),
)
_flow_matching(
    "path and target reversed",
    "your flow runs from the data to the noise: x_t is t x0 + (1 - t) a, the target x0 - a",
    lambda x0, a, t: (t * x0 + (1 - t) * a, x0 - a, t),
)
_flow_matching(
    "target is the action",
    "your flow's target is a, not a - x0",
    lambda x0, a, t: ((1 - t) * x0 + t * a, a, t),
)
_flow_matching(
    "target is the noise",
    "your flow's target is the noise x0, not a - x0",
    lambda x0, a, t: ((1 - t) * x0 + t * a, x0, t),
)
_flow_matching(
    "time reversed in the loss",
    "your network is given 1 - t, the path being right",
    lambda x0, a, t: ((1 - t) * x0 + t * a, a - x0, 1 - t),
)
for _sigma in (1e-5, 1e-4, 1e-3, 1e-2, 0.1):
    _flow_matching(
        f"path with sigma_min {_sigma:g}",
        f"your path is Lipman's with sigma_min = {_sigma:g}: "
        "x_t = (1 - (1 - sigma_min) t) x0 + t a",
        lambda x0, a, t, m=_sigma: ((1 - (1 - m) * t) * x0 + t * a, a - (1 - m) * x0, t),
    )
_flow_matching(
    "variance-preserving path",
    "your path is the trigonometric one: cos(pi t / 2) x0 + sin(pi t / 2) a",
    lambda x0, a, t: (
        np.cos(np.pi * t / 2) * x0 + np.sin(np.pi * t / 2) * a,
        np.pi / 2 * (np.cos(np.pi * t / 2) * a - np.sin(np.pi * t / 2) * x0),
        t,
    ),
)
_flow_matching(
    "loss summed over dimensions",
    "your loss sums over the dimensions and means over the batch only",
    _straight,
    lambda e, w: (np.mean(np.sum(w * e**2, axis=-1)), 2 * w * e / len(e)),
)
_flow_matching(
    "loss summed",
    "your loss sums over batch and dimensions, without a mean",
    _straight,
    lambda e, w: (np.sum(w * e**2), 2 * w * e),
)
_flow_matching(
    "absolute error",
    "your loss is the absolute error, not the squared one",
    _straight,
    lambda e, w: (np.mean(w * np.abs(e)), w * np.sign(e) / e.size),
)
_flow_matching(
    "norm of the error",
    "your loss is the norm of the error, not its mean square",
    _straight,
    _mean_norm,
)


def _sampler(name: str, says: str, walk: Any) -> None:
    """Another walk from noise to action: walk(v, x0, K, clip) with v(x, t), see `_euler`."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        s: Any,
        x0: Any,
        sampling_steps: int = 10,
        activation: str = "relu",
    ) -> Any:
        def v(x: Any, t: float) -> Any:
            return b.flow_velocity(params, s, x, np.full((*x.shape[:-1], 1), t), activation)

        return walk(v, x0, sampling_steps, b.project)

    alternative(name, "flow_sample", says)(replacement)


def _euler(v: Any, x: Any, k: int, time: Any, size: Any = None, each: Any = None) -> Any:
    for i in range(k):
        x = x + v(x, time(i)) * (1 / k if size is None else size)
        x = x if each is None else each(x)
    return x


_sampler(
    "sampler without a clip",
    "your sampler does not clip to the box",
    lambda v, x, k, clip: _euler(v, x, k, lambda i: i / k),
)
_sampler(
    "sampler clips each step",
    "your sampler clips after each step, not at the end only",
    lambda v, x, k, clip: _euler(v, x, k, lambda i: i / k, None, clip),
)
_sampler(
    "times at the ends of the steps",
    "your sampler's times are (k + 1) / K, the ends of the steps, not k / K",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: (i + 1) / k)),
)
_sampler(
    "times in the middle of the steps",
    "your sampler's times are (k + 1/2) / K, not k / K",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: (i + 0.5) / k)),
)
_sampler(
    "times to K - 1",
    "your sampler's times are k / (K - 1): they end at 1",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: i / max(k - 1, 1))),
)
_sampler(
    "K - 1 steps",
    "your sampler takes K - 1 steps, the last one is missing",
    lambda v, x, k, clip: clip(_euler(v, x, k - 1, lambda i: i / k, 1 / k)),
)
_sampler(
    "K - 1 steps of linspace",
    "your sampler takes K - 1 steps of size 1 / (K - 1) (a grid of K points has K - 1 gaps)",
    lambda v, x, k, clip: clip(_euler(v, x, k - 1, lambda i: i / (k - 1))),
)
_sampler(
    "K + 1 steps",
    "your sampler takes K + 1 steps of size 1 / K",
    lambda v, x, k, clip: clip(_euler(v, x, k + 1, lambda i: i / k, 1 / k)),
)
_sampler(
    "steps of size one",
    "your sampler's steps are not divided by K",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: i / k, 1.0)),
)
_sampler(
    "time as a count",
    "your sampler's times are k, not k / K",
    lambda v, x, k, clip: clip(_euler(v, x, k, float)),
)
_sampler(
    "time stands still",
    "your sampler's time is always 0",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: 0.0)),
)
_sampler(
    "sampler subtracts",
    "your sampler subtracts the velocity",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: i / k, -1 / k)),
)
_sampler(
    "sampler runs from 1 to 0",
    "your sampler integrates backwards, from t = 1 to t = 0, and subtracts the velocity",
    lambda v, x, k, clip: clip(_euler(v, x, k, lambda i: 1 - i / k, -1 / k)),
)
_sampler(
    "tanh after the sampler",
    "your sampler squashes with tanh and should clip",
    lambda v, x, k, clip: np.tanh(_euler(v, x, k, lambda i: i / k)),
)


def _midpoint(v: Any, x: Any, k: int) -> Any:
    for i in range(k):
        x = x + v(x + v(x, i / k) / (2 * k), (i + 0.5) / k) / k
    return x


def _heun(v: Any, x: Any, k: int) -> Any:
    for i in range(k):
        first = v(x, i / k)
        x = x + (first + v(x + first / k, (i + 1) / k)) / (2 * k)
    return x


def _runge_kutta(v: Any, x: Any, k: int) -> Any:
    for i in range(k):
        first = v(x, i / k)
        second = v(x + first / (2 * k), (i + 0.5) / k)
        third = v(x + second / (2 * k), (i + 0.5) / k)
        last = v(x + third / k, (i + 1) / k)
        x = x + (first + 2 * second + 2 * third + last) / (6 * k)
    return x


_sampler(
    "Runge and Kutta's rule",
    "your sampler is Runge and Kutta's rule of order 4, not Euler's",
    lambda v, x, k, clip: clip(_runge_kutta(v, x, k)),
)
_sampler(
    "midpoint rule",
    "your sampler is the midpoint rule, not Euler's",
    lambda v, x, k, clip: clip(_midpoint(v, x, k)),
)
_sampler(
    "Heun's rule",
    "your sampler is Heun's rule, not Euler's",
    lambda v, x, k, clip: clip(_heun(v, x, k)),
)


@alternative("log-std has no lower bound", "LOG_STD_MIN", "you do not clip log_std from below")
def _(b: Any, original: Any) -> Any:
    return -math.inf


@alternative("log-std has no upper bound", "LOG_STD_MAX", "you do not clip log_std from above")
def _(b: Any, original: Any) -> Any:
    return math.inf


@alternative("log-std down to -20", "LOG_STD_MIN", "you clip log_std to -20 and up, not -5")
def _(b: Any, original: Any) -> Any:
    return -20.0


@alternative(
    "constant of the Gaussian left out",
    "gaussian_loss",
    "your likelihood leaves out the constant d log(2 pi) / 2",
)
def _(b: Any, original: Any, params: Any, s: Any, a: Any, *args: Any) -> Any:
    weight = args[2] if len(args) > 2 and args[2] is not None else 1.0
    return original(params, s, a, *args) - a.shape[-1] * math.log(2 * math.pi) / 2 * np.mean(weight)


@alternative(
    "likelihood averaged over dimensions",
    "gaussian_loss",
    "your likelihood averages over the dimensions, and should sum",
)
def _(b: Any, original: Any, params: Any, s: Any, a: Any, *args: Any) -> Any:
    return original(params, s, a, *args) / a.shape[-1]


@alternative(
    "likelihood for its negative",
    "gaussian_loss",
    "your loss is the log-likelihood: its sign is wrong",
)
def _(b: Any, original: Any, *args: Any) -> Any:
    return -original(*args)


@alternative(
    "squared error for the likelihood",
    "gaussian_loss",
    "your loss is the mean squared error, not the likelihood",
)
def _(
    b: Any,
    original: Any,
    params: Any,
    s: Any,
    a: Any,
    tanh: bool = False,
    activation: str = "relu",
    weight: Any = None,
) -> Any:
    rows = np.ones(len(a)) if weight is None else weight
    return np.mean(rows[:, None] * (b.mlp(params, s, activation) - a) ** 2)


@alternative(
    "Gaussian's sample not clipped", "gaussian_sample", "you do not clip the sample to the box"
)
def _(
    b: Any, original: Any, params: Any, s: Any, noise: Any, tanh: bool = False, *args: Any
) -> Any:
    u = original(params, s, noise, True, *args)
    with np.errstate(divide="ignore"):
        return u if tanh else np.arctanh(u)


@alternative("Gaussian's mean only", "gaussian_sample", "your sample is the mean, without noise")
def _(b: Any, original: Any, params: Any, s: Any, noise: Any, *args: Any) -> Any:
    return original(params, s, 0 * noise, *args)


# --- critic --------------------------------------------------------------------------------------


def _aggregate(name: str, says: str, how: Any) -> None:
    alternative(name, "aggregate", says)(lambda b, original, q, rule: how(original, q, rule))


_aggregate(
    "mean for min",
    "your ensemble takes the mean where min is asked for",
    lambda original, q, rule: original(q, "mean"),
)
_aggregate(
    "min for mean",
    "your ensemble takes the min where mean is asked for",
    lambda original, q, rule: original(q, "min"),
)
_aggregate(
    "max for min",
    "your ensemble takes the max where min is asked for",
    lambda original, q, rule: np.max(q, axis=0) if rule == "min" else original(q, rule),
)
_aggregate(
    "first critic only", "your ensemble takes its first critic only", lambda original, q, rule: q[0]
)
_aggregate(
    "ensemble summed",
    "your ensemble sums where mean is asked for",
    lambda original, q, rule: np.sum(q, axis=0) if rule == "mean" else original(q, rule),
)


def _target(name: str, says: str, value: Any) -> None:
    """Another target: value(original, q, r, mask, discount, how, particles)."""

    def replacement(
        b: Any,
        original: Any,
        q: Any,
        r: Any,
        mask: Any,
        discount: float,
        how: str = "min",
        particles: str = "mean",
    ) -> Any:
        return value(
            original, q, np.asarray(r, float), np.asarray(mask, float), discount, how, particles
        )

    alternative(name, "td_target", says)(replacement)


_target(
    "mask inverted",
    "your target's mask is inverted: it bootstraps where the task is done",
    lambda o, q, r, m, c, how, ps: o(q, r, 1 - m, c, how, ps),
)
_target(
    "mask on the reward",
    "your target's mask multiplies the reward too",
    lambda o, q, r, m, c, how, ps: o(q, r * m, m, c, how, ps),
)
_target(
    "discount on the reward",
    "your target's discount multiplies the reward too",
    lambda o, q, r, m, c, how, ps: o(q, r * c, m, c, how, ps),
)
_target(
    "reward left out",
    "your target leaves out the reward",
    lambda o, q, r, m, c, how, ps: o(q, r * 0, m, c, how, ps),
)
_target(
    "reward's sign",
    "your target subtracts the reward",
    lambda o, q, r, m, c, how, ps: o(q, -r, m, c, how, ps),
)
_target("no bootstrap", "your target is the reward alone", lambda o, q, r, m, c, how, ps: r)
_target(
    "mean for max over particles",
    "your target takes the mean where max is asked for",
    lambda o, q, r, m, c, how, ps: o(q, r, m, c, how, "mean"),
)
_target(
    "min over particles",
    "your target takes the worst particle",
    lambda o, q, r, m, c, how, ps: (
        r - o(-q if how == "mean" else -np.min(q, axis=0)[None], r * 0, m, c, "mean", "max")
    ),
)
_target(
    "first particle only",
    "your target takes the first particle only",
    lambda o, q, r, m, c, how, ps: o(q[..., :1], r, m, c, how, ps),
)
_target(
    "particles summed",
    "your target sums over the particles, and should take the mean",
    lambda o, q, r, m, c, how, ps: o(q * (q.shape[-1] if ps == "mean" else 1), r, m, c, how, ps),
)
_target(
    "particles before critics",
    "your target aggregates over the particles first, and the ensemble second",
    lambda o, q, r, m, c, how, ps: o(
        (np.mean if ps == "mean" else np.max)(q, axis=-1, keepdims=True), r, m, c, how, ps
    ),
)
_target(
    "value averaged over the batch",
    "your target mixes the states of the batch",
    lambda o, q, r, m, c, how, ps: r + c * m * np.mean(o(q, r * 0, m * 0 + 1, 1.0, how, ps)),
)


def _loss(name: str, says: str, value: Any) -> None:
    """Another critic loss: value(original, q, y, loss, expectile, or the sparse loss's alpha)."""

    def replacement(
        b: Any,
        original: Any,
        q: Any,
        y: Any,
        loss: str = "squared",
        expectile: float = 0.9,
        sparse_alpha: float | None = None,
    ) -> Any:
        def given(q: Any, y: Any, loss: str, expectile: float) -> Any:
            return original(q, y, loss, expectile, sparse_alpha)

        sparse = loss == "sparse" and sparse_alpha is not None
        return value(given, q, y, loss, sparse_alpha if sparse else expectile)

    alternative(name, "critic_loss", says)(replacement)


def _huber(x: Any) -> Any:
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


_loss(
    "loss summed over the batch",
    "your loss sums over the batch, and should take the mean",
    lambda o, q, y, loss, t: o(q, y, loss, t) * len(y),
)
_loss("loss halved", "your loss has a factor 1/2", lambda o, q, y, loss, t: o(q, y, loss, t) / 2)
_loss(
    "expectile ignored",
    "your loss ignores the expectile: it is symmetric",
    lambda o, q, y, loss, t: o(q, y, loss, 0.5) * (2.0 if loss == "expectile" else 1.0),
)
_loss(
    "expectile's one half",
    "your loss takes 0.5 for the expectile whatever it is given",
    lambda o, q, y, loss, t: o(q, y, loss, 0.5),
)
_loss(
    "quantile for expectile",
    "your expectile loss is the quantile's: absolute, not squared",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(np.where(y - q >= 0, t, 1 - t) * np.abs(y - q), 0))
        if loss == "expectile"
        else o(q, y, loss, t)
    ),
)
_loss(
    "difference's sign",
    "your loss takes Q - y for y - Q",
    lambda o, q, y, loss, t: o(-q, -y, loss, t),
)
_loss(
    "Huber loss",
    "your loss is Huber's (smooth L1), not the square",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(_huber(y - q), 0)) if loss == "squared" else o(q, y, loss, t)
    ),
)
_loss(
    "absolute error of the critic",
    "your loss is the absolute error, not the square",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(np.abs(y - q), 0)) if loss == "squared" else o(q, y, loss, t)
    ),
)
_loss(
    "loss by broadcasting",
    "your loss compares every value with every target of the batch",
    lambda o, q, y, loss, t: np.mean([o(q, np.full_like(y, one), loss, t) for one in y]),
)
_loss(
    "first critic's loss",
    "your loss counts the first critic only",
    lambda o, q, y, loss, t: o(q[:1], y, loss, t),
)
_loss(
    "loss of the mean critic",
    "your loss takes the mean critic, not the sum of the losses",
    lambda o, q, y, loss, t: o(np.mean(q, 0, keepdims=True), y, loss, t),
)
_loss(
    "sparse without its threshold",
    "your sparse loss lacks the [w > 0]",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(t * ((y - q) / (2 * t) + 1) ** 2 - (y - q), 0))
        if loss == "sparse"
        else o(q, y, loss, t)
    ),
)
_loss(
    "sparse without alpha_S",
    "your sparse loss lacks the factor alpha_S",
    lambda o, q, y, loss, t: (
        np.mean(np.sum(np.maximum((y - q) / (2 * t) + 1, 0) ** 2 - (y - q), 0))
        if loss == "sparse"
        else o(q, y, loss, t)
    ),
)


@alternative(
    "score of the first critic", "action_gradient", "your score follows the first critic only"
)
def _(b: Any, original: Any, params: Any, *args: Any) -> Any:
    return original(tree_map(lambda p: p[:1], params), *args)


@alternative(
    "score averaged over the batch",
    "action_gradient",
    "your score is the gradient of the mean over the batch (and the particles), and "
    "should be that of the sum",
)
def _(b: Any, original: Any, params: Any, s: Any, a: Any, *args: Any) -> Any:
    return original(params, s, a, *args) / max(math.prod(a.shape[:-1]), 1)


@alternative(
    "score's min and mean swapped",
    "action_gradient",
    "your score takes min for mean over the critics",
)
def _(b: Any, original: Any, params: Any, s: Any, a: Any, how: str = "mean", *args: Any) -> Any:
    return original(params, s, a, {"min": "mean", "mean": "min"}[how], *args)


@alternative("score normalised", "action_gradient", "your score is scaled to unit length")
def _(b: Any, original: Any, params: Any, *args: Any) -> Any:
    g = original(params, *args)
    return g / (np.sqrt(np.sum(g**2, axis=-1, keepdims=True)) + 1e-8)


# --- amortised gradient, selection, optimiser ----------------------------------------------------


@alternative(
    "rows normalised without an epsilon",
    "normalise_rows",
    "you normalise the gradients without the 1e-8",
)
def _(b: Any, original: Any, g: Any) -> Any:
    norm = np.sqrt(np.sum(g**2, axis=-1, keepdims=True))
    return g / np.where(norm > 0, norm, 1.0)


@alternative(
    "batch normalised", "normalise_rows", "you normalise the whole batch of gradients, not each row"
)
def _(b: Any, original: Any, g: Any) -> Any:
    return g / (np.sqrt(np.sum(g**2)) + 1e-8)


@alternative(
    "gradient regression summed",
    "gradient_field_loss",
    "your loss sums over the dimensions and means over the batch only",
)
def _(b: Any, original: Any, params: Any, s: Any, a: Any, *args: Any) -> Any:
    return original(params, s, a, *args) * a.shape[-1]


@alternative("last of ties", "select", "of tied best particles you pick the last")
def _(b: Any, original: Any, a: Any, q: Any, u: Any, rule: str = "best", *args: Any) -> Any:
    if rule != "best":
        return original(a, q, u, rule, *args)
    n = q.shape[-1]
    index = n - 1 - np.argmax(q[..., ::-1], axis=-1)
    return np.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :], index


@alternative("softmax temperature ignored", "select", "your softmax ignores the temperature")
def _(
    b: Any, original: Any, a: Any, q: Any, u: Any, rule: str = "best", temperature: float = 1.0
) -> Any:
    return original(a, q, u, rule, 1.0)


@alternative("always the best", "select", "you pick the best particle whatever the rule is")
def _(b: Any, original: Any, a: Any, q: Any, u: Any, *args: Any) -> Any:
    return original(a, q, u, "best")


@alternative("always the first", "select", "you pick the first particle whatever its value is")
def _(b: Any, original: Any, a: Any, q: Any, u: Any, *args: Any) -> Any:
    return a[..., 0, :], np.zeros(q.shape[:-1], int)


@alternative(
    "best of the batch",
    "select",
    "you pick the same particle for every state: the argmax runs over the batch",
)
def _(b: Any, original: Any, a: Any, q: Any, u: Any, rule: str = "best", *args: Any) -> Any:
    if rule != "best":
        return original(a, q, u, rule, *args)
    index = np.full(q.shape[:-1], int(np.argmax(np.mean(q, axis=tuple(range(q.ndim - 1))))))
    return np.take_along_axis(a, index[..., None, None], axis=-2)[..., 0, :], index


def _adam(name: str, says: str, change: Any) -> None:
    """Adam with changed arguments: change(gradient, state, rate) -> the same three, and options."""

    def replacement(
        b: Any,
        original: Any,
        params: Any,
        gradient: Any,
        state: Any,
        learning_rate: float,
        *args: Any,
    ) -> Any:
        return change(original, params, gradient, state, learning_rate)

    alternative(name, "adam_step", says)(replacement)


_adam(
    "Adam ascends",
    "your Adam ascends: it adds the step",
    lambda o, p, g, s, lr: _with_state(o(p, g, s, -lr), o(p, g, s, lr)),
)
for _small in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9, 1e-10, 1e-12, 1e-16, 0.0):
    _adam(
        f"Adam's epsilon {_small:g}",
        f"your Adam's epsilon is {_small:g}, not 1e-8",
        lambda o, p, g, s, lr, e=_small: o(p, g, s, lr, 0.9, 0.999, e),
    )
for _b2 in (0.99, 0.95, 0.9):
    _adam(
        f"Adam's b2 {_b2:g}",
        f"your Adam's second decay is {_b2:g}, not 0.999",
        lambda o, p, g, s, lr, b2=_b2: o(p, g, s, lr, 0.9, b2),
    )
_adam(
    "Adam without momentum",
    "your Adam has no first moment (b1 = 0): it is RMSprop",
    lambda o, p, g, s, lr: o(p, g, s, lr, 0.0),
)
_adam(
    "Adam's b1 0.5",
    "your Adam's first decay is 0.5, not 0.9",
    lambda o, p, g, s, lr: o(p, g, s, lr, 0.5),
)
_adam(
    "Adam's count late",
    "your Adam counts its steps from 0, so its correction is one step late",
    lambda o, p, g, s, lr: _count_late(o, p, g, s, lr),
)
_adam(
    "gradient descent for Adam",
    "your step is plain gradient descent, not Adam's",
    lambda o, p, g, s, lr: (tree_map(lambda p, g: p - lr * g, p, g), o(p, g, s, lr)[1]),
)


def _with_state(moved: Any, right: Any) -> Any:
    return moved[0], right[1]


def _count_late(original: Any, params: Any, gradient: Any, state: Any, rate: float) -> Any:
    late = {**state, "count": np.asarray(max(int(state["count"]) - 1, 0), np.int32)}
    return original(params, gradient, late, rate)[0], original(params, gradient, state, rate)[1]


@alternative(
    "torch's clip",
    "clip_by_global_norm",
    "you scale by c / (||g|| + 1e-6), as torch.nn.utils.clip_grad_norm_ does",
)
def _(b: Any, original: Any, gradient: Any, max_norm: float) -> Any:
    scale = np.minimum(max_norm / (_norm(gradient) + 1e-6), 1.0)
    return tree_map(lambda g: g * scale, gradient)


@alternative(
    "always scaled", "clip_by_global_norm", "you scale every gradient to the norm, shorter ones too"
)
def _(b: Any, original: Any, gradient: Any, max_norm: float) -> Any:
    norm = _norm(gradient)
    return tree_map(lambda g: g * (max_norm / norm) if norm > 0 else g, gradient)


@alternative(
    "gradient clipped by entry", "clip_by_global_norm", "you clip each entry, not the norm"
)
def _(b: Any, original: Any, gradient: Any, max_norm: float) -> Any:
    return tree_map(lambda g: np.clip(g, -max_norm, max_norm), gradient)


@alternative("gradient not clipped", "clip_by_global_norm", "you do not clip the gradient")
def _(b: Any, original: Any, gradient: Any, max_norm: float) -> Any:
    return gradient


def _norm(tree: Any) -> Any:
    squares: list[Any] = []
    tree_map(lambda g: squares.append(np.sum(g**2)), tree)
    return np.sqrt(sum(squares))


@alternative("norm squared", "global_norm", "your norm is squared: the root is missing")
def _(b: Any, original: Any, tree: Any) -> Any:
    return original(tree) ** 2


@alternative("norms added", "global_norm", "you add the norms of the arrays, not their squares")
def _(b: Any, original: Any, tree: Any) -> Any:
    norms: list[Any] = []
    tree_map(lambda g: norms.append(np.sqrt(np.sum(g**2))), tree)
    return sum(norms)


@alternative("target copied", "polyak", "your target network copies the online one outright")
def _(b: Any, original: Any, online: Any, target: Any, tau: float) -> Any:
    return original(online, target, 1.0)


@alternative("target frozen", "polyak", "your target network is never moved")
def _(b: Any, original: Any, online: Any, target: Any, tau: float) -> Any:
    return original(online, target, 0.0)


# --- the update ----------------------------------------------------------------------------------


def _settings(name: str, says: str, **changes: Any) -> None:
    """An update that acts as if a setting were another one."""

    @alternative(name, "update_from_noise", says)
    def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
        new = {k: (v(settings) if callable(v) else v) for k, v in changes.items()}
        return original(state, batch, noise, dataclasses.replace(settings, **new))


_settings(
    "target mixed after the step",
    "your target mixes in the critic from after its gradient step where 'before' is asked for",
    target_update="after",
)
_settings("gradients not clipped", "your update does not clip the gradients", clip_norm=None)
_settings(
    "training without transport",
    "your update does not move its particles: the target's actions are the reference's",
    budget=lambda settings: dataclasses.replace(settings.budget, steps=0),
)


@alternative(
    "transport along the target critic",
    "update_from_noise",
    "your particles climb the target critic, not the online one",
)
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    with b.replaced(
        "move", lambda move, state, *args: move({**state, "critic": state["target_critic"]}, *args)
    ):
        return original(state, batch, noise, settings)


@alternative("reference not trained", "optimise", "your update does not train the reference")
def _(b: Any, original: Any, state: Any, gradients: Any, settings: Any) -> Any:
    return original(state, {k: v for k, v in gradients.items() if k != "reference"}, settings)


@alternative("critic not trained", "optimise", "your update does not train the critic")
def _(b: Any, original: Any, state: Any, gradients: Any, settings: Any) -> Any:
    return original(state, {k: v for k, v in gradients.items() if k != "critic"}, settings)


@alternative(
    "particle variance with N - 1", "transport_metrics", "your metrics' variances divide by N - 1"
)
def _(b: Any, original: Any, y: Any, start: Any, moved: Any) -> Any:
    n = start.shape[-2]
    found = original(y, start, moved)
    for name in ("spread_start", "spread_moved"):
        found[name] = found[name] * n / max(n - 1, 1)
    return found


@alternative(
    "selection by the other aggregate",
    "act",
    "your acting aggregates the critics by min for mean, or mean for min",
)
def _(b: Any, original: Any, state: Any, s: Any, budget: Any, settings: Any, *args: Any) -> Any:
    other = {"min": "mean", "mean": "min"}[settings.target_ensemble]
    changed = dataclasses.replace(settings, target_ensemble=other)
    return original(state, s, budget, changed, *args)

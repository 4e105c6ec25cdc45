"""Named ways of getting the method wrong, and planting them in a backend.

Each is a mistake that somebody makes: a sign, a factor, a default of a framework, a step of the
algorithm in the wrong place. The tests plant every one and demand that a check catches it, so a
check that cannot fail is found out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..spec.kernel import SIGMA_SQUARED_MIN
from ..spec.optimiser import tree_map

# original method, backend, arguments -> result
Replacement = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A mistake.

    Attributes:
        name: short, for lists.
        says: what is wrong, to the author of the code.
        method: the backend's method that it replaces.
        replacement: called as ``replacement(backend, original, *args, **kwargs)``.
        equation: the check that must catch it.
    """

    name: str
    says: str
    method: str
    replacement: Replacement
    equation: str

    def plant(self, backend: Backend) -> Backend:
        """A backend like the given one, with this mistake in it."""
        kind: Any = type(backend)
        method, replacement = self.method, self.replacement

        def wrong(self: Any, *args: Any, **kwargs: Any) -> Any:
            original = getattr(super(faulty, self), method)
            return replacement(self, original, *args, **kwargs)

        faulty: Any = type(f"{kind.__name__}With{self.method.title()}", (kind,), {method: wrong})
        planted: Backend = faulty(
            device=backend.device, dtype=backend.dtype, matmul_precision=backend.matmul_precision
        )
        return planted


VARIANTS: dict[str, Variant] = {}


def variant(
    name: str, method: str, says: str, equation: str | None = None
) -> Callable[[Replacement], Replacement]:
    """Register a replacement of a method as a named mistake."""

    def register(replacement: Replacement) -> Replacement:
        VARIANTS[name] = Variant(name, says, method, replacement, equation or method)
        return replacement

    return register


def ordered(b: Any, x: Any) -> Any:
    """Sorted along the last axis, on any framework."""
    if b.name == "numpy":
        return np.sort(x, axis=-1)
    if b.name == "torch":
        return x.sort(-1).values
    import jax.numpy as jnp

    return jnp.sort(x, axis=-1)


def floored(b: Any, sigma_squared: Any) -> Any:
    """The floor of the bandwidth, as it should be."""
    return b.project(sigma_squared, SIGMA_SQUARED_MIN, None)


def all_distances(b: Any, a: Any) -> Any:
    """The N * N squared distances of each state, in a row."""
    return b.squared_distances(a, a).reshape(*a.shape[:-2], a.shape[-2] ** 2)


# --- kernel and flow -----------------------------------------------------------------------------


@variant("repulsion sign", "repulsion", "your repulsion attracts: its sign is wrong")
def _(b: Any, original: Any, a: Any, sigma_squared: Any) -> Any:
    return -original(a, sigma_squared)


@variant("lower median", "bandwidth_squared", "your median is the lower of the two middle values")
def _(b: Any, original: Any, a: Any) -> Any:
    n = a.shape[-2]
    lower = ordered(b, all_distances(b, a))[..., (n * n - 1) // 2]
    return floored(b, lower / (2 * math.log(n + 1)))


@variant("median off the diagonal", "bandwidth_squared", "your median leaves out the diagonal")
def _(b: Any, original: Any, a: Any) -> Any:
    n = a.shape[-2]
    if n == 1:
        return original(a)
    rest = ordered(b, all_distances(b, a))[..., n:]  # the n zeros of the diagonal come first
    m = n * n - n
    median = (rest[..., (m - 1) // 2] + rest[..., m // 2]) / 2
    return floored(b, median / (2 * math.log(n + 1)))


@variant("log N", "bandwidth_squared", "your bandwidth divides by log N, not by log(N + 1)")
def _(b: Any, original: Any, a: Any) -> Any:
    n = a.shape[-2]
    x = ordered(b, all_distances(b, a))
    median = (x[..., (n * n - 1) // 2] + x[..., n * n // 2]) / 2
    return floored(b, median / (2 * math.log(max(n, 2))))


@variant("bandwidth shared by the batch", "bandwidth_squared", "your states share one bandwidth")
def _(b: Any, original: Any, a: Any) -> Any:
    s = original(a)
    return s * 0 + s.mean()


@variant("bandwidth without a floor", "bandwidth_squared", "your bandwidth can be zero", "phi")
def _(b: Any, original: Any, a: Any) -> Any:
    n = a.shape[-2]
    x = ordered(b, all_distances(b, a))
    return (x[..., (n * n - 1) // 2] + x[..., n * n // 2]) / 2 / (2 * math.log(n + 1))


@variant(
    "bandwidth differentiated", "repulsion", "your repulsion differentiates the bandwidth", "phi"
)
def _(b: Any, original: Any, a: Any, sigma_squared: Any) -> Any:
    return b.repulsion_through_bandwidth(a)


@variant("sigma for sigma squared", "rbf_kernel", "your kernel divides by sigma, not sigma^2")
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    return original(x, y, sigma_squared**0.5)


@variant("kernel without the two", "rbf_kernel", "your kernel lacks the 2 of 2 sigma^2")
def _(b: Any, original: Any, x: Any, y: Any, sigma_squared: Any) -> Any:
    return original(x, y, sigma_squared / 2)


@variant("missing 1/N", "phi", "your phi lacks the 1/N")
def _(b: Any, original: Any, a: Any, *args: Any) -> Any:
    return original(a, *args) * a.shape[-2]


@variant("N - 1", "phi", "your phi divides by N - 1")
def _(b: Any, original: Any, a: Any, *args: Any) -> Any:
    n = a.shape[-2]
    return original(a, *args) * (n / max(n - 1, 1))


@variant("temperature ignored", "phi", "your phi ignores the temperature")
def _(b: Any, original: Any, a: Any, g: Any, temperature: Any = None, *args: Any) -> Any:
    return original(a, g, None if temperature is None else 1.0, *args)


@variant("temperature times", "phi", "your phi multiplies by the temperature")
def _(b: Any, original: Any, a: Any, g: Any, temperature: Any = None, *args: Any) -> Any:
    return original(a, g if temperature is None else g * temperature**2, temperature, *args)


@variant("own score", "phi", "your phi weights a particle's own score, not its neighbours'")
def _(b: Any, original: Any, a: Any, g: Any, *args: Any) -> Any:
    repelled = original(a, g * 0, *args)
    return repelled + (original(a, g * 0 + 1, *args) - repelled) * g


@variant("clip missing", "project", "you do not clip to the box", "flow_step")
def _(b: Any, original: Any, a: Any, *args: Any) -> Any:
    return a


def _phi_with(change: Callable[[Any, float], tuple[Any, float]]) -> Callable[..., Any]:
    """phi with another kernel and guard than it is given."""

    def planted(
        b: Any,
        original: Any,
        a: Any,
        g: Any,
        temperature: Any = None,
        bandwidth: Any = None,
        through: bool = False,
        kernel: Any = "rbf",
        kernel_guard: float = 0.0,
    ) -> Any:
        return original(a, g, temperature, bandwidth, through, *change(kernel, kernel_guard))

    return planted


variant("kernel guard left out", "phi", "your kernel has no guard")(
    _phi_with(lambda kernel, guard: (kernel, 0.0))
)
variant("kernel guard on sigma^2", "phi", "your guard is added to sigma^2, not to 2 sigma^2")(
    _phi_with(lambda kernel, guard: (kernel, 2 * guard))
)
variant("kernel kept", "phi", "your flow has a kernel where there is to be none")(
    _phi_with(lambda kernel, guard: ("rbf", guard))
)


@variant("velocity clipped over the batch", "clip_velocity", "your clip mixes the states")
def _(b: Any, original: Any, velocity: Any, max_norm: float, scope: str = "state") -> Any:
    return original(velocity, max_norm, "batch")


@variant("one step more", "follow", "you take one step too many", "transport")
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    return original(velocity, a, dataclasses.replace(budget, steps=budget.steps + 1), *args)


@variant("stale score", "follow", "you evaluate the score at the start only", "transport")
def _(b: Any, original: Any, velocity: Any, a: Any, budget: Any, *args: Any) -> Any:
    start = velocity(a)
    return original(lambda _: start, a, budget, *args)


# --- networks ------------------------------------------------------------------------------------


@variant(
    "LayerNorm after the activation", "_network", "LayerNorm belongs before the activation", "mlp"
)
def _(b: Any, original: Any, params: Any, x: Any, activation: str) -> Any:
    return original(_renamed(params, "norm", "post"), x, activation)


def normalised(
    x: Any, epsilon: float, scale: Any = 1.0, offset: Any = 0.0, *, lost: int = 0
) -> Any:
    """LayerNorm's normalisation, `lost` fewer in its variance's count; torch's backend has the
    scale and the offset done with it.
    """
    centred = x - x.mean(-1)[..., None]
    variance = (centred**2).sum(-1)[..., None] / (x.shape[-1] - lost)
    return scale * centred / (variance + epsilon) ** 0.5 + offset


@variant(
    "LayerNorm epsilon 1e-5",
    "_normalise",
    "your LayerNorm's epsilon is 1e-5, not 1e-6",
    "layer_norm",
)
def _(b: Any, original: Any, x: Any, *affine: Any) -> Any:
    return normalised(x, 1e-5, *affine)


@variant(
    "LayerNorm with N - 1", "_normalise", "your LayerNorm's variance divides by N - 1", "layer_norm"
)
def _(b: Any, original: Any, x: Any, *affine: Any) -> Any:
    return normalised(x, 1e-6, *affine, lost=1)


@variant(
    "LayerNorm after, put before", "_network", "this LayerNorm belongs after the activation", "mlp"
)
def _(b: Any, original: Any, params: Any, x: Any, activation: str) -> Any:
    return original(_renamed(params, "post", "norm"), x, activation)


def _renamed(params: Any, old: str, new: str) -> Any:
    """A network whose LayerNorm stands elsewhere."""
    return {
        name: {key.replace(f"{old}_", f"{new}_"): array for key, array in layer.items()}
        if isinstance(layer, dict)
        else layer
        for name, layer in params.items()
    }


@variant("exact GELU", "activate", "your GELU is exact, not the tanh approximation")
def _(b: Any, original: Any, x: Any, activation: str) -> Any:
    return original(x, "gelu" if activation == "gelu_tanh" else activation)


@variant("approximate GELU", "activate", "your GELU is the tanh approximation")
def _(b: Any, original: Any, x: Any, activation: str) -> Any:
    return original(x, "gelu_tanh" if activation == "gelu" else activation)


# --- reference -----------------------------------------------------------------------------------


@variant("time reversed", "flow_velocity", "your sampler runs time backwards", "flow_sample")
def _(b: Any, original: Any, params: Any, s: Any, x: Any, t: Any, *args: Any) -> Any:
    return original(params, s, x, 1 - t, *args)


@variant("flow towards the noise", "flow_matching_loss", "your flow's target is x0 - a")
def _(b: Any, original: Any, params: Any, s: Any, a: Any, x0: Any, t: Any, *args: Any) -> Any:
    return original(params, s, x0, a, 1 - t, *args)


@variant("Jacobian of tanh missing", "gaussian_loss", "your density lacks tanh's Jacobian")
def _(b: Any, original: Any, params: Any, s: Any, a: Any, tanh: bool = False, *args: Any) -> Any:
    if not tanh:
        return original(params, s, a, tanh, *args)
    edge = 1 - 2.0**-20
    inside = b.project(a, -edge, edge)
    return original(params, s, a, tanh, *args) - _log(b, 1 - inside**2).sum(-1).mean()


def _log(b: Any, x: Any) -> Any:
    if b.name == "numpy":
        return np.log(x)
    if b.name == "torch":
        return x.log()
    import jax.numpy as jnp

    return jnp.log(x)


@variant("log-std unbounded", "gaussian_sample", "you do not clip log_std to [-5, 2]")
def _(b: Any, original: Any, params: Any, s: Any, noise: Any, *args: Any) -> Any:
    excess = params["log_std"] - b.project(params["log_std"], -5.0, 2.0)
    return original(params, s, noise * (math.e**excess), *args)


# --- critic --------------------------------------------------------------------------------------


@variant("min and mean swapped", "aggregate", "your ensemble takes min for mean")
def _(b: Any, original: Any, q: Any, how: str) -> Any:
    return original(q, {"min": "mean", "mean": "min"}[how])


@variant("mask ignored", "td_target", "your target ignores the mask")
def _(b: Any, original: Any, q: Any, r: Any, mask: Any, *args: Any) -> Any:
    return original(q, r, mask * 0 + 1, *args)


@variant("discount ignored", "td_target", "your target ignores the discount")
def _(b: Any, original: Any, q: Any, r: Any, mask: Any, discount: float, *args: Any) -> Any:
    return original(q, r, mask, 1.0, *args)


@variant("max over particles", "td_target", "your target takes the best particle, not the mean")
def _(b: Any, original: Any, q: Any, r: Any, mask: Any, discount: float, *args: Any) -> Any:
    return original(q, r, mask, discount, args[0] if args else "min", "max")


@variant("reward broadcast", "td_target", "your target mixes the rewards of the batch")
def _(b: Any, original: Any, q: Any, r: Any, *args: Any) -> Any:
    return original(q, r * 0 + r.mean(), *args)


@variant("score summed over critics", "action_gradient", "your score sums the critics")
def _(b: Any, original: Any, params: Any, *args: Any) -> Any:
    return original(params, *args) * params["output"]["bias"].shape[0]


@variant("expectile reversed", "critic_loss", "your expectile weighs the wrong side")
def _(
    b: Any, original: Any, q: Any, y: Any, loss: str = "squared", expectile: float = 0.9, *args: Any
) -> Any:
    return original(q, y, loss, 1 - expectile, *args)


@variant("sparse loss by the expectile", "critic_loss", "your sparse loss takes the expectile")
def _(
    b: Any, original: Any, q: Any, y: Any, loss: str = "squared", expectile: float = 0.9, *args: Any
) -> Any:
    return original(q, y, loss, expectile, None)


@variant("loss averaged over critics", "critic_loss", "your loss averages the critics, not sums")
def _(b: Any, original: Any, q: Any, *args: Any) -> Any:
    return original(q, *args) / q.shape[0]


@variant("sparse without its linear term", "critic_loss", "your sparse loss lacks its - x")
def _(b: Any, original: Any, q: Any, y: Any, loss: str = "squared", *args: Any) -> Any:
    value = original(q, y, loss, *args)
    return value + (y - q).sum(0).mean() if loss == "sparse" else value


# --- amortised gradient, selection, optimiser ----------------------------------------------------


@variant("rows not normalised", "gradient_field_loss", "you do not normalise the gradients")
def _(
    b: Any, original: Any, params: Any, s: Any, a: Any, g: Any, normalise: bool = False, *args: Any
) -> Any:
    return original(params, s, a, g, False, *args)


# --- baselines -----------------------------------------------------------------------------------


@variant(
    "advantage over the best particle",
    "advantage_weights",
    "your advantage subtracts the value of the best particle, not their mean",
)
def _(b: Any, original: Any, q: Any, baseline: Any, how: str = "mean", *args: Any) -> Any:
    return original(q, ordered(b, baseline)[..., -1:], how, *args)


@variant(
    "weight temperature inverted",
    "advantage_weights",
    "your weights multiply the advantage by the temperature",
)
def _(
    b: Any,
    original: Any,
    q: Any,
    baseline: Any,
    how: str = "mean",
    temperature: float = 1.0,
    maximum: float = 20.0,
) -> Any:
    return original(q, baseline, how, 1 / temperature, maximum)


@variant("weights unbounded", "advantage_weights", "your weights have no maximum")
def _(
    b: Any,
    original: Any,
    q: Any,
    baseline: Any,
    how: str = "mean",
    temperature: float = 1.0,
    maximum: float = 20.0,
) -> Any:
    return original(q, baseline, how, temperature, 1e300 if b.dtype == "float64" else 1e30)


@variant("weights of sum one", "advantage_weights", "your weights are a softmax over the batch")
def _(b: Any, original: Any, *args: Any) -> Any:
    w = original(*args)
    return w / w.sum()


@variant("weights ignored", "flow_matching_loss", "you ignore the weights")
def _(
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
    return original(params, s, a, x0, t, activation)


@variant("Gaussian's weights ignored", "gaussian_loss", "you ignore the weights")
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
    return original(params, s, a, tanh, activation)


def _negated(critic: Any) -> Any:
    return {**critic, "output": {name: -array for name, array in critic["output"].items()}}


@variant(
    "policy lowers the value", "policy_loss", "your policy lowers the value: its sign is wrong"
)
def _(b: Any, original: Any, params: Any, critic: Any, *args: Any) -> Any:
    return original(params, _negated(critic), *args)


@variant("value not normalised", "policy_loss", "you do not divide by the mean of |Q|")
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
    *args: Any,
) -> Any:
    return original(params, critic, s, noise, target, distillation, False, *args)


@variant("FQL acting by its reference", "propose", "your next actions are the flow reference's")
def _(b: Any, original: Any, state: Any, s: Any, noise: Any, settings: Any) -> Any:
    return b.sample_reference(state["reference"], s, noise, settings)


# --- selection and optimiser ---------------------------------------------------------------------


@variant("worst particle", "select", "you pick the worst particle")
def _(b: Any, original: Any, a: Any, q: Any, *args: Any) -> Any:
    return original(a, -q, *args)


@variant("softmax temperature inverted", "select", "your softmax multiplies by the temperature")
def _(
    b: Any, original: Any, a: Any, q: Any, u: Any, rule: str = "best", temperature: float = 1.0
) -> Any:
    return original(a, q, u, rule, 1 / temperature)


def _adam(
    b: Any, params: Any, gradient: Any, state: Any, rate: float, correct: bool, inside: bool
) -> Any:
    b1, b2, epsilon = 0.9, 0.999, 1e-8
    # in torch a power of an integer tensor would be a float32 number
    t = int(state["count"]) + 1 if b.name == "torch" else state["count"] + 1
    m = tree_map(lambda m, g: b1 * m + (1 - b1) * g, state["m"], gradient)
    v = tree_map(lambda v, g: b2 * v + (1 - b2) * g**2, state["v"], gradient)
    c1, c2 = (1 - b1**t, 1 - b2**t) if correct else (1.0, 1.0)

    def move(p: Any, m: Any, v: Any) -> Any:
        below = (v / c2 + epsilon) ** 0.5 if inside else (v / c2) ** 0.5 + epsilon
        moved = p - rate * (m / c1) / below
        return moved.to(p.dtype) if b.name == "torch" else moved.astype(p.dtype)

    return tree_map(move, params, m, v), {"count": state["count"] + 1, "m": m, "v": v}


@variant("Adam without bias correction", "adam_step", "your Adam lacks its bias correction")
def _(b: Any, original: Any, params: Any, gradient: Any, state: Any, rate: float) -> Any:
    return _adam(b, params, gradient, state, rate, correct=False, inside=False)


@variant("Adam's epsilon inside the root", "adam_step", "your Adam's epsilon is inside the root")
def _(b: Any, original: Any, params: Any, gradient: Any, state: Any, rate: float) -> Any:
    return _adam(b, params, gradient, state, rate, correct=True, inside=True)


@variant("norm per array", "clip_by_global_norm", "you clip each array by its own norm")
def _(b: Any, original: Any, gradient: Any, max_norm: float) -> Any:
    return tree_map(lambda g: original({"": g}, max_norm)[""], gradient)


@variant("Polyak reversed", "polyak", "your target network copies the wrong way round")
def _(b: Any, original: Any, online: Any, target: Any, tau: float) -> Any:
    return original(target, online, tau)


# --- operators and the in-sample critic ----------------------------------------------------------


@variant("guided at the noisy action", "guided_sample", "your gradient is at the noisy action")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args[:6], "noisy" if args[6] == "denoised" else args[6], *args[7:])


@variant("Jacobian always", "guided_sample", "you take the gradient through the denoising too")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args[:6], "jacobian" if args[6] == "denoised" else args[6], *args[7:])


@variant("Jacobian left out", "denoised_gradient", "you leave the Jacobian out")
def _(b: Any, original: Any, params: Any, critic: Any, s: Any, x: Any, t: Any, *rest: Any) -> Any:
    how, activation, critic_activation = rest
    y = x + (1 - t) * b.flow_velocity(params, s, x, t, activation)
    return b.action_gradient(critic, s, b.project(y), how, critic_activation)


@variant("time that has passed", "denoised_gradient", "you step by the time passed, not the rest")
def _(b: Any, original: Any, params: Any, critic: Any, s: Any, x: Any, t: Any, *rest: Any) -> Any:
    return original(params, critic, s, x, 1 - t, *rest)


@variant("sampler from its start", "sampler_gradient", "you run the whole sampler, not the rest")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args[:4], 0, *args[5:])


@variant("guidance descends", "guided_sample", "your guidance descends: its sign is wrong")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args[:5], -args[5], *args[6:])


@variant("guidance undivided", "guided_sample", "your guidance is not divided by K")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args[:5], args[4] * args[5], *args[6:])


@variant("sign forgotten", "gradient_ascent", "you climb the gradient, not its sign")
def _(b: Any, original: Any, params: Any, s: Any, a: Any, budget: Any, *rest: Any) -> Any:
    return original(params, s, a, budget, False, *rest[1:])


@variant("Langevin noise halved", "langevin", "your noise lacks the factor sqrt(2)")
def _(b: Any, original: Any, *args: Any) -> Any:
    return original(*args[:5], args[5] / 2, *args[6:])


@variant("Langevin noise reused", "langevin", "every step of yours has the same noise")
def _(b: Any, original: Any, params: Any, s: Any, a: Any, noise: Any, *rest: Any) -> Any:
    n = a.shape[-2]
    for _step in range(noise.shape[-2] // n):
        a = original(params, s, a, noise[..., :n, :], *rest)
    return a


@variant("expectile the other way", "value_loss", "your expectile is 1 - tau_e")
def _(b: Any, original: Any, params: Any, s: Any, q: Any, expectile: Any, activation: Any) -> Any:
    return original(params, s, q, 1 - expectile, activation)


@variant("chosen of all", "operate", "you choose among all particles, not the first M")
def _(b: Any, original: Any, state: Any, s: Any, operator: Any, settings: Any, noise: Any) -> Any:
    whole = dataclasses.replace(operator, best_of=None)
    return original(state, s, whole, settings, noise)


@variant("operator of the online critic", "operate", "you use the online critic, not the target")
def _(b: Any, original: Any, state: Any, s: Any, operator: Any, settings: Any, noise: Any) -> Any:
    online = dataclasses.replace(operator, critic="online")
    return original(state, s, online, settings, noise)


# --- text ----------------------------------------------------------------------------------------


@variant("padding in the kernel", "sequence_phi", "your padding moves, and moves the responses")
def _(b: Any, original: Any, u: Any, g: Any, lengths: Any, *args: Any) -> Any:
    return original(u, g, (u.shape[1],) * u.shape[0], *args)


@variant(
    "one kernel for all positions",
    "sequence_phi",
    "your kernel per position compares whole responses",
)
def _(
    b: Any, original: Any, u: Any, g: Any, lengths: Any, kernel: Any = "sequence", *args: Any
) -> Any:
    return original(u, g, lengths, "sequence" if kernel == "position" else kernel, *args)


@variant(
    "ended responses in the kernel",
    "sequence_phi",
    "your kernel per position counts responses that have ended there",
)
def _(
    b: Any, original: Any, u: Any, g: Any, lengths: Any, kernel: Any = "sequence", *args: Any
) -> Any:
    if kernel != "position":
        return original(u, g, lengths, kernel, *args)
    there = b.asarray((np.arange(u.shape[1]) < np.asarray(lengths)[:, None])[..., None] * 1.0)
    whole = (u.shape[1],) * u.shape[0]
    return original(u * there, g * there, whole, kernel, *args) * there


@variant(
    "step divided among the tokens",
    "rescale_sequences",
    "your step is of length 1 for a response, not for each of its tokens",
)
def _(b: Any, original: Any, v: Any, lengths: Any, like: Any = None) -> Any:
    return original(v, lengths if like is not None else (1,) * len(lengths), like)


@variant(
    "every token its own step",
    "rescale_sequences",
    "your step is normalised token by token, not over the response",
)
def _(b: Any, original: Any, v: Any, lengths: Any, like: Any = None) -> Any:
    if like is not None:
        return original(v, lengths, like)
    norm = b.project((v * v).sum(-1) ** 0.5, 1e-12, None)
    return v / norm[..., None]


@variant("embedding norms left out", "decoding_scores", "your decoding leaves out ||e_c||^2 / 2")
def _(b: Any, original: Any, u: Any, log_p: Any, embeddings: Any, *args: Any) -> Any:
    norms = (embeddings * embeddings).sum(-1)
    return original(u, log_p, embeddings, *args) + norms / 2 / norms.mean()


@variant(
    "original token left out",
    "decoding_scores",
    "your decoding cannot keep an unlikely original token",
)
def _(b: Any, original: Any, u: Any, log_p: Any, embeddings: Any, first: Any, *args: Any) -> Any:
    return original(u, log_p, embeddings, log_p.argmax(-1), *args)


@variant(
    "forbidden tokens decoded",
    "decoding_scores",
    "your decoding returns tokens that are not allowed",
)
def _(
    b: Any, original: Any, u: Any, log_p: Any, embeddings: Any, first: Any, allowed: Any, *args: Any
) -> Any:
    return original(u, log_p, embeddings, first, allowed | True, *args)


# --- the update ----------------------------------------------------------------------------------


@variant(
    "target from the online critic",
    "update_from_noise",
    "your target uses the online critic",
    "update",
)
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    if "critic" not in settings.networks:
        return original(state, batch, noise, settings)
    new, metrics = original({**state, "target_critic": state["critic"]}, batch, noise, settings)
    online = new["critic"] if settings.target_update == "after" else state["critic"]
    new["target_critic"] = b.polyak(online, state["target_critic"], settings.polyak)
    return new, metrics


@variant(
    "target mixed before the step",
    "update_from_noise",
    "your target mixes in the critic from before its gradient step",
    "update",
)
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    return original(state, batch, noise, dataclasses.replace(settings, target_update="before"))


@variant(
    "one learning rate for all",
    "update_from_noise",
    "your actors are trained with the critic's learning rate",
    "update",
)
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    one = dataclasses.replace(settings, actor_learning_rate=None)
    return original(state, batch, noise, one)


@variant("noise reused", "update_from_noise", "one draw of noise serves twice", "update")
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    if "reference_start" in noise:
        noise = {**noise, "reference_start": noise["particles"][:, 0]}
    return original(state, batch, noise, settings)


@variant(
    "particles at the wrong state",
    "update_from_noise",
    "your target's particles are drawn at s, not at s'",
    "update",
)
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    return original(state, {**batch, "next_observations": batch["observations"]}, noise, settings)


@variant("step not counted", "update_from_noise", "the update does not count its step", "update")
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    new, metrics = original(state, batch, noise, settings)
    return {**new, "step": state["step"]}, metrics


@variant(
    "distilled from the data",
    "update_from_noise",
    "your policy is distilled from the data's actions",
    "update",
)
def _(b: Any, original: Any, state: Any, batch: Any, noise: Any, settings: Any) -> Any:
    new, metrics = original(state, batch, noise, settings)
    if "policy" not in settings.networks:
        return new, metrics
    loss, gradient = b.policy_gradient(
        state["policy"],
        state["critic"],
        batch["observations"],
        noise["policy"],
        batch["actions"],
        settings.distillation,
        settings.normalise_values,
        settings.policy.activation,
        settings.critic.activation,
    )
    if settings.clip_norm is not None:
        gradient = b.clip_by_global_norm(gradient, settings.clip_norm)
    policy, adam = b.adam_step(
        state["policy"], gradient, state["optimiser"]["policy"], settings.learning_rate_of("policy")
    )
    optimiser = {**new["optimiser"], "policy": adam}
    return {**new, "policy": policy, "optimiser": optimiser}, {**metrics, "policy_loss": loss}

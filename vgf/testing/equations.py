"""Every function of the backends' interface, with inputs to try it on.

An :class:`Equation` draws arguments and calls the function on any backend; :func:`check` compares
the result with the specification's over many examples and keeps the worst.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ..backends.base import Backend
from ..backends.numpy import NumpyBackend
from ..spec.networks import init_ensemble, init_mlp
from ..spec.operators import BPTT, QFQL, QGF, BestOfN, Flow, Gradient, Langevin, Operator, Sample
from ..spec.operators.guidance import GUIDANCE
from ..spec.optimiser import tree_map
from ..spec.settings import (
    ACTIVATIONS,
    CRITIC_LOSSES,
    PARTICLE_STEPS,
    SELECTION_RULES,
    Budget,
    Network,
    Settings,
)
from ..spec.text import SEQUENCE_KERNELS, within_lengths
from ..spec.update import draw_act_noise, draw_update_noise, init_state
from .compare import MACHINE_EPSILON, Difference, difference, expected_and_sensitivity, perturb
from .strategies import TEMPERATURES, Maker

Arguments = tuple[Any, ...]
Call = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Equation:
    """One function of the interface.

    Attributes:
        name: the function's, in `vgf.spec` and on every backend.
        draw: draws the function's arguments: NumPy arrays and trees of them, and settings.
        call: calls it on a backend; the default passes the arguments by position.
        floor, unit: see `vgf.testing.compare`.
        jitter: estimate the sensitivity with rounding inside the flow too, see
            :class:`Jittered`.
    """

    name: str
    draw: Callable[[Maker], Arguments]
    call: Call | None
    floor: float
    unit: float
    jitter: bool

    def run(self, backend: Backend, *arguments: Any) -> Any:
        """The function's result on a backend's own arrays."""
        if self.call is not None:
            return self.call(backend, *arguments)
        return getattr(backend, self.name)(*arguments)

    def examples(
        self, programs: int | None = None, seed: int = 0
    ) -> st.SearchStrategy[tuple[Arguments, str]]:
        """A strategy of (arguments, label); see :class:`Maker` for `programs` and its `seed`."""

        @st.composite
        def strategy(draw: st.DrawFn) -> tuple[Arguments, str]:
            maker = Maker(draw, programs, seed)
            return self.draw(maker), maker.label

        return strategy()


EQUATIONS: dict[str, Equation] = {}


def equation(
    name: str, floor: float = 1.0, unit: float = 0.0, call: Call | None = None, jitter: bool = False
) -> Callable[..., Any]:
    """Register a function that draws arguments as the inputs of an equation."""

    def register(draw: Callable[[Maker], Arguments]) -> Callable[[Maker], Arguments]:
        EQUATIONS[name] = Equation(name, draw, call, floor, unit, jitter or unit > 0)
        return draw

    return register


# --- checking ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Report:
    """What a check of one equation on one backend found.

    Attributes:
        examples: how many were tried.
        worst: the largest error relative to the tolerance, with `label` the input that gave it.
        absolute, relative: the largest errors over all examples.
    """

    equation: str
    examples: int = 0
    worst: Difference = dataclasses.field(default_factory=Difference)
    label: str = ""
    absolute: float = 0.0
    relative: float = 0.0

    def add(self, found: Difference, label: str) -> None:
        self.examples += 1
        self.absolute = max(self.absolute, found.absolute)
        self.relative = max(self.relative, found.relative)
        if not self.label or found.ratio > self.worst.ratio:
            self.worst, self.label = found, label


class Mismatch(AssertionError):  # noqa: N818  (it reads as the finding it is)
    """A backend and the specification disagree; the message names the equation and the input.

    Attributes:
        found: where they differ most, where two results were compared.
    """

    def __init__(self, message: str, found: Difference | None = None) -> None:
        super().__init__(message)
        self.found = found


def is_data(argument: Any) -> bool:
    """Whether an argument holds arrays (as opposed to a setting)."""
    return isinstance(argument, (np.ndarray, dict))


def rounded(argument: Any, dtype: str) -> Any:
    """Float64 arrays that hold only numbers of the dtype, read-only."""

    def convert(x: Any) -> np.ndarray:
        x = np.array(x)
        x = x.astype(dtype).astype(np.float64) if x.dtype.kind == "f" else x
        x.flags.writeable = False
        return x

    return tree_map(convert, argument) if is_data(argument) else argument


class Jittered(NumpyBackend):
    """The specification with rounding errors of a coarser dtype inside its flow.

    Every flow step's velocity and result are changed by about one rounding, at random, identical
    particles alike. Where that decides the outcome (a sign that Adam takes of nearly nothing,
    particles on the verge of parting), the input does not determine the result in that dtype.
    """

    def __init__(self, u: float, seed: int) -> None:
        super().__init__("cpu", "float64", "float32")
        self.u, self.seed = u, seed

    def flow_step(self, a: Any, velocity: Any, state: Any, budget: Budget) -> Any:
        self.seed += 1
        size = float(np.max(np.abs(velocity), initial=0.0))
        velocity = perturb(velocity, self.u, self.seed, unit=size or 1.0)
        moved, state = NumpyBackend.flow_step(a, velocity, state, budget)
        if self.seed % 2 and self.u > MACHINE_EPSILON["float64"]:
            # rounding proper can make particles coincide, as no perturbation does
            return moved.astype(np.float32).astype(np.float64), state
        return perturb(moved, self.u, self.seed, unit=1.0), state


def compare_once(backend: Backend, tested: Equation, arguments: Arguments) -> Difference:
    """Run one example on a backend and on the specification, and compare.

    Raises:
        Mismatch: the backend changed an argument in place.
    """
    exact = tuple(rounded(argument, backend.dtype) for argument in arguments)
    reference = NumpyBackend("cpu", "float64", "float32")

    def shaken(seed: int, *args: Any) -> Any:
        shaking = Jittered(MACHINE_EPSILON[backend.dtype], seed) if tested.jitter else reference
        return tested.run(shaking, *args)

    expected, sensitivity = expected_and_sensitivity(
        lambda *args: tested.run(reference, *args), exact, backend.dtype, tested.unit, shaken
    )
    own = tuple(backend.asarray(x) if is_data(x) else x for x in exact)
    if isinstance(backend, NumpyBackend):
        tree_map(
            lambda x: x.setflags(write=False), {str(i): x for i, x in enumerate(own) if is_data(x)}
        )
    got = to_numpy(backend, tested.run(backend, *own))
    for before, after in zip(exact, own, strict=True):
        if is_data(before):
            kept = difference(backend.to_numpy(after), before, backend.dtype, floor=0.0)
            if kept.fault or kept.absolute > 0:
                raise Mismatch(f"{tested.name} changed its argument in place: {kept}")
    return difference(got, expected, backend.dtype, sensitivity, tested.floor)


def to_numpy(backend: Backend, result: Any) -> Any:
    """A backend's result, which may be a tuple with None in it, as NumPy arrays."""
    if result is None:
        return None
    if isinstance(result, tuple):
        return tuple(to_numpy(backend, item) for item in result)
    return backend.to_numpy(result)


def check(
    backend: Backend,
    name: str | Equation,
    examples: int = 50,
    seed: int = 0,
    shrink: bool = True,
    programs: int | None = None,
) -> Report:
    """Compare one equation on a backend with the specification, over many examples.

    Args:
        backend: of any kind; its dtype decides the tolerance.
        name: a key of :data:`EQUATIONS`, or an equation.
        examples: how many to try.
        seed: of the search; the same seed tries the same examples.
        shrink: look for the smallest input that fails.
        programs: how many combinations of shapes and settings the examples share; None is as many
            as there are, and a quarter of the examples on JAX, which compiles each anew.

    Raises:
        Mismatch: they disagree; the message names the equation, the entry and the input.
    """
    tested = EQUATIONS[name] if isinstance(name, str) else name
    name = tested.name
    if programs is None and backend.name == "jax":
        programs = max(examples // 4, 1)
    report = Report(name)
    phases = [hypothesis.Phase.generate] + ([hypothesis.Phase.shrink] if shrink else [])

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(tested.examples(programs, seed))
    def try_one(example: tuple[Arguments, str]) -> None:
        arguments, label = example
        found = compare_once(backend, tested, arguments)
        if not found.agrees:
            where = f"{name} on {backend.name} {backend.dtype} ({label})"
            raise Mismatch(f"{where}: {found}", found)
        report.add(found, label)

    try_one()
    return report


# what is added to 2 sigma^2: nothing, the authors' code's, and what no particles are narrower than
GUARDS = (0.0, 1e-6, 0.5)


# --- kernel and flow -----------------------------------------------------------------------------


def leads(make: Maker, b: int) -> tuple[int, ...]:
    """No leading axis, one, or two."""
    return make.pick("lead", ((), (b,), (2, b)))


@equation("squared_distances", floor=0.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    return make.particles((b,), n, d, "x"), make.particles((b,), 2, d, "y")


@equation("bandwidth_squared", floor=0.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    return (make.particles(leads(make, b), n, d),)


@equation("rbf_kernel")
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    sigma_squared = make.pick("sigma", (0.5, 1e-6, 1e3), compiled=False) ** 2 * make.rng.uniform(
        0.5, 2, (b,)
    )
    return make.particles((b,), n, d, "x"), make.particles((b,), 3, d, "y"), sigma_squared


@equation("repulsion", floor=0.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    sigma_squared = make.pick("sigma", (0.5, 1e-3, 1e3), compiled=False) ** 2 * make.rng.uniform(
        0.5, 2, (b,)
    )
    return make.particles((b,), n, d), sigma_squared


# the unit: distances that tie may part, and then another pair is the median
@equation("repulsion_through_bandwidth", floor=0.0, unit=1.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    return make.particles((b,), n, d), make.pick("guard", GUARDS)


@equation("phi")
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    lead = leads(make, b)
    temperature = make.pick("temperature", TEMPERATURES)
    bandwidth = make.pick("bandwidth", (None, 0.5))
    through = bandwidth is None and temperature is not None and make.pick("through", (False, True))
    kernel = "rbf" if through else make.pick("kernel", ("rbf", "rbf", None))
    a, guard = make.particles(lead, n, d), make.pick("guard", GUARDS)
    return a, make.scores((*lead, n, d)), temperature, bandwidth, through, kernel, guard


@equation("project", floor=0.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    low, high = make.pick("box", ((-1.0, 1.0), (None, 1.0), (-0.5, None), (None, None)))
    return make.particles((b,), n, d), low, high


@equation("clip_velocity", floor=0.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    scope = make.pick("scope", ("state", "batch"))
    return make.scores((b, n, d), "velocity"), make.pick("max_norm", (1.0, 1e-3)), scope


BUDGETS = (
    Budget(steps=0),
    Budget(steps=1, optimiser="plain", step_size=0.1, temperature=None),
    Budget(steps=3, optimiser="plain", step_size=0.05, temperature=0.5),
    Budget(steps=3, optimiser="plain", step_size=0.01, temperature=1e-3, low=None, high=None),
    Budget(steps=1, temperature=0.1),
    Budget(steps=3, step_size=0.3, temperature=None, clip_norm=1.0),
    Budget(steps=2, temperature=1.0, bandwidth=0.4),
    Budget(steps=2, temperature=0.5, bandwidth_gradient=True),
    Budget(steps=3, temperature=1e3, clip_norm=0.5, clip_scope="batch"),
    Budget(steps=2, temperature=0.5, bandwidth_gradient=True, kernel_guard=1e-6),
    Budget(steps=2, temperature=0.5, kernel=None, clip_norm=1.0, clip_scope="batch"),
)


def adam_state(make: Maker, params: Any) -> Any:
    """Adam's state at its start, or after some steps."""
    count = make.pick("count", (0, 1, 7), compiled=False)
    m = tree_map(lambda p: (count > 0) * make.normal(*np.shape(p)), params)
    v = tree_map(lambda p: (count > 0) * make.normal(*np.shape(p)) ** 2, params)
    return {"count": np.asarray(count, np.int32), "m": m, "v": v}


@equation("flow_step")
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    budget = BUDGETS[make.pick("budget", range(len(BUDGETS)))]
    a, velocity = make.particles((b,), n, d), make.scores((b, n, d), "velocity")
    return a, velocity, adam_state(make, a) if budget.optimiser == "adam" else None, budget


def _follow(b: Backend, a: Any, slope: Any, shift: Any, budget: Budget, trajectory: bool) -> Any:
    return b.follow(lambda a: shift - slope * a, a, budget, trajectory)


def _transport(b: Backend, a: Any, slope: Any, shift: Any, budget: Budget, trajectory: bool) -> Any:
    return b.transport(lambda a: shift - slope * a, a, budget, trajectory)


def _linear(make: Maker) -> Arguments:
    """Particles, and a linear score (that of a Gaussian reward) with slope and shift."""
    b, n, d = make.sizes()
    budget = BUDGETS[make.pick("budget", range(len(BUDGETS)))]
    lead = leads(make, b)
    a = make.particles(lead, n, d)
    slope, shift = make.scores((d,), "slope"), make.scores((d,), "shift")
    return a, slope, shift, budget, make.pick("trajectory", (False, True))


equation("follow", unit=1.0, call=_follow)(_linear)
equation("transport", unit=1.0, call=_transport)(_linear)


# --- networks ------------------------------------------------------------------------------------


@equation("activate")
def _(make: Maker) -> Arguments:
    activation = make.pick("activation", ACTIVATIONS)
    return make.scores((3, 4), "x") * make.pick("scale", (1.0, 5.0), compiled=False), activation


@equation("layer_norm")
def _(make: Maker) -> Arguments:
    if make.pick("rows", ("free", "equal"), compiled=False) == "free":
        x = make.scores((3, 8), "x")
        # the mean of a constant row is exact on a grid: 1 / sqrt(1e-6) would magnify its rounding
        constant = np.ptp(x, axis=-1) == 0
        x[constant] = np.round(x[constant] * 16) / 16
    else:  # nearly constant rows, where the epsilon decides
        x = make.normal(3, 1) * np.ones(8) + 1e-3 * make.normal(3, 8)
    return x, make.normal(8), make.normal(8)


@equation("mlp")
def _(make: Maker) -> Arguments:
    activation = make.pick("activation", ACTIVATIONS)
    return make.network(3, 2, activation=activation), make.normal(4, 3), activation


@equation("mlp_vjp")
def _(make: Maker) -> Arguments:
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(3, 2, activation=activation)
    return params, make.normal(4, 3), make.scores((4, 2), "cotangent"), activation


@equation("ensemble")
def _(make: Maker) -> Arguments:
    members = make.pick("E", (1, 2, 3))
    activation = make.pick("activation", ACTIVATIONS)
    return make.network(3, 2, members, activation=activation), make.normal(4, 3), activation


@equation("ensemble_vjp")
def _(make: Maker) -> Arguments:
    members = make.pick("E", (1, 2, 3))
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(3, 2, members, activation=activation)
    return params, make.normal(4, 3), make.scores((members, 4, 2), "cotangent"), activation


# --- reference -----------------------------------------------------------------------------------

OBSERVATION_DIM = 3


def states_and_shape(make: Maker) -> tuple[np.ndarray, tuple[int, ...]]:
    """States [B, o] and the shape of actions: one for each, or N."""
    b, n, d = make.sizes()
    lead = leads(make, b)
    shape = (*lead, n, d) if make.pick("per_state", ("one", "set")) == "set" else (*lead, d)
    return make.normal(*lead, OBSERVATION_DIM), shape


@equation("flow_velocity")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(OBSERVATION_DIM + shape[-1] + 1, shape[-1], None, False, activation)
    t = make.rng.uniform(0, 1, (*shape[:-1], 1))
    return params, s, make.normal(*shape), t, activation


def _flow_matching(make: Maker) -> Arguments:
    b, _, d = make.sizes()
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(OBSERVATION_DIM + d + 1, d, None, False, activation)
    t = (
        make.rng.choice([0.0, 1.0], (b, 1))
        if make.pick("t", ("in", "ends"), compiled=False) == "ends"
        else None
    )
    t = make.rng.uniform(0, 1, (b, 1)) if t is None else t
    s, a, x0 = make.normal(b, OBSERVATION_DIM), make.actions(b, d), make.normal(b, d)
    return params, s, a, x0, t, activation, row_weights(make, b)


def row_weights(make: Maker, b: int) -> np.ndarray | None:
    """Weights of a batch's rows, or none."""
    return make.rng.uniform(0, 3, (b,)) if make.pick("weight", ("none", "some")) == "some" else None


equation("flow_matching_loss")(_flow_matching)
equation("flow_matching_gradient")(_flow_matching)


@equation("flow_sample")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    params = make.network(OBSERVATION_DIM + shape[-1] + 1, shape[-1], layer_norm=False)
    return params, s, make.normal(*shape), make.pick("K", (1, 3, 10)), "relu"


def gaussian_network(make: Maker, d: int) -> dict[str, Any]:
    """A network of means and a log_std inside, on and beyond its bounds."""
    params = make.network(OBSERVATION_DIM, d, layer_norm=False)
    kind = make.pick("log_std", ("inside", "bounds", "beyond"), compiled=False)
    options = {"inside": [-1.5, 0.0, 0.25], "bounds": [-5.0, 2.0], "beyond": [-7.0, 3.0, -30.0]}
    params["log_std"] = make.rng.choice(options[kind], (d,))
    return params


def _gaussian(make: Maker) -> Arguments:
    b, _, d = make.sizes()
    params, s = gaussian_network(make, d), make.normal(b, OBSERVATION_DIM)
    tanh = make.pick("tanh", (False, True))
    return params, s, make.actions(b, d), tanh, "relu", row_weights(make, b)


equation("gaussian_loss")(_gaussian)
# the floor: where tanh's inverse is clipped, terms of 1e5 cancel whatever the input
equation("gaussian_gradient", floor=1e3)(_gaussian)


@equation("gaussian_sample")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    params = gaussian_network(make, shape[-1])
    return params, s, make.normal(*shape), make.pick("tanh", (False, True)), "relu"


# --- critic --------------------------------------------------------------------------------------


def critic_network(make: Maker, d: int, activation: str = "") -> dict[str, Any]:
    """Critics on (s, a), sometimes the same one twice (every value a tie)."""
    members = make.members()
    params = make.network(OBSERVATION_DIM + d, 1, members, activation=activation)
    if make.pick("critics", ("different", "different", "equal"), compiled=False) == "equal":
        params = tree_map(lambda p: np.repeat(p[:1], members, axis=0), params)
    return params


@equation("critic_values")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    activation = make.pick("activation", ACTIVATIONS)
    return critic_network(make, shape[-1], activation), s, make.normal(*shape), activation


@equation("aggregate")
def _(make: Maker) -> Arguments:
    b, n, _ = make.sizes()
    return make.scores((make.pick("E", (1, 2)), b, n), "q"), make.pick("how", ("mean", "min"))


@equation("action_gradient")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    activation, how = make.pick("activation", ACTIVATIONS), make.pick("how", ("mean", "min"))
    return critic_network(make, shape[-1], activation), s, make.normal(*shape), how, activation


@equation("critic_transport", unit=1.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    budget = BUDGETS[make.pick("budget", range(len(BUDGETS)))]
    how, trajectory = make.pick("how", ("mean", "min")), make.pick("trajectory", (False, True))
    s, a = make.normal(b, OBSERVATION_DIM), make.particles((b,), n, d)
    return critic_network(make, d), s, a, budget, how, "swish", trajectory


@equation("td_target")
def _(make: Maker) -> Arguments:
    b, n, _ = make.sizes()
    mask = make.rng.choice([0.0, 1.0], (b,))
    mask = mask.astype(make.pick("mask", ("float64", "bool", "int64")))
    how, particles = make.pick("how", ("min", "mean")), make.pick("particles", ("mean", "max"))
    q = make.scores((make.members(), b, n), "q")
    return q, make.scores((b,), "r"), mask, make.pick("discount", (0.0, 0.99, 1.0)), how, particles


@equation("critic_loss")
def _(make: Maker) -> Arguments:
    b, _, _ = make.sizes()
    q, y = make.scores((make.members(), b), "q"), make.scores((b,), "y")
    loss, alpha = make.pick("loss", CRITIC_LOSSES), make.pick("alpha", (None, 0.2, 5.0))
    return q, y, loss, make.pick("expectile", (0.5, 0.9)), alpha


@equation("critic_gradient")
def _(make: Maker) -> Arguments:
    b, _, d = make.sizes()
    activation, loss = make.pick("activation", ACTIVATIONS), make.pick("loss", CRITIC_LOSSES)
    params, s = critic_network(make, d, activation), make.normal(b, OBSERVATION_DIM)
    y, alpha = make.scores((b,), "y"), make.pick("alpha", (None, 5.0))
    return params, s, make.actions(b, d), y, loss, 0.9, activation, alpha


# --- amortised gradient --------------------------------------------------------------------------


@equation("gradient_field")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(OBSERVATION_DIM + shape[-1], shape[-1], activation=activation)
    return params, s, make.normal(*shape), activation


def _gradient_field(make: Maker) -> Arguments:
    b, _, d = make.sizes()
    params = make.network(OBSERVATION_DIM + d, d)
    s, a, g = make.normal(b, OBSERVATION_DIM), make.actions(b, d), make.scores((b, d))
    return params, s, a, g, make.pick("normalise", (False, True)), "relu"


equation("gradient_field_loss")(_gradient_field)
equation("gradient_field_gradient")(_gradient_field)


@equation("amortised_transport", unit=1.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    budget = BUDGETS[make.pick("budget", range(len(BUDGETS)))]
    params, s = make.network(OBSERVATION_DIM + d, d), make.normal(b, OBSERVATION_DIM)
    return params, s, make.particles((b,), n, d), budget, "swish", make.pick("trajectory", (0, 1))


# --- selection and optimiser ---------------------------------------------------------------------


@equation("select")
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    # odd multiples of 1/128 keep u off the boundaries i/N, where rounding decides
    u = (2 * make.rng.integers(0, 64, (b,)) + 1) / 128
    q = np.round(
        make.scores((b, n), "q"), 1 if make.pick("ties", (False, True), compiled=False) else 12
    )
    rule = make.pick("rule", SELECTION_RULES)
    return make.particles((b,), n, d), q, u, rule, make.pick("temperature", (1.0, 0.1))


# --- baselines -----------------------------------------------------------------------------------


@equation("advantage_weights")
def _(make: Maker) -> Arguments:
    b, n, _ = make.sizes()
    temperature = make.pick("temperature", (1.0, 0.1))
    how, maximum = make.pick("how", ("mean", "min")), make.pick("maximum", (20.0, 1.0))
    e = make.members()
    return make.scores((e, b), "q"), make.scores((e, b, n), "own"), how, temperature, maximum


@equation("policy_actions")
def _(make: Maker) -> Arguments:
    s, shape = states_and_shape(make)
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(OBSERVATION_DIM + shape[-1], shape[-1], None, False, activation)
    return params, s, make.normal(*shape), activation


def _policy(make: Maker) -> Arguments:
    b, _, d = make.sizes()
    activation, normalise = make.pick("activation", ACTIVATIONS), make.pick("norm", (False, True))
    params = make.network(OBSERVATION_DIM + d, d, None, False, activation)
    if (
        make.pick("box", ("inside", "beyond"), compiled=False) == "beyond"
    ):  # most actions, by a bias of 1.5
        params["output"]["bias"] = params["output"]["bias"] + 1.5
    s, noise, target = make.normal(b, OBSERVATION_DIM), make.normal(b, d), make.actions(b, d)
    distillation = make.pick("distillation", (10.0, 0.0, 0.3))
    critic = critic_network(make, d, "swish")
    return params, critic, s, noise, target, distillation, normalise, activation, "swish"


equation("policy_loss")(_policy)
equation("policy_gradient")(_policy)


@equation("state_values")
def _(make: Maker) -> Arguments:
    activation = make.pick("activation", ACTIVATIONS)
    params = make.network(OBSERVATION_DIM, 1, activation=activation)
    return params, make.normal(make.sizes()[0], OBSERVATION_DIM), activation


def _value(make: Maker) -> Arguments:
    b, _, _ = make.sizes()
    s, q = make.normal(b, OBSERVATION_DIM), make.scores((b,), "q")
    return make.network(OBSERVATION_DIM, 1), s, q, make.pick("expectile", (0.5, 0.9)), "relu"


equation("value_loss")(_value)
equation("value_gradient")(_value)


# --- optimiser -----------------------------------------------------------------------------------


@equation("adam_init")
def _(make: Maker) -> Arguments:
    return (make.network(3, 2),)


@equation("adam_step")
def _(make: Maker) -> Arguments:
    params = make.network(3, 2)
    gradient = tree_map(lambda p: make.scores(np.shape(p)), params)
    return params, gradient, adam_state(make, params), make.pick("learning_rate", (3e-4, 0.1))


@equation("global_norm", floor=0.0)
def _(make: Maker) -> Arguments:
    return (tree_map(lambda p: make.scores(np.shape(p)), make.network(3, 2)),)


@equation("clip_by_global_norm", floor=0.0)
def _(make: Maker) -> Arguments:
    gradient = tree_map(lambda p: make.scores(np.shape(p)), make.network(3, 2))
    return gradient, make.pick("max_norm", (1.0, 1e4))


@equation("polyak")
def _(make: Maker) -> Arguments:
    return (
        make.network(3, 2, layer_norm=True),
        make.network(3, 2, layer_norm=True),
        make.pick("tau", (0.0, 0.005, 1.0)),
    )


# --- text ----------------------------------------------------------------------------------------


def responses(make: Maker, name: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Embeddings of N responses [N, T, d], with numbers behind their ends, and their lengths."""
    b, n, d = make.sizes()
    t = b + 1
    lengths = {"full": (t,) * n, "ragged": tuple(1 + i % t for i in range(n)), "short": (1,) * n}
    return make.particles((), n, t * d, name).reshape(n, t, d), lengths[
        make.pick("lengths", lengths)
    ]


@equation("sequence_phi")
def _(make: Maker) -> Arguments:
    u, lengths = responses(make, "u")
    kernel = make.pick("kernel", (None, *SEQUENCE_KERNELS))
    temperature = make.pick("temperature", TEMPERATURES)
    return (
        u,
        make.scores(u.shape),
        lengths,
        kernel,
        temperature,
        make.pick("bandwidth", (None, 0.5)),
    )


@equation("rescale_sequences", floor=0.0)
def _(make: Maker) -> Arguments:
    u, lengths = responses(make, "like")
    there = within_lengths(lengths, u.shape[1])[:, :, None]
    like = u * there if make.pick("like", ("none", "some")) == "some" else None
    return make.scores(u.shape, "v") * there, lengths, like


@equation("decoding_scores")
def _(make: Maker) -> Arguments:
    (b, _, d), vocabulary = make.sizes(), make.pick("V", (1, 5))
    embeddings = make.normal(vocabulary, d)
    original = make.rng.integers(0, vocabulary, (b,))
    log_p = make.normal(b, vocabulary) - 2
    if make.pick("log_p", ("different", "tied"), compiled=False) == "tied":
        log_p = np.round(log_p)
    allowed = make.rng.choice([False, True], (vocabulary,))
    weight, top = make.pick("lambda", (0.0, 0.2, 3.0)), make.pick("top", (None, 1, 3))
    u = embeddings[original] + make.scores((b, d), "moved")
    return u, log_p, embeddings, original, allowed, weight, top


# --- operators -----------------------------------------------------------------------------------


def _guided(make: Maker) -> tuple[Any, Any, np.ndarray, np.ndarray, str]:
    """A velocity network, critics, states, noisy actions and an aggregation."""
    s, shape = states_and_shape(make)
    params = make.network(OBSERVATION_DIM + shape[-1] + 1, shape[-1], None, False, "swish")
    critic = critic_network(make, shape[-1], "swish")
    return params, critic, s, make.normal(*shape), make.pick("how", ("min", "mean"))


@equation("denoised_gradient", unit=1.0)
def _(make: Maker) -> Arguments:
    params, critic, s, x, how = _guided(make)
    t = np.broadcast_to(make.rng.choice([0.0, 0.25, 0.5, 1.0]), (*x.shape[:-1], 1)).copy()
    return params, critic, s, x, t, how, "swish", "swish"


@equation("sampler_gradient", unit=1.0)
def _(make: Maker) -> Arguments:
    params, critic, s, x, how = _guided(make)
    start, steps = make.pick("k,K", ((0, 1), (0, 3), (2, 3), (3, 3)))
    return params, critic, s, x, start, steps, how, "swish", "swish"


@equation("guided_sample", unit=1.0)
def _(make: Maker) -> Arguments:
    params, critic, s, x, how = _guided(make)
    weight, guidance = make.pick("weight", (1.0, 0.1, 0.0)), make.pick("guidance", GUIDANCE)
    return params, critic, s, x, 3, weight, guidance, how, "swish", "swish"


@equation("gradient_ascent", unit=1.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    s, a = make.normal(b, OBSERVATION_DIM), make.particles((b,), n, d)
    # the sign of a gradient that is nearly 0 is rounding's
    sign, how = make.pick("sign", (False, True)), make.pick("how", ("mean", "min"))
    steps, optimiser = make.pick("steps", (0, 1, 3)), make.pick("optimiser", ("plain", "adam"))
    budget = Budget(steps=steps, step_size=0.05, temperature=None, optimiser=optimiser)
    return critic_network(make, d, "swish"), s, a, budget, sign, how, "swish"


@equation("langevin", unit=1.0)
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    s, a, steps = make.normal(b, OBSERVATION_DIM), make.particles((b,), n, d), (0, 1, 3)
    noise = make.normal(b, n * make.pick("steps", steps), d)
    how, temperature = make.pick("how", ("mean", "min")), make.pick("temperature", (0.0, 0.3))
    return critic_network(make, d, "swish"), s, a, noise, 0.05, temperature, how, "swish"


OPERATORS: tuple[Operator, ...] = (
    Sample(),
    BestOfN(particles=4, best_of=2, critic="target"),
    Flow(budget=BUDGETS[2], ensemble="min"),
    Flow(particles=3, best_of=1),
    Gradient(steps=2, step_size=0.05),
    Gradient(sign=True, particles=2),
    QFQL(weight=0.1),
    QGF(critic="target", ensemble="min", particles=3, best_of=2),
    QGF(jacobian=True, weight=0.3),
    BPTT(weight=0.1, particles=2),
    Langevin(steps=2, temperature=0.05),
)


@equation("operate", unit=1.0, jitter=True)
def _(make: Maker) -> Arguments:
    settings = SETTINGS[make.pick("settings", ("vgf", "avgf", "fql", "iql"))]
    operator, (b, d) = make.pick("operator", OPERATORS), make.pick("B,d", ((1, 1), (4, 2)))
    noise = draw_act_noise(int(make.rng.integers(2**31)), 0, b, operator.rows(settings), d)
    state = random_state(make, settings, d)
    return state, make.normal(b, OBSERVATION_DIM), operator, settings, noise


# --- the agent -----------------------------------------------------------------------------------


def _small(**changes: Any) -> Settings:
    """Settings whose networks are small and whose every choice can be changed."""
    networks = {
        "critic": Network((8, 4), changes.pop("activation", "relu"), layer_norm=True),
        "reference": Network((8, 4), "swish"),
        "gradient_field": Network((8, 4), "gelu", layer_norm=True),
        "policy": Network((8, 4), "swish"),
        "value": Network((8, 4), layer_norm=True),
    }
    budget = changes.pop("budget", Budget(steps=2, step_size=0.1, temperature=0.5))
    return Settings(
        **{**networks, "particles": 4, "sampling_steps": 3, "budget": budget, **changes}
    )


_CLIPPED = Budget(steps=2, temperature=None, clip_norm=1.0)
SETTINGS: dict[str, Settings] = {
    "vgf": _small(),
    "vgf plain mean": _small(
        budget=BUDGETS[2],
        target_ensemble="mean",
        target_particles="max",
        value_ensemble="min",
        activation="gelu",
        target_update="before",
        particles=3,
    ),
    "vgf expectile": _small(critic_loss="expectile", budget=BUDGETS[5], clip_norm=1.0),
    "vgf time features": _small(
        time_features=4, reference=Network((8, 4), "swish", layer_norm="inner"), particles=2
    ),
    "vgf sparse": _small(critic_loss="sparse", sparse_alpha=3.0, particles=1, selection="softmax"),
    "vgf as its authors": _small(
        budget=BUDGETS[9],
        target_update="before",
        actor_learning_rate=1e-3,
        critic=Network((8, 4), "gelu_tanh", "after"),
        reference=Network((8, 4), "gelu_tanh", "after"),
    ),
    "vgf without a kernel": _small(budget=BUDGETS[10], learning_rate=1e-3, actor_learning_rate=0.0),
    "vgf gaussian": _small(reference_kind="gaussian", discount=0.0, selection="uniform"),
    "vgf gaussian tanh": _small(
        reference_kind="gaussian", reference_tanh=True, budget=BUDGETS[7], ensemble=1
    ),
    "avgf": _small(method="avgf", budget=_CLIPPED, clip_norm=1.0),
    "avgf gaussian": _small(
        method="avgf",
        reference_kind="gaussian",
        normalise_gradients=True,
        discount=1.0,
        critic_loss="expectile",
    ),
    "avgf sparse": _small(method="avgf", critic_loss="sparse", particles=1, clip_norm=0.1),
    "bc": _small(method="bc", budget=BUDGETS[0]),
    "bc gaussian": _small(method="bc", budget=BUDGETS[0], reference_kind="gaussian"),
    "weighted bc": _small(method="weighted_bc", budget=BUDGETS[0], weight_temperature=0.5),
    "weighted bc gaussian": _small(
        method="weighted_bc",
        budget=BUDGETS[0],
        reference_kind="gaussian",
        value_ensemble="min",
        weight_maximum=1.5,
        critic_loss="expectile",
    ),
    "td": _small(method="td", target_particles="max"),
    "iql": _small(method="iql", expectile=0.7),
    "iql mean": _small(method="iql", budget=BUDGETS[2], target_ensemble="mean", discount=1.0),
    "fql": _small(
        method="fql",
        budget=BUDGETS[0],
        particles=1,
        target_ensemble="mean",
        target_update="before",
        critic_loss="mean_squared",
        critic=Network((8, 4), "gelu_tanh", "after"),
        policy=Network((8, 4), "gelu_tanh"),
        actor_learning_rate=1e-3,
    ),
    "fql normalised": _small(
        method="fql", budget=BUDGETS[0], normalise_values=True, distillation=0.5, clip_norm=1.0
    ),
}


def random_state(make: Maker, settings: Settings, d: int) -> Any:
    """An agent in the midst of training: random networks, targets and Adam states."""
    rng, o = make.rng, OBSERVATION_DIM
    state = init_state(int(make.rng.integers(0, 1000)), o, d, settings)
    if "critic" in settings.networks:
        state["target_critic"] = init_ensemble(rng, o + d, settings.critic, 1, settings.ensemble)
    for name in state["optimiser"]:
        state["optimiser"][name] = adam_state(make, state[name])
    return state


def random_batch(make: Maker, b: int, d: int) -> dict[str, np.ndarray]:
    """A batch, some of whose transitions end the task."""
    return {
        "observations": make.normal(b, OBSERVATION_DIM),
        "actions": make.actions(b, d),
        "rewards": make.scores((b,), "rewards"),
        "masks": make.rng.choice([0.0, 1.0], (b,)),
        "next_observations": make.normal(b, OBSERVATION_DIM),
    }


def budgets_of(settings: Settings) -> tuple[Budget, ...]:
    """Budgets to act with, of the settings' own kernel and particle step where they have one."""
    if not settings.transports and "critic" not in settings.networks:
        return (BUDGETS[0],)
    own: dict[str, Any] = {"kernel": settings.budget.kernel}
    if settings.budget.optimiser not in PARTICLE_STEPS:
        own["optimiser"] = settings.budget.optimiser
    return tuple(dataclasses.replace(BUDGETS[i], **own) for i in (0, 2, 5))


def agent_equations(settings: Mapping[str, Settings]) -> dict[str, Equation]:
    """The equations that a method has a say in, tried on agents of given settings.

    Args:
        settings: by name, of one method or of several.
    """
    small = ((1, 1), (4, 2))

    def chosen(make: Maker) -> Settings:
        return settings[make.pick("settings", settings)]

    def budget(make: Maker, own: Settings) -> Budget:
        budgets = budgets_of(own)
        return budgets[make.pick("budget", range(len(budgets)))]

    def update(make: Maker) -> Arguments:
        own, (b, d) = chosen(make), make.pick("B,d", small)
        noise = draw_update_noise(int(make.rng.integers(2**31)), 0, b, d, own)
        return random_state(make, own, d), random_batch(make, b, d), noise, own

    def act(make: Maker) -> Arguments:
        own, (b, d), n = chosen(make), make.pick("B,d", small), make.pick("N", (1, 4))
        over = budget(make, own) if own.transports else BUDGETS[0]
        noise = draw_act_noise(int(make.rng.integers(2**31)), 0, b, n, d)
        return random_state(make, own, d), make.normal(b, OBSERVATION_DIM), noise, over, own

    def propose(make: Maker) -> Arguments:
        (b, n, d), own = make.sizes(), chosen(make)
        s, noise = make.normal(b, OBSERVATION_DIM), make.normal(b, n, d)
        return random_state(make, own, d), s, noise, own

    def move(make: Maker) -> Arguments:
        (b, n, d), own = make.sizes(), chosen(make)
        over, trajectory = budget(make, own), make.pick("trajectory", (False, True))
        s, a = make.normal(b, OBSERVATION_DIM), make.particles((b,), n, d)
        return random_state(make, own, d), s, a, over, own, trajectory

    def init(make: Maker) -> Arguments:
        seed = make.pick("seed", (0, 1, 2**31 - 1), compiled=False)
        return np.zeros(1), seed, 3, make.pick("d", (1, 2)), chosen(make)

    found = (
        Equation("update", update, _update, 1.0, 0.0, True),
        Equation("act", act, _act, 1.0, 0.0, True),
        Equation("propose", propose, None, 1.0, 0.0, False),
        Equation("move", move, None, 1.0, 1.0, True),
        Equation("init_state", init, _init, 1.0, 0.0, False),
    )
    return {tested.name: tested for tested in found}


def _update(b: Backend, state: Any, batch: Any, noise: Any, settings: Settings) -> Any:
    return b.update(state, batch, settings, noise)


def _act(b: Backend, state: Any, s: Any, noise: Any, budget: Budget, settings: Settings) -> Any:
    return b.act(state, s, budget, settings, noise=noise)


def _init(b: Backend, _: Any, seed: int, o: int, d: int, settings: Settings) -> Any:
    return b.init_state(seed, o, d, settings)


EQUATIONS |= agent_equations(SETTINGS)


@equation("sample_reference")
def _(make: Maker) -> Arguments:
    b, n, d = make.sizes()
    settings = SETTINGS[make.pick("settings", ("vgf", "vgf gaussian tanh", "avgf gaussian"))]
    kind = settings.reference_kind
    if kind == "gaussian":
        params = gaussian_network(make, d)
    else:
        params = init_mlp(make.rng, OBSERVATION_DIM + d + 1, settings.reference, d)
    return params, make.normal(b, OBSERVATION_DIM), make.normal(b, n, d), settings

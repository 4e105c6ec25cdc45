"""The settings of the method: what a run chooses, under the names a user types.

The paper's symbols stand beside each name. All classes are frozen and hashable, so that a
compiled backend can specialise on them.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field, fields
from typing import Any

METHODS = ("vgf", "avgf", "bc", "weighted_bc", "fql")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swish")
CRITIC_LOSSES = ("squared", "expectile", "sparse")
SELECTION_RULES = ("best", "softmax", "uniform")


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def _at_least(name: str, value: float, low: float, *, strict: bool = False) -> None:
    if not math.isfinite(value) or value < low or (strict and value == low):
        bound = f"above {low}" if strict else f"{low} or more"
        raise ValueError(f"{name} is {value!r}; it must be {bound}")


def _numbers(settings: Any, prefix: str = "") -> None:
    """Make numbers of the fields that should be: whole ones int, the others float.

    NumPy's scalars would widen float32 arrays, and a JAX scalar cannot be a static argument.
    """
    for entry in fields(settings):
        value, kind = getattr(settings, entry.name), str(entry.type)
        if value is None or kind.partition(" ")[0] not in ("int", "float"):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{prefix}{entry.name} is {value!r}; it must be a number") from None
        if not math.isfinite(number):
            raise ValueError(f"{prefix}{entry.name} is {value!r}; it must be finite")
        if kind == "int" and number != int(number):
            raise ValueError(f"{prefix}{entry.name} is {value!r}; it must be a whole number")
        object.__setattr__(settings, entry.name, int(number) if kind == "int" else number)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must lie in [{low}, {high}]")


@dataclass(frozen=True)
class Budget:
    """The transport budget (L, epsilon, alpha): how far particles may move from the reference.

    Args:
        steps: L, the number of flow steps. 0 leaves the reference alone (best-of-N).
        step_size: epsilon. Plain ascent multiplies the velocity by it; with Adam it is roughly
            the movement of one coordinate in one step, in units of the action.
        temperature: alpha, in units of the value Q. It balances the value's pull against the
            repulsion. ``None`` drops the entropy term, as the paper's experiments do.
        optimiser: "plain" ascent, or "adam" (the authors' code), with fresh moments for every
            transport.
        bandwidth: the kernel's sigma, in units of the action; ``None`` is the median heuristic.
        bandwidth_gradient: let the repulsion differentiate the median bandwidth too, as the
            authors' code does by accident of automatic differentiation. Off: the paper's equation.
        clip_norm: clip the velocity to this norm before the optimiser; ``None`` does not clip.
        clip_scope: the norm is taken over the particles of one "state" (states do not affect each
            other), or over the whole "batch" (the authors' code).
        low, high: the box that particles are projected on; ``None`` for no bound.

    Raises:
        ValueError: a setting out of its range, named.
    """

    steps: int = 5
    step_size: float = 0.1
    temperature: float | None = 0.1
    optimiser: str = "adam"
    bandwidth: float | None = None
    bandwidth_gradient: bool = False
    clip_norm: float | None = None
    clip_scope: str = "state"
    low: float | None = -1.0
    high: float | None = 1.0

    def __post_init__(self) -> None:
        _numbers(self, "budget.")
        _at_least("budget.steps", self.steps, 0)
        _at_least("budget.step_size", self.step_size, 0.0)
        _one_of("budget.optimiser", self.optimiser, ("plain", "adam"))
        _one_of("budget.clip_scope", self.clip_scope, ("state", "batch"))
        for name in ("temperature", "bandwidth", "clip_norm"):
            value = getattr(self, name)
            if value is not None:
                _at_least(f"budget.{name}", value, 0.0, strict=True)
        if self.bandwidth is not None and self.bandwidth_gradient:
            raise ValueError(
                "budget.bandwidth_gradient needs the median bandwidth; drop budget.bandwidth"
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"budget.low {self.low} must lie below budget.high {self.high}")


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron.

    Args:
        hidden: widths of the hidden layers.
        activation: "relu", "gelu" (exact, with the error function), "gelu_tanh" (its tanh
            approximation, flax's default) or "swish".
        layer_norm: LayerNorm with epsilon 1e-6 before each activation.

    Raises:
        ValueError: a setting out of its range, named.
    """

    hidden: tuple[int, ...] = (512, 512, 512, 512)
    activation: str = "relu"
    layer_norm: bool = False

    def __post_init__(self) -> None:
        widths = tuple(self.hidden) if isinstance(self.hidden, (tuple, list)) else ()
        object.__setattr__(self, "hidden", tuple(map(operator.index, widths)))
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"network.hidden is {self.hidden}; give at least one width, all >= 1")
        _one_of("network.activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True)
class Settings:
    """Everything one training update depends on, of VGF or of a baseline on the same path.

    Args:
        method: what is trained, and what acts.
            "vgf": the flow follows the critic through the kernel.
            "avgf": the flow follows f(s, a) alone, trained on the critic's action gradient.
            "bc": behaviour cloning; the reference alone, without a critic.
            "weighted_bc": the reference is fitted with the weights of the critic's advantages,
            and is itself the policy.
            "fql": a one-step policy, distilled from the flow reference and trained through the
            critic.
        critic, reference, gradient_field, policy: the networks Q, v (or the Gaussian's mean), f,
            and the one-step policy of "fql".
        ensemble: number of critics E.
        reference_kind: "flow" (flow matching) or "gaussian".
        reference_tanh: squash the Gaussian with tanh.
        sampling_steps: K, Euler steps of the flow reference.
        particles: N.
        budget: the training budget (L_train, epsilon, alpha).
        discount: gamma.
        polyak: tau, the share of the online critic mixed into the target critic.
        target_update: mix in the critic from "after" this update's gradient step, or from
            "before" it (the authors' code).
        target_ensemble: "min" or "mean" over the target critics in the TD target.
        target_particles: "mean" or "max" over the particles in the TD target.
        value_ensemble: "mean" or "min" over the critics the flow climbs.
        critic_loss: "squared", "expectile" or "sparse".
        expectile: tau_e of the expectile and sparse losses.
        normalise_gradients: A-VGF regresses on gradients normalised to unit length, row by row.
        distillation: FQL's weight of staying near the flow reference (alpha in its paper).
        normalise_values: FQL divides its value term by the mean of |Q|.
        weight_temperature: beta of weighted behaviour cloning, in units of Q.
        weight_maximum: its largest weight.
        learning_rate: Adam's, the same for all networks.
        clip_norm: global-norm clip of each network's gradient before Adam; ``None`` for none.
        selection: how acting picks a particle: "best", "softmax" or "uniform".
        selection_temperature: of the softmax, in units of Q.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    method: str = "vgf"
    critic: Network = field(default_factory=lambda: Network(layer_norm=True))
    reference: Network = field(default_factory=Network)
    gradient_field: Network = field(default_factory=lambda: Network(layer_norm=True))
    policy: Network = field(default_factory=Network)
    ensemble: int = 2
    reference_kind: str = "flow"
    reference_tanh: bool = False
    sampling_steps: int = 10
    particles: int = 10
    budget: Budget = field(default_factory=Budget)
    discount: float = 0.99
    polyak: float = 0.005
    target_update: str = "after"
    target_ensemble: str = "min"
    target_particles: str = "mean"
    value_ensemble: str = "mean"
    critic_loss: str = "squared"
    expectile: float = 0.9
    normalise_gradients: bool = False
    distillation: float = 10.0
    normalise_values: bool = False
    weight_temperature: float = 1.0
    weight_maximum: float = 20.0
    learning_rate: float = 3e-4
    clip_norm: float | None = None
    selection: str = "best"
    selection_temperature: float = 1.0

    def __post_init__(self) -> None:
        _numbers(self)
        _one_of("method", self.method, METHODS)
        for name in ("ensemble", "sampling_steps", "particles"):
            _at_least(name, getattr(self, name), 1)
        _one_of("reference_kind", self.reference_kind, ("flow", "gaussian"))
        _one_of("target_update", self.target_update, ("after", "before"))
        _one_of("target_ensemble", self.target_ensemble, ("min", "mean"))
        _one_of("target_particles", self.target_particles, ("mean", "max"))
        _one_of("value_ensemble", self.value_ensemble, ("mean", "min"))
        _one_of("critic_loss", self.critic_loss, CRITIC_LOSSES)
        _one_of("selection", self.selection, SELECTION_RULES)
        for name in ("discount", "polyak"):
            _within(name, getattr(self, name), 0.0, 1.0)
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"expectile is {self.expectile!r}; it must lie in (0, 1)")
        _at_least("learning_rate", self.learning_rate, 0.0)
        _at_least("distillation", self.distillation, 0.0)
        for name in ("selection_temperature", "weight_temperature", "weight_maximum"):
            _at_least(name, getattr(self, name), 0.0, strict=True)
        if self.clip_norm is not None:
            _at_least("clip_norm", self.clip_norm, 0.0, strict=True)
        if self.reference_tanh and self.reference_kind == "flow":
            raise ValueError("reference_tanh belongs to reference_kind 'gaussian'")
        self._check_method()

    def _check_method(self) -> None:
        """Refuse settings that contradict the method."""
        for name, method in (("normalise_gradients", "avgf"), ("normalise_values", "fql")):
            if getattr(self, name) and self.method != method:
                raise ValueError(f"{name} belongs to method {method!r}")
        if self.method == "avgf" and self.value_ensemble == "min":
            raise ValueError(
                "method 'avgf' learns the gradient of the mean critic; "
                "value_ensemble 'min' has no part in it"
            )
        if self.method == "fql" and self.reference_kind != "flow":
            raise ValueError(
                "method 'fql' distils the flow reference; reference_kind must be 'flow'"
            )
        if not self.transports and self.budget.steps > 0:
            raise ValueError(
                f"method {self.method!r} moves no particles; budget.steps must be 0, "
                f"as method_settings({self.method!r}) has it"
            )

    @property
    def transports(self) -> bool:
        """Whether the method moves particles along the value's gradient."""
        return self.method in ("vgf", "avgf")

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the method trains."""
        critic = () if self.method == "bc" else ("critic",)
        own = {"avgf": ("gradient_field",), "fql": ("policy",)}
        return (*critic, "reference", *own.get(self.method, ()))


def method_settings(method: str, **overrides: Any) -> Settings:
    """A method as its authors run it, in all that is not a choice task by task.

    "avgf": N = 5, no entropy term, gradients and velocities clipped to norm 1 before Adam.
    "fql": one action, and the mean of the critics in its target. The baselines move no particles.

    Shapes:
        method: one of METHODS; overrides: fields of :class:`Settings`.

    Equation:
        None.

    Raises:
        TypeError: a field that does not exist.
        ValueError: an unknown method, or a setting out of its range.

    Source:
        Authors' code, `a_vgf.py` and its run scripts; Park et al. 2025 (FQL), its code's `fql.py`.
    """
    _one_of("method", method, METHODS)
    defaults: dict[str, Any] = {"method": method}
    if method == "avgf":
        defaults |= {"particles": 5, "clip_norm": 1.0}
        defaults["budget"] = Budget(steps=5, step_size=0.1, temperature=None, clip_norm=1.0)
    elif method != "vgf":
        defaults["budget"] = Budget(steps=0)
    if method == "fql":
        defaults |= {"particles": 1, "target_ensemble": "mean"}
    return Settings(**{**defaults, **overrides})

"""The settings of the method: what a run chooses, under the names a user types.

The paper's symbols are given beside each name. All classes are frozen and hashable, so that a
compiled backend can specialise on them.
"""

from __future__ import annotations

import math
import operator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from .parts import (
    KERNELS,
    SAMPLERS,
    TARGETS,
    CriticLoss,
    Kernel,
    ParticleStep,
    Sampler,
    SelectionRule,
    Target,
)
from .registry import Declared, find, name_of, names

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swish")
LAYER_NORMS = ("before", "after", "inner")
CRITIC_LOSSES = ("squared", "expectile", "sparse", "mean_squared")
SELECTION_RULES = ("best", "softmax", "uniform")
PARTICLE_STEPS = ("plain", "adam")


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def _part(settings: Any, name: str, kind: type, choices: tuple[str, ...], prefix: str = "") -> None:
    """Check a setting that is one of our choices, or names your own part."""
    given = getattr(settings, name)
    if not isinstance(given, str):
        object.__setattr__(settings, name, name_of(kind, given, f"{prefix}{name}"))
    elif given not in choices:
        find(kind, given, f"{prefix}{name}", choices)


def at_least(name: str, value: float, low: float, *, strict: bool = False) -> None:
    if not math.isfinite(value) or value < low or (strict and value == low):
        bound = f"above {low}" if strict else f"{low} or more"
        raise ValueError(f"{name} is {value!r}; it must be {bound}")


def _numbers(settings: Any, prefix: str = "") -> None:
    """Convert the fields that should be numbers: whole ones to int, the others to float.

    NumPy's scalars would widen float32 arrays, and a JAX scalar cannot be a static argument.
    """
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        kind = str(getattr(entry.type, "__name__", entry.type))
        if kind.partition(" ")[0] not in ("int", "float") or (value is None and "None" in kind):
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
            transport; or your own :class:`~vgf.spec.parts.ParticleStep`.
        kernel: "rbf", or your own :class:`~vgf.spec.parts.Kernel`; ``None`` moves each particle
            by itself, along its own score over alpha.
        bandwidth: the kernel's sigma, in units of the action; ``None`` is the median heuristic.
        kernel_guard: added to 2 sigma^2 in the kernel and its gradient, in squared units of the
            action; the authors' code has 1e-6. With 0, the equation, the repulsion grows as
            1 / sigma where the reference is narrow or saturated. Where particles are much closer
            to each other than alpha / |score|, it outweighs the score, and Adam, which goes by
            signs, moves them against the value in half of their coordinates until they have
            spread. With 1e-6 the repulsion of particles within about 1e-6 vanishes, and they
            climb; from 1e-4 apart it is there as without. Then a lower temperature, or None, helps.
        bandwidth_gradient: let the repulsion differentiate the median bandwidth too, as the
            authors' code does by accident of automatic differentiation. Off: the paper's equation.
        clip_norm: clip the velocity to this norm before the optimiser; ``None`` does not clip.
        clip_scope: the norm is taken over the particles of one "state" (states do not affect each
            other), or over the whole "batch" (the authors' code).
        low, high: the box that particles are projected onto; ``None`` for no bound.

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
    kernel: str | None = "rbf"
    kernel_guard: float = 0.0

    def __post_init__(self) -> None:
        _numbers(self, "budget.")
        at_least("budget.steps", self.steps, 0)
        at_least("budget.step_size", self.step_size, 0.0)
        _part(self, "optimiser", ParticleStep, PARTICLE_STEPS, "budget.")
        if self.kernel is not None:
            _part(self, "kernel", Kernel, KERNELS, "budget.")
        at_least("budget.kernel_guard", self.kernel_guard, 0.0)
        _one_of("budget.clip_scope", self.clip_scope, ("state", "batch"))
        for name in ("temperature", "bandwidth", "clip_norm"):
            value = getattr(self, name)
            if value is not None:
                at_least(f"budget.{name}", value, 0.0, strict=True)
        if self.bandwidth is not None and self.bandwidth_gradient:
            raise ValueError(
                "budget.bandwidth_gradient needs the median bandwidth; drop budget.bandwidth, or "
                "set budget.bandwidth_gradient to false"
            )
        if self.kernel is None and self.bandwidth is not None:
            raise ValueError("budget.bandwidth belongs to a kernel; drop it, or name a kernel")
        if self.kernel not in (None, "rbf") and self.bandwidth_gradient:
            raise ValueError(
                "budget.bandwidth_gradient belongs to budget.kernel 'rbf'; drop one of them"
            )
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"budget.low {self.low} must lie below budget.high {self.high}")

    @property
    def phi_settings(self) -> tuple[float | None, float | None, bool, str | None, float]:
        """What :func:`vgf.spec.phi` takes after a and g, in its order."""
        through = self.bandwidth_gradient
        return self.temperature, self.bandwidth, through, self.kernel, self.kernel_guard


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron.

    Args:
        hidden: widths of the hidden layers.
        activation: "relu", "gelu" (exact, with the error function), "gelu_tanh" (its tanh
            approximation, flax's default) or "swish".
        layer_norm: LayerNorm with epsilon 1e-6, "before" or "after" each activation, or "inner",
            before each but the last one (QGF's policy); ``None`` for none. True means "before" and
            False ``None``, as up to version 0.1.

    Raises:
        ValueError: a setting out of its range, named.
    """

    hidden: tuple[int, ...] = (512, 512, 512, 512)
    activation: str = "relu"
    layer_norm: str | bool | None = None

    def __post_init__(self) -> None:
        widths = tuple(self.hidden) if isinstance(self.hidden, (tuple, list)) else ()
        object.__setattr__(self, "hidden", tuple(map(operator.index, widths)))
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"network.hidden is {self.hidden}; give at least one width, all >= 1")
        _one_of("network.activation", self.activation, ACTIVATIONS)
        if isinstance(self.layer_norm, bool):
            object.__setattr__(self, "layer_norm", "before" if self.layer_norm else None)
        if self.layer_norm is not None:
            _one_of("network.layer_norm", self.layer_norm, (*LAYER_NORMS, "none"))
        if self.layer_norm == "none":
            object.__setattr__(self, "layer_norm", None)


class _ByMethod(type):
    """Makes settings of the class that their method declares.

    So ``Settings(method="fql", distillation=3.0)`` is an ``FQLSettings``. Settings of another
    method are left out where they have no effect: sizes of its networks, and its own defaults.
    """

    def __call__(cls, *values: Any, **named: Any) -> Any:
        method = values[0] if values else named.get("method", _method_of(cls))
        name = name_of(Declared, method, "method")
        made = find(Declared, name, "method").Settings
        values, named = values[1:], {**named, "method": name}
        own = {entry.name for entry in fields(made)}
        for key in sorted(set(named) - own):
            known = [own for own in settings_of_methods() if own.name == key]
            if not known:
                break  # the class itself reports that it has no such setting
            value, owner = named.pop(key), known[0].method
            if value != known[0].default and not isinstance(value, Network):
                raise ValueError(f"{key} belongs to method {owner!r}, not {name!r}; drop it")
        if len(values) > len(_names_of(made)):
            raise TypeError(
                f"{made.__name__} takes fewer than {len(values) + 1} arguments in order"
            )
        placed = dict(zip(_names_of(made), values, strict=False))
        return type.__call__(made, **placed, **named)


@dataclass(frozen=True)
class SettingOfMethod:
    """A setting that only some methods have: its name, the method's, and its default."""

    name: str
    method: str
    default: Any


def settings_of_methods() -> list[SettingOfMethod]:
    """The settings that known methods add to those of every method.

    Shapes:
        None.

    Equation:
        None.

    Source:
        Ours.
    """
    common = set(_names_of(Settings)) | {"method"}
    return [
        SettingOfMethod(entry.name, name, _default(entry))
        for name in names(Declared)
        for entry in fields(find(Declared, name, "method").Settings)
        if entry.name not in common
    ]


def _default(entry: Any) -> Any:
    return entry.default_factory() if entry.default is MISSING else entry.default


def _names_of(settings: type) -> list[str]:
    """The fields after `method`, in order."""
    return [entry.name for entry in fields(settings) if entry.name != "method"]


def _method_of(settings: type) -> str:
    """The method a settings class belongs to; the first of those that share it."""
    for name in names(Declared):
        if find(Declared, name, "method").Settings is settings:
            return name
    raise ValueError(
        f"{settings.__name__} are the settings of no method that is loaded; use "
        "vgf.method_settings(YourMethod, ...)"
    )


@dataclass(frozen=True)
class Settings(metaclass=_ByMethod):
    """Everything one training update depends on. A method may add settings of its own.

    The defaults are one choice of the authors' and one of ours: the sizes, rates and the particle
    optimiser are those of their code, but where that code departs from the paper's equations (the
    median bandwidth differentiated, the kernel's guard, the target from before the step, the clip
    over the batch) the defaults are the equations. ``vgf run --follow authors``, and every preset,
    sets the departures too.

    Args:
        method: what is trained, and what acts: "vgf", "avgf", "bc", "weighted_bc", "fql",
            "iql", "td" (see :mod:`vgf.spec.methods`), or ``module:object``, your own method.
        critic, reference: the networks Q, and v (or the Gaussian's mean).
        ensemble: number of critics E.
        reference_kind: "flow" (flow matching) or "gaussian".
        reference_tanh: squash the Gaussian with tanh.
        sampler: how the flow reference is integrated: "euler", or your own
            :class:`~vgf.spec.parts.Sampler`.
        sampling_steps: K, Euler steps of the flow reference.
        time_features: what the flow reference is given of the time t: 1 is t itself, an even number
            that many cosines and sines of it (QGF's code has 16).
        particles: N.
        budget: the training budget (L_train, epsilon, alpha).
        discount: gamma.
        polyak: tau, the share of the online critic mixed into the target critic.
        target_update: mix in the critic from "after" this update's gradient step, or from
            "before" it (the authors' code).
        target_ensemble: "min" or "mean" over the target critics in the TD target.
        target_particles: "mean" or "max" over the particles in the TD target.
        target: how the target is formed: "td", or your own :class:`~vgf.spec.parts.Target`.
        value_ensemble: "mean" or "min" over the critics the flow climbs.
        critic_loss: "squared", "expectile" or "sparse", summed over the critics; "mean_squared",
            averaged over them; or your own :class:`~vgf.spec.parts.CriticLoss`.
        expectile: tau_e of the expectile loss.
        sparse_alpha: alpha of the sparse loss, any positive number; ``None`` takes the expectile's,
            as up to version 0.1 and in the authors' code, which has one number for both.
        learning_rate: Adam's, of all networks but those named next.
        actor_learning_rate: Adam's for the networks that give actions, the method's `actors`: the
            reference, and FQL's policy; ``None`` is `learning_rate`.
        clip_norm: global-norm clip of each network's gradient before Adam; ``None`` for none.
        selection: how acting picks a particle: "best", "softmax" or "uniform", or your own
            :class:`~vgf.spec.parts.SelectionRule`.
        selection_temperature: of the softmax, in units of Q.

    Raises:
        ValueError: a setting out of its range, or a contradiction, named.
    """

    method: str = "vgf"
    critic: Network = field(default_factory=lambda: Network(layer_norm=True))
    reference: Network = field(default_factory=Network)
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
    learning_rate: float = 3e-4
    clip_norm: float | None = None
    selection: str = "best"
    selection_temperature: float = 1.0
    sampler: str = "euler"
    target: str = "td"
    actor_learning_rate: float | None = None
    sparse_alpha: float | None = None
    time_features: int = 1

    def __post_init__(self) -> None:
        _numbers(self)
        for name in ("ensemble", "sampling_steps", "particles"):
            at_least(name, getattr(self, name), 1)
        if self.time_features != 1 and (self.time_features < 2 or self.time_features % 2):
            raise ValueError(
                f"time_features is {self.time_features}; it must be 1, or an even number from 2 on"
            )
        if self.time_features > 1 and self.reference_kind != "flow":
            raise ValueError("time_features belongs to reference_kind 'flow'")
        _one_of("reference_kind", self.reference_kind, ("flow", "gaussian"))
        _one_of("target_update", self.target_update, ("after", "before"))
        _one_of("target_ensemble", self.target_ensemble, ("min", "mean"))
        _one_of("target_particles", self.target_particles, ("mean", "max"))
        _one_of("value_ensemble", self.value_ensemble, ("mean", "min"))
        _part(self, "critic_loss", CriticLoss, CRITIC_LOSSES)
        _part(self, "selection", SelectionRule, SELECTION_RULES)
        _part(self, "sampler", Sampler, SAMPLERS)
        _part(self, "target", Target, TARGETS)
        for name in ("discount", "polyak"):
            _within(name, getattr(self, name), 0.0, 1.0)
        if not 0.0 < self.expectile < 1.0:
            raise ValueError(f"expectile is {self.expectile!r}; it must lie in (0, 1)")
        at_least("learning_rate", self.learning_rate, 0.0)
        if self.actor_learning_rate is not None:
            at_least("actor_learning_rate", self.actor_learning_rate, 0.0)
        if self.sparse_alpha is not None:
            at_least("sparse_alpha", self.sparse_alpha, 0.0, strict=True)
        at_least("selection_temperature", self.selection_temperature, 0.0, strict=True)
        if self.clip_norm is not None:
            at_least("clip_norm", self.clip_norm, 0.0, strict=True)
        if self.reference_tanh and self.reference_kind == "flow":
            raise ValueError("reference_tanh belongs to reference_kind 'gaussian'")
        if self.sampler != "euler" and self.reference_kind != "flow":
            raise ValueError("sampler belongs to reference_kind 'flow'")
        self.declared.refuse(self)

    @property
    def declared(self) -> Any:
        """What the method declares: a :class:`vgf.spec.methods.Declaration`."""
        return find(Declared, self.method, "method")

    def learning_rate_of(self, network: str) -> float:
        """Adam's learning rate of one of the method's networks."""
        if network in self.declared.actors and self.actor_learning_rate is not None:
            return self.actor_learning_rate
        return self.learning_rate

    @property
    def transports(self) -> bool:
        """Whether the method moves particles along the value's gradient."""
        return bool(self.declared.transports)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the method trains."""
        return tuple(self.declared.trains)


def method_settings(method: str, **overrides: Any) -> Settings:
    """A method in its authors' form, except for what they choose task by task.

    VGF and A-VGF follow the equations where their authors' code departs from them, as
    :class:`Settings` says; FQL is its authors' code.

    Shapes:
        method: its name, or your own (a class or an object); overrides: its settings.

    Equation:
        None.

    Raises:
        TypeError: a setting that does not exist.
        ValueError: an unknown method, or a setting out of its range.

    Source:
        The method's `defaults`; see :mod:`vgf.spec.methods`.
    """
    name = name_of(Declared, method, "method")
    declared = find(Declared, name, "method")
    still = {} if declared.transports else {"budget": Budget(steps=0)}
    settings: Settings = Settings(**{"method": name, **still, **declared.defaults, **overrides})
    return settings


def __getattr__(name: str) -> Any:
    """What had a name here up to version 0.1: the methods of this package."""
    if name == "METHODS":
        return tuple(method for method in names(Declared) if ":" not in method)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A whole method against its specification: the same search as ours, and the same updates."""

from __future__ import annotations

import contextlib
import dataclasses
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import hypothesis
import numpy as np

from ..backends import BackendError, available_backends, get_backend
from ..backends.base import DTYPES, Backend
from ..backends.numpy import NumpyBackend
from ..methods import find_method
from ..spec.registry import Declared, name_of
from ..spec.settings import Network, Settings, method_settings
from ..spec.update import act
from ..support.errors import VGFError
from ..support.objects import short_error
from .compare import Difference, tolerance_in_words
from .equations import SETTINGS, Equation, Mismatch, agent_equations, budgets_of, check
from .training import DRIFT_BOUND, OBSERVATION_DIM, TRAININGS, measure_drift, train

EXAMPLES, UPDATES = 20, 100


@dataclasses.dataclass(frozen=True)
class Compared:
    """One comparison of a method with its specification.

    Attributes:
        what: "update", "act", "propose", "move", or "training: " and the name of its settings.
        tried: how many examples, or how many updates until the end or the first that differs.
        worst: the largest error relative to the tolerance; of a training, the largest relative
            difference of an array.
        differs: what differs, in words, the most telling first; () where they agree.
        says: the finding in full, or "".
    """

    backend: str
    dtype: str
    what: str
    tried: int
    worst: float
    differs: tuple[str, ...] = ()
    says: str = ""


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """What a check of a method found.

    Attributes:
        method, specification: their names.
        settings: the settings of the search, and of the trainings, by name.
        compared: every comparison.
    """

    method: str
    specification: str
    settings: tuple[str, ...]
    compared: tuple[Compared, ...]

    @property
    def agrees(self) -> bool:
        return not any(entry.says for entry in self.compared)

    def __str__(self) -> str:
        verdict = "agrees with" if self.agrees else "DIFFERS from"
        lines = [f"method {self.method} {verdict} its specification, {self.specification}", ""]
        for entry in self.compared:
            training = entry.what.startswith("training")
            unit = "updates" if training else "examples"
            error = f"{entry.worst:.1e}" if training else f"{entry.worst:.4f} x tolerance"
            start = f"  {entry.backend:5} {entry.dtype} {entry.what:32} {entry.tried:3} {unit:8}"
            lines.append(f"{start} {'DIFFERS' if entry.says else error}")
        for entry in self.compared:
            if entry.says:
                lines += ["", f"{entry.what} on {entry.backend} {entry.dtype}:"]
                lines += [f"  first differs: {entry.differs[0]}"] if entry.differs else []
                if entry.differs[1:]:
                    lines.append(_fill(f"also: {', '.join(entry.differs[1:])}", "  "))
                lines.append(_fill(entry.says, "  "))
        lines += ["", _fill(f"tolerance: {tolerance_in_words()}")]
        lines.append(_fill(f"of a training: {DRIFT_BOUND:g} of the largest number of each array"))
        lines.append(_fill(f"settings tried: {', '.join(self.settings)}"))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, words and lists."""
        compared = [
            {**dataclasses.asdict(c), "worst": c.worst if np.isfinite(c.worst) else str(c.worst)}
            for c in self.compared
        ]
        return {
            "method": self.method,
            "specification": self.specification,
            "agrees": self.agrees,
            "settings": list(self.settings),
            "compared": compared,
            "tolerance": tolerance_in_words(),
            "tolerance_of_training": DRIFT_BOUND,
        }


def _fill(text: str, indent: str = "") -> str:
    rest = f"{indent}  "
    return textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=rest)


class MethodMismatch(Mismatch):
    """A method differs from its specification; the message is what `vgf check` prints.

    Attributes:
        result: all that was found.
    """

    def __init__(self, result: MethodResult) -> None:
        super().__init__(f"\n{result}")
        self.result = result


def check_method(
    method: Any,
    backends: str | Backend | Iterable[str | Backend] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    examples: int = EXAMPLES,
    seed: int = 0,
    updates: int = UPDATES,
    dtype: str | None = None,
) -> MethodResult:
    """Compare a method with its specification, as this package's own methods are compared.

    `update`, `act`, `propose` and `move` run on random networks, batches and noise,
    in its default settings with small networks and in every variation of them that it accepts;
    then whole trainings run update by update in float64.

    Args:
        method: a class derived from :class:`vgf.methods.Method`, its name (``module:class`` or
            ``path/to/file.py:class``), or the name of one of this package's methods.
        backends: a name, a backend, or several; None is torch and JAX, where installed.
        settings: held at a value in every comparison, such as
            ``{"budget.kernel": "mypkg.mine:IMQ"}``: so a part of one's own is checked.
        examples: of each function in each dtype.
        seed: of the search.
        updates: of each training.
        dtype: "float64" or "float32" for the search in that alone; None is both.

    Returns:
        What was compared, where all agrees.

    Raises:
        MethodMismatch: they differ; an AssertionError.
        VGFError: a method without a specification, or a request that makes no sense.
    """
    if examples < 1 or updates < 1:
        raise VGFError(f"examples is {examples} and updates {updates}; both must be 1 or more")
    if dtype not in (None, *DTYPES):
        raise VGFError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    changes = settings or {}
    try:
        name = name_of(Declared, method, "method")
        beside = find_method(name).specification
        if beside is None:
            raise VGFError(
                f"method {name!r} has no `specification`, so there is nothing to compare it with; "
                "give it one, a vgf.spec.Specification in NumPy"
            )
        _changed(method_settings(name), changes)
        searched = _settings_of(name, SETTINGS, (8, 4), changes)
        trained = _settings_of(name, TRAININGS, (32, 32), changes)
    except (ValueError, TypeError) as error:
        raise VGFError(str(error)) from error
    _try_specification(name, {**searched, **trained})
    compared: list[Compared] = []
    for backend in _backends(backends, dtype or "float64"):
        found = _search(backend, searched, examples, seed)
        if dtype is None and not any(entry.says for entry in found):
            found += _search(_in_dtype(backend, "float32"), searched, examples, seed)
        exact = _in_dtype(backend, "float64")
        found += [_training(exact, *named, updates, seed) for named in trained.items()]
        compared += found
    tried = tuple(dict.fromkeys([*searched, *trained]))
    result = MethodResult(name, type(beside).__name__, tried, tuple(compared))
    if not result.agrees:
        raise MethodMismatch(result)
    return result


# --- on which backends ---------------------------------------------------------------------------


def _backends(asked: str | Backend | Iterable[str | Backend] | None, dtype: str) -> list[Backend]:
    names: Iterable[str | Backend]
    if asked is None:
        names = [name for name in available_backends() if name != "numpy"]
    else:
        names = [asked] if isinstance(asked, (str, Backend)) else asked
    made = [
        get_backend(b, dtype=dtype, device="cpu") if isinstance(b, str) else _in_dtype(b, dtype)
        for b in names
    ]
    if not made:
        raise BackendError(
            "neither torch nor JAX is installed here, so there is nothing to compare with NumPy; "
            "install an extra: pip install 'vgf[torch]', or 'vgf[jax]'"
        )
    return made


def _in_dtype(backend: Backend, dtype: str) -> Backend:
    if backend.dtype == dtype:
        return backend
    return get_backend(backend.name, dtype=dtype, device=backend.device)


# --- in which settings ---------------------------------------------------------------------------

# What is changed in the defaults of a method, where it accepts that.
_VARIATIONS: dict[str, dict[str, Any]] = {
    "gaussian": {"reference_kind": "gaussian"},
    "gaussian tanh": {"reference_kind": "gaussian", "reference_tanh": True, "ensemble": 1},
    "other rules": {
        "target_particles": "max",
        "value_ensemble": "min",
        "target_update": "before",
        "particles": 3,
    },
    "mean target": {"target_ensemble": "mean", "critic_loss": "expectile", "clip_norm": 1.0},
    "sparse": {"critic_loss": "sparse", "particles": 1, "selection": "softmax"},
}
_TRAINED = ("defaults", "gaussian", "own settings")


def _settings_of(
    name: str, ours: Mapping[str, Settings], hidden: tuple[int, ...], changes: Mapping[str, Any]
) -> dict[str, Settings]:
    """Settings to try a method in: those listed for it, or else its defaults and variations."""
    found = {key: value for key, value in ours.items() if value.method == name}
    if not found:
        found = _varied(name, hidden)
        if ours is TRAININGS:
            found = {key: value for key, value in found.items() if key in _TRAINED}
    kept: dict[str, Settings] = {}
    for key, value in found.items():
        try:
            value = _changed(value, changes)
        except ValueError:  # a variation that contradicts what is held
            continue
        if value not in kept.values():
            kept[key] = value
    if not kept:
        raise ValueError(f"method {name!r} accepts no settings with {dict(changes)}")
    return kept


def _varied(name: str, hidden: tuple[int, ...]) -> dict[str, Settings]:
    """A method's defaults with small networks, and variations that it does not refuse."""
    small = method_settings(name)
    steps = min(small.budget.steps, 3)
    sizes: dict[str, Any] = {
        field.name: dataclasses.replace(value, hidden=hidden)
        for field in dataclasses.fields(small)
        if isinstance(value := getattr(small, field.name), Network)
    }
    sizes["particles"] = min(small.particles, 4)
    sizes["sampling_steps"] = min(small.sampling_steps, 3)
    sizes["budget"] = dataclasses.replace(small.budget, steps=steps)
    for key, size in sizes.items():
        with contextlib.suppress(ValueError):  # the method needs more
            small = dataclasses.replace(small, **{key: size})
    variations = dict(_VARIATIONS)
    if steps:
        _, plain, clipped = budgets_of(small)
        variations |= {"plain ascent": {"budget": plain}, "clipped": {"budget": clipped}}
    common, others = {field.name for field in dataclasses.fields(Settings)}, small
    for field in dataclasses.fields(small):
        value = getattr(small, field.name)
        if field.name in common or not isinstance(value, (int, float)):
            continue
        if isinstance(value, bool):
            variations[f"{field.name} = {not value}"] = {field.name: not value}
            continue
        other: Any = value + 1 if isinstance(value, int) else value / 2 or 0.5
        with contextlib.suppress(ValueError):
            others = dataclasses.replace(others, **{field.name: other})
    found = {"defaults": small}
    for key, changes in variations.items():
        with contextlib.suppress(ValueError):  # the method refuses it
            found[key] = dataclasses.replace(small, **changes)
    return found if others is small else {**found, "own settings": others}


def small_settings(method: Any, changes: Mapping[str, Any]) -> Settings:
    """A method's settings with small networks, and some held at a value.

    Raises:
        VGFError: an unknown method, or settings that it has not or refuses.
    """
    try:
        name = name_of(Declared, method, "method")
        return _changed(_varied(name, (16, 16))["defaults"], changes)
    except (ValueError, TypeError) as error:
        raise VGFError(str(error)) from error


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Settings with some held at a value; a name may have a dot in it, as `budget.kernel`."""
    for key, value in changes.items():
        group, dot, name = key.partition(".")
        part: Any = getattr(settings, group, None)
        known = hasattr(settings, group) and (not dot or hasattr(part, name))
        if not known or group == "method":
            raise ValueError(f"method {settings.method!r} has no setting {key!r}")
        if dot:
            value = dataclasses.replace(part, **{name: value})
        settings = dataclasses.replace(settings, **{group: value})
    return settings


# --- comparing -----------------------------------------------------------------------------------


def _try_specification(name: str, settings: Mapping[str, Settings]) -> None:
    """Run the specification once in each of the settings, so that it is there to compare with."""
    reference = NumpyBackend("cpu", "float64", "float32")
    for key, own in settings.items():
        try:
            state = train(reference, own, 1)
            act(state, np.zeros((2, OBSERVATION_DIM)), own.budget, own)
        except Exception as error:
            raise VGFError(
                f"the specification of method {name!r} does not run ({key}), so there is nothing "
                f"to compare with: {short_error(error)}"
            ) from error


def _search(
    backend: Backend, settings: Mapping[str, Settings], examples: int, seed: int
) -> list[Compared]:
    """Every function of a method on one backend."""
    found: list[Compared] = []
    programs = max(examples // 4, len(settings)) if backend.name == "jax" else None
    for name, equation in agent_equations(settings).items():
        if name != "init_state":  # the same for every method
            found.append(_compare(backend, equation, examples, seed, programs))
    return found


def _compare(
    backend: Backend, equation: Equation, examples: int, seed: int, programs: int | None
) -> Compared:
    what, place = equation.name, (backend.name, backend.dtype)
    try:
        report = check(backend, equation, examples, seed, programs=programs)
    except Mismatch as mismatch:
        found = mismatch.found or Difference()
        return Compared(*place, what, examples, found.ratio, _words(what, found), str(mismatch))
    except hypothesis.errors.HypothesisException as error:
        says = "one input gave two results: it may draw random numbers itself, or keep something "
        return Compared(*place, what, examples, np.inf, (), f"{says}between calls ({error})")
    except Exception as error:
        return Compared(*place, what, examples, np.inf, (), f"it raises {short_error(error)}")
    return Compared(*place, what, report.examples, report.worst.ratio)


def _training(backend: Backend, name: str, own: Settings, updates: int, seed: int) -> Compared:
    what, place = f"training: {name}", (backend.name, backend.dtype)
    try:
        found = measure_drift(backend, own, updates, seed, DRIFT_BOUND)
    except Exception as error:
        return Compared(*place, what, updates, np.inf, (), f"it raises {short_error(error)}")
    if found.relative <= DRIFT_BOUND:
        return Compared(*place, what, found.updates, found.relative)
    differs = (_part_of_state(found.leaf),)
    says = f"after update {found.updates}, {found.leaf} is off by {found.relative:.2g} of its size"
    return Compared(*place, what, found.updates, found.relative, differs, says)


_RESULTS = {
    "propose": "the particles proposed",
    "move": "the particles moved",
    "0": "the actions",
    "1.start": "the particles proposed",
    "1.moved": "the particles moved",
    "1.q": "their values",
    "1.index": "the particle picked",
}


def _words(what: str, found: Difference) -> tuple[str, ...]:
    """What differs, the most telling first: metrics and gradients, then what follows from them."""
    leaves = found.leaves or (found.leaf,)
    if what == "update":
        metrics = [f"metric {leaf[2:]!r}" for leaf in leaves if leaf.startswith("1.")]
        parts = [_part_of_state(leaf[2:]) for leaf in leaves if leaf.startswith("0.")]
        gradients = [part for part in parts if part.startswith("the gradient")]
        follow = [part for part in parts if not gradients]
        return tuple(dict.fromkeys([*metrics, *gradients, *follow]))
    order = [key for key in _RESULTS if key in leaves] if what == "act" else [what]
    return tuple(_RESULTS[key] for key in sorted(order, key=lambda key: key == "0"))


def _part_of_state(leaf: str) -> str:
    """An array of an agent's state, in words: Adam's averages are those of the gradient."""
    first, _, rest = leaf.partition(".")
    if first == "optimiser":
        return f"the gradient of network {rest.partition('.')[0]!r}"
    return f"network {first!r}" if rest else first

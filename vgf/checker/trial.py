"""Trying a function from outside on drawn inputs, beside the specification."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ..backends.numpy import NumpyBackend
from ..spec.settings import Budget, Settings
from ..support.errors import VGFError
from ..support.objects import short_error
from ..testing.compare import Difference, difference, expected_and_sensitivity, named_leaves
from ..testing.equations import Arguments, is_data, rounded
from ..testing.rewired import Rewired
from .adapter import Adapter, Arrays, Caller, Reading
from .subjects import Linear, NamedMaker, SmallMaker, Subject

SPECIFICATION = NumpyBackend("cpu", "float64", "float32")
# What the parts of a result are called.
PARTS = {
    "flow_step": ("particles", "state"),
    "select": ("action", "index"),
    "update": ("state", "metrics"),
    "act": ("actions", "info"),
    "adam_step": ("params", "state"),
    "mlp_vjp": ("gradient of params", "gradient of x"),
    "ensemble_vjp": ("gradient of params", "gradient of x"),
    "flow_matching_gradient": ("loss", "gradient"),
    "gaussian_gradient": ("loss", "gradient"),
    "critic_gradient": ("loss", "gradient"),
    "gradient_field_gradient": ("loss", "gradient"),
    "policy_gradient": ("loss", "gradient"),
}


@dataclasses.dataclass
class Outcome:
    """One input, the specification's result and theirs.

    Attributes:
        arguments: what was drawn, holding numbers of the dtype.
        named: the same as theirs could be given it.
        chosen: what the strategy chose: sizes, kinds of particles, settings.
        expected, sensitivity, got: see `vgf.testing.compare`; parts that theirs lacks are gone.
        found: how they differ.
        error: the exception that theirs raised, in one line, or "".
        changed: an argument of theirs that it changed in place, or "".
        skipped: parts of the result that were not compared.
    """

    arguments: Arguments
    named: Mapping[str, Any]
    chosen: Mapping[str, Any]
    dtype: str
    expected: Any = None
    sensitivity: Any = None
    got: Any = None
    found: Difference = dataclasses.field(default_factory=Difference)
    error: str = ""
    changed: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.error and self.found.agrees

    @property
    def size(self) -> tuple[float, ...]:
        """How much there is to read: smaller is better."""
        arrays = [np.asarray(x) for a in self.arguments if is_data(a) for _, x in named_leaves(a)]
        count = sum(x.size for x in arrays)
        full = sum(int(np.count_nonzero(x)) for x in arrays)
        odd = sum(int(np.count_nonzero(x != np.round(x))) for x in arrays if x.dtype.kind == "f")
        options = sum(_weight(a) for a in self.arguments if not is_data(a))
        return (count, options, full + odd, sum(float(np.sum(np.abs(x))) for x in arrays))


def _weight(option: Any) -> float:
    """How much of a setting there is to read."""
    if isinstance(option, Budget):
        plain = Budget(steps=1, optimiser="plain", temperature=None)
        return sum(
            getattr(option, f.name) != getattr(plain, f.name) for f in dataclasses.fields(option)
        ) + float(option.steps)
    return 0.0 if option in (None, False, 1.0, 0.0) else 1.0


@dataclasses.dataclass
class Trial:
    """Their function under one reading, ready to be tried on inputs."""

    function: Any
    reading: Reading
    adapter: Adapter
    arrays: Arrays

    def __post_init__(self) -> None:
        self.caller = Caller(self.function, self.reading, self.adapter, self.arrays)

    @property
    def subject(self) -> Subject:
        return self.reading.subject

    def prepare(self, drawn: Arguments) -> tuple[Arguments, dict[str, Any]]:
        """Drawn arguments with what is held fixed; scores that theirs asks a function for."""
        subject = self.subject
        arguments = subject.fix(drawn, self.reading.fixed)
        absent = subject.absent(arguments) & self.reading.numbers
        arguments = subject.fix(arguments, dict.fromkeys(absent, 0.5))
        kinds = {
            s.value.partition("(")[0].strip()
            for s in self.reading.sources.values()
            if s.kind == "closure"
        }
        named = subject.named(arguments)
        if "g" in subject.parameters and kinds & {"score", "value"}:
            a, g = named["a"], named["g"]
            rows = g.reshape(-1, g.shape[-1])
            field = Linear(np.abs(rows[-1]) / 2, rows[0])
            names = list(subject.drawn_names)
            changed = list(arguments)
            changed[names.index("g")] = field.score(a)
            arguments = tuple(changed)
            named = {**subject.named(arguments), "(field)": field}
        return arguments, named

    def run(self, drawn: Arguments, chosen: Mapping[str, Any], dtype: str) -> Outcome:
        """Theirs and the specification on one input."""
        drawn = tuple(rounded(argument, dtype) for argument in drawn)
        arguments, named = self.prepare(drawn)
        outcome = Outcome(arguments, named, chosen, dtype)
        expected, sensitivity = self.expect(arguments, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                got = self.caller(named, dtype)
            except VGFError:
                raise
            except Exception as error:
                outcome.error = short_error(error)
                outcome.expected = expected
                return outcome
        outcome.changed = self.caller.changed
        self.judge(outcome, got, expected, sensitivity)
        return outcome

    def judge(self, outcome: Outcome, got: Any, expected: Any, sensitivity: Any) -> None:
        """Compare a result of theirs with the specification's."""
        names = PARTS.get(self.subject.name, ())
        whole = got
        got, expected, skipped = align(whole, expected, names)
        _, sensitivity, _ = align(whole, sensitivity, names)
        outcome.got, outcome.expected, outcome.skipped = got, expected, skipped
        outcome.sensitivity = sensitivity
        outcome.found = self.differ(outcome, expected, sensitivity)

    def differ(self, outcome: Outcome, expected: Any, sensitivity: Any) -> Difference:
        """How far their result is from an expected one."""
        got = as_dtype(outcome.got, expected, outcome.dtype)
        return difference(got, expected, outcome.dtype, sensitivity, self.subject.equation.floor)

    def expect(
        self, arguments: Arguments, dtype: str, variants: tuple[Any, ...] = ()
    ) -> tuple[Any, Any]:
        """The specification's result, or that of variants of it, and its sensitivity by parts."""
        equation = self.subject.equation
        backend = Rewired(variants) if variants else SPECIFICATION

        def shaken(seed: int, *args: Any) -> Any:
            rough = Rewired(variants, (dtype, seed)) if equation.jitter else backend
            return equation.run(rough, *args)

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                expected, moves = expected_and_sensitivity(
                    lambda *args: equation.run(backend, *args),
                    arguments,
                    dtype,
                    equation.unit,
                    shaken,
                )
            except (ValueError, TypeError) as error:
                if variants:
                    raise
                raise VGFError(f"the specification refuses what is held fixed: {error}") from error
        return expected, _like(expected, moves)

    def resembles(self, outcome: Outcome, variants: tuple[Any, ...]) -> bool:
        """Whether theirs is so near that of variants that a closer look is worth its time."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                expected = self.subject.equation.run(Rewired(variants), *outcome.arguments)
            except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError):
                return False
            _, expected, _ = align(outcome.got, expected, PARTS.get(self.subject.name, ()))
            mine, want = named_leaves(outcome.got), named_leaves(expected)
            rtol = 1e-6 if outcome.dtype == "float64" else 1e-2
            return len(mine) == len(want) and all(
                np.shape(x) == np.shape(y)
                and np.allclose(x, y, rtol, rtol * np.max(np.abs(y), initial=0.0), equal_nan=True)
                for (_, x), (_, y) in zip(mine, want, strict=True)
            )

    def variant(self, outcome: Outcome, variants: tuple[Any, ...]) -> Difference:
        """How far their result is from that of variants of the specification."""
        equation = self.subject.equation
        names = PARTS.get(self.subject.name, ())
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                expected = equation.run(Rewired(variants), *outcome.arguments)
            except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError):
                return Difference(ratio=np.inf, fault="it cannot be computed")
            _, expected, _ = align(outcome.got, expected, names)
            found = self.differ(outcome, expected, outcome.sensitivity)
            if found.agrees or found.fault or found.ratio > 1e7:
                return found
            # the variant's own sensitivity may be larger than the specification's
            _, moves = self.expect(outcome.arguments, outcome.dtype, variants)
            _, moves, _ = align(outcome.got, moves, names)
            return self.differ(outcome, expected, moves)


def _like(expected: Any, moves: Mapping[str, Any], name: str = "") -> Any:
    """The flat sensitivity in the shape of the result, so that parts can be taken from both."""
    if expected is None:
        return None
    if isinstance(expected, dict):
        return {k: _like(v, moves, f"{name}.{k}" if name else str(k)) for k, v in expected.items()}
    if isinstance(expected, (tuple, list)):
        return tuple(
            _like(v, moves, f"{name}.{i}" if name else str(i)) for i, v in enumerate(expected)
        )
    return moves[name]


def align(got: Any, expected: Any, names: tuple[str, ...] = ()) -> tuple[Any, Any, tuple[str, ...]]:
    """Leave out what the other lacks of a result with several parts.

    Returns:
        both results, and the names of the parts of the expected one that are not compared.
    """

    def label(i: int) -> str:
        return names[i] if i < len(names) else f"part {i}"

    if isinstance(expected, tuple):
        if isinstance(got, tuple) and len(got) == len(expected):
            kept, skipped = [], []
            for i, (mine, want) in enumerate(zip(got, expected, strict=True)):
                if want is None or (isinstance(want, dict) and not _shares_keys(mine, want)):
                    skipped += [label(i)] if want is not None else []
                    continue
                if isinstance(want, dict) and isinstance(mine, dict) and label(i) == "metrics":
                    shared = [key for key in want if key in mine]
                    skipped += [f"metrics {k}" for k in want if k not in mine]
                    mine, want = {k: mine[k] for k in shared}, {k: want[k] for k in shared}
                kept.append((mine, want))
            if len(kept) == 1:
                return *kept[0], tuple(skipped)
            return tuple(x for x, _ in kept), tuple(y for _, y in kept), tuple(skipped)
        if not isinstance(got, tuple):
            fits = [
                i
                for i, want in enumerate(expected)
                if isinstance(want, dict) == isinstance(got, dict) and want is not None
            ]
            same = [i for i in fits if np.shape(expected[i]) == np.shape(got)] or fits
            if same:
                rest = tuple(
                    label(i) for i, want in enumerate(expected) if i != same[0] and want is not None
                )
                return got, expected[same[0]], rest
    elif isinstance(got, tuple) and not isinstance(expected, dict):
        fits = [x for x in got if np.shape(x) == np.shape(expected) and not isinstance(x, dict)]
        if len(fits) == 1:
            return fits[0], expected, ()
    return got, expected, ()


def _shares_keys(mine: Any, want: dict[str, Any]) -> bool:
    return isinstance(mine, dict) and bool(mine.keys() & want.keys())


def as_dtype(got: Any, expected: Any, dtype: str) -> Any:
    """Their result in the dtype it is judged in: a wider float, or a whole number for a float."""
    if isinstance(got, dict):
        inner = expected if isinstance(expected, dict) else {}
        return {k: as_dtype(v, inner.get(k), dtype) for k, v in got.items()}
    if isinstance(got, tuple):
        parts = expected if isinstance(expected, tuple) else ()
        return tuple(
            as_dtype(v, parts[i] if i < len(parts) else None, dtype) for i, v in enumerate(got)
        )
    if got is None:
        return None
    array, want = np.asarray(got), np.asarray(0.0 if expected is None else expected)
    if want.dtype.kind == "f" and (array.dtype.kind in "iub" or array.dtype == np.float64):
        return array.astype(dtype)
    return array


def float_dtypes(got: Any) -> set[str]:
    """The floating dtypes in a result, those of its scalars only if it has nothing else."""
    leaves = [x for _, x in named_leaves(got) if np.asarray(x).dtype.kind == "f"]
    arrays = [x for x in leaves if np.ndim(x)] or leaves
    return {str(np.asarray(x).dtype) for x in arrays}


# --- drawing many --------------------------------------------------------------------------------

Drawn = tuple[Arguments, Mapping[str, Any]]


def draw_many(subject: Subject, examples: int, seed: int) -> list[Drawn]:
    """Inputs of a subject, the same for the same seed."""
    found: list[Drawn] = []

    @st.composite
    def strategy(draw: st.DrawFn) -> Drawn:
        maker = NamedMaker(draw)
        return subject.draw(maker), maker.chosen

    @hypothesis.seed(seed)
    @_settings(examples, [hypothesis.Phase.generate])
    @hypothesis.given(strategy())
    def keep(drawn: Drawn) -> None:
        found.append(drawn)

    keep()
    return found


def _settings(examples: int, phases: list[Any]) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


class _Differs(Exception):  # noqa: N818
    pass


def smallest(trial: Trial, dtype: str, seed: int, raises: bool, tries: int) -> Outcome | None:
    """The smallest input that hypothesis finds on which theirs differs (or raises).

    It looks among simple numbers first, and among all inputs when those agree.
    """
    best: list[Outcome] = []
    left = tries
    for kind in (SmallMaker, NamedMaker):
        if best:
            break

        @st.composite
        def strategy(draw: st.DrawFn, kind: Any = kind) -> Drawn:
            maker = kind(draw)
            return trial.subject.draw(maker), maker.chosen

        @hypothesis.seed(seed)
        @_settings(300, [hypothesis.Phase.generate, hypothesis.Phase.shrink])
        @hypothesis.given(strategy())
        def attempt(drawn: Drawn) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                return
            outcome = trial.run(*drawn, dtype)
            if bool(outcome.error) == raises and not outcome.agrees:
                if not best or outcome.size < best[0].size:
                    best[:] = [outcome]
                raise _Differs

        try:
            attempt()
        except _Differs:
            pass
        except hypothesis.errors.HypothesisException:  # the tries were up while it shrank
            pass
    return best[0] if best else None


def settings_of(value: Any) -> dict[str, Any]:
    """The fields of a bundle of settings."""
    if isinstance(value, (Budget, Settings)):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}

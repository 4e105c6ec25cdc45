"""Trying a function from outside on drawn inputs, beside the specification."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ..backends.numpy import NumpyBackend
from ..spec.networks import LAYER_NORM_EPSILON
from ..spec.settings import Budget, Settings
from ..support.errors import VGFError
from ..support.objects import short_error
from ..testing.compare import (
    FACTOR,
    MACHINE_EPSILON,
    Difference,
    difference,
    expected_and_sensitivity,
    named_leaves,
    perturb,
)
from ..testing.equations import Arguments, is_data, rounded
from ..testing.rewired import Rewired, reached_from
from .adapter import Adapter, Arrays, Caller, Reading
from .code import casts_watched, names_single_precision
from .draws import Taken
from .subjects import SIZES, Linear, NamedMaker, QuickMaker, Sizes, SmallMaker, Subject

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
        whole: their result, nothing left out.
        cancelled: the error, times the strict tolerance, where theirs agrees up to cancellation.
        drawn: the random numbers that theirs drew itself.
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
    whole: Any = None
    cancelled: float = 0.0
    drawn: tuple[Taken, ...] = ()

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
    tolerance: str = "cancellation"
    sizes: Sizes = SIZES

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
        arguments = subject.fix(arguments, {name: subject.number(name) for name in absent})
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
        expected = self.expect(arguments)
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
        if self.caller.draws is not None:
            outcome.drawn = tuple(self.caller.draws.taken)
        self.judge(outcome, got, expected)
        return outcome

    def judge(self, outcome: Outcome, got: Any, expected: Any) -> None:
        """Compare a result of theirs with the specification's."""
        outcome.whole = got
        names = PARTS.get(self.subject.name, ())
        outcome.got, outcome.expected, outcome.skipped = align(got, expected, names)
        outcome.found = self.differ(outcome, outcome.expected, None)
        if outcome.found.agrees or outcome.found.fault:
            return
        outcome.found = self.differ(outcome, outcome.expected, self.moves(outcome))
        if outcome.found.agrees or self.tolerance == "strict":
            return
        # few digits, and those that a sum in another form would lose too
        lost = outcome.found.ratio
        rough = self.cancels(outcome, outcome.expected, self.moves(outcome))
        allowed = self.differ(outcome, outcome.expected, rough)
        if allowed.agrees:
            outcome.found, outcome.cancelled = allowed, lost

    def judged(self, outcome: Outcome) -> Outcome:
        """The same result, judged by this trial's tolerance."""
        if outcome.error:
            return outcome
        again = dataclasses.replace(outcome, sensitivity=None, cancelled=0.0)
        self.judge(again, outcome.whole, self.expect(outcome.arguments))
        return again

    def moves(self, outcome: Outcome) -> Any:
        """The specification's sensitivity on an input, by the parts that theirs returns."""
        if outcome.sensitivity is None:
            outcome.sensitivity = self.aligned(outcome, self.sensitivity(outcome))
        return outcome.sensitivity

    def cancels(
        self, outcome: Outcome, expected: Any, moves: Any, variants: tuple[Any, ...] = ()
    ) -> Any:
        """The sensitivity where distances and sums may be taken as differences of larger ones."""
        equation = self.subject.equation
        if all(reached_from(name).isdisjoint(ROUGH) for name in self.subject.functions):
            return moves
        base = [np.asarray(x, float) for _, x in named_leaves(expected)]
        most = [np.asarray(x) for _, x in named_leaves(moves)]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for seed in range(ROUGHLY):
                rough = Rewired((*roughly(self.unit(outcome.dtype), seed), *variants))
                try:
                    result = equation.run(rough, *outcome.arguments)
                except _CANNOT:
                    return moves
                _, result, _ = align(outcome.whole, result, PARTS.get(self.subject.name, ()))
                for i, (_, x) in enumerate(named_leaves(result)):
                    moved = np.abs(np.asarray(x, float) - base[i]) / 8  # of 64, eight remain
                    most[i] = np.fmax(most[i], moved)
        names = [name for name, _ in named_leaves(expected)]
        return _like(expected, dict(zip(names, most, strict=True)))

    def differ(self, outcome: Outcome, expected: Any, sensitivity: Any) -> Difference:
        """How far their result is from an expected one."""
        got = as_dtype(outcome.got, expected, outcome.dtype)
        floor = self.subject.equation.floor
        if sensitivity is None and floor:
            near = _near(got, expected, outcome.dtype, floor)
            if near is not None:
                return near
        return difference(
            got, expected, outcome.dtype, sensitivity, floor, self.unit(outcome.dtype)
        )

    def unit(self, dtype: str) -> float:
        """The unit of rounding that theirs is judged in."""
        return max(MACHINE_EPSILON[dtype], UNITS.get(self.tolerance, 0.0))

    def aligned(self, outcome: Outcome, whole: Any) -> Any:
        """The parts of a result of ours that theirs returns."""
        return align(outcome.whole, whole, PARTS.get(self.subject.name, ()))[1]

    def expect(self, arguments: Arguments, variants: tuple[Any, ...] = ()) -> Any:
        """The specification's result, or that of variants of it."""
        backend = planted(variants) if variants else SPECIFICATION
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return self.subject.equation.run(backend, *arguments)
            except (ValueError, TypeError) as error:
                if variants:
                    raise
                raise VGFError(f"the specification refuses what is held fixed: {error}") from error

    def sensitivity(self, outcome: Outcome, variants: tuple[Any, ...] = ()) -> Any:
        """How far the specification's result, or that of variants of it, moves by rounding."""
        equation, dtype = self.subject.equation, outcome.dtype
        backend = planted(variants) if variants else SPECIFICATION

        def shaken(seed: int, *args: Any) -> Any:
            rough = planted(variants, dtype).seeded(seed) if equation.jitter else backend
            return equation.run(rough, *args)

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            expected, moves = expected_and_sensitivity(
                lambda *args: equation.run(backend, *args),
                outcome.arguments,
                dtype,
                equation.unit,
                shaken,
                self.unit(dtype),
            )
        return _like(expected, moves)

    def resembles(self, outcome: Outcome, variants: tuple[Any, ...]) -> bool:
        """Whether theirs is so near that of variants that a closer look is worth its time."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                backend = planted(variants) if len(variants) == 1 else Rewired(variants)
                expected = self.subject.equation.run(backend, *outcome.arguments)
            except _CANNOT:
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
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                expected = self.expect(outcome.arguments, variants)
            except _CANNOT:
                return Difference(ratio=np.inf, fault="it cannot be computed")
            expected = self.aligned(outcome, expected)
            found = self.differ(outcome, expected, None)
            if found.agrees or found.fault or found.ratio > 1e12:
                return found
            found = self.differ(outcome, expected, self.moves(outcome))
            if found.agrees:
                return found
            # the variant's own sensitivity may be larger than the specification's
            moves = self.aligned(outcome, self.sensitivity(outcome, variants))
            found = self.differ(outcome, expected, moves)
            if found.agrees or self.tolerance == "strict":
                return found
            return self.differ(outcome, expected, self.cancels(outcome, expected, moves, variants))

    def tight(self, outcome: Outcome, variants: tuple[Any, ...]) -> bool:
        """Whether theirs equals variants within what the specification is held to."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                expected = self.aligned(outcome, self.expect(outcome.arguments, variants))
        except _CANNOT:
            return False
        return self.differ(outcome, expected, self.moves(outcome)).agrees

    def casts(self, outcome: Outcome) -> bool:
        """Whether theirs loses digits by a cast to a dtype smaller than float64."""
        if self.arrays.name != "torch":
            return names_single_precision(self.function)
        with casts_watched() as found:
            again = self.run(outcome.arguments, outcome.chosen, "float64")
        return bool(found) and not again.error

    def coarse(self, outcome: Outcome) -> bool:
        """Whether theirs does not follow changes of its input that float32 cannot hold.

        A function that computes in float64, however wrong, moves about as the specification does;
        where that does not move, nothing speaks against float32.
        """
        moved = perturb(outcome.arguments, 2.0**-32, 0)
        again = self.run(moved, outcome.chosen, outcome.dtype)
        if again.error or again.found.fault:
            return False

        def change(after: Any, before: Any) -> np.ndarray:
            pairs = zip(named_leaves(after), named_leaves(before), strict=True)
            return np.concatenate([np.ravel(np.asarray(x, float) - y) for (_, x), (_, y) in pairs])

        with np.errstate(invalid="ignore"):
            mine = change(again.got, outcome.got)
            want = change(again.expected, outcome.expected)
        size = float(np.max(np.abs(want), initial=0.0))
        return size == 0 or not float(np.max(np.abs(mine - want))) < size / 64

    def apart(self, outcome: Outcome, got: Any, expected: Any) -> bool:
        """Whether two parts of results are the same, within the rounding of the whole."""
        size = max(float(np.max(np.abs(x), initial=0.0)) for x in (got, expected, outcome.expected))
        moved = float(np.max(np.asarray(self.moves(outcome)), initial=0.0))
        allowed = 256 * (self.unit(outcome.dtype) * (size + 1) + moved)
        return bool(np.all(np.abs(got - expected) <= allowed))


def _near(got: Any, expected: Any, dtype: str, floor: float) -> Difference | None:
    """The verdict of most results at a glance: within the tolerance of the smallest of numbers."""
    mine, want = named_leaves(got), named_leaves(expected)
    if len(mine) != len(want) or not mine:
        return None
    for (name, x), (other, y) in zip(mine, want, strict=True):
        wanted = dtype if y.dtype.kind == "f" else None
        if name != other or x.shape != y.shape or (x.dtype != wanted if wanted else True):
            return None
    flat = np.concatenate([np.ravel(x) for _, x in mine]).astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities of one sign are for the closer look
        off = np.abs(flat - np.concatenate([np.ravel(y) for _, y in want]))
    error = float(np.max(off, initial=0))
    allowed = FACTOR * MACHINE_EPSILON[dtype] * floor
    if not error <= allowed:
        return None
    return Difference(absolute=error, ratio=error / allowed)


_CANNOT = (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError)


@functools.lru_cache(512)
def planted(variants: tuple[Any, ...], dtype: str = "") -> Rewired:
    """The specification with variants planted, made once; with rounding of a dtype inside it."""
    return Rewired(variants, (dtype, 0) if dtype else None)


# --- rounding that is legitimate -----------------------------------------------------------------

# What theirs may be judged by, and the unit of rounding where it is not the dtype's: an eighth of
# the format's, as the tolerance's 64 is much for one that few operations compute in.
TOLERANCES = {
    "strict": "as exact as the specification's own form",
    "cancellation": "or as exact as a Gram matrix of distances, or sums taken apart (the default)",
    "tf32": "products in TF32, 10 bits after the point",
    "bf16": "in bfloat16, 7 bits after the point",
}
UNITS = {
    "tf32": 2.0**-11 / 8,
    "bf16": 2.0**-8 / 8,
    "single": MACHINE_EPSILON["float32"],
    "constants": 4 * 2.0**-24 / FACTOR,  # four of them, each rounded once
}
ROUGHLY = 24


@dataclasses.dataclass(frozen=True)
class _Rough:
    """A function of the specification with the rounding of another form of it."""

    method: str
    replacement: Any


def _rough_distances(u: float, rng: Any) -> Any:
    """|x|^2 + |y|^2 - 2 x y, clipped at 0."""

    def replacement(b: Any, original: Any, x: Any, y: Any) -> Any:
        d = original(x, y)
        size = np.sum(x**2, -1)[..., :, None] + np.sum(y**2, -1)[..., None, :]
        noise = rng.choice([-4.0, -1.0, 1.0, 4.0], d.shape)
        if x is y:
            noise = np.triu(noise) + np.swapaxes(np.triu(noise, 1), -1, -2)
            if rng.random() < 0.5:  # the diagonal is often exact
                noise *= 1 - np.eye(d.shape[-1])
        return np.maximum(d + 4 * u * size * noise, 0.0)

    return replacement


def _rough_repulsion(u: float, rng: Any) -> Any:
    """(a_i sum_j k_ij - sum_j k_ij a_j) / sigma^2."""

    def replacement(b: Any, original: Any, a: Any, sigma_squared: Any) -> Any:
        return _row_sums(b, original(a, sigma_squared), a, sigma_squared, u, rng)

    return replacement


def _rough_repulsion_through_bandwidth(u: float, rng: Any) -> Any:
    """The same, where the bandwidth is differentiated too."""

    def replacement(b: Any, original: Any, a: Any, guard: float = 0.0) -> Any:
        return _row_sums(b, original(a, guard), a, b.bandwidth_squared(a) + guard / 2, u, rng)

    return replacement


def _row_sums(b: Any, r: Any, a: Any, sigma_squared: Any, u: float, rng: Any) -> Any:
    """A repulsion with the rounding of its row sums."""
    row = b.rbf_kernel(a, a, sigma_squared).mean(-1)[..., None]
    size = np.max(np.abs(a), axis=-2, keepdims=True) * row / sigma_squared[..., None, None]
    return r + 4 * u * size * rng.choice([-1.0, 1.0], r.shape)


def _rough_normalise(u: float, rng: Any) -> Any:
    """A variance as the mean of squares minus the squared mean."""

    def replacement(b: Any, original: Any, x: Any) -> Any:
        centred = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centred**2, axis=-1, keepdims=True)
        size = np.mean(x**2, axis=-1, keepdims=True)
        variance = np.maximum(variance + 4 * u * size * rng.choice([-1.0, 1.0], size.shape), 0.0)
        return centred / np.sqrt(variance + LAYER_NORM_EPSILON)

    return replacement


def _rough_decoding_scores(u: float, rng: Any) -> Any:
    """(|u|^2 - |u - e_c|^2) / 2 over the mean of |e_c|^2, for the first term."""

    def replacement(b: Any, original: Any, x: Any, log_p: Any, embeddings: Any, *rest: Any) -> Any:
        norms = np.sum(embeddings**2, -1)
        size = (np.sum(x**2, -1)[:, None] + norms) / np.mean(norms)
        noise = rng.choice([-1.0, 1.0], size.shape)
        return original(x, log_p, embeddings, *rest) + 4 * u * size * noise

    return replacement


ROUGH = {
    "squared_distances": _rough_distances,
    "repulsion": _rough_repulsion,
    "repulsion_through_bandwidth": _rough_repulsion_through_bandwidth,
    "_normalise": _rough_normalise,
    "decoding_scores": _rough_decoding_scores,
}


def roughly(u: float, seed: int) -> tuple[_Rough, ...]:
    """Replacements that lose the digits that legitimate forms of the same sums lose."""
    rng = np.random.default_rng([seed])
    # each by itself in turn, and all at once: rough distances widen a bandwidth of nearly 0, where
    # a rough repulsion costs most
    kinds = [*((method,) for method in ROUGH), tuple(ROUGH)]
    chosen = kinds[seed % len(kinds)]
    return tuple(_Rough(method, ROUGH[method](u, rng)) for method in chosen)


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


def holds_single(outcomes: Sequence[Outcome]) -> bool:
    """Whether results in float64 hold numbers of float32 only, where the expected ones do not."""
    entries = 0
    for o in (o for o in outcomes if not o.error and not o.found.fault):
        got = [np.asarray(x) for _, x in named_leaves(o.got)]
        want = [np.asarray(x) for _, x in named_leaves(o.expected)]
        for mine, expected in zip(got, want, strict=False):
            if mine.dtype != np.float64 or not np.all(_is_single(mine)):
                return False
            entries += int(np.sum(~_is_single(expected)))
    return entries >= 8


def _is_single(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray((x.astype(np.float32) == x) | ~np.isfinite(x))


def float_dtypes(got: Any) -> set[str]:
    """The floating dtypes in a result, those of its scalars only if it has nothing else."""
    leaves = [x for _, x in named_leaves(got) if np.asarray(x).dtype.kind == "f"]
    arrays = [x for x in leaves if np.ndim(x)] or leaves
    return {str(np.asarray(x).dtype) for x in arrays}


# --- drawing many --------------------------------------------------------------------------------

Drawn = tuple[Arguments, Mapping[str, Any]]


# Numbers that are given to a function as settings, and where they lie: between the values that
# the equations' own inputs take, which a condition may part.
_CONTINUOUS = {
    "temperature": (1e-3, 10.0),
    "discount": (0.5, 1.0),
    "expectile": (0.05, 0.95),
    "tau": (1e-3, 1.0),
    "learning_rate": (1e-4, 1.0),
    "max_norm": (1e-2, 10.0),
    "distillation": (1e-2, 100.0),
    "bandwidth": (0.1, 2.0),
    "maximum": (1.0, 100.0),
}
# Arrays in which any number makes sense.
_FREE_ARRAYS = ("a", "g", "x", "y", "q", "r", "s", "velocity", "baseline", "noise", "x0")


def draw_many(
    subject: Subject,
    examples: int,
    seed: int,
    sizes: Sizes = SIZES,
    numbers: tuple[float, ...] = (),
    programs: int | None = None,
) -> list[Drawn]:
    """Inputs of a subject, the same for the same seed.

    Args:
        programs: how many combinations of shapes and settings they share; None is no limit.
        sizes: those that are tried.
        numbers: that the function under test compares with, perhaps: some inputs hold values on
            either side of them.
    """
    rng, decks, found = np.random.default_rng(seed), dict[str, list[int]](), list[Drawn]()
    shared: list[dict[str, Any] | None] = [None]
    if programs is not None:
        shared = [{} for _ in range(programs)]
    for i in range(examples):
        maker = QuickMaker(rng, decks, sizes, shared[i % len(shared)])
        arguments = subject.draw(maker)
        if i % 3 == 2:
            arguments = _varied(subject, arguments, rng, numbers)
        found.append((arguments, maker.chosen))
    return found


def _varied(
    subject: Subject, arguments: Arguments, rng: np.random.Generator, numbers: tuple[float, ...]
) -> Arguments:
    """Settings between the usual ones, and a few entries near the numbers of their code."""
    new = list(arguments)
    for i, (name, value) in enumerate(zip(subject.drawn_names, arguments, strict=True)):
        if name in _CONTINUOUS and isinstance(value, float):
            low, high = _CONTINUOUS[name]
            within = [x for x in numbers if low <= x <= high]
            near = float(rng.choice(within)) if within and rng.random() < 0.3 else 0.0
            free = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            new[i] = min(max(near * rng.uniform(0.9, 1.1), low), high) if near else free
        elif numbers and name in _FREE_ARRAYS and isinstance(value, np.ndarray) and value.size:
            near_ones = [x for x in numbers if np.max(np.abs(value)) > 1 or abs(x) <= 0.9]
            value = value.copy()
            for _ in range(int(rng.integers(0, 3)) if near_ones else 0):
                place = tuple(rng.integers(0, n) for n in value.shape)
                sign = rng.choice((-1, 1, 1))
                value[place] = rng.choice(near_ones) * sign * rng.uniform(0.9, 1.1)
            new[i] = value
    return tuple(new)


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
            maker = kind(draw, trial.sizes)
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

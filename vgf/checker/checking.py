"""Checking a function from outside against the specification: search, shrink, diagnose, report."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import spec
from ..spec.settings import Settings
from ..support.errors import VGFError
from ..testing.compare import MACHINE_EPSILON, Difference, named_leaves, tolerance_in_words
from ..testing.compare import assert_matches as assert_same
from ..testing.equations import agent_equations
from ..testing.rewired import reached_from
from ..testing.variants import Variant
from .adapter import Adapter, Arrays, Reading, bind, guess_frameworks, parameters_of
from .code import Lines, in_words, numbers_in, says_somewhere
from .diagnosis import EXTREME, Finding, diagnose, explains, finite, is_variant
from .gradients import compare_gradients, more_ordinary
from .modules import NetworkCall
from .subjects import CHOICES, SIZES, Sizes, Subject, choices, find_subject
from .trial import (
    TOLERANCES,
    Drawn,
    Outcome,
    Trial,
    draw_many,
    float_dtypes,
    holds_single,
    smallest,
)

WIDTH = 80
# Examples of what takes long, where the caller does not say how many.
_FEW = {"update": 20, "act": 30}
# Of an update or an act whose settings are held.
HELD = 200
# In float64; a quarter of them in float32. A condition that one input in a hundred meets is missed
# by 600 inputs once in four hundred searches.
EXAMPLES = 600
# Inputs tried in the search for the smallest one.
SHRINK = 400
# Failures after which a quarter of the inputs is enough.
PLENTY = 60
_PILOTS = 6
# Programs that JAX compiles in float64, combinations of shapes and settings; a twelfth of them in
# float32, where nothing but rounding is new.
PROGRAMS = 24
# Arguments that are trees of many arrays, whose smallest is not worth a long search.
_TREES = {"params", "gradient", "online", "tree", "critic"}


@dataclasses.dataclass(frozen=True)
class Tried:
    """What was tried in one dtype.

    Attributes:
        examples, differ: how many inputs, and on how many of them theirs differs.
        worst: the largest error relative to the tolerance.
    """

    dtype: str
    examples: int
    differ: int
    worst: Difference


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a check.

    Attributes:
        function, name: what was checked, and as what.
        agrees: whether theirs equals the specification.
        framework: of the arrays that theirs was given.
        tried: one entry for each dtype.
        bindings: what each argument of theirs was given, in words.
        notes: what else should be known: what was held fixed, not compared, a dtype.
        findings: what is wrong, the most telling first.
        smallest: the smallest input that was found on which theirs differs, or None.
        tolerance: the kind that theirs was judged by.
        domain: the smallest and the largest B, N, d and E that were tried.
        cancelled, cancelling: where theirs agrees up to cancellation only, its largest error in
            units of the strict tolerance, and on how many inputs.
    """

    function: str
    name: str
    agrees: bool
    framework: str
    tried: tuple[Tried, ...]
    bindings: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    smallest: Outcome | None = None
    tolerance: str = "cancellation"
    domain: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    cancelled: float = 0.0
    cancelling: int = 0

    @property
    def verdict(self) -> str:
        """In a few words."""
        if not self.agrees:
            return "DIFFERS"
        return "agrees up to cancellation" if self.cancelling else "agrees"

    @property
    def digits(self) -> float:
        """The decimal digits lost to cancellation, more than by the specification's own form."""
        return math.log10(self.cancelled) if self.cancelled > 1 else 0.0

    def __str__(self) -> str:
        return _text(self)

    @property
    def line(self) -> str:
        """The verdict in one line, with what is wrong."""
        first = next((f.says for f in self.findings), "")
        return f"{self.function} as {self.name}: {self.verdict}" + (f" ({first})" if first else "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, words and lists."""
        small = self.smallest
        return {
            "function": self.function,
            "as": self.name,
            "agrees": self.agrees,
            "verdict": self.verdict,
            "specification": spec.__version__,
            "framework": self.framework,
            "dtypes": [
                {
                    "dtype": t.dtype,
                    "examples": t.examples,
                    "differ": t.differ,
                    "worst_ratio_to_tolerance": _plain(t.worst.ratio),
                    "largest_relative_error": _plain(t.worst.relative),
                }
                for t in self.tried
            ],
            "tolerance": tolerance_in_words(),
            "tolerance_kind": self.tolerance,
            "digits_lost": round(self.digits, 2),
            "domain": {name: list(ends) for name, ends in self.domain.items()},
            "bindings": list(self.bindings),
            "notes": list(self.notes),
            "findings": [finding.as_dict() for finding in self.findings],
            "smallest": None
            if small is None
            else {
                "dtype": small.dtype,
                "arguments": {k: _plain(v) for k, v in small.named.items()},
                "got": small.error or _plain(small.got),
                "expected": _plain(small.expected),
                "difference": small.error or str(small.found),
            },
        }


def check_function(
    function: Any,
    name: Any,
    adapter: Adapter | None = None,
    *,
    examples: int | None = None,
    seed: int = 0,
    dtype: str | None = None,
    explain: bool = True,
    label: str = "",
    tolerance: str = "cancellation",
    sizes: Mapping[str, int] | None = None,
    variants: Sequence[Variant] = (),
    settings: Settings | None = None,
) -> Result:
    """Put a function through the specification.

    Args:
        function: in NumPy, torch, JAX, or anything whose result turns into arrays.
        name: what it should be, such as "phi" or `vgf.spec.phi`; see `vgf.testing.SUBJECTS`.
        adapter: how its signature differs; None binds everything by name.
        examples: how many inputs to try in each dtype; None is 600 in float64 and 150 in float32,
            and fewer for a whole transport or update.
        seed: of the search.
        dtype: "float64" or "float32"; None tries both, or the one that theirs computes in.
        explain: look for the variant that theirs computes.
        label: what to call the function in the report; its own name by default.
        tolerance: "strict", "cancellation", "tf32" or "bf16"; see `vgf check --help`.
        sizes: of B, N, d and E, those to hold at a value.
        variants: mistakes or conventions of one's own to compare it with, beside the library's.
        settings: held, for "update", "act", "propose" and "move": states are drawn to fit them.

    Raises:
        VGFError: a request that makes no sense: an unknown name, an argument that cannot be bound.
    """
    subject, adapter = find_subject(name), adapter or Adapter()
    if settings is not None:
        subject = _held(subject, settings)
        examples = HELD if examples is None else examples
    if not callable(function):
        raise VGFError(f"a {type(function).__name__} is not a function; give something callable")
    if examples is not None and examples < 1:
        raise VGFError(f"examples is {examples}; it must be 1 or more")
    if dtype not in (None, *MACHINE_EPSILON):
        raise VGFError(f"dtype {dtype!r} is unknown; choose one of {', '.join(MACHINE_EPSILON)}")
    if tolerance not in TOLERANCES:
        raise VGFError(f"tolerance {tolerance!r} is unknown; choose one of {', '.join(TOLERANCES)}")
    if tolerance in ("tf32", "bf16"):
        if dtype == "float64":
            raise VGFError(f"tolerance {tolerance} is of float32, not of dtype float64")
        dtype = "float32"
    label = label or getattr(function, "__qualname__", None) or type(function).__name__
    numbers = numbers_in(function)
    tried_sizes = _sizes(sizes or {}, numbers)
    if isinstance(function, NetworkCall):
        tried_sizes = _fitting(function, subject, tried_sizes, seed)
    pilot = _choose(function, subject, adapter, seed, dtype, tolerance, tried_sizes, numbers)
    trial = _most_telling(pilot.trials, pilot.dtypes[0], seed)
    lines = Lines(function)
    outcomes: list[Outcome] = []
    notes = list(pilot.notes)
    for kind in pilot.dtypes:
        these = _try_all(trial, kind, examples, seed, numbers, lines, first=kind == pilot.dtypes[0])
        if kind == "float64" and tolerance == "cancellation":
            coarse = _in_single_precision(trial, these)
            if coarse:
                these = coarse
                notes.append(
                    "something inside computes in float32, and the results of float64 are judged "
                    "as float32's (--tolerance strict rejects that)"
                )
        outcomes += these
    findings = [*_random(trial, outcomes), *_drawn_otherwise(trial, outcomes)]
    findings += _in_place(outcomes)
    if not findings and all(o.agrees for o in outcomes):
        outcomes += more_ordinary(trial, outcomes, seed)
    if not findings and all(o.agrees for o in outcomes):
        own, more = compare_gradients(trial, outcomes)
        findings, notes = [*findings, *own], [*notes, *more]
    tried = [_tally(kind, [o for o in outcomes if o.dtype == kind]) for kind in pilot.dtypes]
    notes += _unseen(trial, outcomes, function)
    wrong = [o for o in outcomes if not o.agrees]
    if unreached := lines.unreached():
        places = "; ".join(f"{in_words(rows)} of {file}" for file, rows in unreached.items())
        notes.append(f"no input reached line {places}: nothing is said of what it does")
    small = None
    if wrong and not any(f.kind == "random" for f in findings):
        raises = all(o.error for o in wrong)
        first = next((o for o in wrong if bool(o.error) == raises), wrong[0])
        large = subject.name in _FEW or any(o.named.keys() & _TREES for o in outcomes[:1])
        # each new shape or setting is a program to compile
        tries = SHRINK // 10 if large or trial.arrays.name == "jax" else SHRINK
        small = smallest(trial, first.dtype, seed, raises, tries) or min(
            (o for o in wrong if bool(o.error) == raises), key=lambda o: o.size
        )
        if explain and not any(f.kind == "drawn" for f in findings):
            findings += diagnose(trial, outcomes, tuple(variants))
    return Result(
        label,
        trial.subject.name,
        not wrong and not findings,
        trial.arrays.name,
        tuple(tried),
        tuple(_bindings(trial)),
        tuple(notes),
        tuple(findings),
        small,
        tolerance,
        _domain(outcomes),
        max((o.cancelled for o in outcomes), default=0.0),
        sum(o.cancelled > 0 for o in outcomes),
    )


def _held(subject: Subject, settings: Settings) -> Subject:
    """A subject whose agents all have these settings.

    Raises:
        VGFError: a function that takes no settings.
    """
    drawn = agent_equations({settings.method: settings})
    if subject.name not in drawn:
        raise VGFError(f"settings are held for {', '.join(drawn)}, not for {subject.name}")
    return dataclasses.replace(subject, equation=drawn[subject.name])


def _sizes(given: Mapping[str, int], numbers: Sequence[float]) -> Sizes:
    """The sizes to try: those of agents, those given, and each whole number in the code and one
    more, as it may stand for a size that it treats otherwise, or that it stops at."""
    for name, value in given.items():
        if name not in ("B", "N", "d", "E"):
            raise VGFError(f"sizes: {name} is none of B, N, d and E")
        if not isinstance(value, int) or value < 1:
            raise VGFError(f"sizes: {name} is {value!r}; it must be a whole number, 1 or more")
    own = [int(x) for x in numbers if x == int(x) and 2 < x < 64][:3]
    counts = dict.fromkeys(count for x in own for count in (x, x + 1))
    extra = [shape for c in counts for shape in ((c, 2, 2), (1, c, 2), (1, 2, c))]
    known = SIZES.shapes
    shapes = dict.fromkeys([*known, *extra])
    return (
        dataclasses.replace(SIZES, shapes=tuple(shapes)).held(**given)
        if given
        else (dataclasses.replace(SIZES, shapes=tuple(shapes)) if extra else SIZES)
    )


def _fitting(function: NetworkCall, subject: Subject, sizes: Sizes, seed: int) -> Sizes:
    """The number of critics, the place of LayerNorm and the widths that a class of networks has.

    Raises:
        VGFError: its layers are others than the specification's whichever they are.
    """
    members = dict.fromkeys((*sizes.members, 1, 2, 3, 4, 10))
    fault: Exception | None = None
    norms = (None, "before", "inner")
    for count, own_widths, norm in itertools.product(members, (False, True), norms):
        own = dataclasses.replace(sizes.held(E=count), norms=(norm,))
        params, data = _network_and_data(subject, own, seed)
        try:
            if own_widths:
                own = dataclasses.replace(own, hidden=function.hidden(params, data) or None)
                params, data = _network_and_data(subject, own, seed)
            function.fit(params, data)
        except VGFError as error:
            fault = fault or error
            continue
        return own
    assert fault is not None
    raise fault


def _network_and_data(subject: Subject, sizes: Sizes, seed: int) -> tuple[Any, list[Any]]:
    """The parameters of a network, and the arrays that it is called with."""
    arguments, _ = draw_many(subject, 1, seed, sizes)[0]
    named = subject.named(arguments)
    return named["params"], [named[name] for name in subject.axes if name in named]


def _effort(trial: Trial, dtype: str, examples: int | None, first: bool) -> int:
    """How many inputs to try where the caller does not say."""
    if examples is not None:
        return examples
    if trial.subject.name in _FEW:
        return _FEW[trial.subject.name]
    slow = trial.arrays.name == "jax" and trial.caller.slow
    heavy = trial.subject.equation.unit > 0 or slow
    many, few = (200, 50) if heavy else (EXAMPLES, EXAMPLES // 4)
    return many if first else few


def _try_all(
    trial: Trial,
    dtype: str,
    examples: int | None,
    seed: int,
    numbers: tuple[float, ...],
    lines: Lines,
    first: bool,
) -> list[Outcome]:
    """Theirs on inputs of every kind, with more of them while some line of it has not run."""
    count = _effort(trial, dtype, examples, first)
    programs = None
    if trial.arrays.name == "jax":
        programs = PROGRAMS if first else PROGRAMS // 12
    drawn = draw_many(trial.subject, count, seed, trial.sizes, numbers, programs)
    found: list[Outcome] = []
    failed = 0
    for arguments, chosen in drawn:
        if failed >= PLENTY and 4 * len(found) >= EXAMPLES:
            break
        if first and lines.stale < 60:
            with lines.watched():
                found.append(trial.run(arguments, chosen, dtype))
        else:
            found.append(trial.run(arguments, chosen, dtype))
        failed += not found[-1].agrees
    if first and examples is None and lines.unreached() and all(o.agrees for o in found):
        more = draw_many(trial.subject, count, seed + 1, trial.sizes, numbers, programs)
        for arguments, chosen in more:
            with lines.watched():
                found.append(trial.run(arguments, chosen, dtype))
            if lines.done:
                break
    return found


def _in_single_precision(trial: Trial, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The same, judged as float32's, if theirs then agrees on every input; nothing otherwise.

    So does what holds a constant or a buffer in float32: with torch a scalar of `torch.where`.
    An error that small is no evidence of float32 by itself: theirs must be seen to cast, or on each
    input be as near as rounded constants leave it, or blind to changes that float32 cannot hold;
    and no variant may explain it in float64.
    """
    wrong = [o for o in outcomes if not o.agrees]
    if not wrong or any(o.error or o.found.fault for o in wrong):
        return []
    coarse, constants = (dataclasses.replace(trial, tolerance=t) for t in ("single", "constants"))
    if not all(coarse.judged(o).agrees for o in wrong):
        return []
    # a cast that loses digits is evidence enough, however much an input makes of them
    if not any(trial.casts(o) for o in wrong[:12]) and any(
        o.found.relative > 1e-4 or not (trial.coarse(o) or constants.judged(o).agrees)
        for o in wrong
    ):
        return []
    if is_variant(trial, outcomes):
        return []
    return [o if o.agrees else coarse.judged(o) for o in outcomes]


def _domain(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """The smallest and the largest of each size that was tried."""
    found = {}
    for name in ("B", "N", "d", "E"):
        values = [int(o.chosen[name]) for o in outcomes if name in o.chosen]
        if values:
            found[name] = (min(values), max(values))
    return found


def assert_matches(
    function: Any, name: Any, adapter: Any = None, *args: Any, **options: Any
) -> None:
    """One line of pytest: raise AssertionError unless a function equals the specification.

    Args:
        function: theirs.
        name: as what, such as "phi" or `vgf.spec.phi`.
        adapter: an :class:`Adapter`, or None.
        options: of :func:`check_function` (examples, seed, dtype), or the fields of an
            :class:`Adapter`, such as ``arguments={"theta": "a"}``.

    Two results instead of a function and a name are compared with each other, as
    :func:`~vgf.testing.compare.assert_matches` does: ``assert_matches(got, expected, dtype)``.

    Example:
        ``assert_matches(my_phi, "phi", arguments={"theta": "a"}, examples=300)``

    Raises:
        AssertionError: they differ; the message is what `vgf check` prints.
        VGFError: a request that makes no sense.
    """
    if not callable(function):
        rest = (adapter, *args) if adapter is not None else args
        assert_same(function, name, *rest, **options)
        return
    own = {field.name for field in dataclasses.fields(Adapter)}
    declared = {key: options.pop(key) for key in list(options) if key in own}
    if declared:
        adapter = dataclasses.replace(adapter or Adapter(), **declared)
    result = check_function(function, name, adapter, **options)
    if not result.agrees:
        raise AssertionError(f"\n{result}")


# --- choosing how to call ------------------------------------------------------------------------


@dataclasses.dataclass
class _Pilot:
    """The ways to call theirs that go equally well, the likeliest first."""

    trials: list[Trial]
    dtypes: list[str]
    notes: list[str]


def _choose(
    function: Any,
    subject: Subject,
    adapter: Adapter,
    seed: int,
    dtype: str | None,
    tolerance: str,
    sizes: Sizes,
    numbers: tuple[float, ...],
) -> _Pilot:
    """The framework and the reading under which theirs can be called, tried on a few inputs.

    First with what it does not take held at the usual values, then at numbers of its own code.
    """
    frameworks = [adapter.framework] if adapter.framework else guess_frameworks(function)
    found: list[_Way] = []
    for held in ((), numbers):
        if held == () or (found and min(w.score for w in found)[:3] == (0, 0, 0) and numbers):
            if held and min(w.score for w in found)[3] == 0:
                break
            readings = bind(function, subject, adapter, held)
            if held and len(readings) <= len({str(w.trial.reading) for w in found}):
                break
            found += _ways(
                function, readings, adapter, frameworks, seed, dtype, tolerance, sizes, bool(held)
            )
            frameworks = [min(found, key=lambda w: w.score).trial.arrays.name]
    best = min(found, key=lambda w: w.score)
    trial, notes = best.trial, []
    if trial.reading.single and not adapter.single:
        notes.append("called for one state at a time (it does not take a batch of them)")
    dtypes = [dtype] if dtype else ["float64", "float32"]
    if best.only_single:
        dtypes = ["float32"]
        notes.append("it computes in float32 whatever it is given, and is judged in float32")
    equal = [
        w.trial
        for w in found
        if w.score[:3] == best.score[:3]
        and w.score[3] > 0
        and w is not best
        and w.trial.arrays.name == trial.arrays.name
        and w.trial.reading.single == trial.reading.single
    ]
    return _Pilot([trial, *(equal if best.score[3] else [])][:6], dtypes, notes)


@dataclasses.dataclass
class _Way:
    """One way to call theirs, and how it goes: exceptions, wrong shapes, an implausible
    temperature, wrong numbers; whether it computes in float32 only."""

    trial: Trial
    score: tuple[int, int, int, int]
    only_single: bool


def _ways(
    function: Any,
    readings: Sequence[Reading],
    adapter: Adapter,
    frameworks: Sequence[str],
    seed: int,
    dtype: str | None,
    tolerance: str,
    sizes: Sizes,
    enough: bool,
) -> list[_Way]:
    drawn: dict[str, list[Drawn]] = {}
    found: list[_Way] = []
    for framework in frameworks:
        for with_gradient in (False, True) if framework == "torch" else (False,):
            arrays = Arrays(framework, with_gradient)
            ways = list(readings)
            batches = any("B" in axes.split() for axes in adapter.layout.values())
            states = any("B" in axes for axes in readings[0].subject.axes.values())
            if states and not (adapter.single or batches):
                ways += [dataclasses.replace(r, single=True) for r in readings]
            for reading in ways:
                batched = any(w.score[:2] == (0, 0) and not w.trial.reading.single for w in found)
                if reading.single and not adapter.single and batched:
                    break
                few = sizes if framework != "jax" else _few_shapes(sizes)
                own = _sizes_of(function, reading, few)
                key = f"{reading.subject.form} {own.members} {own.norms}"
                if key not in drawn:
                    drawn[key] = _pilots(reading.subject, seed, own)
                trial = Trial(function, reading, adapter, arrays, tolerance, own)
                found.append(_tried(trial, drawn[key], dtype))
                if enough and found[-1].score == (0, 0, 0, 0):
                    return found
            if min(w.score for w in found)[:2] == (0, 0):
                return found
    return found


def _tried(trial: Trial, few: Sequence[Drawn], dtype: str | None) -> _Way:
    kind = dtype or "float64"
    trial = _numbers_only(trial, few, kind)
    outcomes = [trial.run(*d, kind) for d in few]
    single = False
    if dtype is None:
        results = [float_dtypes(o.got) for o in outcomes if not o.error]
        precisions = set().union(*results)
        if precisions == {"float64"} and holds_single(outcomes):
            precisions = {"float32"}
        if precisions == {"float32"} or all(o.error for o in outcomes):
            again = [trial.run(*d, "float32") for d in few]
            if precisions or sum(bool(o.error) for o in again) < len(again):
                outcomes, kind, single = again, "float32", True
        elif not any(o.error for o in outcomes):
            outcomes.append(trial.run(*few[0], "float32"))
    raised, shapes, differ = _score(outcomes)
    score = (raised, shapes, _repels_otherwise(trial, few, kind), differ)
    return _Way(trial, score, single)


def _sizes_of(function: Any, reading: Reading, sizes: Sizes) -> Sizes:
    """Those that the reading can be given: q[0] and q[1] alone are an ensemble of two, and what
    never names `post_scale` has no LayerNorm after the activation."""
    indices = [
        int(i)
        for source in reading.sources.values()
        if source.kind == "ours"
        for i in re.findall(r"\bq\[(\d+)\]", str(source))
    ]
    sizes = sizes.held(E=max(indices) + 1) if indices else sizes
    if not sizes.norms and _reads_networks(reading) and not says_somewhere(function, "post"):
        return dataclasses.replace(sizes, norms=_BEFORE)
    return sizes


_BEFORE = (None, "before")


def _reads_networks(reading: Reading) -> bool:
    """Whether theirs is given the parameters of a network, and not a function made of them."""
    trees = {"params", "critic"} & set(reading.subject.parameters)
    return any(
        source.kind == "ours" and trees & source.value.names for source in reading.sources.values()
    )


def _few_shapes(sizes: Sizes) -> Sizes:
    """A few shapes for a framework that compiles each anew, the largest among them."""
    kept = [s for s in sizes.shapes if s in _FOR_COMPILERS]
    return dataclasses.replace(sizes, shapes=tuple(kept)) if len(kept) > 1 else sizes


_FOR_COMPILERS = ((1, 1, 1), (3, 1, 2), (2, 4, 2), (3, 3, 1), (16, 3, 4), (2, 32, 2), (3, 10, 12))


def _pilots(subject: Subject, seed: int, sizes: Sizes) -> list[Drawn]:
    """A few inputs, ordinary ones where the search finds some."""
    many = draw_many(subject, 60, seed, sizes)

    def odd(drawn: Drawn) -> tuple[bool, int]:
        chosen = drawn[1]
        alone = chosen.get("N", 2) < 2 or chosen.get("B", 2) < 2
        return alone, sum(str(value) in EXTREME for value in chosen.values())

    # sizes that differ, or the axes of two could be exchanged unseen
    many.sort(key=odd)
    kinds = dict[Any, Drawn]()
    for one in many:
        kinds.setdefault(tuple(one[1].get(k) for k in ("B", "N", "d", "E")), one)
    return [*kinds.values(), *many][:_PILOTS]


_BOUNDS = ("low", "high", "budget.low", "budget.high")


def _numbers_only(trial: Trial, drawn: Sequence[Drawn], dtype: str) -> Trial:
    """The trial, without None for the numbers that theirs cannot take None for."""
    cannot: set[str] = set()
    passed = {
        name
        for s in trial.reading.sources.values()
        if s.kind == "ours"
        for name in (*s.value.names, *s.value.dotted)
    }
    for name in passed & CHOICES.keys():
        optional = choices(trial.subject, name, set())
        if name == "weight" or (None not in optional and name not in _BOUNDS):
            continue
        tries = []
        for value in (None, trial.subject.number(name)):
            fixed = {**trial.reading.fixed, name: value}
            reading = dataclasses.replace(trial.reading, fixed=fixed)
            other = dataclasses.replace(trial, reading=reading)
            try:
                outcomes = [other.run(*one, dtype) for one in drawn]
            except VGFError:  # the specification does not take this value here
                break
            tries.append(sum(bool(o.error) or not finite(o.got) for o in outcomes))
        if len(tries) == 2 and tries[0] > tries[1]:
            cannot.add(name)
    return dataclasses.replace(
        trial, reading=dataclasses.replace(trial.reading, numbers=frozenset(cannot))
    )


def _repels_otherwise(trial: Trial, drawn: Sequence[Drawn], dtype: str) -> int:
    """1 if the reading holds a temperature of None for a function that repels, or the opposite.

    Only where theirs takes no temperature: its particles then move without a score, or do not.
    """
    fixed = trial.reading.fixed
    name = next((n for n in ("temperature", "budget.temperature") if n in fixed), "")
    particles = "a" in trial.subject.axes and "repulsion" in reached_from(trial.subject.name)
    if not name or name in trial.adapter.constants or not particles:
        return 0
    quiet = {"g": 0, "slope": 0, "shift": 0}
    names = trial.subject.drawn_names
    for arguments, chosen in drawn:
        a = arguments[names.index("a")]
        if chosen.get("N", 1) < 2 or not 1e-2 < float(np.ptp(a)) < 10:
            continue
        still = tuple(
            x * 0 if n in quiet else (np.clip(x, -0.5, 0.5) if n == "a" else x)
            for n, x in zip(names, arguments, strict=True)
        )
        outcome = trial.run(still, chosen, dtype)
        if outcome.error or outcome.found.fault or not isinstance(outcome.got, np.ndarray):
            continue
        start = still[names.index("a")] if trial.subject.name != "phi" else 0.0
        moves = bool(np.nanmax(np.abs(np.asarray(outcome.got) - start), initial=0.0) > 1e-9)
        return int(moves == (fixed[name] is None))
    return 0


def _score(outcomes: Sequence[Outcome]) -> tuple[int, int, int]:
    """How badly a way of calling goes: exceptions, wrong shapes, wrong numbers."""
    raised = sum(bool(o.error) for o in outcomes)
    shapes = sum(bool(o.found.fault) and "dtype" not in o.found.fault for o in outcomes)
    return raised, shapes, sum(not o.agrees for o in outcomes)


def _most_telling(trials: Sequence[Trial], dtype: str, seed: int) -> Trial:
    """Of several ways to call theirs, the one under which it agrees, or one variant explains it."""
    if len(trials) > 1:
        tried = []
        for trial in trials:
            drawn = draw_many(trial.subject, 40, seed, trial.sizes)
            outcomes = [trial.run(arguments, chosen, dtype) for arguments, chosen in drawn]
            if all(o.agrees for o in outcomes):
                return trial
            tried.append((trial, outcomes))
        for trial, outcomes in tried:
            if explains(trial, outcomes):
                return trial
    return trials[0]


def _tally(dtype: str, outcomes: Sequence[Outcome]) -> Tried:
    sound = [o.found for o in outcomes if not o.error]
    worst = max(sound, key=lambda d: d.ratio, default=Difference())
    largest = max((d.relative for d in sound), default=0.0)
    worst = dataclasses.replace(worst, relative=largest)
    return Tried(dtype, len(outcomes), sum(not o.agrees for o in outcomes), worst)


def _random(trial: Trial, outcomes: Sequence[Outcome]) -> list[Finding]:
    """Whether theirs gives two results for one input."""
    compiles = trial.arrays.name == "jax"
    for o in sorted(outcomes, key=lambda o: o.size)[:1] if compiles else outcomes[:4]:
        # what is compiled gives the same twice
        first = o if compiles else trial.run(o.arguments, o.chosen, o.dtype)
        with trial.caller.afresh():
            second = trial.run(o.arguments, o.chosen, o.dtype)
        if first.error or second.error:
            continue
        one, two = named_leaves(first.got), named_leaves(second.got)
        if len(one) != len(two) or any(
            np.shape(x) != np.shape(y)
            or not np.allclose(x, y, rtol=1e-4, atol=1e-6, equal_nan=True)
            for (_, x), (_, y) in zip(one, two, strict=True)
        ):
            return [
                Finding(
                    "random",
                    "your function gives two results for one input: it draws random "
                    "numbers itself, or keeps something between calls. Let it take them as "
                    "arguments",
                )
            ]
    return []


def _drawn_otherwise(trial: Trial, outcomes: Sequence[Outcome]) -> list[Finding]:
    """Whether theirs draws other random numbers than the specification, so that none can be given.

    Only where it differs: what it draws beside may have no effect on the result.
    """
    own = [name for name in trial.reading.drawn if name not in trial.reading.uses()]
    wanted = {name: trial.subject.noise[name] for name in own}
    for o in (o for o in outcomes if wanted and not o.agrees and not o.error):
        missing = [name for name in wanted if name not in {d.name for d in o.drawn}]
        others = [str(d) for d in o.drawn if not d.name]
        if missing and others and all(np.size(o.named[name]) for name in missing):
            these = [
                f"{name}, {wanted[name]} [{', '.join(map(str, np.shape(o.named[name])))}]"
                for name in missing
            ]
            return [
                Finding(
                    "drawn",
                    f"your function draws {' and '.join(others)} where the specification has "
                    f"{' and '.join(these)}",
                )
            ]
    return []


def _draws_in_words(trial: Trial, outcomes: Sequence[Outcome]) -> list[str]:
    """What theirs drew at random."""
    wanted = trial.reading.drawn
    shown = next((o for o in reversed(outcomes) if o.drawn), None)
    if shown is None:
        return []
    given = [f"{d.name} ({d.kind})" for d in shown.drawn if d.name]
    others = [str(d) for d in shown.drawn if not d.name]
    notes = []
    if given:
        notes.append(f"it draws by itself, and was given for it: {', '.join(given)}")
    if others:
        notes.append(f"it also draws, on the last input: {', '.join(others)}")
    passed = trial.reading.uses()
    drawn = {d.name for d in shown.drawn} | passed
    if left := [name for name in wanted if name not in drawn]:
        notes.append(f"it never drew: {', '.join(left)}")
    return notes


def _in_place(outcomes: Sequence[Outcome]) -> list[Finding]:
    changed = [o for o in outcomes if o.changed]
    if not changed:
        return []
    names = ", ".join(dict.fromkeys(o.changed for o in changed))
    return [
        Finding(
            "in place",
            f"your function changes its argument {names} in place",
            matched=len(changed),
            of=len(outcomes),
        )
    ]


def _unseen(trial: Trial, outcomes: Sequence[Outcome], function: Any) -> list[str]:
    """What was not compared, and what was held fixed."""
    notes = []
    given = {name.rpartition(".")[2] for name in trial.adapter.constants}
    fixed = [
        f"{k} = {v}" for k, v in trial.reading.fixed.items() if k.rpartition(".")[2] not in given
    ]
    if fixed:
        notes.append(f"yours does not take, so held fixed: {', '.join(fixed)}")
    reading = trial.reading
    used = {n for s in reading.sources.values() if s.kind == "ours" for n in s.value.names}
    used |= reading.uses()
    if reading.numbers:
        names = ", ".join(sorted(name.rpartition(".")[2] for name in reading.numbers))
        notes.append(f"yours takes no None, so none was tried, for: {names}")
    notes += _draws_in_words(trial, outcomes)
    drawn = {d.name for o in outcomes for d in o.drawn}
    known = {*used, *reading.fixed, *drawn, "budget", "state"}
    left = [name for name in trial.subject.parameters if name not in known]
    if left:
        notes.append(f"yours does not take: {', '.join(left)}")
    rest = [p.name for p in parameters_of(function) or [] if p.name not in reading.sources]
    if rest:
        notes.append(f"left at its default: {', '.join(rest)} (--arg {rest[0]}=... binds it)")
    if trial.sizes.norms == _BEFORE and any("layer_norm" in o.chosen for o in outcomes):
        notes.append("yours reads no post_scale: LayerNorm after the activation was not tried")
    skipped = dict.fromkeys(part for o in outcomes for part in o.skipped)
    if skipped:
        notes.append(f"not compared, as yours does not return it: {', '.join(skipped)}")
    return notes


def _bindings(trial: Trial) -> list[str]:
    return [
        f"{theirs} = {source}" if str(source) != theirs else theirs
        for theirs, source in trial.reading.sources.items()
    ]


# --- text ----------------------------------------------------------------------------------------


def _fill(text: str, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _text(result: Result) -> str:
    head = f"{result.function} as {result.name}"
    verdict = result.verdict
    lines = [
        f"{head}: {verdict}" if len(head) + len(verdict) + 2 <= WIDTH else f"{head}:\n{verdict}"
    ]
    answers = [f for f in result.findings if f.kind != "where"]
    for finding in answers:
        lines.append("")
        lines.append(_fill(finding.says[:1].upper() + finding.says[1:] + "."))
    for finding in result.findings:
        if finding.kind == "where":
            lines += ["", _fill(f"Where: {finding.says}.")]
    if result.smallest is not None:
        lines += ["", *_smallest_text(result.smallest)]
    lines.append("")
    for tried in result.tried:
        failures = f"{tried.differ} differ" if tried.differ else "all agree"
        worst = f"; worst error {tried.worst.ratio:.2g} x tolerance" if tried.examples else ""
        lines.append(f"  {tried.dtype}: {tried.examples} examples, {failures}{worst}")
    lines.append(_fill(f"tolerance: {tolerance_in_words()}", "  ", "    "))
    lines.append(
        _fill(f"called with {result.framework} arrays: {', '.join(result.bindings)}", "  ", "    ")
    )
    if result.cancelling:
        lines.append(
            _fill(
                f"on {result.cancelling} inputs it loses up to {result.digits:.1f} digits more "
                "than the specification's form, as distances by a Gram matrix or sums taken apart "
                "do (--tolerance strict rejects that)",
                "  ",
                "    ",
            )
        )
    if result.agrees and result.domain:
        ranges = [
            f"{k} {a}" if a == b else f"{k} {a} to {b}" for k, (a, b) in result.domain.items()
        ]
        lines.append(_fill(f"it holds for {', '.join(ranges)}", "  ", "    "))
    lines += [_fill(note, "  ", "    ") for note in result.notes]
    return "\n".join(lines)


def _smallest_text(outcome: Outcome) -> list[str]:
    sizes = ", ".join(f"{k} = {outcome.chosen[k]}" for k in ("B", "N", "d") if k in outcome.chosen)
    lines = [f"Smallest input found{f' ({sizes})' if sizes else ''}, {outcome.dtype}:"]
    rows = [(k, v) for k, v in outcome.named.items() if not k.startswith("(")]
    rows += [("yours", outcome.error or outcome.got), ("expected", outcome.expected)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        indent = " " * (width + 4)
        text = _show(value)
        if len(text) + width + 4 <= WIDTH and "\n" not in text:
            lines.append(f"  {name.ljust(width)}  {text}")
        elif "\n" in text:
            lines.append(f"  {name.ljust(width)}  " + text.replace("\n", "\n" + indent))
        else:
            lines.append(_fill(text, f"  {name.ljust(width)}  ", indent))
    if not outcome.error:
        lines.append(_fill(str(outcome.found), "  ", "  "))
    return lines


def _show(value: Any) -> str:
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        if value.size > 60:
            return f"array of shape {value.shape}"
        if value.dtype.kind == "f":
            value = np.round(value, 12)
        line = str(value.tolist())
        if len(line) <= 60:
            return line
        text = np.array2string(value, precision=8, separator=", ", max_line_width=60)
        return "\n".join(row for row in text.splitlines() if row.strip())
    if isinstance(value, dict):
        leaves = named_leaves(value)
        if len(leaves) > 4 or any(np.size(x) > 6 for _, x in leaves):
            return f"{len(leaves)} arrays ({', '.join(map(str, value))})"
        return ", ".join(f"{name} = {_show(np.asarray(x))}" for name, x in leaves)
    if isinstance(value, tuple):
        return "; ".join(_show(item) for item in value)
    if dataclasses.is_dataclass(value):
        shown = {
            f.name: getattr(value, f.name)
            for f in dataclasses.fields(value)
            if not _is_default(f, getattr(value, f.name))
        }
        inside = ", ".join(f"{k}={_show(v)}" for k, v in shown.items())
        return f"{type(value).__name__}({inside})"
    return repr(value) if not isinstance(value, str) else value


def _is_default(field: Any, value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(np.all(value == field.default))
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False


def _plain(value: Any) -> Any:
    """Arrays, numbers and settings as JSON can hold them; what is not finite as a word."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def as_json(results: Sequence[Result]) -> str:
    """Results as JSON text."""
    return json.dumps([r.as_dict() for r in results], indent=1) + "\n"


__all__ = ["Reading", "Result", "as_json", "assert_matches", "check_function"]

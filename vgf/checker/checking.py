"""Checking a function from outside against the specification: search, shrink, diagnose, report."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..support.errors import VGFError
from ..testing.compare import MACHINE_EPSILON, Difference, named_leaves, tolerance_in_words
from ..testing.compare import assert_matches as assert_same
from .adapter import Adapter, Arrays, Reading, bind, guess_frameworks
from .diagnosis import EXTREME, Finding, diagnose, explains
from .subjects import CHOICES, Subject, choices, find_subject
from .trial import Drawn, Outcome, Trial, draw_many, float_dtypes, smallest

WIDTH = 80
# Examples of what takes long, where the caller does not say how many.
_FEW = {"update": 20, "act": 30}
EXAMPLES = 100
# Inputs tried in the search for the smallest one.
SHRINK = 1000
_PILOTS = 6


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

    def __str__(self) -> str:
        return _text(self)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, words and lists."""
        small = self.smallest
        return {
            "function": self.function,
            "as": self.name,
            "agrees": self.agrees,
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
) -> Result:
    """Put a function through the specification.

    Args:
        function: in NumPy, torch, JAX, or anything whose result turns into arrays.
        name: what it should be, such as "phi" or `vgf.spec.phi`; see `vgf.testing.SUBJECTS`.
        adapter: how its signature differs; None binds everything by name.
        examples: how many inputs to try in each dtype; None is 100, and fewer for a whole update.
        seed: of the search.
        dtype: "float64" or "float32"; None tries both, or the one that theirs computes in.
        explain: look for the variant that theirs computes.
        label: what to call the function in the report; its own name by default.

    Raises:
        VGFError: a request that makes no sense: an unknown name, an argument that cannot be bound.
    """
    subject, adapter = find_subject(name), adapter or Adapter()
    if not callable(function):
        raise VGFError(f"a {type(function).__name__} is not a function; give something callable")
    if examples is None:
        examples = _FEW.get(subject.name, EXAMPLES)
    if examples < 1:
        raise VGFError(f"examples is {examples}; it must be 1 or more")
    if dtype not in (None, *MACHINE_EPSILON):
        raise VGFError(f"dtype {dtype!r} is unknown; choose one of {', '.join(MACHINE_EPSILON)}")
    label = label or getattr(function, "__qualname__", None) or type(function).__name__
    pilot = _choose(function, subject, adapter, seed, dtype)
    trial = _most_telling(pilot.trials, pilot.dtypes[0], examples, seed)
    outcomes: list[Outcome] = []
    tried, notes = [], list(pilot.notes)
    drawn = draw_many(trial.subject, examples, seed)
    for kind in pilot.dtypes:
        these = _try(trial, drawn, kind)
        tried.append(_tally(kind, these))
        outcomes += these
    findings = [*_random(trial, drawn, pilot.dtypes[0]), *_in_place(outcomes)]
    notes += _unseen(trial, outcomes)
    wrong = [o for o in outcomes if not o.agrees]
    small = None
    if wrong and not any(f.kind == "random" for f in findings):
        raises = all(o.error for o in wrong)
        first = next((o for o in wrong if bool(o.error) == raises), wrong[0])
        tries = SHRINK // 10 if subject.name in _FEW else SHRINK
        small = smallest(trial, first.dtype, seed, raises, tries) or min(
            (o for o in wrong if bool(o.error) == raises), key=lambda o: o.size
        )
        if explain:
            findings += diagnose(trial, outcomes)
    agrees = not wrong and not findings
    return Result(
        label,
        trial.subject.name,
        agrees,
        trial.arrays.name,
        tuple(tried),
        tuple(_bindings(trial)),
        tuple(notes),
        tuple(findings),
        small,
    )


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
    function: Any, subject: Subject, adapter: Adapter, seed: int, dtype: str | None
) -> _Pilot:
    """The framework and the reading under which theirs can be called, tried on a few inputs."""
    readings = bind(function, subject, adapter)
    drawn: dict[str, list[Drawn]] = {}
    for reading in readings:
        if reading.subject.form not in drawn:
            drawn[reading.subject.form] = _pilots(reading.subject, seed)
    frameworks = [adapter.framework] if adapter.framework else guess_frameworks(function)
    kind = dtype or "float64"
    best: tuple[tuple[int, ...], Trial, list[Outcome]] | None = None
    others: list[tuple[tuple[int, ...], Trial]] = []
    for framework in frameworks:
        for with_gradient in (False, True) if framework == "torch" else (False,):
            arrays = Arrays(framework, with_gradient)
            ways = list(readings)
            if not adapter.single and any("B" in x for x in subject.axes.values()):
                ways += [dataclasses.replace(r, single=True) for r in readings]
            for way in ways:
                if way.single and not adapter.single and _takes_batches(best):
                    break
                few = drawn[way.subject.form]
                trial = _numbers_only(Trial(function, way, adapter, arrays), few, kind)
                outcomes = [trial.run(*d, kind) for d in few]
                if dtype is None and not any(o.error for o in outcomes):
                    outcomes.append(trial.run(*few[0], "float32"))
                raised, shapes, differ = _score(outcomes)
                score = (raised, shapes, _repels_otherwise(trial, few, kind), differ)
                others.append((score, trial))
                if best is None or score < best[0]:
                    best = (score, trial, outcomes)
            if best is not None and best[0][:2] == (0, 0):
                break
        if best is not None and best[0][:2] == (0, 0):
            break
    assert best is not None
    _, trial, outcomes = best
    notes = []
    if trial.reading.single and not adapter.single:
        notes.append("called for one state at a time (it does not take a batch of them)")
    dtypes = [dtype] if dtype else ["float64", "float32"]
    precisions = set().union(*(float_dtypes(o.got) for o in outcomes if not o.error))
    if kind == "float64" and precisions == {"float32"}:
        dtypes = ["float32"]
        notes.append("it computes in float32 whatever it is given, and is judged in float32")
    reached = best[0]
    equal = [
        t
        for s, t in others
        if s[:3] == reached[:3] and s[3] > 0 and t is not trial and t.arrays is trial.arrays
    ]
    return _Pilot([trial, *(equal if reached[3] else [])][:6], dtypes, notes)


def _takes_batches(best: tuple[tuple[int, ...], Trial, list[Outcome]] | None) -> bool:
    """Whether theirs has been called with a batch, without an exception or a wrong shape."""
    return best is not None and best[0][:2] == (0, 0) and not best[1].reading.single


def _pilots(subject: Subject, seed: int) -> list[Drawn]:
    """A few inputs, ordinary ones where the search finds some."""
    many = draw_many(subject, 40, seed)

    def odd(drawn: Drawn) -> tuple[bool, int]:
        chosen = drawn[1]
        alone = chosen.get("N", 2) < 2 or chosen.get("B", 2) < 2
        return alone, sum(str(value) in EXTREME for value in chosen.values())

    return sorted(many, key=odd)[:_PILOTS]


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
        for value in (None, 0.5):
            fixed = {**trial.reading.fixed, name: value}
            reading = dataclasses.replace(trial.reading, fixed=fixed)
            tries.append(dataclasses.replace(trial, reading=reading).run(*drawn[0], dtype).error)
        if tries[0] and not tries[1]:
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
    if not name or name in trial.adapter.constants or "a" not in trial.subject.axes:
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
        if outcome.error or outcome.found.fault:
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


def _most_telling(trials: Sequence[Trial], dtype: str, examples: int, seed: int) -> Trial:
    """Of several ways to call theirs, the one under which a single variant explains it."""
    if len(trials) > 1:
        for trial in trials:
            drawn = draw_many(trial.subject, min(examples, 30), seed)
            if explains(trial, _try(trial, drawn, dtype)):
                return trial
    return trials[0]


def _try(trial: Trial, drawn: Sequence[Drawn], dtype: str) -> list[Outcome]:
    return [trial.run(arguments, chosen, dtype) for arguments, chosen in drawn]


def _tally(dtype: str, outcomes: Sequence[Outcome]) -> Tried:
    sound = [o.found for o in outcomes if not o.error]
    worst = max(sound, key=lambda d: d.ratio, default=Difference())
    largest = max((d.relative for d in sound), default=0.0)
    worst = dataclasses.replace(worst, relative=largest)
    return Tried(dtype, len(outcomes), sum(not o.agrees for o in outcomes), worst)


def _random(trial: Trial, drawn: Sequence[Drawn], dtype: str) -> list[Finding]:
    """Whether theirs gives two results for one input."""
    for arguments, chosen in drawn[:4]:
        first = trial.run(arguments, chosen, dtype)
        second = trial.run(arguments, chosen, dtype)
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


def _unseen(trial: Trial, outcomes: Sequence[Outcome]) -> list[str]:
    """What was not compared, and what was held fixed."""
    notes = []
    fixed = [
        f"{k} = {v}" for k, v in trial.reading.fixed.items() if k not in trial.adapter.constants
    ]
    whole = {name.partition(".")[2]: v for name, v in trial.adapter.constants.items()}
    fixed = [text for text in fixed if text.partition(" ")[0].partition(".")[2] not in whole]
    if fixed:
        notes.append(f"yours does not take, so held fixed: {', '.join(fixed)}")
    reading = trial.reading
    used = {n for s in reading.sources.values() if s.kind == "ours" for n in s.value.names}
    if any(s.kind == "closure" for s in reading.sources.values()):
        used |= {"params", "activation", "g", "score", "velocity"}
    if reading.numbers:
        names = ", ".join(sorted(name.rpartition(".")[2] for name in reading.numbers))
        notes.append(f"yours takes no None, so none was tried, for: {names}")
    known = {*used, *reading.fixed, "budget", "state"}
    left = [name for name in trial.subject.parameters if name not in known]
    if left:
        notes.append(f"yours does not take: {', '.join(left)}")
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
    verdict = "agrees" if result.agrees else "DIFFERS"
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

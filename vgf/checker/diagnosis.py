"""Saying what a function computes instead, by comparing it with named variants.

The library (`variants.py`, `alternatives.py`) is planted in the specification one by one, then
two and three at a time. A cause is told only if theirs equals the specification with it on *every*
input, as tightly as it should have equalled the specification, and with none of its parts left out.
Where there is no such, other questions are asked, each of which has to hold on every input too: is
it called with two arguments exchanged or in another layout, a factor times the specification, right
up to an order, right for each state alone; which of its parts are right, and on which inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from ..support.errors import VGFError
from ..testing.compare import Difference, difference, largest_in_set, named_leaves
from ..testing.rewired import reached_from
from ..testing.variants import Variant
from .alternatives import library_for
from .code import numbers_in
from .subjects import CHOICES, Subject
from .trial import PARTS, Outcome, Trial, as_dtype

# The numbers of a budget.
_FIELDS = ("step_size", "temperature", "bandwidth", "clip_norm")
# How many combinations of variants are tried, times the square of how many functions of the
# specification are reached, to which the time of one try is about proportional.
TRIES = 2_000_000
# Kinds of input on which rounding or a convention may decide.
EXTREME = {
    "identical",
    "some identical",
    "nearly identical",
    "far",
    "edge",
    "two clumps",
    "huge",
    "tiny",
    "zero",
    "constant",
    "large",
    "small",
    "equal",
    "beyond",
    "elements",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was found out about a function.

    Attributes:
        kind: "variant", "called", "factor", "raises", "shape", "dtype", "nan", "in place",
            "random", "drawn", "gradient", "states", "order", "returned", "rounding", "parts",
            "where" or "unknown".
        says: what is wrong, to the author of the function.
        variants: names in the library, for kind "variant".
        matched, of: on how many of how many inputs it holds.
    """

    kind: str
    says: str
    variants: tuple[str, ...] = ()
    matched: int = 0
    of: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def diagnose(
    trial: Trial, outcomes: Sequence[Outcome], more: tuple[Variant, ...] = ()
) -> list[Finding]:
    """What is wrong with a function that failed, the most telling finding first.

    Args:
        outcomes: everything that was tried, in one or more dtypes.
        more: variants to compare it with beside the library's.
    """
    failing = [o for o in outcomes if not o.agrees]
    if not failing:
        return []
    called = _called_otherwise(trial, outcomes)
    findings = [*_raised(trial, outcomes), *_shapes(trial, outcomes)]
    numeric = [o for o in outcomes if not o.error and not o.found.fault]
    wrong = [o for o in numeric if not o.agrees]
    if called is not None:
        return [called, *findings]
    if wrong:
        findings += _not_finite(wrong, numeric)
        lost = [o for o in wrong if not finite(o.got) and finite(o.expected)]
        sound = _sound(numeric)
        if all(o.agrees for o in sound):
            return [*findings, *_where(outcomes)]
        answer = (
            _alone(trial, sound, more)
            or _general(trial, sound)
            or _together(trial, sound, more)
            or _loosely(trial, sound)
        )
        if not answer and trial.tolerance == "cancellation":
            answer = _in_single_precision(trial, sound, more)
        findings = [*findings[:-1], *answer, *findings[-1:]] if lost else [*findings, *answer]
        findings += _parts(trial, sound, bool(answer))
        if not answer:
            findings.append(
                Finding(
                    "unknown",
                    "no named variant, and no combination of them that was tried, equals your "
                    "function on every input",
                )
            )
    if len(failing) < len(outcomes):
        explained = any(f.kind in ("variant", "factor") for f in findings)
        findings += _where(outcomes, only_exact=explained)
    return findings


def _in_single_precision(
    trial: Trial, sound: Sequence[Outcome], more: tuple[Variant, ...]
) -> list[Finding]:
    """A variant that theirs computes in float32 whatever it is given."""
    coarse = dataclasses.replace(trial, tolerance="single")
    again = [coarse.judged(o) for o in sound]
    if not any(not o.agrees for o in again):
        return []
    return [
        dataclasses.replace(f, says=f"{f.says}. Something inside computes in float32")
        for f in _alone(coarse, again, more) or _together(coarse, again, more)
    ]


def explains(trial: Trial, outcomes: Sequence[Outcome]) -> bool:
    """Whether one variant, or a constant, is all that is between theirs and the specification."""
    sound = _sound([o for o in outcomes if not o.error and not o.found.fault])
    if not _telling(sound):
        return False
    return is_variant(trial, sound) or bool(_general(trial, sound))


def is_variant(trial: Trial, sound: Sequence[Outcome]) -> bool:
    """Whether one variant is all that is between theirs and the specification."""
    wrong = _telling(sound)
    known = library_for(*trial.subject.functions).values()
    return bool(wrong) and any(_explains_all(trial, wrong, sound, (v,)) for v in known)


def _explains_all(
    trial: Trial,
    wrong: Sequence[Outcome],
    numeric: Sequence[Outcome],
    variants: tuple[Variant, ...],
) -> bool:
    """Whether theirs equals the variants on every input, the telling ones first."""
    if not all(trial.resembles(o, variants) for o in wrong[:3]):
        return False
    if not all(trial.variant(o, variants).agrees for o in wrong):
        return False
    if not all(trial.variant(o, variants).agrees for o in numeric if o.agrees):
        return False
    # as tight as the specification is held to: the variant's own sensitivity excuses no failure
    return any(trial.tight(o, variants) for o in wrong[:20])


# --- how it is called ----------------------------------------------------------------------------


def _called_otherwise(trial: Trial, outcomes: Sequence[Outcome]) -> Finding | None:
    """Whether theirs agrees on every input if two arguments change places, or axes do."""
    few = [o for o in _telling(outcomes) if not _degenerate(o)][:6]
    if len(few) < 2:
        return None
    axes = {k: v for k, v in trial.subject.axes.items() if k != "result"}
    ours = [
        theirs
        for theirs, source in trial.reading.sources.items()
        if source.kind == "ours" and str(source) in axes
    ]
    others: list[tuple[Trial, str]] = []
    for x, y in itertools.combinations(ours, 2):
        first, second = trial.reading.sources[x], trial.reading.sources[y]
        if axes[str(first)] != axes[str(second)]:
            continue
        sources = {**trial.reading.sources, x: second, y: first}
        reading = dataclasses.replace(trial.reading, sources=sources)
        says = (
            f"your function has {first} and {second} exchanged: it agrees on every input if its "
            f"{x} is given {second} and its {y} is given {first} (--arg {x}={second} "
            f"--arg {y}={first}, if that is meant)"
        )
        others.append((dataclasses.replace(trial, reading=reading), says))
    if not trial.adapter.layout and not trial.reading.single:
        for layout in ("N B d", "B d N", "d N B"):
            adapter = dataclasses.replace(trial.adapter, layout={"": layout})
            if all(set(v) == set(layout.split()) for v in axes.values() if len(v) > 2) and any(
                len(v) > 2 for v in axes.values()
            ):
                says = (
                    f"your function takes its arrays as [{', '.join(layout.split())}]: in that "
                    f"layout it agrees on every input (--layout '{layout}', if that is meant)"
                )
                kept = {k: layout for k, v in axes.items() if len(v) > 2}
                if len(trial.subject.axes.get("result", ())) > 2:
                    kept["result"] = layout
                adapter = dataclasses.replace(trial.adapter, layout=kept)
                others.append((dataclasses.replace(trial, adapter=adapter), says))
    for other, says in others:
        try:
            if all(other.run(o.arguments, o.chosen, o.dtype).agrees for o in few) and all(
                other.run(o.arguments, o.chosen, o.dtype).agrees for o in outcomes
            ):
                return Finding("called", says, matched=len(outcomes), of=len(outcomes))
        except VGFError:
            continue
    return None


def _sound(numeric: Sequence[Outcome]) -> list[Outcome]:
    """Without those where theirs alone is not finite, which is a finding of its own."""
    return [o for o in numeric if o.agrees or finite(o.got) or not finite(o.expected)]


# --- what can be seen without computing ----------------------------------------------------------


def _raised(trial: Trial, outcomes: Sequence[Outcome]) -> list[Finding]:
    raised = [o for o in outcomes if o.error]
    if not raised:
        return []
    texts = list(dict.fromkeys(o.error for o in raised))
    share = (
        "every input"
        if len(raised) == len(outcomes)
        else (f"{len(raised)} of {len(outcomes)} inputs")
    )
    return [
        Finding(
            "raises",
            f"your function raises on {share}: {texts[0]}",
            matched=len(raised),
            of=len(outcomes),
        )
    ]


def _shapes(trial: Trial, outcomes: Sequence[Outcome]) -> list[Finding]:
    faulty = [o for o in outcomes if not o.error and o.found.fault]
    if not faulty:
        return []
    largest = max(faulty, key=lambda o: (o.chosen.get("B", 0), np.size(o.expected)))
    says, kind = _shape_says(trial.subject, largest)
    return [Finding(kind, says, matched=len(faulty), of=len(outcomes))]


def _shape_says(subject: Subject, outcome: Outcome) -> tuple[str, str]:
    got, want = outcome.got, outcome.expected
    fault = str(outcome.found)
    if "dtype" in outcome.found.fault:
        return f"your result has the wrong dtype: {outcome.found.fault}", "dtype"
    if isinstance(got, tuple) and not isinstance(want, tuple):
        shapes = ", ".join(str(np.shape(x)) for x in got)
        return (
            f"your function returns {len(got)} things (of shapes {shapes}) where one of shape "
            f"{np.shape(want)} is expected; say which with --returns 0 (or 1, ...)"
        ), "shape"
    if isinstance(got, np.ndarray) and isinstance(want, np.ndarray):
        have, need = got.shape, want.shape
        axes = subject.axes.get("result", ())
        named = f" [{', '.join(axes)}]" if len(axes) == len(need) else ""
        text = f"your result has shape {have}, and should have {need}{named}"
        if sorted(have) == sorted(need) and len(have) > 1:
            text += ": its axes are in another order (--layout result=...)"
        elif len(have) == len(need) + 1 and have[0] == have[1] and need and need[0] == have[0]:
            text += ": two arrays [B] and [B, 1] have broadcast against each other"
        elif have == (*need, 1):
            text += ": an axis of size 1 is left over"
        elif len(have) > len(need) and math.prod(have) == math.prod(need):
            text += ": it has axes of size 1 too many"
        elif len(have) < len(need) and have == need[1:]:
            text += ": the batch axis is lost"
        elif not have:
            text += ": it is averaged or summed to one number"
        return text, "shape"
    return f"your result has another structure: {fault}", "shape"


def _not_finite(wrong: Sequence[Outcome], numeric: Sequence[Outcome]) -> list[Finding]:
    lost = [o for o in wrong if not finite(o.got) and finite(o.expected)]
    if not lost:
        return []
    reasons = []
    sizes = {o.chosen.get("N") for o in lost}
    if sizes == {1}:
        reasons.append("with one particle (log(1) = 0, or N - 1 = 0)")
    elif all(_coincide(o) for o in lost):
        reasons.append("where particles coincide: the bandwidth is 0 and needs a floor")
    where = f" {reasons[0]}" if reasons else ""
    return [
        Finding(
            "nan",
            f"your result is not finite (NaN or infinity){where}, on {len(lost)} of "
            f"{len(numeric)} inputs",
            matched=len(lost),
            of=len(numeric),
        )
    ]


def finite(result: Any) -> bool:
    return all(np.all(np.isfinite(np.asarray(x, float))) for _, x in named_leaves(result))


def _coincide(outcome: Outcome) -> bool:
    a = outcome.named.get("a", outcome.named.get("x"))
    if not isinstance(a, np.ndarray) or a.ndim < 2:
        return False
    return (
        any(
            np.any(np.all(a[..., i, :] == a[..., j, :], axis=-1))
            for i in range(a.shape[-2])
            for j in range(i)
        )
        or a.shape[-2] == 1
    )


# --- variants ------------------------------------------------------------------------------------


def _extremes(outcome: Outcome) -> int:
    return sum(str(value) in EXTREME for value in outcome.chosen.values())


def _degenerate(outcome: Outcome) -> bool:
    """Whether there is one particle only, or all lie together: floors and guards decide there."""
    kinds = {outcome.chosen.get(name) for name in ("a", "x")}
    together = {"identical", "some identical", "nearly identical"}
    return outcome.chosen.get("N") == 1 or bool(kinds & together)


def _telling(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Failing inputs, those on which a wrong explanation is soonest found out first."""

    def key(o: Outcome) -> tuple[Any, ...]:
        extreme = _extremes(o)
        sizes = sum(int(o.chosen.get(name, 0)) for name in ("B", "N", "d"))
        return (o.dtype != "float64", extreme, not finite(o.got), -sizes)

    return sorted((o for o in outcomes if not o.agrees), key=key)


def _known(trial: Trial, more: tuple[Variant, ...]) -> dict[str, Variant]:
    return {**library_for(*trial.subject.functions), **{v.name: v for v in more}}


def _alone(trial: Trial, numeric: Sequence[Outcome], more: tuple[Variant, ...]) -> list[Finding]:
    """One variant that explains all."""
    wrong = _telling(numeric)
    variants = _known(trial, more).values()
    alone = [v for v in variants if _explains_all(trial, wrong, numeric, (v,))]
    return [_named(trial, [(v,) for v in alone], numeric)] if alone else []


def _together(trial: Trial, numeric: Sequence[Outcome], more: tuple[Variant, ...]) -> list[Finding]:
    """Two or three variants that explain all."""
    wrong, known = _telling(numeric), _known(trial, more)
    if _only_rounding(wrong):
        return []
    probe, there, relevant = _probes(trial, wrong, known)
    for count in (2, 3):
        found, tries = [], _tries(trial, 1 if count == 2 else 4)
        for combination in _orders(relevant, count):
            if there.isdisjoint(v.name for v in combination):
                continue
            tries -= 1
            if tries < 0:
                break
            if not trial.resembles(probe, combination):
                continue
            if _explains_all(trial, wrong, numeric, combination) and not any(
                _explains_all(trial, wrong, numeric, fewer)
                for fewer in itertools.combinations(combination, count - 1)
            ):
                found.append(combination)
                if len(found) > 3:
                    break
        if found:
            return [_named(trial, found, numeric)]
    return []


def _probes(
    trial: Trial, wrong: Sequence[Outcome], known: dict[str, Variant]
) -> tuple[Outcome, set[str], list[Variant]]:
    """The failing input that tells most variants apart, which matter to it, and which anywhere."""
    few: dict[str, Outcome] = {}
    for outcome in wrong:
        few.setdefault(str(sorted(outcome.chosen.items(), key=str)), outcome)
    scored = [
        (outcome, [v for v in known.values() if _matters(trial, outcome, v)])
        for outcome in list(few.values())[:6]
    ]
    most = max(len(variants) for _, variants in scored)
    # an ordinary input tells enough of them apart, and no rounding interferes
    scored.sort(key=lambda p: (len(p[1]) < 0.7 * most, _extremes(p[0]), -len(p[1])))
    outcome, there = scored[0]
    anywhere = {v.name for _, variants in scored for v in variants}
    relevant = [v for v in known.values() if v.name in anywhere]
    return outcome, {v.name for v in there}, relevant


def _tries(trial: Trial, share: int = 1) -> int:
    """How many combinations to try, or a share of them; fewer of what takes long to compute."""
    reached = frozenset[str]().union(*map(reached_from, trial.subject.functions))
    return TRIES // len(reached) ** 2 // share


def _orders(variants: Sequence[Variant], count: int) -> Iterator[tuple[Variant, ...]]:
    """Combinations; of two that replace the same function, in both orders."""
    for combination in itertools.combinations(variants, count):
        methods = [v.method for v in combination]
        if count == 3 and len(set(methods)) < 2:
            continue
        yield combination
        if len(set(methods)) < count:
            yield tuple(reversed(combination))


def _matters(trial: Trial, outcome: Outcome, variant: Variant) -> bool:
    """Whether a variant changes the specification's result on an input at all."""
    return not trial.resembles(dataclasses.replace(outcome, got=outcome.expected), (variant,))


def _named(
    trial: Trial, found: Sequence[tuple[Variant, ...]], numeric: Sequence[Outcome]
) -> Finding:
    variants, subject = found[0], trial.subject.name
    parts = [v.says for v in variants]
    text = parts[0] if len(parts) == 1 else "; ".join(f"({i}) {p}" for i, p in enumerate(parts, 1))
    names = tuple(v.name for v in variants)
    equal = " and ".join(f"'{name}'" for name in names)
    says = f"{text}. It equals the specification of {subject} with {equal} on all {len(numeric)} "
    says += "inputs"
    same = [c for c in found[1:4] if {v.name for v in c} != set(names)]
    if same:
        others = ", or ".join(" and ".join(f"'{v.name}'" for v in c) for c in same)
        says += f" (so it does with {others}: on these inputs they are one)"
    return Finding("variant", says, names, len(numeric), len(numeric))


# --- other relations to the right result ---------------------------------------------------------


def _loosely(trial: Trial, numeric: Sequence[Outcome]) -> list[Finding]:
    """What holds on every input and names no cause."""
    for question in (_multiple, _states):
        found = question(trial, numeric)
        if found is not None:
            return [found]
    return []


def _general(trial: Trial, numeric: Sequence[Outcome]) -> list[Finding]:
    exact = (_rounding, _zero, _returned, _factor, _shift, _argument, _changed_result, _order)
    for question in exact:
        found = question(trial, numeric)
        if found is not None:
            return [found]
    return []


def _only_rounding(wrong: Sequence[Outcome]) -> bool:
    """Whether only digits are lost: few of float64's, and of float32's as many as that makes."""
    lost = [(o.dtype, _lost(o)) for o in wrong]
    return all(share < (1e-6 if dtype == "float64" else 0.3) for dtype, share in lost) and (
        any(dtype == "float64" for dtype, _ in lost) or all(share < 3e-3 for _, share in lost)
    )


def _lost(outcome: Outcome) -> float:
    """The largest error relative to its own set, where that is no size, to one."""
    found = 0.0
    pairs = zip(named_leaves(outcome.got), named_leaves(outcome.expected), strict=True)
    for (_, got), (_, want) in pairs:
        got, want = np.asarray(got, float), np.asarray(want, float)
        size = largest_in_set(want)
        with np.errstate(invalid="ignore"):
            error = np.where(got == want, 0.0, np.abs(got - want))
        found = max(found, float(np.max(error / np.where(size > 0, size, 1.0), initial=0.0)))
    return found


def _rounding(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Whether theirs is right but for digits: single precision inside, or cancellation."""
    wrong = [o for o in numeric if not o.agrees]
    if not _only_rounding(wrong):
        return None
    double = [o for o in wrong if o.dtype == "float64"]
    single = [o for o in wrong if o.dtype == "float32"]
    largest = max(o.found.relative for o in wrong)
    near = f"your {trial.subject.name} is within {largest:.1g} of the specification's everywhere"
    if double and not single and largest > 1e-10:
        says = (
            f"{near}, and within its tolerance in float32: digits are lost inside, to single "
            "precision or to a small constant"
        )
    else:
        says = (
            f"{near}: digits are lost inside, to a difference of large numbers, to a lower "
            "precision or to a small constant"
        )
    return Finding("rounding", says, matched=len(wrong), of=len(wrong))


def _single_array(outcomes: Sequence[Outcome]) -> bool:
    return all(
        isinstance(o.got, np.ndarray) and isinstance(o.expected, np.ndarray) for o in outcomes
    )


def _close(outcome: Outcome, got: Any, want: Any) -> bool:
    found: Difference = difference(
        as_dtype(got, want, outcome.dtype), np.asarray(want), outcome.dtype, None, 1.0
    )
    return found.fault == "" and found.ratio < 10


def _on_all(numeric: Sequence[Outcome], kind: str, says: str) -> Finding:
    """What holds on every input."""
    return Finding(kind, says, matched=len(numeric), of=len(numeric))


def _zero(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    if all(not np.any(np.asarray(x)) for o in numeric for _, x in named_leaves(o.got)):
        return _on_all(numeric, "returned", "your function returns zeros on every input")
    return None


def _returned(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Whether theirs gives back an argument, or the change and not the new value."""
    if not _single_array(numeric):
        return None
    for name in trial.subject.axes:
        if name == "result":
            continue
        pairs: list[tuple[Outcome, Any]] = [(o, o.named.get(name)) for o in numeric]
        if not all(isinstance(x, np.ndarray) and x.shape == o.got.shape for o, x in pairs):
            continue
        if all(_close(o, o.got, x) for o, x in pairs):
            return _on_all(
                numeric, "returned", f"your function returns its argument {name} unchanged"
            )
        if all(_close(o, o.got, o.expected - x) for o, x in pairs):
            return _on_all(
                numeric,
                "returned",
                f"your function returns the change of {name}, not the new {name}",
            )
        if all(_close(o, o.got, 2 * x - o.expected) for o, x in pairs):
            return _on_all(
                numeric, "returned", f"your function moves {name} in the opposite direction"
            )
    return None


def _ratio(outcome: Outcome) -> float | None:
    """The constant by which theirs is the specification's, if there is one; NaN if both are 0."""
    got = np.concatenate([np.ravel(np.asarray(x, float)) for _, x in named_leaves(outcome.got)])
    want = np.concatenate(
        [np.ravel(np.asarray(x, float)) for _, x in named_leaves(outcome.expected)]
    )
    if got.shape != want.shape or not np.all(np.isfinite(got)):
        return None
    scale = float(np.max(np.abs(want), initial=0.0))
    if scale == 0:
        return math.nan if not np.any(got) else None
    # least squares, and then every entry has to agree
    c = float(np.sum(got * want) / np.sum(want * want))
    precision = 1e-9 if outcome.dtype == "float64" else 1e-3
    return c if np.all(np.abs(got - c * want) <= precision * abs(c) * scale) else None


def _names_of_factors(outcome: Outcome) -> dict[str, float]:
    """Factors that somebody forgets or adds, with their value for one input."""
    sizes = {k: float(v) for k, v in outcome.chosen.items() if k in ("B", "N", "d", "E")}
    for name, value in outcome.named.items():
        if isinstance(value, np.ndarray) and name == "q" and value.ndim > 1:
            sizes["E"] = float(value.shape[0])
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value:
            sizes[name] = float(value)
        for field in ("temperature", "step_size", "steps"):
            inner = getattr(value, field, None)
            if inner:
                sizes[field] = float(inner)
    named = {
        str(Fraction(c).limit_denominator(8)): float(c)
        for c in (2, 0.5, 4, 0.25, 3, 1 / 3, 8, 0.125)
    }
    for name, value in sizes.items():
        named[name] = value
        if value:
            named[f"1/{name}"] = 1 / value
            named[f"{name}^2"] = value**2
            named[f"1/{name}^2"] = 1 / value**2
            named[f"sqrt({name})"] = math.sqrt(abs(value))
            named[f"1/sqrt({name})"] = 1 / math.sqrt(abs(value))
    if sizes.get("N", 1) > 1:
        n = sizes["N"]
        named |= {
            "N/(N - 1)": n / (n - 1),
            "(N - 1)/N": (n - 1) / n,
            "N - 1": n - 1,
            "1/(N - 1)": 1 / (n - 1),
        }
    for x, y in itertools.combinations(sizes, 2):
        named[f"{x} {y}"] = sizes[x] * sizes[y]
        named[f"1/({x} {y})"] = 1 / (sizes[x] * sizes[y])
        named[f"{x}/{y}"] = sizes[x] / sizes[y]
        named[f"{y}/{x}"] = sizes[y] / sizes[x]
    return (
        named
        | {f"-{k}" if " " not in k else f"-({k})": -v for k, v in named.items()}
        | {"-1": -1.0}
    )


def _factor(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    pairs = [(o, _ratio(o)) for o in numeric]
    if any(c is None for _, c in pairs):
        return None
    ratios = [(o, c) for o, c in pairs if c is not None and not math.isnan(c)]
    if not ratios:
        return None
    name = trial.subject.name
    values = [c for _, c in ratios]
    tight = [1e-9 if o.dtype == "float64" else 1e-4 for o, _ in ratios]
    constant = all(
        abs(c - values[0]) <= t * abs(values[0]) for c, t in zip(values, tight, strict=True)
    )

    def fits(label: str) -> bool:
        hits, seen = 0, set()
        for (o, c), t in zip(ratios, tight, strict=True):
            known = _names_of_factors(o)
            if label not in known:
                if abs(c - 1) > t:
                    return False
                continue
            hits += 1
            seen.add(known[label])
            if abs(c - known[label]) > t * abs(known[label]):
                return False
        return hits >= 5 and (len(seen) > 1 or _is_number(label))

    known_labels = dict.fromkeys(label for o, _ in ratios[:20] for label in _names_of_factors(o))
    labels = [label for label in known_labels if fits(label)]
    simple = sorted(labels, key=lambda label: (not _is_number(label), len(label)))
    if constant and simple and _is_number(simple[0]):
        label = simple[0]
    elif constant:
        label = f"{values[0]:.6g}"
    elif simple:
        label = simple[0]
    else:
        return None
    if label == "-1":
        return Finding(
            "factor",
            f"your {name} has the opposite sign: it is -1 times the specification's",
            matched=len(ratios),
            of=len(numeric),
        )
    return _on_all(
        numeric,
        "factor",
        f"your {name} is {label} times the specification's, on all "
        f"{len(ratios)} inputs where that is not 0",
    )


# What somebody takes for an argument, or does to a result. A word and a function of an array.
_INSTEAD: dict[str, Any] = {
    "|{}|": np.abs,
    "{}^2": lambda x: x * x,
    "{} / 2": lambda x: x / 2,
    "2 {}": lambda x: 2 * x,
    "sqrt({})": lambda x: np.sqrt(np.abs(x)),
    "1 - {}": lambda x: 1 - x,
    "1 + {}": lambda x: 1 + x,
    "{} - 1": lambda x: x - 1,
    "1 / {}": lambda x: 1 / x if np.ndim(x) or x else x,
    "-{}": lambda x: -x,
    "exp({})": np.exp,
    "log({})": lambda x: np.log(np.abs(x)) if np.all(x) else x,
    "tanh({})": np.tanh,
    "log(softplus({}))": lambda x: np.log(np.logaddexp(0, x)),
    "log(softplus({}) + 1e-3)": lambda x: np.log(np.logaddexp(0, x) + 1e-3),
    "log(softplus({}) + 1e-6)": lambda x: np.log(np.logaddexp(0, x) + 1e-6),
    "the sign of {}": np.sign,
    "{} above 0": lambda x: np.maximum(x, 0),
    "{} clipped to [-1, 1]": lambda x: np.clip(x, -1, 1),
    "{} clipped to [0, 1]": lambda x: np.clip(x, 0, 1),
}
# Added to what an array is divided by.
_GUARDS = (0.0, 1e-8, 1e-6, 1e-5)


def _scaled_over(axis: int | None, guard: float, kind: str) -> Any:
    """An array without its mean over an axis, and divided by its deviation or its length."""

    def change(x: Any) -> Any:
        if axis is not None and np.ndim(x) < abs(axis) + (axis >= 0):
            return x
        mean = 0.0 if kind == "length" else np.mean(x, axis=axis, keepdims=True)
        if kind == "mean":
            return x - mean
        size = {
            "length": lambda: np.sqrt(np.sum(x * x, axis=axis, keepdims=True)),
            "deviation": lambda: np.std(x, axis=axis, keepdims=True),
            "deviation by n - 1": lambda: np.std(
                x, axis=axis, ddof=int(x.shape[axis or 0] > 1), keepdims=True
            ),
        }[kind]()
        return (x - mean) / np.where(size + guard > 0, size + guard, 1.0)

    return change


def _ways(numbers: tuple[float, ...], axes: tuple[str, ...] | None) -> dict[str, Any]:
    """What may be done to a number or an array, some of it with the numbers of their code.

    Args:
        axes: the names of an array's axes; None is a number.
    """
    found = dict(_INSTEAD)
    for c in numbers:
        found |= {
            f"{c:g} {{}}": lambda x, c=c: c * x,
            f"{{}} + {c:g}": lambda x, c=c: x + c,
            f"{{}} - {c:g}": lambda x, c=c: x - c,
            f"max({{}}, {c:g})": lambda x, c=c: np.maximum(x, c),
            f"min({{}}, {c:g})": lambda x, c=c: np.minimum(x, c),
            f"{{}} clipped to [-{abs(c):g}, {abs(c):g}]": lambda x, c=c: np.clip(
                x, -abs(c), abs(c)
            ),
        }
    if axes is not None:
        over: dict[str, int | None] = {name: i - len(axes) for i, name in enumerate(axes)}
        for where, axis in {**over, "all of it": None}.items():
            found[f"{{}} minus its mean over {where}"] = _scaled_over(axis, 0.0, "mean")
            for guard in _GUARDS:
                more = f" (and {guard:g})" if guard else ""
                found |= {
                    f"{{}} divided by its length{more} over {where}": _scaled_over(
                        axis, guard, "length"
                    ),
                    f"{{}} standardised{more} over {where}": _scaled_over(axis, guard, "deviation"),
                    f"{{}} standardised{more} by n - 1 over {where}": _scaled_over(
                        axis, guard, "deviation by n - 1"
                    ),
                }
    return found


def _argument(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Whether theirs is right for another value of one argument: its half, its square, its root."""
    wrong = _telling(numeric)
    if len(wrong) < 5:
        return None
    numbers = numbers_in(trial.function)
    fitting: list[str] = []
    # a number is halved more often than each of an array's
    for place, name, field, array in sorted(_numbers_of(trial, wrong[0]), key=lambda p: p[3]):
        axes = trial.subject.axes.get(name, ()) if array else None
        for label, change in _ways(numbers, axes).items():

            def changed(o: Outcome, i: int = place, f: str = field, c: Any = change) -> Any:
                value = _within(o.arguments[i], f)
                if value is None:
                    return o.arguments
                with np.errstate(all="ignore"):
                    value = c(np.asarray(value, float) if isinstance(value, np.ndarray) else value)
                new = list(o.arguments)
                new[i] = _replaced(new[i], f, value)
                return tuple(new)

            if all(_right_for(trial, o, changed) for o in wrong) and all(
                _right_for(trial, o, changed) for o in numeric if o.agrees
            ):
                fitting.append(f"{label.format(name)} where {name} belongs")
    if not fitting:
        return None
    return _on_all(
        numeric,
        "factor",
        f"your {trial.subject.name} takes {fitting[0]}: given that, the specification equals it on "
        f"all {len(numeric)} inputs{_others(fitting)}",
    )


def _others(fitting: Sequence[str]) -> str:
    """What explains all as well as the first does."""
    same = ", or with ".join(fitting[1:4])
    return f" (so it does with {same}: on these inputs they are one)" if same else ""


def _within(value: Any, field: str) -> Any:
    """An argument, or a field of a bundle, or an array of a tree."""
    if not field:
        return value
    return value[field] if isinstance(value, dict) else getattr(value, field)


def _replaced(value: Any, field: str, new: Any) -> Any:
    if not field:
        return new
    if isinstance(value, dict):
        return {**value, field: new}
    return dataclasses.replace(value, **{field: float(new)})


def _numbers_of(trial: Trial, outcome: Outcome) -> Iterator[tuple[int, str, str, bool]]:
    """Arguments that are numbers: their place, name, the field of a bundle, whether an array."""
    for i, (name, value) in enumerate(
        zip(trial.subject.drawn_names, outcome.arguments, strict=True)
    ):
        array = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        if array or (isinstance(value, float) and name in CHOICES):
            yield i, name, "", array
        elif name == "budget":
            for field in _FIELDS:
                yield i, field, field, False
        elif isinstance(value, dict) and "log_std" in value:
            yield i, "log_std", "log_std", True


def _changed_result(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Whether theirs is what the specification gives, and something done to that."""
    if not _single_array(numeric) or not all(o.got.shape == o.expected.shape for o in numeric):
        return None
    wrong = _telling(numeric)
    ordered = [*wrong, *(o for o in numeric if o.agrees)]
    if len(wrong) < 5 or any(o.expected.dtype.kind != "f" for o in wrong[:1]):
        return None
    axes = trial.subject.axes.get("result", ())
    with np.errstate(all="ignore"):
        fitting = [
            label.format("the specification's result")
            for label, change in _ways(numbers_in(trial.function), axes).items()
            if all(_is_changed(trial, o, change) for o in ordered)
        ]
    if not fitting:
        return None
    return _on_all(
        numeric,
        "factor",
        f"your {trial.subject.name} is {fitting[0]}, on all {len(numeric)} inputs"
        f"{_others(fitting)}",
    )


def _is_changed(trial: Trial, outcome: Outcome, change: Any) -> bool:
    want = np.asarray(change(np.asarray(outcome.expected, float)))
    if want.shape != outcome.got.shape:
        return False
    return trial.differ(outcome, want, trial.moves(outcome)).agrees


def _right_for(trial: Trial, outcome: Outcome, changed: Any) -> bool:
    """Whether the specification, its arguments changed, takes them and equals theirs."""
    try:
        arguments = changed(outcome)
        with np.errstate(all="ignore"):
            expected = trial.aligned(outcome, trial.expect(arguments))
    except (VGFError, ValueError, TypeError, ArithmeticError, LookupError):
        return False
    return trial.differ(outcome, expected, trial.moves(outcome)).agrees


def _multiple(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Whether theirs is some multiple of the specification's, another on each input."""
    pairs = [(o, _ratio(o)) for o in numeric]
    if any(c is None for _, c in pairs):
        return None
    # any two numbers are multiples of each other
    values = [c for o, c in pairs if c is not None and not math.isnan(c) and np.size(o.got) > 2]
    if len(values) < 5:
        return None
    return Finding(
        "factor",
        f"your {trial.subject.name} is a multiple of the specification's on each input, by a "
        f"factor between {min(values):.4g} and {max(values):.4g}",
        matched=len(values),
        of=len(numeric),
    )


def _is_number(label: str) -> bool:
    return label.lstrip("-").replace("/", "").isdigit()


def _order(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Right up to the order of rows, or transposed."""
    if not _single_array(numeric):
        return None

    def rows(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(-1, *x.shape[-2:]) if x.ndim > 2 else x.reshape(1, x.shape[0], -1)
        return np.stack([r[np.lexsort(np.round(r, 9).T)] for r in flat])

    if all(o.got.ndim >= 1 and o.got.shape == o.expected.shape and o.got.size for o in numeric):
        if all(_close(o, rows(o.got), rows(o.expected)) for o in numeric):
            return _on_all(numeric, "order", "your result is right up to the order of its rows")
        square = [o for o in numeric if o.got.ndim >= 2]
        if len(square) == len(numeric) and all(
            o.got.shape[-1] == o.got.shape[-2] and _close(o, np.swapaxes(o.got, -1, -2), o.expected)
            for o in numeric
        ):
            return _on_all(numeric, "order", "your result is transposed")
    return None


def _states(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    """Whether theirs is right for each state alone, and wrong only on several at a time."""
    axes = trial.subject.axes
    if trial.reading.single or "B" not in axes.get("result", ()):
        return None
    wrong = [o for o in numeric if not o.agrees]
    if any(o.chosen.get("B", 1) == 1 for o in wrong):
        return None
    mixed = False
    for outcome in wrong[:10]:
        states = len(_rows(trial, outcome))
        for i in range(states):
            if not trial.run(_one_state(trial, outcome, i), outcome.chosen, outcome.dtype).agrees:
                return None
        mixed = mixed or _mixes(trial, outcome)
    if mixed:
        says = "your states affect each other: each is right alone, and several at a time are not"
    else:
        says = "each state is right alone, and some of those in a batch are not"
    return Finding("states", says, matched=len(wrong), of=len(wrong))


def _rows(trial: Trial, outcome: Outcome) -> Any:
    """Some array of the input, its batch axis first."""
    name = next(k for k, a in trial.subject.axes.items() if k != "result" and "B" in a)
    return np.moveaxis(outcome.named[name], trial.subject.axes[name].index("B"), 0)


def _one_state(trial: Trial, outcome: Outcome, i: Any) -> tuple[Any, ...]:
    """The input with some of its states only."""
    axes = trial.subject.axes
    return tuple(
        np.take(value, np.atleast_1d(i), axis=axes[name].index("B"))
        if name in axes and "B" in axes[name]
        else value
        for name, value in zip(trial.subject.drawn_names, outcome.arguments, strict=True)
    )


def _mixes(trial: Trial, outcome: Outcome) -> bool:
    """Whether the first state's result depends on what the other states are."""
    states = len(_rows(trial, outcome))
    place = trial.subject.axes["result"].index("B")
    for i in range(states):
        others = [i if j == i else (j + 1) % states for j in range(states)]
        again = trial.run(_one_state(trial, outcome, others), outcome.chosen, outcome.dtype)
        if again.error or not isinstance(again.got, np.ndarray):
            return False
        before, after = (np.take(x, i, axis=place) for x in (outcome.got, again.got))
        if not np.allclose(before, after, rtol=1e-6, atol=1e-9, equal_nan=True):
            return True
    return False


def _shift(trial: Trial, numeric: Sequence[Outcome]) -> Finding | None:
    if not _single_array(numeric) or not all(o.got.shape == o.expected.shape for o in numeric):
        return None
    gaps = [np.ravel(np.asarray(o.got, float) - o.expected) for o in numeric if o.got.size]
    if not gaps or not np.all([np.all(np.isfinite(g)) for g in gaps]):
        return None
    first = float(gaps[0][0])
    if first and all(np.all(np.abs(g - first) <= 1e-6 * abs(first)) for g in gaps):
        return _on_all(
            numeric, "factor", f"your {trial.subject.name} is the specification's plus {first:.6g}"
        )
    return None


# --- what is right, and where --------------------------------------------------------------------


def _parts(trial: Trial, numeric: Sequence[Outcome], explained: bool) -> list[Finding]:
    """Which arrays of a result agree; for phi, which of its two terms."""
    findings = []
    wrong = [o for o in numeric if not o.agrees]
    names = [name for name, _ in named_leaves(wrong[0].expected)]
    if len(names) > 1:
        bad = {name for o in wrong for name in o.found.leaves}
        good = [name for name in names if name not in bad]
        if good:
            label = partial(_grouped, names=PARTS.get(trial.subject.name, ()))
            findings.append(
                Finding("parts", f"right: {label(good)}; different: {label(sorted(bad))}")
            )
    if trial.subject.name == "phi" and "g" in trial.reading.uses() and not explained:
        findings += _terms(trial, numeric)
    return findings


def _grouped(leaves: Sequence[str], names: Sequence[str]) -> str:
    """Names of arrays, those of one network under its name, parts of a tuple under theirs."""
    heads: dict[str, None] = {}
    for leaf in leaves:
        first, *rest = leaf.split(".")
        if first.isdigit():
            first = names[int(first)] if int(first) < len(names) else f"part {first}"
        heads[" ".join([first, *(rest[:1])])] = None
    return ", ".join(heads)


def _terms(trial: Trial, numeric: Sequence[Outcome]) -> list[Finding]:
    """phi's attraction and repulsion by themselves: theirs without a score, and the difference."""
    place = trial.subject.drawn_names.index("g")
    some = [
        o
        for o in _telling(numeric)
        if o.named.get("temperature") is not None and not _degenerate(o)
    ]
    pairs = []
    for outcome in some[:20]:
        drawn = list(outcome.arguments)
        drawn[place] = np.zeros_like(drawn[place])
        alone = trial.run(tuple(drawn), outcome.chosen, outcome.dtype)
        if alone.error or alone.found.fault:
            return []
        pairs.append((outcome, alone))
    if not pairs:
        return []
    repulsion = all(alone.agrees for _, alone in pairs)
    attraction = all(
        trial.apart(o, np.asarray(o.got, float) - alone.got, o.expected - alone.expected)
        for o, alone in pairs
    )
    if repulsion and not attraction:
        return [Finding("parts", "your repulsion agrees; the score's term differs")]
    if attraction and not repulsion:
        return [
            Finding(
                "parts",
                "the score's term agrees, so your kernel and bandwidth are right; "
                "your repulsion differs",
            )
        ]
    if not attraction:
        return [
            Finding(
                "parts",
                "both terms differ, the score's and the repulsion: what they share is the kernel, "
                "its bandwidth and the sum over j",
            )
        ]
    return []


def _where(outcomes: Sequence[Outcome], only_exact: bool = False) -> list[Finding]:
    """The choices that part the inputs on which theirs agrees from the others."""
    texts = _separators([(_features(o), o.agrees) for o in outcomes], only_exact)
    if not only_exact and not any("exactly" in text for text in texts):
        texts = _thresholds(outcomes) or texts
    return [Finding("where", "; ".join(texts))] if texts else []


# Of inputs on either side of a number, how many there must be, the share of those beyond it on
# which theirs differs, and how near two of the others must come, before it is said to part them.
_WRONG, _RIGHT, _SHARE, _NEAR = 5, 20, 0.5, 0.25


def _thresholds(outcomes: Sequence[Outcome]) -> list[str]:
    """The number, a setting or the size of an array, beyond which alone theirs differs."""
    rows = [(_numbers(o), o.agrees) for o in outcomes if o.dtype == outcomes[0].dtype]
    found: list[tuple[float, str]] = []
    for name in dict.fromkeys(name for numbers, _ in rows for name in numbers):
        own = [(n[name], agrees) for n, agrees in rows if name in n]
        bad = [x for x, agrees in own if not agrees]
        if len(bad) < _WRONG:
            continue
        for edge, sign, words in ((min(bad), 1, "or more"), (max(bad), -1, "or less")):
            beyond = [agrees for x, agrees in own if sign * x >= sign * edge]
            before = [abs(edge - x) for x, _ in own if sign * x < sign * edge]
            share = len(bad) / len(beyond)
            near = sum(x <= _NEAR * abs(edge) for x in before)
            if len(before) >= _RIGHT and near >= 2 and share >= _SHARE:
                text = f"it differs only where {name} is {edge:.3g} {words}"
                if len(bad) < len(beyond):
                    text += f", on {len(bad)} of {len(beyond)} such inputs"
                found.append((share, text))
    return [max(found)[1]] if found else []


def _numbers(outcome: Outcome) -> dict[str, float]:
    """What a condition may compare with a number: settings, the largest and smallest of arrays."""
    found: dict[str, float] = {}
    named = {**outcome.named, "the expected result": outcome.expected}
    for name, value in named.items():
        if isinstance(value, float):
            found[name] = float(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
            found[f"the largest |{name}|"] = float(np.max(np.abs(value)))
            found[f"the smallest {name}"] = float(np.min(value))
        elif hasattr(value, "step_size"):
            found |= {
                f"budget.{field}": float(getattr(value, field))
                for field in _FIELDS
                if getattr(value, field) is not None
            }
    return {name: number for name, number in found.items() if math.isfinite(number)}


def _separators(rows: Sequence[tuple[dict[str, Any], bool]], only_exact: bool = False) -> list[str]:
    """The values of features that part the inputs that agree from the others, in words."""
    found: list[tuple[int, str]] = []
    names = dict.fromkeys(name for features, _ in rows for name in features)
    for name in names:
        good = {str(f[name]) for f, agrees in rows if agrees and name in f}
        bad = {str(f[name]) for f, agrees in rows if not agrees and name in f}
        if not good or not bad:
            continue
        if len(good | bad) > 12 and not all(v.isdigit() for v in good | bad):
            continue  # numbers drawn freely: a list of them says nothing
        only_good, only_bad = good - bad, bad - good
        limit = _limit(bad, good | bad)
        if limit and only_bad == bad:
            found.append((10**6 + 1, f"it differs only where {name} is {limit}"))
            continue
        if limit and any(_below(v, bad) for v in good):
            found.append((10**5 + 1, f"it differs only where {name} is {limit}, not always"))
            continue
        count = sum(agrees for f, agrees in rows if str(f.get(name)) in only_good)
        if not good & bad:
            found.append((10**6, f"it differs exactly where {name} is {_either(bad)}"))
        elif only_bad == bad:
            found.append((10**5, f"it differs only where {name} is {_either(bad)}"))
        elif 2 * len(bad) <= len(good | bad) and len(good | bad) > 2:
            found.append((10**4, f"it differs only where {name} is {_either(bad)}, not always"))
        elif only_good and count >= 3:
            found.append((count, f"it agrees wherever {name} is {_either(only_good)}"))
    found.sort(key=lambda f: -f[0])
    texts = [text for weight, text in found if weight >= (10**6 if only_exact else 10**5)][:2]
    if not texts and not only_exact:
        texts = [text for _, text in found[:2]]
    return texts


def _limit(bad: set[str], every: set[str]) -> str:
    """Where a size differs from some value on: "9 or more"."""
    if len(bad) < 2 or not all(v.isdigit() for v in every):
        return ""
    least = min(map(int, bad))
    if {int(v) for v in every if int(v) >= least} != set(map(int, bad)):
        return ""
    return f"{least} or more" if any(int(v) < least for v in every) else ""


def _below(value: str, bad: set[str]) -> bool:
    return int(value) < min(map(int, bad))


def _features(outcome: Outcome) -> dict[str, Any]:
    """What may part good inputs from bad: sizes, kinds, settings."""
    hidden = {"budget", "through", "settings", "trajectory"}
    features = {k: v for k, v in outcome.chosen.items() if k not in hidden}
    features["dtype"] = outcome.dtype
    for name, value in outcome.named.items():
        if isinstance(value, np.ndarray):
            if name == "mask":
                features["mask"] = "all 1" if np.all(value) else "0 somewhere"
            continue
        if value is None or isinstance(value, (bool, int, float, str)):
            features[name] = value
        elif hasattr(value, "optimiser") and hasattr(value, "step_size"):
            for field in ("optimiser", "temperature", "bandwidth", "clip_norm", "low"):
                features[f"budget.{field}"] = getattr(value, field)
        elif hasattr(value, "critic_loss"):
            for field in (
                "method",
                "reference_kind",
                "critic_loss",
                "target_update",
                "clip_norm",
                "target_ensemble",
                "target_particles",
            ):
                features[f"settings.{field}"] = getattr(value, field)
    return features


def _either(values: set[str]) -> str:
    ordered = sorted(values, key=lambda v: (len(v), v))
    return ordered[0] if len(ordered) == 1 else f"{', '.join(ordered[:-1])} or {ordered[-1]}"

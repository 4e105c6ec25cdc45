"""Runs grouped by what they are; what cannot be compared is refused, and the difference named.

Runs of one task that differ in how they were measured (the protocol) are never mixed. Runs of one
method that differ in its settings on the same task are methods of their own, named by the
difference. Of each of these, a seed counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..support.errors import VGFError
from ..support.objects import short_names
from ..support.rows import Scalar
from ..support.suggestions import did_you_mean, nearest
from .results import Absent, Results, gather

# What must be alike over tasks too; the rest only for all runs of one task.
EVERYWHERE = ("updates", "environment steps", "episodes", "success timing")


@dataclass(frozen=True, eq=False)
class Record:
    """One run, as a comparison needs it.

    Args:
        source: where it was read from.
        task, method, seed: what was run.
        settings: of the method, by dotted key.
        protocol: how it was trained and measured, by words such as "updates"; None is unknown.
        kind: what its score is.
        rows: with step, budget and score: the mean over an evaluation's episodes.
        training: its training budget, if it has several.
        end: the updates after which it is finished.
        trained: the updates made, where that is known.
        failure: why it failed, one line; None if it did not.
        paired: whether its seed means the same as that of other runs with paired seeds.
    """

    source: str
    task: str
    method: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    training: Scalar = None
    end: int = 0
    trained: int = 0
    failure: str | None = None
    paired: bool = True

    def reached(self, at: str | int) -> bool:
        """Whether it has the evaluation that is asked for."""
        step = at if isinstance(at, int) else self.end
        return any(row["step"] == step for row in self.rows)


def unlike(records: Sequence[Record]) -> str | None:
    """Why some runs are not seeds of one thing: the first difference, or None."""
    first = records[0]
    for one in records[1:]:
        for what in ("task", "method"):
            if getattr(one, what) != getattr(first, what):
                return f"{what}: {getattr(first, what)}, {getattr(one, what)}"
        for mine, other in ((first.protocol, one.protocol), (first.settings, one.settings)):
            key = _difference(mine, other)
            if key is not None:
                return f"{key}: {_words(mine.get(key))}, {_words(other.get(key))}"
    seeds = [one.seed for one in records]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    return None if twice is None else f"seed {twice} is there twice"


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    keys = dict.fromkeys([*a, *b])
    return next(
        (k for k in keys if a.get(k) != b.get(k) and None not in (a.get(k), b.get(k))), None
    )


def combine(
    records: Iterable[Record], at: str | int = "last", allow: Collection[str] = ()
) -> Results:
    """Runs as results, ready to be compared.

    Args:
        records: runs of any tasks and methods.
        at: "last", "best", or a step: the evaluation that will be compared. At a step, runs of
            different lengths are alike.
        allow: differences of protocol to pass over, such as "episodes".

    Raises:
        VGFError: no runs; an unknown difference to pass over; unlike protocols or scores, the
            difference named; or one seed twice with different results.
    """
    records = list(records)
    if not records:
        raise VGFError("no runs to compare")
    known = dict.fromkeys(key for one in records for key in one.protocol)
    for name in allow:
        if name not in known:
            hint = did_you_mean(nearest(name, known), f"there are {', '.join(known)}")
            raise VGFError(f"no part of the protocol is {name!r}; {hint}")
    passed = {*allow, *(("updates", "environment steps") if isinstance(at, int) else ())}
    notes = _check_protocols([one for one in records if one.rows], passed)
    names = _names(records)
    kept, repeats = _once(records, names)
    if repeats:
        notes.append(f"counted once: {', '.join(repeats)}")
    rows, absent, training = [], [], {}
    for one in kept:
        name = names[id(one)]
        if one.failure is not None or not one.reached(at):
            done = max((row["step"] for row in one.rows), default=0)
            if one.failure:
                state, why = "failed", one.failure
            elif one.rows:
                state, why = "unfinished", f"{done:,} of {one.end:,} updates evaluated"
            elif one.trained:
                state, why = "not evaluated", f"{one.trained:,} of {one.end:,} updates made"
            else:
                state, why = "not started", ""
            absent.append(Absent(one.task, name, one.seed, state, why))
            continue
        rows += [{**row, "task": one.task, "method": name, "seed": one.seed} for row in one.rows]
        if one.training is not None:
            training[one.task, name] = one.training
    if not rows:
        raise VGFError(
            f"none of {len(records)} runs has the evaluation to compare: {absent[0].state}: "
            f"{absent[0].why or records[0].source}"
        )
    kinds = {one.kind for one in kept if one.rows} - {None}
    return Results(
        gather(rows),
        kind=str(kinds.pop()) if kinds else "return",
        paired=all(one.paired for one in kept),
        training=training,
        absent=tuple(absent),
        notes=tuple(notes),
    )


def _check_protocols(records: Sequence[Record], passed: Collection[str]) -> list[str]:
    """Refuse unlike protocols; returns notes on the differences that were passed over."""
    notes = {}
    everything = [{"score": one.kind, **one.protocol} for one in records]
    for key in dict.fromkeys(key for protocol in everything for key in protocol):
        seen: dict[str, dict[Any, Record]] = defaultdict(dict)
        for one, protocol in zip(records, everything, strict=True):
            if protocol.get(key) is not None:
                over_all = key in EVERYWHERE or key == "score"
                seen["" if over_all else one.task].setdefault(protocol[key], one)
        for values in seen.values():
            if len(values) < 2:
                continue
            (a, first), (b, second) = list(values.items())[:2]
            words = f"{key}: {_words(a)} in {first.source}, {_words(b)} in {second.source}"
            if key not in passed:
                fix = (
                    "compare them apart"
                    if key == "score"
                    else "compare them apart, or pass over it with "
                    f"--allow {key.replace(' ', '-')}"
                    + (" or --at STEP" if key == "updates" else "")
                )
                raise VGFError(f"these runs were not measured alike: {words}; {fix}")
            notes[key] = f"not measured alike: {words}"
    return list(notes.values())


def _names(records: Sequence[Record]) -> dict[int, str]:
    """A method's name for each run: with the settings in which it differs on one task."""
    names = {}
    short = short_names({one.method for one in records})
    for method in dict.fromkeys(one.method for one in records):
        runs = [one for one in records if one.method == method]
        keys: dict[str, None] = {}
        for task in dict.fromkeys(one.task for one in runs):
            here = [one.settings for one in runs if one.task == task]
            keys |= {
                key: None
                for key in dict.fromkeys(key for s in here for key in s)
                if len({_words(s.get(key)) for s in here}) > 1
            }
        for one in runs:
            parts = [f"{key.rpartition('.')[2]}={_words(one.settings.get(key))}" for key in keys]
            names[id(one)] = " ".join([short[method], *parts])
    return names


def _once(records: Sequence[Record], names: Mapping[int, str]) -> tuple[list[Record], list[str]]:
    kept: dict[tuple[str, str, int], Record] = {}
    repeats = []
    for one in records:
        key = one.task, names[id(one)], one.seed
        other = kept.setdefault(key, one)
        if other is one:
            continue
        if not one.rows or not other.rows:  # begun again elsewhere: the one with results counts
            kept[key] = other if other.rows else one
        elif [*map(dict, one.rows)] != [*map(dict, other.rows)]:
            raise VGFError(
                f"{names[id(one)]} on {one.task} has seed {one.seed} twice, with different "
                f"results: {other.source} and {one.source}; leave one out"
            )
        else:
            repeats.append(f"{one.source} (the same as {other.source})")
    return list(kept.values()), repeats


def _words(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return f"{value:,}"

"""The comparison: what is said about results, in one object that tables and figures are made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..support.rows import Scalar
from ..support.statistics import RETURN, SUCCESS
from .results import LAST, TRAINING, Absent, Results
from .statistics import (
    RESAMPLES,
    Array,
    Estimate,
    aggregates,
    improvement,
    iqm_curve,
    of_seeds,
    profile,
    seeds_needed,
)

_FEW = 6  # methods, of which every pair is compared
DIFFERENCES = (1.0, 2.0, 5.0, 10.0)  # points


@dataclass(frozen=True)
class Cell:
    """A method on a task.

    Args:
        mean: over seeds, with Student's interval; None without a result.
        scores: of each seed.
        absent: its runs without a result.
    """

    mean: Estimate | None
    scores: Mapping[int, float]
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True)
class Hindsight:
    """What choosing the test budget after the fact would add to a method's mean over tasks.

    Args:
        budgets: the mean over tasks at each budget.
        chosen: the budget of each task that counts: the training budget.
        value: the mean over tasks at those.
        fixed: the best of `budgets`; None if no budget is shared by all tasks.
        best: the mean over tasks of each task's best budget, by its mean over seeds.
    """

    budgets: Mapping[Scalar, float]
    chosen: Mapping[str, Scalar]
    value: float
    fixed: float | None
    best: float


@dataclass(frozen=True)
class Comparison:
    """Everything that tables and figures show.

    Args:
        kind: what the scores are.
        at: "last", "best" or a step.
        cells: {method: {task: cell}}.
        shared: the tasks on which every method has a result; all that follows is over these.
        over_tasks: {method: {name: estimate}}: IQM, median, mean, optimality gap.
        improvements: {(X, Y): the probability that X is better}.
        paired: whether those compare equal seeds.
        thresholds, profiles: [K], and {method: K shares of runs above them}.
        curves: {method: (steps, IQM at each)}, over the shared tasks.
        hindsight: {method: what choosing the budget afterwards adds}.
        seeds: {difference in points: seeds needed to tell it}.
        resamples: of the bootstrap.
        notes: one line each.
    """

    kind: str
    at: str | int
    cells: Mapping[str, Mapping[str, Cell]]
    shared: tuple[str, ...]
    over_tasks: Mapping[str, Mapping[str, Estimate]]
    improvements: Mapping[tuple[str, str], Estimate]
    paired: bool
    thresholds: Array
    profiles: Mapping[str, Sequence[Estimate]]
    curves: Mapping[str, tuple[Sequence[int], Sequence[Estimate]]]
    hindsight: Mapping[str, Hindsight]
    seeds: Mapping[float, int | None]
    resamples: int
    notes: tuple[str, ...]

    @property
    def methods(self) -> list[str]:
        return list(self.cells)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for row in self.cells.values() for task in row))


def compare(
    results: Results,
    at: str | int = LAST,
    budget: str | Sequence[Scalar] = TRAINING,
    baseline: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    paired: bool | None = None,
    figures: bool = True,
) -> Comparison:
    """Compare methods over tasks and seeds.

    Args:
        results: such as :func:`vgf.comparison.read_table` or :func:`vgf.runs.compare.read_runs`
            finds.
        at: "last", the last evaluation; "best", the best one, with hindsight; or a step.
        budget: "training", "all", or test budgets; see :meth:`Results.by_budget`.
        baseline: the method whose pairs are compared; None is every pair of up to 6 methods, and
            otherwise the pairs of the first.
        resamples, seed: of the bootstrap.
        paired: whether equal seeds belong together; None is what the results say.
        figures: whether to compute profiles and curves, which take longest.

    Raises:
        VGFError: as :class:`Results`; or an unknown baseline.
    """
    chosen = results.by_budget(budget)
    scores = chosen.chosen(at)
    methods, tasks = chosen.methods, chosen.tasks
    if baseline is not None:
        chosen.only([baseline])  # or it raises
    notes = list(results.notes)
    shared = tuple(task for task in tasks if all(task in scores[name] for name in methods))
    if len(shared) < len(tasks):
        rest = [name for name in methods if any(task not in scores[name] for task in tasks)]
        notes.append(
            f"over tasks: {len(shared)} of {len(tasks)} tasks, on which every method has a result"
            f" (missing: some of {', '.join(rest)})"
        )
    if results.kind == RETURN and len(tasks) > 1:
        notes.append("returns of different tasks have no common scale: nothing is said over tasks")
        shared = ()
    common = {name: {task: scores[name][task] for task in shared} for name in methods}
    if shared and len({len(x) for one in common.values() for x in one.values()}) > 1:
        notes.append("the numbers of seeds differ")
    options = {"resamples": resamples, "seed": seed}
    pairs = (
        itertools.permutations(methods, 2)
        if baseline is None and len(methods) <= _FEW
        else ((x, y) for y in [baseline or methods[0]] for x in methods if x != y)
    )
    paired = results.paired if paired is None else paired
    values = [x for one in common.values() for task in one.values() for x in task.values()]
    thresholds = np.linspace(min([0.0, *values]), max([results.full, *values]), 101)
    factor = 100.0 if results.kind == SUCCESS else 1.0
    drawn = methods if figures and shared else []
    return Comparison(
        kind=results.kind,
        at=at,
        cells={
            name: {task: _cell(chosen, scores[name].get(task, {}), task, name) for task in tasks}
            for name in methods
        },
        shared=shared,
        over_tasks={
            name: aggregates(common[name], results.full, **options) for name in methods if shared
        },
        improvements={
            (x, y): improvement(common[x], common[y], paired, **options) for x, y in pairs if shared
        },
        paired=paired,
        thresholds=thresholds,
        profiles={name: profile(common[name], thresholds, **options) for name in drawn},
        curves={name: _curve(chosen, name, shared, options) for name in drawn},
        hindsight=_hindsight(results, at),
        seeds={
            points: seeds_needed(list(common.values()), points / factor)
            for points in DIFFERENCES
            if shared
        },
        resamples=resamples,
        notes=tuple(notes),
    )


def _cell(results: Results, scores: Mapping[int, float], task: str, method: str) -> Cell:
    gone = [one for one in results.absent if (one.task, one.method) == (task, method)]
    known = {*scores, *(one.seed for one in gone)}
    for one in results.series:
        if (one.task, one.method) == (task, method):
            gone += [Absent(task, method, s, "no score") for s in one.seeds if s not in known]
            known |= {*one.seeds}
    bounded = results.kind == SUCCESS
    mean = of_seeds(list(scores.values()), bounded) if scores else None
    return Cell(mean, scores, tuple(gone))


def _curve(
    results: Results, method: str, tasks: Sequence[str], options: Mapping[str, Any]
) -> tuple[Sequence[int], Sequence[Estimate]]:
    """The IQM at every step at which all seeds of all tasks were evaluated."""
    found = [one for one in results.series if one.method == method and one.task in tasks]
    steps = set.intersection(
        *(
            {int(t) for t, row in zip(s.steps, s.scores, strict=True) if np.isfinite(row).all()}
            for s in found
        )
    )
    order = sorted(steps)
    if not order:
        return [], []
    curves = [one.scores[np.isin(one.steps, order)] for one in found]
    return order, iqm_curve(curves, **options)


def _hindsight(results: Results, at: str | int) -> dict[str, Hindsight]:
    found = {}
    for method in dict.fromkeys(method for _, method in results.training):
        table: dict[str, dict[Scalar, float]] = {}  # task -> budget -> mean over seeds
        for one in results.series:
            scores = one.chosen(at)[1] if one.method == method else {}
            if scores:
                table.setdefault(one.task, {})[one.budget] = float(np.mean(list(scores.values())))
        trained = {task: results.training.get((task, method)) for task in table}
        if any(trained[task] not in row for task, row in table.items()):
            continue
        everywhere = [
            budget
            for budget in dict.fromkeys(budget for row in table.values() for budget in row)
            if all(budget in row for row in table.values())
        ]
        if max(map(len, table.values()), default=0) > 1:
            means = {b: float(np.mean([row[b] for row in table.values()])) for b in everywhere}
            found[method] = Hindsight(
                means,
                trained,
                float(np.mean([row[trained[task]] for task, row in table.items()])),
                max(means.values(), default=None),
                float(np.mean([max(row.values()) for row in table.values()])),
            )
    return found

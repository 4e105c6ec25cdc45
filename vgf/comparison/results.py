"""Results as a comparison needs them: for each task, method and budget, scores by step and seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..support.errors import VGFError
from ..support.rows import Scalar
from ..support.statistics import NORMALISED, RETURN, SUCCESS
from ..support.suggestions import did_you_mean, nearest

Array = npt.NDArray[np.floating]
LAST, BEST = "last", "best"
TRAINING, ALL = "training", "all"


@dataclass(frozen=True, eq=False)
class Series:
    """The scores of one method on one task, at one test budget.

    Args:
        task, method: names.
        budget: L_test, or a name such as "bc"; None where there is no such choice.
        steps: [E], ascending: the updates (online: and environment steps) done at each evaluation.
        seeds: [S], all different.
        scores: [E, S], the mean over the episodes of an evaluation; NaN where there is none.
    """

    task: str
    method: str
    budget: Scalar
    steps: npt.NDArray[np.int64]
    seeds: tuple[int, ...]
    scores: Array

    def at(self, step: int) -> dict[int, float]:
        """The scores at a step, by seed, without those that are absent."""
        (where,) = np.nonzero(self.steps == step)
        row = self.scores[where[0]] if len(where) else []
        return {s: float(x) for s, x in zip(self.seeds, row, strict=False) if np.isfinite(x)}

    def chosen(self, at: str | int = LAST) -> tuple[int, dict[int, float]]:
        """The step of one evaluation, and its scores by seed; see :meth:`Results.chosen`."""
        step = at
        if at == LAST:
            step = self.steps[-1]
        elif at == BEST:
            counted = np.isfinite(self.scores).sum(1)
            means = np.nansum(self.scores, 1) / np.maximum(counted, 1)
            step = self.steps[np.argmax(np.where(counted == counted.max(), means, -np.inf))]
        return int(step), self.at(int(step))


@dataclass(frozen=True)
class Absent:
    """A run without a result.

    Args:
        task, method, seed: which run.
        state: "failed", "unfinished", "not evaluated" or "not started".
        why: one line; may be empty.
    """

    task: str
    method: str
    seed: int
    state: str
    why: str = ""


@dataclass(frozen=True, eq=False)
class Results:
    """What is compared.

    Args:
        series: one for each task, method and budget.
        kind: what the scores are: "success" (0 to 1), "normalised score" (0 to 100), "return".
        paired: whether equal seeds of different methods share their randomness.
        training: the budget that a method on a task was trained with, by (task, method).
        absent: runs that have no result.
        notes: what a reader of the results should know, one line each.
    """

    series: tuple[Series, ...]
    kind: str = SUCCESS
    paired: bool = False
    training: Mapping[tuple[str, str], Scalar] = field(default_factory=dict)
    absent: tuple[Absent, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> list[str]:
        """The tasks, in order of appearance."""
        return list(
            dict.fromkeys([one.task for one in self.series] + [one.task for one in self.absent])
        )

    @property
    def methods(self) -> list[str]:
        """The methods, in order of appearance."""
        return list(
            dict.fromkeys([one.method for one in self.series] + [one.method for one in self.absent])
        )

    @property
    def full(self) -> float:
        """The score of a perfect result, against which the optimality gap is measured."""
        return 1.0 if self.kind == SUCCESS else 100.0

    def only(
        self, methods: Sequence[str] | None = None, tasks: Sequence[str] | None = None
    ) -> Results:
        """Some methods, in the order given, and some tasks.

        Raises:
            VGFError: a name that is not here; the message suggests one.
        """
        for what, names, known in (("method", methods, self.methods), ("task", tasks, self.tasks)):
            for name in names or ():
                if name not in known:
                    hint = did_you_mean(nearest(name, known), f"there are {', '.join(known)}")
                    raise VGFError(f"there is no {what} {name!r}; {hint}")
        order = list(methods or self.methods)
        kept = [one for one in self.series if tasks is None or one.task in tasks]
        gone = [one for one in self.absent if tasks is None or one.task in tasks]
        return replace(
            self,
            series=tuple(one for name in order for one in kept if one.method == name),
            absent=tuple(one for one in gone if one.method in order),
        )

    def by_budget(self, budget: str | Sequence[Scalar] = TRAINING) -> Results:
        """The results with at most one budget for each method, which then needs no budget.

        Args:
            budget: "training", each method's own; "all", each as a method of its own, "vgf L=2"; or
                a list of budgets, likewise.

        A method whose training budget is unknown counts at each of its budgets.

        Raises:
            VGFError: a budget at which nothing was evaluated.
        """
        there = sorted({str(one.budget) for one in self.series if one.budget is not None})
        for asked in () if isinstance(budget, str) else budget:
            if str(asked) not in there:
                known = f"there are {', '.join(there)}" if there else "no budget is named"
                raise VGFError(f"nothing was evaluated at budget {asked}; {known}")
        counts = Counter((one.task, one.method) for one in self.series)
        made = []
        names: dict[str, dict[str, None]] = {name: {} for name in self.methods}
        for one in self.series:
            pair = one.task, one.method
            named = one.method
            if not isinstance(budget, str):
                if one.budget is not None and one.budget not in budget:
                    continue
                many = one.budget is not None and len(budget) > 1
            else:
                trained = budget == TRAINING and pair in self.training
                if trained and one.budget != self.training[pair]:
                    continue
                many = counts[pair] > 1 and not trained
            if many:
                named = f"{one.method} {budget_words(one.budget)}"
            names[one.method][named] = None
            made.append(replace(one, method=named, budget=None))
        return replace(
            self,
            series=tuple(
                one for of in names.values() for name in of for one in made if one.method == name
            ),
            training={},
            absent=tuple(
                replace(one, method=name)
                for one in self.absent
                for name in names[one.method] or [one.method]
            ),
        )

    def chosen(self, at: str | int = LAST) -> dict[str, dict[str, dict[int, float]]]:
        """One score for each method, task and seed.

        Args:
            at: "last", the last evaluation; "best", the evaluation with the best mean over the
                seeds, chosen with hindsight; or a step.

        Returns:
            {method: {task: {seed: score}}}.

        Raises:
            VGFError: last evaluations at different steps on one task, named; or no evaluation at
                that step.
        """
        found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in self.methods}
        ends: dict[str, dict[str, int]] = {}
        for one in self.series:
            if one.budget is not None:
                raise VGFError(f"{one.method} has several budgets; choose with by_budget")
            step, values = one.chosen(at)
            ends.setdefault(one.task, {})[one.method] = step
            if values:
                found[one.method][one.task] = values
        if at == LAST:
            for task, steps in ends.items():
                if len(set(steps.values())) > 1:
                    few = {step: name for name, step in reversed(steps.items())}
                    words = ", ".join(f"{name} {step:,}" for step, name in sorted(few.items()))
                    raise VGFError(
                        f"{task}: the last evaluations are after different updates: {words}; "
                        "compare at one step with --at STEP"
                    )
        elif at != BEST and not any(found.values()):
            there = sorted({int(step) for one in self.series for step in one.steps})
            shown = [
                f"{step:,}" for step in (there if len(there) < 8 else [*there[:3], *there[-3:]])
            ]
            raise VGFError(
                f"nothing was evaluated after {at:,} updates; steps are {', '.join(shown)}"
            )
        return found


def budget_words(budget: Scalar) -> str:
    """A budget in a method's name."""
    return f"L={budget:g}" if isinstance(budget, int | float) else str(budget)


def gather(rows: Iterable[Mapping[str, Any]], source: str = "the table") -> tuple[Series, ...]:
    """Series from rows with task, method, seed, score, and perhaps step and budget.

    Raises:
        VGFError: a score given twice for the same task, method, budget, seed and step.
    """
    tables: dict[tuple[str, str, Scalar], dict[tuple[int, int], float]] = {}
    for row in rows:
        table = tables.setdefault((row["task"], row["method"], row.get("budget")), {})
        place = int(row.get("step") or 0), int(row["seed"])
        if place in table and not _same(table[place], row["score"]):
            raise VGFError(
                f"{source}: {row['method']} on {row['task']} has seed {place[1]} twice at step "
                f"{place[0]:,}, with scores {table[place]:g} and {row['score']:g}; drop one"
            )
        table[place] = float(row["score"])
    made = []
    for (task, method, budget), table in tables.items():
        steps = np.array(sorted({step for step, _ in table}), np.int64)
        seeds = tuple(sorted({seed for _, seed in table}))
        scores = np.array([[table.get((int(t), s), np.nan) for s in seeds] for t in steps])
        made.append(Series(task, method, budget, steps, seeds, scores))
    return tuple(made)


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


def points(kind: str) -> float:
    """How many points of a table a score of 1 is: success is shown in percent."""
    return 100.0 if kind == SUCCESS else 1.0


__all__ = [
    "ALL",
    "BEST",
    "LAST",
    "NORMALISED",
    "RETURN",
    "SUCCESS",
    "TRAINING",
    "Absent",
    "Results",
    "Series",
    "budget_words",
    "gather",
    "points",
]

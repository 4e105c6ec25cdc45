"""Episodes of evaluations pooled: the score at each test budget, and how certain it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..methods import Declared, registry
from ..support.errors import VGFError
from ..support.rows import Scalar, scalar
from ..support.statistics import RETURN, SUCCESS, interval, mean_measured


def policy_titles(name: str) -> tuple[str, str]:
    """A named budget, one sample of a method's policy: its short name, and spelled out."""
    if name not in registry.names(Declared):
        last = name.rpartition(":")[2]
        return last, last
    method = registry.find(Declared, name, "method")
    title = method.title or name.rpartition(":")[2]
    return title, method.long_title or title


@dataclass(frozen=True)
class Score:
    """The result at one test budget, of one run or of several.

    Args:
        budget: L_test, or a name such as "bc".
        step: updates done at that evaluation, the smallest among the runs; 0 if not recorded.
        value: the mean score, see `kind`; success from 0 to 1.
        low, high: its 95 % confidence interval; see :func:`vgf.support.statistics.interval`. None
            for a single return.
        kind: "success", "normalised score" or "return".
        success_rate: the share of episodes that succeeded; None where the environment does not say.
        returns, length: means over the episodes, or None where not recorded; lengths in decisions.
        displacement, w2: mean distance moved in a decision, averaged over episodes, in units of
            the action; None if not measured.
        episodes: how many, over all runs.
        runs: how many runs.
    """

    budget: Scalar
    step: int
    value: float
    low: float | None
    high: float | None
    kind: str
    success_rate: float | None
    returns: float | None
    length: float | None
    displacement: float | None
    w2: float | None
    episodes: int
    runs: int

    # the names in evaluation summaries up to version 0.1

    @property
    def score(self) -> float:
        """`value`."""
        return self.value

    @property
    def mean_return(self) -> float | None:
        """`returns`."""
        return self.returns

    @property
    def mean_length(self) -> float | None:
        """`length`."""
        return self.length


def scores(groups: Sequence[Sequence[Mapping[str, Any]]], kind: str | None = None) -> list[Score]:
    """The score at each test budget, in the order of :func:`by_budget`.

    Args:
        groups: for each run, its rows of one evaluation.
        kind: what the rows' score is, in the task's words. None, for rows without one, means the
            success where every row has it, and the return otherwise.
    """
    rows = [row for group in groups for row in group]
    column = "score"
    if kind is None:
        column = SUCCESS if all(row.get(SUCCESS) is not None for row in rows) else RETURN
        kind = column
    step = min((step_of(row) for row in rows), default=0)
    found = []
    for budget, pooled in by_budget(rows).items():
        by_run = [by_budget(group).get(budget, []) for group in groups]
        values = [np.array([_number(row, column) for row in run]) for run in by_run if run]
        low, high = interval(values, kind)
        found.append(
            Score(
                budget=budget,
                step=step,
                value=float(np.mean([run.mean() for run in values])),
                low=low,
                high=high,
                kind=kind,
                success_rate=mean(pooled, SUCCESS),
                returns=mean(pooled, "return"),
                length=mean(pooled, "length"),
                displacement=mean(pooled, "displacement"),
                w2=mean(pooled, "w2"),
                episodes=len(pooled),
                runs=len(values),
            )
        )
    return found


def _number(row: Mapping[str, Any], column: str) -> float:
    """A row's score; no row is dropped, and none invented.

    Raises:
        VGFError: it has none.
    """
    value = row.get(column)
    if not isinstance(value, int | float):
        raise VGFError(
            f"an episode of the evaluation at step {step_of(row)} has no {column!r}: its row is "
            "damaged; delete it, or evaluate again"
        )
    return float(value)


def step_of(row: Mapping[str, Any]) -> int:
    """The updates done when a row was written; 0 if it does not say."""
    return int(row.get("step") or 0)


def by_budget(rows: Iterable[Mapping[str, Any]]) -> dict[Scalar, list[Mapping[str, Any]]]:
    """Rows grouped by their test budget, in the order of the budgets: names first, then L_test."""
    groups: dict[Scalar, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(scalar("budget", row["budget"]), []).append(row)
    names = sorted(budget for budget in groups if isinstance(budget, str))
    numbers = sorted((b for b in groups if isinstance(b, int | float)), key=float)
    order: list[Scalar] = [*names, *numbers]
    return {budget: groups[budget] for budget in order}


def mean(rows: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """The mean of one column over the rows that have it, or None."""
    return mean_measured(row.get(name) for row in rows)

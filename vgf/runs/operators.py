"""Operators on a trained agent: named on the command line, evaluated side by side, what they cost.

An operator is written ``name``, or ``name:setting=value,setting=value``: one of this package
(vgf/spec/operators), or ``module:Class`` or ``path/to/file.py:Class`` of your own.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.base import Backend, Tree
from ..benchmarks.tasks import Task
from ..data.scaling import Scaling
from ..environments.pool import EnvironmentPool
from ..methods import registry
from ..spec.operators import Cost, Operator
from ..spec.settings import Budget, Settings
from ..spec.types import Array
from ..support.errors import VGFError
from ..support.figures import COLOURS, MARKERS, figure
from ..support.objects import absolute_name
from ..support.progress import progress
from ..support.settings_tree import types_of
from ..support.statistics import SUCCESS
from ..support.suggestions import did_you_mean, nearest
from .config import EvaluationSettings
from .evaluation import Evaluation, evaluate
from .flags import read_word
from .scores import Score, scores


def operator_names() -> list[str]:
    """The names of this package's operators, and of your own that were loaded."""
    return registry.names(Operator)


def read_operator(text: str, agent: Settings) -> Operator:
    """An operator as it is written on the command line.

    Args:
        text: ``name`` or ``name:setting=value,...``. Settings of a budget change the agent's
            training budget.
        agent: the settings of the agent that acts.

    Raises:
        VGFError: an unknown operator or setting, a value out of range, or an agent that it cannot
            act with.
    """
    head, colon, last = text.rpartition(":")
    name, words = (head, last) if colon and "=" in last else (text, "")
    try:
        operator = registry.find(Operator, absolute_name(name), "operator")
        changes = _changes(text, words, operator, agent)
        operator = replace(operator, **changes)
        operator.refuse(agent)
    except ValueError as error:
        raise VGFError(f"--operator {text}: {error}") from error
    return operator


def _changes(text: str, words: str, operator: Operator, agent: Settings) -> dict[str, Any]:
    cls: Any = type(operator)
    hints = dict(types_of(cls))
    of_budget = types_of(Budget) if hints.pop("budget", None) else {}
    changes: dict[str, Any] = {}
    budget: dict[str, Any] = {}
    for word in words.split(",") if words else ():
        key, _, value = word.partition("=")
        hint = hints.get(key, of_budget.get(key))
        if hint is None:
            known = sorted({*hints, *of_budget})
            there = f"its settings are {', '.join(known)}"
            hint = did_you_mean(nearest(key, known), there)
            raise ValueError(f"no setting {key!r}; {hint}")
        if key in changes or key in budget:
            raise ValueError(f"{key} is given twice")
        (changes if key in hints else budget)[key] = _read(key, value, hint)
    if budget:
        changes["budget"] = replace(agent.budget, **budget)
    return changes


def _read(key: str, value: str, hint: Any) -> Any:
    if hint is bool:
        if value not in ("true", "false"):
            raise ValueError(f"{key} is {value!r}; it must be true or false")
        return value == "true"
    try:
        return read_word(value, hint)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{key}: {error}") from error


def read_operators(texts: Sequence[str], agent: Settings) -> dict[str, Operator]:
    """Several operators by their texts.

    Raises:
        VGFError: as :func:`read_operator`, or one that is named twice.
    """
    found: dict[str, Operator] = {}
    for text in texts:
        if text in found:
            raise VGFError(f"--operator names {text} twice; drop one")
        found[text] = read_operator(text, agent)
    return found


@dataclass(frozen=True)
class Trial:
    """An operator's evaluation.

    Args:
        name: as it was written.
        operator: what it is.
        cost: evaluations of networks for one decision.
        milliseconds: the time of one decision, the median over the calls of the policy, with as
            many states side by side as `states`; the distance moved is not measured in it.
        states: how many there were in a call.
        score: what it reached.
    """

    name: str
    operator: Operator
    cost: Cost
    milliseconds: float
    states: int
    score: Score


def evaluate_operators(
    backend: Backend,
    state: Tree,
    agent: Settings,
    operators: Mapping[str, Operator],
    task: Task,
    scaling: Scaling,
    settings: EvaluationSettings,
    seed: int,
    pool: EnvironmentPool,
) -> tuple[Evaluation, list[Trial]]:
    """Evaluate one agent by several operators, from the same start states and with the same noise.

    Args:
        backend, state: the agent.
        agent: its settings; its N is that of operators which do not say theirs.
        operators: by the names that the episodes get.
        task: whose environments `pool` holds.
        scaling: of its observations.
        settings: episodes, and how many environments.
        seed: of the episodes.
        pool: of environments of the task.
    """
    rows = max(operator.rows(agent) for operator in operators.values())
    times: dict[str, list[float]] = {name: [] for name in operators}
    states = 1

    def policy(
        observations: Array, budget: Operator, noise: Mapping[str, Array]
    ) -> tuple[Array, Mapping[str, Any]]:
        nonlocal states
        operator, states = budget, len(observations)
        name = next(name for name, one in operators.items() if one is operator)
        taken = noise["particles"][:, : operator.rows(agent)]
        given = {"s": scaling(observations), "particles": taken, "select": noise["select"]}
        begun = time.perf_counter()
        arrays = backend.asarray(given)
        s = arrays.pop("s")
        actions, info = backend.operate(state, s, operator, agent, arrays)
        answer = np.asarray(backend.to_numpy(actions))
        times[name].append(time.perf_counter() - begun)
        start = operator.start(backend, state, s, arrays["particles"], agent)
        return answer, backend.to_numpy({"start": start, "moved": info["moved"]})

    with progress(settings.episodes * len(operators), "evaluating", "episode") as bar:
        found = evaluate(
            policy,
            task,
            operators,
            particles=rows,
            episodes=settings.episodes,
            seed=seed,
            pool=pool,
            progress=lambda _, done, total: bar.update(1),
        )
    by_name = {score.budget: score for score in scores([found.records], task.score_name)}
    trials = [
        Trial(
            name,
            operator,
            operator.total(agent),
            # the first call may compile
            1e3 * float(np.median(times[name][1:] or times[name])) / states,
            states,
            by_name[name],
        )
        for name, operator in operators.items()
    ]
    return found, trials


def trial_rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row for each operator: what it costs, how far it moves, what it reaches.

    `passes` counts an evaluation of a network as 1 and a gradient as 2; `milliseconds` is of one
    decision; `w2` and `displacement` are in units of the action.
    """
    return [
        {
            "operator": trial.name,
            "reference": trial.cost.reference,
            "critic": trial.cost.critic,
            "gradient": trial.cost.gradient,
            "reference_gradient": trial.cost.reference_gradient,
            "passes": trial.cost.passes,
            "milliseconds": round(trial.milliseconds, 4),
            "states": trial.states,
            "w2": trial.score.w2,
            "displacement": trial.score.displacement,
            "score": trial.score.value,
            "low": trial.score.low,
            "high": trial.score.high,
            "episodes": trial.score.episodes,
        }
        for trial in trials
    ]


def operator_table(trials: Sequence[Trial]) -> list[dict[str, str]]:
    """The same for reading: one row for each operator."""

    def shown(trial: Trial) -> str:
        score = trial.score
        if score.kind == SUCCESS:
            low, high = 100 * (score.low or 0), 100 * (score.high or 0)
            return f"{100 * score.value:.1f} % ({low:.0f}, {high:.0f})"
        if score.low is None or score.high is None:
            return f"{score.value:.3g}"
        return f"{score.value:.3g} ({score.low:.3g}, {score.high:.3g})"

    return [
        {
            "operator": trial.name,
            trial.score.kind: shown(trial),
            "reference": str(trial.cost.reference),
            "critic": str(trial.cost.critic),
            "gradient": str(trial.cost.gradient),
            "ref. gradient": str(trial.cost.reference_gradient),
            "ms": f"{trial.milliseconds:.3f}",
            "W2": "" if trial.score.w2 is None else f"{trial.score.w2:.3f}",
        }
        for trial in trials
    ]


def save_operators(trials: Sequence[Trial], stem: Path | str) -> None:
    """The figure: score against the cost of a decision, and against the distance moved."""
    columns = 2 if max(len(trial.name) for trial in trials) <= 48 else 1
    rows = math.ceil(len(trials) / columns)
    with figure(stem, width=9.0, height=3.6 + 0.18 * rows) as drawing:
        left, right = drawing.subplots(1, 2, sharey=True)
        for i, trial in enumerate(trials):
            score, factor = trial.score, 100.0 if trial.score.kind == SUCCESS else 1.0
            low = score.value if score.low is None else score.low
            high = score.value if score.high is None else score.high
            spread = [[factor * (score.value - low)], [factor * (high - score.value)]]
            look: dict[str, Any] = {
                "fmt": MARKERS[i % len(MARKERS)],
                "color": COLOURS[(i + i // len(MARKERS)) % len(COLOURS)],
                "capsize": 3,
            }
            y = [factor * score.value]
            left.errorbar([trial.cost.passes], y, np.maximum(spread, 0), label=trial.name, **look)
            right.errorbar([score.w2 or 0.0], y, np.maximum(spread, 0), **look)
        kind = trials[0].score.kind
        left.set_ylabel("success (%)" if kind == SUCCESS else kind)
        left.set_xlabel("passes through a network for a decision\n(a gradient counts as 2)")
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter("{x:g}")
        right.set_xlabel("distance moved, W2 (units of the action)")
        drawing.legend(loc="outside upper center", ncols=columns, fontsize=8)

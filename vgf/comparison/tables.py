"""A comparison as tables: for the terminal, Markdown, LaTeX and CSV; and all of it as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..support.extras import need
from ..support.statistics import NORMALISED, SUCCESS
from ..support.tables import counted, format_table
from .comparing import Cell, Comparison
from .results import BEST, LAST, budget_words, points
from .statistics import AGGREGATES, POWER, Estimate

WIDTH = 80
_NEAR = 0.95  # of a row's best: set in bold, as in OGBench's tables
Row = dict[str, str]


def formats() -> tuple[str, ...]:
    """The formats of :func:`tables`."""
    return ("terminal", "md", "tex")


def tables(found: Comparison, form: str = "terminal") -> str:
    """All tables of a comparison, with what a reader must know to read them.

    Args:
        form: "terminal", at most 80 columns wide; "md", Markdown; or "tex", LaTeX (booktabs).
    """
    parts = []
    for title, rows, note in _tables(found, form):
        if not rows:
            continue
        blocks = _blocks(rows) if form == "terminal" else [rows]
        parts += [_titled(title, form), *(_table(block, form) for block in blocks)]
        parts += [_text(note, form)] if note else []
    parts += [_text(note, form) for note in _notes(found)]
    return "\n\n".join(parts) + "\n"


def _tables(found: Comparison, form: str) -> Iterator[tuple[str, list[Row], str]]:
    methods, unit = found.methods, _unit(found)
    yield (
        f"{unit}, {_at(found)}",
        per_task(found, form) if form != "terminal" or _short(found) else _environments(found),
        "Mean over seeds, with Student's 95 % interval"
        + ("" if form == "terminal" else f"; bold: at least {100 * _NEAR:.0f} % of a row's best")
        + ". Without brackets: one seed, or seeds that agree, which say nothing of their spread. "
        "(n/m): n of m runs have a result.",
    )
    if found.over_tasks:
        yield (
            f"over {counted(len(found.shared), 'task')}",
            [
                {
                    "method": name,
                    **{a: _estimate(found.over_tasks[name][a], found) for a in AGGREGATES},
                }
                for name in methods
            ],
            "IQM: mean of the middle half of all runs. Median and mean: of the tasks' means. "
            "Optimality gap: the mean amount missing to "
            f"{'100 %' if found.kind == SUCCESS else '100'}, lower is better. Intervals: 95 %, "
            f"bootstrap stratified by task, {found.resamples:,} resamples.",
        )
    if found.improvements:
        yield (
            "probability of improvement",
            [
                {"X": x, "Y": y, "P(X > Y)": _share(estimate)}
                for (x, y), estimate in found.improvements.items()
            ],
            "The probability that a run of X is better than one of Y on the same task, "
            + ("seed by seed" if found.paired else "every seed of X against every seed of Y")
            + "; ties count half.",
        )
    if found.hindsight:
        factor = points(found.kind)
        yield (
            "test budgets",
            [
                {
                    "method": name,
                    **{budget_words(b): f"{factor * x:.1f}" for b, x in one.budgets.items()},
                    "training budget": f"{factor * one.value:.1f}",
                    "best budget": "-"
                    if one.fixed is None
                    else f"{factor * (one.fixed - one.value):+.1f}",
                    "best per task": f"{factor * (one.best - one.value):+.1f}",
                }
                for name, one in found.hindsight.items()
            ],
            "Means over tasks at each budget and at the one trained with; then what choosing the "
            "best one with hindsight would add: one for all tasks, or one for each task. That is "
            "not a result of the method.",
        )
    if found.seeds:
        yield (
            "seeds needed",
            [
                {"points": f"{difference:g}", "seeds": "-" if n is None else f"{n:,}"}
                for difference, n in found.seeds.items()
            ],
            "Seeds for each method and task that would tell such a difference of two means over "
            f"these tasks, with probability {POWER:g} at the level 0.05 (Student's t, the seeds' "
            "spread as found here).",
        )


def per_task(found: Comparison, form: str = "md") -> list[Row]:
    """A row for each task, and for the mean over the tasks of each environment that has several."""
    rows = []
    for task in found.tasks:
        cells = {name: found.cells[name][task] for name in found.methods}
        best = max((c.mean.value for c in cells.values() if c.mean is not None), default=math.inf)
        row = {"task": short_name(task)}
        for name, cell in cells.items():
            text = _cell(cell, found)
            bold = cell.mean is not None and cell.mean.value >= _NEAR * best > 0
            row[name] = _bold(text, form) if bold and len(cells) > 1 else text
        rows.append(row)
    return rows + _environments(found)


def _environments(found: Comparison) -> list[Row]:
    """The means over the single tasks of each environment, as the papers' main tables have them."""
    groups: dict[str, list[str]] = {}
    for task in found.tasks:
        groups.setdefault(re.sub(r"-singletask(-task\d+)?", "", task), []).append(task)
    rows = []
    for name, tasks in groups.items():
        if len(tasks) < 2:
            continue
        row = {"task": f"{short_name(name)} ({len(tasks)} tasks)"}
        for method in found.methods:
            means = [found.cells[method][task].mean for task in tasks]
            values = [one.value for one in means if one is not None]
            whole = len(values) == len(tasks)
            row[method] = _number(sum(values) / len(values), found) if whole else "-"
        rows.append(row)
    return rows


def _short(found: Comparison) -> bool:
    """Whether every task is worth a line on the terminal; --out writes them all."""
    return len(found.tasks) * len(found.methods) <= 100 or not _environments(found)


def short_name(task: str) -> str:
    """A task's name without what all of its benchmark have in common."""
    return re.sub(r"-v0$", "", task.replace("-singletask", ""))


def _cell(cell: Cell, found: Comparison) -> str:
    if cell.mean is None:
        states = dict.fromkeys(one.state for one in cell.absent)
        return "/".join(states) or "-"
    text = _estimate(cell.mean, found)
    return text + (
        f" ({len(cell.scores)}/{len(cell.scores) + len(cell.absent)})" if cell.absent else ""
    )


def _estimate(one: Estimate, found: Comparison) -> str:
    if one.low is None or one.high is None:
        return _number(one.value, found)
    return f"{_number(one.value, found)} [{_number(one.low, found)}, {_number(one.high, found)}]"


def _share(one: Estimate) -> str:
    return f"{one.value:.2f}" + ("" if one.low is None else f" [{one.low:.2f}, {one.high:.2f}]")


def _number(value: float, found: Comparison) -> str:
    scaled = points(found.kind) * value
    return f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:.1f}"


def _unit(found: Comparison) -> str:
    return "success (%)" if found.kind == SUCCESS else found.kind


def _at(found: Comparison) -> str:
    if found.at == LAST:
        return "last evaluation"
    if found.at == BEST:
        return "best evaluation, chosen with hindsight"
    return f"after {found.at:,} updates"


def _notes(found: Comparison) -> list[str]:
    gone = [one for row in found.cells.values() for cell in row.values() for one in cell.absent]
    lines = [
        f"{one.state}: {one.method} on {short_name(one.task)}, seed {one.seed}"
        + (f": {one.why}" if one.why else "")
        for one in dict.fromkeys(gone)
    ]
    return [*lines, *found.notes]


# --- formats --------------------------------------------------------------------------------------


def _blocks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Tables of at most 80 columns: the first column, and as many of the others as fit."""
    first, *names = dict.fromkeys(name for row in rows for name in row)
    width = {n: max(len(n), *(len(row.get(n, "")) for row in rows)) for n in (first, *names)}
    kept: list[str] = []
    for name in [*names, None]:
        if name is None or (
            kept and width[first] + sum(2 + width[k] for k in (*kept, name)) > WIDTH - 1
        ):
            yield [{key: row.get(key, "") for key in (first, *kept)} for row in rows]
            kept = []
        kept += [name] if name is not None else []


def _table(rows: Sequence[Row], form: str) -> str:
    if form == "terminal":
        return format_table(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name, "") for name in names] for row in rows]
    tabulate = need("tabulate", "run").tabulate
    aligned = {"colalign": ("left", *["right"] * (len(names) - 1)), "disable_numparse": True}
    if form == "md":
        names, *cells = ([cell.replace("|", "\\|") for cell in row] for row in (names, *cells))
        return str(tabulate(cells, names, tablefmt="github", **aligned))
    cells = [[_tex(cell) for cell in row] for row in cells]
    text = str(tabulate(cells, [_tex(n) for n in names], tablefmt="latex_raw", **aligned))
    rules = iter(("\\toprule", "\\midrule", "\\bottomrule"))
    return re.sub(r"\\hline", lambda _: next(rules), text)


def _titled(title: str, form: str) -> str:
    title = title[0].upper() + title[1:]
    return {"md": f"## {title}", "tex": f"% {title}", "terminal": title}[form]


def _text(note: str, form: str) -> str:
    import textwrap

    if form == "md":
        return note
    lines = textwrap.wrap(note, WIDTH - 2 - (2 if form == "tex" else 0), break_on_hyphens=False)
    return "\n".join(f"% {line}" if form == "tex" else line for line in lines)


def _bold(text: str, form: str) -> str:
    if form == "terminal":
        return text
    value, space, rest = text.partition(" ")
    return (f"\\textbf{{{value}}}" if form == "tex" else f"**{value}**") + space + rest


_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
)


def _tex(text: str) -> str:
    """Text for LaTeX; an interval is set small, and bold stays bold."""
    bold = re.fullmatch(r"\\textbf\{(.*?)\}(.*)", text)
    inner, rest = bold.groups() if bold else ("", text)
    rest = rest.translate(_TEX)
    rest = re.sub(r"\[[^\]]*\]", lambda m: f"{{\\tiny {m[0]}}}", rest).replace(" > ", " $>$ ")
    return f"\\textbf{{{inner}}}{rest}" if bold else rest


def as_csv(found: Comparison) -> str:
    """One row for each task and method: the mean, its interval, seeds, and every seed's score.

    Values are as recorded: success from 0 to 1.
    """
    text = io.StringIO()
    names = ("task", "method", "mean", "low", "high", "seeds", "absent", "scores")
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    for method, row in found.cells.items():
        for task, cell in row.items():
            mean = cell.mean or Estimate(math.nan)
            table.writerow(
                {
                    "task": task,
                    "method": method,
                    "mean": "" if cell.mean is None else repr(mean.value),
                    "low": "" if mean.low is None else repr(mean.low),
                    "high": "" if mean.high is None else repr(mean.high),
                    "seeds": len(cell.scores),
                    "absent": "; ".join(f"seed {a.seed} {a.state}" for a in cell.absent),
                    "scores": " ".join(f"{seed}:{x!r}" for seed, x in cell.scores.items()),
                }
            )
    return text.getvalue()


def as_json(found: Comparison) -> str:
    """Everything in a comparison; values as recorded: success from 0 to 1."""
    values: dict[str, Any] = {
        "score": found.kind,
        "evaluation": found.at,
        "tasks_compared": list(found.shared),
        "resamples": found.resamples,
        "tasks": {
            name: {
                task: {
                    **_plain(cell.mean),
                    "scores": {str(seed): x for seed, x in cell.scores.items()},
                    "absent": [asdict(one) for one in cell.absent],
                }
                for task, cell in row.items()
            }
            for name, row in found.cells.items()
        },
        "over_tasks": {
            name: {key: _plain(one) for key, one in row.items()}
            for name, row in found.over_tasks.items()
        },
        "probability_of_improvement": [
            {"x": x, "y": y, "paired": found.paired, **_plain(one)}
            for (x, y), one in found.improvements.items()
        ],
        "performance_profiles": {
            name: [
                {"above": float(t), **_plain(one)}
                for t, one in zip(found.thresholds, profile, strict=True)
            ]
            for name, profile in found.profiles.items()
        },
        "curves": {
            name: [{"step": step, **_plain(one)} for step, one in zip(*curve, strict=True)]
            for name, curve in found.curves.items()
        },
        "budgets": {
            name: {
                "means": {budget_words(b): x for b, x in one.budgets.items()},
                "training": dict(one.chosen),
                "value": one.value,
                "best_for_all_tasks": one.fixed,
                "best_for_each_task": one.best,
            }
            for name, one in found.hindsight.items()
        },
        "seeds_needed": {f"{difference:g}": n for difference, n in found.seeds.items()},
        "notes": list(found.notes),
    }
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def _plain(one: Estimate | None) -> Mapping[str, float | None]:
    if one is None or not math.isfinite(one.value):
        return {"value": None, "low": None, "high": None}
    return one._asdict()


__all__ = ["NORMALISED", "as_csv", "as_json", "per_task", "short_name", "tables"]

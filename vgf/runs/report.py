"""Tables, figures and report.html, made from run folders alone.

The headline is the last evaluation. The best one, chosen with hindsight, is shown separately.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from ..comparison.groups import unlike
from ..support.errors import VGFError
from ..support.extras import need
from ..support.figures import COLOURS, DASHES, figure, line_look
from ..support.files import read_json, write_atomically
from ..support.pages import drawn_from, html_figure, html_page, html_table
from ..support.rows import Row, Scalar
from ..support.statistics import NORMALISED, RETURN, SUCCESS
from .compare import record_of
from .folder import CELLS, FAILED, RUNS
from .look import FLOW
from .picture import caption as flow_caption
from .picture import episode_caption, save_episode, save_flow
from .reading import Run, find_places, read_run
from .reading import find_runs as find_runs
from .scores import Score, policy_titles, scores, step_of

REPORT, LEARNING, LOSSES, SCALING = "report.html", "learning", "losses", "scaling"
PICTURE, EPISODE = "flow", "episode.gif"
QUICK = (
    "A first look (--quick): a tenth of the run's length. Its scores are not a result; run without "
    "--quick for one."
)

# Short column headings: a table must fit into 80 columns.
_HEADINGS = {NORMALISED: "norm. score"}


# --- scores -------------------------------------------------------------------------------------


def last_scores(runs: Sequence[Run]) -> list[Score]:
    """The headline: the scores of every run's last evaluation."""
    last = [_at(run.evaluations, max(_steps(run), default=0)) for run in runs]
    return scores(last, _kind(runs))


def score_curves(runs: Sequence[Run]) -> dict[Scalar, list[Score]]:
    """For each test budget, the scores at every step that all runs were evaluated at."""
    shared = sorted(set.intersection(*(set(_steps(run)) for run in runs)))
    curves: dict[Scalar, list[Score]] = {}
    for step in shared:
        for score in scores([_at(run.evaluations, step) for run in runs], _kind(runs)):
            curves.setdefault(score.budget, []).append(score)
    return {
        score.budget: curves[score.budget] for score in last_scores(runs) if score.budget in curves
    }


def best_scores(runs: Sequence[Run]) -> list[Score]:
    """For each test budget the best evaluation, the earliest if tied: chosen with hindsight."""
    curves = score_curves(runs).values()
    return [max(curve, key=lambda score: (score.value, -score.step)) for curve in curves]


def _kind(runs: Sequence[Run]) -> str | None:
    """What the score of some runs is called; None if they do not all say the same."""
    kinds = {start.get("score") for run in runs for start in run.starts}
    return kinds.pop() if len(kinds) == 1 else None


def _steps(run: Run) -> list[int]:
    return sorted({step_of(row) for row in run.evaluations})


def _at(rows: Sequence[Row], step: int) -> list[Row]:
    return [row for row in rows if step_of(row) == step]


# --- tables -------------------------------------------------------------------------------------


def score_table(results: Sequence[Score], with_step: bool = False) -> list[dict[str, str]]:
    """Scores as rows of text, for :func:`format_table`."""
    return [
        {
            "budget": budget_name(score.budget),
            **({"update": f"{score.step:,}"} if with_step else {}),
            _HEADINGS.get(score.kind, score.kind): _value(score.value, score.kind),
            "95 % interval": _interval(score),
            **({} if score.kind == RETURN or with_step else {"return": _short(score.returns)}),
            "length": _short(score.length),
            "moved": _short(score.displacement, 3),
            "W2": _short(score.w2, 3),
            "episodes": str(score.episodes),
        }
        for score in results
    ]


def budget_name(budget: Scalar) -> str:
    """A test budget's short name."""
    if isinstance(budget, str):
        return policy_titles(budget)[0]
    return f"L = {budget:g}" if budget is not None else "?"


def _budget_title(budget: Scalar) -> str:
    if isinstance(budget, str):
        return policy_titles(budget)[1]
    return f"{budget_name(budget)} (best of N)" if budget == 0 else budget_name(budget)


def _value(value: float, kind: str) -> str:
    return f"{100 * value:.1f} %" if kind == SUCCESS else _short(value)


def _interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return "-"
    if score.kind == SUCCESS:
        return f"{100 * score.low:.1f} to {100 * score.high:.1f}"
    return f"{_short(score.low)} to {_short(score.high)}"


def _short(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


# --- figures ------------------------------------------------------------------------------------


def save_learning(runs: Sequence[Run], stem: Path | str) -> None:
    """Learning curves: the score against updates, a line for each test budget."""
    with figure(stem) as drawing:
        axes = drawing.subplots()
        for i, (budget, curve) in enumerate(score_curves(runs).items()):
            x = [score.step for score in curve]
            factor = _factor(curve[0])
            low = [factor * _or(score.low, score.value) for score in curve]
            high = [factor * _or(score.high, score.value) for score in curve]
            look = {**line_look(i), "label": _budget_title(budget)}
            axes.plot(x, [factor * score.value for score in curve], **look)
            axes.vlines(x, low, high, color=look["color"], linewidth=1, alpha=0.6)
            _label_score(axes, curve[0].kind)
        axes.set_xlabel("updates")
        start = min(run.resolved.start.checkpoint or 0 for run in runs)
        axes.set_xlim(left=None if start else 0)
        _mark_online(axes, runs, start)
        axes.xaxis.set_major_formatter(_thousands)
        drawing.legend(loc="outside upper center", ncols=3, handlelength=3.5)


def _mark_online(axes: Any, runs: Sequence[Run], start: int) -> None:
    """A labelled line where offline training ends and online training begins."""
    for end in sorted({run.resolved.offline_end for run in runs if run.resolved.online.steps}):
        axes.axvline(end, color="#555555", linestyle=":", linewidth=1.2)
        words = {
            "xycoords": axes.get_xaxis_transform(),
            "textcoords": "offset points",
            "va": "bottom",
            "color": "#555555",
            "fontsize": 9,
        }
        axes.annotate("online", (end, 1.0), (4, 2), ha="left", **words)
        if end > start:
            axes.annotate("offline", (end, 1.0), (-4, 2), ha="right", **words)


def save_losses(runs: Sequence[Run], stem: Path | str) -> None:
    """Every metric of training against updates, a panel for each, a line for each run."""
    rows = [row for run in runs for row in run.metrics]
    counts = ("step", "seconds", "environment_steps")
    names = dict.fromkeys(name for row in rows for name in row if name not in counts)
    order = sorted(names, key=lambda name: not name.endswith("_loss"))
    columns = max(1, min(3, len(order)))
    lines = max(1, math.ceil(len(order) / columns))
    with figure(stem, 2.9 * columns + 0.3, 2.3 * lines + 0.3) as drawing:
        panels = drawing.subplots(lines, columns, squeeze=False).flatten()
        for panel, name in zip(panels, order, strict=False):
            for i, run in enumerate(runs):
                points = [
                    (row["step"], row[name])
                    for row in run.metrics
                    if isinstance(row.get(name), int | float)
                ]
                x, y = zip(*points, strict=True) if points else ((), ())
                panel.plot(x, y, **{**line_look(i), "marker": "", "label": run.folder.name})
            for end in {run.resolved.offline_end for run in runs if run.resolved.online.steps}:
                panel.axvline(end, color="#555555", linestyle=":", linewidth=1)
            panel.set_title(name.replace("_", " "), fontsize=10)
            panel.xaxis.set_major_formatter(_thousands)
            panel.xaxis.set_major_locator(need("matplotlib.ticker", "run").MaxNLocator(4))
        for panel in panels[len(order) :]:
            panel.set_visible(False)
        drawing.supxlabel("updates", fontsize=10)
        if len(runs) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            drawing.legend(
                handles, labels, loc="outside upper center", ncols=min(6, len(runs)), handlelength=3
            )


def save_scaling(results: Sequence[Score], stem: Path | str) -> None:
    """Test-time scaling: score and distance moved against L_test.

    Budgets with a name, such as "bc", are horizontal lines.
    """
    named = [score for score in results if isinstance(score.budget, str)]
    counted = [score for score in results if not isinstance(score.budget, str)]
    with figure(stem) as drawing:
        axes = drawing.subplots()
        x = [float(score.budget or 0) for score in counted]
        if counted:
            factor = _factor(counted[0])
            y = [factor * score.value for score in counted]
            low = [factor * _or(score.low, score.value) for score in counted]
            high = [factor * _or(score.high, score.value) for score in counted]
            spread = np.maximum([np.subtract(y, low), np.subtract(high, y)], 0)
            axes.errorbar(
                x, y, spread, **line_look(0), capsize=4, label="score, 95 % interval", zorder=3
            )
        for i, score in enumerate(named, 3):
            level = _factor(score) * score.value
            axes.axhline(
                level, color=COLOURS[-1], linestyle=DASHES[i % 4], label=_budget_title(score.budget)
            )
        moved = [
            (float(score.budget or 0), score.displacement)
            for score in counted
            if score.displacement is not None
        ]
        if moved:
            other = axes.twinx()
            other.spines["right"].set_visible(True)
            other.grid(False)
            other.plot(*zip(*moved, strict=True), **line_look(1), label="distance moved")
            other.set_ylabel("mean distance moved\n(units of the action)", color=COLOURS[1])
            other.tick_params(axis="y", labelcolor=COLOURS[1])
            furthest = max(distance for _, distance in moved) or 1.0
            other.set_ylim(-0.04 * furthest, 1.04 * furthest)  # level with 0 and 100 %
            other.margins(x=0.06)
        if results:
            _label_score(axes, results[0].kind)
        axes.set_xlabel("flow steps at test time, L_test")
        axes.set_xticks(x)
        axes.margins(x=0.06)
        drawing.legend(loc="outside upper center", ncols=3, handlelength=3.5)


def _label_score(axes: Any, kind: str) -> None:
    axes.set_ylabel("success (%)" if kind == SUCCESS else kind)
    if kind == SUCCESS:
        axes.set_ylim(-4, 104)
        axes.set_yticks(range(0, 101, 20))


def _factor(score: Score) -> float:
    return 100.0 if score.kind == SUCCESS else 1.0


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _thousands(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}"


# --- the report ---------------------------------------------------------------------------------


def report(folder: Path | str, found: Found | None = None) -> Path:
    """Write the figures and report.html of a run folder, or of a folder of seeds of one run.

    Writes flow, learning, losses and scaling as PNG and SVG and episode.gif, if there is something
    to draw, and report.html, which needs no other file. Of runs that are not seeds of one thing, it
    is a list with links to their own reports: their scores are not pooled. So are runs some of
    which are damaged, or failed or are missing in a sweep.

    Returns:
        The path of report.html.

    Raises:
        VGFError: no run there, a damaged file, or a package that is missing.
    """
    folder = Path(folder)
    runs, without = found or sound_runs(folder)
    difference = unlike_runs(runs, without)
    if difference is not None:
        write_atomically(folder / REPORT, _list_page(folder, runs, without, difference))
        return folder / REPORT
    last = last_scores(runs)
    figures: list[tuple[str, str]] = []
    drawn = _Drawn(folder)
    flow = runs[0].folder / FLOW
    if flow.exists():
        look = read_json(flow, dict)
        drawn.draw(PICTURE, look, lambda: save_flow(look, folder / PICTURE))
        figures.append((f"{PICTURE}.svg", flow_caption(look)))
        if look.get("maze") is not None:
            drawn.draw(EPISODE, look, lambda: save_episode(look, folder / EPISODE))
            figures.append((EPISODE, episode_caption(look)))
    online = [(run.resolved.online.steps, run.resolved.offline_end) for run in runs]
    if last:
        titles = [_budget_title(score.budget) for score in last]
        starts = [run.resolved.start.checkpoint for run in runs]
        curves = (score_curves(runs), titles, online, starts)
        drawn.draw(LEARNING, curves, lambda: save_learning(runs, folder / LEARNING))
        drawn.draw(SCALING, (last, titles), lambda: save_scaling(last, folder / SCALING))
        bars = "bars: 95 % confidence intervals"
        figures += [
            (f"{SCALING}.svg", f"Test-time scaling at the last evaluation; {bars}."),
            (f"{LEARNING}.svg", f"Score against training updates, by test budget; {bars}."),
        ]
    if any(run.metrics for run in runs):
        rows = [(run.folder.name, run.metrics) for run in runs]
        drawn.draw(LOSSES, (rows, online), lambda: save_losses(runs, folder / LOSSES))
        figures.append((f"{LOSSES}.svg", "Training."))
    page = _page(folder, runs, last, figures, drawn.stamps)
    write_atomically(folder / REPORT, page)
    return folder / REPORT


class _Drawn:
    """The figures of a report. The page says what each was drawn from; one whose data, whose files
    and whose code are the same as then is not drawn again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.stamps = folder, dict[str, str]()
        self._before = drawn_from(folder / REPORT)
        code = [Path(inspect.getfile(own)).read_bytes() for own in (report, save_flow, line_look)]
        self._code = _digest(b"".join(code))

    def draw(self, name: str, data: Any, draw: Callable[[], Any]) -> None:
        """Draw one, unless it is there: ``NAME.png`` and ``NAME.svg``, or NAME with a suffix."""
        files = [name] if Path(name).suffix else [f"{name}.png", f"{name}.svg"]
        paths = [self._folder / file for file in files]
        key = _digest(repr((data, self._code)).encode())

        def stamp() -> str:
            return " ".join([key, *(_digest(path.read_bytes()) for path in paths)])

        if not (all(path.is_file() for path in paths) and stamp() == self._before.get(name)):
            draw()
        self.stamps[name] = stamp()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class Without(NamedTuple):
    """A run that has no result: its state, and why, in one line."""

    state: str
    why: str


Found = tuple[list[Run], dict[Path, Without]]


def sound_runs(folder: Path) -> Found:
    """The runs in a folder, and those without a result: damaged, or failed or missing in a sweep.

    Raises:
        VGFError: no run there, or only one, which is damaged.
    """
    runs, without = {}, {}
    cells = {folder / RUNS / cell.stem for cell in (folder / CELLS).glob("*.toml")}
    for place in find_places(folder, empty=bool(cells)):
        try:
            runs[place] = read_run(place)
            record_of(runs[place])
        except VGFError as error:
            runs.pop(place, None)
            without[place] = Without("damaged", str(error))
    for place in sorted(cells):
        failed = folder / FAILED / f"{place.name}.txt"
        if failed.is_file():
            runs.pop(place, None)
            why = " ".join(failed.read_text(encoding="utf-8", errors="replace").split())
            without[place] = Without("failed", f"{place.name}: {why}")
        elif place not in runs and place not in without:
            without[place] = Without("not started", "")
    if not runs and len(without) == 1 and not cells:
        raise VGFError(next(iter(without.values())).why)
    return list(runs.values()), without


def unlike_runs(runs: Sequence[Run], without: Mapping[Path, Without]) -> str | None:
    """Why some runs are not seeds of one thing, to follow "2 runs, "; None if they are."""
    if without:
        states = Counter(one.state for one in without.values())
        return ", ".join(f"{number} of them {state}" for state, number in states.items())
    difference = unlike([record_of(run) for run in runs]) if len(runs) > 1 else None
    return difference and f"which are not seeds of one run ({difference})"


def reasons(without: Mapping[Path, Without]) -> list[str]:
    """Why runs have no result, one line each."""
    return [f"{one.state}: {one.why}" for one in without.values() if one.why]


def run_table(
    folder: Path, runs: Sequence[Run], without: Mapping[Path, Without]
) -> list[dict[str, str]]:
    """A row for each of several runs, whatever they are: what it is, and its headline's score."""
    rows = []
    for run in runs:
        record, config = record_of(run), run.resolved
        done = run.updates
        last = last_scores([run])
        score = _headline_score(run, last) if last else None
        rows.append(
            {
                "run": os.path.relpath(run.folder, folder),
                "task": record.task,
                "method": policy_titles(record.method)[0],
                "seed": str(record.seed),
                "updates": f"{done:,}"
                + ("" if done >= config.updates else f" of {config.updates:,}"),
                "score": "-" if score is None else _value(score.value, score.kind),
            }
        )
    for place, one in without.items():
        blank = dict.fromkeys(("task", "method", "seed", "updates"), "-")
        rows.append({"run": os.path.relpath(place, folder), **blank, "score": one.state})
    return rows


def _headline_score(run: Run, last: Sequence[Score]) -> Score:
    train = run.resolved.agent.budget.steps
    counted = [score for score in last if not isinstance(score.budget, str)]
    return next((score for score in counted if score.budget == train), [*counted, *last][0])


def _list_page(
    folder: Path, runs: Sequence[Run], without: Mapping[Path, Without], difference: str
) -> str:
    rows = run_table(folder, runs, without)
    table = []
    for row in rows:
        place = row["run"]
        name, *values = map(escape, row.values())
        if (folder / place / REPORT).is_file():
            name = f'<a href="{quote(place)}/{REPORT}">{name}</a>'
        table.append([name, *values])
    return html_page(
        f"VGF: {folder.resolve().name}",
        f"<h1>{escape(folder.resolve().name)}</h1>"
        f"<p class=headline>{len(rows)} runs, {escape(difference)}.</p>"
        + html_table(list(rows[0]), table)
        + "".join(f"<p class=warning>{escape(line)}</p>" for line in reasons(without))
        + "<p class=note>score: of the last evaluation, at the training budget. "
        f"<code>vgf compare {escape(str(folder))}</code> compares them.</p>",
    )


def headline(runs: Sequence[Run], last: Sequence[Score]) -> str:
    """One sentence: the last evaluation at the training budget, or at the first one evaluated."""
    if not last and runs[0].starts and runs[0].starts[-1].get("score", "") is None:
        return "Not evaluated: there is no environment to evaluate in."
    if not last:
        return "Not evaluated yet."
    score = _headline_score(runs[0], last)
    seeds = f", {score.runs} seeds" if score.runs > 1 else ""
    equal = " (no interval: all are equal)" if score.episodes > 1 else ""
    bounds = equal if score.low is None else f" (95 % interval {_interval(score)})"
    taken = [
        int(row.get("environment_steps") or 0)
        for run in runs
        for row in _at(run.evaluations, score.step)
    ]
    online = f" and {min(taken):,} environment steps" if any(taken) else ""
    return (
        f"{score.kind} {_value(score.value, score.kind)}{bounds} at {budget_name(score.budget)}, "
        f"last evaluation, after {score.step:,} updates{online}; "
        f"{score.episodes} episodes{seeds}"
    )


def _page(
    folder: Path,
    runs: Sequence[Run],
    last: Sequence[Score],
    figures: Sequence[tuple[str, str]],
    stamps: Mapping[str, str],
) -> str:
    settings = runs[0].resolved.task
    task = settings.env or Path(settings.data or "data").name
    body = [f"<h1>{escape(task)}</h1>", f"<p class=headline>{escape(headline(runs, last))}.</p>"]
    body += [f"<p class=warning>{escape(line)}</p>" for line in _warnings(runs)]
    notes = dict.fromkeys(n for run in runs for start in run.starts for n in start.get("notes", []))
    if notes:
        body.append(f"<ul class=note>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>")
    if last:
        body.append("<h2>Last evaluation</h2>" + _table(score_table(last)))
        body.append(
            "<p class=note>moved: mean distance between a particle's start and its end; W2: the "
            "Wasserstein distance between the particles before and after; both in units of the "
            f"action. length: in decisions. {escape(_interval_note(last))}</p>"
        )
    for name, caption in figures:
        body.append(html_figure(folder / name, caption, escape(caption)))
    if last:
        best = best_scores(runs)
        body.append("<h2>Best evaluation of each budget</h2>")
        if {score.step for score in best} == {score.step for score in last}:
            body.append("<p class=note>The last evaluation is the best one.</p>")
        else:
            body.append(_table(score_table(best, with_step=True)))
            body.append("<p class=note>Chosen with hindsight: not the result of the run.</p>")
    shown: list[dict[str, Any]] = []  # no table twice
    for run in runs:
        name = escape(run.folder.resolve().name)
        if len(runs) > 1 and (run.folder / REPORT).is_file():
            place = quote(os.path.relpath(run.folder, folder))
            name = f'<a href="{place}/{REPORT}">{name}</a>'
        body.append(f"<h2>{name}</h2>")
        for start in run.starts:
            command = " ".join(map(str, start.get("command", [])))
            body.append(f"<h3>Command</h3><pre class=command>{escape(command)}</pre>")
            known = {key: x for key, x in _facts(start).items() if key != "started"}
            if known in shown:
                when = escape(str(start.get("started", "")))
                body.append(f"<p class=note>{when}; versions and machine as above.</p>")
                continue
            shown.append(known)
            facts = [
                {
                    "what": key,
                    "value": json.dumps(value) if isinstance(value, dict | list) else str(value),
                }
                for key, value in _facts(start).items()
            ]
            body.append("<h3>Versions and machine</h3>" + _table(facts))
        body.append(f"<h3>Configuration</h3><pre>{escape(run.config_text)}</pre>")
    return html_page(f"VGF: {task}", "\n".join(body), stamps)


def _facts(start: Mapping[str, Any]) -> dict[str, Any]:
    rest = {
        key: value for key, value in start.items() if key not in ("command", "versions", "notes")
    }
    return {**start.get("versions", {}), **rest}


def _warnings(runs: Sequence[Run]) -> list[str]:
    lines = [QUICK] if runs[0].config.get("quick") else []
    for run in runs:
        steps = run.resolved.updates
        if run.updates < steps:
            lines.append(f"{run.folder.name}: unfinished, {run.updates:,} of {steps:,} updates.")
    return lines


def _interval_note(results: Sequence[Score]) -> str:
    if results[0].runs > 1:
        return "Intervals: over the means of the seeds, and at least as wide as over the episodes."
    kind = "Wilson's" if results[0].kind == SUCCESS else "Student's"
    return f"Intervals: {kind}, over the episodes of one seed; they say nothing about other seeds."


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0]) if rows else []
    cells = [[escape(str(row.get(name, ""))) for name in names] for row in rows]
    return html_table(list(map(escape, names)), cells)

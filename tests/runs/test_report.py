"""Reports are made from run folders alone; these are made up, and their numbers known."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgf.runs import report as module
from vgf.runs.config import OnlineSettings, RunConfig, StartSettings, TrainSettings
from vgf.runs.folder import create_run_folder
from vgf.runs.log import RunLog
from vgf.runs.report import (
    best_scores,
    find_runs,
    headline,
    last_scores,
    report,
    save_scaling,
    score_curves,
    score_table,
)
from vgf.runs.scores import scores
from vgf.support.errors import VGFError
from vgf.support.figures import figure
from vgf.support.rows import Row, read_rows
from vgf.support.tables import format_table

BUDGETS = ("bc", 0, 1, 2, 3)
STEPS = (5_000, 10_000, 15_000, 20_000)


def success_chance(budget: Any, step: int) -> float:
    if budget == "bc":
        return 0.04
    return min(1.0, step / 12_000) * (1 - 0.06 * max(0, budget - 1)) * (0.9 if budget == 0 else 1)


def make_run(folder: Path, seed: int = 0, steps: tuple[int, ...] = STEPS) -> Path:
    """A run folder whose numbers are made up."""
    rng = np.random.default_rng(seed)
    config = RunConfig(seed=seed)
    create_run_folder(folder, config)
    with RunLog(folder, config) as log:
        for step in range(500, steps[-1] + 1, 500):
            log.metrics(
                step,
                {
                    "critic_loss": 3 * np.exp(-step / 4000) + 0.1 * rng.random(),
                    "reference_loss": 0.5 + np.exp(-step / 2000) + 0.05 * rng.random(),
                    "target_mean": -40 + 20 * step / 20_000 + rng.random(),
                    "displacement": 0.4 + 0.02 * rng.random(),
                    "spread_start": 0.2 + 0.02 * rng.random(),
                    "spread_moved": 0.1 + 0.02 * rng.random(),
                },
            )
            if step in steps:
                for budget in BUDGETS:
                    log.evaluations(step, [episode(rng, budget, step, i) for i in range(50)])
    return folder


def episode(rng: np.random.Generator, budget: Any, step: int, i: int) -> dict[str, Any]:
    success = rng.random() < success_chance(budget, step)
    length = int(rng.integers(15, 30)) if success else 125
    moved = 0.0 if budget == "bc" else 0.28 * budget + 0.01 * rng.random()
    return {
        "budget": budget,
        "episode": i,
        "seed": 1000 + i,
        "return": -float(length),
        "success": success,
        "length": length,
        "displacement": moved,
        "w2": 0.8 * moved,
    }


@pytest.mark.full
def test_where_a_run_goes_online(tmp_path: Path) -> None:
    """The figures mark it, offline runs have no mark, and the end of the run counts both parts."""
    config = RunConfig(
        train=TrainSettings(steps=100),
        online=OnlineSettings(steps=60, warmup=20),
        start=StartSettings("elsewhere", 50),
    )
    rng = np.random.default_rng(0)
    for number, (folder, settings) in enumerate(
        {"online": config, "offline": dataclasses.replace(config, online=OnlineSettings())}.items()
    ):
        create_run_folder(tmp_path / folder, settings)
        with RunLog(tmp_path / folder, settings) as log:
            for step, taken in ((150, 0), (180, 50), (190, 60))[: 3 - 2 * number]:
                counted = {} if number else {"environment_steps": taken}
                log.metrics(step, {"critic_loss": 1.0, **counted})
                log.evaluations(step, [{**episode(rng, 0, step, 0), **counted}])
        report(tmp_path / folder)
    pictures = [
        (tmp_path / folder / "learning.svg").read_text() for folder in ("online", "offline")
    ]
    assert all(f"<!-- {word} -->" in pictures[0] for word in ("online", "offline"))
    assert not any(f"<!-- {word} -->" in pictures[1] for word in ("online", "offline"))
    losses = (tmp_path / "online/losses.svg").read_text()
    assert "<!-- critic loss -->" in losses
    assert "<!-- environment steps -->" not in losses
    page = (tmp_path / "online/report.html").read_text()
    assert "after 190 updates and 60 environment steps" in page
    assert "unfinished, " not in page
    assert "environment steps;" not in (tmp_path / "offline/report.html").read_text()


def row(step: int, budget: Any, success: float | None, **more: Any) -> dict[str, Any]:
    return {"step": step, "budget": budget, "success": success, "return": 0.0, **more}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "one")
    report(folder)
    return folder


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_self_contained(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = Collector()
    page.feed(text)
    assert page.open == []
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    for source in page.sources:
        assert b"<svg" in base64.b64decode(source.partition(",")[2])
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    for words in ("Last evaluation", "Best evaluation", "hindsight", "[agent.budget]", "numpy"):
        assert words in text


def test_report_leaves_every_file(run: Path) -> None:
    names = {entry.name for entry in run.iterdir()}
    pictures = {f"{n}.{s}" for n in ("learning", "losses", "scaling") for s in ("png", "svg")}
    assert pictures | {"report.html"} <= names
    assert not any(name.startswith(".") for name in names)
    for name in pictures:
        head = (run / name).read_bytes()[:8]
        assert head == b"\x89PNG\r\n\x1a\n" if name.endswith("png") else head.startswith(b"<?xml")


@pytest.mark.full
def test_the_same_run_gives_the_same_report(run: Path) -> None:
    names = ("report.html", "scaling.svg", "learning.svg", "losses.svg")
    before = [(run / name).read_bytes() for name in names]
    (run / "report.html").unlink()  # what says that nothing need be drawn
    report(run)
    assert [(run / name).read_bytes() for name in names] == before


def test_only_what_changed_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run")
    drawn: list[str] = []
    for name in ("learning", "losses", "scaling"):
        own = getattr(module, f"save_{name}")
        monkeypatch.setattr(
            module, f"save_{name}", lambda *a, n=name, own=own: (drawn.append(n), own(*a))
        )

    def again() -> list[str]:
        drawn.clear()
        page = report(folder).read_text()
        for name in ("learning", "losses", "scaling"):
            assert base64.b64encode((folder / f"{name}.svg").read_bytes()).decode() in page
        return sorted(drawn)

    assert again() == ["learning", "losses", "scaling"]
    assert again() == []
    log = folder / "evaluations.jsonl"
    rows = [{**row, "success": 1.0} for row in read_rows(log)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert again() == ["learning", "scaling"]
    (folder / "losses.png").unlink()
    assert again() == ["losses"]
    (folder / "scaling.svg").write_text("<svg/>")
    assert again() == ["scaling"]
    monkeypatch.setattr(module, "save_flow", json.dumps)  # another file of code
    assert again() == ["learning", "losses", "scaling"]


def test_the_headline_is_the_last_evaluation_not_the_best(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path / "run", RunConfig())
    with RunLog(folder, RunConfig()) as log:
        for step, successes in ((100, [1, 1, 1, 1]), (200, [1, 0, 0, 0])):
            for budget in (0, 1):
                log.evaluations(
                    step,
                    [
                        {"budget": budget, "episode": i, "return": 0.0, "success": s, "length": 3}
                        for i, s in enumerate(successes)
                    ],
                )
    runs = find_runs(folder)
    last, best = last_scores(runs), best_scores(runs)
    assert [(score.budget, score.step, score.value) for score in last] == [
        (0, 200, 0.25),
        (1, 200, 0.25),
    ]
    assert [(score.step, score.value) for score in best] == [(100, 1.0), (100, 1.0)]
    line = headline(runs, last)
    assert "success 25.0 %" in line
    assert "at L = 1, last evaluation, after 200 updates; 4 episodes" in line
    page = report(folder).read_text()
    assert page.index("25.0 %") < page.index("100.0 %")
    assert "unfinished, 200 of 20,000 updates" in page


def test_intervals() -> None:
    # Wilson's for 9 of 10, from its formula.
    p, n, z = 0.9, 10, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    (score,) = scores([[row(1, 0, float(i > 0)) for i in range(10)]])
    assert (score.value, score.episodes, score.runs, score.kind) == (0.9, 10, 1, "success")
    np.testing.assert_allclose(
        np.array([score.low, score.high], float), [centre - half, centre + half], rtol=1e-6
    )
    # Several runs: Student's over their means 1 and 0.5, cut at 0 and 1.
    (score,) = scores([[row(1, 0, 1.0)] * 4, [row(1, 0, 1.0), row(1, 0, 0.0)]])
    assert (score.value, score.low, score.high, score.runs) == (0.75, 0.0, 1.0, 2)
    # Two seeds that agree are no proof: the interval stays as wide as the episodes'.
    (score,) = scores([[row(1, 0, 1.0)] * 5] * 2)
    assert score.low is not None
    np.testing.assert_allclose(score.low, 10 / (10 + z * z))
    # Returns: Student's over episodes; t(0.975, 2) = 4.302653.
    rows: list[Row] = [
        {"step": 1, "budget": 1, "return": x, "success": None} for x in (1.0, 2.0, 3.0)
    ]
    (score,) = scores([rows])
    assert (score.kind, score.value) == ("return", 2.0)
    assert score.high is not None
    np.testing.assert_allclose(score.high, 2 + 4.302653 / np.sqrt(3), rtol=1e-6)
    (score,) = scores([rows[:1]])
    assert (score.low, score.high) == (None, None)


def make_scored(folder: Path, kind: str | None) -> Path:
    """A run whose episodes have a score of their own, 10 times the return."""
    facts = {"score": kind, "notes": ["evaluated in Nothing-v1, standing in for <nothing>"]}
    create_run_folder(folder, RunConfig(), facts)
    with RunLog(folder, RunConfig()) as log:
        log.metrics(500, {"critic_loss": 1.0})
        if kind is not None:
            rows = [
                {
                    "budget": budget,
                    "episode": i,
                    "return": i + float(budget),
                    "success": None,
                    "score": 10 * (i + float(budget)),
                    "length": 3,
                }
                for budget in (0, 1)
                for i in range(3)
            ]
            log.evaluations(500, rows)
    return folder


def test_the_score_is_what_the_task_calls_it(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "run", "normalised score")
    runs = find_runs(folder)
    last = last_scores(runs)
    assert [(s.kind, s.value, s.returns) for s in last] == [
        ("normalised score", 10.0, 1.0),
        ("normalised score", 20.0, 2.0),
    ]
    table = format_table(score_table(last)).splitlines()
    assert table[0].startswith("budget  norm. score")
    assert max(map(len, table)) <= 80
    worst = dataclasses.replace(
        last[0],
        value=-123.456,
        low=-1234.5,
        high=-123.4,
        returns=-12345.67,
        length=1000.0,
        displacement=0.123456,
        w2=0.123456,
        episodes=10_000,
        step=10_000_000,
    )
    for with_step in (False, True):
        assert max(map(len, format_table(score_table([worst], with_step)).splitlines())) <= 80
    assert headline(runs, last).startswith("normalised score 20 (95 % interval -4.841 to 44.84)")
    page = report(folder).read_text()
    assert "norm. score" in page
    assert "standing in for &lt;nothing&gt;" in page
    assert "Student&#x27;s" in page
    # the axis says which score; as text in the picture's own words
    with pytest.MonkeyPatch.context() as patch:
        labels: list[str] = []
        patch.setattr(
            "matplotlib.axes.Axes.set_ylabel", lambda axes, text, **_: labels.append(text)
        )
        save_scaling(last, tmp_path / "figure")
    assert labels[-1] == "normalised score"


def test_a_run_without_environments_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgf.cli import main

    folder = make_scored(tmp_path / "run", None)
    words = "Not evaluated: there is no environment to evaluate in."
    assert words in report(folder).read_text()
    assert (folder / "losses.png").exists()
    assert not (folder / "scaling.png").exists()
    assert main(["report", str(folder)]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.full
def test_curves_of_several_runs_use_shared_steps(tmp_path: Path) -> None:
    make_run(tmp_path / "all" / "seed-0", 0, (5_000, 10_000))
    make_run(tmp_path / "all" / "seed-1", 1, (5_000,))
    runs = find_runs(tmp_path / "all")
    assert [run.folder.name for run in runs] == ["seed-0", "seed-1"]
    curves = score_curves(runs)
    assert list(curves) == list(BUDGETS)
    assert [score.step for score in curves[1]] == [5_000]
    assert curves[1][0].runs == 2
    assert curves[1][0].episodes == 100
    page = report(tmp_path / "all").read_text()
    assert "2 seeds" in page
    assert "over the means of the seeds, and" in page
    assert "seed-1: unfinished" in page


def test_table_fits_a_terminal(run: Path) -> None:
    results = last_scores(find_runs(run))
    for rows in (score_table(results), score_table(results, with_step=True)):
        table = format_table(rows)
        assert max(map(len, table.splitlines())) <= 80
        assert len(table.splitlines()) == 2 + len(BUDGETS)
    lines = table.splitlines()
    assert lines[2].startswith("BC ")
    assert lines[3].startswith("L = 0 ")
    worst = dataclasses.replace(
        results[0],
        value=1.0,
        low=1.0,
        high=1.0,
        returns=-12345.67,
        length=1234.56,
        displacement=0.123456,
        w2=0.123456,
        episodes=10_000,
        step=10_000_000,
    )
    negative = dataclasses.replace(
        worst, kind="return", value=-12345.67, low=-12345.67, high=-12345.67
    )
    for score in (worst, negative):
        assert max(map(len, format_table(score_table([score])).splitlines())) <= 80
    assert format_table([{"a": "x", "b": 1}, {"a": "yyy"}]) == "a    b\n---  -\nx    1\nyyy"


def test_unevaluated_run_is_reported(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path / "run", RunConfig())
    with RunLog(folder, RunConfig()) as log:
        log.metrics(500, {"critic_loss": 1.0})
    assert "Not evaluated yet" in report(folder).read_text()
    assert (folder / "losses.png").exists()
    assert not (folder / "scaling.png").exists()


def test_losses_that_are_not_finite_are_drawn_around(tmp_path: Path) -> None:
    folder = create_run_folder(tmp_path / "run", RunConfig())
    with RunLog(folder, RunConfig()) as log:
        for step, loss in ((1, 1.0), (2, float("nan")), (3, float("inf"))):
            log.metrics(step, {"critic_loss": loss})
    assert report(folder).exists()


def test_text_is_escaped(tmp_path: Path) -> None:
    config = dataclasses.replace(
        RunConfig(), task=dataclasses.replace(RunConfig().task, env="<script>x</script>&")
    )
    folder = create_run_folder(tmp_path / "run", config, {"note": "<b>bold</b>"})
    with RunLog(folder, config) as log:
        log.metrics(1, {"critic_loss": 1.0})
    page = report(folder).read_text()
    assert "<script>" not in page
    assert "<b>bold" not in page
    assert "&lt;script&gt;" in page


def test_folders_that_are_not_runs(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match="is not a run folder"):
        report(tmp_path)
    folder = make_run(tmp_path / "run", steps=(500,))
    (folder / "config.toml").unlink()
    with pytest.raises(VGFError, match=r"config\.toml: no such file"):
        report(folder)


def test_scaling_of_other_rows(tmp_path: Path) -> None:
    """What `vgf eval` has: rows of one evaluation, at budgets of its own."""
    rng = np.random.default_rng(0)
    rows = [episode(rng, budget, 20_000, i) for budget in (0, 5, 10) for i in range(5)]
    save_scaling(scores([[{**row, "step": 20_000} for row in rows]]), tmp_path / "tried")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tried.png", "tried.svg"]


def test_a_figure_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), figure(tmp_path / "broken"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_name_the_extra(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (run / "losses.svg").unlink()
    with pytest.raises(VGFError, match=r"pip install 'vgf\[run\]'"):
        report(run)


def test_rows_are_read_as_they_were_written(run: Path) -> None:
    rows = read_rows(run / "evaluations.jsonl")
    assert len(rows) == len(STEPS) * len(BUDGETS) * 50
    assert {row["budget"] for row in rows} == set(BUDGETS)


@pytest.mark.full
def test_one_damaged_run_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is listed as damaged, and nothing is pooled; alone, it is an error."""
    from vgf.cli import main

    make_run(tmp_path / "seed-0", 0, (5_000,))
    make_run(tmp_path / "seed-1", 1, (5_000,))
    (tmp_path / "seed-1" / "config.toml").write_text("not TOML")
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 runs, 1 of them damaged" in said
    assert "damaged: " in said
    page = (tmp_path / "report.html").read_text()
    assert "<td>damaged" in page
    assert "seed-1/config.toml: not valid TOML" in page
    assert "2 seeds" not in page
    assert main(["report", str(tmp_path / "seed-1")]) == 2
    assert main(["compare", str(tmp_path)]) == 2
    assert "move that run elsewhere, or name the others" in capsys.readouterr().err

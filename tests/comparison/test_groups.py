"""Runs are grouped by what they are; what was not measured alike is never mixed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs_made_up import save_run

from vgf.cli import main
from vgf.comparison import Record, Results, combine, compare, read_table, tables
from vgf.comparison.results import gather
from vgf.runs.compare import read_runs, records
from vgf.runs.config import RunConfig
from vgf.support.errors import VGFError
from vgf.support.settings_tree import override

PUBLISHED = Path(__file__).parent / "published.npz"


def changed(**values: Any) -> RunConfig:
    return override(RunConfig(), values, "test")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": {"action_repeat": 1}}, "action repeat: 8 in .*1 in "),
        ({"train": {"steps": 10_000}}, "updates: 20,000 in .*10,000 in .*--at STEP"),
        ({"evaluation": {"episodes": 5}}, "episodes: 50 in .*5 in .*--allow episodes"),
        ({"evaluation": {"particles": 3}}, "test particles: "),
        ({"online": {"steps": 100, "warmup": 10}}, "updates: 20,000 in .*20,090 in "),
    ],
)
def test_unlike_protocols_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save_run(tmp_path / "a", RunConfig())
    config = override(dataclasses.replace(changed(**change), seed=1), {}, "test")
    save_run(tmp_path / "b", config)
    with pytest.raises(VGFError, match=words):
        read_runs([tmp_path])


def test_more_that_is_refused(tmp_path: Path) -> None:
    """The size of the data, the timing of success and the kind of score."""
    save_run(tmp_path / "a", RunConfig(), transitions=100)
    for name, more, words in (
        ("b", {"transitions": 200}, "data size: 100 in .*200 in "),
        ("c", {"transitions": 100, "ogbench": "1.1.5"}, "success timing: pre in .*post in "),
        (
            "d",
            {"transitions": 100, "kind": "normalised score"},
            "score: success in .*compare them apart$",
        ),
    ):
        save_run(tmp_path / name, RunConfig(seed=1), **more)
        with pytest.raises(VGFError, match=words):
            read_runs([tmp_path / "a", tmp_path / name])
    allowed = read_runs([tmp_path / "a", tmp_path / "b"], allow=["data size"])
    assert "not measured alike: data size" in allowed.notes[0]


def test_at_a_step_runs_of_two_lengths_are_alike(tmp_path: Path) -> None:
    save_run(tmp_path / "a", RunConfig())
    save_run(tmp_path / "b", dataclasses.replace(changed(train={"steps": 10_000}), seed=1))
    found = read_runs([tmp_path], at=10_000)
    assert [one.seeds for one in found.series] == [(0, 1)] * 2


def test_a_seed_counts_once(tmp_path: Path) -> None:
    save_run(tmp_path / "a", RunConfig())
    save_run(tmp_path / "b", RunConfig())
    found = read_runs([tmp_path])
    assert found.series[0].seeds == (0,)
    assert "counted once" in found.notes[0]
    save_run(tmp_path / "c", RunConfig(), value=0.1)
    with pytest.raises(VGFError, match=r"seed 0 twice, with different results: .*leave one out"):
        read_runs([tmp_path])


def test_a_method_with_two_settings_is_two_methods(tmp_path: Path) -> None:
    """Named by the difference, if it is on one task; a method may differ from task to task."""
    for number, step_size in enumerate((0.1, 0.2)):
        config = changed(agent={"budget": {"step_size": step_size}})
        save_run(tmp_path / f"{number}", config)
    assert read_runs([tmp_path]).methods == ["vgf step_size=0.1", "vgf step_size=0.2"]
    other = changed(task={"env": "other-v0"}, agent={"budget": {"step_size": 0.7}})
    save_run(tmp_path / "other", other)
    save_run(tmp_path / "first", RunConfig())
    assert read_runs([tmp_path / "other", tmp_path / "first"]).methods == ["vgf"]


def test_methods_of_ones_own_have_short_names(tmp_path: Path) -> None:
    save_run(tmp_path / "run", RunConfig())
    (record,) = records(tmp_path / "run")

    def names(*methods: str) -> list[str]:
        return combine([dataclasses.replace(record, method=name) for name in methods]).methods

    assert names("/a/l1.py:L1", "vgf", "pkg.mine:Mine") == ["L1", "vgf", "Mine"]
    assert names("/a/l1.py:L1", "/a/l2.py:L1") == ["l1.py:L1", "l2.py:L1"]
    assert names("/a/l.py:L1", "/b/l.py:L1", "vgf") == ["/a/l.py:L1", "/b/l.py:L1", "vgf"]


@pytest.mark.full
def test_budgets_and_hindsight(tmp_path: Path) -> None:
    """Budgets are a dimension of their own, and the best one is never the headline."""
    for seed in (0, 1):
        save_run(tmp_path / f"{seed}", RunConfig(seed=seed), budgets={0: 0.2, 1: 0.5, 2: 0.9})
    results = read_runs([tmp_path])
    found = compare(results, resamples=20)
    assert found.methods == ["vgf"]
    assert found.over_tasks["vgf"]["mean"].value == pytest.approx(0.5)
    assert found.hindsight["vgf"].value == pytest.approx(0.5)
    assert found.hindsight["vgf"].best == pytest.approx(0.9)
    assert "+40.0" in tables(found)
    every = compare(results, budget="all", resamples=20)
    assert every.methods == ["vgf L=0", "vgf L=1", "vgf L=2"]
    one = compare(results, budget=[2], resamples=20)
    assert (one.methods, one.over_tasks["vgf"]["mean"].value) == (["vgf"], pytest.approx(0.9))
    with pytest.raises(VGFError, match="nothing was evaluated at budget"):
        compare(results, budget=[7])


@pytest.mark.full
def test_absent_runs_are_shown(tmp_path: Path) -> None:
    """Unfinished, failed and not started: in the cell, and by name below."""
    save_run(tmp_path / "a", RunConfig())
    save_run(tmp_path / "b", RunConfig(seed=1), steps=(10_000,))
    found = compare(read_runs([tmp_path]), resamples=20)
    text = tables(found)
    assert "(1/2)" in text
    assert "unfinished: vgf on pointmaze-medium-navigate-task1, seed 1: 10,000 of 20,000" in text
    failed = [
        Record("x", "t", "m", 0, end=5, failure="training diverged"),
        Record("y", "t", "n", 0, end=5, rows=[{"step": 5, "budget": None, "score": 1.0}]),
        Record("z", "t", "o", 0, end=5),
        Record("w", "t", "p", 0, end=5, trained=3),
    ]
    for form in ("terminal", "md", "tex"):
        text = tables(compare(combine(failed), resamples=20), form)
        assert "failed: m on t, seed 0: training diverged" in text.replace("\n% ", " ")
        assert "not started" in text
        assert "not evaluated: p on t, seed 0: 3 of 5 updates made" in text.replace("\n% ", " ")


@pytest.mark.full
def test_a_folder_of_unlike_runs_is_a_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No score is pooled, nothing is drawn, and the terminal is 80 columns wide."""
    save_run(tmp_path / "one-20260101" / "seed-0", RunConfig())
    save_run(tmp_path / "one-20260101" / "seed-1", RunConfig(seed=1))
    save_run(
        tmp_path / "door-human-v2-with-a-long-name-20260101-000000", changed(task={"env": "b"})
    )
    assert main(["report", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "3 runs, which are not seeds of one run" in text
    assert f"vgf compare {tmp_path}" in text
    assert "2 seeds" not in text
    table = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, table)) <= 80
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["report.html"]
    assert main(["report", str(tmp_path / "one-20260101")]) == 0
    assert "2 seeds" in capsys.readouterr().out
    main(["report", str(tmp_path)])
    assert (
        '<a href="one-20260101/seed-0/report.html">' not in (tmp_path / "report.html").read_text()
    )
    main(["report", str(tmp_path / "one-20260101/seed-0")])
    main(["report", str(tmp_path)])
    assert '<a href="one-20260101/seed-0/report.html">' in (tmp_path / "report.html").read_text()


def test_logs_of_other_code(tmp_path: Path) -> None:
    """FQL's eval.csv with its flags.json, and the VGF authors', with a score for each budget."""
    for seed in (0, 1):
        flags = {
            "env_name": "cube-single-play-singletask-v0",
            "seed": seed,
            "offline_steps": 100,
            "online_steps": 0,
            "eval_episodes": 50,
            "agent": {"agent_name": "fql", "alpha": 300},
        }
        place = tmp_path / f"fql/sd{seed:03d}"
        place.mkdir(parents=True)
        (place / "flags.json").write_text(json.dumps(flags))
        (place / "eval.csv").write_text(
            "evaluation/episode.return,evaluation/success,step\n"
            f"-9,0.{seed},1\n-5,0.{seed + 4},100\n"
        )
        place = tmp_path / f"vgf/sd{seed:03d}"
        place.mkdir(parents=True)
        agent = {"agent_name": "avgf", "train_vgf_steps": 1}
        (place / "flags.json").write_text(json.dumps({**flags, "agent": agent}))
        (place / "eval.csv").write_text(
            f"evaluation_0/success,evaluation_1/success,step\n0.1,0.2,1\n0.5,0.{seed + 6},100\n"
        )
    results = read_runs([tmp_path])
    assert (results.kind, results.paired) == ("success", False)
    found = compare(results, resamples=20)
    assert {name: row["mean"].value for name, row in found.over_tasks.items()} == {
        "fql": pytest.approx(0.45),
        "avgf": pytest.approx(0.65),
    }
    assert found.hindsight["avgf"].budgets == {0: pytest.approx(0.5), 1: pytest.approx(0.65)}


def test_tables_of_results(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("env,algo,seed,step,score\na,x,0,10,0.5\na,x,1,10,0.7\na,y,0,10,0.4\n")
    results = read_table(path)
    found = compare(results, resamples=20)
    assert found.cells["x"]["a"].mean is not None
    assert found.cells["x"]["a"].mean.value == pytest.approx(0.6)
    assert not found.paired
    rows = [{"task": "a", "method": "x", "seed": 0, "score": x} for x in (0.1, 0.2)]
    with pytest.raises(VGFError, match="seed 0 twice"):
        gather(rows)
    for text, words in (
        ("task,method,seed\na,x,0\n", "line 2: no score; a row needs task, method, seed, score"),
        ("task,method,seed,score\na,x,zero,1\n", "line 2: seed is 'zero'; it must be a whole"),
        ("task,method,seed,score\na,x,0,high\n", "line 2: score is 'high'; it must be a number"),
        ("task,method,seed,score\n", "has no results"),
    ):
        path.write_text(text)
        with pytest.raises(VGFError, match=words):
            read_table(path)


def test_last_evaluations_at_different_steps_are_refused() -> None:
    rows = [
        {"task": "a", "method": m, "seed": 0, "step": s, "score": 0.5}
        for m, s in (("x", 1), ("y", 2))
    ]
    with pytest.raises(VGFError, match=r"a: the last evaluations are .* x 1, y 2; .*--at STEP"):
        compare(Results(gather(rows)))


@pytest.mark.full
def test_every_form_of_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "--table", str(PUBLISHED), "--every", "50000", "--resamples", "20"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "RLPD has 10 of 30 evaluations" in text
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"comparison.md", "comparison.tex", "comparison.csv", "comparison.json"} <= names
    assert {f"{n}.pdf" for n in ("aggregates", "profiles", "improvement", "curves")} <= names
    tex = (tmp_path / "out/comparison.tex").read_text()
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == tex.count("\\begin{tabular}") == 4
    values = json.loads((tmp_path / "out/comparison.json").read_text())
    assert len(values["tasks"]["QAM"]["scene-play-singletask-task1-v0"]["scores"]) == 12
    assert values["over_tasks"]["QAM"]["IQM"]["low"] is not None
    for wrong, words in (
        (["--at", "70"], "nothing was evaluated after 70 updates; steps are 50,000"),
        (["--methods", "QAN"], "there is no method 'QAN'; did you mean QAM?"),
        (["--baseline", "FQ"], "did you mean FQL?"),
    ):
        assert main([*command, *wrong]) == 2
        assert words in capsys.readouterr().err
    assert main(["compare"]) == 2
    assert main(["compare", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_records_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match="is not a run folder"):
        records(tmp_path)


def test_a_run_without_the_score_that_counts_is_shown_as_missing(tmp_path: Path) -> None:
    """In a table too: NaN, or no row at the last step."""
    path = tmp_path / "table.csv"
    for rows in ("a,x,0,9,1\na,x,1,9,nan\n", "a,x,0,9,1\na,x,1,3,5\n"):
        path.write_text("task,method,seed,step,score\n" + rows)
        text = tables(compare(read_table(path, kind="return"), resamples=10, figures=False))
        assert "1.0 (1/2)" in text
        assert "no score: x on a, seed 1" in text


def test_what_is_not_there_cannot_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("task,method,seed,score\na,x,0,1\na,x,1,2\n")
    with pytest.raises(VGFError, match="nothing was evaluated at budget 7; no budget is named"):
        compare(read_table(path), budget=[7])
    path.write_text("task,method,seed,budget,score\na,x,0,1,1\na,x,0,2,2\n")
    with pytest.raises(VGFError, match="budget 7; there are 1, 2"):
        compare(read_table(path), budget=[1, 7])
    with pytest.raises(VGFError, match="did you mean episodes"):
        combine([Record("r", "a", "x", 0, protocol={"episodes": 3})], allow=["episods"])


def test_a_name_stands_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('task,method,seed,score\na,"x\ny",0,1\n')
    with pytest.raises(VGFError, match=r"line 2: 'x.ny' has a control character"):
        read_table(path)
    np.savez(tmp_path / "table.npz", **{"a|x\ny": np.ones((2, 3))})
    with pytest.raises(VGFError, match="has a control character"):
        read_table(tmp_path / "table.npz")


def test_names_do_not_break_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("task,method,seed,score\na,x|y,0,1\na,x&_{~^\\\\,0,1\n")
    found = compare(read_table(path), resamples=10, figures=False)
    for line in tables(found, "md").splitlines():
        if line.startswith("| task"):
            assert line.replace("\\|", "").count("|") == 4
    latex = tables(found, "tex")
    assert r"x\&\_\{\textasciitilde{}\textasciicircum{}\textbackslash{}\textbackslash{}" in latex

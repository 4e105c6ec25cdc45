"""Test-time scaling, published numbers, the report, and the commands, on made-up records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from needs import SECONDS

from validation import all as all_of_it
from validation import (
    bench,
    budget,
    learning,
    mistakes,
    operators,
    parity,
    protocol,
    published,
    repeats,
    runs,
    scaling,
    toy,
)
from validation import report as reports
from validation.claims import CLAIMS, best_of_n, distance
from validation.experiment import choose, main, run
from validation.pages import Heading, Picture, Points, Table, Text, to_html, to_markdown
from validation.record import RESULTS
from vgf.runs.config import RunConfig
from vgf.runs.folder import create_run_folder
from vgf.runs.log import EVALUATION_COLUMNS, EVALUATIONS, RunLog
from vgf.support.errors import VGFError
from vgf.support.rows import RowLog

SMALL = replace(
    choose(CLAIMS, "best-of-n"),
    setup=best_of_n.Setup(seeds=1, states=4, particles=(4,), backends=("numpy",)),
)


# --- test-time scaling --------------------------------------------------------------------------


def episodes(budgets, success, moved):
    return [
        {
            "budget": budget,
            "episode": i,
            "seed": i,
            "return": -1.0,
            "success": i < success[j],
            "length": 3,
            "displacement": moved[j],
            "w2": moved[j],
        }
        for j, budget in enumerate(budgets)
        for i in range(10)
    ]


def make_run(folder, success=(5, 7, 4), moved=(0.0, 0.2, 0.3), budgets=(0, 1, 2), **config):
    config = RunConfig(**config)
    create_run_folder(folder, config)
    with RunLog(folder, config) as log:
        log.metrics(100, {"critic_loss": 1.0})
        log.evaluations(100, episodes(budgets, success, moved))
    return folder


def add_eval(run_folder, name, budgets, success, moved, step=100):
    place = run_folder / "eval" / name
    place.mkdir(parents=True)
    rows = [{"step": step, **row} for row in episodes(budgets, success, moved)]
    RowLog(place, EVALUATIONS, EVALUATION_COLUMNS).append(rows)


def test_scaling_reads_a_run(tmp_path, capsys):
    folder = make_run(tmp_path / "r")
    assert scaling.main([str(folder), "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "scaling.json").read_text())
    (group,) = record["data"]["groups"]
    assert [score["value"] for score in group["scores"]] == [0.5, 0.7, 0.4]
    assert [score["w2"] for score in group["scores"]] == [0.0, 0.2, 0.3]
    assert "highest at L = 1, 70 %" in record["remarks"][0]
    assert "falls to 40 %" in record["remarks"][0]
    assert (tmp_path / "out" / "scaling.svg").exists()
    assert f"python -m validation.scaling {folder}" in record["command"]
    assert max(map(len, capsys.readouterr().out.splitlines())) <= max(80, len(str(tmp_path)) + 60)


@pytest.mark.parametrize(
    "moved", [(0.0, 0.3, 0.2), (0.0, 0.0, 0.0), (0.0, None, 0.2), (0.1, 0.1, 0.3)]
)
def test_distances_that_do_not_grow_are_called_so(tmp_path, moved):
    group = scaling.read_group(make_run(tmp_path / "r", moved=moved))
    assert [v.holds for v in scaling.judge({"groups": [group]})] == [False, False]
    good = scaling.read_group(make_run(tmp_path / "good"))
    assert [v.holds for v in scaling.judge({"groups": [good, group]})] == [False, False]
    assert [v.holds for v in scaling.judge({"groups": [good]})] == [True, True]


def test_a_flow_at_rest_need_not_move_further():
    assert scaling.grows([0.0, 0.5, 1.0, 0.98])
    assert not scaling.grows([0.0, 0.5, 1.0, 0.9])
    assert not scaling.grows([0.0, 0.5, 0.49, 1.0])
    assert not scaling.grows([0.3])


def test_equal_scores_neither_rise_nor_fall(tmp_path):
    group = scaling.read_group(make_run(tmp_path / "r", success=(0, 0, 0)))
    (remark,) = scaling.remarks({"groups": [group]})
    assert "at every budget" in remark
    assert "fall" not in remark


def test_scaling_takes_the_evaluation_with_the_most_budgets_of_the_last_checkpoint(tmp_path):
    folder = make_run(tmp_path / "r")
    more, numbers, moved = (0, 1, 2, 5), (1, 2, 3, 4), (0.0, 0.1, 0.2, 0.5)
    add_eval(folder, "001", more, (9, 9, 9, 9), moved)
    add_eval(folder, "002", more, numbers, moved)
    add_eval(folder, "003", (0, 1), (0, 0), moved)
    add_eval(folder, "004", (0, 1, 2, 5, 8), (9,) * 5, (0, 1, 2, 3, 4), step=50)
    group = scaling.read_group(folder)
    assert [score["budget"] for score in group["scores"]] == list(more)
    assert [score["value"] for score in group["scores"]] == [0.1, 0.2, 0.3, 0.4]


def test_several_seeds_are_one_panel_and_several_runs_several(tmp_path):
    several = tmp_path / "several"
    for seed in range(3):
        make_run(several / f"seed-{seed}", seed=seed)
    single = make_run(tmp_path / "single")
    setup = scaling.Setup((str(several), str(single), str(single)))
    data = scaling.measure(setup)
    assert [group["scores"][0]["runs"] for group in data["groups"]] == [3, 1, 1]
    scaling.draw(data, tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()


def test_scaling_of_what_is_no_run(tmp_path, capsys):
    assert scaling.main([str(tmp_path / "nothing"), "--out", str(tmp_path)]) == 2
    assert "no such folder; name a run folder" in capsys.readouterr().err
    only = make_run(tmp_path / "bc", budgets=("bc",))
    with pytest.raises(VGFError, match="at no number of flow steps"):
        scaling.read_group(only)
    create_run_folder(tmp_path / "fresh", RunConfig())
    with RunLog(tmp_path / "fresh", RunConfig()) as log:
        log.metrics(1, {"critic_loss": 1.0})
    with pytest.raises(VGFError, match="vgf eval"):
        scaling.read_group(tmp_path / "fresh")


# --- published numbers --------------------------------------------------------------------------


def run_record(folder, name, command, steps=1_000_000, hidden=(512,) * 4, method="avgf", seeds=8):
    agent = {"budget": {"steps": 1}, "critic": {"hidden": list(hidden)}, "method": method}
    row = {"success": "50.0 %", "95 % interval": "40 to 60", "return": "-1"}
    record = {
        "command": command,
        "versions": {"vgf": "0"},
        "revision": None,
        "settings": {"agent": agent, "train": {"steps": steps}},
        "last": [{"budget": "L = 0", **row, "success": "10.0 %"}, {"budget": "L = 1", **row}],
        "seeds": [{}] * seeds,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"run-{name}.json").write_text(json.dumps(record))


def row_of(folder, environment, method):
    data = published.measure(published.Setup(str(folder)))
    return next(
        row for row in data["rows"] if (row["environment"], row["method"]) == (environment, method)
    )


CUBE = "vgf run --env cube-single-play-singletask-task2-v0"


def test_a_full_run_is_comparable_and_a_short_one_is_not(tmp_path):
    run_record(tmp_path / "full", "cube", CUBE)
    assert row_of(tmp_path / "full", "cube-single", "A-VGF")["differences"] == []
    run_record(tmp_path / "short", "cube", f"{CUBE} --data-episodes 100", 20_000, (64,), "vgf", 1)
    found = " ".join(row_of(tmp_path / "short", "cube-single", "A-VGF")["differences"])
    for reason in (
        "100 generated episodes",
        "20,000 updates",
        "networks 64",
        "VGF, not A-VGF",
        "one seed",
    ):
        assert reason in found


def test_a_run_is_held_against_its_own_method_and_benchmark_only(tmp_path):
    antmaze = "vgf run --env antmaze-large-navigate-singletask-task1-v0"
    run_record(tmp_path, "fql", antmaze, method="fql")
    assert row_of(tmp_path, "antmaze-large", "A-VGF")["run"] is None
    run_record(tmp_path, "vgf", antmaze, method="vgf")
    assert row_of(tmp_path, "antmaze-large", "A-VGF")["run"]["name"] == "run-vgf"
    run_record(tmp_path, "cube", "vgf run --env cube-double-play-singletask-task2-v0")
    assert row_of(tmp_path, "cube-double", "VGF")["differences"] == ["1 of 5 tasks"]


def test_runs_of_the_methods_are_held_against_their_own_methods(tmp_path):
    entry = {"mean": 0.5, "low": 0.4, "high": 0.6, "updates": 30_000, "seeds": [0, 1, 2]}
    commands = {"A-VGF": "avgf", "BC, flow": "vgf", "best-of-N": "vgf", "VGF": "vgf"}
    data = {
        "methods": {
            name: {**entry, "command": f"{CUBE} --method {method}"}
            for name, method in commands.items()
        }
    }
    (tmp_path / "methods-cube-single.json").write_text(json.dumps({"data": data}))
    rows = published.measure(published.Setup(str(tmp_path)))["rows"]
    found = {row["run"]["budget"]: row["differences"] for row in rows if row["run"]}
    assert set(found) == {"A-VGF", "VGF"}
    assert "30,000 updates, not 1,000,000" in found["A-VGF"]
    assert "VGF, not A-VGF" in found["VGF"]
    assert "VGF, not A-VGF" not in found["A-VGF"]


def test_published_says_what_was_not_run_and_what_is_not_published(tmp_path):
    run_record(tmp_path / "in", "demo", "vgf run --seeds 10")
    experiment = published.experiment(tmp_path / "in")
    record = run(experiment, tmp_path / "out")
    text = (tmp_path / "out" / "published.md").read_text()
    assert text.count("not run") >= len(published.NUMBERS)
    assert "0 of 22 published numbers can be compared" in record["remarks"][0]
    assert "the paper gives no number" in record["remarks"][1]


@pytest.mark.parametrize("damage", ["{", "{}", '{"command": "vgf run", "last": []}'])
def test_a_damaged_record_of_a_run_is_named(tmp_path, damage):
    (tmp_path / "run-x.json").write_text(damage)
    with pytest.raises(VGFError, match=r"run-x\.json.*record it again"):
        published.measure(published.Setup(str(tmp_path)))


def test_the_recorded_runs_can_be_read():
    data = published.measure(published.Setup())
    assert {"run-demo", "run-cube-single"} <= {run["name"] for run in data["runs"]}


# --- the report ---------------------------------------------------------------------------------


class Links(HTMLParser):
    """Whatever a page would load."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "srcset", "data")]
        if tag in ("link", "script", "iframe"):
            self.sources.append(tag)


def test_the_report_of_nothing_says_not_run(tmp_path):
    reports.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    for name, command in reports.EXPERIMENTS.items():
        assert f"`{command}` makes it" in text, name
    assert text.count(": 0 of 0 hold; ") == 3
    assert f"`{reports.PARITY}` makes it" in text


def test_the_report_holds_the_records_and_needs_no_other_file(tmp_path):
    record = run(SMALL, tmp_path, command="python -m validation.claims best-of-n")
    run_record(tmp_path, "demo", "vgf run --seeds 10")
    equation = {
        "equation": "phi",
        "backend": "numpy",
        "dtype": "float32",
        "device": "cpu",
        "matmul_precision": "float32",
        "agrees": True,
        "ratio": 0.01,
    }
    parity_record = {
        "command": "python -m validation.parity",
        "seconds": 1.0,
        "environment": record["environment"],
        "drift": [],
        "equations": [equation, {**equation, "dtype": "float64", "agrees": False}],
    }
    (tmp_path / "parity-cpu.json").write_text(json.dumps(parity_record))
    reports.write_report(tmp_path)
    text, page = ((tmp_path / f"report.{end}").read_text() for end in ("md", "html"))
    for verdict in record["verdicts"]:
        assert verdict["claim"] in text
        assert verdict["evidence"] in text
    assert "* The paper's claims: 2 of 2 hold; " in text  # parity and speed are counted apart
    assert "* This package's own claims: 0 of 1 hold; " in text
    assert "* This package's goals for its speed: 0 of 0 hold; " in text
    assert "1 of 2 rows agree" in text
    assert "L = 0 is best-of-N" in page
    links = Links()
    links.feed(page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in links.sources)
    assert len(links.sources) == 1
    assert "NO" in re.sub("<[^>]+>", "", page)
    # the same records give the same report
    before = (tmp_path / "report.html").read_bytes()
    reports.write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_nothing_recorded_is_missing_from_the_report():
    """Every page of validation/results is in it, or linked to."""
    text = to_markdown(reports.page(RESULTS))
    for path in RESULTS.glob("*.md"):
        titled = path.read_text().partition("\n")[0].removeprefix("# ")
        assert path.stem == "report" or titled in text or f"({path.name})" in text, path
    for claim in ("an environment that misbehaves is named", "every backend computes the"):
        assert claim in text


def test_a_failed_claim_is_seen_in_the_report(tmp_path):
    experiment = replace(
        choose(CLAIMS, "distance"),
        setup=distance.Setup(seeds=3, particles=4, steps=(0, 1), step_sizes=(0.01, 0.05)),
        measure=lambda setup: distance.measure(setup, lambda *a, **k: _far(*a, **k)),
        draw=None,
    )
    run(experiment, tmp_path)
    reports.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**NO**" in text
    held, of = map(int, re.search(r"paper's claims: (\d+) of (\d+) hold", text).groups())
    assert held < of


def _far(score, a, budget, trajectory):
    return a + 9.0 * (1 + budget.step_size) * (1 + (a[None] * 0 + 1).cumsum(0).repeat(2, 0))


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_record_is_named(tmp_path, damage, capsys):
    (tmp_path / "toy.json").write_text(damage)
    assert reports.main(["--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "toy.json" in error
    assert "delete it and run again" in error


def test_a_report_of_no_folder(tmp_path, capsys):
    assert reports.main(["--out", str(tmp_path / "none")]) == 2
    assert "run an experiment first" in capsys.readouterr().err


def test_pages():
    blocks = [
        Heading("A < B", 1),
        Text("one `two`\n\nthree"),
        Points(["**four**"]),
        Table("five", ("a", "b"), [["x|y", "<z>"]]),
    ]
    text = to_markdown(blocks)
    assert "# A < B\n\none `two`\n\nthree\n\n* **four**\n\nfive:\n\n| a" in text
    assert "x\\|y" in text
    page = to_html(blocks, RESULTS, "title")
    for part in ("<h1>A &lt; B</h1>", "<code>two</code>", "<b>four</b>", "<td>&lt;z&gt;</td>"):
        assert part in page
    assert "![a](name.svg)" in to_markdown([Picture("name", "a", "caption")])


# --- the commands -------------------------------------------------------------------------------

MAINS = {
    "claims": lambda words: main(CLAIMS, "claims", "doc", words),
    "toy": lambda words: main((toy.TOY,), "toy", toy.__doc__, words),
    "scaling": scaling.main,
    "published": published.main,
    "report": reports.main,
    "all": all_of_it.main,
    "parity": parity.main,
    "mistakes": mistakes.main,
    "runs": runs.main,
    # its environments are gymnasium's
    "faults": lambda words: pytest.importorskip("validation.faults.__main__").main(words),
}


@pytest.mark.parametrize("name", MAINS)
def test_help_fits_a_terminal(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        MAINS[name](["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m validation.{name}" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_modules_are_commands():
    for module in ("claims", "all"):
        done = subprocess.run(
            [sys.executable, "-m", f"validation.{module}", "--help"],
            capture_output=True,
            text=True,
            check=True,
            cwd=RESULTS.parents[1],
            timeout=SECONDS,
        )
        assert done.stdout.startswith(f"usage: python -m validation.{module}")


def test_a_mistyped_claim_runs_nothing(tmp_path, capsys):
    assert MAINS["claims"](["modes", "boltzman", "--out", str(tmp_path)]) == 2
    assert "boltzman is not an experiment; did you mean boltzmann?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_redraw_without_a_record(tmp_path, capsys):
    assert MAINS["claims"](["modes", "--redraw", "--out", str(tmp_path)]) == 2
    assert "run the experiment first" in capsys.readouterr().err


def test_the_exit_status_says_that_a_claim_does_not_hold(tmp_path, capsys):
    bad = replace(SMALL, judge=lambda data: [replace(best_of_n.judge(data)[0], holds=False)])
    assert main((bad,), "claims", "doc", ["--out", str(tmp_path)]) == 1
    assert "  NO  at L = 0" in capsys.readouterr().out
    assert main((SMALL,), "claims", "doc", ["--out", str(tmp_path)]) == 0


def test_all_goes_on_past_what_cannot_be_run(tmp_path, capsys, monkeypatch):
    def refuse(setup):
        raise VGFError("no such package")

    monkeypatch.setattr(all_of_it, "CLAIMS", (replace(SMALL, measure=refuse),))
    monkeypatch.setattr(all_of_it, "TOY", replace(SMALL, name="toy"))
    monkeypatch.setattr(all_of_it.parity, "main", lambda words: 1)
    folder = make_run(tmp_path / "r")
    words = ["--out", str(tmp_path / "out"), "--runs", str(folder)]
    assert all_of_it.main(words) == 1
    shown = capsys.readouterr()
    assert "best-of-n could not be run: no such package" in shown.err
    assert "does not hold: parity" in shown.out
    names = {path.stem for path in (tmp_path / "out").glob("[!rm]*.json")}
    recorded = {"online", "sources", "language", "smollm2", "precision", "authors"}
    recorded |= {f"language-{part}" for part in ("bridge", "cost", "memory")}
    recorded |= {experiment.name for experiment in (*budget.EXPERIMENTS, *operators.EXPERIMENTS)}
    recorded |= {f"learning-{setup.task}" for setup in learning.SETUPS}
    recorded |= {f"bench-{kind}" for kind in bench.KINDS_OF_MACHINE}
    recorded |= {f"protocol-{setup.name}" for setup in protocol.SETUPS}
    recorded |= {f"repeats-{setup.name}" for setup in repeats.SETUPS}
    assert names - recorded == {"toy", "scaling", "published"}
    assert "not run" in (tmp_path / "out" / "report.md").read_text()


def test_an_interrupt_is_not_a_traceback(tmp_path, capsys):
    def interrupted(setup):
        raise KeyboardInterrupt

    stopped = replace(SMALL, measure=interrupted)
    assert main((stopped,), "claims", "doc", ["--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped\n"

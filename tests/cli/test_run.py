"""The `vgf` command, as a person at a terminal uses it: what it leaves, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from needs import SECONDS, need

from vgf import cli
from vgf.backends import missing_packages
from vgf.benchmarks import ogbench
from vgf.runs import agent, updates
from vgf.runs import loop as train
from vgf.runs.checkpoint import list_steps, load_checkpoint
from vgf.runs.config import RunConfig
from vgf.runs.resolve import load_config
from vgf.support.errors import VGFError
from vgf.support.files import programs_folder
from vgf.support.rows import read_rows
from vgf.support.settings_tree import override

need("ogbench")

TINY = [
    "--data-episodes",
    "2",
    "--backend",
    "numpy",
    "--steps",
    "20",
    "--batch-size",
    "8",
    "--log-every",
    "5",
    "--evaluate-every",
    "10",
    "--checkpoint-every",
    "10",
    "--episodes",
    "2",
    "--evaluation-steps",
    "0",
    "2",
    "--critic-hidden",
    "8",
    "--reference-hidden",
    "8",
    "--gradient-field-hidden",
    "8",
]
# Run as a command; Ctrl-C is heard even where the tests run in the background.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from vgf.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny data."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run; not to be changed. Its data are made, whatever the home folder has."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ogbench, "DEFAULT_FOLDER", data)
        assert vgf("run", *TINY, "--data-dir", str(data), "--out", str(folder)) == 0
    return folder


def vgf(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


def arrays(folder: Path, step: int = 20) -> bytes:
    return (folder / f"checkpoints/step-{step:09d}/state.safetensors").read_bytes()


def logs(folder: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The rows of metrics, without the seconds, and of evaluations."""
    metrics = [dict(row) for row in read_rows(folder / "metrics.jsonl")]
    for row in metrics:
        del row["seconds"]
    return metrics, [dict(row) for row in read_rows(folder / "evaluations.jsonl")]


def assert_equal_runs(got: Path, expected: Path) -> None:
    assert arrays(got) == arrays(expected)
    assert load_checkpoint(got)[1] == load_checkpoint(expected)[1]
    assert logs(got) == logs(expected)
    assert (got / "evaluations.csv").read_bytes() == (expected / "evaluations.csv").read_bytes()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with status 2 and one line; returns the line."""

    def check(*words: str | Path) -> str:
        capsys.readouterr()
        status = vgf(*words)
        error = re.sub("generating .*\n", "", capsys.readouterr().err)
        assert status == 2, error
        assert re.fullmatch(r"error: [^\n]+\n", error), error
        return error

    return check


# --- run -----------------------------------------------------------------------------------------


def test_what_a_run_leaves(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.toml",
        "environment.json",
        "checkpoints",
        "report.html",
        *("flow.json", "flow.png", "flow.svg", "episode.gif"),
        *(f"{name}.{kind}" for name in ("metrics", "evaluations") for kind in ("csv", "jsonl")),
        *(
            f"{name}.{kind}"
            for name in ("learning", "scaling", "losses")
            for kind in ("png", "svg")
        ),
    }
    metrics, evaluations = logs(run)
    assert [row["step"] for row in metrics] == [5, 10, 15, 20]
    assert [(row["step"], row["budget"], row["episode"]) for row in evaluations] == [
        (step, budget, episode)
        for step in (10, 20)
        for budget in ("bc", 0, 2)
        for episode in (0, 1)
    ]
    assert list_steps(run) == [10, 20]
    config = load_config(run / "config.toml")
    assert (config.backend.name, config.backend.dtype) == ("numpy", "float64")
    start = json.loads((run / "environment.json").read_text())[0]
    assert {"vgf", "numpy", "python"} <= set(start["versions"])


def test_budgets_share_start_states_and_only_flow_steps_move(run: Path) -> None:
    _, rows = logs(run)
    seeds = {budget: [r["seed"] for r in rows if r["budget"] == budget] for budget in ("bc", 0, 2)}
    assert seeds["bc"] == seeds[0] == seeds[2]
    assert all((row["w2"] == 0) == (row["budget"] in ("bc", 0)) for row in rows)


@pytest.mark.slow
@pytest.mark.full
def test_the_same_seed_gives_the_same_files(run: Path, data: Path, tmp_path: Path) -> None:
    assert vgf("run", *TINY, "--data-dir", data, "--out", tmp_path / "again") == 0
    assert_equal_runs(tmp_path / "again", run)
    again, first = (snapshot(folder) for folder in (tmp_path / "again", run))
    timed = {"config.toml", "environment.json", "metrics.csv", "metrics.jsonl", "report.html"}
    assert {key for key in first if again.get(key) != first[key]} <= timed
    assert vgf("run", *TINY, "--data-dir", data, "--seed", "1", "--out", tmp_path / "other") == 0
    assert arrays(tmp_path / "other") != arrays(run)


@pytest.mark.full
def test_a_run_is_made_again_from_its_config_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VGF_BACKEND", "no such backend")
    assert vgf("run", "--config", run / "config.toml", "--out", "again") == 0
    assert_equal_runs(tmp_path / "again", run)


@pytest.mark.slow
@pytest.mark.full
def test_environments_in_other_processes_change_nothing(
    run: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "workers"
    assert vgf("run", *TINY, "--workers", "2", "--data-dir", data, "--out", folder) == 0
    assert_equal_runs(folder, run)


@pytest.mark.slow
@pytest.mark.full
def test_several_seeds(
    run: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refused: Callable[..., str],
) -> None:
    folder = tmp_path / "several"
    assert vgf("run", *TINY, "--seeds", "2", "--data-dir", data, "--out", folder) == 0
    assert "2 seeds" in capsys.readouterr().out
    assert_equal_runs(folder / "seed-0", run)
    assert arrays(folder / "seed-1") != arrays(run)
    assert load_config(folder / "config.toml").seeds == 2
    assert load_config(folder / "seed-1/config.toml").seed == 1
    assert "seed-1" in (folder / "report.html").read_text()
    assert "evaluate one of them: seed-0, seed-1" in refused("eval", folder)
    # one finished, one cut back to its first checkpoint, and then one that is not there
    expected = arrays(folder / "seed-1")
    kept = snapshot(folder / "seed-0")
    shutil.rmtree(folder / "seed-1/checkpoints/step-000000020")
    assert vgf("run", "--resume", folder) == 0
    assert arrays(folder / "seed-1") == expected
    shutil.rmtree(folder / "seed-1")
    assert vgf("run", "--resume", folder) == 0
    assert arrays(folder / "seed-1") == expected
    assert snapshot(folder / "seed-0") == kept


# --- stopping and going on -----------------------------------------------------------------------


@pytest.mark.full
def test_a_split_run_equals_a_straight_one(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints/step-000000020")  # as a crash after update 10 leaves it
    assert vgf("run", "--resume", folder) == 0
    assert_equal_runs(folder, run)
    assert len(json.loads((folder / "environment.json").read_text())) == 2


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_split_run_of_another_backend(data: Path, tmp_path: Path, backend: str) -> None:
    """A-VGF, whose clipped gradients are summed over all arrays."""
    need(backend)
    words = [*TINY, "--backend", backend, "--steps", "4", "--checkpoint-every", "2"]
    words += ["--episodes", "1", "--evaluation-steps", "1", "--method", "avgf"]
    words += ["--eager"] if backend == "torch" else []
    folder, split = tmp_path / "straight", tmp_path / "split"
    assert vgf("run", *words, "--data-dir", data, "--out", folder) == 0
    shutil.copytree(folder, split)
    shutil.rmtree(split / "checkpoints/step-000000004")
    assert vgf("run", "--resume", split) == 0
    assert arrays(split, 4) == arrays(folder, 4)
    assert logs(split) == logs(folder)


@pytest.mark.slow
@pytest.mark.full
def test_a_run_without_a_checkpoint_starts_again(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "early"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints")
    assert vgf("run", "--resume", folder) == 0
    assert_equal_runs(folder, run)


@pytest.mark.full
def test_resuming_a_finished_run_changes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "finished"
    shutil.copytree(run, folder)
    before = snapshot(folder)
    capsys.readouterr()
    assert vgf("run", "--resume", folder) == 0
    assert "is finished: 20 updates" in capsys.readouterr().out
    assert {key for key, text in snapshot(folder).items() if before.get(key) != text} == {
        "report.html"  # it names the folder, which is a copy
    }


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("where", ["update", "evaluation"])
def test_ctrl_c_anywhere_loses_nothing(
    run: Path,
    data: Path,
    tmp_path: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C in every kind of update: plain, logged, evaluated, kept, the last; and in each
    evaluation. Evaluations and checkpoints do not fall together here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    flags = [
        *TINY,
        "--evaluate-every",
        "8",
        "--checkpoint-every",
        "6",
        "--episodes",
        "1",
        "--data-dir",
        str(data),
    ]
    straight, folder = tmp_path / "straight", tmp_path / "stopped"
    assert vgf("run", *flags, "--out", straight) == 0
    calls = 0
    where_from, name = (updates, "batch_rows") if where == "update" else (agent, "evaluate")
    real = getattr(where_from, name)

    def pressed(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        # before chosen updates, or in every evaluation but the repeated ones
        chosen = args[1] in (2, 4, 5, 7, 11, 19) if where == "update" else calls % 2
        if chosen:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **options)

    monkeypatch.setattr(where_from, name, pressed)
    try:
        status = vgf("run", *flags, "--out", folder)
        stops = 0
        while status == 130:
            error = capsys.readouterr().err.splitlines()[-1]
            assert re.fullmatch(r"stopped after \d+ updates; .* vgf run --resume .*", error)
            stops += 1
            load_checkpoint(folder)
            status = vgf("run", "--resume", folder)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, stops) == (0, 6 if where == "update" else 3)
    assert_equal_runs(folder, straight)


def interrupt(words: list[str], until: Callable[[], bool], home: Path) -> tuple[int, str]:
    """Start a command of its own, press Ctrl-C once `until` holds; its status and stderr.

    Its home folder is an empty one, so that it finds no data there.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "HOME": str(home)},
    )
    deadline = time.monotonic() + SECONDS
    while not until() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if process.poll() is not None:
        raise AssertionError(f"ended by itself: {process.communicate()[1]}")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole group
    _, error = process.communicate(timeout=SECONDS)
    return process.returncode, error


def test_ctrl_c_from_a_terminal(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["run", *TINY, "--steps", "1000000", "--workers", "1", "--data-dir", str(data)]
    status, error = interrupt(
        [*words, "--evaluate-every", "1000000", "--out", str(folder)],
        lambda: (folder / "checkpoints").exists(),
        tmp_path,
    )
    assert status == 130
    assert error.splitlines()[-1].endswith(f"updates; continue with: vgf run --resume {folder}")
    assert "Traceback" not in error
    load_checkpoint(folder)


def test_ctrl_c_before_the_first_update_leaves_nothing(tmp_path: Path) -> None:
    words = ["run", *TINY, "--data-episodes", "1000", "--data-dir", str(tmp_path / "data")]
    status, error = interrupt(
        [*words, "--out", str(tmp_path / "run")], (tmp_path / "data/generated").exists, tmp_path
    )
    assert status == 130
    assert error.splitlines()[-1] == "stopped before any run folder was made"
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
    # Finished episodes may be kept; nothing has the name of a data set.
    left = [entry.name for entry in (tmp_path / "data/generated").iterdir()]
    assert all(name.startswith(".making-") for name in left)


# --- eval and report -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_eval_on_another_backend(
    run: Path, tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need(backend)
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = snapshot(folder)
    words = ["--steps", "0", "5", "--particles", "7", "--episodes", "3", "--checkpoint", "10"]
    assert vgf("eval", folder, *words, "--backend", backend, "--dtype", "float64") == 0
    place = folder / "eval/001"
    rows = read_rows(place / "evaluations.jsonl")
    assert [(r["step"], r["budget"], r["episode"]) for r in rows] == [
        (10, budget, episode) for budget in ("bc", 0, 5) for episode in range(3)
    ]
    assert (place / "scaling.png").stat().st_size > 1000
    facts = json.loads((place / "environment.json").read_text())
    assert facts["evaluation"]["particles"] == 7
    assert facts["backend"]["name"] == backend
    after = snapshot(folder)
    assert {key: after[key] for key in before} == before
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines()[:-1])
    assert vgf("eval", folder, *words, "--backend", "numpy") == 0  # the same numbers
    for got, expected in zip(rows, read_rows(folder / "eval/002/evaluations.jsonl"), strict=True):
        for name in ("budget", "seed", "success", "length", "return"):
            assert got[name] == expected[name]
        np.testing.assert_allclose(float(got["w2"] or 0), float(expected["w2"] or 0), atol=1e-6)


@pytest.mark.full
def test_eval_as_in_training_repeats_its_numbers(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    assert vgf("eval", folder) == 0
    trained = [row for row in logs(folder)[1] if row["step"] == 20]
    assert read_rows(folder / "eval/001/evaluations.jsonl") == trained


@pytest.mark.full
def test_an_eval_that_fails_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = snapshot(folder)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vgf.runs.report.save_scaling", stop)
        assert vgf("eval", folder) == 130
    with monkeypatch.context() as patch:
        patch.setattr("vgf.runs.evaluation.wasserstein2", stop)
        assert vgf("eval", folder) == 130
    assert snapshot(folder) == before
    assert not list(folder.glob("eval/.writing*"))


@pytest.mark.full
def test_report_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    capsys.readouterr()
    (folder / "report.html").unlink()
    assert vgf("report", folder) == 0
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    out = capsys.readouterr().out
    assert "last evaluation" in out
    assert all(len(line) <= 80 for line in out.splitlines()[:-1])


# --- bad input -----------------------------------------------------------------------------------

BAD = [
    (["--env", "cube-singel-play-singletask-task2-v0"], "did you mean cube-single-play"),
    (["--env", "../../etc/passwd"], "is unknown"),
    (["--env", "antmaze-large-navigate-v0"], "single tasks"),
    (["--backend", "tensorflow"], "'tensorflow'; choose one of numpy, torch, jax"),
    (["--batchsize", "3"], "did you mean --batch-size?"),
    (["--batch-size", "many"], "'many' is not a whole number"),
    (["--batch-size", "0"], "--batch-size is 0; it must be 1 or more"),
    (["--discount", "1.5"], "discount is 1.5"),
    (["--dtype", "float64", "--matmul-precision", "bf16"], "contradicts --dtype 'float64'"),
    (["--method", "avgf", "--value-ensemble", "min"], "--value-ensemble 'min'"),
    (["--normalise-gradients"], "--normalise-gradients belongs to method avgf"),
    (
        ["--distillation", "3"],
        "--distillation belongs to method fql, and this run's is vgf; drop it, or add",
    ),
    (["--method", "bc", "--weight-maximum", "3"], "--weight-maximum belongs to method weighted_bc"),
    (["--workers", "9"], "workers 9 is more than the 2 environments"),
    (["--evaluation-steps", "1", "1"], "names a test budget twice"),
    (["--device", "gpu"], "backend 'numpy' runs on the CPU"),
    (["--device", "tpu"], "device 'tpu' is unknown"),
    (["--config", "absent.toml"], "absent.toml: no such file"),
    (["--seed", "-1"], "--seed is -1"),
    (["--action-repeat", "2", "--env", "cube-single-play-singletask-v0"], "is for pointmaze"),
    (["--resume", "absent"], "--resume continues with the run's own settings"),
    (["word"], "word is unknown"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_flags(
    words: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--out", str(tmp_path / "new/run"), "--data-dir", str(data)]
    assert message in refused("run", *TINY, *out, *words)
    assert not list(tmp_path.iterdir())
    for seeds in ("1", "2"):
        assert message in refused("run", *TINY, *out, "--seeds", seeds, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "did you mean run?"),
        (["eval"], "required: RUN"),
        (["eval", "absent"], "absent: no such run folder"),
        (["eval", "."], "is not a run folder"),
        (["report", "."], "is not a run folder"),
        (["report", "absent"], "no such folder"),
        (["run", "--resume", "absent"], "absent: no such run folder"),
        (["run", "--resume", "."], "is not a run folder"),
        (["backends", "--all"], "--all is unknown"),
    ],
)
def test_bad_words(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert not list(tmp_path.iterdir())


def test_a_nul_is_refused_wherever_it_comes_from(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    for command in cli.COMMANDS:
        assert "NUL" in refused(command, "--out", "a\0b")
    for text in ('[task]\ndata = "a\\u0000b"\n', 'tasks = ["a\\u0000b"]\n', '"a\\u0000b" = 1\n'):
        path = tmp_path / "odd.toml"
        path.write_text(text)
        for words in (["run", "--config"], ["sweep"], ["check", "--mapping"]):
            assert f"{path}: 'a\\x00b' has a NUL" in refused(*words, path)
    path.write_text('"a\\nb" = 1\n')
    assert r"'a\nb' has a control character" in refused("sweep", path)
    path.write_text('methods = "vgf"\nseeds = 1\ntasks = ["a\\nb"]\n')
    assert r"tasks: 'a\nb' has a control character" in refused("sweep", path)
    with pytest.raises(VGFError, match=r"out is 'a.x00b'; it must be text.* without a NUL"):
        override(RunConfig(), {"out": "a\0b"}, "here")


def test_what_is_not_printable_is_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    cli.complain("error: a\x1b[31mb\ud800\u202e é\nnext")
    assert capsys.readouterr().err == "error: a\\x1b[31mb\\ud800\\u202e é\nnext\n"


def test_a_process_that_a_signal_stopped_is_not_torn_down(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(BaseException):
        pass

    def stopped(words: list[str]) -> int:
        raise KeyboardInterrupt

    def leave(status: int) -> None:
        raise Left(status)

    monkeypatch.setattr(cli.importlib, "import_module", lambda *_: SimpleNamespace(main=stopped))
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["vgf", "backends"])
    with pytest.raises(Left, match="130"):
        cli.main()
    assert cli.main(["backends"]) == 130


def test_a_library_that_cannot_be_loaded_is_named(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> Callable[..., None]:
        def load(*words: str) -> None:
            raise ImportError("libx.so: failed to map segment\nfrom shared object", name=name)

        return load

    monkeypatch.setattr(cli.importlib, "import_module", fails("PIL"))
    assert "loaded: libx.so: failed to map segment from shared object" in refused("backends")
    monkeypatch.setattr(cli.importlib, "import_module", fails("vgf.runs"))
    with pytest.raises(ImportError):  # a fault of this package
        cli.main(["backends"])


def test_places_that_cannot_be_made(
    data: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "load_task", lambda *_: pytest.fail("too late"))
    (tmp_path / "file").write_text("kept")
    for out in ("file", "."):
        assert "choose another --out" in refused("run", *TINY, "--out", tmp_path / out)
    for seeds in ("1", "2"):
        words = ["run", *TINY, "--seeds", seeds, "--data-dir", data]
        assert "file is not a folder" in refused(*words, "--out", tmp_path / "file/run")
    assert snapshot(tmp_path) == {"file": b"kept"}


def test_a_missing_extra_is_named_before_anything_is_written(
    data: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ["run", *TINY, "--wandb", "--data-dir", data, "--out", tmp_path / "run"]
    assert "pip install 'vgf[wandb]'" in refused(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_a_run_that_fails_before_its_first_update_leaves_nothing(
    data: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vgf.support.errors import VGFError

    def fail(*_: object) -> None:
        raise VGFError("no update; get one")

    monkeypatch.setattr(updates, "batch_rows", fail)
    for seeds in ("1", "2"):
        words = ["run", *TINY, "--seeds", seeds, "--data-dir", data, "--out", tmp_path / "run"]
        assert "no update; get one" in refused(*words)
        assert not list(tmp_path.iterdir())


def test_what_eager_would_give_is_said_before_compiling(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("torch")
    from vgf.backends.torch import TorchBackend

    words = ["run", *TINY, "--backend", "torch", "--eager", "--steps", "4", "--data-dir", data]
    assert vgf(*words, "--out", tmp_path / "plain") == 0
    assert "compiling" not in capsys.readouterr().out
    monkeypatch.setattr(TorchBackend, "compiles_first", True)
    assert vgf(*words, "--out", tmp_path / "said") == 0
    said = re.findall("compiling .* --eager .* ([0-9.e+]+) updates a", capsys.readouterr().out)
    assert len(said) == 1
    assert float(said[0]) > 0
    assert arrays(tmp_path / "said", 4) == arrays(tmp_path / "plain", 4)


def test_threads_of_others_do_not_keep_a_command_alive():
    code = (
        "import sys, threading; from vgf import cli; cli.THREAD_SECONDS = 0.2, 0.3; "
        "threading.Thread(target=threading.Event().wait, name='simulator').start(); "
        "sys.argv = ['vgf', '--version']; sys.exit(cli.main())"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.startswith("vgf ")
    said = "done; waiting for threads that still run, at most 0 s: simulator\n"
    assert done.stderr == said


@pytest.mark.usefixtures("run")  # the run makes the data
def test_data_of_other_shapes(tmp_path: Path, data: Path, refused: Callable[..., str]) -> None:
    file = next(path for path in (data / "generated").glob("*.npz") if "-val" not in path.name)
    with np.load(file) as found:
        arrays = {**found, "observations": np.zeros((len(found["actions"]), 5), np.float32)}
    (tmp_path / "generated").mkdir()
    np.savez(tmp_path / "generated" / file.name, **arrays)
    words = ["run", *TINY, "--data-dir", tmp_path, "--out", tmp_path / "run"]
    assert "observations has shape [252, 5], expected [252, 2]" in refused(*words)
    (tmp_path / "generated" / file.name).write_bytes(b"cut off")
    assert "is not a complete .npz file" in refused(*words)
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_checkpoints_that_do_not_serve(
    run: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    last = folder / "checkpoints/step-000000020"
    for step in ("-1", "15"):
        message = refused("eval", folder, "--checkpoint", step)
        assert f"no checkpoint of step {step}; it has 10, 20" in message

    text = (folder / "config.toml").read_text()

    def edited(old: str, new: str) -> list[str]:
        assert old in text
        (folder / "config.toml").write_text(text.replace(old, new))
        messages = []
        for words in (["run", "--resume", folder], ["eval", folder]):
            before = snapshot(folder)
            messages.append(refused(*words))
            assert snapshot(folder) == before
        (folder / "config.toml").write_text(text)
        return messages

    shutil.move(last, tmp_path / "kept")
    for message in edited("singletask-task1", "singletask-task2"):
        assert "the checkpoint is of task pointmaze-medium-navigate-singletask-task1-v0" in message
    for message in edited("    8,\n", "    9,\n"):
        assert "but these settings need" in message
    (folder / "config.toml").write_text(text.replace("discount = 0.98", "discount = 0.5"))
    assert "its [agent] is not what the checkpoint" in refused("run", "--resume", folder)
    (folder / "config.toml").write_text(text.replace("data_episodes = 2", "data_episodes = 3"))
    assert "is not the data that" in refused("run", "--resume", folder)
    (folder / "config.toml").write_text(text)
    shutil.move(tmp_path / "kept", last)

    weights = (last / "state.safetensors").read_bytes()
    (last / "state.safetensors").write_bytes(weights[:-1] + b"x")
    before = snapshot(folder)
    assert "to resume from step 10" in refused("eval", folder, "--checkpoint", "20")
    (last / "state.json").write_text('{"format": "vgf checkpoint", "version": 1, "step": "x"}')
    assert "state.json is damaged" in refused("eval", folder, "--checkpoint", "20")
    (last / "state.json").write_bytes(before["checkpoints/step-000000020/state.json"])
    assert snapshot(folder) == before


@pytest.mark.full
def test_a_damaged_last_checkpoint_is_made_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    weights = folder / "checkpoints/step-000000020/state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert vgf("run", "--resume", folder) == 0
    assert "step-000000020/state.safetensors is damaged" in capsys.readouterr().out
    assert_equal_runs(folder, run)


@pytest.mark.parametrize(
    ("old", "new"), [("batch_size = 8", "batch_size = 9"), ("seed = 0\n", "seed = 1\n")]
)
def test_settings_that_decide_results_are_kept(
    run: Path, tmp_path: Path, refused: Callable[..., str], old: str, new: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints/step-000000020")
    text = (folder / "config.toml").read_text()
    assert text.count(old) == 1
    (folder / "config.toml").write_text(text.replace(old, new))
    assert "undo the change, or start a new run" in refused("run", "--resume", folder)


# --- at the terminal -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "run", "eval", "report", "presets", "backends"])
def test_help_fits_a_screen(command: str) -> None:
    words = [*command.split(), "--help"]
    done = subprocess.run(
        [sys.executable, "-c", START, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
        timeout=SECONDS,
    )
    lines = done.stdout.splitlines()
    assert 3 < len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_help_imports_little() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from vgf.cli import main\n"
        "for name in ('run', 'eval', 'report', 'presets', 'align', 'judge', 'backends'):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([name, '--help'])\n"
        "heavy = {'torch', 'jax', 'matplotlib', 'gymnasium', 'mujoco', 'tqdm', 'transformers'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)


@pytest.mark.full
def test_compilations_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """JAX is told where, before it is imported; its own variables win, and it can be left alone."""
    place = "JAX_COMPILATION_CACHE_DIR"
    code = (
        "import os, jax, jax.numpy as jnp\n"
        f"assert jax.config.jax_compilation_cache_dir == os.environ.get({place!r})\n"
        "work = lambda x: jnp.linalg.svd(jnp.sort(x @ x.T))[1].sum()\n"
        "jax.jit(jax.grad(work))(jnp.ones((8, 8)))\n"
    )
    with monkeypatch.context() as patch:
        patch.setenv("VGF_CACHE_DIR", str(tmp_path))
        patch.delenv(place, raising=False)
        cli.keep_compilations()  # switched off, as in all tests
        assert place not in os.environ
        patch.delenv("VGF_COMPILATION_CACHE")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        cli.keep_compilations()
        folder = Path(os.environ.pop(place))
        patch.setenv(place, str(folder))
        assert folder.parent == tmp_path / "jax"
        assert programs_folder("jax") == folder
        if not missing_packages("jax"):
            subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)
            assert any(folder.iterdir())
        patch.setenv(place, "elsewhere")
        cli.keep_compilations()
        assert os.environ[place] == "elsewhere"


def test_warnings_of_ours_are_lines_of_text() -> None:
    usual = warnings.formatwarning
    with cli._plain_warnings():
        ours = warnings.formatwarning("it is slow", UserWarning, cli.__file__, 3, None)
        theirs = warnings.formatwarning("it is slow", UserWarning, __file__, 3, None)
    assert ours == "warning: it is slow\n"
    assert theirs == usual("it is slow", UserWarning, __file__, 3, None)
    assert warnings.formatwarning is usual


def test_backends_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert vgf("backends") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("numpy", "torch", "jax", "default here"))
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.full
def test_a_log_has_no_control_characters(data: Path, tmp_path: Path) -> None:
    words = ["run", *TINY, "--data-dir", str(data), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", START, *words], capture_output=True, check=True, timeout=SECONDS
    )
    text = done.stdout + done.stderr
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert len(text.splitlines()) < 60


@pytest.mark.slow
@pytest.mark.full
def test_a_terminal_of_80_columns(data: Path, tmp_path: Path) -> None:
    words = ["run", *TINY, "--data-dir", str(data), "--out", str(tmp_path / "r")]
    main_end, end = pty.openpty()
    subprocess.run(["stty", "cols", "80", "rows", "24"], stdin=end, check=True, timeout=SECONDS)
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words], stdin=end, stdout=end, stderr=end, env=environment
    )
    os.close(end)
    shown = b""
    try:
        while part := os.read(main_end, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=SECONDS) == 0
    text = shown.decode()
    assert "training:" in text
    assert "evaluating:" in text
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).replace("\r\n", "\n")
    long = [part for line in lines.split("\n") for part in line.split("\r") if len(part) > 80]
    assert [part for part in long if "/" not in part] == []  # a path is as long as it is

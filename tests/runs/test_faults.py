"""What stops a run, and what must not: signals, NaN, a second writer, seeds that fail."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from needs import need

need("gymnasium")

from validation.faults import environments, fuzzing, killing, resources
from vgf.runs import loop
from vgf.runs.agent import load_agent
from vgf.runs.checkpoint import list_steps, load_checkpoint, remove_checkpoint, save_checkpoint
from vgf.runs.folder import create_run_folder
from vgf.runs.loop import train, train_together
from vgf.runs.reading import read_run
from vgf.runs.updates import FailedRuns
from vgf.support import locks
from vgf.support.errors import VGFError
from vgf.support.files import remove_left_behind

# kinds of files of which a hundred take seconds to read
SECONDS_LONG = ("tables of results, compared", "exported agent", "agent of other code")


def quiet(line: str) -> None:
    pass


def prepared(folder: Path, **changes: Any) -> tuple[Any, Any]:
    config = killing.configuration(folder, "numpy", "offline")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    return config, loop.prepare(config)


def test_an_evaluation_that_fails_loses_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ready = prepared(tmp_path)
    whole = train(config, tmp_path / "whole", say=quiet, prepared=ready)
    real = loop.evaluate_agent

    def fails(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("a fault of any kind")

    monkeypatch.setattr(loop, "evaluate_agent", fails)
    with pytest.raises(RuntimeError):
        train(config, tmp_path / "run", say=quiet, prepared=ready)
    assert list_steps(tmp_path / "run") == [5, 8]  # 8 with its evaluation due
    assert load_checkpoint(tmp_path / "run", 8)[1].extra["evaluation_due"]
    monkeypatch.setattr(loop, "evaluate_agent", real)
    train(config, tmp_path / "run", resume=True, say=quiet, prepared=ready)
    left = killing.left_in(whole), killing.left_in(tmp_path / "run")
    assert killing.difference(*left) == ""


def diverging(monkeypatch: pytest.MonkeyPatch, seed: int, at: int) -> None:
    """Let one seed's weights become NaN at an update."""
    from vgf.runs.updates import Batches

    real = Batches.update

    def update(self: Batches, requests: Any, count: int) -> Any:
        replies = real(self, requests, count)
        for request, reply in zip(requests, replies, strict=True):
            if request and request.seed == seed and request.step + reply.count >= at:
                weights = reply.state["critic"]["hidden_0"]["kernel"]
                reply.state["critic"]["hidden_0"]["kernel"] = np.full_like(weights, np.nan)
        return replies

    monkeypatch.setattr(Batches, "update", update)


def test_nan_is_never_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ready = prepared(tmp_path, log_every=1000)
    diverging(monkeypatch, 0, 7)
    words = r"critic/hidden_0/kernel.* not finite after 8 updates; lower --learning.*step 5 is good"
    with pytest.raises(VGFError, match=words):
        train(config, tmp_path / "run", say=quiet, prepared=ready)
    assert list_steps(tmp_path / "run") == [5]


def test_the_likely_cause_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, ready = prepared(tmp_path, log_every=1000)
    task = ready[2]
    large = dataclasses.replace(task.dataset, rewards=task.dataset.rewards * np.float32(1e20))
    diverging(monkeypatch, 0, 3)
    changed = (ready[0], ready[1], dataclasses.replace(task, dataset=large))
    with pytest.raises(VGFError, match=r"rewards of up to \S+e\+\d+ are the likely cause"):
        train(config, tmp_path / "run", say=quiet, prepared=changed)


@pytest.mark.full
def test_healthy_seeds_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, ready = prepared(tmp_path)
    runs = {tmp_path / f"s{s}": dataclasses.replace(config, seed=s) for s in range(3)}
    diverging(monkeypatch, 1, 7)
    with pytest.raises(FailedRuns) as caught:
        train_together(runs, say=quiet, prepared=ready)
    assert list(caught.value.errors) == [1]
    assert [list_steps(folder)[-1] for folder in runs] == [24, 5, 24]


def test_one_writer(tmp_path: Path) -> None:
    config, ready = prepared(tmp_path)
    folder = train(config, tmp_path / "run", say=quiet, prepared=ready)
    assert not (folder / locks.LOCK).exists()
    with filelock.FileLock(folder / locks.LOCK), pytest.raises(VGFError, match="another process"):
        train(config, folder, resume=True, say=quiet, prepared=ready)


def test_an_edited_configuration_is_noticed_by_whatever_reads_the_run(tmp_path: Path) -> None:
    config, ready = prepared(tmp_path)
    folder = train(config, tmp_path / "run", say=quiet, prepared=ready)
    sound = (folder / "config.toml").read_text()
    for before, after, words in (
        ("batch_size = 4", "batch_size = 5", "train.batch_size is 5, and the checkpoint"),
        ("\nseed = 0", "\nseed = 1", "seed is 1, and the checkpoint of step 24"),
        ("discount = 0.99", "discount = 0.9", r"its \[agent\] is not what the checkpoint"),
        ("workers = 0", "workers = 1", None),  # decides nothing
    ):
        assert before in f"\n{sound}"
        (folder / "config.toml").write_text(f"\n{sound}".replace(before, after, 1))
        for read in (read_run, lambda folder: load_agent(folder, ready[1])):
            if words is None:
                read(folder)
                continue
            with pytest.raises(VGFError, match=words):
                read(folder)


class _Dead(BaseException):
    """The process was killed."""


def _dying(patch: pytest.MonkeyPatch, at: int) -> None:
    """Let nothing change on disk from a write on, as in a process that is killed before it."""
    count = itertools.count(1)

    def dying(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(count) >= at:
                raise _Dead
            return real(*arguments, **options)

        return call

    for name in ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir"):
        patch.setattr(os, name, dying(getattr(os, name)))


def _saved(folder: Path, step: int, due: bool) -> None:
    tree = {"a": np.full(3, step)}
    save_checkpoint(folder, step, tree, {"due": due}, task="t", settings=fuzzing.SMALL)


@pytest.mark.parametrize("do", ["replace", "remove"])
def test_a_kill_at_any_write_leaves_whole_checkpoints(
    do: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for at in range(1, 30):
        folder = tmp_path / str(at)
        folder.mkdir()
        _saved(folder, 1, due=False)
        _saved(folder, 2, due=True)
        with monkeypatch.context() as patch, contextlib.suppress(_Dead):
            _dying(patch, at)
            if do == "replace":
                _saved(folder, 2, due=False)
            else:
                remove_checkpoint(folder, 2)
        found = [load_checkpoint(folder, step)[1].extra["due"] for step in list_steps(folder)]
        if found not in seen:
            seen.append(found)
    assert seen == [[False, True], [False, False] if do == "replace" else [False]]


def test_a_kill_at_any_write_leaves_a_whole_run_folder_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = killing.configuration(tmp_path, "numpy", "offline"), []
    for at in range(1, 30):
        folder = tmp_path / str(at) / "run"
        folder.parent.mkdir()
        with monkeypatch.context() as patch, contextlib.suppress(_Dead):
            _dying(patch, at)
            create_run_folder(folder, config)
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        if names not in seen:
            seen.append(names)
    assert seen == [[], ["config.toml", "environment.json"]]


def test_another_place_side_by_side_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ready = prepared(tmp_path)
    runs = {tmp_path / f"s{s}": dataclasses.replace(config, seed=s) for s in range(2)}
    train_together(runs, say=quiet, prepared=ready)
    for matters in (False, True):
        said: list[str] = []
        monkeypatch.setattr(type(ready[1]), "rounds_by_place", matters)
        train_together(runs, runs, say=said.append, prepared=ready)
        assert not any("side by side" in line for line in said)
        train(runs[tmp_path / "s1"], tmp_path / "s1", True, said.append, ready)
        words = "s1 was 2 of 2 side by side, and goes on as 1 of 1"
        assert any(words in line for line in said) == matters


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    import platform

    dead, alive = tmp_path / f".writing-99999999@{platform.node()}-a", tmp_path / "x"
    other = tmp_path / ".writing-1@elsewhere-b"
    own = tmp_path / f".writing-{os.getpid()}@{platform.node()}-c"
    for place in (dead, alive, other, own):
        place.mkdir()
    remove_left_behind(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, own])
    remove_left_behind(tmp_path, alone=True)
    assert list(tmp_path.iterdir()) == [alive]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["write", "moment", *killing.SIGNALS])
@pytest.mark.parametrize("name", ["offline", "online", "side by side", "generation"])
def test_runs_that_are_stopped_go_on(tmp_path: Path, name: str, how: str) -> None:
    scenario = killing.Scenario(name, "" if name == "generation" else "numpy", tmp_path / "s")
    assert killing.stopped(killing.Reference(scenario), 0, 0, how)["wrong"] == ""


# --- that the checks can fail ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mistake", list(killing.PLANTED))
def test_kills_catch(mistake: str, tmp_path: Path) -> None:
    assert killing.planted(mistake, tmp_path / "s")["wrong"] == ""


_PLANTED = {
    "TypeError": lambda folder: len(json.loads((folder / "mine.json").read_text())["a"]),
    "crashed by SIGABRT": lambda folder: _unless_sound(folder, os.abort),
    "took more than 1 s": lambda folder: _unless_sound(folder, _for_ever),
    "MemoryError": lambda folder: _unless_sound(folder, lambda: bytearray(2 << 30)),
    "opened /etc/passwd": lambda folder: _unless_sound(folder, Path("/etc/passwd").read_bytes),
    "opened subprocess.Popen": lambda folder: _unless_sound(
        folder, lambda: subprocess.run(["true"], check=True)
    ),
    "a message of lines": lambda folder: _unless_sound(folder, _in_lines),
}


def _unless_sound(folder: Path, do: Any) -> None:
    if (folder / "mine.json").read_text() != '{"a": [1, 2]}':
        do()


def _for_ever() -> None:
    while True:
        pass


def _in_lines() -> None:
    raise VGFError("one\ntwo")


@pytest.mark.slow
@pytest.mark.parametrize("what", list(_PLANTED))
def test_the_fuzzer_catches(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path) -> list[Path]:
        (folder / "mine.json").write_text('{"a": [1, 2]}')
        return [folder / "mine.json"]

    monkeypatch.setitem(fuzzing.KINDS, what, fuzzing.Kind(make, _PLANTED[what]))
    monkeypatch.setattr(fuzzing, "SECONDS", 1)
    found = fuzzing.fuzz(what, 0, 20, 0, tmp_path / "fuzz")["found"]
    assert any(line.startswith(what) for line in found.values()), found


@pytest.mark.slow
def test_trials_of_environments_catch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environments.KINDS, "Not", "returned the reward nan")  # and it does not
    assert environments.run(tmp_path, "Not", 0, "evaluation")["wrong"] == "status 0"
    said = "error: step 3 of episode 0 returned the reward nan"
    assert environments.judged("NanReward", 0, 2, said, said) == ""
    assert environments.judged("NanReward", 0, 2, f"Traceback\n{said}", said) == "a traceback"
    assert environments.judged("NanReward", 0, 1, said, said) == "status 1"
    other = "error: training has diverged"
    assert environments.judged("NanReward", 0, 2, other, other) == "it does not name the fault"


@pytest.mark.slow
def test_growing_memory_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.flat(tmp_path / "flat", "numpy", 20, 80)["wrong"] == ""
    leak = (
        "from vgf.runs.loop import _Loop; kept = []; real = _Loop._save\n"
        "_Loop._save = lambda *rest: (kept.append(b'x' * (60 << 20)), real(*rest))[1]\n"
    )
    monkeypatch.setattr(resources, "_FLAT", leak + resources._FLAT)
    assert resources.flat(tmp_path / "leak", "numpy", 20, 80)["wrong"] == "it grows"


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each chunk is a process that is forked")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] * (kind in SECONDS_LONG))
        for kind in fuzzing.KINDS
        if "Minari" not in kind
    ],
)
def test_mutated_files_load_or_are_refused(tmp_path: Path, kind: str) -> None:
    found = fuzzing.fuzz(kind, 0, 100, 0, tmp_path / "fuzz")
    assert found["found"] == {}
    assert found["iterations"] == 100
    assert found["loaded"]
    assert found["refused"]


def test_a_digest_covers_the_sidecar(tmp_path: Path) -> None:
    """Every bit of it: what is flipped is refused, or reads the same."""
    fuzzing.KINDS["checkpoint"].make(tmp_path)
    path = tmp_path / "checkpoints/step-000000010/state.json"
    data = path.read_bytes()
    whole = json.loads(data)
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            load_checkpoint(tmp_path, 10)
        except VGFError:
            continue
        assert json.loads(changed) == whole
    path.write_bytes(data)


def test_every_signal_has_its_status(tmp_path: Path) -> None:
    from vgf.support.interrupts import Terminated, ending_signals, exit_status

    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(Terminated), ending_signals():
            os.kill(os.getpid(), number)
        assert exit_status() == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL

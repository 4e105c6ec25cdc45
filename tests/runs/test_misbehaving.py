"""Environments that misbehave: the fault is named, with episode and step, and loses nothing."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import SECONDS, need

need("gymnasium")

from validation.faults import misbehaving
from vgf.benchmarks.tasks import Task
from vgf.environments import pool
from vgf.environments.pool import EnvironmentFault, tried
from vgf.recording.collect import Collection, collect
from vgf.recording.formats import parse_output
from vgf.recording.policies import parse_policy
from vgf.runs.evaluation import Evaluation, evaluate
from vgf.support.errors import VGFError


def made(kind: str, seed: int | None) -> Any:
    return misbehaving.make(kind)


def success(info: Any) -> float | None:
    return info.get("success")


def act(observations: Any, budget: float, noise: Any) -> Any:
    return np.clip(noise["particles"][:, 0] + budget, -1, 1), {}


def evaluated(kind: str, workers: int, **options: Any) -> Evaluation:
    make = functools.partial(made, kind)
    task = Task("Plane", 1, 2, 1, 5, make, None, "return", success)
    budgets = {"a": 0.0, "b": 0.2}
    options = {"step_timeout": 1.0, "num_envs": 2, **options}
    return evaluate(act, task, budgets, particles=1, episodes=3, workers=workers, **options)


SLOW = ("HangsReset", "HangsStep", "Crashes")
QUICK = [kind for kind in misbehaving.KINDS if kind not in SLOW]


def check_kind(kind: str, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = misbehaving.KINDS[kind]
    if kind == "RaisesClose":
        assert evaluated(kind, workers) == evaluated("", 0)
        assert "warning: an environment raised ValueError: broken" in capsys.readouterr().err
        return
    words = r"raised ValueError: broken" if kind == "RaisesMade" else words
    with pytest.raises(EnvironmentFault, match=words) as caught:
        evaluated(kind, workers)
    at = "reset" if "Reset" in kind or kind == "RaisesMade" else "step 3"
    assert str(caught.value).startswith(f"Plane: {at} of episode ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", QUICK)
def test_a_fault_is_named(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_kind(kind, 0, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", misbehaving.KINDS)
def test_a_fault_in_a_process_is_named(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_kind(kind, 2, capsys)


class _Odd(BaseException):
    def __str__(self) -> str:
        raise ValueError


def test_whatever_is_raised_is_a_fault() -> None:
    def raising(error: BaseException) -> Any:
        def call() -> None:
            raise error

        return tried(call)

    assert raising(_Odd()).reason.startswith("raised _Odd: its message cannot be read (test_mis")
    assert raising(GeneratorExit("a\nb")).reason.startswith("raised GeneratorExit: a b (test_mis")
    with pytest.raises(KeyboardInterrupt):  # Ctrl-C
        raising(KeyboardInterrupt())


def check_recording(kind: str, place: Path, workers: int) -> None:
    name = f"{misbehaving.__name__}:Misbehaving/{kind}-v0"
    collection = Collection(name, parse_policy("random"), 0.0, 0, 5, step_timeout=0.2)
    output = parse_output(str(place / "data.npz"), None)
    words = misbehaving.KINDS[kind]
    if words is None or kind == "NanSuccess":  # which is not recorded
        collect(collection, output, 2, workers)
        return
    words = {"RaisesMade": "cannot make .*: broken", "Crashes": "ended early"}.get(kind, words)
    with pytest.raises(VGFError, match=words) as caught:
        collect(collection, output, 2, workers)
    message = str(caught.value)
    assert "\n" not in message
    if kind not in ("RaisesMade", "Crashes"):
        at = "reset" if "Reset" in kind else "step 3"
        assert message.startswith(f"{name}: {at} of episode 0 (seed ")
    assert not list(place.glob(".making*"))


@pytest.mark.parametrize("kind", QUICK)
def test_a_fault_of_a_recording_is_named(kind: str, tmp_path: Path) -> None:
    check_recording(kind, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SLOW, "RaisesStep"])
def test_a_fault_of_a_recording_process_is_named(kind: str, tmp_path: Path) -> None:
    check_recording(kind, tmp_path, 2)


@pytest.mark.full
@pytest.mark.parametrize("kind", [pytest.param("HangsStep", marks=pytest.mark.slow), "Crashes"])
def test_a_lost_episode_is_repeated(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated("", 0)
    monkeypatch.setenv("VGF_FAULT_ONCE", str(tmp_path / "once"))
    with pytest.raises(VGFError, match=r"Plane: step 3 of episode \d"):
        evaluated(kind, 1)
    (tmp_path / "once").unlink()
    assert evaluated(kind, 1, retries=1) == whole
    assert (tmp_path / "once").exists()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no step is ended there")
def test_a_stop_before_a_step_is_not_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the watch sees only after the next step has begun."""
    looks = iter([1000.0])
    late = type("Late", (), {"look": lambda self: next(looks, 0.0)})
    monkeypatch.setattr(pool, "Stops", lambda tick: late())
    watch = pool.Watch(0.4)

    def hang() -> None:
        for _ in range(40):
            time.sleep(0.05)

    with watch:
        watch.begin(0)
        assert tried(hang).reason == "took longer than --step-timeout allows"
    watch.close()


STOPPED = """
import sys, time
from validation.faults import misbehaving
from vgf.benchmarks.tasks import Task
from vgf.runs.evaluation import evaluate

class Slow(misbehaving.Misbehaving):
    def step(self, action):
        print("step", flush=True)
        for _ in range(8):
            time.sleep(0.05)
        return super().step(action)

def make(seed):
    return Slow("")

def success(info):
    return None

def act(observations, budget, noise):
    return noise["particles"][:, 0], {}

if __name__ == "__main__":
    task = Task("Plane", 1, 2, 1, 2, make, None, "return", success)
    options = {"workers": int(sys.argv[1]), "step_timeout": 1.0, "num_envs": 1}
    found = evaluate(act, task, {"a": 0.0}, particles=1, episodes=1, **options)
    print("episodes", len(found.records), flush=True)
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a stop")
@pytest.mark.parametrize("workers", [0, 1])
def test_time_in_which_the_command_is_stopped_does_not_count(tmp_path: Path, workers: int) -> None:
    """Ctrl-Z, or a scheduler that suspends a job, in the middle of a step."""
    script = tmp_path / "slow.py"
    script.write_text(STOPPED)
    command = subprocess.Popen(
        [sys.executable, str(script), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert command.stdout is not None
    if command.stdout.readline() != "step\n":
        pytest.fail(command.communicate(timeout=SECONDS)[1])
    os.killpg(command.pid, signal.SIGSTOP)
    time.sleep(2)
    os.killpg(command.pid, signal.SIGCONT)
    out, errors = command.communicate(timeout=SECONDS)
    assert command.returncode == 0, errors
    assert out.split()[-2:] == ["episodes", "1"]

"""Runs that are killed, or told to stop, at random moments and at chosen writes, and go on.

A run is made once to its end. Then it is made again by a process of its own, which is killed (or
gets a signal) and continued until it is finished: its weights, episodes, metrics and transitions
must be those of the run that nobody stopped, bit for bit, and nothing half written may be left.
(The file of a lock may: who held it is gone, and so is the lock.) After each stop, before the run
goes on, every checkpoint that is there must load, and none may have gone: a run falls back to the
one before a damaged one, and would become equal all the same. Moments are drawn from the time
that the whole run takes. A chosen write is the k-th call by which anything on disk changes: an
`os.replace`, `os.fsync`, `os.mkdir`, `os.unlink`, `os.rmdir` or unbuffered write; k is drawn from
their number.

`PLANTED` are mistakes that all of this must catch.

Processes are forked from one that has imported everything; NumPy and torch have also read the data
there. JAX, whose threads do not survive a fork, is only imported: each process starts it anew, and
takes its compiled programs from the cache that `vgf run` keeps. What a process was at when it was
stopped is told through a byte of shared memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import mmap
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vgf.cli import keep_compilations
from vgf.data.parts import Parts
from vgf.recording import collect as recording
from vgf.recording.collect import Collection, collect
from vgf.recording.formats import parse_output
from vgf.recording.policies import parse_policy
from vgf.runs import loop, updates
from vgf.runs.checkpoint import checkpoint_path, list_steps, load_checkpoint
from vgf.runs.config import (
    BackendSettings,
    EvaluationSettings,
    OnlineSettings,
    RunConfig,
    TaskSettings,
    TrainSettings,
)
from vgf.runs.folder import CONFIG
from vgf.runs.loop import finished, prepare, train_together
from vgf.spec.settings import Budget, Network, Settings
from vgf.spec.theory import wasserstein2
from vgf.support.errors import VGFError
from vgf.support.interrupts import Interrupted, ending_signals, exit_status
from vgf.support.rows import RowLog, read_rows

ENVIRONMENT = "validation.faults.misbehaving:Misbehaving/Not-v0"
MOST_STOPS = 3  # of one run, before it may go on to its end
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
SECONDS = 300


def data_file(folder: Path) -> Path:
    """A small data set of the environment, recorded once."""
    path = folder / "data.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            observations=rng.random((60, 2)).astype(np.float32),
            actions=rng.uniform(-1, 1, (60, 1)).astype(np.float32),
            rewards=-rng.random(60).astype(np.float32),
            terminals=np.zeros(60, bool),
            timeouts=np.arange(60) % 5 == 4,
        )
    return path


def configuration(folder: Path, backend: str, kind: str) -> RunConfig:
    """A run of a second or less: 24 updates, three evaluations, checkpoints between them."""
    network = Network((8,))
    online = OnlineSettings(steps=24, warmup=4, mixing="rlpd") if kind == "online" else None
    return RunConfig(
        task=TaskSettings(
            env=f"gymnasium:{ENVIRONMENT}", data=str(data_file(folder)), action_repeat=1
        ),
        agent=Settings(
            critic=network,
            reference=network,
            particles=3,
            sampling_steps=2,
            budget=Budget(steps=1, step_size=0.1),
        ),
        train=TrainSettings(
            steps=24, batch_size=4, log_every=3, evaluate_every=8, checkpoint_every=5
        ),
        online=online or OnlineSettings(),
        evaluation=EvaluationSettings(steps=(0, 1), episodes=2, workers=0),
        backend=BackendSettings(
            name=backend, device="cpu", dtype="float64", eager=backend == "torch"
        ),
        seeds=2 if kind == "side by side" else 1,
    )


class Scenario:
    """A run, or a recording, that can be made, continued and compared.

    Args:
        name: "offline", "online", "side by side" or "generation".
        backend: that computes it.
        folder: for its files.
    """

    def __init__(self, name: str, backend: str, folder: Path) -> None:
        self.name, self.backend, self.folder = name, backend, folder
        self._prepared: Any = None
        folder.mkdir(parents=True, exist_ok=True)
        if name != "generation":
            self.config = configuration(folder, backend, name)
            if backend == "jax":
                keep_compilations()
                importlib.import_module("vgf.backends.jax")
                wasserstein2(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))  # imports SciPy
            else:
                self._prepared = prepare(self.config)
        if backend != "jax":
            self.go(folder / "first")

    def places(self, place: Path) -> list[Path]:
        """The folders of its runs."""
        if self.name != "side by side":
            return [place]
        return [place / f"seed-{seed}" for seed in range(2)]

    def go(self, place: Path) -> None:
        """Begin it, or continue it from what is there."""
        if self.name == "generation":
            policy = parse_policy("random", None, None, None)
            collection = Collection(ENVIRONMENT, policy, 0.1, 0, max_episode_steps=5)
            collect(collection, parse_output(str(place / "data.npz"), None), 12, 1)
            return
        prepared = self._prepared or prepare(self.config)
        runs = {
            one: dataclasses.replace(self.config, seed=seed, seeds=1, out=str(one))
            for seed, one in enumerate(self.places(place))
        }
        begun = {one for one in runs if (one / CONFIG).is_file()}
        over = {one for one in begun if finished(runs[one], one)}
        if over != runs.keys():
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                train_together(runs, begun, lambda line: None, prepared, over)

    def result(self, place: Path) -> dict[str, Any]:
        """What must be equal: files as bytes, logs without the time that was spent."""
        if self.name == "generation":
            with np.load(place / "data.npz") as file:
                return {key: file[key].tobytes() for key in file.files}
        places = enumerate(self.places(place))
        return {f"{n}/{name}": x for n, one in places for name, x in left_in(one).items()}


def left_in(folder: Path) -> dict[str, Any]:
    """What must be equal in a run folder: files as bytes, logs without the time that was spent."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name in ("state.safetensors", "transitions.bin"):
            found[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            rows = read_rows(path)
            found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        elif path.name == "state.json":
            about = json.loads(path.read_text())
            found[name] = {key: about[key] for key in ("step", "sha256", "extra")}
        elif path.name.startswith(".writing"):
            found[name] = "left behind"
    return found


# What a process is at: the function that does it, and what the page calls it.
_WORK = (
    (updates, "_made", "updates"),
    (loop._Loop, "_update_online", "a step online"),
    (loop._Loop, "_evaluate", "an evaluation"),
    (loop._Loop, "_save", "a checkpoint"),
    (RowLog, "append", "a log"),
    (recording, "_episode", "an episode"),
    (Parts, "_keep", "a part"),
)
_AT = ("the rest", *(name for _, _, name in _WORK))
_at = mmap.mmap(-1, 1)


def _noting() -> None:
    """Let this process note what it is at."""

    def noted(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before, _at[0] = _at[0], number
            try:
                return real(*arguments, **options)
            finally:
                _at[0] = before

        return call

    for number, (owner, name, _) in enumerate(_WORK, 1):
        setattr(owner, name, noted(number, getattr(owner, name)))


def _child(scenario: Scenario, place: Path, before: Callable[[], None]) -> int:
    """Fork a process that goes on with a scenario; returns its id."""
    _at[0] = 0
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        log = os.open(place.parent / f"{place.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        for name in SIGNALS:
            default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(getattr(signal, name), default)
        with ending_signals():
            _noting()
            before()
            scenario.go(place)
        status = 0
    except (Interrupted, KeyboardInterrupt):
        status = exit_status()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    os._exit(status)


def _waited(process: int) -> int:
    """Wait for a process; its exit status, or minus the signal that ended it."""
    for _ in range(500 * SECONDS):  # not by a clock: both may have been halted meanwhile
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -999


_VISIBLE = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir", "write")


def _counting(at: int | None, told: int | None) -> Callable[[], None]:
    """Count the writes of a process; kill it before the one with number `at`."""

    def begin() -> None:
        count = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if told is not None:
                    real_write(told, b".")
                return real(*arguments, **options)

            return call

        real_write = os.write
        for name in _VISIBLE:
            setattr(os, name, counted(getattr(os, name)))

    return begin


class Reference:
    """A scenario made to its end: what it leaves, how long it takes, how much it writes.

    It is made twice, so that what is not the same each time is found here.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.seconds = float("inf")
        before = self._made(scenario.folder / "whole")
        self.result = self._made(scenario.folder / "whole")
        if wrong := difference(before, self.result):
            raise RuntimeError(f"{scenario.name} on {scenario.backend}, made twice: {wrong}")

    def _made(self, place: Path) -> dict[str, Any]:
        scenario = self.scenario
        shutil.rmtree(place, ignore_errors=True)
        heard, told = os.pipe()
        start = time.monotonic()
        process = _child(scenario, place, _counting(None, told))
        os.close(told)
        with os.fdopen(heard, "rb") as pipe:
            self.writes = len(pipe.read())
        status = _waited(process)
        self.seconds = min(self.seconds, time.monotonic() - start)
        if status:
            log = (place.parent / f"{place.name}.log").read_text()
            raise RuntimeError(f"{scenario.name} on {scenario.backend}: status {status}: {log}")
        return scenario.result(place)


def stopped(reference: Reference, number: int, seed: int, how: str) -> dict[str, Any]:
    """Make a scenario again, stopped on its way, and compare.

    Args:
        reference: of the scenario.
        number: of the trial, which decides its moments.
        seed: likewise.
        how: "moment" or "write" (killed there), "write K" (at that one), or a signal's name.

    Returns:
        "stops" (how many took effect), "at" (what the process was at in each), "checkpoints" (how
        many were read after stops), "wrong" (what was not as it must be; empty if nothing).
    """
    scenario = reference.scenario
    rng = random.Random(f"{seed} {scenario.name} {scenario.backend} {how} {number}")
    place = scenario.folder / f"stopped-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    (place.parent / f"{place.name}.log").unlink(missing_ok=True)
    stops, at, wrong, read = 0, Counter[str](), "", 0
    kept: set[Path] = set()
    for _ in range(rng.choice((1, 1, 2, MOST_STOPS))):
        if how.startswith("write"):
            at_write = int(how[5:] or rng.randint(1, reference.writes))
            before = _counting(at_write, None)
            status = _waited(_child(scenario, place, before))
            told = _at[0]
        else:
            process = _child(scenario, place, lambda: None)
            time.sleep(rng.random() * reference.seconds * 1.1)
            sent = signal.SIGKILL if how == "moment" else getattr(signal, how)
            told = _at[0]
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, sent)
            status = _waited(process)
        if status == 0:
            break
        stops += 1
        at[_AT[told]] += 1
        if how in SIGNALS and status != 128 + getattr(signal, how):
            # the signal may come before the process listens to it
            if status != -getattr(signal, how):
                wrong = f"status {status} after {how}"
        elif how not in SIGNALS and status != -signal.SIGKILL:
            wrong = f"status {status} after SIGKILL"
        for one in [] if scenario.name == "generation" else scenario.places(place):
            found, unsound = checkpoints(one)
            read += len(list_steps(one))
            wrong = wrong or unsound
            gone = {path for path in kept - found if path.is_relative_to(one)}
            wrong = wrong or (f"after a stop: {min(gone)} has gone" if gone else "")
            kept |= found
    status = _waited(_child(scenario, place, lambda: None))
    if status:
        log = place.parent / f"{place.name}.log"
        wrong = f"status {status} when continued: {log.read_text()[-300:]}"
    else:
        wrong = wrong or difference(reference.result, scenario.result(place))
    shutil.rmtree(place, ignore_errors=True)
    return {"stops": stops, "at": at, "checkpoints": read, "wrong": wrong}


def checkpoints(folder: Path) -> tuple[set[Path], str]:
    """The checkpoints of a run that stay, and what is wrong with the first that does not load.

    One whose evaluation is due may be removed after it.
    """
    kept, wrong = set(), ""
    for step in list_steps(folder):
        try:
            _, meta = load_checkpoint(folder, step)
        except VGFError as error:
            wrong = wrong or f"after a stop: {error}"
            continue
        if not meta.extra["evaluation_due"]:
            kept.add(checkpoint_path(folder, step))
    return kept, wrong


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first thing in which two results differ, or "".

    Where a run was stopped it keeps a checkpoint, which one that nobody stopped does not have. In
    the warm-up of an online phase, where the agent stays as it was at the end of the offline one,
    it takes the place of that one's, and differs in the environment steps alone.
    """
    for name in sorted(one.keys() | other.keys()):
        if name not in one and "checkpoints/step-" in name:
            continue
        before, now = one.get(name), other.get(name)
        sidecar = name.endswith("state.json")
        if sidecar and before and now and before["extra"].get("environment_steps") == 0:
            now = {**now, "extra": {**now["extra"], "environment_steps": 0}}
        if before != now:
            how = "missing" if name not in other else "more" if name not in one else "different"
            return f"{name} is {how}"
    return ""


def scenarios(folder: Path, backends: tuple[str, ...]) -> Iterator[Scenario]:
    """Every scenario on every backend; a recording on none."""
    for backend in backends:
        for name in ("offline", "online", "side by side"):
            yield Scenario(name, backend, folder / f"{name.replace(' ', '-')}-{backend}")
    yield Scenario("generation", "", folder / "generation")


# --- mistakes that must be caught -----------------------------------------------------------------


@contextmanager
def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, make(real))
    try:
        yield
    finally:
        setattr(owner, name, real)


def _in_place(real: Callable[..., Any]) -> Callable[..., Any]:
    def save(folder: Path, step: int, *rest: Any, **options: Any) -> Path:
        place = checkpoint_path(folder, step)
        with tempfile.TemporaryDirectory() as other:
            made = real(Path(other), step, *rest, **options)
            place.mkdir(parents=True, exist_ok=True)
            for path in sorted(made.iterdir()):
                with open(place / path.name, "wb") as file:
                    file.write(path.read_bytes())
                    file.flush()
                    os.fsync(file.fileno())
        return place

    return save


def _file_by_file(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda folder, step: shutil.rmtree(checkpoint_path(folder, step))


def _from_the_start(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda folder, config, *rest: real(folder, config)


def _without_moments(real: Callable[..., Any]) -> Callable[..., Any]:
    def load(*arguments: Any) -> Any:
        tree, meta = real(*arguments)
        for name, array in tree["optimiser"]["critic"]["m"]["output"].items():
            tree["optimiser"]["critic"]["m"]["output"][name] = np.zeros_like(array)
        return tree, meta

    return load


PLANTED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "checkpoints written in place": lambda: _replaced(loop, "save_checkpoint", _in_place),
    "checkpoints removed file by file": lambda: _replaced(loop, "remove_checkpoint", _file_by_file),
    "rows not cut back when continued": lambda: _replaced(loop, "RunLog", _from_the_start),
    "an optimiser's moments not restored": lambda: _replaced(
        loop, "load_checkpoint", _without_moments
    ),
}


def planted(name: str, folder: Path, most: int = 40) -> dict[str, str]:
    """Kill a run with a mistake at chosen writes until one shows it."""
    with PLANTED[name]():
        reference = Reference(Scenario("offline", "numpy", folder))
        for number in range(most):
            wrong = str(stopped(reference, number, 0, "write")["wrong"])
            if wrong:
                said = wrong.replace(f"{folder}/stopped-{os.getpid()}/", "").partition(";")[0]
                return {"found": f"in trial {number + 1}: {said}", "wrong": ""}
    return {"found": "nothing", "wrong": f"not caught in {most} trials"}

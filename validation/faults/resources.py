"""Runs on a full disk, with few descriptors, with little memory, and beside another writer."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .environments import _COMMAND, SECONDS, command, flags

Trial = Callable[[], dict[str, str]]


def trials(folder: Path, backends: tuple[str, ...]) -> Iterator[tuple[str, Trial]]:
    """Each by its name."""
    yield "a full disk while rows are written", lambda: full_disk(folder)
    yield "a full disk behind standard output", lambda: full_output(folder)
    yield "standard output closed", lambda: closed_output(folder)
    yield "a read-only run folder", lambda: read_only(folder)
    yield "a run folder deleted meanwhile", lambda: deleted(folder)
    yield "two writers of one run", lambda: two_writers(folder)
    yield "few descriptors", lambda: limited(folder, "descriptors", resource.RLIMIT_NOFILE, 16)
    yield "little memory", lambda: limited(folder, "memory", resource.RLIMIT_AS, 300 << 20)
    for backend in backends:
        yield (
            f"memory over 20,000 updates, {backend}",
            lambda backend=backend: flat(folder, backend),  # type: ignore[misc]
        )


def _judged(status: int, errors: str, expected: tuple[int, ...], words: str = "") -> dict[str, str]:
    said = next((x for x in reversed(errors.splitlines()) if x.strip()), "")
    wrong = ""
    if "Traceback" in errors:
        wrong = "a traceback"
    elif status not in expected:
        wrong = f"status {status}"
    elif words and words not in errors:
        wrong = f"it does not say {words!r}"
    return {"found": f"status {status}: {said[:200]}", "wrong": wrong}


def full_disk(folder: Path) -> dict[str, str]:
    """A run whose file system ends in the middle, by a limit on the size of its files."""
    place = folder / "full"
    words = [*flags(folder, "Not"), "--steps", "4000", "--out", str(place)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
         + _COMMAND, *words],
        capture_output=True, text=True, timeout=SECONDS, preexec_fn=limit, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stderr, (2,), "cannot")


def full_output(folder: Path) -> dict[str, str]:
    """A complete run whose output cannot be written."""
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / "output")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *words],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    found = _judged(done.returncode, done.stderr, (2,), "cannot be written")
    if not (folder / "output/report.html").exists():
        found["wrong"] = found["wrong"] or "the run is not complete"
    return found


def closed_output(folder: Path) -> dict[str, str]:
    """A complete run without a standard output."""
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / "closed")]
    shell = 'exec "$0" "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, "-c", _COMMAND, *words],
        stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stderr, (0,))


def read_only(folder: Path) -> dict[str, str]:
    """A run folder that cannot be written to; as root, which may write anywhere, a file instead."""
    parent = folder / "parent"
    if os.geteuid() == 0:
        parent.write_text("")
    else:
        parent.mkdir(mode=0o500)
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(parent / "run")]
    status, _, errors = command(*words)
    return _judged(status, errors, (2,), "cannot write into")


def deleted(folder: Path) -> dict[str, str]:
    """A run folder that is removed while the run goes on."""
    place = folder / "deleted"
    words = [*flags(folder, "Not"), "--steps", "100000000", "--out", str(place)]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait(process, place / "checkpoints")
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    _, errors = process.communicate(timeout=SECONDS)
    return _judged(process.returncode, errors, (2,))


def two_writers(folder: Path) -> dict[str, str]:
    """A second process that continues a run which the first has not ended."""
    place = folder / "two"
    words = [*flags(folder, "Not"), "--steps", "100000000", "--out", str(place)]
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait(process, place / "checkpoints")
    status, _, errors = command("run", "--resume", str(place))
    process.terminate()
    _, own = process.communicate(timeout=SECONDS)
    found = _judged(status, errors, (2,), "another process")
    if process.returncode != 143:
        found["wrong"] = (
            found["wrong"] or f"the first ended with {process.returncode}: {own[-200:]}"
        )
    return found


def _wait(process: subprocess.Popen[str], place: Path) -> None:
    import time

    end = time.monotonic() + SECONDS
    while not place.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def limited(folder: Path, what: str, kind: int, most: int) -> dict[str, str]:
    """A run that may have only so much of something."""
    words = [*flags(folder, "Not"), "--steps", "8", "--out", str(folder / what)]

    def limit() -> None:
        resource.setrlimit(kind, (most, most))

    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *words, "--workers", "2"],
        capture_output=True, text=True, timeout=SECONDS, preexec_fn=limit, check=False,
    )  # fmt: skip
    return _judged(done.returncode, done.stderr, (0, 2))


_FLAT = """
import resource, sys
from pathlib import Path
from validation.faults.killing import configuration
from vgf.runs.loop import prepare, train
import dataclasses
folder, backend = Path(sys.argv[1]), sys.argv[2]
config = configuration(folder, backend, "offline")
rare = dict(log_every=500, evaluate_every=10_000, checkpoint_every=5_000)
peaks = []
prepared = prepare(config)
for steps in (2_000, 20_000):
    train_settings = dataclasses.replace(config.train, steps=steps, **rare)
    run = dataclasses.replace(config, train=train_settings)
    train(run, folder / f"{backend}-{steps}", prepared=prepared, say=lambda line: None)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(*peaks)
"""


def flat(folder: Path, backend: str) -> dict[str, str]:
    """The most memory after 2,000 updates, and after 20,000 more."""
    done = subprocess.run(
        [sys.executable, "-c", _FLAT, str(folder), backend],
        capture_output=True, text=True, timeout=10 * SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"found": done.stderr[-200:], "wrong": f"status {done.returncode}"}
    before, after = map(int, done.stdout.split()[-2:])
    more = (after - before) / 2**20
    return {
        "found": f"{before / 2**20:.0f} MiB after 2,000 updates, {more:+.0f} MiB after 20,000 more",
        "wrong": "" if more < 64 else "it grows",
    }

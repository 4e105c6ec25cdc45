"""Recording in parts: whatever ends a making, going on gives what one go would have given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import SECONDS

from vgf.data import parts as module
from vgf.data.parts import Episode, Parts, make_in_parts
from vgf.support import locks
from vgf.support.errors import VGFError


@dataclass(frozen=True)
class Counter:
    """Records number + 1 rows that say the number; fails at one of them."""

    fails_at: int | None = None

    def start(self) -> Callable[[int], Episode]:
        def episode(number: int) -> Episode:
            if number == self.fails_at:
                raise KeyboardInterrupt
            return {
                "observations": np.full((number + 1, 2), number, np.float32),
                "terminals": np.arange(number + 1) == number,
            }

        return episode


@dataclass(frozen=True)
class Refuser:
    """Cannot record."""

    def start(self) -> Callable[[int], Episode]:
        raise VGFError("no such thing")


def make(
    path: Path, recorder: Any = None, episodes: int = 6, seed: int = 0, **options: Any
) -> list[str]:
    """Make a .npz of episodes; returns what was said."""
    said: list[str] = []

    def write(parts: Parts) -> None:
        with parts.fresh(path) as fresh:
            parts.write_npz(fresh)

    options = {"workers": 1, "is_made": lambda: False} | options
    make_in_parts(
        path,
        {"seed": seed, "episodes": episodes},
        episodes,
        recorder or Counter(),
        write,
        label="counting",
        say=said.append,
        **options,
    )
    return said


def parts_of(path: Path) -> list[Path]:
    return sorted((path.parent / f".making-{path.name}").glob("part-*"))


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each episode has a part of its own."""
    monkeypatch.setattr(module, "PART_SECONDS", 0.0)


def test_one_go(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert make(path) == []
    with np.load(path) as file:
        assert file["observations"][:, 0].tolist() == [n for n in range(6) for _ in range(n + 1)]
        assert file["observations"].shape == (21, 2)
        assert np.flatnonzero(file["terminals"]).tolist() == [0, 2, 5, 9, 14, 20]
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(fails_at=st.integers(0, 5), again=st.integers(0, 5), apart=st.booleans())
def test_going_on_equals_one_go(
    tmp_path_factory: pytest.TempPathFactory, fails_at: int, again: int, apart: bool
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    path, straight = folder / "x.npz", folder / "straight.npz"
    make(straight)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_SECONDS", 0.0 if apart else 60.0)
        for number in (fails_at, again):
            if number >= fails_at:
                with pytest.raises(KeyboardInterrupt):
                    make(path, Counter(number))
            assert not path.exists()
        make(path)
    assert path.read_bytes() == straight.read_bytes()
    assert not parts_of(path)


@pytest.mark.usefixtures("every")
@pytest.mark.parametrize("damage", ["cut off", "flipped", "emptied", "gone", "foreign", "swapped"])
def test_a_damaged_part_is_recorded_anew(tmp_path: Path, damage: str) -> None:
    path, straight = tmp_path / "x.npz", tmp_path / "straight.npz"
    make(straight)
    with pytest.raises(KeyboardInterrupt):
        make(path, Counter(5))
    part = parts_of(path)[2]
    whole = part.read_bytes()
    if damage == "gone":
        part.unlink()
    elif damage == "foreign":
        np.savez(part, something=np.zeros(3), lengths=np.array([3]))
    elif damage == "swapped":  # an episode more than its name says
        part.rename(part.with_name("part-000002-000004.npz"))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        part.write_bytes({"cut off": whole[:-30], "flipped": flipped, "emptied": b""}[damage])
    said = make(path)
    assert any("damaged" in line for line in said) == (damage != "gone")
    assert "continuing: 4 of 6 episodes are kept" in said
    assert path.read_bytes() == straight.read_bytes()


@pytest.mark.usefixtures("every")
def test_parts_of_another_making_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(KeyboardInterrupt):
        make(path, Counter(3), seed=1)
    calls: list[int] = []
    said = make(path, progress=lambda _, done, __: calls.append(done))
    assert "belongs to another recording: seed 1, now 0; starting again" in said[0]
    assert calls == list(range(7))


def test_a_making_without_anything_leaves_nothing(tmp_path: Path) -> None:
    for recorder, error in ((Counter(0), KeyboardInterrupt), (Refuser(), VGFError)):
        with pytest.raises(error):
            make(tmp_path / "x.npz", recorder)
        assert list(tmp_path.iterdir()) == []


def test_a_failure_in_a_process_is_heard(tmp_path: Path) -> None:
    with pytest.raises(VGFError, match="no such thing"):
        make(tmp_path / "x.npz", Refuser(), workers=2)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_keeps_the_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npz"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", full)
        with pytest.raises(VGFError, match=r"cannot write .*No space left"):
            make(path)
    assert not path.exists()
    make(path, Counter())
    assert path.exists()


# A process that is killed while it makes x.npz in the folder it is given.
KILLED = """
import sys, time
from pathlib import Path
from tests.data import test_parts
from vgf.data import parts
parts.PART_SECONDS = 0.0
def slowly(label, done, total):
    print(done, flush=True)
    time.sleep(60 if done == 4 else 0)
if __name__ == "__main__":
    test_parts.make(Path(sys.argv[1]) / "x.npz", workers=2, progress=slowly)
"""


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_making_goes_on(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "4\n":
        assert line, "it ended by itself"
    workers = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=SECONDS)
    process.stdout.close()
    path = tmp_path / "x.npz"
    assert not path.exists()
    assert len(parts_of(path)) == 4
    assert "continuing: 4 of 6 episodes are kept" in make(path)
    make(tmp_path / "straight.npz")
    assert path.read_bytes() == (tmp_path / "straight.npz").read_bytes()
    until = time.monotonic() + 10.0
    while any(map(_alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_alive, workers))  # The processes did not outlive it.


@pytest.mark.full
def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    """Its processes come to the same call again, and wait for no one there."""
    root = Path(__file__).parents[2]
    script = tmp_path / "unguarded.py"
    guarded = KILLED.replace("time.sleep(60 if done == 4 else 0)", "pass")
    script.write_text(guarded.replace('if __name__ == "__main__":', "if True:"))
    process = subprocess.run(
        [sys.executable, script, tmp_path],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
    )
    assert process.returncode == 1
    said = process.stderr.strip().splitlines()
    assert any("a script that makes data needs `if __name__ == '__main__':`" in s for s in said)
    assert "a process that recorded data ended early" in said[-1]
    assert list(tmp_path.iterdir()) == [script]


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_two_processes_do_not_make_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npz"
    folder = tmp_path / ".making-x.npz"
    folder.mkdir()
    other = filelock.FileLock(folder / locks.LOCK)
    other.acquire()

    def finish(_: float) -> None:
        """What the other process does meanwhile."""
        path.write_bytes(b"made")
        folder.rename(tmp_path / "gone")
        other.release()

    monkeypatch.setattr(locks.time, "sleep", finish)
    said = make(path, Refuser(), is_made=path.exists)
    assert said == ["another process is making x.npz; waiting for it"]
    assert path.read_bytes() == b"made"


def test_what_a_folder_says(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "x.npz", Counter(3), seed=7)
    record = json.loads((tmp_path / ".making-x.npz" / "making.json").read_text())
    assert record == {"format": module.FORMAT, "seed": 7, "episodes": 6}

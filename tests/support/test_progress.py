"""The progress of long work on the screen: lines in a file, a bar on a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest
from needs import SECONDS

from vgf.support.errors import VGFError
from vgf.support.progress import progress, shown_progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_lines_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    with progress(1000, "training", "update", stream=out) as bar:
        for _ in range(1000):
            clock.now += 0.1
            bar.update()
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "training: 10 % (100/1000), 10 update/s, 0:01:30 left"
    assert lines[-1] == "training: 100 % (1000/1000), 10 update/s, 0:01:40"
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_lines_every_30_seconds_when_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    with progress(10_000, "slow", stream=out) as bar:
        for _ in range(100):
            clock.now += 1
            bar.update()
    shares = [line.split("(")[1].split("/")[0] for line in out.getvalue().splitlines()]
    assert shares == ["30", "60", "90", "100"]


def test_one_line_when_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    out = io.StringIO()
    bar = progress(100, "fast", stream=out)
    for _ in range(100):
        bar.update()
    bar.close()
    bar.close()
    assert out.getvalue() == "fast: 100 % (100/100), 0 it/s, 0:00:00\n"


def test_progress_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    with progress(100, "training", done=50, stream=out) as bar:
        clock.now += 10
        bar.update(10)
    assert out.getvalue() == "training: 60 % (60/100), 1 it/s, 0:00:40 left\n"


SCRIPT = """
import time
from vgf.support.progress import progress
with progress(50, "training", "update") as bar:
    for i in range(50):
        time.sleep(0.01)
        bar.update()
        if i == 25:
            bar.write("a line")
            with progress(2, "evaluation") as inner:
                inner.update(2)
"""


def test_a_pipe_gets_no_control_characters() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, timeout=SECONDS
    )
    assert done.stdout == b"a line\n"
    assert set(done.stderr) - {10} <= set(range(32, 127))
    assert done.stderr.splitlines()[-1].startswith(b"training: 100 % (50/50), ")


@pytest.mark.parametrize("size", [(40, 100), (0, 0)])  # some terminals do not know their size
def test_a_terminal_gets_a_bar(size: tuple[int, int]) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    # the width is the terminal's, whatever variables say
    variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=theirs, stderr=theirs, env=variables
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal is closed at the other end
            break
        if not piece:
            break
        output += piece
    os.close(ours)
    assert child.wait(timeout=SECONDS) == 0
    assert b"a line\r\n" in output
    assert b"\rtraining" in output
    assert re.search(rb"50/50 \[\d\d:\d\d<\d\d:\d\d, +[0-9.]+ update/s\]", output)


def test_a_terminal_without_tqdm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with pytest.raises(VGFError, match=r"pip install 'vgf\[run\]'"):
        progress(3, "training", stream=stream)


def test_several_things_are_shown_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress("episode") as show:
        for done in range(3, 6):
            show("making", done, 5)
        show("fetching", 1, 4)
    said = capsys.readouterr().err
    assert "making: 100 % (5/5), " in said
    assert "fetching" not in said  # What is done in the first call was done before.

"""Time in which this process was stopped, and time in which a thread only had to wait."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from needs import SECONDS

from vgf.support.processes import Stops

LINUX = sys.platform.startswith("linux")
SCRIPT = """
import os, subprocess, sys, time
from vgf.support.processes import Stops
stops, stopped, until = Stops(0.1), 0.0, time.monotonic() + 3
words = f"sleep 0.3; kill -STOP {os.getpid()}; sleep 1.5; kill -CONT {os.getpid()}"
subprocess.Popen(["sh", "-c", words])
while time.monotonic() < until:
    time.sleep(0.1)
    stopped += stops.look()
print(stopped)
"""


def stopped_during(work: Callable[[], object]) -> float:
    """The seconds that a thread, looking meanwhile, takes for a stop."""
    found, over = [], threading.Event()

    def look() -> None:
        stops = Stops(0.1)
        while not over.wait(0.1):
            found.append(stops.look())

    thread = threading.Thread(target=look)
    thread.start()
    work()
    time.sleep(0.5)  # in which it looks
    over.set()
    thread.join()
    return sum(found)


@pytest.mark.skipif(not LINUX, reason="only Linux tells")
def test_a_stop_is_seen() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert 1.2 < float(done.stdout) < 2.5, done.stderr


@pytest.mark.skipif(not LINUX, reason="a function of its C library")
def test_waiting_for_the_interpreter_is_no_stop() -> None:
    """A call in C that does not let go of it, and does nothing."""
    assert stopped_during(lambda: ctypes.PyDLL(None).usleep(900_000)) == 0

"""Workers, turns and ratios: with clocks that tests set, and processes that they write."""

from __future__ import annotations

import textwrap

import pytest

from vgf.bench.interleave import LONGEST, MissingPackageError, Worker, calibrate, ratio, take_turns
from vgf.support.errors import VGFError

SUBJECT = """
import sys, time

class Subject:
    def __init__(self, unit):
        self.unit, self.now, self.ran = unit, 0.0, []
        time.perf_counter = lambda: self.now
    def run(self, count):
        self.ran.append(count)
        self.now += count * self.unit
    def describe(self):
        return {"device": "cpu", "ran": self.ran}
    def device_memory(self):
        return None

def start(unit=1.0, do="run"):
    if do == "import":
        import a_package_that_is_not_there.at_all
    if do == "print":
        print("a library's banner")
        sys.stdout.flush()
    if do == "fail":
        raise ZeroDivisionError("too deep")
    if do == "die":
        print("the last words", file=sys.stderr, flush=True)
        sys.stderr.flush()
        import os
        os._exit(3)
    return Subject(unit)
"""


@pytest.fixture
def subject(tmp_path):
    path = tmp_path / "subject.py"
    path.write_text(textwrap.dedent(SUBJECT))
    return str(path)


# --- turns and ratios ---------------------------------------------------------------------------


class Clocked:
    """Sides that take as long as they are told, on one clock that drifts."""

    def __init__(self, units, drift=1.0):
        self.units, self.drift, self.speed, self.log = units, drift, 1.0, []

    def timers(self):
        return {name: self._timer(name) for name in self.units}

    def _timer(self, name):
        def timer(count):
            self.log.append((name, count))
            self.speed *= self.drift
            return count * self.units[name] * self.speed

        return timer


def test_a_slower_peer_gives_a_ratio_above_one():
    sides = Clocked({"ours": 0.1, "slow": 0.3, "fast": 0.05})
    times = take_turns(sides.timers(), {"ours": 5, "slow": 2, "fast": 9}, rounds=4, pause=0)
    assert ratio(times["ours"], times["slow"]) == pytest.approx(
        {"median": 3.0, "low": 3.0, "high": 3.0}
    )
    assert ratio(times["ours"], times["fast"])["median"] == pytest.approx(0.5)


def test_blocks_take_turns_and_the_order_turns_round():
    sides = Clocked({"a": 1.0, "b": 1.0, "c": 1.0})
    take_turns(sides.timers(), {"a": 1, "b": 2, "c": 3}, rounds=3, pause=0)
    forth, back = [("a", 1), ("b", 2), ("c", 3)], [("c", 3), ("b", 2), ("a", 1)]
    assert sides.log == forth + back + forth


def test_a_drifting_machine_moves_the_times_and_not_the_ratio():
    sides = Clocked({"ours": 1.0, "peer": 1.5}, drift=1.1)
    times = take_turns(sides.timers(), {"ours": 1, "peer": 1}, rounds=6, pause=0)
    assert times["ours"][-1] > 2.5 * times["ours"][0]
    found = ratio(times["ours"], times["peer"])
    assert found["low"] == pytest.approx(1.5 / 1.1)
    assert found["high"] == pytest.approx(1.5 * 1.1)
    assert found["median"] == pytest.approx(1.5, rel=0.01)


def test_ratio_is_of_pairs():
    assert ratio([1, 2, 10], [2, 2, 50]) == {"median": 2, "low": 1, "high": 5}


@pytest.mark.parametrize(("unit", "count"), [(10.0, 1), (0.5, 1), (0.01, 50), (1e-9, LONGEST)])
def test_calibrate_fills_a_block(unit, count):
    assert calibrate(lambda n: n * unit, 0.5) == count


def test_calibrate_follows_what_becomes_faster_in_larger_blocks():
    """A call costs 1 s besides 0.01 s for each unit, as a compiled loop over updates might."""
    found = calibrate(lambda n: 1 + 0.01 * n, 3.0)
    assert 2.0 < 1 + 0.01 * found < 4.5


def test_calibrate_runs_each_size_before_it_times_it():
    asked = []
    calibrate(lambda n: asked.append(n) or n * 0.1, 0.5)
    assert asked == [1, 1, 5, 5]


# --- workers ------------------------------------------------------------------------------------


def test_worker_times_with_its_own_clock(subject):
    with Worker("slow") as worker:
        worker.start(subject, unit=2.0)
        assert worker.time(3) == 6.0
        assert worker.start(subject, unit=0.5) == {"device": "cpu", "ran": []}
        assert worker.time(4) == 2.0


def test_worker_sleeps_while_it_waits(subject):
    with Worker("idle") as worker:
        worker.start(subject)
        worker.time(1)
        worker.idle = 0.0
        take_turns({"idle": worker.time}, {"idle": 1}, rounds=2, pause=0.3)
        assert worker.idle < 0.05


def test_worker_tells_its_memory(subject):
    with Worker("memory") as worker:
        worker.start(subject)
        memory = worker.memory()
    assert memory["device"] is None
    assert 1e6 < memory["host"] < 200e6  # a bare Python, not the parent that started it


def test_what_libraries_print_is_no_answer(subject):
    with Worker("loud") as worker:
        worker.start(subject, do="print")
        assert worker.time(1) == 1.0


def test_worker_names_a_missing_package(subject):
    with Worker("poor") as worker, pytest.raises(MissingPackageError) as found:
        worker.start(subject, do="import")
    assert found.value.package == "a_package_that_is_not_there"


def test_worker_passes_an_error_on(subject):
    with Worker("ours") as worker:
        with pytest.raises(VGFError, match=r"^ours: ZeroDivisionError: too deep"):
            worker.start(subject, do="fail")
        worker.start(subject)  # and goes on
        assert worker.time(1) == 1.0


def test_worker_that_dies_is_heard(subject):
    with (
        Worker("mortal") as worker,
        pytest.raises(VGFError, match=r"(?s)mortal.*status 3.*the last words"),
    ):
        worker.start(subject, do="die")


def test_no_such_python(tmp_path):
    with pytest.raises(VGFError, match=r"peer: cannot run .*nothing: No such file"):
        Worker("peer", str(tmp_path / "nothing"))


def test_worker_ends_with_its_block(subject):
    with Worker("a") as worker:
        worker.start(subject)
        process = worker._process
    assert process.poll() == 0


def test_our_modules_do_not_stand_before_those_of_a_peer(tmp_path):
    """worker.py runs as a file, whose folder Python puts first: it must not stay there."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        SUBJECT + "\n\n_start = start\ndef start():\n    import work\n    return _start()\n"
    )
    with Worker("peer") as worker, pytest.raises(MissingPackageError):
        worker.start(str(probe))

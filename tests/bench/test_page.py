"""The page of the benchmark, on made-up records."""

from __future__ import annotations

import json

import pytest

from validation import bench
from vgf.bench.machine import machine
from vgf.bench.training import compare
from vgf.bench.work import FULL, RECORDED
from vgf.support.errors import VGFError

PEER = "ryanxhr/vgf"


def side(seconds, ours):
    return {
        "ours": ours,
        "seconds": seconds,
        "memory": {"host": 5e8, "device": None},
        "device": "cpu",
    }


def row(name, ours, theirs, precision="float32", theirs_in=None, seeds=1, **sides):
    found = {
        "name": name,
        "title": name,
        "work": {"name": name, "seeds": seeds},
        "flops": 1e9,
        "state_bytes": 1e6,
        "matmul_precision": precision,
        "intensity": 50.0,
        "peer_matmul_precision": theirs_in or precision,
        "product": {"library": "numpy", "flops": 1e7, "seconds": [1e-3] * 2},
        "sides": {"jax": side([ours] * 2, True), **sides, PEER: side([theirs] * 2, False)},
    }
    return compare(found, bandwidth=1e10)


def record(*rows, device="cpu", bf16=1e9, **more):
    products = [
        {"library": "torch", "precision": precision, "m": 8, "k": 8, "rate": rate}
        for precision, rate in (("float32", 1e10), ("bf16", bf16))
    ]
    return {
        "kind": "training",
        "machine": machine(),
        "environment": {"git_revision": "abc", "versions": {"numpy": "2"}},
        "plan": {},
        "rows": list(rows),
        "peers": {PEER: {"revision": "123", "versions": {"jax": "1"}}},
        "roofs": {
            "device": device,
            "device_name": None if device == "cpu" else "a GPU",
            "products": products,
            "bandwidth": {"memory": 1e10, "cache": 5e10},
        },
        **more,
    }


def verdicts(*records):
    return {v.claim: v.holds for v in bench.judge(bench.join(records))}


def test_goals_are_judged_by_their_ratios():
    full, small = FULL.name, bench.SMALL
    good = verdicts(record(row(full, 1.0, 1.4), row(small, 1.0, 2.1)))
    assert len(good) == 3
    assert all(good.values())
    bad = verdicts(record(row(full, 1.0, 1.1), row(small, 1.0, 1.9)))
    assert len(bad) == 3
    assert not any(bad.values())


def test_the_better_side_counts_where_the_goal_says_so():
    """torch is the faster: it reaches the goal of the better, and not that of JAX."""
    found = verdicts(record(row(FULL.name, 1.0, 1.1, torch=side([0.5] * 2, True))))
    assert sorted(found.values()) == [False, True]


def test_a_recorded_time_proves_no_goal():
    found = row(FULL.name, 1.0, 9.0)
    found["sides"]["jax"]["ratios"][PEER]["interleaved"] = False
    assert verdicts(record(found)) == {}


def test_a_gpu_has_goals_of_its_own():
    full = FULL.name
    found = verdicts(
        record(row(full, 1.0, 1.4), row(full, 1.0, 2.1, "tf32"), row("x", 1.0, 9.0), device="gpu:0")
    )
    assert found == {
        "it is at least twice as fast at the full size, float32": False,
        "it is at least twice as fast at the full size, tf32": True,
    }


@pytest.mark.parametrize(("seconds", "good"), [(0.2, True), (0.3, False)])
def test_agents_side_by_side_are_judged(seconds, good):
    """`seconds` is the time of one agent's update among eight: 0.2 x 8 is less than 2 x 1."""
    rows = row(bench.SMALL, 1.0, 2.0), row(bench.SMALL, seconds, 2.0, seeds=8)
    found = verdicts(record(*rows, device="gpu:0"))
    (time,) = (holds for claim, holds in found.items() if "less than twice the time" in claim)
    (rate,) = (holds for claim, holds in found.items() if "times the updates" in claim)
    assert (time, rate) == (good, good)
    assert not any("side by side" in claim for claim in verdicts(record(*rows)))
    alone = verdicts(record(rows[1], device="gpu:0"))
    assert not any("less than twice the time" in claim for claim in alone)


def test_matrix_units_have_a_goal_and_a_page_of_their_own():
    with_amx = {**machine(), "instructions": ["avx2", "amx_bf16"]}
    assert bench.kind_of("cpu", with_amx) == "amx"
    assert bench.kind_of("gpu:0", with_amx) == "gpu"
    assert bench.kind_of("cpu", {**with_amx, "instructions": ["avx2", "avx512f"]}) == "avx512"
    assert bench.kind_of("cpu", {**machine(), "instructions": ["avx2"]}) == "cpu"
    fast = row(FULL.name, 1.0, 4.1, "bf16", "float32")
    (claim,) = verdicts(record(fast, machine=with_amx)).items()
    assert claim == (
        "in bf16 it is at least 4 times as fast as the authors' code in float32 at the full size",
        True,
    )
    assert not verdicts(record(fast, machine={**with_amx, "instructions": ["avx2"]}))
    assert not verdicts(record(row(FULL.name, 1.0, 4.1, "bf16"), machine=with_amx))
    told = " ".join(bench.remarks(bench.join([record(fast, machine=with_amx)])))
    assert "the peers' products are in float32" in told


def test_evaluation_and_start_are_judged():
    environment = {"git_revision": "abc", "versions": {}}
    shared = {"machine": machine(), "environment": environment}
    sides = {
        "ours": {
            "ours": True,
            "seconds": [1.0],
            "ratios": {PEER: {"median": 4.0, "low": 4.0, "high": 4.0, "interleaved": True}},
        }
    }
    evaluated = {
        **shared,
        "kind": "evaluation",
        "plan": {},
        "peers": {},
        "rows": [{"task": "pointmaze-medium", "title": "it", "sides": sides}],
    }
    seconds = {bench.IMPORT: [0.1, 0.2, 0.5], bench.HELP: [0.4]}
    started = {**shared, "kind": "startup", "rows": [{"seconds": seconds}]}
    found = verdicts(record(row("x", 1.0, 1.0)), evaluated, started)
    assert list(found.values()) == [False, True, False]
    seconds |= {name: [0.5, 0.9] for name, _ in bench.BESIDE.values()}
    seconds |= {what: [0.6, 1.0 + most] for what, (_, most) in bench.BESIDE.items()}
    seconds[bench.REPORT] = [0.7, 1.1]
    found = verdicts(record(row("x", 1.0, 1.0)), started)
    assert [held for claim, held in found.items() if "beside its imports" in claim] == [
        what == bench.REPORT for what in bench.BESIDE
    ]


def test_remarks_say_what_bf16_can_give():
    slow = " ".join(bench.remarks(bench.join([record(row("x", 1.0, 1.0), bf16=1e9)])))
    fast = " ".join(bench.remarks(bench.join([record(row("x", 1.0, 1.0), bf16=1e12)])))
    assert "bf16 gains nothing here" in slow
    assert "in GFLOP/s, 10 in float32, 1 in bf16" in slow
    assert "bf16 may be faster here" in fast
    assert f"{PEER} at 123, with jax 1." in slow


def test_what_is_in_the_way_is_what_is_furthest_above_its_limit():
    part = lambda seconds, least: {"seconds": [seconds], "limit_seconds": least}
    parts = {
        bench.WHOLE: part(10.0, 5.0),
        bench.DISPATCH: part(3.0, 0.0),
        "score": part(6.0, 4.5),
        "kernel": part(2.0, 0.0),
        "noise": part(0.5, 0.0),
        "batch": part(0.1, 0.0),
    }
    text = bench.in_the_way({"name": "w", "side": "jax", "parts": parts})
    assert "reaches 50 % of its limit" in text
    assert text.endswith("kernel 20 %, score 15 %, noise 5 %.")


def test_records_are_joined():
    names = [work.name for work in RECORDED]
    first, second = record(row(names[2], 1.0, 1.0)), record(row(names[0], 1.0, 1.0))
    second["roofs"]["products"][0]["rate"] = 3e10
    second["roofs"]["bandwidth"]["memory"] = 5.0
    found = bench.join([first, second])
    assert [r["name"] for r in found["rows"]] == [names[0], names[2]]
    assert [p["rate"] for p in found["products"]] == [1e9, 3e10]
    assert found["bandwidth"]["memory"] == 1e10
    other = record(row(names[0], 1.0, 1.0), machine={**machine(), "cores": 99})
    with pytest.raises(VGFError, match="different machines"):
        bench.join([first, other])
    with pytest.raises(VGFError, match="different devices"):
        bench.join([first, record(device="gpu:0")])
    with pytest.raises(VGFError, match="no record of training"):
        bench.join([])


@pytest.mark.full
def test_page(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "r.json"
    plain = {**machine(), "instructions": ["avx2"]}
    path.write_text(json.dumps(record(row(FULL.name, 1.0, 1.4), machine=plain)))
    assert bench.main([str(path), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "bench-cpu.md").read_text()
    assert "1.40 (1.40-1.40)" in text
    assert "python -m validation.bench RECORD ..." in text
    assert str(tmp_path) not in text + (tmp_path / "bench-cpu.json").read_text()
    assert (tmp_path / "bench-cpu.svg").exists()
    path.write_text(json.dumps(record(row(FULL.name, 1.0, 1.0))))
    assert bench.main([str(path), "--out", str(tmp_path)]) == 1
    for content, message in (("{", "not JSON"), ("{}", "not a record of vgf bench")):
        path.write_text(content)
        assert bench.main([str(path), "--out", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err

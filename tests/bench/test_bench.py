"""`vgf bench`, with made-up checkouts in the place of other people's."""

from __future__ import annotations

import json
import statistics
import sys
import textwrap
from pathlib import Path

import pytest
from needs import need

from vgf import cli
from vgf.bench.machine import machine, processor
from vgf.bench.training import compare, row_text
from vgf.bench.work import SMOKE

# What a peer's checkout has of what is used, without a framework. Each update takes as long as it
# is told to, on the clock of its own process.
DATASETS = """
import numpy as np

class Dataset(dict):
    @classmethod
    def create(cls, **fields):
        assert set(fields) == {"observations", "actions", "rewards", "masks", "terminals",
                               "next_observations"}
        return cls(fields)
    def sample(self, size):
        rows = np.random.randint(len(self["rewards"]), size=size)
        return {key: value[rows] for key, value in self.items()}
"""
AGENT = """
import json, time
BEFORE

now = 0.0
time.perf_counter = lambda: now

class AGENT:
    def __init__(self, config):
        self.config = config
    @classmethod
    def create(cls, seed, observations, actions, config):
        assert observations.shape == (1, 6) and actions.shape == (1, 2)
        return cls(config)
    def update(self, batch):
        global now
        assert batch["observations"].shape == (self.config["batch_size"], 6)
        now += SECONDS
        return self, {"config": self.config}

def get_config():
    return dict.fromkeys(["batch_size", "value_hidden_dims", "actor_hidden_dims", SETTINGS])
"""
VGF_SETTINGS = '"bc_flow_steps", "vgf_particles", "train_vgf_steps"'

pytestmark = pytest.mark.full  # each measures in processes of its own


def checkout(folder: Path, seconds: float = 1.0, before: str = "", settings: str = VGF_SETTINGS):
    """A made-up checkout of ryanxhr/vgf."""
    for name, text in {
        "agents/__init__.py": "",
        "utils/__init__.py": "",
        "utils/datasets.py": DATASETS,
        **{
            f"agents/{module}.py": AGENT.replace("AGENT", agent)
            .replace("SECONDS", str(seconds))
            .replace("BEFORE", before)
            .replace("SETTINGS", settings)
            for module, agent in (("vgf", "VGFAgent"), ("a_vgf", "AVGFAgent"))
        },
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def bench(*words: str | Path) -> int:
    return cli.main(["bench", *map(str, words)])


QUICK = ("--quick", "--backend", "numpy", "--rounds", "2")


@pytest.mark.slow
def test_a_slow_peer_and_a_fast_one(tmp_path, capsys):
    """What a peer takes is its own clock's: a year for an update, or nothing to speak of."""
    for name, seconds, above in (("slow", 3e7, True), ("fast", 1e-9, False)):
        out = tmp_path / f"{name}.json"
        peer = checkout(tmp_path / name, seconds)
        assert bench(*QUICK, "--peer", f"ryanxhr/vgf={peer}", "--out", out) == 0
        (row,) = json.loads(out.read_text())["rows"]
        assert row["sides"]["ryanxhr/vgf"]["seconds"] == pytest.approx([seconds] * 2)
        found = row["sides"]["numpy"]["ratios"]["ryanxhr/vgf"]
        assert (found["low"] > 1) is above
        assert (found["high"] < 1) is not above
        assert found["interleaved"]
        text = capsys.readouterr().out
        assert "x ryanxhr/vgf" in text
        assert max(map(len, text.replace(str(out), "").splitlines())) <= 80 or name == "slow"


def test_the_record_is_whole(tmp_path):
    out = tmp_path / "b.json"
    peer = checkout(tmp_path / "peer")
    words = (*QUICK, "--peer", f"ryanxhr/vgf={peer}", "--out", out)
    assert bench(*words) == 0
    record = json.loads(out.read_text())
    assert record["machine"] == machine()
    assert record["environment"]["versions"]["numpy"]
    assert record["peers"]["ryanxhr/vgf"]["versions"]["python"] == sys.version.split()[0]
    (row,) = record["rows"]
    assert row["name"] == SMOKE.name
    mine = row["sides"]["numpy"]
    assert len(mine["seconds"]) == len(row["product"]["seconds"]) == 2
    assert mine["memory"]["device"] is None
    assert mine["memory"]["host"] > 1e7
    assert mine["idle"] < 1.0
    rate = [row["product"]["flops"] / s for s in row["product"]["seconds"]]
    bandwidth = record["roofs"]["bandwidth"]["memory"]
    least = [max(row["flops"] / r, row["state_bytes"] / bandwidth) for r in rate]
    assert row["limit_seconds"] == pytest.approx(least)
    fraction = [a / b for a, b in zip(least, mine["seconds"], strict=True)]
    assert mine["of_limit"]["median"] == pytest.approx(statistics.median(fraction))
    assert 0 < mine["of_limit"]["high"] < 1
    assert {p["precision"] for p in record["roofs"]["products"]} == {"float32"}  # NumPy has no bf16


@pytest.mark.slow
def test_a_recorded_peer_is_told_from_one_at_hand(tmp_path, capsys):
    before, out = tmp_path / "before.json", tmp_path / "now.json"
    peer = checkout(tmp_path / "peer", 3e7)
    assert bench(*QUICK, "--peer", f"ryanxhr/vgf={peer}", "--out", before) == 0
    capsys.readouterr()
    assert bench(*QUICK, "--against", before, "--out", out) == 0
    text = capsys.readouterr().out
    assert "recorded time, not by turns" in text
    (row,) = json.loads(out.read_text())["rows"]
    assert list(row["sides"]) == ["numpy"]
    found = row["sides"]["numpy"]["ratios"]["ryanxhr/vgf"]
    assert not found["interleaved"]
    assert found["median"] == pytest.approx(
        3e7 / statistics.median(row["sides"]["numpy"]["seconds"])
    )
    # of another size nothing was recorded, and nothing is said
    assert bench(*QUICK, "--width", 8, "--against", before, "--out", out) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["sides"]["numpy"]["ratios"] == {}


@pytest.mark.slow
def test_amortised_and_seeds(tmp_path):
    out = tmp_path / "b.json"
    peer = checkout(tmp_path / "peer", 3e7)
    words = ("--method", "avgf", "--seeds", 3, "--peer", f"ryanxhr/vgf={peer}", "--out", out)
    assert bench(*QUICK, *words) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["title"].startswith("avgf,")
    assert row["title"].endswith("3 seeds")
    assert row["sides"]["ryanxhr/vgf"]["seconds"] == pytest.approx([3e7] * 2)


@pytest.mark.slow
def test_peers_know_their_own_methods_only(tmp_path):
    """FQL's baseline is not compared with code that has none."""
    out = tmp_path / "b.json"
    peer = checkout(tmp_path / "peer")
    words = ("--method", "fql", "--peer", f"ryanxhr/vgf={peer}", "--out", out)
    assert bench(*QUICK, *words) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert list(row["sides"]) == ["numpy"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vgf", "avgf", "fql"])
def test_profile(method, tmp_path, capsys):
    out = tmp_path / "p.json"
    assert bench(*QUICK, "--profile", "--method", method, "--out", out) == 0
    (found,) = json.loads(out.read_text())["profiles"]
    names = list(found["parts"])
    assert names[:2] == ["whole update", "dispatch"]
    own = {
        "vgf": {"score", "kernel", "particle step"},
        "avgf": {"field", "field gradient"},
        "fql": {"policy gradient"},
    }
    every = {
        "batch",
        "noise",
        "propose",
        "target",
        "critic gradient",
        "reference gradient",
        "optimiser",
        "target network",
    }
    assert every | own[method] <= set(names)
    assert found["parts"]["whole update"]["share"] == 1.0
    parts = {k: v for k, v in found["parts"].items() if k not in ("whole update", "dispatch")}
    assert sum(row["flops"] for row in parts.values()) == found["parts"]["whole update"]["flops"]
    assert sum(row["bytes"] for row in parts.values()) == found["parts"]["whole update"]["bytes"]
    whole = found["parts"]["whole update"]["seconds"]
    for part in parts.values():
        shares = [s / w for s, w in zip(part["seconds"], whole, strict=True)]
        assert part["share"] == pytest.approx(statistics.median(shares))
    assert max(map(len, capsys.readouterr().out.replace(str(out), "").splitlines())) <= 80


@pytest.mark.slow
def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    assert bench(*QUICK, "--plot", tmp_path / "roof") == 0
    assert (tmp_path / "roof.svg").stat().st_size > 1000
    assert (tmp_path / "roof.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("side", ["jax", "torch-eager"])
def test_other_sides(side, tmp_path):
    need(side.partition("-")[0])
    out = tmp_path / "b.json"
    assert bench("--quick", "--backend", side, "--rounds", 2, "--out", out) == 0
    record = json.loads(out.read_text())
    assert {p["precision"] for p in record["roofs"]["products"]} >= {"float32", "bf16"}
    assert record["rows"][0]["sides"][side]["ours"]


def test_memory(tmp_path, capsys):
    out = tmp_path / "m.json"
    assert bench("memory", "--quick", "--out", out) == 0
    record = json.loads(out.read_text())
    assert [row["memory"] for row in record["rows"]] == ["memory", "mapped"]
    assert "new / data" in capsys.readouterr().out


@pytest.mark.slow
def test_startup(tmp_path, capsys):
    pytest.importorskip("safetensors")
    out = tmp_path / "s.json"
    words = ("startup", "--quick", "--backend", "numpy", "--rounds", "1", "--out", out)
    assert bench(*words) == 0
    (row,) = json.loads(out.read_text())["rows"]
    seconds = {name: found[0] for name, found in row["seconds"].items()}
    assert 0 < seconds["python alone"] < seconds["numpy, compiled before"]
    assert seconds.keys() >= {"import vgf", "vgf --help", "numpy, compiled anew"}
    assert seconds.keys() >= {"vgf check phi in numpy", "import numpy"}
    assert seconds.keys() >= {"vgf report", "imports of vgf report", "vgf run --help-all"}
    assert "first update, numpy, compiled before" in capsys.readouterr().out


EVALUATION = """
import numpy as np, time

now = 0.0
time.perf_counter = lambda: now

def evaluate_vgf_multiple(agent, env, eval_step_list, num_eval_episodes):
    global now
    for _ in range(len(eval_step_list) * num_eval_episodes):
        env.reset()
        over = False
        while not over:
            over = any(env.step(np.zeros(2))[2:4])
            now += 1e6
"""
# The evaluation needs JAX's name of the device, and no more of it.
EVALUATED = """
import sys, types
sys.modules["jax"] = types.SimpleNamespace(devices=lambda: [types.SimpleNamespace(platform="cpu")])

class VGFAgent:
    @classmethod
    def create(cls, seed, observations, actions, config):
        return cls()

def get_config():
    return dict.fromkeys(["value_hidden_dims", "actor_hidden_dims", "bc_flow_steps",
                          "vgf_particles"])
"""


@pytest.mark.slow
def test_evaluation(tmp_path, capsys):
    """Twelve days for a step of theirs: ours is faster, whatever the machine does meanwhile."""
    need("ogbench")
    peer, out = checkout(tmp_path), tmp_path / "e.json"
    (peer / "agents/vgf.py").write_text(EVALUATED)
    (peer / "utils/evaluation.py").write_text(EVALUATION)
    words = (
        "evaluation",
        "--quick",
        "--backend",
        "numpy",
        "--workers",
        "0",
        "--width",
        "8",
        "--out",
        out,
    )
    assert bench(*words, "--peer", f"ryanxhr/vgf={peer}") == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert "2 x 8, N 3, K 2" in row["title"]
    assert row["sides"]["ryanxhr/vgf"]["seconds"] == pytest.approx([1e6] * 2)
    found = row["sides"]["ours"]["ratios"]["ryanxhr/vgf"]
    assert found["low"] > 1e4
    both = zip(row["simulator_seconds"], row["products_seconds"], strict=True)
    assert row["limit_seconds"] == [a + b for a, b in both]
    assert row["flops"] > 0
    assert row["sides"]["ours"]["of_limit"]["median"] > 0
    assert "the simulator alone, on all cores" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["training", "evaluation", "startup", "memory"])
def test_help_fits_80_columns(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        bench(kind, "--help")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


# --- what is refused ----------------------------------------------------------------------------


def refused(capsys, *words: str | Path) -> str:
    assert bench(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") or "\nerror: " in error
    assert "Traceback (most recent call last)" not in error
    return error


def test_requests_that_make_no_sense(tmp_path, capsys):
    peer = f"ryanxhr/vgf={tmp_path}"
    assert "PATH being a checkout" in refused(capsys, *QUICK, "--peer", "ryanxhr/vgf")
    assert "choose one of ryanxhr/vgf" in refused(capsys, *QUICK, "--peer", f"a/b={tmp_path}")
    text = refused(capsys, *QUICK, "--peer", peer)
    assert "agents/vgf.py" in text
    assert "git clone https://github.com/ryanxhr/vgf" in text
    assert "--rounds is 0" in refused(capsys, "--quick", "--rounds", "0")
    assert "--block-seconds is 0.0" in refused(capsys, "--quick", "--block-seconds", "0")
    assert "drop --work" in refused(capsys, "--quick", "--work", "recorded")
    assert "choose among vgf-4x512-n10-l5-o28" in refused(capsys, "--work", "big")
    assert "did you mean --profile" in refused(capsys, "--profil")
    text = refused(
        capsys, *QUICK, "--dtype", "float64", "--peer", f"ryanxhr/vgf={checkout(tmp_path)}"
    )
    assert "float32" in text
    assert "did you mean startup" in refused(capsys, "start-up")
    assert "--episodes is 0" in refused(capsys, "evaluation", "--episodes", "0")
    assert "--width is 0" in refused(capsys, "evaluation", "--width", "0")
    assert "--transitions is 0" in refused(capsys, "memory", "--transitions", "0")
    assert "--profile times ours alone" in refused(capsys, *QUICK, "--profile", "--plot", "x")


def test_a_record_of_something_else(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert "No such file" in refused(capsys, *QUICK, "--against", path)
    path.write_text("{")
    assert "not JSON" in refused(capsys, *QUICK, "--against", path)
    path.write_text("{}")
    assert "not a record of vgf bench" in refused(capsys, *QUICK, "--against", path)
    path.write_text(
        json.dumps({"kind": "training", "machine": {**machine(), "cores": 999}, "rows": []})
    )
    text = refused(capsys, *QUICK, "--against", path)
    assert "another machine (cores 999" in text


@pytest.mark.slow
def test_a_python_that_lacks_a_package(tmp_path, capsys):
    peer = checkout(tmp_path, before="import flax_that_is_missing.linen")
    text = refused(capsys, *QUICK, "--peer", f"ryanxhr/vgf={peer}")
    assert "ryanxhr/vgf needs flax_that_is_missing" in text
    assert f"{sys.executable} -m pip install flax_that_is_missing" in text
    text = refused(capsys, *QUICK, "--peer", f"ryanxhr/vgf={peer}", "--peer-python", "no/such")
    assert "cannot run no/such" in text


def test_a_checkout_that_has_changed(tmp_path, capsys):
    peer = checkout(tmp_path, settings='"bc_flow_steps", "vgf_particles"')
    text = refused(capsys, *QUICK, "--peer", f"ryanxhr/vgf={peer}")
    assert "has no setting train_vgf_steps" in text


def test_nothing_is_measured_before_a_folder_is_found_missing(tmp_path, capsys):
    place = tmp_path / "file"
    place.write_text("")
    text = refused(capsys, *QUICK, "--out", place / "b.json")
    assert "is not a folder" in text
    assert "GFLOP" not in capsys.readouterr().out


# --- arithmetic ---------------------------------------------------------------------------------


def side(seconds, ours):
    return {"ours": ours, "seconds": seconds, "memory": {"host": 1e6, "device": None}}


def row(**sides):
    return {
        "work": {"seeds": 1},
        "title": "t",
        "flops": 100,
        "state_bytes": 10,
        "product": {"library": "numpy", "flops": 10, "seconds": [1.0, 2.0, 1.0]},
        "sides": sides,
    }


def test_ratios_and_fractions_are_of_pairs():
    """A machine that is half as fast in the second round moves neither."""
    found = compare(
        row(jax=side([20.0, 40.0, 20.0], True), peer=side([30.0, 60.0, 31.0], False)), 1e9
    )
    assert found["limit_seconds"] == [10.0, 20.0, 10.0]
    assert found["sides"]["jax"]["of_limit"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert found["sides"]["jax"]["ratios"]["peer"] == {
        "median": 1.5,
        "low": 1.5,
        "high": 1.55,
        "interleaved": True,
    }
    assert "ratios" not in found["sides"]["peer"]
    text = row_text(found)
    assert "1.50 (1.50-1.55)" in text
    assert "50 %" in text


def test_bytes_are_the_limit_where_they_take_longer():
    found = compare(row(jax=side([20.0, 40.0, 20.0], True)), bandwidth=0.5)
    assert found["limit_seconds"] == [20.0, 20.0, 20.0]


def test_processor_is_named():
    assert processor()
    assert machine()["cores"] >= 1

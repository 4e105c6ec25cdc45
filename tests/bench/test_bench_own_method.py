"""`vgf bench` of a method that this repository has never heard of, in a user's own file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vgf import cli
from vgf.backends import missing_packages
from vgf.bench import limits
from vgf.bench.training import compare, row_text
from vgf.bench.work import SMOKE, Work
from vgf.support.errors import VGFError

pytestmark = pytest.mark.full  # each measures in processes of its own

MINE = """
from vgf.methods import Budget, Method, NetworkShape

class Mine(Method):
    \"\"\"BC with a state value of its own, which is fitted to the rewards.\"\"\"

    title = "mine"
    defaults = {"budget": Budget(steps=0)}
    trains = ("reference", "value")

    def networks(self, o, d, settings):
        return {"value": NetworkShape(o, 1, settings.reference)}

    def gradients(self, eq, state, batch, noise, settings):
        reference, metrics = self.reference_gradient(eq, state, batch, noise, settings)

        def loss(params):
            v = eq.mlp(params, batch["observations"], settings.reference.activation)[..., 0]
            return ((v - batch["rewards"]) ** 2).mean()

        error, value = eq.value_and_gradient(loss, state["value"])
        return {"reference": reference, "value": value}, {**metrics, "value_loss": error}


class Bare(Mine):
    \"\"\"It multiplies without an equation.\"\"\"

    trains = ("value",)

    def gradients(self, eq, state, batch, noise, settings):
        def loss(params):
            x = batch["observations"]
            for name in sorted(params):
                x = x @ params[name]["kernel"]
            return (x ** 2).mean()

        error, value = eq.value_and_gradient(loss, state["value"])
        return {"value": value}, {"value_loss": error}


class Asks(Mine):
    \"\"\"What it asks of the backend only torch and JAX have.\"\"\"

    def gradients(self, eq, state, batch, noise, settings):
        assert eq.name in ("torch", "jax")
        return super().gradients(eq, state, batch, noise, settings)
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return str(path)


def bench(*words: str | Path) -> int:
    return cli.main(["bench", *map(str, words)])


def quick(method: str) -> Work:
    sizes = {"observation_dim": 6, "action_dim": 2, "depth": 2, "width": 16, "batch_size": 16}
    return Work(method, steps=0, **sizes)


@pytest.mark.slow
def test_it_is_timed_beside_its_limit(mine, tmp_path, capsys):
    sides = [side for side in ("jax", "torch-eager") if not missing_packages(side.split("-")[0])]
    if not sides:
        pytest.skip("neither torch nor jax is installed")
    out = tmp_path / "b.json"
    words = ("--method", f"{mine}:Mine", "--backend", *sides, "--rounds", 2, "--out", out)
    assert bench("--quick", *words) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["work"]["method"] == f"{mine}:Mine"
    assert list(row["sides"]) == sides
    for side in row["sides"].values():
        assert side["ours"]
        assert 0 < side["of_limit"]["median"] < 1
    assert "at the least" in capsys.readouterr().out


def test_its_products_are_counted_by_hand(mine):
    """A value network on the state, fitted; and the reference, fitted."""
    work = quick(f"{mine}:Mine")
    b, o, d, h = 16, 6, 2, 16
    forward = 2 * b * (o * h + h * h + h)
    found = {name: sum(p.flops for p in given) for name, given in limits.parts(work).items()}
    assert found == {
        # forward, the kernels, and back through all layers but the first
        "own gradient": 2 * forward + 2 * b * (h * h + h),
        "reference gradient": 2 * b * (2 * ((o + d + 1) * h + h * h + h * d) + h * h + h * d),
    }
    assert limits.parameters(work).keys() == {"reference", "value"}
    assert limits.target_bytes(work) == 0


@pytest.mark.slow
def test_profile(mine, tmp_path):
    if missing_packages("jax"):
        pytest.skip("jax is not installed")
    out = tmp_path / "p.json"
    words = ("--profile", "--method", f"{mine}:Mine", "--backend", "jax", "--rounds", 2)
    assert bench("--quick", *words, "--out", out) == 0
    (found,) = json.loads(out.read_text())["profiles"]
    assert {"whole update", "batch", "reference gradient", "optimiser"} <= found["parts"].keys()
    assert "target network" not in found["parts"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "why"), [("Bare", "multiplies no"), ("Asks", "cannot be count")])
def test_no_limit_is_made_up(mine, name, why, tmp_path, capsys):
    with pytest.raises(VGFError, match=f"no limit is known for method .*{name}: .*{why}"):
        limits.flops(quick(f"{mine}:{name}"))
    if missing_packages("jax"):
        pytest.skip("jax is not installed")
    out = tmp_path / "b.json"
    words = ("--method", f"{mine}:{name}", "--backend", "jax", "--rounds", 2, "--out", out)
    assert bench("--quick", *words) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert "of_limit" not in row["sides"]["jax"]
    assert len(row["sides"]["jax"]["seconds"]) == 2
    text = capsys.readouterr().out
    assert "no limit is known" in text
    assert "of limit" not in text


def test_a_method_by_its_module(mine, monkeypatch):
    monkeypatch.syspath_prepend(Path(mine).parent)
    assert Work("mine:Mine", steps=0).settings().method == "mine:Mine"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ppo", "choose one of vgf, avgf, bc, weighted_bc, fql, "),
        ("no_such_module:Mine", "no module 'no_such_module'"),
        ("FILE:Other", "has no Other"),
        ("FILE:NetworkShape", "it must be a class derived from"),
        ("vgf.spec:Specification", "a specification, which only NumPy runs"),
    ],
)
def test_no_such_method(mine, method, message, capsys):
    assert bench("--quick", "--method", method.replace("FILE", mine)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_numpy_runs_specifications_only(mine, capsys):
    assert bench("--quick", "--method", f"{mine}:Mine", "--backend", "numpy") == 2
    captured = capsys.readouterr()
    assert "has no `specification`, which NumPy runs" in captured.err
    assert "GFLOP" not in captured.out


@pytest.mark.parametrize("method", ["bc", "weighted_bc"])
def test_our_other_methods_have_limits(method):
    work = Work(method, steps=0, width=16, depth=2, batch_size=8)
    assert limits.flops(work) > 0
    assert work.name == f"{method}-2x16-n10-o28"
    with pytest.raises(VGFError, match="moves no particles; drop --steps"):
        Work(method, steps=3)


def test_ratios_do_without_a_limit():
    ours = {"ours": True, "seconds": [2.0, 4.0], "memory": {"host": 1e6, "device": None}}
    row = {
        "work": {"seeds": 1},
        "title": SMOKE.title,
        "no_limit": "no limit is known for method x: " + "because " * 20,
        "product": {"library": "numpy", "flops": 10, "seconds": [1.0, 1.0]},
        "sides": {"jax": ours, "peer": {**ours, "ours": False, "seconds": [6.0, 12.0]}},
    }
    found = compare(row, 1e9)
    assert found["sides"]["jax"]["ratios"]["peer"]["median"] == 3.0
    text = row_text(found)
    assert "3.00 (3.00-3.00)" in text
    assert max(map(len, text.splitlines())) <= 80

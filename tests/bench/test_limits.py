"""What an update has to do: by hand, and beside the products that the specification makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vgf import spec
from vgf.bench import limits
from vgf.bench.limits import Product
from vgf.bench.work import RECORDED, Work, choose
from vgf.spec.optimiser import tree_map
from vgf.support.errors import VGFError

RESULTS = Path(__file__).parents[2] / "validation/results"
SMALL = {
    "observation_dim": 7,
    "action_dim": 3,
    "depth": 3,
    "width": 8,
    "batch_size": 4,
    "sampling_steps": 2,
    "transitions": 4,
}


class Counted(np.ndarray):
    """An array that counts the matrix products it takes part in."""

    flops = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        bare = [x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(x.view(np.ndarray) for x in kwargs["out"])
        result = getattr(ufunc, method)(*bare, **kwargs)
        if ufunc is np.matmul:
            Counted.flops += 2 * result.size * bare[0].shape[-1]
        return result.view(Counted) if isinstance(result, np.ndarray) else result


def leaves(tree):
    """The arrays of a tree."""
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for value in tree.values() for leaf in leaves(value)]


def specification_flops(work: Work) -> int:
    """The matrix products of one update, as the specification makes them."""
    settings = work.settings()
    state = spec.init_state(0, work.observation_dim, work.action_dim, settings)
    batch = {key: value.astype(float) for key, value in work.dataset().items()}
    counted = lambda tree: tree_map(lambda x: np.asarray(x).view(Counted), tree)
    Counted.flops = 0
    spec.update(counted(state), counted(batch), settings)
    return Counted.flops


def dense(rows: int, inputs: int, work: Work, out: int) -> int:
    """Forward through a network, as it stands."""
    h = work.width
    return 2 * rows * (inputs * h + (work.depth - 1) * h * h + h * out)


def more_in_the_specification(work: Work) -> int:
    """What the specification does and an update could do without, counted by hand.

    The state's part of the first layer for every particle and every step; the gradient of the
    kernels and of the states where only that of the actions is wanted, and of the states wherever
    kernels are fitted; the forward pass again before each gradient; the time's row of the kernel.
    """
    o, d, h, b = work.observation_dim, work.action_dim, work.width, work.batch_size
    rows, steps = b * work.particles, work.steps
    first = 2 * o * h
    sampling = (rows * work.sampling_steps - b) * first + 2 * rows * work.sampling_steps * h
    target = 2 * (rows - b) * first
    whole = dense(1, o + d, work, 1)
    inputs = 2 * (o + d) * h
    critic = 2 * b * (whole + inputs)  # forward again, and back to the input
    reference = b * (dense(1, o + d + 1, work, d) + 2 * (o + d + 1) * h)
    extra = target + critic + reference
    if work.method != "fql":
        extra += sampling
    if work.method == "vgf":
        score = 2 * rows * steps * (2 * first + 2 * whole) - 2 * b * first * bool(steps)
        extra += score
    return extra


@pytest.mark.parametrize(
    "work",
    [Work("vgf", particles=5, steps=3, **SMALL), Work("vgf", particles=1, steps=0, **SMALL)],
    ids=lambda work: work.name,
)
def test_count_is_the_specifications_less_what_can_be_shared(work):
    assert specification_flops(work) == limits.flops(work) + more_in_the_specification(work)


@pytest.mark.parametrize("method", ["avgf", "fql"])
def test_count_is_below_the_specifications(method):
    sizes = {"particles": 1, "steps": 0} if method == "fql" else {"particles": 5, "steps": 3}
    work = Work(method, **sizes, **SMALL)
    assert 0.4 < limits.flops(work) / specification_flops(work) < 1


def test_by_hand():
    """One unit, one layer, one of everything: each product can be written down."""
    work = Work(
        observation_dim=1,
        action_dim=1,
        depth=1,
        width=1,
        batch_size=1,
        sampling_steps=1,
        particles=1,
        steps=1,
        transitions=1,
    )
    assert {name: sum(p.flops for p in found) for name, found in limits.parts(work).items()} == {
        "propose": 6,  # state, action, output
        "score": 2 * (6 + 4),  # two critics: forward, and back to the action
        "kernel": 2,
        "target": 12,
        "critic gradient": 2 * (6 + 2 + 6),  # forward, back through the output, kernels
        "reference gradient": 8 + 2 + 8,  # the time is an input too
    }
    assert limits.parameters(work) == {"critic": 2 * (2 + 1 + 1 + 1 + 2), "reference": 3 + 1 + 2}
    assert limits.state_bytes(work) == 4 * (6 * (14 + 6) + 2 * 14 + 5)
    assert limits.state_bytes(work, "float64") == 2 * limits.state_bytes(work)


def test_a_decision_by_hand():
    one = {
        "observation_dim": 1,
        "action_dim": 1,
        "depth": 1,
        "width": 1,
        "sampling_steps": 1,
        "particles": 1,
    }
    # sampling, and two critics' values: state, action, output
    assert limits.decision_flops(Work(steps=0, **one)) == 6 + 12
    # for each step both critics again, but for the state's part, and back; and the kernel
    assert limits.decision_flops(Work(steps=2, **one)) == 18 + 2 * (2 * (4 + 4) + 2)


def test_a_decision_is_the_specifications_less_what_can_be_shared():
    work = Work("vgf", particles=5, steps=3, **SMALL)
    settings = work.settings()
    state = spec.init_state(0, work.observation_dim, work.action_dim, settings)
    counted = lambda tree: tree_map(lambda x: np.asarray(x).view(Counted), tree)
    noise = spec.draw_act_noise(0, 0, 1, work.particles, work.action_dim)
    Counted.flops = 0
    spec.act(
        counted(state),
        np.ones((1, work.observation_dim)).view(Counted),
        settings.budget,
        settings,
        noise=counted(noise),
    )
    n, steps, h = work.particles, work.steps, work.width
    o, d = work.observation_dim, work.action_dim
    state_part, time, whole = 2 * o * h, 2 * h, dense(1, o + d, work, 1)
    # the state's part for every particle and step, the time's row, and for each gradient the
    # forward pass again, the way back to the state, and the gradient of the kernels
    sampling = (n * work.sampling_steps - 1) * state_part + n * work.sampling_steps * time
    values = 2 * (n * (steps + 1) - 1) * state_part
    gradients = 2 * n * steps * (state_part + 2 * whole)
    assert Counted.flops == limits.decision_flops(work) + sampling + values + gradients


def test_full_size_is_known():
    """135 GFLOP: sampling 41, the flow 81, the target 8, the gradients 3."""
    found = {k: sum(p.flops for p in v) / 1e9 for k, v in limits.parts(Work()).items()}
    assert {k: round(v) for k, v in found.items()} == {
        "propose": 41,
        "score": 81,
        "kernel": 0,
        "target": 8,
        "critic gradient": 2,
        "reference gradient": 1,
    }


@pytest.mark.parametrize("work", RECORDED, ids=lambda work: work.name)
def test_parameters_are_those_of_a_state(work):
    state = spec.init_state(0, work.observation_dim, work.action_dim, work.settings())
    sizes = limits.parameters(work)
    assert sizes.keys() == set(work.settings().networks)
    for name, size in sizes.items():
        assert sum(leaf.size for leaf in leaves(state[name])) == size, name


@pytest.mark.parametrize("page", ["cpu", "avx512", "amx", "gpu"])
def test_the_count_is_that_of_the_recorded_results(page):
    record = json.loads((RESULTS / f"bench-{page}.json").read_text())
    rows = record["data"]["rows"]
    assert rows
    for row in rows:
        work = Work(**row["work"])
        assert (work.name, limits.flops(work)) == (row["name"], row["flops"])
        assert limits.state_bytes(work) == row["state_bytes"]
        assert limits.intensity(work) == pytest.approx(row["intensity"], rel=1e-5)


def test_products():
    assert Product(2, 3, 4).flops == 48
    assert Product(2, 3, 4, 10).flops == 480
    assert Product(2, 3, 4).numbers == 6 + 12 + 8


def test_limit_is_the_slower_of_two():
    assert limits.limit(100, 10, rate=50, bandwidth=100) == 2
    assert limits.limit(100, 1000, rate=50, bandwidth=100) == 10


def test_works_have_names_that_are_taken_back():
    names = [work.name for work in RECORDED]
    assert len(set(names)) == len(names)
    assert choose(names, {}) == list(RECORDED)
    assert choose(None, {"width": 64, "depth": 2})[0].name == "vgf-2x64-n10-l5-o28"
    assert choose(None, {"method": "fql"})[0].name == "fql-4x512-o28"
    with pytest.raises(VGFError, match="vgf-4x512-n10-l5-o28"):
        choose(["full"], {})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": "ppo"}, "vgf, avgf, bc, weighted_bc, fql, "),
        ({"width": 0}, "--width is 0"),
        ({"steps": -1}, "steps"),
        ({"method": "fql", "particles": 4}, "one particle"),
    ],
)
def test_works_that_make_no_sense(changes, match):
    with pytest.raises(VGFError, match=match):
        choose(None, changes)


def test_settings_are_those_of_the_sizes():
    settings = Work("avgf", particles=5, steps=1, width=16).settings()
    assert settings.method == "avgf"
    assert settings.particles == 5
    assert settings.budget.steps == 1
    assert settings.clip_norm == 1.0
    assert settings.critic.hidden == (16, 16, 16, 16)
    assert settings.critic.layer_norm
    assert not settings.reference.layer_norm

"""What the backends do for speed gives what the plain way gives, at sizes where it sets in."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from needs import SECONDS, need

from vgf import Budget, get_backend, spec
from vgf.spec.networks import init_ensemble
from vgf.spec.settings import Network
from vgf.testing.training import ACTION_DIM, TRAININGS, batches, drift

pytestmark = pytest.mark.full  # each compiles for seconds on JAX
SETTINGS = TRAININGS["vgf flow squared"]


def critic(rng, width=16, size=2):
    return init_ensemble(rng, 6 + 3, Network((width, width), layer_norm=True), 1, size)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(steps=2, step_size=0.05, temperature=0.2),
        Budget(steps=2, step_size=0.05, optimiser="plain", temperature=None),
        Budget(steps=2, step_size=0.05, clip_norm=0.01, clip_scope="batch"),
    ],
)
@pytest.mark.parametrize("states", [1, 128, 131])  # 131: some states are left over
@pytest.mark.backend(dtypes=("float64",))
def test_many_states_move_as_the_specification_says(backend, states, budget):
    rng = np.random.default_rng(states)
    params, s = critic(rng), rng.standard_normal((states, 6))
    a = rng.uniform(-1, 1, (states, 10, 3))
    want = spec.critic_transport(params, s, a, budget)
    got = backend.critic_transport(*map(backend.asarray, (params, s, a)), budget)
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-9, atol=1e-11)


@pytest.mark.backend(dtypes=("float64",))
def test_many_states_move_along_an_amortised_gradient(backend):
    rng = np.random.default_rng(0)
    params = spec.init_mlp(rng, 9, Network((16, 16), layer_norm=True), 3)
    s, a = rng.standard_normal((131, 6)), rng.uniform(-1, 1, (131, 10, 3))
    budget = Budget(steps=3, step_size=0.1, temperature=None, clip_norm=1.0)
    want = spec.amortised_transport(params, s, a, budget)
    got = backend.amortised_transport(*map(backend.asarray, (params, s, a)), budget)
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-9, atol=1e-11)


@pytest.mark.backend(names=("jax",), dtypes=("float64",))
def test_an_entry_is_found_by_a_value_that_was_rounded_otherwise(backend):
    from vgf.backends.jax.flow import _entry_of

    entries = np.array([3.0, 0.0, 1.0, 2.0, 1.0, 0.5])
    eps = np.finfo(np.float64).eps
    for value, place, want in (
        *((1 + by * eps, place, index) for by in (-2, 0, 2) for place, index in ((2, 2), (3, 4))),
        (0.0, 0, 1),
        (1e-20, 0, 1),  # a zero that is none
        (2.0001, 4, 3),  # the nearest
    ):
        found = backend.in_own_precision(_entry_of)(
            backend.asarray(entries), backend.asarray(np.float64(value)), place
        )
        np.testing.assert_array_equal(found, np.eye(6)[want], err_msg=f"{value} at {place}")
    found = backend.in_own_precision(_entry_of)(
        backend.asarray(np.array([np.nan, 1.0])), backend.asarray(np.float64(1)), 1
    )
    assert np.isnan(found).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 16, 17, 24])  # from 17 on there are over 128 pairs
@pytest.mark.parametrize("kind", ["different", "ties", "equal"])
def test_the_median_of_any_number_of_particles(backend, n, kind):
    rng = np.random.default_rng(n)
    a = rng.uniform(-1, 1, (5, n, 2)).astype(np.float32).astype(np.float64)
    if kind == "ties":
        a = np.round(a * 2) / 2
    elif kind == "equal":
        a[:] = a[:, :1]
    got = backend.to_numpy(backend.bandwidth_squared(backend.asarray(a)))
    np.testing.assert_allclose(got, spec.bandwidth_squared(a), rtol=1e-6, atol=0)
    # differentiated, it says which pairs it is of
    got = backend.to_numpy(backend.repulsion_through_bandwidth(backend.asarray(a), 1e-6))
    want = spec.repulsion_through_bandwidth(a, 1e-6)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(np.abs(want).max(), 1e-9))


def as_on_a_gpu(backend, **options):
    """A backend that takes the way it takes on a GPU, on the device of another."""
    found = get_backend(backend.name, device=backend.device, **options)
    if backend.name == "torch":
        # only the network looks at this; arrays are made by the other backend
        found.torch_device = dataclasses.make_dataclass("Device", [("type", str)])("cuda")
    else:
        found.device, found.cores = "gpu:0", None
        found.programs = lambda: (found.compilations, None)  # none that the CPU's backend compiled
    return found


@pytest.mark.parametrize("name", ["critic_values", "action_gradient"])
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
def test_critics_in_one_batched_product_as_on_a_gpu(backend, name):
    """On a GPU the members of an ensemble share a product; here that way runs on the CPU."""
    rng = np.random.default_rng(0)
    arrays = critic(rng, size=3), rng.standard_normal((7, 6)), rng.uniform(-1, 1, (7, 5, 3))
    got = getattr(as_on_a_gpu(backend, dtype="float64"), name)(*map(backend.asarray, arrays))
    want = getattr(spec, name)(*arrays)
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5, 16, 20])  # up to 16 are compiled as one on a GPU
@pytest.mark.backend(names=("torch", "jax"), dtypes=("float64",))
def test_loops_unrolled_as_on_a_gpu(backend, steps):
    rng = np.random.default_rng(steps)
    s, a = rng.standard_normal((7, 6)), rng.uniform(-1, 1, (7, 5, 3))
    network = spec.init_mlp(rng, 6 + 3 + 1, Network((16, 16)), 3)
    gpu = as_on_a_gpu(backend, dtype="float64")
    got = gpu.flow_sample(*map(backend.asarray, (network, s, a)), steps)
    want = spec.flow_sample(network, s, a, steps)
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-10, atol=1e-12)
    budget = Budget(steps=steps, step_size=0.05, temperature=0.2)
    params = critic(rng)
    got = gpu.critic_transport(*map(backend.asarray, (params, s, a)), budget, trajectory=True)
    want = spec.critic_transport(params, s, a, budget, trajectory=True)
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 8), (8, 1), (1, 1), (8, 8)])
@pytest.mark.backend(names=("jax",), dtypes=("float32",))
def test_narrow_products_in_bf16_round_their_operands_as_on_a_gpu(backend, inputs, outputs):
    rng = np.random.default_rng(0)
    x, kernel = (
        backend.asarray(rng.standard_normal(shape)) for shape in ((5, 4, inputs), (inputs, outputs))
    )
    found = as_on_a_gpu(backend, matmul_precision="bf16")._product(x, kernel)
    rounded = [np.asarray(y.astype("bfloat16"), np.float64) for y in (x, kernel)]
    np.testing.assert_allclose(found, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-6)
    assert np.abs(found - np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)).max() > 1e-4


# one of every method, and one in which states meet
SHARED = (
    "vgf flow squared",
    "avgf gaussian squared",
    "bc gaussian",
    "weighted_bc flow",
    "fql",
    "fql normalised",
)
ON_CORES = """
import sys
from dataclasses import replace
import numpy as np
from vgf import get_backend
from vgf.spec import tree_map
from vgf.testing.training import ACTION_DIM, TRAININGS, batches

shared = get_backend("jax", device="cpu", dtype="float64", cores=2)
alone = get_backend("numpy")
assert shared.cores.size == 2
calls = []
real = shared._updates_on_cores
shared._updates_on_cores = lambda *args: calls.append(1) or real(*args)
data = {name: np.concatenate([batch[name] for batch in batches(4)]) for name in batches(1)[0]}

def close(got, want, rtol=1e-7):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol / 100, err_msg=name)

clipped = TRAININGS["bc gaussian"]
clipped = replace(clipped, budget=replace(clipped.budget, clip_norm=1.0, clip_scope="batch"))
chosen = {name: TRAININGS[name] for name in sys.argv[1:]} | {"clipped": clipped}
for name, settings in chosen.items():
    for size in (16, 15) if name == "bc gaussian" else (16,):
        rows = np.random.default_rng(0).integers(0, len(data["rewards"]), (3, size))
        start = shared.init_state(3, 6, ACTION_DIM, settings)
        calls.clear()
        found = shared.updates(start, shared.asarray(data), rows, settings)
        alone_too = size != 16 or shared._on_one_device(start, settings)
        assert bool(calls) != alone_too, (name, size)
        state = shared.to_numpy(start)
        for step, picked in enumerate(rows):
            noise = shared.draw_update_noise(3, step, size, ACTION_DIM, settings)
            batch = {key: array[picked] for key, array in data.items()}
            state, metrics = alone.update(state, batch, settings, shared.to_numpy(noise))
        for got, want in zip(found, (state, metrics), strict=True):
            tree_map(close, shared.to_numpy(got), want)

# layers too wide for a core's own cache: XLA's threads divide each product instead
name, narrow = "wide", TRAININGS["bc flow"]
reference = replace(narrow.reference, hidden=(512, 512))
for settings in (narrow, replace(narrow, reference=reference)):
    calls.clear()
    start = shared.init_state(3, 6, ACTION_DIM, settings)
    shared.updates(start, shared.asarray(data), np.arange(32).reshape(2, 16), settings)
    assert bool(calls) == (settings is narrow)

# agents side by side: each core has its own, and what becomes of one is not the others' affair
name, settings = "side by side", TRAININGS["vgf flow squared"]
single = get_backend("jax", device="cpu", cores=2)
rows = np.random.default_rng(0).integers(0, len(data["rewards"]), (5, 4, 15))  # 15: one core each
for backend, rtol in ((shared, 1e-7), (single, 1e-3)):
    assert backend.cores.size == 2
    calls, together = [], backend._updates_together
    backend._updates_together = lambda *args, own=together: calls.append(1) or own(*args)
    starts = [backend.init_state(seed, 6, ACTION_DIM, settings) for seed in range(5)]
    given = backend.asarray(data)
    for count in (2, 5):
        calls.clear()
        found = backend.updates_together(starts[:count], given, rows[:count], settings)
        assert calls == [1]
        for start, own, got in zip(starts, rows, found):
            for one, other in zip(got, backend.updates(start, given, own, settings), strict=True):
                tree_map(lambda *x: close(*x, rtol), *map(backend.to_numpy, (one, other)))
    missing = backend.updates_together([None, starts[1], None, None, None], given, rows, settings)
    assert [one is None for one in missing] == [True, False, True, True, True]
    for one, other in zip(missing[1], found[1], strict=True):
        tree_map(np.testing.assert_array_equal, *map(backend.to_numpy, (one, other)))
    later = backend.updates_together([one for one, _ in found], given, rows, settings)
    assert [int(one["step"]) for one, _ in later] == [8] * 5
    assert backend.updates_together([None] * 5, given, rows, settings) == [None] * 5
# what a class of one's own overrides is felt there too
mine = type("Mine", (type(shared),), {"phi": lambda self, a, g, *args, **kwargs: g * 0})
mine = mine("cpu", "float64", "float32", cores=2)
for _, metrics in mine.updates_together(starts[:2], mine.asarray(data), rows[:2], settings):
    assert float(metrics["displacement"]) == 0
assert float(found[0][1]["displacement"]) > 0
print("agree", len(chosen))
"""


@pytest.mark.slow
def test_cores_that_share_a_batch_make_the_same_updates():
    """In a process of its own: JAX has to be told of its CPU devices before it is in use."""
    need("jax")
    done = subprocess.run(
        [sys.executable, "-c", ON_CORES, *SHARED],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["agree", str(len(SHARED) + 1)]


@pytest.mark.backend(names=("jax",), dtypes=("float64",))
def test_cores_are_not_shared_where_jax_was_in_use(backend):
    """The tests have used it, with one CPU device: then one device does it all."""
    backend.synchronise(backend.asarray(np.zeros(2)))
    assert get_backend("jax", device="cpu", cores=2).cores is None


def transitions(rows=200):
    found = batches(-(-rows // 32))
    return {name: np.concatenate([batch[name] for batch in found])[:rows] for name in found[0]}


@pytest.mark.parametrize(
    "count", [3, *(pytest.param(n, marks=pytest.mark.heavy("jax")) for n in (1, 65))]
)
@pytest.mark.backend(dtypes=("float64",))
def test_many_updates_in_one_call_are_those_updates(backend, count):
    data, rng = transitions(), np.random.default_rng(0)
    rows = rng.integers(0, 200, (count, 16))
    start = backend.init_state(3, 6, ACTION_DIM, SETTINGS)
    want = start
    for picked in rows:
        batch = {name: array[picked] for name, array in data.items()}
        want, metrics = backend.update(want, backend.asarray(batch), SETTINGS)
    got, last = backend.updates(start, backend.asarray(data), rows, SETTINGS)
    assert int(backend.to_numpy(got["step"])) == count
    assert drift(backend.to_numpy(got), backend.to_numpy(want), count).relative < 1e-9
    assert drift(backend.to_numpy(last), backend.to_numpy(metrics), count).relative < 1e-9


@pytest.mark.backend(dtypes=("float64",))
def test_a_call_may_be_split_anywhere(backend):
    """Bit for bit, or a run that was stopped would not be the one that was not."""
    data, rng = backend.asarray(transitions()), np.random.default_rng(0)
    rows = rng.integers(0, 200, (7, 16))
    start = backend.init_state(3, 6, ACTION_DIM, SETTINGS)
    whole, _ = backend.updates(start, data, rows, SETTINGS)
    half, _ = backend.updates(start, data, rows[:2], SETTINGS)
    split, _ = backend.updates(half, data, rows[2:], SETTINGS)
    assert drift(backend.to_numpy(split), backend.to_numpy(whole), 7).absolute == 0


@pytest.mark.slow
@pytest.mark.parametrize("place", ["here", "as on a GPU"])
@pytest.mark.backend(dtypes=("float64",))
def test_agents_side_by_side_are_those_agents(backend, place):
    if place != "here":
        if backend.name != "jax":
            pytest.skip(f"{backend.name} has one way")
        backend = as_on_a_gpu(backend, dtype="float64")
    data, rng = backend.asarray(transitions()), np.random.default_rng(0)
    rows = rng.integers(0, 200, (3, 4, 16))
    starts = [backend.init_state(seed, 6, ACTION_DIM, SETTINGS) for seed in (5, 6, 9)]
    starts[1], _ = backend.updates(starts[1], data, rows[0], SETTINGS)  # further than the others
    found = backend.updates_together(starts, data, rows, SETTINGS)
    for start, own, (state, metrics) in zip(starts, rows, found, strict=True):
        want, wanted = backend.updates(start, data, own, SETTINGS)
        assert drift(backend.to_numpy(state), backend.to_numpy(want), 4).relative < 1e-9
        assert drift(backend.to_numpy(metrics), backend.to_numpy(wanted), 4).relative < 1e-9
    ends = [backend.to_numpy(state) for state, _ in found]
    assert drift(ends[0]["critic"], ends[2]["critic"], 4).relative > 1e-3
    # to the last bit, whoever is missing: a run that was stopped goes on as the one that was not
    one, two, three = backend.updates_together([None, starts[1], None], data, rows, SETTINGS)
    assert one is None
    assert three is None
    assert drift(backend.to_numpy(two[0]), ends[1], 4).absolute == 0

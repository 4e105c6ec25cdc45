"""Offline updates, many in one call: from the data to the backend, of one run or several."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from needs import need

from vgf import cli, get_backend, spec
from vgf.data.dataset import batch_at, check_dataset
from vgf.data.scaling import Scaling
from vgf.runs import updates
from vgf.runs.checkpoint import load_checkpoint
from vgf.runs.updates import Batches, Reply, Request, drive
from vgf.support.interrupts import Interrupted, StopRunError
from vgf.support.rows import read_rows
from vgf.testing.training import TRAININGS

SETTINGS = TRAININGS["vgf flow squared"]
TINY = [
    "--env",
    "none",
    "--backend",
    "numpy",
    "--steps",
    "20",
    "--batch-size",
    "8",
    "--log-every",
    "5",
    "--evaluate-every",
    "20",
    "--checkpoint-every",
    "10",
    "--critic-hidden",
    "8",
    "--reference-hidden",
    "8",
    "--seeds",
    "3",
]


def fields(rows: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    terminals = np.zeros(rows)
    terminals[19::20] = 1
    return {
        "observations": rng.standard_normal((rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "rewards": rng.standard_normal(rows),
        "masks": 1 - terminals,
        "terminals": terminals,
        "next_observations": rng.standard_normal((rows, 3)),
    }


@pytest.fixture
def request_of() -> Callable[..., Request]:
    dataset = check_dataset(fields(), "made")
    dataset = Scaling.of(dataset, True).dataset(dataset)

    def make(seed: int = 0, step: int = 0, limit: int = 100) -> Request:
        state = get_backend("numpy").init_state(seed, 3, 2, SETTINGS)
        return Request(state, SETTINGS, dataset, seed, step, limit, 8)

    return make


@pytest.mark.full
@pytest.mark.parametrize("name", ["numpy", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_data_on_the_device_or_not_give_the_same(
    name: str, request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    need(name)
    backend = get_backend(name, dtype="float64")
    request = request_of(seed=4)
    request = dataclasses.replace(request, state=backend.asarray(request.state))
    here = Batches(request.dataset, backend, 8 * 5)
    monkeypatch.setattr(type(backend), "free_memory", lambda self: 10**9)
    there = Batches(request.dataset, backend, 8 * 5)
    assert (here.on_device, there.on_device) == (False, True)
    found = [feed.update([request], 5)[0] for feed in (here, there)]
    state = request.state
    for step in range(5):
        batch = backend.asarray(batch_at(request.dataset, 4, step, 8))
        state, metrics = backend.update(state, batch, SETTINGS)
    for reply in found:
        assert reply.count == 5
        for got, want in ((reply.state["critic"], state["critic"]), (reply.metrics, metrics)):
            spec.tree_map(
                lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-7),
                backend.to_numpy(got),
                backend.to_numpy(want),
            )


def test_data_too_large_for_the_device_stay_where_they_are(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = get_backend("numpy")
    monkeypatch.setattr(type(backend), "free_memory", lambda self: 1_000)
    assert not Batches(request_of().dataset, backend, 8).on_device


def test_runs_go_side_by_side_and_end_apart(request_of: Callable[..., Request]) -> None:
    seen: dict[int, list[tuple[int, int]]] = {}

    def run(seed: int, total: int) -> Iterator[Request]:
        step = 0
        while step < total:
            reply: Reply = yield request_of(seed, step, total - step)
            assert 1 <= reply.count <= total - step
            seen.setdefault(seed, []).append((step, reply.count))
            step += reply.count

    drive(get_backend("numpy"), [run(0, 12), run(1, 5)])
    assert {seed: sum(count for _, count in parts) for seed, parts in seen.items()} == {0: 12, 1: 5}
    together = seen[1]
    assert seen[0][: len(together)] == together
    assert max(count for _, count in seen[0]) > 1


def test_where_one_run_fails_the_others_keep_what_they_have(
    request_of: Callable[..., Request],
) -> None:
    kept = []

    def good() -> Iterator[Request]:
        try:
            while True:
                yield request_of()
        except StopRunError:
            kept.append("kept")
            raise Interrupted("stopped") from None

    def bad() -> Iterator[Request]:
        yield request_of()
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        drive(get_backend("numpy"), [good(), bad()])
    assert kept == ["kept"]


def vgf(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "made.npz"
    np.savez(path, **fields())
    return path


def left(folder: Path) -> list[object]:
    """What a run of three seeds leaves, but for the seconds."""
    found: list[object] = []
    for seed in range(3):
        place = folder / f"seed-{seed}"
        found.append((place / "checkpoints/step-000000020/state.safetensors").read_bytes())
        rows = [dict(row) for row in read_rows(place / "metrics.jsonl")]
        found.append([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
    return found


@pytest.mark.full
def test_seeds_together_are_the_seeds_one_by_one(file: Path, tmp_path: Path) -> None:
    words = ["run", *TINY, "--data", file]
    assert vgf(*words, "--out", tmp_path / "apart") == 0
    assert vgf(*words, "--together", "--out", tmp_path / "together") == 0
    assert left(tmp_path / "together") == left(tmp_path / "apart")


@pytest.mark.full
def test_ctrl_c_stops_all_seeds_and_they_go_on_together(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    words = ["run", *TINY, "--data", file, "--together"]
    assert vgf(*words, "--out", tmp_path / "straight") == 0
    real, calls = updates.batch_rows, []

    def pressed(seed: int, step: int, *rest: int) -> np.ndarray:
        calls.append((seed, step))
        if (seed, step) == (1, 6) and calls.count((1, 6)) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(seed, step, *rest)

    monkeypatch.setattr(updates, "batch_rows", pressed)
    folder = tmp_path / "stopped"
    try:
        assert vgf(*words, "--out", folder) == 130
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("all seeds stopped after ")
        assert error.endswith(f"vgf run --resume {folder}")
        steps = [load_checkpoint(folder / f"seed-{seed}")[1].step for seed in range(3)]
        assert 6 < min(steps) == max(steps) < 20
        assert vgf("run", "--resume", folder) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert left(folder) == left(tmp_path / "straight")


def test_a_run_that_fails_at_once_leaves_nothing_of_any_seed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgf.support.errors import VGFError

    def fail(*_: object) -> None:
        raise VGFError("no update; get one")

    monkeypatch.setattr(updates, "batch_rows", fail)
    assert vgf("run", *TINY, "--data", file, "--together", "--out", tmp_path / "run") == 2
    assert "no update; get one" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

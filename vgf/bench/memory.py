"""The peak memory of a run against the size of its data: each in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..support.errors import VGFError
from .worker import process_memory

ROWS = (100_000, 500_000, 1_000_000, 3_000_000)
_EPISODE = 1_000
_BATCHES = 200
_CHILD = "import sys; from vgf.bench.memory import child; child(*sys.argv[1:])"


def measure(
    rows: int, observation_dim: int = 28, action_dim: int = 5, memory: str = "memory"
) -> dict[str, Any]:
    """The memory that loading a file, standardising it and 200 batches take.

    Args:
        rows: transitions in the file, which has next_observations.
        observation_dim, action_dim: o and d.
        memory: where data are held, as `--data-memory` says.

    Returns:
        In bytes: "data", of s, a, r, the mask and s' as float32; "before", what the process had
        allocated before; "peak", the most it had allocated, looked at every millisecond; "held",
        what it had in the end; "resident", the peak as the system counts it, with what is in
        memory of mapped files, which the system takes back when others need it. And "ratio" of
        peak - before to data.

    Raises:
        VGFError: the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        _write(path, rows, observation_dim, action_dim)
        words = [sys.executable, "-c", _CHILD, str(path), memory, folder]
        done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise VGFError(f"measuring memory failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    data = 4 * rows * (2 * observation_dim + action_dim + 2)
    grown = found["peak"] - found["before"]
    return {"rows": rows, "memory": memory, "data": data, **found, "ratio": grown / data}


def table_rows(found: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What :func:`measure` found, as the rows of a table; `new` is at the peak, `kept` after it."""
    rows = []
    for row in found:
        new, kept = row["peak"] - row["before"], row["held"] - row["before"]
        megabytes = {"data": row["data"], "peak": row["peak"], "new": new, "kept": kept}
        rows.append(
            {
                "transitions": f"{row['rows']:,}",
                "data held": row["memory"],
                **{f"{name} MB": f"{number / 1e6:,.0f}" for name, number in megabytes.items()},
                "new / data": f"{row['ratio']:.2f}",
                "kept / data": f"{kept / row['data']:.2f}",
            }
        )
    return rows


def _write(path: Path, rows: int, observation_dim: int, action_dim: int) -> None:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((rows + 1, observation_dim), np.float32)
    ends = np.arange(1, rows + 1) % _EPISODE == 0
    np.savez(
        path,
        observations=states[:-1],
        actions=rng.uniform(-1, 1, (rows, action_dim)).astype(np.float32),
        rewards=-np.ones(rows, np.float32),
        masks=np.ones(rows, np.float32),
        terminals=ends.astype(np.float32),
        next_observations=states[1:],
    )


def child(path: str, memory: str, cache: str) -> None:
    """What the process does: the loading of `vgf run`, and batches; prints what it held."""
    os.environ["VGF_CACHE_DIR"] = cache
    from ..benchmarks.tasks import make_task
    from ..data.dataset import batch_at
    from ..data.scaling import Scaling

    before = process_memory("RssAnon")
    with _Watch() as watch:
        task = make_task(None, data=path, data_memory=memory)
        assert task.dataset is not None
        dataset = Scaling.of(task.dataset, True).dataset(task.dataset)
        for step in range(_BATCHES):
            batch_at(dataset, 0, step, 256)
    gc.collect()
    found = {"before": before, "peak": watch.peak, "held": process_memory("RssAnon")}
    print(json.dumps({**found, "resident": process_memory("VmHWM")}))


class _Watch:
    """The most that this process has allocated meanwhile; a context manager."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.001):
            self.peak = max(self.peak, process_memory("RssAnon"))

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

"""What many runs cost: 50 tasks x 8 seeds on this machine, and on the GPU that was measured.

    python -m validation.cost

The time of one update is measured over the number of particles N, the flow's steps L, the batch,
the networks' width and the size of the data, one at a time, and fitted by a fixed time and a time
for each FLOP that an update needs (vgf/bench/limits.py counts them). The fit must meet what was
measured within a factor of two everywhere, or the page does not say what a sweep costs.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vgf.backends.base import Backend
from vgf.bench import ours
from vgf.bench.interleave import Timer, calibrate, take_turns
from vgf.bench.limits import flops
from vgf.bench.work import Work
from vgf.data.dataset import check_dataset
from vgf.runs.agent import make_backend
from vgf.runs.presets import presets

from .experiment import Data, Experiment, Verdict, main, read_record
from .figures import COLUMN, figure
from .pages import Table

GPU = Path(__file__).parent / "results" / "bench-gpu.json"
SEEDS = 8
BASE = Work("avgf", depth=4, width=128, particles=5, steps=1, sampling_steps=10)


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Args:
        backend: that computes, as a worker of `vgf bench` is named.
        base: the sizes that are varied one at a time.
        particles, steps, batches, widths, transitions: their values.
        seconds: of each block of updates, about.
        rounds: in each of which every size has one block.
    """

    backend: str = "jax"
    base: Work = BASE
    particles: tuple[int, ...] = (1, 5, 10, 20)
    steps: tuple[int, ...] = (1, 3, 5)
    batches: tuple[int, ...] = (64, 256, 1024)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    transitions: tuple[int, ...] = (10_000, 1_000_000)
    seconds: float = 0.5
    rounds: int = 7


def works(setup: Setup) -> Iterator[tuple[str, Work]]:
    """What varies, and the sizes."""
    for name, field, values in (
        ("N", "particles", setup.particles),
        ("L", "steps", setup.steps),
        ("batch", "batch_size", setup.batches),
        ("width", "width", setup.widths),
        ("data size", "transitions", setup.transitions),
    ):
        for value in values:
            yield name, Work(**{**dataclasses.asdict(setup.base), field: value})


def measure(setup: Setup) -> Data:
    """The median time of an update at each of the sizes, in the loop of `vgf run`, in turns."""
    backend = make_backend(ours.backend_settings(setup.backend, "cpu", "float32", "float32"))
    varied = list(works(setup))
    timers = {
        str(work): _timer(backend, work) for work in dict.fromkeys(work for _, work in varied)
    }
    counts = {}
    for name, timer in timers.items():
        counts[name] = calibrate(timer, setup.seconds)
        print(f"compiled {len(counts)} of {len(timers)} sizes", flush=True)
    times = take_turns(timers, counts, setup.rounds)
    rows = [
        {
            "varied": name,
            "work": dataclasses.asdict(work),
            "flops": flops(work),
            "seconds": float(np.median(times[str(work)])),
        }
        for name, work in varied
    ]
    return {"rows": rows, "load": os.getloadavg()[0], **_costs(rows)}


def _timer(backend: Backend, work: Work) -> Timer:
    """What makes so many updates of a new agent, and says how long they took."""
    training = ours.Training(backend, work, check_dataset(work.dataset(), "the benchmark's data"))

    def timer(count: int) -> float:
        start = time.perf_counter()
        training.run(count)
        return time.perf_counter() - start

    return timer


def fit(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of an update, and for each FLOP: least squares of the relative error."""
    from scipy.optimize import nnls

    measured = np.array([row["seconds"] for row in rows])
    terms = np.array([[1.0, row["flops"]] for row in rows]) / measured[:, None]
    scale = terms.max(0)
    (fixed, each), _ = nnls(terms / scale, np.ones(len(rows)))
    return float(fixed / scale[0]), float(each / scale[1])


def _costs(rows: list[dict[str, Any]]) -> Data:
    """The hours of every preset of A-VGF and VGF on OGBench, offline, with 8 seeds."""
    fixed, each = fit(rows)
    gpu = read_record(GPU)["data"]
    rates = {
        row["matmul_precision"]: row["flops"] / float(np.median(row["sides"]["jax"]["seconds"]))
        for row in gpu["rows"]
        if row["work"]["seeds"] == 1 and "jax" in row["sides"]
    }
    sweeps: Data = {}
    for method in ("avgf", "vgf"):
        found = [
            p
            for p in presets().values()
            if (p.benchmark, p.method, p.online) == ("OGBench", method, False)
        ]
        updates, total, here = 0, 0.0, 0.0
        for preset in found:
            agent, train = preset.settings["agent"], preset.settings["train"]
            hidden = agent["critic"]["hidden"]
            work = Work(
                method,
                depth=len(hidden),
                width=hidden[0],
                batch_size=train["batch_size"],
                sampling_steps=agent["sampling_steps"],
                particles=agent["particles"],
                steps=agent["budget"]["steps"],
            )
            updates += SEEDS * int(train["steps"])
            total += SEEDS * train["steps"] * flops(work)
            here += SEEDS * train["steps"] * (fixed + each * flops(work))
        sweeps[method] = {
            "tasks": len(found),
            "updates": updates,
            "flops": total,
            "here_hours": here / 3600,
            "gpu_hours": {name: total / rate / 3600 for name, rate in rates.items()},
        }
    return {"fixed": fixed, "each": each, "sweeps": sweeps, "gpu": gpu["device_name"]}


def _predicted(data: Data, row: Data) -> float:
    return float(data["fixed"] + data["each"] * row["flops"])


def judge(data: Data) -> list[Verdict]:
    ratios = [row["seconds"] / _predicted(data, row) for row in data["rows"]]
    worst = max(max(ratios), 1 / min(ratios))
    return [
        Verdict(
            "a fixed time and a time for each FLOP say what an update takes, within a factor of 2",
            worst < 2,
            f"the worst of {len(ratios)} is off by a factor of {worst:.2f}",
        )
    ]


def tables(data: Data) -> list[Table]:
    measured = [
        [
            row["varied"],
            *(
                f"{row['work'][k]:,}"
                for k in ("particles", "steps", "batch_size", "width", "transitions")
            ),
            f"{row['flops'] / 1e9:.3g}",
            f"{1000 * row['seconds']:.3g}",
            f"{1000 * _predicted(data, row):.3g}",
        ]
        for row in data["rows"]
    ]
    names = list(next(iter(data["sweeps"].values()))["gpu_hours"])
    costs = [
        [
            f"{method}, {one['tasks']} tasks x {SEEDS} seeds",
            f"{one['updates']:,}",
            f"{one['here_hours']:,.0f}",
            *(f"{one['gpu_hours'][name]:,.0f}" for name in names),
        ]
        for method, one in data["sweeps"].items()
    ]
    head = ["varied", "N", "L", "batch", "width", "data size", "GFLOP", "ms", "ms, fitted"]
    return [
        Table(
            "Hours of training for the paper's presets on OGBench, offline: on this machine, one "
            f"job with what it was given here; and on one {data['gpu']}, by precision",
            ["sweep", "updates", "this machine", *names],
            costs,
        ),
        Table("One update on this machine, measured and fitted", head, measured),
    ]


def remarks(data: Data) -> list[str]:
    return [
        f"The fit: {1000 * data['fixed']:.3g} ms for an update and {1e12 * data['each']:.3g} ms "
        "for each GFLOP.",
        f"The load of the machine was {data['load']:.1f} while this was measured, by other work "
        "too: an idle machine is faster.",
        "On the GPU, the time is that of the one size measured there (validation/results/"
        "bench-gpu.md), in proportion to the FLOPs; smaller updates reach a lower rate.",
        "Evaluation is not in these hours: it depends on the simulator. `vgf sweep --dry-run` "
        "measures both on the machine at hand.",
    ]


def draw(data: Data, stem: Path) -> None:
    with figure(stem, COLUMN, 3.2) as drawing:
        axes = drawing.subplots()
        x = np.array([row["flops"] for row in data["rows"]]) / 1e9
        for i, varied in enumerate(dict.fromkeys(row["varied"] for row in data["rows"])):
            chosen = [k for k, row in enumerate(data["rows"]) if row["varied"] == varied]
            axes.plot(
                x[chosen],
                [1000 * data["rows"][k]["seconds"] for k in chosen],
                "osD^v"[i],
                label=varied,
                color=str(0.15 * i),
                markersize=4,
            )
        line = np.geomspace(x.min(), x.max(), 50)
        axes.plot(line, 1000 * (data["fixed"] + data["each"] * line * 1e9), color="black", lw=1)
        axes.set(xscale="log", yscale="log", xlabel="GFLOP of an update", ylabel="ms")
        axes.legend(fontsize=7)


EXPERIMENT = Experiment(
    name="cost",
    title="What many runs cost",
    about=(
        "One update of A-VGF is timed while N, L, the batch, the width and the size of the data "
        "are varied one at a time, and fitted by a fixed time and a time for each FLOP; from that, "
        "the hours of the paper's 50 tasks with 8 seeds."
    ),
    setup=Setup(),
    quick=Setup(
        particles=(5,),
        steps=(1, 3),
        batches=(64,),
        widths=(64,),
        transitions=(10_000,),
        seconds=0.2,
        rounds=2,
    ),
    measure=measure,
    judge=judge,
    tables=tables,
    draw=draw,
    caption="Measured times of one update, and the fit (line).",
    remarks=remarks,
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], "cost", __doc__, None))

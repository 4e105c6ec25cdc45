"""Where the time of one update goes: each part of it alone, through the backend's own functions.

The parts are the equations that the method calls (vgf/bench/trace.py), on made-up numbers of the
same shapes. They are timed by turns with the whole update, each as it is called from outside. A
compiled update may take less than their sum, where it fuses what stands apart here, or more, where
its parts are in each other's way; the table shows both. What a method computes by itself is in the
whole update only. `dispatch` is the whole update again, of networks one unit wide on a batch of
one: what it takes when there is nothing to compute.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..data.dataset import Dataset, batch_at, check_dataset
from ..runs.agent import make_backend
from ..runs.folder import environment
from ..support.progress import progress
from . import limits, roofs
from .interleave import Timer, Worker, calibrate, take_turns
from .machine import machine
from .ours import Training, backend_settings
from .trace import Call, UnknownLimitError, trace_update
from .training import PRODUCT, Case, Data, Plan, Say, best_product, measure_roofs, roof_text
from .work import Work

WHOLE, DISPATCH = "whole update", "dispatch"

# What is called, and how often in one update.
Part = tuple[Callable[[], Any], int]


def measure(plan: Plan, say: Say = lambda line: None) -> Data:
    """The parts of an update of every work of a plan, on each of its sides.

    Args:
        plan: what is measured; its peers have no part in it.
        say: takes a table for each work and side.

    Returns:
        What JSON can hold.

    Raises:
        VGFError: what is wrong with the request, or cannot be run.
    """
    found: Data = {"kind": "profile", "environment": environment(), "machine": machine()}
    found["roofs"] = measure_roofs(plan)
    say(roof_text(found["roofs"]))
    found["profiles"] = []
    for case in plan.cases():
        for side in plan.sides:
            found["profiles"].append(profile(plan, case, side, found["roofs"]))
            say(profile_text(found["profiles"][-1]))
    return found


def profile(plan: Plan, case: Case, side: str, machine_roofs: Data) -> Data:
    """The parts of an update of one case on one side."""
    case = case._replace(work=dataclasses.replace(case.work, seeds=1))
    work, precision = case
    backend = make_backend(backend_settings(side, plan.device, plan.dtype, precision))
    dataset = check_dataset(work.dataset(), "the benchmark's data")
    nothing = dataclasses.replace(work, width=1, batch_size=1)
    wholes = {
        WHOLE: Training(backend, work, dataset).run,
        DISPATCH: Training(backend, nothing, dataset).run,
    }
    found = parts(backend, work, dataset)
    best = best_product(machine_roofs, work, precision)
    with ExitStack() as stack:
        product = stack.enter_context(Worker(PRODUCT))
        product.start(
            roofs.__name__,
            what=PRODUCT,
            library=best["library"],
            m=best["m"],
            k=best["k"],
            device=plan.device,
            dtype=plan.dtype,
            matmul_precision=precision,
        )
        timers: dict[str, Timer] = {
            **{name: in_process(run) for name, run in wholes.items()},
            **{name: in_process(_repeat(backend, call)) for name, (call, _) in found.items()},
            PRODUCT: product.time,
        }
        counts = {}
        with progress(len(timers) * (plan.rounds + 1), f"{work.name}, {side}", "block") as bar:
            for name, timer in timers.items():
                counts[name] = calibrate(timer, plan.block_seconds / 2)
                bar.update()
            times = take_turns(timers, counts, plan.rounds, bar.update)
    rate = statistics.median(2 * best["m"] * best["k"] ** 2 / s for s in times.pop(PRODUCT))
    rows = {}
    for name, seconds in times.items():
        often = found[name][1] if name in found else 1
        seconds = [often * s for s in seconds]
        share = statistics.median(s / whole for s, whole in zip(seconds, times[WHOLE], strict=True))
        operations, moved = amount(work, name, plan.dtype)
        least = limits.limit(operations, moved, rate, machine_roofs["bandwidth"]["memory"])
        rows[name] = {
            "seconds": seconds,
            "times": often,
            "flops": operations,
            "bytes": moved,
            "limit_seconds": least,
            "share": share,
        }
    return {
        "name": work.name,
        "title": case.title,
        "side": side,
        "device": backend.device,
        "parts": rows,
    }


def amount(work: Work, part: str, dtype: str = "float32") -> tuple[int, int]:
    """The FLOPs and the bytes that a part cannot do without; none where nothing is counted."""
    try:
        products = limits.parts(work)
    except UnknownLimitError:
        return 0, 0
    if part == WHOLE:
        return limits.flops(work), limits.state_bytes(work, dtype)
    moved = {
        "batch": limits.batch_bytes,
        "optimiser": limits.optimiser_bytes,
        "target network": limits.target_bytes,
    }.get(part)
    operations = sum(product.flops for product in products.get(part, []))
    return operations, moved(work, dtype) if moved else 0


def in_process(run: Callable[[int], Any]) -> Timer:
    """A timer of what returns when all is computed."""

    def timer(count: int) -> float:
        start = time.perf_counter()
        run(count)
        return time.perf_counter() - start

    return timer


def _repeat(backend: Backend, call: Callable[[], Any]) -> Callable[[int], Any]:
    def run(count: int) -> None:
        result = None
        for _ in range(count):
            result = call()
        backend.synchronise(result)

    return run


def parts(backend: Backend, work: Work, dataset: Dataset) -> dict[str, Part]:
    """Each part of one update, ready to be called.

    Args:
        backend: what computes.
        work: the sizes.
        dataset: what a batch is sampled from.
    """
    settings, size = work.settings(), work.batch_size
    sizes = {"batch_size": size, "action_dim": work.action_dim}
    start = backend.asarray(dict.fromkeys(("seed", "step"), np.asarray(0, np.int32)))
    found: dict[str, Part] = {
        "batch": (lambda: backend.asarray(batch_at(dataset, 0, 0, size)), 1),
        "noise": (lambda: backend.draw_update_noise(**start, **sizes, settings=settings), 1),
    }
    try:
        calls = trace_update(work)
    except UnknownLimitError:
        return found
    # calls of one shape are timed once
    alike: dict[str, dict[str, list[Call]]] = {}
    for call in calls:
        if call.repeatable:
            shape = f"{call.equation} {_shapes([call.arguments, call.named])}"
            alike.setdefault(call.part, {}).setdefault(shape, []).append(call)
    for part, groups in alike.items():
        ready = [(_ready(backend, group[0]), len(group)) for group in groups.values()]
        found[part] = ready[0] if len(ready) == 1 else (_all(ready), 1)
    return found


def _shapes(value: Any) -> Any:
    """What tells apart arguments that take different times."""
    if isinstance(value, dict):
        return {key: _shapes(found) for key, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shapes(found) for found in value]
    return value.shape if isinstance(value, np.ndarray) else value


def _ready(backend: Backend, call: Call) -> Callable[[], Any]:
    """A call again, on a backend."""

    def convert(value: Any) -> Any:
        return backend.asarray(value) if isinstance(value, (dict, np.ndarray)) else value

    arguments = [convert(value) for value in call.arguments]
    named = {name: convert(value) for name, value in call.named.items()}
    return partial(getattr(backend, call.equation), *arguments, **named)


def _all(calls: list[Part]) -> Callable[[], Any]:
    return lambda: [call() for call, count in calls for _ in range(count)]


def profile_text(found: Data) -> str:
    """A profile as a table, in 80 columns."""
    from ..support.tables import format_table

    lines = []
    for name, row in found["parts"].items():
        median = statistics.median(row["seconds"])
        least = row["limit_seconds"]
        lines.append(
            {
                "part": name if row["times"] == 1 else f"{name} x {row['times']}",
                "ms": f"{1e3 * median:.4g}",
                "share": f"{100 * row['share']:.0f} %",
                "GFLOP": f"{row['flops'] / 1e9:.3g}" if row["flops"] else "",
                "MB moved": f"{row['bytes'] / 1e6:.3g}" if row["bytes"] else "",
                "of limit": f"{100 * least / median:.0f} %" if least else "",
            }
        )
    alone = [row["share"] for name, row in found["parts"].items() if name not in (WHOLE, DISPATCH)]
    return (
        f"{found['title']}: {found['side']} on {found['device']}\n{format_table(lines)}\n"
        f"the parts alone add up to {100 * sum(alone):.0f} % of the whole update\n"
    )

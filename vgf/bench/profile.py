"""Where the time of one update goes: each part of it alone, through the backend's own functions.

The parts are timed by turns with the whole update, each as it is called from outside. A compiled
update may do better than their sum, where it fuses what stands apart here, or worse, where its
parts are in each other's way; the table shows both. `dispatch` is the whole update again, of
networks one unit wide on a batch of one: what it takes when there is nothing to compute.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..backends.base import Backend
from ..data.dataset import Dataset, batch_at, check_dataset
from ..runs.agent import make_backend
from ..runs.folder import environment
from ..support.progress import progress
from . import limits, roofs
from .interleave import Timer, Worker, calibrate, take_turns
from .machine import machine
from .ours import Training, backend_settings
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
    if part == WHOLE:
        return limits.flops(work), limits.state_bytes(work, dtype)
    moved = {
        "batch": limits.batch_bytes,
        "optimiser": limits.optimiser_bytes,
        "target network": limits.target_bytes,
    }.get(part)
    products = limits.parts(work).get(part, [])
    return sum(product.flops for product in products), moved(work, dtype) if moved else 0


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
    settings, size, d = work.settings(), work.batch_size, work.action_dim
    budget, activation = settings.budget, settings.critic.activation
    state = backend.init_state(0, work.observation_dim, d, settings)
    gather: Callable[[], Any] = lambda: backend.asarray(batch_at(dataset, 0, 0, size))
    draw: Callable[[], Any] = lambda: backend.draw_update_noise(
        state["seed"], state["step"], size, d, settings
    )
    batch, noise = gather(), draw()
    s, a, s_next = (batch[key] for key in ("observations", "actions", "next_observations"))
    particles = backend.propose(state, s_next, noise["particles"], settings)
    y = batch["rewards"]

    found: dict[str, Part] = {
        "batch": (gather, 1),
        "noise": (draw, 1),
        "propose": (lambda: backend.propose(state, s_next, noise["particles"], settings), 1),
    }
    if budget.steps:
        moments = backend.adam_init(particles)
        velocity = particles
        if work.method == "avgf":
            field = state["gradient_field"]
            found["field"] = (
                lambda: backend.gradient_field(field, s_next, particles, activation),
                budget.steps,
            )
        else:
            found["score"] = (
                lambda: backend.action_gradient(
                    state["critic"], s_next, particles, settings.value_ensemble, activation
                ),
                budget.steps,
            )
            found["kernel"] = (
                lambda: backend.phi(
                    particles,
                    velocity,
                    budget.temperature,
                    budget.bandwidth,
                    budget.bandwidth_gradient,
                ),
                budget.steps,
            )
        found["particle step"] = (
            lambda: backend.flow_step(particles, velocity, moments, budget),
            budget.steps,
        )

    def target() -> Any:
        q = backend.critic_values(state["target_critic"], s_next, particles, activation)
        return backend.td_target(
            q,
            batch["rewards"],
            batch["masks"],
            settings.discount,
            settings.target_ensemble,
            settings.target_particles,
        )

    def fit_reference() -> Any:
        x0, t = noise["reference_start"], noise["reference_time"]
        return backend.flow_matching_gradient(
            state["reference"], s, a, x0, t, settings.reference.activation
        )

    def fit_field() -> Any:
        g = backend.action_gradient(state["critic"], s, a, "mean", activation)
        return backend.gradient_field_gradient(
            state["gradient_field"],
            s,
            a,
            g,
            settings.normalise_gradients,
            settings.gradient_field.activation,
        )

    def fit_policy() -> Any:
        z = noise["policy"]
        goal = backend.sample_reference(state["reference"], s, z, settings)
        return backend.policy_gradient(
            state["policy"],
            state["critic"],
            s,
            z,
            goal,
            settings.distillation,
            settings.normalise_values,
            settings.policy.activation,
            activation,
        )

    found["target"] = target, 1
    found["critic gradient"] = (
        lambda: backend.critic_gradient(
            state["critic"], s, a, y, settings.critic_loss, settings.expectile, activation
        ),
        1,
    )
    found["reference gradient"] = fit_reference, 1
    if work.method == "avgf":
        found["field gradient"] = fit_field, 1
    if work.method == "fql":
        found["policy gradient"] = fit_policy, 1

    def optimise() -> Any:
        new = []
        for name in settings.networks:
            gradient = state[name]  # of the right shapes
            if settings.clip_norm is not None:
                gradient = backend.clip_by_global_norm(gradient, settings.clip_norm)
            new.append(
                backend.adam_step(
                    state[name], gradient, state["optimiser"][name], settings.learning_rate
                )
            )
        return new

    found["optimiser"] = optimise, 1
    found["target network"] = (
        lambda: backend.polyak(state["critic"], state["target_critic"], settings.polyak),
        1,
    )
    return found


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

"""Evaluation beside its peers, the bare simulator and bare products, in one run, by turns."""

from __future__ import annotations

import dataclasses
import operator
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..runs.folder import environment
from ..support.errors import VGFError
from ..support.progress import progress
from . import evaluation, roofs
from .interleave import MissingPackageError, Timer, Worker, calibrate, ratio, take_turns
from .limits import Product, decision_flops
from .machine import machine
from .training import Data, Peer, Say
from .work import Work

SIMULATOR, PRODUCT = "simulator", "product"
_BARE_STEPS = 500
_PRODUCT_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Args:
        task: one of OGBench's single tasks.
        peers: measured beside ours.
        backend: of ours.
        episodes: at each of the four test budgets.
        decisions: after which an episode is cut; None for the benchmark's limit.
        depth, width, particles, sampling_steps: as :class:`vgf.bench.work.Work`.
        rounds: as :func:`vgf.bench.interleave.take_turns`.
        workers: processes of environments; None for the default of `vgf run`.
    """

    task: str
    peers: Sequence[Peer] = ()
    backend: str = "jax"
    episodes: int = 50
    decisions: int | None = None
    depth: int = 4
    width: int = 512
    particles: int = 10
    sampling_steps: int = 10
    rounds: int = 3
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("episodes", "decisions", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise VGFError(f"--{name} is {value}; it must be 1 or more")
        self.work()

    def work(self, steps: int = 0) -> Work:
        """The sizes of the agent's networks, at L flow steps.

        Raises:
            VGFError: a size out of its range.
        """
        return Work(
            depth=self.depth,
            width=self.width,
            particles=self.particles,
            sampling_steps=self.sampling_steps,
            steps=steps,
        )


def measure(plan: Plan, say: Say = lambda line: None) -> Data:
    """The seconds of one environment step of each side's evaluation, round by round.

    Args:
        plan: what is measured.
        say: takes the table.

    Returns:
        What JSON can hold.

    Raises:
        VGFError: what is wrong with the request, or cannot be run.
    """
    with ExitStack() as stack:
        workers = _start(plan, stack)
        sides = [name for name in workers if name not in (SIMULATOR, PRODUCT)]
        counts = dict.fromkeys(sides, plan.episodes) | {
            SIMULATOR: _BARE_STEPS,
            PRODUCT: calibrate(workers[PRODUCT].time, _PRODUCT_SECONDS),
        }
        timers = {
            name: worker.time if name == PRODUCT else _timer(worker)
            for name, worker in workers.items()
        }
        with progress(len(workers) * (plan.rounds + 1), f"evaluating {plan.task}", "block") as bar:
            for name, worker in workers.items():
                # our first run makes the environments, one for each episode
                worker.time(counts[name] if name not in sides or name == evaluation.OURS else 1)
                bar.update()
            times = take_turns(timers, counts, plan.rounds, bar.update)
        about = workers[evaluation.OURS].about()
        memory = {name: workers[name].memory() for name in sides}
    for name in (*sides, SIMULATOR):
        # a timer gives seconds for each step, and take_turns divides by the count
        times[name] = [s * counts[name] for s in times[name]]
    row = {
        "task": plan.task,
        "title": title(plan),
        **_limits(plan, about, times),
        "sides": {
            name: {"ours": name == evaluation.OURS, "seconds": times[name], "memory": memory[name]}
            for name in sides
        },
    }
    for side in row["sides"].values():
        side["of_limit"] = ratio(side["seconds"], row["limit_seconds"])
    mine = row["sides"][evaluation.OURS]
    mine["ratios"] = {
        name: {**ratio(mine["seconds"], times[name]), "interleaved": True}
        for name in sides
        if name != evaluation.OURS
    }
    sizes = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name != "peers"}
    say(evaluation_text(row))
    return {
        "kind": "evaluation",
        "environment": environment(),
        "machine": machine(),
        "plan": sizes,
        "peers": {peer.name: {"revision": peer.revision()} for peer in plan.peers},
        "rows": [row],
    }


def _limits(plan: Plan, about: Data, times: Mapping[str, Sequence[float]]) -> Data:
    """The seconds of one environment step that nothing can be faster than, round by round.

    They come from those of the bare simulator on all cores and those of the bare products of one
    decision, averaged over the test budgets: their sum where the same cores do both, and the larger
    where a GPU multiplies meanwhile.
    """
    dims: Data = {name: about[name] for name in ("observation_dim", "action_dim")}
    works = [dataclasses.replace(plan.work(n), **dims) for n in evaluation.STEPS]
    flops = statistics.mean(decision_flops(work) for work in works)
    m, k = plan.episodes * plan.particles, plan.width
    simulator = [s / (machine()["cores"] or 1) for s in times[SIMULATOR]]
    products = [flops / (Product(m, k, k).flops / s) for s in times[PRODUCT]]
    join = operator.add if about["device"] == "cpu" else max
    together = [join(a, b) for a, b in zip(simulator, products, strict=True)]
    return {
        "flops": flops,
        "simulator_seconds": simulator,
        "products_seconds": products,
        "limit_seconds": together,
    }


def title(plan: Plan) -> str:
    """What is evaluated, for people."""
    cut = "" if plan.decisions is None else f" of {plan.decisions} decisions at most"
    return (
        f"{plan.task}, {plan.episodes} episodes{cut} x {len(evaluation.STEPS)} test budgets, "
        f"{plan.depth} x {plan.width}, N {plan.particles}, K {plan.sampling_steps}"
    )


def _timer(worker: Worker) -> Timer:
    """A timer that gives the seconds of one environment step."""

    def timer(count: int) -> float:
        before = worker.about()["taken"]
        seconds = worker.time(count)
        return seconds / int(worker.about()["taken"] - before)

    return timer


def _start(plan: Plan, stack: ExitStack) -> dict[str, Worker]:
    """A worker for each side, for the bare simulator and for bare products."""
    options: dict[str, Any] = {
        name: getattr(plan, name)
        for name in ("task", "depth", "width", "particles", "sampling_steps", "decisions")
    }
    workers = {evaluation.OURS: stack.enter_context(Worker("vgf"))}
    workers[evaluation.OURS].start(
        evaluation.__name__,
        side=evaluation.OURS,
        backend=plan.backend,
        workers=plan.workers,
        **options,
    )
    for peer in plan.peers:
        worker = workers[peer.name] = stack.enter_context(Worker(peer.name, peer.python))
        try:
            worker.start(evaluation.__file__, side=str(peer.checkout), **options)
        except MissingPackageError as error:
            raise peer.lacks(error.package) from error
    bare = workers[SIMULATOR] = stack.enter_context(Worker(SIMULATOR))
    bare.start(roofs.__name__, what="steps", task=plan.task)
    on_cpu = workers[evaluation.OURS].about()["device"] == "cpu"
    product = workers[PRODUCT] = stack.enter_context(Worker(PRODUCT))
    product.start(
        roofs.__name__,
        what=PRODUCT,
        library="numpy" if on_cpu else plan.backend,
        m=plan.episodes * plan.particles,
        k=plan.width,
        device="cpu" if on_cpu else "auto",
        dtype="float32",
        matmul_precision="float32",
    )
    return workers


def evaluation_text(row: Data) -> str:
    """One task as a table of its sides, in 80 columns."""
    from ..support.tables import format_table
    from .training import spell_ratio

    lines = []
    for name, side in row["sides"].items():
        line = {
            "": "vgf" if side["ours"] else name,
            "ms a step": f"{1e3 * statistics.median(side['seconds']):.4g}",
            "steps/s": f"{1 / statistics.median(side['seconds']):,.4g}",
            "of limit": f"{100 * side['of_limit']['median']:.0f} %",
        }
        for peer, found in side.get("ratios", {}).items():
            line[f"x {peer}"] = spell_ratio(found)
        lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    table = format_table([{name: line.get(name, "") for name in names} for line in lines])
    simulator, products, both = (
        f"{1 / statistics.median(row[f'{name}_seconds']):,.4g}"
        for name in ("simulator", "products", "limit")
    )
    return (
        f"{row['title']}\nsteps/s: the simulator alone, on all cores, {simulator}; the policy's "
        f"products\nalone {products}; the limit {both}\n{table}\n"
    )

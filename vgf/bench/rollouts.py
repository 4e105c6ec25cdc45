"""Evaluation beside its peers and beside the bare simulator, all in one run, by turns."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..checkpoint import environment
from ..errors import VGFError
from ..metrics import progress
from . import evaluation, roofs
from .interleave import MissingPackageError, Timer, Worker, ratio, take_turns
from .machine import machine
from .training import Data, Peer, Say

SIMULATOR = "simulator"
_BARE_STEPS = 500


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
        timers = {name: _timer(worker) for name, worker in workers.items()}
        counts = dict.fromkeys(workers, plan.episodes) | {SIMULATOR: _BARE_STEPS}
        with progress(len(workers) * (plan.rounds + 1), f"evaluating {plan.task}", "block") as bar:
            for name, worker in workers.items():
                # ours makes its environments for as many episodes as it is asked for first
                worker.time(counts[name] if name in (evaluation.OURS, SIMULATOR) else 1)
                bar.update()
            raw = take_turns(timers, counts, plan.rounds, bar.update)
        memory = {name: worker.memory() for name, worker in workers.items()}
    # a timer gives seconds for each step, and take_turns divides by the count
    times = {name: [s * counts[name] for s in seconds] for name, seconds in raw.items()}
    sizes = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name != "peers"}
    bare = [s / (machine()["cores"] or 1) for s in times.pop(SIMULATOR)]
    sides: Data = {}
    for name, seconds in times.items():
        sides[name] = {"ours": name == evaluation.OURS, "seconds": seconds,
                       "memory": memory[name], "of_limit": ratio(seconds, bare)}  # fmt: skip
    mine = sides[evaluation.OURS]
    mine["ratios"] = {
        name: {**ratio(mine["seconds"], side["seconds"]), "interleaved": True}
        for name, side in sides.items() if name != evaluation.OURS
    }  # fmt: skip
    found: Data = {
        "kind": "evaluation", "environment": environment(), "machine": machine(), "plan": sizes,
        "peers": {peer.name: {"revision": peer.revision()} for peer in plan.peers},
        "rows": [{"task": plan.task, "title": title(plan), "limit_seconds": bare, "sides": sides}],
    }  # fmt: skip
    say(evaluation_text(found["rows"][0]))
    return found


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
    """A worker for each side, and one for the bare simulator."""
    options: dict[str, Any] = {
        name: getattr(plan, name)
        for name in ("task", "depth", "width", "particles", "sampling_steps", "decisions")
    }
    workers = {evaluation.OURS: stack.enter_context(Worker("vgf"))}
    workers[evaluation.OURS].start(
        evaluation.__name__, side=evaluation.OURS, backend=plan.backend, workers=plan.workers,
        **options,
    )  # fmt: skip
    for peer in plan.peers:
        worker = workers[peer.name] = stack.enter_context(Worker(peer.name, peer.python))
        try:
            worker.start(evaluation.__file__, side=str(peer.checkout), **options)
        except MissingPackageError as error:
            raise peer.lacks(error.package) from error
    bare = workers[SIMULATOR] = stack.enter_context(Worker(SIMULATOR))
    bare.start(roofs.__name__, what="steps", task=plan.task)
    return workers


def evaluation_text(row: Data) -> str:
    """One task as a table of its sides, in 80 columns."""
    from ..report import format_table
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
    bare = 1 / statistics.median(row["limit_seconds"])
    return f"{row['title']}\nthe simulator alone, on all cores: {bare:,.4g} steps/s\n{table}\n"

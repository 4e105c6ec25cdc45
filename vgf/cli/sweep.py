"""`vgf sweep`: many runs, on this machine or a cluster."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support.errors import VGFError
from ..support.interrupts import Interrupted
from . import COMMANDS

if TYPE_CHECKING:
    from ..runs.config import RunConfig
    from ..sweep.estimate import Cost
    from ..sweep.folder import Cell

ENGINES = ("local", "ray", "slurm")


def main(words: list[str]) -> int:
    from ..support.parser import Parser
    from ..sweep.folder import forget_failures, record, states, summary, write_cells
    from ..sweep.spec import read_spec

    parser = Parser(
        prog="vgf sweep",
        usage="vgf sweep SPEC.toml [flags]\n       vgf sweep --status DIR",
        description=f"{COMMANDS['sweep']}.\n"
        "Given again, the same command goes on where the sweep stopped.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", metavar="SPEC.toml", nargs="?", type=Path, help="what to run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the sweep's folder [runs/SPEC]")
    parser.add_argument("--dry-run", action="store_true", help="show the runs and their cost only")
    parser.add_argument("--status", metavar="DIR", type=Path, help="where a sweep is, only")
    parser.add_argument("--retry-failed", action="store_true", help="try failed runs again")
    parser.add_argument(
        "--estimate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure hours and disk first",
    )
    parser.add_argument("--engine", choices=ENGINES, default="local", help="where to run [local]")
    parser.add_argument(
        "--jobs", metavar="N", type=int, help="at a time [what memory and cores allow; 1 on a GPU]"
    )
    parser.add_argument("--cores", metavar="N", type=int, default=1, help="of each job [1]")
    parser.add_argument("--gpus", metavar="X", type=float, default=0, help="of each job on Ray [0]")
    parser.add_argument(
        "--together",
        action=argparse.BooleanOptionalAction,
        help="seeds side by side in one job [where JAX has a GPU]",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of a Ray cluster, or auto [a new one on this machine]",
    )
    parser.add_argument(
        "--send-back",
        action="store_true",
        help="Ray's nodes do not share the folder: send runs back at every checkpoint",
    )
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="options of submitit, e.g. slurm_partition=gpu timeout_min=600",
    )
    args = parser.parse_args(words)
    if args.status is not None:
        print_status(states(args.status), args.status)
        return 0
    if args.spec is None:
        raise VGFError("vgf sweep: name a file, SPEC.toml; --help shows one")
    for name in ("jobs", "cores"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise VGFError(f"vgf sweep: --{name} is {getattr(args, name)}; it must be 1 or more")
    # programs share a GPU's memory, this one included, which only measures
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cells = read_spec(args.spec)
    _check_tasks(cells, args.spec)
    folder = args.out or Path("runs") / args.spec.stem
    _show(cells)
    costs = _costs(cells) if args.estimate else {}
    on_gpu = _on_gpu(cells) if args.engine == "local" else set()
    jobs = _jobs_at_once(args, costs, len(cells), bool(on_gpu))
    together = "jax" in on_gpu if args.together is None else args.together
    if on_gpu and args.jobs is None:
        seeds = ", seeds side by side" if together else ""
        print(f"on the GPU one job at a time{seeds}; --jobs N for more, --engine ray for more GPUs")
    if costs:
        _show_costs(costs, jobs)
    if args.dry_run:
        return 0
    write_cells(folder, cells)
    print(f"sweep folder: {folder}", flush=True)
    if args.retry_failed:
        again = forget_failures(folder)
        record(folder, [f"{name}: to be tried again" for name in again])
    over = ("finished", "failed")
    pending = [cell.name for cell in states(folder) if cell.state not in over]
    if pending:
        data = _make_data({name: cells[name] for name in pending}, folder)
        pending = [name for name in pending if name not in data]
    try:
        if pending:
            _run(args, folder, _grouped(cells, pending, together), jobs)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; continue with: vgf sweep {args.spec} --out {folder}") from None
    found = states(folder)
    record(folder, [summary(found)])
    print_status(found, folder)
    _report(folder)
    return 0 if all(cell.state == "finished" for cell in found) else 1


def _run(args: Any, folder: Path, jobs: list[list[str]], at_once: int) -> None:
    from ..support.progress import progress
    from ..sweep.engines import run_local, run_ray, run_slurm
    from ..sweep.folder import record, state_of, updates_done

    cells = [state_of(folder, name) for job in jobs for name in job]
    known = {cell.name: cell for cell in cells if cell.state not in ("finished", "failed")}
    total, before = (sum(getattr(c, k) for c in known.values()) for k in ("updates", "done"))
    with progress(total, "sweep", "update", before) as bar:
        told = before

        def look() -> None:
            nonlocal told
            done = 0
            for name, cell in known.items():
                if cell.state in ("stopped", "not started"):
                    now = updates_done(folder / "runs" / name)
                    failed = (folder / "failed" / f"{name}.txt").is_file()
                    if failed or now >= cell.updates:
                        known[name] = fresh = state_of(folder, name)
                        if fresh.state in ("finished", "failed"):
                            line = f"{name}: {fresh.state}" + (
                                f": {fresh.why}" if fresh.why else ""
                            )
                            record(folder, [line])
                            bar.write(_short(line))
                    done += now
                else:
                    done += cell.updates
            bar.update(max(0, done - told))
            told = max(told, done)

        if args.engine == "local":
            run_local(folder, jobs, at_once, args.cores, look)
        elif args.engine == "ray":
            run_ray(folder, jobs, args.address, args.cores, args.gpus, args.send_back, look)
        else:
            run_slurm(folder, jobs, at_once, args.cores, _options(args.slurm), look)
        look()


def print_status(cells: Sequence[Cell], folder: Path) -> None:
    """Every run once, the finished ones as a number, and how the sweep stands."""
    from ..support.tables import format_table
    from ..sweep.folder import FINISHED, summary

    rest = [cell for cell in cells if cell.state != FINISHED]
    if rest:
        rows = [
            {"run": _short(cell.name, 44), "state": cell.state, "updates": f"{cell.done:,}"}
            for cell in rest
        ]
        print(format_table(rows))
        for cell in rest:
            if cell.why:
                words = f"{cell.name}: {cell.why}"
                print(textwrap.fill(words, 79, subsequent_indent="  ", break_on_hyphens=False))
    print(summary(cells))
    if any(cell.state == "failed" for cell in cells):
        print("--retry-failed tries failed runs again; logs/ in the folder has what they said")
    if any(cell.state == FINISHED for cell in cells):
        print(f"compare them with: vgf compare {folder}")


def _check_tasks(cells: Mapping[str, RunConfig], spec: Path) -> None:
    """Refuse a name that no benchmark has, before anything is made."""
    from ..benchmarks import find_task

    for env, data_dir in {(cell.task.env, cell.task.data_dir) for cell in cells.values()}:
        try:
            find_task(env, data_dir)
        except VGFError as error:
            raise VGFError(f"{spec}: {error}") from error


def _show(cells: Mapping[str, RunConfig]) -> None:
    from ..support.objects import short_names
    from ..support.tables import counted

    tasks = list(dict.fromkeys(str(c.task.env) for c in cells.values()))
    methods = short_names(list(dict.fromkeys(c.agent.method for c in cells.values())))
    seeds = sorted({c.seed for c in cells.values()})
    updates = sorted({c.updates for c in cells.values()})
    some = [*tasks[:6], *([f"and {len(tasks) - 6} more"] if len(tasks) > 6 else [])]
    for line in (
        f"{counted(len(cells), 'run')}: {counted(len(tasks), 'task')}, "
        f"{counted(len(methods), 'method')}, {counted(len(seeds), 'seed')}",
        f"tasks: {', '.join(some)}",
        f"methods: {', '.join(methods.values())}",
        f"seeds: {', '.join(map(str, seeds))}; updates: {', '.join(f'{n:,}' for n in updates)}",
    ):
        print(textwrap.fill(line, 79, subsequent_indent="  ", break_on_hyphens=False))


def _costs(cells: Mapping[str, RunConfig]) -> dict[str, Cost]:
    from ..sweep.estimate import estimate

    print("measuring: a few seconds for each task and method", flush=True)
    return estimate(cells)


def _show_costs(costs: Mapping[str, Cost], jobs: int) -> None:
    hours = sum(cost.seconds for cost in costs.values()) / 3600
    evaluating = sum(cost.evaluation for cost in costs.values()) / 3600
    disk = sum(cost.disk for cost in costs.values()) / 1e9
    longest = max(cost.seconds for cost in costs.values()) / 3600
    here = max(hours / jobs, longest)
    line = (
        f"estimate for this machine: {hours:.3g} hours of one core, {evaluating:.3g} of them "
        f"evaluation; {here:.3g} hours with {jobs} at a time; {disk:.3g} GB of disk"
    )
    print(textwrap.fill(line, 79, subsequent_indent="  "), flush=True)


def _jobs_at_once(args: Any, costs: Mapping[str, Cost], runs: int, on_gpu: bool) -> int:
    """As many as cores and memory allow; one on a GPU, which one agent of full size fills."""
    from ..support.memory import free_memory
    from ..support.processes import usable_cores

    if args.jobs is not None:
        return int(args.jobs)
    if on_gpu:
        return 1
    free = free_memory()
    by_cores = usable_cores() // args.cores
    each = max((cost.memory for cost in costs.values()), default=1.5e9)
    by_memory = by_cores if free is None or args.engine != "local" else int(free // each)
    return max(1, min(by_cores, by_memory, runs)) if args.engine == "local" else runs


def _on_gpu(cells: Mapping[str, RunConfig]) -> set[str]:
    """The backends, of those that the runs ask for, that compute on a GPU of this machine."""
    from ..runs.agent import make_backend

    backends = [make_backend(settings) for settings in {cell.backend for cell in cells.values()}]
    return {backend.name for backend in backends if backend.device != "cpu"}


def _grouped(
    cells: Mapping[str, RunConfig], names: Sequence[str], together: bool
) -> list[list[str]]:
    """Jobs: each run alone, or with all that differ from it in their seed only.

    Those that have ended are among them: a run's last bit depends on how many there are.
    """
    from ..support.settings_tree import short_hash, to_dict

    jobs: dict[str, list[str]] = {}
    for name in cells if together else names:
        same = short_hash({**to_dict(cells[name]), "seed": 0})
        jobs.setdefault(same if together else name, []).append(name)
    return [job for job in jobs.values() if set(job) & set(names)]


def _make_data(cells: Mapping[str, RunConfig], folder: Path) -> set[str]:
    """Make or find every task's data once; returns the runs whose data cannot be had."""
    from ..runs.task import load_task
    from ..sweep.folder import record
    from ..sweep.worker import fail

    lost: set[str] = set()
    made: dict[str, str | None] = {}
    for name, config in cells.items():
        key = repr(config.task)
        if key not in made:
            try:
                load_task(config)
                made[key] = None
            except VGFError as error:
                made[key] = str(error)
        if made[key] is not None:
            fail(folder, name, made[key])
            record(folder, [f"{name}: failed: {made[key]}"])
            lost.add(name)
    return lost


def _report(folder: Path) -> None:
    from ..runs.report import report

    try:
        print(f"list: {report(folder)}")
    except VGFError:
        return  # no run has a row yet


def _options(words: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise VGFError(f"vgf sweep: --slurm {word}: write KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def _short(text: str, width: int = 79) -> str:
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[:half]}...{text[-half:]}"


_EXAMPLE = """\
SPEC.toml:
  tasks = ["cube-single-play-singletask-task2-v0"]
  methods = ["vgf", "fql"]
  seeds = 8                   # 0 to 7; or a list
  [settings]                  # of every run, as for vgf run --config
  train = { steps = 100_000 }
  [grid]                      # lists: every combination
  "agent.budget.step_size" = [0.05, 0.1]

Instead of tasks, presets = "ogbench-avgf" takes a family of the paper's tasks
(d4rl-vgf, d4rl-avgf, ogbench-vgf, ogbench-avgf), or a list of presets.
Exit status: 0 if every run finished, 1 if not."""

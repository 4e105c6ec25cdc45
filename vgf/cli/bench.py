"""`vgf bench`: how fast it is, compared with others and with the machine's limit."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..support.errors import VGFError
from . import COMMANDS

KINDS = {
    "training": "updates (the default)",
    "evaluation": "episodes at four test budgets",
    "startup": "import, help, the first update of a run, its report, a check",
    "memory": "peak memory against the size of the data",
}
_EPILOG = """\
vgf bench training (the default), evaluation, startup or memory; each has its
own --help.

Ours, the peers and bare matrix products each run in a separate process and
take turns in short timed blocks. A ratio compares blocks of the same round; the
table has its median, lowest and highest. Above 1, ours is faster.

examples:
  vgf bench
  vgf bench --work recorded --peer ryanxhr/vgf=../authors
  vgf bench --method avgf --backend torch --matmul-precision bf16
  vgf bench --device gpu --matmul-precision float32 tf32 --seeds 1 8
  vgf bench --method mine.py:MyMethod --backend torch jax
  vgf bench --profile
  vgf bench evaluation --peer ryanxhr/vgf=../authors --peer-python py/bin/python
"""
_SIZES = {
    "method": "or your own: module:class or path/to/file.py:class",
    "observation_dim": "size of an observation, o",
    "action_dim": "size of an action, d",
    "depth": "hidden layers of every network",
    "width": "units in each",
    "batch_size": "transitions in an update, B",
    "sampling_steps": "Euler steps of the reference, K",
    "particles": "particles, N",
    "steps": "flow steps in training, L",
    "seeds": "agents of ours trained together, one or several numbers; peers train one",
    "transitions": "rows of the data",
}
_AGENT = ("depth", "width", "sampling_steps", "particles")  # of them, those that acting needs
TASK = "pointmaze-medium-navigate-singletask-task1-v0"


def main(words: list[str]) -> int:
    named = bool(words) and not words[0].startswith("-")
    kind, rest = (words[0], words[1:]) if named else ("training", words)
    if kind not in KINDS:
        from ..support.suggestions import nearest

        near = nearest(kind, KINDS)
        hint = f"did you mean {near}?" if near else f"choose one of {', '.join(KINDS)}"
        raise VGFError(f"vgf bench: unknown measurement {kind}; {hint}")
    measure = {
        "training": _training,
        "startup": _startup,
        "evaluation": _evaluation,
        "memory": _memory,
    }[kind]
    return measure(rest)


def _say(text: str) -> None:
    print(text, flush=True)


# --- training and startup ------------------------------------------------------------------------


def _training(words: list[str]) -> int:
    parser = _parser("training")
    _add_sizes(parser)
    sides = parser.add_argument_group("who is timed")
    _add_backends(sides)
    _add_peers(sides)
    sides.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="a record (--out) made on this machine, for peers that are not here",
    )
    computing = parser.add_argument_group("device and precision")
    _add_computing(computing)
    computing.add_argument(
        "--peer-matmul-precision", choices=_precisions(), help="[as --matmul-precision]"
    )
    how = _add_how(parser, rounds=7)
    how.add_argument("--profile", action="store_true", help="where the time of one update goes")
    how.add_argument(
        "--block-seconds", type=float, default=1.0, metavar="X", help="seconds of a turn [1]"
    )
    how.add_argument(
        "--plot", type=Path, metavar="STEM", help="draw the roofline into STEM.svg and .png"
    )
    args = parser.parse_args(words)
    if args.profile and (args.plot or args.peer or args.against):
        raise VGFError("vgf bench: --profile times ours alone; drop --peer, --against and --plot")
    if args.dtype == "float64" and (args.peer or args.against):
        raise VGFError("vgf bench: the peers compute in float32; drop --dtype float64 or --peer")
    _check_places(args.out, args.plot)
    plan = _plan(args)
    if args.profile:
        from ..bench import profile

        return _keep(profile.measure(plan, _say), args.out)
    from ..bench import training

    record = training.measure(plan, _say)
    if args.plot:
        from ..bench.roofline import save

        save(record, args.plot)
        print(f"figure: {args.plot}.svg, .png")
    return _keep(record, args.out)


def _startup(words: list[str]) -> int:
    from ..bench import startup

    parser = _parser("startup")
    _add_sizes(parser)
    _add_backends(parser.add_argument_group("who is timed"))
    _add_computing(parser.add_argument_group("device and precision"))
    _add_how(parser, rounds=5)
    args = parser.parse_args(words)
    _check_places(args.out)
    return _keep(startup.measure(_plan(args), _say), args.out)


def _plan(args: argparse.Namespace) -> Any:
    """The plan that the flags of training or startup describe."""
    from ..bench.ours import OURS
    from ..bench.training import Plan, default_sides, peer_from_flag, read_against
    from ..bench.work import NAMED, SMOKE, choose, fixed_sizes

    if args.rounds < 1:
        raise VGFError(f"--rounds is {args.rounds}; it must be 1 or more")
    changes = _sizes_given(args, _SIZES)
    seeds = changes.pop("seeds", [1])
    if args.quick:
        if args.work:
            raise VGFError("vgf bench: --quick has its own sizes; drop --work")
        fixed = fixed_sizes(args.method or SMOKE.method)
        works = [dataclasses.replace(SMOKE, **{**fixed, **changes})]
    else:
        works = choose(list(NAMED) if args.work == ["recorded"] else args.work, changes)
    works = [dataclasses.replace(work, seeds=n) for work in works for n in dict.fromkeys(seeds)]
    sides = list(dict.fromkeys(args.backend or default_sides()))
    if "numpy" in sides:
        _check_specifications(works)
    plan = Plan(
        works=works,
        sides=sides,
        device=args.device,
        dtype=args.dtype,
        matmul_precisions=list(dict.fromkeys(args.matmul_precision)),
        rounds=args.rounds,
    )
    if hasattr(args, "peer"):
        if not args.block_seconds > 0:
            raise VGFError(f"--block-seconds is {args.block_seconds}; it must be above 0")
        python = args.peer_python or sys.executable
        plan = dataclasses.replace(
            plan,
            peers=[peer_from_flag(text, python) for text in args.peer],
            against=None if args.against is None else read_against(args.against),
            peer_matmul_precision=args.peer_matmul_precision,
            block_seconds=args.block_seconds,
        )
    if args.quick:
        plan = dataclasses.replace(
            plan,
            rounds=min(args.rounds, 3),
            block_seconds=0.02,
            roof_sizes=(1 << 20, 1 << 16),
            libraries=sorted({OURS[side][0] for side in sides}),
        )
    return plan


def _check_specifications(works: Iterable[Any]) -> None:
    """Check that NumPy can run the methods, before anything is measured."""
    from ..spec.update import specification

    for work in works:
        try:
            specification(work.settings())
        except ValueError as error:
            raise VGFError(str(error)) from error


# --- evaluation and memory -----------------------------------------------------------------------


def _evaluation(words: list[str]) -> int:
    from ..backends import available_backends
    from ..bench import rollouts
    from ..bench.training import peer_from_flag

    parser = _parser("evaluation")
    sizes = parser.add_argument_group("the agent")
    _add_flags_of_sizes(sizes, _AGENT)
    parser.add_argument("--task", default=TASK, metavar="NAME", help=f"OGBench's [{TASK}]")
    parser.add_argument(
        "--episodes", type=int, default=50, metavar="N", help="at each test budget [50]"
    )
    parser.add_argument("--decisions", type=int, metavar="N", help="end episodes after N decisions")
    parser.add_argument("--workers", type=int, metavar="N", help="processes of environments")
    parser.add_argument(
        "--backend",
        choices=available_backends(),
        default=available_backends()[-1],
        help="which of ours [the fastest here]",
    )
    _add_peers(parser)
    _add_how(parser, rounds=3)
    args = parser.parse_args(words)
    _check_places(args.out)
    python = args.peer_python or sys.executable
    changes = _sizes_given(args, _AGENT)
    plan = rollouts.Plan(
        args.task,
        [peer_from_flag(text, python) for text in args.peer],
        args.backend,
        args.episodes,
        args.decisions,
        rounds=args.rounds,
        workers=args.workers,
        **changes,
    )
    if args.quick:
        plan = dataclasses.replace(
            plan,
            episodes=2,
            decisions=5,
            rounds=min(args.rounds, 2),
            **{"depth": 2, "width": 16, "particles": 3, "sampling_steps": 2, **changes},
        )
    return _keep(rollouts.measure(plan, _say), args.out)


def _memory(words: list[str]) -> int:
    from ..bench.memory import ROWS, measure, table_rows
    from ..runs.folder import environment
    from ..support.progress import progress
    from ..support.tables import format_table

    parser = _parser("memory")
    parser.add_argument(
        "--transitions", type=int, nargs="+", default=ROWS, metavar="N", help="rows of the data"
    )
    parser.add_argument("--observation-dim", type=int, default=28, metavar="N", help="o [28]")
    parser.add_argument("--action-dim", type=int, default=5, metavar="N", help="d [5]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all of it as JSON")
    parser.add_argument("--quick", action="store_true", help="1,000 rows, to see that it runs")
    args = parser.parse_args(words)
    _check_places(args.out)
    from ..bench.machine import machine

    sizes = [1_000] if args.quick else args.transitions
    if min(sizes) < 1:
        raise VGFError(f"--transitions is {min(sizes)}; it must be 1 or more")
    rows = []
    with progress(2 * len(sizes), "memory", "size") as bar:
        for size in sizes:
            for place in ("memory", "mapped"):
                rows.append(measure(size, args.observation_dim, args.action_dim, place))
                bar.update()
    print(format_table(table_rows(rows)))
    record = {"kind": "memory", "environment": environment(), "machine": machine(), "rows": rows}
    return _keep(record, args.out)


# --- shared --------------------------------------------------------------------------------------


def _parser(kind: str) -> argparse.ArgumentParser:
    from ..support.parser import Parser

    about = f"{COMMANDS['bench'][0].upper()}{COMMANDS['bench'][1:]}"
    return Parser(
        prog=f"vgf bench {kind}",
        usage=f"vgf bench {kind} [flags]",
        epilog=_EPILOG,
        description=textwrap.fill(f"{about}: {KINDS[kind]}.", 80),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _precisions() -> tuple[str, ...]:
    from ..backends import MATMUL_PRECISIONS

    return MATMUL_PRECISIONS


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    from ..bench.work import FULL

    sizes = parser.add_argument_group("sizes of one update")
    sizes.add_argument(
        "--work",
        nargs="+",
        metavar="NAME",
        help=f"sizes by name, such as {FULL.name} (the default); recorded: all recorded ones",
    )
    _add_flags_of_sizes(sizes, _SIZES)


def _add_flags_of_sizes(group: Any, names: Iterable[str]) -> None:
    from ..bench.work import FULL
    from ..methods import method_names

    about = {**_SIZES, "method": f"{', '.join(method_names())}, {_SIZES['method']}"}
    for name in names:
        more: dict[str, Any] = {} if name == "method" else {"type": int}
        if name == "seeds":
            more["nargs"] = "+"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="NAME" if name == "method" else "N",
            help=f"{about[name]} [{getattr(FULL, name)}]",
            **more,
        )


def _sizes_given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The flags of :func:`_add_flags_of_sizes` that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _add_backends(group: Any) -> None:
    from ..bench.ours import OURS

    group.add_argument(
        "--backend",
        nargs="+",
        choices=OURS,
        metavar="NAME",
        help=f"which of ours: {', '.join(OURS)} [those installed, without torch-eager]",
    )


def _add_peers(group: Any) -> None:
    group.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="OWNER/NAME=PATH",
        help="a checkout of other code: ryanxhr/vgf or seohongpark/fql",
    )
    group.add_argument(
        "--peer-python", metavar="FILE", help="the Python that has the packages of the peers"
    )


def _add_computing(group: Any) -> None:
    from ..backends import DTYPES

    group.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:<index>")
    group.add_argument("--dtype", choices=DTYPES, default="float32")
    group.add_argument(
        "--matmul-precision",
        nargs="+",
        choices=_precisions(),
        default=["float32"],
        help="one or several of float32, tf32 (a GPU's) and bf16 [float32]",
    )


def _add_how(parser: argparse.ArgumentParser, rounds: int) -> Any:
    how = parser.add_argument_group("how")
    how.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help=f"rounds of turns [{rounds}]"
    )
    how.add_argument("--quick", action="store_true", help="tiny and short, to see that it runs")
    how.add_argument("--out", type=Path, metavar="FILE", help="write all of it as JSON")
    return how


def _check_places(*places: Path | None) -> None:
    """Check that files can be written, before anything is measured."""
    from ..support.files import check_writable

    for place in places:
        if place is not None:
            check_writable(place.parent)


def _keep(record: dict[str, Any], out: Path | None) -> int:
    """Write a record, if --out names a file."""
    from ..support.files import write_atomically

    if out is not None:
        write_atomically(out, json.dumps(record, indent=1, allow_nan=False) + "\n")
        print(f"written to {out}")
    return 0

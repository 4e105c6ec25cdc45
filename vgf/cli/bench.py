"""`vgf bench`: how fast training is, beside others and beside what the machine could do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import VGFError
from . import COMMANDS

_EPILOG = """\
Ours, the peers and bare matrix products are alive at once, each in a process of its own, and
short blocks of each are timed by turns; a ratio is taken between the blocks of one round, and the
table has its median, lowest and highest. Its baseline is always ours: 2 means twice as fast.

examples:
  vgf bench
  vgf bench --work recorded --peer ryanxhr/vgf=../vgf-authors --peer-python ../peers/bin/python
  vgf bench --method avgf --particles 5 --backend torch --matmul-precision bf16
  vgf bench --profile
"""
_SIZES = {
    "method": "vgf, avgf or fql",
    "observation_dim": "size of an observation, o",
    "action_dim": "size of an action, d",
    "depth": "hidden layers of every network",
    "width": "units in each",
    "batch_size": "transitions in an update, B",
    "sampling_steps": "Euler steps of the reference, K",
    "particles": "particles, N",
    "steps": "flow steps in training, L",
    "seeds": "agents trained together",
    "transitions": "rows of the data",
}


def main(words: list[str]) -> int:
    from ..files import check_writable, write_atomically

    parser = _parser()
    args = parser.parse_args(words)
    if args.profile and (args.plot or args.peer or args.against):
        raise VGFError("vgf bench: --profile is of ours alone; drop --peer, --against and --plot")
    for path in filter(None, (args.out, args.plot)):
        check_writable(path.parent)
    if args.profile:
        from ..bench.profile import measure as measure_profile

        record = measure_profile(_plan(args), _say)
    else:
        from ..bench.training import measure

        record = measure(_plan(args), _say)
    if args.out:
        write_atomically(args.out, json.dumps(record, indent=1, allow_nan=False) + "\n")
        print(f"written to {args.out}")
    if args.plot:
        from ..bench.roofline import save

        save(record, args.plot)
        print(f"figure: {args.plot}.svg, .png")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    from ..backends import DTYPES, MATMUL_PRECISIONS
    from ..bench.ours import OURS
    from ..bench.work import FULL
    from ..flags import Parser

    parser = Parser(
        prog="vgf bench", usage="vgf bench [flags]", epilog=_EPILOG,
        description=COMMANDS["bench"][0].upper() + COMMANDS["bench"][1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    sizes = parser.add_argument_group("what one update is of")
    sizes.add_argument(
        "--work", nargs="+", metavar="NAME",
        help=f"sizes by name, as {FULL.name} (the default); recorded: all that are recorded",
    )  # fmt: skip
    for name, text in _SIZES.items():
        number: dict[str, Any] = {} if name == "method" else {"type": int}
        sizes.add_argument(
            f"--{name.replace('_', '-')}", metavar="NAME" if name == "method" else "N",
            help=f"{text} [{getattr(FULL, name)}]", **number,
        )  # fmt: skip
    sides = parser.add_argument_group("who is timed")
    sides.add_argument(
        "--backend", nargs="+", choices=OURS, metavar="NAME",
        help=f"of {', '.join(OURS)} [those installed, without torch-eager]",
    )  # fmt: skip
    sides.add_argument(
        "--peer", action="append", default=[], metavar="OWNER/NAME=PATH",
        help="somebody else's code, as checked out: ryanxhr/vgf or seohongpark/fql",
    )  # fmt: skip
    sides.add_argument("--peer-python", metavar="FILE", help="a Python that has what peers need")
    sides.add_argument(
        "--against", type=Path, metavar="FILE", help="an --out of this machine, for absent peers"
    )
    computing = parser.add_argument_group("on what")
    computing.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:<index>")
    computing.add_argument("--dtype", choices=DTYPES, default="float32")
    computing.add_argument("--matmul-precision", choices=MATMUL_PRECISIONS, default="float32")
    computing.add_argument(
        "--peer-matmul-precision", choices=MATMUL_PRECISIONS, help="[as --matmul-precision]"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--profile", action="store_true", help="where the time of one update goes")
    how.add_argument("--rounds", type=int, default=7, metavar="N", help="of turns [7]")
    how.add_argument(
        "--block-seconds", type=float, default=0.5, metavar="X", help="of a turn [0.5]"
    )
    how.add_argument(
        "--quick", action="store_true", help="a tiny work and short turns: does it run?"
    )
    how.add_argument("--out", type=Path, metavar="FILE", help="write all of it as JSON")
    how.add_argument(
        "--plot", type=Path, metavar="STEM", help="draw STEM.svg and .png: the roofline"
    )
    return parser


def _plan(args: argparse.Namespace) -> Any:
    """What the flags ask for."""
    from ..bench.ours import OURS
    from ..bench.training import Plan, default_sides, peer_from_flag, read_against
    from ..bench.work import NAMED, SMOKE, choose

    if args.rounds < 1:
        raise VGFError(f"--rounds is {args.rounds}; it must be 1 or more")
    if not args.block_seconds > 0:
        raise VGFError(f"--block-seconds is {args.block_seconds}; it must be above 0")
    changes = {name: getattr(args, name) for name in _SIZES if getattr(args, name) is not None}
    if args.quick:
        if args.work:
            raise VGFError("vgf bench: --quick has a work of its own; drop --work")
        fql = {"particles": 1, "steps": 0} if args.method == "fql" else {}
        works = [dataclasses.replace(SMOKE, **{**fql, **changes})]
    else:
        works = choose(list(NAMED) if args.work == ["recorded"] else args.work, changes)
    if args.dtype == "float64" and (args.peer or args.against):
        raise VGFError("vgf bench: the peers compute in float32; drop --dtype float64 or --peer")
    python = args.peer_python or sys.executable
    sides = list(dict.fromkeys(args.backend or default_sides()))
    how: dict[str, Any] = {"rounds": args.rounds, "block_seconds": args.block_seconds}
    if args.quick:
        how = {
            "rounds": min(args.rounds, 3), "block_seconds": 0.02, "roof_sizes": (1 << 20, 1 << 16),
            "libraries": sorted({OURS[side][0] for side in sides}),
        }  # fmt: skip
    return Plan(
        works=works,
        sides=sides,
        peers=[peer_from_flag(text, python) for text in args.peer],
        against=None if args.against is None else read_against(args.against),
        device=args.device,
        dtype=args.dtype,
        matmul_precision=args.matmul_precision,
        peer_matmul_precision=args.peer_matmul_precision or args.matmul_precision,
        **how,
    )

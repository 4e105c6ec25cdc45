"""`vgf vectors`: the specification as data, for implementations in any language."""

from __future__ import annotations

from pathlib import Path

from ..support.errors import VGFError
from . import COMMANDS

_EPILOG = """\
Each equation has a file of inputs, results and tolerances; a vector's flags
name the mistakes that it exposes, and index.json says what each of them is.
schema.json describes the files. Larger arrays stand in a .npz file beside.

examples:
  vgf vectors vectors
  vgf vectors vectors --only phi transport
"""


def main(words: list[str]) -> int:
    import argparse

    from ..support.extras import need
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf vectors",
        usage="vgf vectors FOLDER [--only NAME ...]",
        description=COMMANDS["vectors"][0].upper() + COMMANDS["vectors"][1:] + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--only", metavar="NAME", nargs="+", help="equations; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default 0)")
    args = parser.parse_args(words)
    if args.seed < 0:
        raise VGFError(f"vgf vectors: --seed is {args.seed}; it must be 0 or more")
    need("hypothesis", "testing")
    from .. import spec
    from ..checker.vectors import write_vectors

    made = write_vectors(args.folder, args.only, args.seed)
    count = sum(map(len, made.values()))
    print(
        f"{args.folder}: {count} vectors of {len(made)} equations, specification {spec.__version__}"
    )
    return 0

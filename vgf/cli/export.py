"""`vgf export`: a run's agent as .npz with a README, in a folder or on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from . import COMMANDS


def main(words: list[str]) -> int:
    from ..runs.exchange import export_run
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf export",
        usage="vgf export RUN --out PLACE [flags]",
        description=COMMANDS["export"],
        epilog="PLACE is a new folder, or hf://user/name, to which your Hub account must be able "
        "to write (hf auth login).",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder")
    parser.add_argument("--out", metavar="PLACE", required=True, help="a new folder, or hf://...")
    parser.add_argument(
        "--checkpoint", metavar="UPDATES", type=int, help="which; default: the last one"
    )
    args = parser.parse_args(words)
    print(f"written to {export_run(args.run, args.out, args.checkpoint)}")
    return 0

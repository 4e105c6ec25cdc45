"""`vgf import`: an agent that was exported, or trained by other code, as a run folder."""

from __future__ import annotations

from pathlib import Path

from . import COMMANDS


def main(words: list[str]) -> int:
    from ..runs.exchange import import_run
    from ..runs.foreign import CODES
    from ..support.parser import Parser

    parser = Parser(
        prog="vgf import",
        usage="vgf import PLACE --out RUN [flags]",
        description=COMMANDS["import"],
        epilog="PLACE is a folder that vgf export wrote; a checkpoint params_N.pkl or .msgpack of "
        "the code of VGF, FQL, QAM or QGF, its flags.json beside it; or one of these in a "
        "repository of the Hugging Face Hub, hf://user/name[/file]. Pickles are read as arrays "
        "alone: no code in them is run.",
    )
    parser.add_argument("place", metavar="PLACE")
    parser.add_argument("--out", metavar="RUN", type=Path, required=True, help="new run folder")
    parser.add_argument("--code", metavar="NAME", help=f"whose: {', '.join(CODES)}")
    parser.add_argument("--flags", metavar="FILE", type=Path, help="its flags.json")
    parser.add_argument("--env", metavar="NAME", help="the task; default: the one it names")
    parser.add_argument(
        "--reference", metavar="NETWORK", help="which network becomes the reference"
    )
    args = parser.parse_args(words)
    folder, config = import_run(
        args.place,
        args.out,
        code=args.code,
        flags=args.flags,
        env=args.env,
        reference=args.reference,
    )
    agent = config.agent
    print(f"{folder}: method {agent.method}, for {config.task.env}")
    print(f"vgf eval {folder} --operator best_of_n vgf qgf:weight=0.1")
    return 0

"""`vgf judge`: win rates of what `vgf align` wrote."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import COMMANDS

if TYPE_CHECKING:
    from ..text.judging import Verdict


def main(words: list[str]) -> int:
    from ..runs.flags import Parser
    from ..support.files import write_atomically
    from ..support.tables import format_table
    from ..text.judging import judge, load_judge, methods

    parser = Parser(
        prog="vgf judge",
        usage="vgf judge FILE --judge JUDGE [--judge JUDGE ...] [flags]",
        description=COMMANDS["judge"],
        epilog="A JUDGE is a reward model (folder or name), MODULE:FUNCTION (called with lists of "
        "prompts and of responses), or vader. The win rate leaves ties out.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="what vgf align wrote")
    parser.add_argument("--judge", metavar="JUDGE", action="append", required=True, dest="judges")
    parser.add_argument(
        "--against",
        metavar="METHOD",
        default="base",
        help="base (the first sample), best_of_n, or L=0, L=1, ... [base]",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers too")
    parser.add_argument("--device", default="auto", help="of reward models [auto]")
    parser.add_argument("--dtype", help="of reward models; default: as stored")
    parser.add_argument("--pad-token", metavar="TEXT", help="if a tokenizer has none")
    parser.add_argument(
        "--batch-tokens",
        metavar="N",
        type=int,
        default=4096,
        help="tokens through a model at once [4096]",
    )
    args = parser.parse_args(words)
    methods(args.file)  # before any model is loaded
    judges = {
        place: load_judge(place, args.device, args.dtype, args.pad_token, args.batch_tokens)
        for place in args.judges
    }
    verdicts = judge(args.file, judges, args.against)
    if args.json is not None:
        write_atomically(args.json, json.dumps(list(map(_as_dict, verdicts)), indent=2) + "\n")
    print(f"against {args.against}, {sum(_counts(verdicts[0]))} prompts")
    print(format_table(list(map(_row, verdicts))))
    return 0


def _counts(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.wins, verdict.ties, verdict.losses


def _as_dict(verdict: Verdict) -> dict[str, object]:
    return {**dataclasses.asdict(verdict), "rate": verdict.rate, "interval": verdict.interval}


def _row(verdict: Verdict) -> dict[str, str]:
    rate, bounds = verdict.rate, verdict.interval
    return {
        "judge": verdict.judge,
        "method": verdict.method,
        "wins %": "" if rate is None else f"{100 * rate:.1f}",
        "95 %": "" if bounds is None else "{:.1f} to {:.1f}".format(*(100 * x for x in bounds)),
        "win-tie-loss": "-".join(map(str, _counts(verdict))),
        "mean": f"{verdict.mean:.3g}",
    }

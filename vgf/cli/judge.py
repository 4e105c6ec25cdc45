"""`vgf judge`: win rates of what `vgf align` wrote."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import COMMANDS

if TYPE_CHECKING:
    from ..text.judging import Paired, Verdict


def main(words: list[str]) -> int:
    from ..support.files import check_writable, write_atomically
    from ..support.parser import Parser
    from ..support.tables import format_table
    from ..text.judging import OPENAI, RETRIES, judge, load_judge, paired, read_answers

    parser = Parser(
        prog="vgf judge",
        usage="vgf judge FILE [FILE ...] --judge JUDGE [--judge JUDGE ...] [flags]",
        description=COMMANDS["judge"],
        epilog="Several FILEs are shards or seeds of one job. A JUDGE is a reward model (folder or "
        "name), MODULE:FUNCTION (given prompts and responses, or a prompt and two responses to "
        "compare), openai:MODEL (an OpenAI-compatible endpoint), or vader. A tie is half a win; "
        "intervals and tests are over prompts.",
    )
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="of vgf align")
    parser.add_argument(
        "--judge",
        metavar="JUDGE",
        action="append",
        required=True,
        dest="judges",
        help="who decides, see below; may be given several times",
    )
    parser.add_argument(
        "--against",
        metavar="METHOD",
        default="base",
        help="base (the first sample), best_of_n, L=0, L=1, ..., reference, or a JSONL file of "
        "responses [base]",
    )
    parser.add_argument(
        "--reference-field",
        metavar="NAME",
        default="reference",
        help="of the references in the prompts' lines [reference]",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers too")
    parser.add_argument(
        "--retries", metavar="N", type=int, help="of a judge that fails [2; of an endpoint 5]"
    )
    models = parser.add_argument_group("reward models")
    models.add_argument("--device", default="auto", help="[auto]")
    models.add_argument("--dtype", help="default: as stored")
    models.add_argument("--rm-label", metavar="NAME", help="of a classifier with several outputs")
    models.add_argument("--pad-token", metavar="TEXT", help="if a tokenizer has none")
    models.add_argument(
        "--batch-tokens",
        metavar="N",
        type=int,
        default=4096,
        help="tokens through a model at once [4096]",
    )
    endpoint = parser.add_argument_group("endpoints; the key is in OPENAI_API_KEY")
    endpoint.add_argument("--judge-url", metavar="URL", help="such as http://127.0.0.1:8000/v1")
    endpoint.add_argument(
        "--judge-prompt",
        metavar="PROMPT",
        default="tldr",
        help="tldr, hh, or a file with {prompt}, {a} and {b} [tldr]",
    )
    endpoint.add_argument("--judge-calls", metavar="N", type=int, help="requests at most")
    endpoint.add_argument("--judge-cache", metavar="DIR", type=Path, help="folder of its answers")
    endpoint.add_argument(
        "--judge-timeout", metavar="S", type=float, default=60.0, help="of a request [60]"
    )
    endpoint.add_argument(
        "--judge-workers", metavar="N", type=int, default=8, help="requests at a time [8]"
    )
    args = parser.parse_args(words)
    for flag, value, least in (
        ("--batch-tokens", args.batch_tokens, 1),
        ("--retries", args.retries, 0),
    ):
        if value is not None and value < least:
            parser.error(f"{flag} is {value}; it must be at least {least}")
    if args.json is not None:
        if args.json.is_dir():
            parser.error(f"--json is {args.json}, a folder; name a file")
        check_writable(args.json.parent)
    answers = read_answers(args.files)  # before any model is loaded
    asked = {
        "url": args.judge_url,
        "question": args.judge_prompt,
        "calls": args.judge_calls,
        "cache": args.judge_cache,
        "timeout": args.judge_timeout,
        "workers": args.judge_workers,
    } | ({} if args.retries is None else {"retries": args.retries})
    read = (args.device, args.dtype, args.pad_token, args.batch_tokens, args.rm_label)
    only = len(args.judges) == 1
    judges = {
        place: load_judge(place, *read, only, **(asked if place.startswith(OPENAI) else {}))
        for place in args.judges
    }
    if args.rm_label and not any(getattr(one, "label", None) for one in judges.values()):
        parser.error(f"--rm-label {args.rm_label}: no judge has several outputs; drop it")
    retries = RETRIES if args.retries is None else args.retries
    verdicts = judge(answers, judges, args.against, args.reference_field, retries)
    tests = paired(verdicts)
    print(f"{answers.seen()}")
    print(f"against {args.against}, {len({index for _, index in answers.keys})} prompts")
    print(format_table(list(map(_row, verdicts))))
    if tests:
        print("\ndifferences between methods, by the sign test over prompts")
        print(format_table(list(map(_paired_row, tests))))
    for name in dict.fromkeys(verdict.judge for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.judge == name]
        if lost := sum(verdict.missing for verdict in own):
            every = lost + sum(sum(_counts(verdict)) for verdict in own)
            print(f"{name} could not tell {lost} of {every} pairs")
    if args.json is not None:
        rows = [*map(_as_dict, verdicts), *map(dataclasses.asdict, tests)]
        write_atomically(args.json, json.dumps(rows, indent=2, allow_nan=False) + "\n")
    return 0


def _counts(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.wins, verdict.ties, verdict.losses


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    scores = [value if math.isfinite(value) else None for value in verdict.scores]
    return {
        **dataclasses.asdict(verdict),
        "scores": scores,
        "rate": verdict.rate,
        "interval": verdict.interval,
        "p": verdict.p,
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _row(verdict: Verdict) -> dict[str, str]:
    bounds = verdict.interval
    return {
        "judge": verdict.judge,
        "method": verdict.method,
        "wins %": _percent(verdict.rate),
        "95 %": "" if bounds is None else " to ".join(map(_percent, bounds)),
        "win-tie-loss": "-".join(map(str, _counts(verdict))),
        "p": f"{verdict.p:.2g}",
        "at equal length %": _percent(verdict.controlled),
        "length": "" if verdict.length is None else f"{verdict.length:.0f}",
        "perplexity": "" if verdict.perplexity is None else f"{verdict.perplexity:.3g}",
        "mean": "" if verdict.mean is None else f"{verdict.mean:.3g}",
    }


def _paired_row(test: Paired) -> dict[str, str]:
    return {
        "judge": test.judge,
        "methods": f"{test.method} - {test.other}",
        "wins %": f"{100 * test.difference:+.1f}",
        "p": f"{test.p:.2g}",
    }
